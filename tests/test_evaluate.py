"""Oracle: the model's metrics themselves, on scores taken apart from the stage; scikit-learn with all labels."""

import json
import time
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from builders import a_product
from sklearn import metrics as sk
from sklearn.preprocessing import MultiLabelBinarizer
from test_model_export import TASKS, mixed, random_model

from model.evaluation.metrics import evaluate_scores
from model.scoring.scorer import TorchScorer
from tasks.evaluate import evaluate
from tasks.params import SliceGates
from tasks.rows import model_inputs
from tasks.rows.partitions import write_table
from tasks.runtime.paths import Paths
from tasks.training import plots
from tasks.training.measuring import UNCALIBRATED, measure

KINDS = {"colour": "category", "size": "number", "when": "time"}
PATHS = Paths("tiny")
METRIC = {"binary": "auc", "multiclass": "macro_f1", "multilabel": "macro_f1", "regression": "rmse"}


def truths(task, n, random):
    match task:
        case "binary":
            return random.integers(0, 2, n)
        case "multiclass":
            return random.choice(TASKS[task], n)
        case "multilabel":
            return random.choice(["", "x", "y", "x|y"], n)
    return random.normal(size=n)


@pytest.mark.parametrize("task", TASKS)
def test_report_holds_every_metric_of_model_and_baseline(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threshold = {"predict__threshold": 0.3} if task in ("binary", "multilabel") else {}
    product = a_product(columns=KINDS, expectations=[], target__task=task, gates__metric=METRIC[task], **threshold)
    half = {"gates": replace(product.gates, slices=SliceGates(min_rows=10)), "slices": {"big": "size > 1000"}}
    product = replace(product, **half)
    random = np.random.default_rng(0)
    for name, n in (("train", 80), ("val", 40), ("test", 60)):
        frame = pd.DataFrame({column: mixed(n, seed=n)[column] for column in KINDS})
        day = pd.Timestamp("2024-02-01") + pd.to_timedelta(np.arange(n) % 4, "D")
        frame["parcel_id"] = [f"{name}-{row}" for row in range(n)]
        write_table(PATHS.splits / f"{name}.parquet", frame.assign(late=truths(task, n, random), day=day))
    random_model(PATHS.trained, task, KINDS)
    monkeypatch.setattr("tasks.training.measuring.N_RESAMPLES", 20)
    told = evaluate(product, date(2024, 2, 10))

    model = TorchScorer(PATHS.trained)
    rows, y = model_inputs.split_part(PATHS.splits, "test", product).with_known_labels(model.classes)
    wanted = evaluate_scores(task, y, model.score(rows.read_all()), model.classes, product.predict.threshold)
    full = json.loads(PATHS.report("evaluation.json").read_text())
    metrics = json.loads(PATHS.report("metrics.json").read_text())
    interval = full["model"].pop(f"{METRIC[task]}_interval_95")
    assert full["model"] == json.loads(json.dumps(wanted))
    assert interval[0] <= wanted[METRIC[task]] <= interval[1]
    assert set(metrics["baseline"]) == {name for name, value in full["baseline"].items() if isinstance(value, float)}
    assert f"{METRIC[task]} {wanted[METRIC[task]]:.4f} (95% interval" in told
    assert (UNCALIBRATED in metrics) == (task != "regression")
    if task != "regression":
        assert set(metrics[UNCALIBRATED]) == {"log_loss", "brier", "ece"}
        assert full[UNCALIBRATED]["log_loss"] != full["model"]["log_loss"]
        assert f"({full[UNCALIBRATED]['ece']:.3f} before calibration)" in told
    assert PATHS.report("evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert set(metrics["slices"]) == {"big", "not big"}
    scores = model.score(rows.read_all())
    best = (scores if scores.ndim == 1 else scores.max(axis=1)).argmax()
    assert full["single_rows"][0]["key"] == f"test-{best}", "the row that is scored highest is among the explained ones"
    sizes = frame["size"]
    assert [each["rows"] for each in full["slices"]["slices"]] == [sum(sizes > 1000), sum(sizes <= 1000)]


def splits_with_unseen_classes(task, unseen):
    """Splits whose test rows have the labels `unseen` on their last 20 of 60 rows; 40 have labels of training."""
    product = a_product(columns=KINDS, expectations=[], target__task=task, gates__metric="macro_f1")
    random = np.random.default_rng(0)
    for name, n in (("train", 80), ("val", 40), ("test", 60)):
        frame = pd.DataFrame({column: mixed(n, seed=n)[column] for column in KINDS}).assign(
            late=truths(task, n, random).astype(object)
        )
        if name == "test":
            frame.loc[40:, "late"] = unseen * (20 // len(unseen))
        write_table(PATHS.splits / f"{name}.parquet", frame)
    random_model(PATHS.trained, task, KINDS)
    return product, frame["late"].tolist()


def test_rows_of_classes_never_trained_are_wrong_answers_as_scikit_learn_counts(workspace, monkeypatch):
    monkeypatch.setattr("tasks.training.measuring.N_RESAMPLES", 20)
    product, labels = splits_with_unseen_classes("multiclass", ["never", "seen"])
    measured, model = measure(product, PATHS), TorchScorer(PATHS.trained)
    rows = model_inputs.split_part(PATHS.splits, "test", product).read_all()
    answers = np.array(model.classes)[model.score(rows).argmax(1)].tolist()
    found = measured.by_scorer["model"]
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, answers))
    assert found["accuracy"] <= 40 / 60
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, answers, average="macro", zero_division=0))
    everyone = [*model.classes, "never", "seen"]
    shares = np.c_[model.score(rows).astype(float), np.zeros((60, 2))].clip(np.finfo(np.float32).tiny)
    order = np.argsort(everyone)
    shares = (shares / shares.sum(1, keepdims=True))[:, order]
    assert found["log_loss"] == pytest.approx(sk.log_loss(labels, shares, labels=sorted(everyone)), rel=1e-4)
    assert found["per_class"]["never"] == {"precision": 0, "recall": 0, "f1": 0, "support": 10}
    assert measured.by_scorer["baseline"]["accuracy"] <= 40 / 60
    assert found["macro_f1_interval_95"][1] < 0.9
    assert measured.report()["rows_of_unknown_class"] == 20
    assert "on 60 held-out rows, 20 of them of 2 classes that training never saw, which count as wrong" in (
        measured.summary
    )


def test_labels_never_trained_are_missed_ones_as_scikit_learn_counts(workspace, monkeypatch):
    monkeypatch.setattr("tasks.training.measuring.N_RESAMPLES", 20)
    product, labels = splits_with_unseen_classes("multilabel", ["x|never"])
    measured, model = measure(product, PATHS), TorchScorer(PATHS.trained)
    scores = model.score(model_inputs.split_part(PATHS.splits, "test", product).read_all())
    binarise = MultiLabelBinarizer(classes=[*model.classes, "never"]).fit([])
    y = binarise.transform([{name for name in label.split("|") if name} for label in labels])
    decided = np.c_[scores >= 0.5, np.zeros(60, bool)].astype(int)
    found = measured.by_scorer["model"]
    for average in ("macro", "micro"):
        assert found[f"{average}_f1"] == pytest.approx(sk.f1_score(y, decided, average=average, zero_division=0))
    assert measured.report()["rows_of_unknown_class"] == 20


def test_confusion_of_many_classes_is_drawn_in_seconds_without_numbers(workspace):
    n = 200
    y = np.arange(n)
    scores = {"model": np.eye(n), "baseline": np.eye(n)}
    product = a_product(expectations=[], target__task="multiclass", gates__metric="macro_f1")
    begun = time.process_time()
    plots.plot_evaluation(PATHS.report("evaluation.png"), product, y, scores, tuple(map(str, y)))
    assert time.process_time() - begun < 20
