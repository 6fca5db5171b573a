"""Oracle: the exported model itself, asked about tables that pandas has changed; a hand count of what moved."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
import yaml
from builders import a_product, declared, mistakes
from conftest import ROOT
from test_model_export import TASKS, mixed, random_model

from model.scoring.engines import SIMPLEST
from model.scoring.scorer import Scorer
from tasks.export import export
from tasks.rows import model_inputs
from tasks.rows.partitions import write_table
from tasks.runs.gates.files import judge_behaviour, judge_files
from tasks.runtime.errors import UserError
from tasks.runtime.files import read_json
from tasks.runtime.paths import Paths
from tasks.training.held_out.behaviour import measure_behaviour
from tasks.training.held_out.exported import MeasuredFiles
from tasks.training.held_out.peak_memory import most_held

KINDS = {"colour": "category", "size": "number", "when": "time"}
PATHS = Paths("tiny")


def a_frame(n, seed=0):
    rows = pd.DataFrame({name: mixed(n, seed=seed)[name] for name in KINDS})
    rows["when"] = rows["when"].astype("datetime64[s]")
    rows["parcel_id"] = [f"{i:04d}" for i in range(n)]
    rows["day"] = (pd.Timestamp("2024-02-01") + pd.to_timedelta(np.arange(n) % 4, "D")).astype("datetime64[s]")
    return rows


@pytest.fixture(scope="module")
def models(tmp_path_factory, export_once):
    """Exported models with random weights, one that says yes or no and one of three classes."""
    found = {}
    for task in ("binary", "multiclass"):
        folder = tmp_path_factory.mktemp(task)
        random_model(folder / "trained", task, KINDS, n_layers=1)
        export_once(folder / "trained", folder / "onnx")
        SIMPLEST.save(folder / "onnx")
        found[task] = Scorer(folder / "onnx")
    return found


def a_test(**given):
    return {"must": "not_move", **given}


def product(task, *behaviour, **changes):
    metric = "auc" if task == "binary" else "macro_f1"
    given = {"columns": KINDS, "expectations": [], "target__task": task, "gates__metric": metric}
    return a_product(**given, behaviour=list(behaviour), **changes)


def held_out(declared_product, n=200):
    frame = a_frame(n)
    write_table(PATHS.splits / "test.parquet", frame.assign(late="0"))
    return frame, model_inputs.split_part(PATHS.splits, "test", declared_product)


def score(scorer, frame, declared_product):
    return scorer.score(model_inputs.inputs(frame, declared_product)).astype(float)


CHANGES = {
    "a value": ({"colour": "red"}, lambda frame: frame.assign(colour="red")),
    "more of a number": ({"size": {"add": 50}}, lambda frame: frame.assign(size=frame["size"] + 50)),
    "a number": ({"size": 1000}, lambda frame: frame.assign(size=1000.0)),
    "later": ({"when": {"add": 1}}, lambda frame: frame.assign(when=frame["when"] + pd.Timedelta("1D"))),
    "a date": (
        {"when": "2013-03-01"},
        lambda frame: frame.assign(when=np.datetime64("2013-03-01").astype("datetime64[s]")),
    ),
    "two at once": (
        {"colour": "green", "size": {"add": -7}},
        lambda frame: frame.assign(colour="green", size=frame["size"] - 7),
    ),
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_share_of_rows_that_do_as_they_must_is_that_of_a_hand_count(name, models, workspace):
    change, by_pandas = CHANGES[name]
    tests = [a_test(change=change, must=must, by=0.001) for must in ("not_move", "increase", "decrease")]
    tiny = product("binary", *tests)
    frame, rows = held_out(tiny)
    changed = by_pandas(frame)
    differs = [name for name in KINDS if not changed[name].equals(frame[name])]
    counts = (changed[differs].fillna(-1).astype(str) != frame[differs].fillna(-1).astype(str)).any(axis=1).to_numpy()
    moved = (score(models["binary"], changed, tiny) - score(models["binary"], frame, tiny))[counts]
    wanted = [np.mean(abs(moved) <= 0.001), np.mean(moved >= 0.001), np.mean(moved <= -0.001)]
    found = measure_behaviour(tiny, models["binary"], rows)
    assert [each.rows for each in found] == [counts.sum()] * 3
    assert [each.share for each in found] == pytest.approx(wanted, abs=0.01)
    assert found[0].mean_change == pytest.approx(moved.mean(), abs=1e-6)
    assert all(each.interval_95[0] <= each.share <= each.interval_95[1] for each in found)


def test_class_that_a_test_names_is_looked_at_and_without_one_all_are(models, workspace):
    change = {"size": {"add": 200}}
    tests = [a_test(change=change, must="increase", by=0, of=name) for name in TASKS["multiclass"]]
    tiny = product("multiclass", *tests, a_test(change=change, by=0.02))
    frame, rows = held_out(tiny)
    found = measure_behaviour(tiny, models["multiclass"], rows)
    at = frame["size"].notna().to_numpy()
    after = score(models["multiclass"], frame.assign(size=frame["size"] + 200), tiny)
    moved = (after - score(models["multiclass"], frame, tiny))[at]
    assert [each.share for each in found[:-1]] == pytest.approx((moved > 0).mean(axis=0), abs=0.01)
    assert found[-1].share == pytest.approx((abs(moved).max(axis=1) <= 0.02).mean(), abs=0.01)
    unknown = product("multiclass", a_test(change=change, must="increase", of="z"))
    with pytest.raises(UserError, match=r"behaviour.0.of must be a class of the labels, got 'z'; use one of a, b, c"):
        measure_behaviour(unknown, models["multiclass"], rows)


def test_test_that_no_row_can_answer_is_not_passed(models, workspace):
    tiny = product("binary", a_test(change={"colour": "red"}))
    rows = a_frame(20).assign(colour="red", late="0")
    write_table(PATHS.splits / "test.parquet", rows)
    (found,) = measure_behaviour(tiny, models["binary"], model_inputs.split_part(PATHS.splits, "test", tiny))
    assert (found.rows, found.share, found.passed) == (0, None, False)


def test_gates_of_the_files_are_on_their_own_figures():
    limits = {"limit": 0.6, "min_rows_per_second": 100, "max_megabytes": 2, "max_memory_megabytes": 300}
    tiny = product("binary", gates__export=limits)
    files = {"engine": "onnxruntime-fp32", "value": 0.7, "rows_per_second": 200, "bytes": 10**6}
    good = MeasuredFiles(**files, peak_memory_bytes=2 * 10**8)
    assert [(gate.name, gate.passed) for gate in judge_files(tiny, good)] == [
        (f"export.{name}", True) for name in limits
    ]
    bad = MeasuredFiles(**{**files, "value": 0.5, "rows_per_second": 50, "bytes": 10**7}, peak_memory_bytes=10**9)
    gates = judge_files(tiny, bad)
    assert [gate.passed for gate in gates] == [False] * 4
    assert [str(gate) for gate in gates[:2]] == [
        "gates.export.limit wants at least 0.6 auc of the exported files, and it is 0.5",
        "gates.export.min_rows_per_second wants at least 100 rows a second, and it is 50",
    ]
    assert [gate.passed for gate in judge_files(tiny, None)] == [False] * 4
    assert [gate.passed for gate in judge_files(tiny, MeasuredFiles(**files))] == [True, True, True, False]
    assert judge_files(product("binary"), bad) == []
    (unmeasured,) = judge_behaviour(product("binary", a_test(change={"size": 1})), good)
    assert not unmeasured.passed
    assert str(unmeasured).startswith("behaviour.0 wants a share of at least 0.95 of the changed rows, and it was not")


@pytest.mark.slow
def test_export_measures_its_files_in_a_process_of_their_own(workspace, export_once, monkeypatch):
    monkeypatch.setattr("model.scoring.export.export_onnx", export_once)
    monkeypatch.setattr("model.scoring.choice.TIMED_BATCHES", 1)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    behaviour = [a_test(change={"size": {"add": 1e-9}}), a_test(change={"size": {"add": 1}}, must="increase", by=5)]
    content = declared(columns=KINDS, expectations=[], behaviour=behaviour)
    content["products"]["tiny"]["gates"]["export"] = {"max_memory_megabytes": 1}
    (workspace / "params.yaml").write_text(yaml.safe_dump(content))
    random_model(PATHS.trained, "binary", KINDS, n_layers=1)
    for seed, part in enumerate(("train", "val", "test")):
        labels = np.random.default_rng(seed).choice(["0", "1"], 120)
        write_table(PATHS.splits / f"{part}.parquet", a_frame(120, seed).assign(late=pd.array(labels, dtype="str")))
    tiny = product("binary", *behaviour, gates__export={"max_memory_megabytes": 1})
    said = export(tiny, date(2024, 2, 10))
    assert said.endswith("; 1 of 2 tests of behaviour are passed")
    files = MeasuredFiles.from_json(read_json(PATHS.report("export.json"))["files"])
    assert files.bytes == sum(file.stat().st_size for file in PATHS.onnx.rglob("*"))
    assert files.rows_per_second > 0
    assert 3e7 < files.peak_memory_bytes < most_held(), "this process has held torch as well"
    gates = [*judge_files(tiny, files), *judge_behaviour(tiny, files)]
    assert [gate.passed for gate in gates] == [False, True, False]
    assert gates[2].about == "size + 1 must increase the prediction by 5 or more"


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ({"change": {"size": 1}}, "behaviour.0.must must be given, and is missing; add it, for example must: increase"),
        (
            a_test(change={"weight": 1}),
            "behaviour.0.change must name inputs, got 'weight'; use one of colour, size, when",
        ),
        (
            a_test(change={"colour": {"add": 1}}),
            "behaviour.0.change.colour must be a value, since nothing can be added to a category; write one",
        ),
        (
            a_test(change={"size": "big"}),
            "behaviour.0.change.size must be a number for a number, got 'big'; correct it",
        ),
        (
            a_test(change={"when": "soon"}),
            "behaviour.0.change.when must be a date or {add: days} for a time, got 'soon'; correct it",
        ),
        (
            a_test(change={"size": {"add": 0}}),
            "behaviour.0.change.size must be a value or {add: number} with a number other than 0, got {'add': 0}; "
            "use {add: 10}",
        ),
        (
            a_test(change={"size": 1}, of="red"),
            "behaviour.0.of must not be given for a binary target, got 'red'; delete it",
        ),
    ],
    ids=lambda each: str(each)[:30],
)
def test_test_of_what_no_row_can_be_is_refused(test, told):
    assert mistakes(declared(columns=KINDS, expectations=[], behaviour=[test])) == [f"products.tiny.{told}"]
