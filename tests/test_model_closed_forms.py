"""Oracle: the objectives written out with numpy and given to scipy's optimiser, and loops over the definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from model.network.context import Context
from model.network.network import Head
from model.network.wide import Wide
from model.training.closed_forms.context import DIGITS, EXPECTED_EFFECT, fit_context, slopes, variance_between
from model.training.closed_forms.probe import PRIOR_WEIGHT, TANH_INPUT_RMS, fit_probe
from model.training.closed_forms.wide import Bags, fit_mix

RANDOM = np.random.default_rng


def cross_entropy(logits, labels):
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels), reduction="sum")


def test_probe_is_the_minimum_of_its_penalised_loss():
    random = RANDOM(0)
    pooled = random.normal(size=(120, 4)) * 5
    labels = (pooled[:, :2] + random.normal(size=(120, 2)) * 4 > 0).astype(float)
    head = Head(4, 2, 0.0)
    fit_probe(head, torch.from_numpy(pooled).float(), lambda logits: cross_entropy(logits, labels))

    rows = np.tanh(pooled * TANH_INPUT_RMS / np.sqrt((pooled**2).mean()))
    penalty = (rows**2).sum(1).mean() / (2 * PRIOR_WEIGHT)

    def objective(parts):
        weight, bias = parts[:8].reshape(2, 4), parts[8:]
        logits = rows @ weight.T + bias
        return (np.logaddexp(0, logits) - labels * logits).sum() + penalty * (weight**2).sum()

    wanted = minimize(objective, np.zeros(10), tol=1e-10).x
    np.testing.assert_allclose(head.out.weight.detach(), wanted[:8].reshape(2, 4), atol=2e-3)
    np.testing.assert_allclose(head.out.bias.detach(), wanted[8:], atol=2e-3)
    logits = head.eval()(torch.from_numpy(pooled).float()).detach().numpy()
    np.testing.assert_allclose(logits, rows @ wanted[:8].reshape(2, 4).T + wanted[8:], atol=5e-3)


@pytest.mark.parametrize("prior", [1.0, 0.5])
def test_mix_is_the_minimum_of_its_penalised_loss(prior):
    random = RANDOM(1)
    labels = random.integers(0, 2, (60, 1)).astype(float)
    deep, flat = (labels * 2 - 1 + random.normal(size=(60, 1)) * noise for noise in (2.0, 3.0))
    wide = Wide(5, 1)
    fit_mix(wide, torch.from_numpy(deep), torch.from_numpy(flat), lambda logits: cross_entropy(logits, labels), prior)

    def objective(moves):
        logits = prior * (np.exp(moves[0]) * deep + np.exp(moves[1]) * flat)
        return (np.logaddexp(0, logits) - labels * logits).sum() + (moves**2).sum() / 2

    wanted = prior * np.exp(minimize(objective, np.zeros(2), tol=1e-10).x)
    np.testing.assert_allclose(wide.mix, wanted, rtol=1e-4)


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(0.1, 50)), min_size=0, max_size=12))
@settings(max_examples=40, deadline=None)
def test_variance_between_contexts_is_dersimonian_and_lairds(contexts):
    moves, weights = (np.array(column) for column in zip(*contexts, strict=True)) if contexts else (np.empty(0),) * 2
    wanted = 0.0
    if len(contexts) > 1:
        mean = sum(w * m for m, w in contexts) / sum(w for _, w in contexts)
        q = sum(w * (m - mean) ** 2 for m, w in contexts)
        c = sum(w for _, w in contexts) - sum(w**2 for _, w in contexts) / sum(w for _, w in contexts)
        wanted = max(0.0, (q - (len(contexts) - 1)) / c)
    assert variance_between(moves, weights) == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("weights", [None, RANDOM(1).uniform(0.5, 2, 60)])
def test_ridge_by_rows_is_the_ridge_by_steps(weights):
    units = csr_matrix(RANDOM(0).normal(size=(60, 200)) * (RANDOM(2).random((60, 200)) < 0.2))
    outputs, learnt = RANDOM(3).normal(size=(60, 2)), np.arange(60) % 3 > 0
    by_rows = Bags(units, np.ones(200), (units @ units.T).toarray())
    by_steps = Bags(units, np.ones(200), None)
    of_learnt = None if weights is None else weights[learnt]
    for own, other in zip(
        by_rows.fit(outputs, 0.3, weights, 1e-9), by_steps.fit(outputs, 0.3, weights, 1e-9), strict=True
    ):
        np.testing.assert_allclose(own, other, atol=1e-6)
    np.testing.assert_allclose(
        by_rows.predict_unseen(learnt, outputs, 0.3, of_learnt, 1e-9),
        by_steps.predict_unseen(learnt, outputs, 0.3, of_learnt, 1e-9),
        atol=1e-6,
    )


def test_slopes_are_the_minimum_of_a_weighted_ridge():
    random = RANDOM(2)
    contexts, information = random.normal(size=(25, 2)), random.uniform(1, 30, 25)
    moves = contexts @ [0.5, -0.2] + 0.4 + random.normal(size=25) * 0.7
    weights = 1 / (1 / information + variance_between(moves, information))

    def objective(parts):
        errors = moves - parts[0] - contexts @ parts[1:]
        return (weights * errors**2).sum() + (parts[1:] ** 2).sum() / EXPECTED_EFFECT**2

    wanted = minimize(objective, np.zeros(3), tol=1e-12).x[1:]
    np.testing.assert_allclose(slopes(contexts, moves * information, information), wanted, atol=1e-5)


def test_contexts_without_information_change_no_slope():
    random = RANDOM(3)
    contexts, information = random.normal(size=(10, 1)), random.uniform(1, 5, 10)
    score = random.normal(size=10)
    more = np.r_[contexts, [[50.0]]], np.r_[score, 0.0], np.r_[information, 0.0]
    np.testing.assert_allclose(slopes(*more), slopes(contexts, score, information))


def test_context_sums_the_rows_that_agree_in_rounded_columns():
    random = RANDOM(4)
    columns = random.normal(size=(8, 1)).round(DIGITS)[random.integers(0, 8, 90)]
    noisy = columns + random.uniform(-0.2, 0.2, columns.shape) * 10.0**-DIGITS
    scores, informations = random.normal(size=(90, 2)), random.uniform(0.1, 1, (90, 2))
    context = Context(1, 2)
    fit_context(context, noisy.astype(np.float32), scores, informations)
    for output in range(2):
        shared = sorted(set(columns[:, 0]))
        score, information = (
            np.array([sum(part[row, output] for row in range(90) if columns[row, 0] == value) for value in shared])
            for part in (scores, informations)
        )
        wanted = slopes(np.array(shared)[:, None], score, information)
        np.testing.assert_allclose(context.weight[:, output], wanted, rtol=1e-3)
