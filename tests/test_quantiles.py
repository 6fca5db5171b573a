"""Oracle: a rule of known spread, scikit-learn's pinball loss, counts by hand, torch itself."""

import shutil
from dataclasses import replace
from datetime import date
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from builders import a_product, declared, mistakes
from sklearn.metrics import mean_pinball_loss
from threadpoolctl import threadpool_limits

from model.evaluation.baseline import fit_baseline
from model.evaluation.metrics import evaluate_scores
from model.features.fitted import Features
from model.heads import head_of
from model.heads.label_scale import LabelScale
from model.heads.prediction_rule import PredictionRule
from model.network.network import Network
from model.network.store import load_model, save_model
from model.scoring.engines import OPENVINO, Engine, missing_requirement
from model.scoring.export import parity
from model.scoring.scorer import Scorer
from model.settings import NetworkSettings, TrainingSettings
from model.target import Target, read_target
from model.training.calibration import calibrated_quantiles, calibration_after_refit
from model.training.fit import LabelledRows
from model.training.train import train
from tasks.predict import predict
from tasks.publication.night import part_name
from tasks.rows import model_inputs
from tasks.rows.partitions import partition, write_table
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths

LEVELS = (0.1, 0.5, 0.9)
HEAD = head_of("regression").with_levels(LEVELS)
RULE = PredictionRule(levels=LEVELS)
KINDS = {"size": "number", "shop": "category"}
SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=24, dropout=0.0)


def prices(n, seed):
    """Prices that rise with the size; in one shop they lie within 1 of what is usual, in the other within 10."""
    random = np.random.default_rng(seed)
    size, is_wild = random.normal(size=n), random.random(n) < 0.5
    width = np.where(is_wild, 10.0, 1.0)
    table = {"size": size, "shop": np.where(is_wild, "wild", "tame").astype(object)}
    return table, 100 + 3 * size + width * random.uniform(-1, 1, n), width


def learnt(n, *, epochs, companion):
    """Return a network that has learnt from so many rows, its features, and the epochs' losses."""
    (table, y, _), (unseen, y_unseen, _) = prices(n, 0), prices(200, 1)
    features = Features.fit(KINDS, table, y, "regression", max_tokens=8)
    target = model_inputs.as_declared(Target.fit("regression", (), y, "price"), priced())
    network = Network(SMALL, features.sizes, target)
    rows, held = (LabelledRows(features.encode(each), labels) for each, labels in ((table, y), (unseen, y_unseen)))
    settings = TrainingSettings(epochs=epochs, batch_tokens=512, learning_rate=1e-2, keep="last")
    return train(network, features, rows, held, settings, companion=companion)[0], features


@pytest.fixture(scope="module")
def trained(tmp_path_factory, export_once):
    folder = tmp_path_factory.mktemp("quantiles")
    save_model(folder / "trained", *learnt(1000, epochs=10, companion=False))
    export_once(folder / "trained", folder / "onnx")
    return folder


def priced(**changes):
    return a_product(
        columns=KINDS,
        expectations=[],
        predict={"horizon_days": 1, "quantiles": list(LEVELS), **changes},
        target={"name": "price", "task": "regression"},
        gates={"metric": "r2", "limit": 0.1},
        split={"by": "time"},
    )


@pytest.mark.long
def test_quantiles_know_where_labels_spread(trained):
    table, y, width = prices(1000, 2)
    scores = Scorer(trained / "onnx", n_threads=1).score(table)
    found = evaluate_scores("regression", y, scores, (), RULE)
    assert found["interval_coverage"] == pytest.approx(0.8, abs=0.06)
    assert found["coverage_error"] < 0.05
    between = scores[:, 3] - scores[:, 1]
    assert np.median(between[width == 10]) > 4 * np.median(between[width == 1])
    # A quantile that is the same distance from the mean in every shop costs more.
    one_width = scores[:, :1] + np.quantile(y - scores[:, 0], LEVELS)
    assert found["pinball"] < 0.85 * np.mean(
        [mean_pinball_loss(y, each, alpha=level) for each, level in zip(one_width.T, LEVELS, strict=True)]
    )
    assert found["r2"] > 0.2


@pytest.mark.slow
def test_trees_and_line_beside_the_encoder_have_quantiles_too():
    network, features = learnt(100, epochs=2, companion=True)
    assert network.companion is not None
    assert network.companion.trees is not None
    assert sorted(set(network.companion.trees.output.tolist())) == [0, 1, 2, 3]
    assert network.companion.line.bias[1] < network.companion.line.bias[2] < network.companion.line.bias[3]
    table, y, _ = prices(500, 2)
    encoded = features.encode(table)
    with torch.inference_mode():
        scores = network.scores(network.batch_of(encoded, np.arange(500))).numpy()
    assert evaluate_scores("regression", y, scores, (), RULE)["interval_coverage"] == pytest.approx(0.8, abs=0.1)


def test_quantiles_never_cross_and_score_in_the_graph_as_in_torch(trained):
    table, _, _ = prices(300, 3)
    table["size"][:20] = np.nan
    table["size"][20:40] = 1e6
    table["shop"][:10] = None
    scores = Scorer(trained / "onnx", n_threads=1).score(table)
    assert scores.shape == (300, 4)
    assert np.isfinite(scores).all()
    assert (np.diff(scores[:, 1:], axis=1) >= 0).all()
    target = read_target(trained / "onnx")
    assert target.levels == LEVELS
    assert len(target.shifts) == 3
    assert parity(trained / "trained", trained / "onnx", [prices(200, 4)[0]]) / target.unit < 1e-4


def test_median_that_is_predicted_is_the_quantile_of_the_same_night(trained):
    network, features = load_model(trained / "trained")
    scored = partial(network.scores, network.batch_of(features.encode(prices(300, 3)[0]), np.arange(300)))
    target = network.target
    assert target is not None
    with torch.inference_mode():
        means = scored()
        network.target = replace(target, label_scale=replace(target.label_scale, point="median"))
        medians = scored()
    assert (medians[:, 0] == medians[:, 2]).all()
    assert (medians[:, 1:] == means[:, 1:]).all()
    assert (medians[:, 0] != means[:, 0]).any()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_engine_predicts_the_same_quantiles(trained, precision):
    engine = Engine(name=OPENVINO, precision=precision)
    if lacks := missing_requirement(engine):
        pytest.skip(lacks)
    table, _, _ = prices(200, 3)
    exact, other = (Scorer(trained / "onnx", n_threads=1, engine=each).score(table) for each in (None, engine))
    assert np.abs(exact - other).max() < (1e-3 if precision == "fp32" else 2.0)
    assert (np.diff(other[:, 1:], axis=1) >= 0).all()


def test_crossing_outputs_are_sorted_and_bent_back_each_by_itself():
    scale = LabelScale(name="log", correction=1.5)
    target = Target(task="regression", levels=LEVELS, label_scale=scale, mean=1.0, deviation=2.0)
    logits = torch.tensor([[0.0, 0.5, -1.0, 0.25]])
    found = target.head.scores(logits, target).numpy()[0]
    np.testing.assert_allclose(found, [1.5 * np.exp(1), np.exp(-1), np.exp(1.5), np.exp(2)], rtol=1e-6)


def test_calibration_widens_what_is_too_narrow_and_moves_each_quantile():
    random = np.random.default_rng(0)
    width = np.where(np.arange(4000) % 2, 1.0, 4.0)
    labels = random.normal(size=4000) * width
    too_narrow = np.outer(width, [0.0, -0.64, 0.0, 0.64])
    target = Target(task="regression", levels=LEVELS)
    found = calibrated_quantiles(target, torch.from_numpy(too_narrow), np.tile(labels[:, None], 4))
    assert found.widening == 2.0
    quantiles = found.head.scores(torch.from_numpy(too_narrow), found).numpy()[:, 1:]
    np.testing.assert_allclose((labels[:, None] < quantiles).mean(0), LEVELS, atol=0.01)
    few = calibrated_quantiles(target, torch.from_numpy(too_narrow[:1]), np.tile(labels[:1, None], 4))
    assert np.isfinite(few.shifts).all()


def test_level_of_later_days_is_an_offset_that_a_second_training_goes_without():
    """What rows of the same days have in common is no spread; a network that has learnt from them knows it."""
    random = np.random.default_rng(0)
    logits = np.outer(np.ones(40_000), [0.0, -1.28, 0.0, 1.28]) + random.normal(size=(40_000, 1))
    labels = logits[:, 0] + random.normal(size=40_000) + 2
    target = Target(task="regression", levels=LEVELS)
    found = calibrated_quantiles(target, torch.from_numpy(logits), np.tile(labels[:, None], 4), n_later_days=30)
    assert found.widening == 1.0
    assert found.offset == pytest.approx([2 * 30 / 40], abs=0.1)
    np.testing.assert_allclose(found.shifts, 0, atol=0.15)
    plain = found.head.scores(torch.from_numpy(logits), replace(found, offset=())).numpy()[:, 1:]
    moved = found.head.scores(torch.from_numpy(logits), found).numpy()[:, 1:]
    np.testing.assert_allclose(moved - plain, found.offset[0])
    assert calibration_after_refit(found, n_later_days=30).offset == (0.0,)


def test_metrics_of_quantiles_are_their_definitions():
    random = np.random.default_rng(0)
    y = random.normal(size=300)
    scores = np.c_[y + 0.1, np.sort(random.normal(size=(300, 3)), axis=1)]
    found = evaluate_scores("regression", y, scores, (), RULE)
    losses = [mean_pinball_loss(y, scores[:, at + 1], alpha=level) for at, level in enumerate(LEVELS)]
    assert found["pinball"] == pytest.approx(np.mean(losses))
    below = [np.mean(y < scores[:, at + 1]) for at in range(3)]
    assert found["coverage_error"] == pytest.approx(np.mean(np.abs(np.subtract(below, LEVELS))))
    assert found["interval_coverage"] == np.mean((scores[:, 1] <= y) & (y <= scores[:, 3]))
    assert found["mae"] == pytest.approx(0.1)
    assert found["per_class"]["quantile_90"]["below"] == below[2]
    plain = evaluate_scores("regression", y, scores[:, 0], (), RULE)
    assert plain["pinball"] is None
    assert plain["mae"] == pytest.approx(0.1)
    assert "pinball" not in evaluate_scores("regression", y, scores[:, 0], ())


@pytest.mark.parametrize("kinds", [KINDS, {**KINDS, "note": "text"}])
def test_baseline_has_quantiles_too(kinds):
    table, y, _ = prices(200, 0)
    table["note"] = table["shop"]
    with threadpool_limits(1):
        scores = fit_baseline(kinds, table, y, "regression", 0, 0, LEVELS).score(table)
    assert scores.shape == (200, 4)
    assert (np.diff(scores[:, 1:], axis=1) >= 0).all()
    assert evaluate_scores("regression", y, scores, (), RULE)["coverage_error"] < 0.05


def test_night_has_a_column_for_each_quantile_whatever_the_shards(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "constraints.txt").write_text("")
    paths = Paths("tiny")
    shutil.copytree(trained / "onnx", paths.onnx)
    table, _, _ = prices(30, 7)
    rows = pd.DataFrame(table).assign(
        parcel_id=[f"p{number:02}" for number in range(30)], day=pd.Timestamp("2024-02-11")
    )
    write_table(partition(paths.valid / "rows", date(2024, 2, 11)), rows)
    counts = {"rows_in": 30, "rows_valid": 30, "rows_quarantined": 0}
    write_json(paths.report("validation.json"), {"scored_day": counts})
    nights = []
    for n_shards in (1, 3):
        predict(priced(shards=n_shards, rows_per_shard=1, explain=1), date(2024, 2, 10))
        parts = [pd.read_parquet(paths.predictions / part_name(number)) for number in range(n_shards)]
        nights.append(pd.concat(parts, ignore_index=True))
    pd.testing.assert_frame_equal(*nights, check_exact=False, atol=1e-3)
    night = nights[0]
    assert list(night)[2:] == ["prediction", "quantile_10", "quantile_50", "quantile_90", "reason_1"]
    scores, classes = HEAD.scores_of_night({name: night[name].to_numpy() for name in night})
    assert scores.shape == (30, 4)
    assert classes == ()
    assert head_of("regression").with_levels((0.2,)).scores_of_night(night)[0].ndim == 1


def test_model_of_other_quantiles_does_not_answer_what_is_declared():
    product = priced()
    same, other = (Target(task="regression", column="price", levels=levels) for levels in (LEVELS, (0.5,)))
    assert not model_inputs.schema_mismatch(KINDS, same, product)
    assert "quantiles [0.5]" in model_inputs.schema_mismatch(KINDS, other, product)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([0.9, 0.1], "predict.quantiles must ascend, got [0.9, 0.1]; use [0.1, 0.9]"),
        ([0.1, 1], "predict.quantiles must lie between 0 and 1, with 4 decimals at most, got 1.0; use for example"),
        ([0.5], "predict.quantiles must not be given for a binary target, got [0.5]; delete it"),
    ],
)
def test_mistake_about_quantiles_is_told(levels, message):
    (line,) = mistakes(declared(predict__quantiles=levels))
    assert message in line
