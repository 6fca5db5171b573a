"""Oracle: scikit-learn's ridge regression with cross-validation, and scores of rows that nobody was fitted to."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV

from model.network.network import Head
from model.target import Target
from model.training.closed_forms.probe import PRIOR_WEIGHT, fit_probe
from model.training.closed_forms.strengths import CHOOSING_ROWS, STRENGTHS, best_strength
from model.training.loss import Loss

LOSS = Loss(target=Target(task="regression"))


def noisy(n, noise, d=60, seed=0):
    """Rows of which one direction says a little: [n, d], [n]."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, d))
    y = (rows[:, 0] + random.normal(0, noise, n)) / np.hypot(1, noise)
    return torch.from_numpy(rows).float(), torch.from_numpy(y).float()


def r2(head, rows, y):
    with torch.no_grad():
        errors = (head.eval()(rows)[:, 0] - y).square().mean()
    return 1 - float(errors / y.var())


def test_head_on_noisy_rows_is_near_a_tuned_ridge():
    (rows, y), (val, y_val), (unseen, truth) = (noisy(n, 2.0, seed=seed) for seed, n in enumerate((90, 40, 4000)))
    strength = best_strength((rows, y, None), (val, y_val), LOSS)
    found = {}
    for tried in (strength, PRIOR_WEIGHT):
        head = Head(rows.shape[1], 1, 0.0)
        fit_probe(head, rows, lambda logits: LOSS(logits, y), tried)
        found[tried] = r2(head, unseen, truth)
    peer = RidgeCV(np.logspace(-1, 4, 20)).fit(rows.numpy(), y.numpy()).score(unseen.numpy(), truth.numpy())
    assert found[PRIOR_WEIGHT] < -0.2, "the strength that was fixed is worse than no model here"
    assert found[strength] > max(0, peer - 0.03)


def test_strength_follows_what_the_rows_can_tell():
    found = [best_strength((*noisy(200, noise), None), noisy(100, noise, seed=1), LOSS) for noise in (0.1, 1.0, 5.0)]
    assert max(STRENGTHS) >= found[0] > found[1] > found[2]


def test_weight_of_a_row_counts_in_the_choice():
    rows, y = noisy(200, 0.1)
    wrong, noise = noisy(200, 5.0, seed=1)
    weights, unseen = torch.cat([torch.full((200,), 2.0), torch.full((200,), 1e-9)]), noisy(100, 1.0, seed=2)
    both = torch.cat([rows, wrong]), torch.cat([y, noise])
    assert best_strength((*both, weights), unseen, LOSS) > best_strength((*both, None), unseen, LOSS)


@pytest.mark.parametrize("n", [1, 2, CHOOSING_ROWS + 1])
def test_too_few_rows_and_many_take_the_strength_that_does_for_all(n):
    rows, y = torch.zeros(n, 2), torch.zeros(n)
    assert best_strength((rows, y, None), (rows[:1], y[:1]), LOSS) == PRIOR_WEIGHT
