"""Oracle: gates worked by hand, for metrics that should rise and for metrics that should fall."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from builders import a_product
from sklearn.metrics import f1_score
from test_model_export import TASKS, mixed, random_model

from model.scoring.export import export_onnx
from model.scoring.scorer import Scorer
from tasks import params
from tasks.publication.scoring import load_scorer
from tasks.rows import model_inputs
from tasks.rows.partitions import write_table
from tasks.runs.gates import gate_failures, held_out_metric, incompatibility
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Paths

PATHS = Paths("tiny")
KINDS = {"colour": "category", "size": "number", "when": "time"}


def product(metric, task="binary", **gates):
    given = {"metric": metric, "limit": 0.7, "max_behind_baseline": 0.02, "max_behind_champion": 0.01, **gates}
    return a_product(gates=given, target__task=task)


def failed(*measured, metric="auc", task="binary", **gates):
    """The names of the gates that stay shut for (challenger, baseline, champion)."""
    told = gate_failures(product(metric, task, **gates), *measured)
    assert all(text.startswith("gates.") for text in told)
    return [text.split()[0].removeprefix("gates.") for text in told]


@pytest.mark.parametrize(
    ("challenger", "baseline", "champion", "shut"),
    [
        (0.80, 0.75, 0.78, []),
        (0.80, 0.81, 0.805, []),  # behind both, and no further than allowed
        (0.69, 0.60, 0.60, ["limit"]),
        (0.80, 0.83, None, ["max_behind_baseline"]),
        (0.80, 0.75, 0.82, ["max_behind_champion"]),
        (0.60, 0.75, 0.82, ["limit", "max_behind_baseline", "max_behind_champion"]),
        (0.70, 0.70, None, []),  # exactly at the limit
    ],
)
def test_metric_that_should_rise(challenger, baseline, champion, shut):
    assert failed(challenger, baseline, champion) == shut


@pytest.mark.parametrize(
    ("challenger", "baseline", "champion", "shut"),
    [
        (0.50, 0.55, 0.52, []),
        (0.50, 0.49, 0.495, []),
        (0.71, 0.80, 0.80, ["limit"]),
        (0.50, 0.47, None, ["max_behind_baseline"]),
        (0.50, 0.55, 0.48, ["max_behind_champion"]),
        (0.90, 0.60, 0.60, ["limit", "max_behind_baseline", "max_behind_champion"]),
    ],
)
@pytest.mark.parametrize(("metric", "task"), [("log_loss", "binary"), ("rmse", "regression"), ("mae", "regression")])
def test_metric_that_should_fall(metric, task, challenger, baseline, champion, shut):
    assert failed(challenger, baseline, champion, metric=metric, task=task) == shut


def test_first_challenger_needs_no_champion():
    assert failed(0.9, 0.8, None, max_behind_champion=-1.0) == []
    assert failed(0.9, 0.8, 0.85, max_behind_champion=-1.0) == ["max_behind_champion"]


def test_gate_may_ask_for_a_lead():
    assert failed(0.805, 0.8, None, max_behind_baseline=-0.01) == ["max_behind_baseline"]
    assert failed(0.815, 0.8, None, max_behind_baseline=-0.01) == []


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
def test_what_could_not_be_measured_opens_no_gate(metric):
    assert failed(math.nan, 0.8, 0.8, metric=metric) == ["limit", "max_behind_baseline", "max_behind_champion"]
    assert failed(0.7, 0.7, math.nan, metric=metric) == ["max_behind_champion"]


def test_shut_gate_tells_what_it_wants():
    assert gate_failures(product("auc"), 0.6, 0.75, 0.82) == [
        "gates.limit wants at least 0.7000",
        "gates.max_behind_baseline wants at least 0.7300",
        "gates.max_behind_champion wants at least 0.8100",
    ]
    assert gate_failures(product("log_loss"), 0.9, 0.5, None)[1] == "gates.max_behind_baseline wants at most 0.5200"


def test_every_metric_has_a_direction():
    assert set(params.LOWER_IS_BETTER) <= {metric for metrics in params.METRICS.values() for metric in metrics}


def topics(columns):
    given = {"columns": columns, "expectations": [], "target__task": "multiclass", "gates__metric": "macro_f1"}
    return a_product(**given)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An exported model of three classes; exporting takes seconds, so that the tests copy it."""
    folder = tmp_path_factory.mktemp("model")
    random_model(folder / "trained", "multiclass", KINDS)
    export_onnx(folder / "trained", folder / "onnx")
    return folder / "onnx"


@pytest.fixture
def champion(exported, tmp_path, monkeypatch):
    """An exported model of three classes, and a challenger that knows one more; held-out rows of all four."""
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "champion", PATHS.onnx):
        shutil.copytree(exported, folder)
    described = json.loads((PATHS.onnx / "network.json").read_text())
    described["target"]["classes"].append("d")
    (PATHS.onnx / "network.json").write_text(json.dumps(described))
    rows = pd.DataFrame({name: mixed(80)[name] for name in KINDS})
    rows["late"] = pd.array(np.random.default_rng(0).choice(["a", "b", "c", "d"], 80), dtype="str")
    write_table(PATHS.splits / "test.parquet", rows)
    return tmp_path / "champion"


def test_champion_is_measured_on_the_rows_of_a_class_that_it_does_not_know(champion):
    rows = pd.read_parquet(PATHS.splits / "test.parquet")
    said = Scorer(champion).score(model_inputs.inputs(rows, topics(KINDS))).argmax(1)
    wanted = f1_score(rows["late"], np.array(TASKS["multiclass"])[said], average="macro")
    assert held_out_metric(champion, topics(KINDS)) == pytest.approx(wanted)
    known = rows[rows["late"] != "d"]
    assert wanted < f1_score(known["late"], np.array(TASKS["multiclass"])[said[known.index]], average="macro")


def test_champion_of_other_classes_altogether_stops_no_challenger(champion):
    assert incompatibility(champion, topics(KINDS)) == ""
    described = json.loads((PATHS.onnx / "network.json").read_text())
    described["target"]["classes"] = ["d", "e", "f"]
    (PATHS.onnx / "network.json").write_text(json.dumps(described))
    assert incompatibility(champion, topics(KINDS)) == "answers with a, b, c"
    assert incompatibility(champion, topics({"size": "number", "when": "time"})) == "reads colour as category"


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (KINDS, ""),
        ({**KINDS, "weight": "number"}, ""),
        ({"colour": "category", "when": "time"}, "reads size as number"),
        ({**KINDS, "size": "category", "colour": "text"}, "reads colour as category, size as number"),
    ],
)
def test_model_of_other_columns_is_named_and_neither_scores_nor_stops_a_new_one(champion, columns, told):
    assert incompatibility(champion, topics(columns)) == told
    if told:
        with pytest.raises(UserError, match=f"must declare what the model .*, and the model {told}; let train__tiny"):
            load_scorer(topics(columns))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"target__task": "binary", "gates__metric": "auc"}, "answers late as multiclass"),
        ({"target__task": "regression", "gates__metric": "rmse"}, "answers late as multiclass"),
        ({"target__name": "team"}, "answers late as multiclass"),
    ],
)
def test_model_of_another_target_neither_scores_nor_stops_a_new_one(champion, changes, told):
    for folder in (champion, PATHS.onnx):
        described = json.loads((folder / "network.json").read_text())
        described["target"]["column"] = "late"
        (folder / "network.json").write_text(json.dumps(described))
    given = {"columns": KINDS, "expectations": [], "target__task": "multiclass", "gates__metric": "macro_f1"}
    product = a_product(**{**given, **changes})
    assert incompatibility(champion, product) == told
    with pytest.raises(UserError, match=f"and the model {told}; let train__tiny promote"):
        load_scorer(product)
