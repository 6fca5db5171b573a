"""Oracle: the model's metrics themselves, on scores taken apart from the stage."""

import json
from datetime import date

import numpy as np
import pandas as pd
import pytest
from builders import a_product
from test_model_export import TASKS, mixed, random_model

from model.evaluation.metrics import evaluate_scores
from model.scoring.scorer import TorchScorer
from tasks.evaluate import evaluate
from tasks.rows import model_inputs
from tasks.rows.partitions import write_table
from tasks.runtime.paths import Paths
from tasks.training.measuring import UNCALIBRATED

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
    random = np.random.default_rng(0)
    for name, n in (("train", 80), ("val", 40), ("test", 60)):
        frame = pd.DataFrame({column: mixed(n, seed=n)[column] for column in KINDS})
        write_table(PATHS.splits / f"{name}.parquet", frame.assign(late=truths(task, n, random)))
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
