"""Oracle: every threshold tried one by one, the thresholds that theory gives, and costs summed row by row."""

import json
import re
import shutil
from datetime import date

import numpy as np
import pandas as pd
import pytest
from builders import a_product, declared, mistakes
from test_model_export import TASKS, mixed, random_model

from model.evaluation.thresholds import choose_threshold, curve
from model.heads import head_of
from model.heads.prediction_rule import MeasuredThresholds, PredictionRule
from model.network.store import save_validation
from model.scoring.scorer import TorchScorer
from tasks import params
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.predict import predict, predict_shard
from tasks.publication.night import part_name
from tasks.rows import model_inputs
from tasks.rows.partitions import partition, write_table
from tasks.runtime.errors import UserError
from tasks.runtime.files import folder_sha256, write_json
from tasks.runtime.paths import Paths
from tasks.training.predictions import measured_thresholds

KINDS = {"colour": "category", "size": "number", "when": "time"}
PATHS = Paths("tiny")
COSTS = {"false_positive": 1.0, "false_negative": 5.0}
RULE = PredictionRule(costs=((0.0, 1.0), (5.0, 0.0)))


def drawn(n, seed=0):
    """Labels drawn by probabilities that are true."""
    random = np.random.default_rng(seed)
    shares = random.beta(0.6, 2, n)
    return (random.random(n) < shares).astype(int), shares.astype(np.float32)


def cost(y, decided):
    return np.mean(np.where(decided & (y == 0), 1.0, 0.0) + np.where(~decided & (y == 1), 5.0, 0.0))


def f1(y, decided):
    return 2 * (decided & (y == 1)).sum() / (decided.sum() + y.sum())


@pytest.mark.parametrize("seed", range(3))
def test_best_threshold_is_that_of_all_thresholds_tried(seed):
    y, shares = drawn(200, seed)
    tried = np.r_[0.0, np.unique(shares), 1.0]
    for metric, measure, best in (("expected_cost", cost, min), ("f1", f1, max)):
        threshold = choose_threshold(y, shares, metric, RULE, is_calibrated=False)
        assert measure(y, shares >= np.float32(threshold)) == pytest.approx(
            best(measure(y, shares >= t) for t in tried)
        )
        found = curve(y, shares, metric, RULE)
        for at in range(0, len(found.thresholds), 20):
            assert found.values[at] == pytest.approx(measure(y, shares >= found.thresholds[at]))


def test_few_rows_are_answered_by_theory_and_many_by_themselves():
    y, shares = drawn(200_000)
    theory = 1 / (1 + 5)
    many = choose_threshold(y, shares, "expected_cost", RULE, is_calibrated=True)
    assert many == pytest.approx(theory, abs=0.03)
    few = [choose_threshold(*drawn(40, seed), "expected_cost", RULE, is_calibrated=True) for seed in range(20)]
    bold = [choose_threshold(*drawn(40, seed), "expected_cost", RULE, is_calibrated=False) for seed in range(20)]
    assert np.std(few) < 0.7 * np.std(bold)
    # The best threshold of F1 is half of the F1 that it reaches (Lipton et al. 2014).
    best = choose_threshold(y, shares, "f1", RULE, is_calibrated=True)
    assert best == pytest.approx(f1(y, shares >= best) / 2, abs=0.02)


def test_accuracies_are_maximised_too_and_rows_of_one_class_decide_nothing_wild():
    y, shares = drawn(20_000)
    assert choose_threshold(y, shares, "accuracy", RULE, is_calibrated=True) == pytest.approx(0.5, abs=0.05)
    balanced = choose_threshold(y, shares, "balanced_accuracy", RULE, is_calibrated=True)
    assert balanced == pytest.approx(y.mean(), abs=0.04)
    for answer in (0, 1):
        for metric in ("f1", "expected_cost"):
            one = np.full(30, answer)
            assert 0 < choose_threshold(one, shares[:30], metric, RULE, is_calibrated=True) < 1
    assert choose_threshold(y[:0], shares[:0], "f1", RULE, is_calibrated=True) == 0.5


def test_expected_cost_is_the_sum_of_a_rows_errors():
    metrics = head_of("binary").metrics(PredictionRule(thresholds=(0.3,), costs=RULE.costs))
    y, shares = np.array([0, 0, 1, 1]), np.array([0.4, 0.1, 0.2, 0.9], np.float32)
    assert metrics["expected_cost"](y, shares) == (1 + 5) / 4
    labels = head_of("multilabel").metrics(PredictionRule(thresholds=(0.3, 0.8), costs=RULE.costs))
    y, shares = np.array([[1, 0], [0, 1]]), np.array([[0.4, 0.1], [0.3, 0.7]], np.float32)
    assert labels["expected_cost"](y, shares) == (1 + 5) / 2
    assert head_of("binary").metrics(0.5)["expected_cost"](np.array([0, 1]), np.array([0.9, 0.9])) == 0.5


def test_class_of_least_expected_cost_is_predicted_of_several():
    costs = ((0.0, 1.0, 1.0), (10.0, 0.0, 1.0), (1.0, 1.0, 0.0))
    rule = PredictionRule(costs=costs, least_cost=True)
    scores = np.array([[0.7, 0.2, 0.1], [0.95, 0.03, 0.02]], np.float32)
    # Of the first row: 0.2 * 10 + 0.1 for the likeliest class, 0.7 + 0.1 for the second.
    columns = head_of("multiclass").night_columns(scores, ("a", "b", "c"), rule)
    assert columns["prediction"].tolist() == ["b", "a"]
    assert columns["probability"].tolist() == [np.float32(0.2), np.float32(0.95)]
    metrics = head_of("multiclass").metrics(rule)
    assert metrics["expected_cost"](np.array([1, 2]), scores) == (0 + 1) / 2
    assert metrics["accuracy"](np.array([1, 2]), scores) == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"predict__costs": {"false_positive": 1}}, r"must give false_positive and false_negative a number each"),
        ({"predict__costs": {"a": {"b": 1}}}, r"must give false_positive and false_negative a number each"),
        ({"predict__costs": {"false_positive": 1, "false_negative": 0}}, r"must be above 0"),
        ({"predict__costs": {"false_positive": -1, "false_negative": 1}}, r"predict\.costs"),
        ({"predict__threshold": "best"}, r"must be a number between 0 and 1, or measured, got 'best'; use measured"),
        ({"predict__threshold": 0}, r"must lie between 0 and 1, got 0; use for example 0.5"),
        (
            {"target__task": "multiclass", "gates__metric": "macro_f1", "predict__costs": COSTS},
            r"costs\.false_positive must give costs by predicted class",
        ),
        (
            {"target__task": "multiclass", "gates__metric": "macro_f1", "predict__costs": {"a": {"a": 1.0}}},
            r"costs\.a\.a must be 0, since that is no error",
        ),
        (
            {"target__task": "multiclass", "gates__metric": "macro_f1", "predict__costs": {"a": {"b": 0.0}}},
            r"must have one above 0",
        ),
        (
            {"target__task": "regression", "gates__metric": "r2", "predict__costs": COSTS},
            r"must not be given for a regression target",
        ),
        (
            {"target__task": "regression", "gates__metric": "r2", "predict__threshold": "measured"},
            r"must not be given for a regression target, got measured; delete it",
        ),
    ],
)
def test_costs_and_thresholds_that_make_no_sense_are_refused(changes, said):

    found = mistakes(declared(**changes))
    assert any(re.search(said, line) for line in found), found
    assert all(line.startswith("products.tiny.predict.") for line in found)


def test_threshold_is_measured_where_costs_are_given_and_no_number():
    assert a_product().predict.threshold == 0.5
    assert a_product(predict__costs=COSTS).predict.threshold == "measured"
    assert a_product(predict__costs=COSTS, predict__threshold=0.2).predict.threshold == 0.2
    several = {"a": {"b": 2.0}}
    product = a_product(target__task="multiclass", gates__metric="macro_f1", predict__costs=several)
    assert product.predict.threshold == 0.5
    gate = {"metric": "expected_cost", "limit": 0.4}
    content = declared(predict__costs=COSTS, gates=gate)
    assert params.parse(content).product("tiny").gates.limit == 0.4


def test_costs_of_a_class_that_no_row_has_are_refused_by_name():
    costs = {"a": {"b": 2.0}, "c": {"a": 1.0}}
    product = a_product(target__task="multiclass", gates__metric="macro_f1", predict__costs=costs)
    model_inputs.check_costs(product, ("a", "b", "c"))
    with pytest.raises(UserError, match=r"predict\.costs must name classes .* no row is 'c'; use one of a, b"):
        model_inputs.check_costs(product, ("a", "b"))
    rule = model_inputs.prediction_rule(product, None, ("a", "b"), ("b", "a", "new"))
    assert rule.costs == ((0, 1, 1), (2, 0, 1), (1, 1, 0))


def test_thresholds_of_labels_follow_their_names():
    product = a_product(target__task="multilabel", gates__metric="macro_f1", predict__threshold="measured")
    measured = MeasuredThresholds(metric="f1", thresholds=(0.2, 0.7), rows=9)
    assert model_inputs.prediction_rule(product, measured, ("x", "y"), ("y", "new", "x")).thresholds == (0.7, 0.5, 0.2)
    assert model_inputs.prediction_rule(product, None, ("x", "y")).thresholds == (0.5,)
    fixed = a_product(target__task="multilabel", gates__metric="macro_f1", predict__threshold=0.3)
    assert model_inputs.prediction_rule(fixed, measured, ("x", "y")).thresholds == (0.3,)


def laid_out(task, **changes):
    """A product with a model that is not trained, its splits, kept validation scores, and rows of a night."""
    changes = {"gates__metric": "log_loss", "gates__limit": 9.0, "target__task": task, **changes}
    product = a_product(columns=KINDS, expectations=[], **changes)
    random = np.random.default_rng(0)
    random_model(PATHS.trained, task, KINDS, n_layers=1)
    for name, n in (("train", 80), ("val", 60), ("test", 90)):
        table = {column: mixed(n, seed=n)[column] for column in KINDS}
        scores = TorchScorer(PATHS.trained).score(table)
        y = (random.random(scores.shape) < scores).astype("int64")
        labels = y
        if task == "multiclass":
            drawn = (random.random((n, 1)) > scores.cumsum(1)).sum(1).clip(max=len(TASKS[task]) - 1)
            labels = np.array(TASKS[task])[drawn]
        elif task == "multilabel":
            labels = ["|".join(np.array(TASKS[task])[row == 1]) for row in y]
        days = pd.Timestamp("2024-02-01") + pd.to_timedelta(np.arange(n) // 20, "D")
        keys = [f"{name}-{row}" for row in range(n)]
        frame = pd.DataFrame(table).assign(late=labels, day=days, parcel_id=keys)
        write_table(PATHS.splits / f"{name}.parquet", frame)
        if name == "val" and task != "multiclass":
            save_validation(PATHS.trained, scores, y)
    rows = pd.DataFrame({name: mixed(40, seed=9)[name] for name in KINDS}).assign(
        parcel_id=[f"p{i:03d}" for i in range(40)], day=pd.Timestamp("2024-02-11")
    )
    rows["when"] = rows["when"].astype("datetime64[s]")
    write_table(partition(PATHS.valid / "rows", date(2024, 2, 11)), rows)
    counts = {"rows_in": 40, "rows_valid": 40, "rows_quarantined": 0}
    write_json(PATHS.report("validation.json"), {"scored_day": counts})
    (PATHS.valid.parents[2] / "constraints.txt").touch()
    return product


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "predicted"), [("binary", COSTS), ("multilabel", None), ("multiclass", {"a": {"b": 9.0}})]
)
def test_measured_predictions_agree_from_validation_rows_to_the_night(
    task, predicted, workspace, export_once, monkeypatch
):
    monkeypatch.setattr("model.scoring.export.export_onnx", export_once)
    monkeypatch.setattr("tasks.training.measuring.N_RESAMPLES", 20)
    monkeypatch.setattr("tasks.training.predictions.N_RESAMPLES", 20)
    if task == "multiclass":
        predicted = {TASKS[task][-1]: {TASKS[task][0]: 9.0}}
    changes = {} if predicted is None else {"predict__costs": predicted}
    product = laid_out(task, **changes, **({"predict__threshold": "measured"} if task == "multilabel" else {}))
    as_of = date(2024, 2, 10)
    line = evaluate(product, as_of)
    full = json.loads(PATHS.report("evaluation.json").read_text())
    found = full["predictions"]
    metric = "macro_f1" if task == "multilabel" else "expected_cost"
    assert found["metric"] == metric
    assert found["value"] == pytest.approx(full["model"][metric])
    assert found["interval_95"][0] <= found["value"] <= found["interval_95"][1]
    assert f"{metric} {found['value']:.4f} (95% interval" in line
    assert PATHS.report("evaluation.png").read_bytes().startswith(b"\x89PNG")

    export(product, as_of)
    predict(product, as_of)
    inputs = json.loads((PATHS.predictions / "night.json").read_text())["inputs"]
    night = pd.concat([pd.read_parquet(PATHS.predictions / part_name(i)) for i in range(inputs["shards"])])
    if task == "binary":
        (threshold,) = found["thresholds"].values()
        assert "chosen on 60 validation rows" in line
        assert inputs["threshold"] == threshold
        assert (night["prediction"] == (night["probability"] >= np.float32(threshold))).all()
        assert found["value"] <= found["plain"]
    elif task == "multilabel":
        assert inputs["threshold"] == found["thresholds"]
        assert len(set(inputs["threshold"].values())) == 2
        for name, threshold in inputs["threshold"].items():
            has = night["prediction"].fillna("").str.split("|").map(lambda names, name=name: name in names)
            assert (has == (night[f"probability_{name}"] >= np.float32(threshold))).all()
    else:
        assert inputs["costs"] == predicted
        assert "the class of least expected cost is predicted" in line
        matrix = 1.0 - np.eye(len(TASKS[task]))
        matrix[-1, 0] = 9.0
        shares = night[[f"probability_{name}" for name in TASKS[task]]].to_numpy()
        assert night["prediction"].tolist() == np.array(TASKS[task])[(shares @ matrix).argmin(1)].tolist()
        assert night["prediction"].tolist() != np.array(TASKS[task])[shares.argmax(1)].tolist()
    # A shard that is scored alone is of the same night, and what is declared as a number wins at once.
    assert predict_shard(product, as_of, 0).run == json.loads((PATHS.predictions / "night.json").read_text())["run"]


def test_change_of_costs_chooses_anew_without_training(workspace, export_once):
    dear = a_product(predict__costs={"false_positive": 1.0, "false_negative": 50.0})
    cheap = a_product(predict__costs={"false_positive": 50.0, "false_negative": 1.0})
    random_model(PATHS.trained, "binary", KINDS, n_layers=1)
    y, shares = drawn(500)
    save_validation(PATHS.trained, shares, y)
    low, high = (measured_thresholds(product, PATHS.trained) for product in (dear, cheap))
    assert low is not None
    assert high is not None
    assert low.thresholds[0] < 0.1 < 0.8 < high.thresholds[0]
    assert measured_thresholds(a_product(), PATHS.trained) is None
    export_once(PATHS.trained, PATHS.onnx)
    before = folder_sha256(PATHS.onnx)
    low.save(PATHS.onnx)
    assert MeasuredThresholds.load(PATHS.onnx) == low
    assert folder_sha256(PATHS.onnx) != before
    shutil.rmtree(PATHS.onnx)
    assert MeasuredThresholds.load(PATHS.onnx) is None
