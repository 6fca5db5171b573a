"""Oracle: means of distributions that are known in closed form, SciPy's errors of a scale, and torch beside ONNX."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from builders import a_product, declared, mistakes
from hypothesis import given, settings
from hypothesis import strategies as st

from model.features.fitted import Features
from model.heads.label_scale import LabelScale
from model.network.network import Network
from model.network.store import load_model, save_model
from model.scoring.export import export_onnx, parity
from model.scoring.scorer import Scorer
from model.settings import NetworkSettings, TrainingSettings
from model.target import Target
from model.training.fit import LabelledRows
from model.training.train import train
from tasks.rows.model_inputs import split_part
from tasks.rows.partitions import write_table
from tasks.runtime.errors import UserError
from tasks.training.target_scale import choose_scale, is_measured, sampled_rows, target_scale

KINDS = {"size": "number", "colour": "category"}
SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=16, dropout=0.0)


def stones(n, seed=0, noise=0.3):
    """Stones whose price grows as a power of their size, with errors that count by their share."""
    random = np.random.default_rng(seed)
    table = {"size": random.lognormal(0, 0.6, n), "colour": random.choice(np.array(["d", "e"], object), n)}
    price = 500 * table["size"] ** 1.8 * np.where(table["colour"] == "d", 1.0, 1.5) * random.lognormal(0, noise, n)
    return table, price


def chosen(table, y, kinds=KINDS):
    rows = sampled_rows(y)
    return choose_scale(kinds, {name: cells[rows] for name, cells in table.items()}, y, "regression", 0)


def test_prices_are_learnt_as_logarithms_and_stay_above_zero():
    table, price = stones(1500, 1)
    found = chosen(table, price)
    assert found.scale.name == "log"
    assert found.measured["log"] < found.measured["linear"]
    assert "learnt on a log scale" in found.summary
    wild = found.scale.to_labels(torch.tensor([-1e4, -20.0, 0.0, 20.0, 1e4, torch.inf]))
    assert (wild > 0).all()
    assert wild.isfinite().all()
    assert wild.max() < 4 * price.max()


@pytest.mark.parametrize("centre", [100.0, 0.0])
def test_labels_without_a_long_tail_stay_as_they_are_and_cost_nothing(centre):
    y = np.random.default_rng(0).normal(centre, 10, 500)
    assert not is_measured(y)
    found = choose_scale(KINDS, {}, y, "regression", 0)
    assert (found.scale.name, found.summary) == ("linear", "")
    assert found.scale.lowest == (0.0 if centre else None)
    y = torch.tensor([-3.0, 250.0])
    assert found.scale.to_labels(y).tolist() == [0.0 if centre else -3.0, 250.0]


def test_additive_errors_keep_a_skewed_target_linear():
    random = np.random.default_rng(0)
    table = {"size": random.exponential(1, 2000), "colour": random.choice(np.array(["d", "e"], object), 2000)}
    y = 10 * table["size"] + random.normal(0, 2, 2000).clip(-4, 4) + 4
    assert is_measured(y)
    found = chosen(table, y)
    assert found.scale.name == "linear"
    assert found.measured["linear"] < found.measured["log"]


def test_heavy_tails_of_both_signs_are_learnt_as_symmetric_logarithms():
    random = np.random.default_rng(0)
    table = {"size": random.normal(0, 1, 3000), "colour": random.choice(np.array(["d", "e"], object), 3000)}
    y = np.sinh(3 * table["size"] + random.normal(0, 0.7, 3000))
    found = chosen(table, y)
    assert found.scale.name == "symlog"
    assert found.scale.to_labels(torch.tensor([-1e4, 1e4])).isfinite().all()


def test_a_text_decides_on_the_scale_too():
    random = np.random.default_rng(0)
    words = np.array(["cheap", "plain", "dear", "gold"])
    numbers = random.integers(0, 4, (800, 3))
    y = np.exp(numbers.sum(1) * 0.8 + random.normal(0, 0.2, 800))
    text = np.array([" ".join(row) for row in words[numbers]], object)
    assert chosen({"text": text}, y, {"text": "text"}).scale.name == "log"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=30),
    st.sampled_from(["linear", "log", "symlog"]),
)
def test_labels_come_back_from_every_scale(values, name):
    y = np.abs(values) if name == "log" else np.array(values)
    if name == "log" and not y.any():
        return
    scale = LabelScale.fit(name, y)
    back = scale.to_labels(torch.from_numpy(scale.from_labels(y))).numpy()
    np.testing.assert_allclose(back, y, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(y).max()))


def test_mean_of_a_lognormal_is_predicted_and_not_its_median():
    random = np.random.default_rng(0)
    y = random.lognormal(2.0, 0.8, 20_000)
    scale = LabelScale.fit("log", y)
    bent = torch.full((len(y),), 2.0, dtype=torch.float64)
    mean = np.exp(2 + 0.8**2 / 2)
    assert float(scale.to_labels(bent[:1])) == pytest.approx(np.exp(2.0))
    assert float(scale.corrected(bent, y).to_labels(bent[:1])) == pytest.approx(mean, rel=0.03)
    # Later days on twice the level say as much of the spread, and nothing of the next days' level.
    later = scale.corrected(bent, 2 * y, are_later=True)
    assert later.correction == pytest.approx(np.exp(0.8**2 / 2), rel=0.03)
    assert scale.corrected(bent[:1], y[:1]).correction == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("are_later", [False, True])
def test_median_of_a_lognormal_is_predicted_where_it_is_asked_for(are_later):
    random = np.random.default_rng(0)
    # A network that learns squared errors of logarithms is off by the mean of their errors, which here are skewed.
    errors = random.exponential(0.8, 20_000)
    y = np.exp(2.0 + errors)
    scale, bent = LabelScale.fit("log", y, "median"), torch.full((len(y),), 2.8, dtype=torch.float64)
    found = float(scale.corrected(bent, y, are_later=are_later).to_labels(bent[:1]))
    assert found == pytest.approx(np.exp(2.0 + 0.8 * np.log(2)), rel=0.02)
    assert np.abs(y - found).mean() < np.abs(y - np.exp(2.8)).mean()


def test_median_of_both_signs_has_the_least_absolute_error():
    random = np.random.default_rng(1)
    away = random.normal(0, 2, 20_000)
    y = np.sinh(away) * random.lognormal(0, 0.8, 20_000)
    scale = LabelScale.fit("symlog", y, "median")
    bent = torch.from_numpy(np.arcsinh((np.sinh(away) - scale.centre) / scale.unit))
    corrected = scale.corrected(bent, y)
    mae = {
        factor: np.abs(y - replace(corrected, correction=corrected.correction * factor).to_labels(bent).numpy()).mean()
        for factor in (0.9, 1.0, 1.1)
    }
    assert min(mae, key=mae.__getitem__) == 1.0


def test_median_of_skewed_errors_is_predicted_on_a_linear_scale_and_the_level_stays():
    random = np.random.default_rng(2)
    y = 5.0 + random.exponential(3.0, 20_000)
    scale, bent = LabelScale.fit("linear", y, "median"), torch.full((len(y),), 8.0, dtype=torch.float64)
    assert float(scale.corrected(bent, y).to_labels(bent[:1])) == pytest.approx(5 + 3 * np.log(2), rel=0.02)
    assert float(scale.corrected(bent, y + 4).to_labels(bent[:1])) == pytest.approx(5 + 3 * np.log(2), rel=0.02)
    assert LabelScale.fit("linear", y).corrected(bent, y) == LabelScale()


def test_metric_that_medians_are_best_for_asks_for_them():
    gates = {"metric": "mae", "limit": 5}
    number = {"name": "late", "task": "regression"}
    assert a_product(target=number, gates=gates).predict.point == "median"
    assert a_product(target=number, gates=gates, predict={"point": "mean"}).predict.point == "mean"
    assert a_product(target=number, gates={"metric": "r2"}).predict.point == "mean"
    assert mistakes(declared(predict={"point": "median"})) == [
        "products.tiny.predict.point must not be given for a binary target, got median; delete it"
    ]


def test_scale_is_chosen_by_absolute_errors_where_medians_are_predicted():
    table, price = stones(1500, 1)
    rows = sampled_rows(price)
    known = {name: cells[rows] for name, cells in table.items()}
    found = choose_scale(KINDS, known, price, "regression", 0, "median")
    assert (found.scale.name, found.scale.point) == ("log", "median")
    assert found.measured["log"] < found.measured["linear"]
    assert "(mae of a plain model out of fold" in found.summary


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Target]:
    """A network with companion that has learnt prices as logarithms."""
    folder = tmp_path_factory.mktemp("scale")
    (table, price), (unseen, unseen_price) = stones(600, 0), stones(200, 1)
    features = Features.fit(KINDS, table, price, "regression", max_tokens=8)
    target = Target.fit("regression", (), price, "price", LabelScale.fit("log", price))
    network, _ = train(
        Network(SMALL, features.sizes, target),
        features,
        LabelledRows(features.encode(table), price),
        LabelledRows(features.encode(unseen), unseen_price),
        TrainingSettings(epochs=3, learning_rate=1e-2),
        companion=True,
    )
    save_model(folder / "trained", network, features)
    export_onnx(folder / "trained", folder / "onnx")
    return folder, target


@pytest.mark.long
@pytest.mark.slow
def test_exported_graph_predicts_means_in_the_labels_own_units(trained):
    folder, target = trained
    network = load_model(folder / "trained")[0]
    assert network.target is not None
    assert network.target.label_scale.name == "log"
    assert network.target.label_scale.correction != 1.0
    assert network.companion is not None
    table, price = stones(2000, 2)
    table["size"][:2] = [1e6, 1e-6]
    assert parity(folder / "trained", folder / "onnx", [table]) < 1e-4 * target.unit
    scores = Scorer(folder / "onnx").score(table)
    assert (scores > 0).all()
    assert scores[2:].mean() == pytest.approx(price[2:].mean(), rel=0.1)
    assert 1 - ((scores - price)[2:] ** 2).mean() / price[2:].var() > 0.6


def part_of(tmp_path, y, **changes):
    """The tiny product with a number to predict, and a part of its split."""
    product = a_product(target={"name": "late", "task": "regression"}, gates={"metric": "r2"}, **changes)
    rows = {"depot": ["a"] * len(y), "weight_kg": y, "handed_in": pd.Timestamp("2024-01-01"), "late": y}
    write_table(tmp_path / "train.parquet", pd.DataFrame(rows))
    return product, split_part(tmp_path, "train", product)


def test_declared_scale_wins_over_the_measured_one(tmp_path):
    y = np.random.default_rng(0).lognormal(0, 1.5, 300)
    for name in ("linear", "symlog", "log"):
        scale, line = target_scale(*part_of(tmp_path, y, model__train={"target_scale": name}), y)
        assert scale is not None
        assert (scale.name, line) == (name, "")
    linear, _ = target_scale(*part_of(tmp_path, y, model__train={"target_scale": "linear"}), y)
    assert linear == LabelScale()


def test_logarithms_of_labels_below_zero_are_refused_with_a_way_out(tmp_path):
    y = np.array([-1.0, 2.0, 3.0])
    said = r"model\.train\.target_scale must be linear or symlog where labels lie below 0, as 1 of the 3 .*; use symlog"
    with pytest.raises(UserError, match=said):
        target_scale(*part_of(tmp_path, y, model__train={"target_scale": "log"}), y)


def test_scale_of_a_target_that_is_no_number_is_refused():
    assert mistakes(declared(model__train={"target_scale": "log"})) == [
        "products.tiny.model.train.target_scale must not be given for a binary target, got log; delete it"
    ]
