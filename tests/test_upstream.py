"""Oracle: dvc.yaml's own account of which stage reads and makes what."""

import itertools
import shutil
from dataclasses import replace

import pytest
import yaml
from conftest import ROOT

from tasks import STAGES
from tasks.runs.dvc import DvcLock
from tasks.runs.experiments import Run
from tasks.runs.steps import check_answered, collect, opened_run
from tasks.runs.upstream import PREDICT_STAGES, carried_ingest, check_upstream, made_by
from tasks.runs.workspace import _reads, declared_stages
from tasks.runtime.errors import UserError
from tasks.runtime.results import Result

AS_OF = "2024-02-10"
TRAIN = Run(name=f"tiny-{AS_OF}-train-00000000", product="tiny", as_of=AS_OF, revision="ab" * 20, shards=3)
PREDICT = replace(TRAIN, name=f"tiny-{AS_OF}-predict-00000000", champion="cd" * 20)
DECLARED = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
DECLARED = {name: stage["do"] for name, stage in DECLARED.items()}
ORDERS = {TRAIN: (*STAGES[:-1], "promote"), PREDICT: (*PREDICT_STAGES, "publish")}
"""The commands of a run's DAG, each after those whose work it needs; collect saves the stage predict."""


@pytest.fixture(autouse=True)
def workspaces(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path))
    for run in ORDERS:
        run.workspace.mkdir(parents=True)
        shutil.copy(ROOT / "dvc.yaml", run.workspace)


def entry(stage, as_of=AS_OF):
    """A stage of dvc.lock, as DVC writes it; the hash of a path is that of its first making."""
    paths = [path.replace("${key}", "tiny") for path in made_by(DECLARED[stage])]
    deps = [path.replace("${key}", "tiny") for path in DECLARED[stage]["deps"]]
    params = {"params.yaml": {"as_of": as_of}} if "as_of" in DECLARED[stage]["params"] else {}
    return {
        "deps": [{"path": path, "md5": f"first {path}"} for path in deps],
        "params": params,
        "outs": [{"path": path, "md5": f"first {path}"} for path in paths],
    }


def lock_of(run):
    made = ORDERS[run][:-1] if run is TRAIN else (*PREDICT_STAGES, "export")
    return {f"{stage}@tiny": entry(stage) for stage in made}


def check(run, command, stages):
    DvcLock(stages).write(run.workspace)
    check_upstream(run, command, _reads(run, command), declared_stages(run))


@pytest.mark.parametrize("run", ORDERS, ids=("train", "predict"))
def test_run_whose_tasks_all_ran_is_let_through(run):
    for command in (*ORDERS[run], "gc"):
        check(run, command, lock_of(run))


@pytest.mark.parametrize(
    ("run", "skipped", "command"),
    [
        (run, before, "promote" if before == "evaluate" else after)  # export reads nothing of evaluate
        for run, order in ORDERS.items()
        for before, after in itertools.pairwise(order)
    ],
)
def test_task_after_one_that_was_marked_successful_names_it(run, skipped, command):
    stages = lock_of(run)
    del stages[f"{skipped}@tiny"]
    task = "collect" if skipped == "predict" else skipped
    with pytest.raises(
        UserError, match=f"{command} must .* {task} has left nothing: .* clear the task {task} with all"
    ):
        check(run, command, stages)


@pytest.mark.parametrize("run", ORDERS, ids=("train", "predict"))
@pytest.mark.parametrize("stage", ["ingest", "validate"])
def test_data_of_an_earlier_night_are_not_taken_for_those_of_this_run(run, stage):
    """Raw data are carried on from the run before, and main may have a dvc.lock."""
    stages = {**lock_of(run), f"{stage}@tiny": entry(stage, "2024-02-09")}
    command = {TRAIN: "promote", PREDICT: "predict"}[run]
    with pytest.raises(UserError, match=f"{stage} has left nothing of as_of {AS_OF}, .* is of 2024-02-09"):
        check(run, command, stages)


def test_model_of_another_training_is_not_taken_for_that_of_this_run():
    """Its stage names no as_of, but the split that it learned from."""
    stages = lock_of(TRAIN)
    for out in stages["split@tiny"]["outs"]:
        out["md5"] = "anew"
    for dep in stages["evaluate@tiny"]["deps"]:
        dep["md5"] = "anew" if dep["path"] == "data/splits/tiny" else dep["md5"]
    with pytest.raises(UserError, match=r"split has made data/splits/tiny anew since (pretrain|train|export) read it"):
        check(TRAIN, "promote", stages)


def test_night_that_stopped_asks_its_source_again_and_one_that_passed_does_not():
    """So that late data make the night that lacked them."""
    passed = lock_of(PREDICT)
    assert carried_ingest(PREDICT, passed) == passed["ingest@tiny"]
    stopped = {"ingest@tiny": entry("ingest"), "validate@tiny": entry("validate", "2024-02-09")}
    for stages in (stopped, {"ingest@tiny": entry("ingest")}):
        carried = carried_ingest(PREDICT, stages)
        assert carried["outs"] == stages["ingest@tiny"]["outs"], "what is stored is carried on"
        assert carried["params"] != stages["ingest@tiny"]["params"], "DVC runs it again"
    night_before = {"ingest@tiny": entry("ingest", "2024-02-09")}
    assert carried_ingest(PREDICT, night_before) == night_before["ingest@tiny"]


@pytest.mark.parametrize("record", [None, [], "x"])
def test_run_that_start_has_not_opened_is_one_message(record):
    with pytest.raises(UserError, match=r"^the task start must have opened the run.*clear start with all that follows"):
        opened_run(record)


def test_shard_that_nobody_scored_is_one_message():
    with pytest.raises(UserError, match=r"all shards must have been scored, and 0 have.*clear the task validate"):
        collect(PREDICT, [])


def test_model_that_nobody_answered_for_is_not_passed_over_in_silence():
    check_answered(Result(status="done", fields={"decision": "promoted"}))
    with pytest.raises(UserError, match=r"approve must name the person who answered.*clear approve to be asked again"):
        check_answered(Result(status="done", fields={"decision": "needs approval"}))
