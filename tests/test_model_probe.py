"""Oracle: scikit-learn's regressions on the same features, and the law that a probe leaves the encoder as it was."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from test_model_training import KINDS, toy
from torch.nn import functional

from model.features.fitted import Features
from model.network.network import Head, Network
from model.settings import NetworkSettings, TrainingSettings
from model.target import Target
from model.training.closed_forms.probe import PRIOR_WEIGHT, TANH_INPUT_RMS, fit_probe
from model.training.fit import LabelledRows
from model.training.train import train

SETTINGS = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=16, dropout=0.3)
PROBE = TrainingSettings(probe=True, epochs=0.0)


def answer(task):
    """Toy rows with a truth for `task`, and the target that it makes."""
    table, y = toy()
    random = np.random.default_rng(0)
    truths = {
        "binary": y,
        "multiclass": y + (table["size"] > 1),
        "multilabel": np.stack([y, random.integers(0, 2, len(y))], 1).astype(np.float32),
        "regression": 30 + 5.0 * y,
    }
    return table, truths[task], Target.fit(task, ("a", "b", "c")[: 3 if task == "multiclass" else 2], truths[task])


def probed(task, settings=PROBE):
    table, y, target = answer(task)
    features = Features.fit(KINDS, table, y, task, max_tokens=8)
    start = Network(SETTINGS, features.sizes, target)
    before = {name: weight.clone() for name, weight in start.state_dict().items()}
    encoded = features.encode(table)
    network, history = train(start, features, LabelledRows(encoded, y), LabelledRows(encoded, y), settings)
    return network, history, before


def test_the_head_is_the_logistic_regression_of_what_it_reads():
    random = np.random.default_rng(0)
    pooled = torch.from_numpy(random.normal(size=(300, 8)) * 3).float()
    truth = (pooled[:, 0] + random.normal(size=300) > 0).long() + (pooled[:, 1] > 3)
    head = Head(8, 3, 0.5)
    fit_probe(head, pooled, lambda logits: functional.cross_entropy(logits, truth, reduction="sum"))
    rows = np.tanh(pooled.double() * TANH_INPUT_RMS / pooled.double().square().mean().sqrt()).numpy()
    strength = PRIOR_WEIGHT / (rows**2).sum(1).mean()
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(rows, truth)
    logits = head.eval()(pooled).detach().numpy()
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(-1).numpy(), theirs.predict_proba(rows), atol=2e-3)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_a_probe_alone_moves_no_weight_of_the_encoder_and_learns(task):
    network, history, before = probed(task)
    after = network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("head."))
    assert any(not torch.equal(after[name], before[name]) for name in before if name.startswith("head."))
    blind = {"binary": 0.693, "multiclass": 1.0986, "multilabel": 0.693, "regression": 1.0}[task]
    assert [entry["epoch"] for entry in history] == [0.0]
    assert history[0]["val_loss"] < blind
    assert history[0]["train_loss"] < blind


def test_a_probe_is_the_same_bytes_again():
    first, second = (probed("multiclass")[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_goes_on_from_its_probe():
    """Its first epoch begins where a probe ends, far below what a random head has to offer."""
    settings = {"epochs": 0.1, "learning_rate": 1e-5, "keep": "last"}
    history, alone = (probed("multiclass", TrainingSettings(probe=its, **settings))[1] for its in (True, False))
    assert history[-1]["val_loss"] < alone[-1]["val_loss"] - 0.05
    assert history[-1]["epoch"] > 0


def test_epochs_may_be_none_with_a_probe_only():
    with pytest.raises(ValueError, match="epochs must be above 0"):
        TrainingSettings(epochs=0.0)
    with pytest.raises(ValueError, match=r"epochs\n.*greater than or equal to 0"):
        TrainingSettings(probe=True, epochs=-1.0)
