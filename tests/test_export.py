"""Oracle: the exported file itself, scored by the engine that the report names, and by ONNX Runtime in fp32."""

import json
from datetime import date

import numpy as np
import pandas as pd
import pytest
from builders import a_product
from test_model_export import mixed, random_model

from model.evaluation.metrics import evaluate_scores
from model.scoring.engines import SIMPLEST
from model.scoring.scorer import Scorer
from tasks.export import export
from tasks.rows import model_inputs
from tasks.rows.partitions import write_table
from tasks.runtime.errors import UserError
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths

KINDS = {"colour": "category", "size": "number", "when": "time"}
PATHS = Paths("tiny")
AS_OF = date(2024, 2, 10)


def product(engine, **changes):
    return a_product(columns=KINDS, expectations=[], model__engine=engine, **changes)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A model and a split, as `export` finds them."""
    monkeypatch.chdir(tmp_path)
    random_model(PATHS.trained, "binary", KINDS, n_layers=1)
    for seed, part in enumerate(("train", "val", "test")):
        rows = pd.DataFrame({name: mixed(120, seed=seed)[name] for name in KINDS})
        rows["when"] = rows["when"].astype("datetime64[s]")
        rows["late"] = pd.array(np.random.default_rng(seed).choice(["0", "1"], 120), dtype="str")
        write_table(PATHS.splits / f"{part}.parquet", rows)


@pytest.mark.long
def test_engines_are_measured_only_where_another_one_would_save_time(trained, monkeypatch):
    monkeypatch.setattr("model.scoring.choice.TIMED_BATCHES", 1)
    quick = export(product("measured"), AS_OF)
    assert quick.split("; ")[1].startswith(f"{SIMPLEST} will score (rows per CPU second: {SIMPLEST} ")
    assert len(json.loads(PATHS.report("export.json").read_text())["candidates"]) == 1
    assert not list(PATHS.onnx.glob("*int8*"))


@pytest.mark.long
def test_report_says_what_scores_and_what_that_costs(trained, monkeypatch):
    monkeypatch.setattr("model.scoring.choice.TIMED_BATCHES", 1)
    monkeypatch.setattr("tasks.training.engine_choice.QUICK_SECONDS", 0.0)
    low = product("measured", gates__metric="f1", predict__threshold=0.3)
    said = export(low, AS_OF)
    report = json.loads(PATHS.report("export.json").read_text())
    engines = [found["engine"] for found in report["candidates"]]
    assert engines[0] == str(SIMPLEST)
    assert report["engine"] in engines
    assert report["engine"] in said
    assert report["model_sha256"] == folder_sha256(PATHS.onnx)
    scorer = Scorer(PATHS.onnx)
    assert f"{scorer.engine['engine']}-{scorer.engine['precision']}" == report["engine"]
    rows, y = model_inputs.split_part(PATHS.splits, "test", low).with_known_labels(scorer.classes)
    metric = evaluate_scores("binary", y, scorer.score(rows.read_all()), scorer.classes, 0.3)["f1"]
    assert metric != evaluate_scores("binary", y, scorer.score(rows.read_all()), scorer.classes)["f1"]
    assert report["held_out"][report["engine"]] == pytest.approx(metric, abs=1e-12)
    assert set(report["held_out"]) == {str(SIMPLEST), report["engine"]}


def test_engine_that_this_machine_lacks_is_refused_before_anything_is_exported(trained, monkeypatch):
    monkeypatch.setattr("model.compute.processor.features", lambda: {"fpu"})
    with pytest.raises(UserError, match=r"model\.engine must be one that this machine can run, got onnxruntime-int8"):
        export(product("onnxruntime-int8"), AS_OF)
    assert not PATHS.onnx.exists()


def test_network_that_is_slow_is_proven_on_the_rows_that_the_time_allows(trained, monkeypatch):
    monkeypatch.setattr("tasks.training.exporting.PROOF_SECONDS", 0.0)
    monkeypatch.setattr("tasks.training.exporting.LEAST_PROOF_ROWS", 7)
    said = export(product(str(SIMPLEST)), AS_OF)
    assert " on 7 held-out rows; " in said
    assert json.loads(PATHS.report("export.json").read_text())["rows"] == 7
