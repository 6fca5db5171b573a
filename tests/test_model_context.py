"""Oracle: the formulas written out with numpy, a line that is known because it was drawn, and laws."""

import numpy as np
import pytest
import torch

from model.features.fitted import Features
from model.network.context import Context
from model.network.network import Network
from model.network.store import save_model
from model.scoring.export import export_onnx, parity
from model.scoring.scorer import TorchScorer
from model.settings import NetworkSettings, TrainingSettings
from model.target import Target
from model.training.closed_forms.context import EXPECTED_EFFECT, fit_context
from model.training.fit import LabelledRows
from model.training.train import train

KINDS = {"size": "number", "damp": "context", "wind": "context"}
SETTINGS = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=16, dropout=0.0)
N_DAYS, PER_DAY = 60, 50


def days(seed=0, slope=0.8, n_days=N_DAYS, chance_slope=0.5):
    """Rows of which a day's damp moves the logit by `slope`, its wind by nothing, and chance by much more."""
    random = np.random.default_rng(seed)
    damp, wind, chance = random.normal(size=(3, n_days))
    size = random.normal(size=n_days * PER_DAY)
    shared = {"damp": np.repeat(damp, PER_DAY), "wind": np.repeat(wind, PER_DAY)}
    logit = size + slope * shared["damp"] + chance_slope * np.repeat(chance, PER_DAY)
    y = (random.random(len(size)) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    return {"size": size, **shared}, y


def fitted(table, y, **settings):
    features = Features.fit(KINDS, table, y, "binary", max_tokens=8)
    network = Network(SETTINGS, features.sizes, Target(task="binary", classes=("0", "1")))
    encoded = features.encode(table)
    network, _ = train(
        network, features, LabelledRows(encoded, y), LabelledRows(encoded, y), TrainingSettings(epochs=2.0, **settings)
    )
    return features, network


def slopes(columns, score, information):
    """Fits a context of one output and gives its weights."""
    context = Context(columns.shape[1], 1)
    fit_context(context, columns.astype(np.float32), score[:, None], information[:, None])
    return context.weight[:, 0].numpy()


def test_the_line_is_that_of_random_effects_regression_written_out():
    random = np.random.default_rng(0)
    z = random.normal(size=(30, 2)).round(3)
    information = random.uniform(5, 50, len(z))
    moves = z @ [0.7, -0.3] + random.normal(size=len(z)) * (0.4 + information**-0.5)
    mean = np.average(moves, weights=information)
    surplus = information @ (moves - mean) ** 2 - (len(z) - 1)
    between = max(0, surplus / (information.sum() - (information**2).sum() / information.sum()))
    weights = 1 / (1 / information + between)
    x = np.c_[np.ones(len(z)), z]
    wanted = np.linalg.solve(
        x.T @ np.diag(weights) @ x + np.diag([0, *[EXPECTED_EFFECT**-2] * 2]), x.T @ (weights * moves)
    )
    np.testing.assert_allclose(slopes(z, moves * information, information), wanted[1:], rtol=1e-5)


def test_rows_of_one_context_are_one_observation_whatever_their_number_and_order():
    random = np.random.default_rng(1)
    z, error = random.normal(size=(20, 2)), random.normal(size=20)
    once = slopes(z, error, np.full(20, 4.0))
    shuffle = random.permutation(20 * 8)
    columns, parts = (np.repeat(each, 8, axis=0)[shuffle] for each in (z, error / 8))
    np.testing.assert_allclose(slopes(columns, parts, np.full(160, 0.5)), once, rtol=1e-4)


def test_a_missing_value_and_a_freak_are_harmless():
    table, y = days()
    features = Features.fit(KINDS, table, y, "binary", max_tokens=8)
    few = {name: column[:4].copy() for name, column in table.items()}
    few["damp"][:] = [np.nan, np.inf, 1e30, -1e30]
    assert features.encode(few)["context"][:, 0].tolist() == [0, 0, 3, -3]


def test_a_column_that_never_changes_or_is_never_known_says_nothing():
    table, y = days(n_days=20)
    for value in (7.0, np.nan):
        _, network = fitted({**table, "damp": np.full(len(y), value)}, y)
        assert network.context is not None
        damp, wind = network.context.weight[:, 0].abs().tolist()
        assert damp < 1e-9
        assert wind > 1e-4


def test_the_encoder_does_not_see_context_and_the_score_does():
    table, y = days()
    features, network = fitted(table, y, calibrate=False)
    other = {**table, "damp": table["damp"][::-1].copy()}
    encoded, changed = features.encode(table), features.encode(other)
    assert features.sizes.n_columns == 1
    assert (encoded.lengths == 2).all()
    np.testing.assert_array_equal(encoded["numbers"], changed["numbers"])
    assert network.context is not None
    damp, wind = network.context.weight[:, 0].tolist()
    assert damp > 0.3
    assert abs(wind) < 0.2


@pytest.mark.long
def test_context_ranks_unseen_days_better_than_the_same_columns_as_numbers():
    """The law that it exists for, on days drawn anew: what a tree or token learns by heart does not carry over."""
    from sklearn.metrics import roc_auc_score

    table, y = days(slope=0.5, chance_slope=1.0)
    unseen, truth = days(seed=9, slope=0.5, chance_slope=1.0, n_days=400)
    areas = {}
    for kind in ("context", "number"):
        kinds = {name: "number" if name == "size" else kind for name in KINDS}
        features = Features.fit(kinds, table, y, "binary", max_tokens=8)
        network = Network(SETTINGS, features.sizes, Target(task="binary", classes=("0", "1")))
        encoded, held = features.encode(table), features.encode(unseen)
        settings = TrainingSettings(epochs=10.0, learning_rate=3e-3, keep="last")
        network, _ = train(network, features, LabelledRows(encoded, y), LabelledRows(encoded, y), settings)
        batch = {name: torch.from_numpy(array) for name, array in held.arrays.items()}
        with torch.no_grad():
            areas[kind] = roc_auc_score(truth, network(batch)[:, 0])
    assert areas["context"] > areas["number"] + 0.01


@pytest.mark.long
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_every_task_learns_a_context_and_onnx_scores_it_as_torch_does(task, tmp_path):
    table, yes = days()
    y = {
        "binary": yes,
        "multiclass": yes + (table["size"] > 1),
        "multilabel": np.stack([yes, 1 - yes], 1).astype(np.float32),
        "regression": yes * 10.0,
    }[task]
    features = Features.fit(KINDS, table, y, task, max_tokens=8)
    target = Target.fit(task, ("a", "b", "c")[: 3 if task == "multiclass" else 2], y)
    network = Network(SETTINGS, features.sizes, target)
    encoded = features.encode(table)
    network, _ = train(
        network, features, LabelledRows(encoded, y), LabelledRows(encoded, y), TrainingSettings(epochs=1.0)
    )
    assert network.context is not None
    assert network.context.weight.isfinite().all()
    assert network.context.weight[0].abs().max() > 0.05
    save_model(tmp_path / "trained", network, features)
    export_onnx(tmp_path / "trained", tmp_path / "onnx")
    assert parity(tmp_path / "trained", tmp_path / "onnx", [table]) < 1e-4 * target.deviation
    scores = TorchScorer(tmp_path / "trained").score(table)
    dry = TorchScorer(tmp_path / "trained").score({**table, "damp": np.full(len(yes), np.nan)})
    assert np.abs(scores - dry).max() > 0.01 * target.deviation


def test_a_product_of_context_alone_is_refused():
    with pytest.raises(ValueError, match="at least one column that is no context"):
        Features.fit({"damp": "context"}, {"damp": np.ones(3)}, None, "binary", max_tokens=8)


@pytest.mark.long
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_slope_is_the_one_that_the_rows_were_drawn_with(task, class_weights):
    """Of a network that answers the same to every row, so that the context is all that there is to learn."""
    random = np.random.default_rng(3)
    damp = np.repeat(random.normal(size=300), 100)
    damp = (damp - damp.mean()) / damp.std()
    logit, noise = 0.4 * damp, random.normal(size=len(damp))
    yes = random.random(len(damp)) < 1 / (1 + np.exp(2 - logit))
    y = {
        "binary": yes.astype(np.int64),
        "multiclass": np.where(yes, 2, random.integers(0, 2, len(damp))),
        "multilabel": np.stack([yes, ~yes], 1).astype(np.float32),
        "regression": 100 * (logit + 0.3 * noise),
    }[task]
    table = {"size": np.zeros(len(damp)), "damp": damp, "wind": np.zeros(len(damp))}
    features = Features.fit(KINDS, table, y, task, max_tokens=8)
    target = Target.fit(task, ("a", "b", "c")[: 3 if task == "multiclass" else 2], y)
    network = Network(SETTINGS, features.sizes, target)
    encoded = features.encode(table)
    settings = TrainingSettings(epochs=1.0, learning_rate=1e-2, class_weights=class_weights, calibrate=False)
    network, _ = train(network, features, LabelledRows(encoded, y), LabelledRows(encoded, y), settings)
    assert network.context is not None
    first, *_, last = network.context.weight[0].tolist() * 2
    of_task = {"binary": first, "multiclass": last - first, "multilabel": (first - last) / 2}
    assert of_task.get(task, first * target.deviation / 100) == pytest.approx(0.4, abs=0.06)


def test_context_beside_a_companion_moves_scores_as_much_as_without_it():
    """Fitted to what trees leave of rows that they know, it found next to nothing."""
    table, y = days(n_days=30)
    features = Features.fit(KINDS, table, y, "binary", max_tokens=8)
    encoded = features.encode(table)
    rows = LabelledRows(encoded.take(np.arange(0, len(y), 2)), y[::2])
    unseen = LabelledRows(encoded.take(np.arange(1, len(y), 2)), y[1::2])
    slopes = []
    for companion in (False, True):
        network = Network(SETTINGS, features.sizes, Target(task="binary", classes=("0", "1")))
        network, _ = train(network, features, rows, unseen, TrainingSettings(epochs=1.0), companion=companion)
        share = 1.0 if network.companion is None else float(network.companion.mix.sum())
        slopes.append(network.context.weight / share)
    assert abs(slopes[0]).max() > 0.3
    torch.testing.assert_close(slopes[0], slopes[1])
