"""Oracle: scikit-learn's logistic regression, a grid of temperatures, and laws: order kept, undone is as before."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from test_model_training import SMALL, fresh, prepared, toy  # noqa: F401

from model.evaluation.metrics import evaluate_scores
from model.heads.measures import calibration_error
from model.network.network import Network
from model.network.store import save_model
from model.scoring.scorer import TorchScorer
from model.settings import TrainingSettings
from model.target import Target
from model.training.calibration import calibrated, uncalibrated
from model.training.fit import LabelledRows
from model.training.train import train

BINARY = Target(task="binary", classes=("no", "yes"))
THREE = Target(task="multiclass", classes=("a", "b", "c"))
LABELS = Target(task="multilabel", classes=("x", "y"))


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def overconfident(n, seed=0):
    """Logits of twice the size that is true, and half a unit too high."""
    random = np.random.default_rng(seed)
    true = random.normal(-1, 1, n)
    return torch.from_numpy(2 * true + 0.5)[:, None], (random.random(n) < sigmoid(true)).astype(int)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_binary_scale_and_offset_are_those_of_logistic_regression():
    logits, y = overconfident(5000)
    target = calibrated(BINARY, logits, y)
    theirs = LogisticRegression(C=np.inf).fit(logits.numpy(), y)
    # The prior weighs as much as one row of the five thousand.
    assert target.scale[0] == pytest.approx(theirs.coef_.item(), abs=0.002)
    assert target.offset[0] == pytest.approx(theirs.intercept_.item(), abs=0.002)


def weekly_shifts(n_weeks, n_days=7, n_rows=300, seed=0):
    """Weeks whose base rates differ: [n_weeks] of (logits [n, 1], y [n]), twice as sure as is true."""
    random = np.random.default_rng(seed)
    for _ in range(n_weeks):
        true = random.normal(-1, 1, n_days * n_rows)
        shift = random.normal(0, 0.6)
        yield torch.from_numpy(2 * true)[:, None], (random.random(len(true)) < sigmoid(true + shift)).astype(int)


@pytest.mark.long
def test_offset_of_later_days_observes_days_and_the_scale_observes_rows():
    losses = {None: [], 7: []}
    weeks = list(weekly_shifts(31))
    for (logits, y), (unseen, truth) in pairwise(weeks):
        fitted = {n: calibrated(BINARY, logits, y, n) for n in losses}
        assert abs(fitted[7].offset[0]) < 0.85 * abs(fitted[None].offset[0])
        assert 0.2 < fitted[7].scale[0] < 0.8  # it is 0.5, and takes over a little of what the offset leaves
        for n, target in fitted.items():
            probabilities = sigmoid(unseen[:, 0].numpy() * target.scale[0] + target.offset[0])
            losses[n].append(log_loss(truth, probabilities))
    assert np.mean(losses[7]) < np.mean(losses[None]) - 0.004
    logits, y = weeks[0]
    assert calibrated(BINARY, logits, y, len(y)) == calibrated(BINARY, logits, y)


def test_multiclass_scale_is_the_best_of_a_grid_of_temperatures():
    random = np.random.default_rng(0)
    true = random.normal(0, 1.5, (800, 3))
    y = np.array([random.choice(3, p=row) for row in softmax(true)])
    target = calibrated(THREE, torch.from_numpy(3 * true), y)
    grid = np.geomspace(0.2, 0.6, 60)
    best = grid[np.argmin([log_loss(y, softmax(3 * true * scale), labels=[0, 1, 2]) for scale in grid])]
    assert target.scale == pytest.approx((best,), rel=0.015)
    assert target.offset == (0.0,)


def test_each_label_gets_a_scale_and_an_offset_of_its_own():
    (first, y_first), (second, y_second) = overconfident(800), overconfident(800, seed=1)
    both = calibrated(LABELS, torch.cat([first, -second], 1), np.stack([y_first, 1 - y_second], 1))
    alone = calibrated(BINARY, first, y_first), calibrated(BINARY, -second, 1 - y_second)
    assert both.scale == pytest.approx([target.scale[0] for target in alone])
    assert both.offset == pytest.approx([target.offset[0] for target in alone])


def test_calibration_error_of_unseen_rows_falls():
    logits, y = overconfident(3000)
    target = calibrated(BINARY, logits, y)
    unseen, truth = overconfident(3000, seed=1)
    before = sigmoid(unseen[:, 0].numpy())
    after = sigmoid(unseen[:, 0].numpy() * target.scale[0] + target.offset[0])
    assert calibration_error(truth, before) > 0.08
    assert calibration_error(truth, after) < 0.025


@given(st.lists(st.tuples(st.floats(-30, 30), st.integers(0, 1)), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None)
def test_order_is_kept_and_every_scale_is_positive_and_finite_whatever_the_rows(rows):
    logits, y = torch.tensor([[row[0]] for row in rows]), np.array([row[1] for row in rows])
    target = calibrated(BINARY, logits, y)
    assert 0 < target.scale[0] < 1e3
    assert abs(target.offset[0]) < 1e3


def test_few_rows_without_a_mistake_do_not_make_certainty():
    random = np.random.default_rng(0)
    y = np.arange(18) % 3
    logits = torch.from_numpy(np.eye(3)[y] * 3 + random.normal(0, 0.2, (18, 3)))
    for size in (1, 3, 10):
        scale = calibrated(THREE, logits * size, y).scale[0]
        probability = softmax((logits * size * scale).numpy())[np.arange(18), y]
        assert 0.9 < probability.mean() < 0.99, "18 rows cannot tell one mistake in a hundred from none"


def test_probabilities_that_are_right_are_hardly_harmed_by_few_rows():
    random, harm, plain_harm = np.random.default_rng(0), [], []
    true = torch.from_numpy(random.normal(-1, 1.5, 20_000))[:, None]
    truth = (random.random(len(true)) < sigmoid(true[:, 0].numpy())).astype(int)
    right = log_loss(truth, sigmoid(true[:, 0].numpy()))
    for _ in range(30):
        rows = random.choice(len(true), 86, replace=False)
        target = calibrated(BINARY, true[rows], truth[rows])
        harm.append(log_loss(truth, sigmoid(true[:, 0].numpy() * target.scale[0] + target.offset[0])) - right)
        plain = LogisticRegression(C=np.inf).fit(true[rows].numpy(), truth[rows])
        plain_harm.append(log_loss(truth, plain.predict_proba(true.numpy())) - right)
    assert np.mean(harm) < 0.5 * np.mean(plain_harm)
    assert np.median(harm) == 0, "most of them must see that nothing is to be gained"


def test_validation_rows_of_one_class_change_nothing():
    for target, y in ((BINARY, np.ones(5)), (THREE, np.full(5, 2))):
        fitted = calibrated(target, torch.randn(5, target.n_outputs), y)
        assert (fitted.scale, fitted.offset) == ((1.0,), (0.0,))
    labels = calibrated(LABELS, overconfident(50)[0].repeat(1, 2), np.stack([overconfident(50)[1], np.ones(50)], 1))
    assert labels.scale[0] < 1
    assert (labels.scale[1], labels.offset[1]) == (1.0, 0.0)


@pytest.mark.parametrize("target", [BINARY, THREE, LABELS])
def test_undone_probabilities_are_those_of_the_logits_as_they_were(target):
    logits = np.random.default_rng(0).normal(0, 4, (50, target.n_outputs))
    shape = (50, -1) if target.task != "binary" else (50,)
    scale, offset = np.array([0.5, 1.5])[: target.n_outputs], np.array([0.7, -0.2])[: target.n_outputs]
    if target.task == "multiclass":
        scale, offset = np.array([0.5]), np.array([0.0])
    turned = softmax if target.task == "multiclass" else sigmoid
    given = Target(task=target.task, classes=target.classes, scale=tuple(scale), offset=tuple(offset))
    scores = turned(logits * scale + offset).reshape(shape).astype(np.float32)
    np.testing.assert_allclose(uncalibrated(given, scores), turned(logits).reshape(shape), atol=1e-5)
    np.testing.assert_array_equal(uncalibrated(target, scores), scores)


def test_certainty_can_be_undone():
    given = Target(task="binary", classes=("no", "yes"), scale=(2.0,), offset=(0.0,))
    assert np.isfinite(uncalibrated(given, np.array([0.0, 1.0], np.float32))).all()


def test_training_ends_with_probabilities_that_fit_the_validation_rows(prepared, tmp_path):  # noqa: F811
    features, encoded, y = prepared
    table, _ = toy(seed=1)
    y_val = np.random.default_rng(0).permutation(y)  # what was learnt is worth nothing there
    val, scores = features.encode(table), {}
    for calibrate in (False, True):
        learning = TrainingSettings(epochs=3, learning_rate=1e-2, patience_steps=999, calibrate=calibrate)
        network, _ = train(fresh(features), features, LabelledRows(encoded, y), LabelledRows(val, y_val), learning)
        assert bool(network.target.scale) == calibrate
        save_model(tmp_path / str(calibrate), network, features)
        scores[calibrate] = TorchScorer(tmp_path / str(calibrate)).score(table)
    before, after = (evaluate_scores("binary", y_val, scores[calibrate], ("no", "yes")) for calibrate in (False, True))
    assert after["log_loss"] < before["log_loss"]
    assert after["auc"] == pytest.approx(before["auc"], abs=2e-4)  # float32 may make two scores one
    target = TorchScorer(tmp_path / "True").network.target
    np.testing.assert_allclose(uncalibrated(target, scores[True]), scores[False], atol=1e-5)


def test_regression_stays_as_it_is(prepared):  # noqa: F811
    features, encoded, y = prepared
    target = Target.fit("regression", (), y.astype(float))
    network, _ = train(
        Network(SMALL, features.sizes, target),
        features,
        LabelledRows(encoded, y),
        LabelledRows(encoded, y),
        TrainingSettings(epochs=0.1),
    )
    assert network.target == target
