"""Oracle: the promises of tasks/runs/workspace.py, on real folders, locks and exit codes."""

import dataclasses
import fcntl
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders import TINY, a_repository
from conftest import ROOT, environment

from tasks.runs import dvc, experiments, locks, programs, steps, workspace
from tasks.runtime import git
from tasks.runtime.errors import CommandFailed, TransientError, UserError
from tasks.runtime.results import Result, read_result, result_file, write_result

RUN = experiments.Run(
    name="tiny-2024-02-10-train-00000000", product="tiny", as_of="2024-02-10", revision="ab" * 20, shards=3
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path))
    return tmp_path / "runs"


def make(home, name: str, age: int) -> None:
    (home / name).mkdir(parents=True)
    os.utime(home / name, (1_700_000_000 - age, 1_700_000_000 - age))


def test_old_workspaces_make_room_but_not_those_at_work_or_of_other_products(home):
    names = [f"tiny-2024-02-{day:02d}-train-0000000{day}" for day in range(1, 9)]
    for age, name in enumerate(reversed(names)):
        make(home, name, age)
    others = [f"tiny-{other}-2023-01-01-train-00000001" for other in ("other", "2")]
    for name in others:
        make(home, name, 999)
    with (home / f"{names[0]}.lock").open("w") as busy, (home / f"{names[1]}.shared-lock").open("w") as scoring:
        fcntl.flock(busy, fcntl.LOCK_EX)
        fcntl.flock(scoring, fcntl.LOCK_SH)
        workspace.evict_workspaces(RUN)
    kept = {path.name for path in home.iterdir() if path.is_dir()}
    assert kept == {*names[:2], *names[-workspace.KEPT_WORKSPACES :], *others}


def test_half_made_workspace_is_not_deleted_under_a_shard_that_scores(home, monkeypatch):
    monkeypatch.setattr(workspace, "_restore", lambda run, reads: run.workspace.mkdir(parents=True, exist_ok=True))
    retried = threading.Event()

    def retry():
        with workspace.shared_workspace(RUN, "predict"):
            retried.set()

    sibling = threading.Thread(target=retry)
    with workspace.shared_workspace(RUN, "predict"), workspace.shared_workspace(RUN, "predict"):
        (RUN.workspace / "scored").touch()
        locks.dirty_flag(RUN).touch()  # as a shard that was killed while it restored
        sibling.start()
        assert not retried.wait(0.5)
        assert (RUN.workspace / "scored").exists()
    sibling.join(30)
    assert retried.is_set()
    assert not (RUN.workspace / "scored").exists()


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        (65, "user error", UserError),
        (255, "user error", UserError),  # DVC has an exit code of its own for a stage that fails
        (255, "transient error", TransientError),
        (255, "started", TransientError),  # the stage was killed, and DVC noticed
        (-9, "started", TransientError),
        (-9, "done", TransientError),  # DVC was killed after its stage
        (-9, None, TransientError),
        (1, None, CommandFailed),
        (255, "bug", CommandFailed),
        (255, "done", CommandFailed),  # DVC failed after its stage
    ],
)
def test_result_says_whether_a_retry_can_help(code, status, kind):
    result = status and Result(status=status, message="params.yaml: mend me")
    with pytest.raises(kind) as caught:
        dvc.outcome("validate", code, result)
    if status in ("user error", "transient error"):
        assert str(caught.value).endswith("\nparams.yaml: mend me")


def test_command_that_left_no_result_had_nothing_to_do():
    assert dvc.outcome("validate", 0, None).status == "reused"
    done = Result(status="done", message="19 rows", fields={"rows": 19})
    assert dvc.outcome("validate", 0, done) == done


COMMAND = """
import os, signal, sys
from tasks import stage
from tasks.runtime.errors import CommandFailed, TransientError, UserError
from tasks.runtime.results import Result, read_result, result_file, write_result
ends = {
    "done": lambda *_: "ten rows",
    "user error": lambda *_: (_ for _ in ()).throw(UserError("mend me")),
    "transient error": lambda *_: (_ for _ in ()).throw(TransientError("wait")),
    "bug": lambda *_: {}["missing"],
    "started": lambda *_: os.kill(os.getpid(), signal.SIGKILL),
}
stage.run("validate", "tiny", ends[sys.argv[1]])
"""


@pytest.mark.parametrize(
    ("status", "message"),
    [("done", "ten rows"), ("user error", "mend me"), ("transient error", "wait"), ("bug", "missing"), ("started", "")],
)
def test_command_records_how_it_ended_whatever_it_printed(tmp_path, status, message):
    (tmp_path / "params.yaml").write_text(TINY)
    env = environment(tmp_path, PYTHONPATH=str(ROOT))
    subprocess.run([sys.executable, "-c", COMMAND, status], cwd=tmp_path, env=env, check=False)
    result = read_result(result_file("tiny", "validate", tmp_path))
    assert result.status == status
    assert message in result.message


def test_result_of_an_earlier_try_is_not_taken_for_that_of_this_one(home):
    RUN.workspace.mkdir(parents=True)
    write_result(result_file("tiny", "validate", RUN.workspace), Result(status="done", message="of an earlier try"))
    assert dvc.run_command(RUN, "validate", [sys.executable, "-c", "pass"]).status == "reused"


@pytest.mark.parametrize("name", ["..", "../other", "a/b", ""])
def test_no_result_is_written_outside_of_its_folder(name):
    assert result_file(name, "validate") is None


@pytest.mark.parametrize("link", ["data", "data/raw", "data/raw/tiny"])
def test_data_are_not_pulled_through_a_symbolic_link(home, tmp_path, link):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = RUN.workspace / link
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)
    (RUN.workspace / "dvc.lock").write_text("stages: {ingest@tiny: {outs: [{path: data/raw/tiny, md5: x}]}}")
    with pytest.raises(UserError, match=f"data must lie in the workspace itself, and {link} is a symbolic link"):
        workspace.pull(RUN, ["data/raw/tiny"], "the raw data")
    assert not list(elsewhere.iterdir())


def test_model_must_be_the_one_that_dvc_recorded(home):
    """The hash of a real folder by DVC 3.67: of {a.json: "{}", sub/b.bin: "model"}."""
    folder = RUN.workspace / "data/models/tiny/onnx"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    (folder / "sub/b.bin").write_text("model")
    recorded = "f90c914908da1bd2755dc73d42153e9d.dir"
    lock = f"stages: {{export@tiny: {{outs: [{{path: data/models/tiny/onnx, md5: {recorded}}}]}}}}"
    (RUN.workspace / "dvc.lock").write_text(lock)
    workspace.check_model(RUN)
    (folder / "a.json").write_text("{} ")
    with pytest.raises(UserError, match="data/models/tiny/onnx must be what is registered"):
        workspace.check_model(RUN)


def test_worker_that_wakes_after_its_retry_handed_on_does_not_take_the_run_back(tmp_path, monkeypatch):
    """Two clones of one run, as on two disks: what the retry has pushed stays."""
    origin, run_git = tmp_path / "origin", git.git
    run_git("init", "--quiet", "--bare", str(origin))
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(origin))
    identity = ("-c", "user.name=T", "-c", "user.email=t@localhost")

    def made(where: str, text: str) -> str:
        """A workspace on a disk of its own, in which a stage has been done."""
        monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path / where))
        RUN.workspace.mkdir(parents=True, exist_ok=True)
        run_git("init", "--quiet", cwd=RUN.workspace)
        run_git(*identity, "commit", "--quiet", "--allow-empty", "-m", text, cwd=RUN.workspace)
        run_git("update-ref", RUN.reference, "HEAD", cwd=RUN.workspace)
        return run_git("rev-parse", "HEAD", cwd=RUN.workspace).strip()

    made("zombie", "the first attempt")
    (RUN.workspace / ".git" / "lamplighter").write_text("begun")
    retried = made("retry", "the retry")
    (RUN.workspace / ".git" / "lamplighter").write_text("begun")
    workspace.push_experiment(RUN)
    (RUN.workspace / ".git" / "lamplighter").write_text(retried)
    further = made("retry", "the next stage")
    workspace.push_experiment(RUN)
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path / "zombie"))
    with pytest.raises(TransientError, match="git push"):
        workspace.push_experiment(RUN)
    assert run_git("ls-remote", str(origin), RUN.reference).split()[0] == further


ENDED = """
import os, signal, sys, threading
from pathlib import Path
from tasks.runs import programs
from tasks.runs import experiments
from tasks.runs import workspace
from tasks.runtime import settings

os.environ["LAMPLIGHTER_HOME"] = sys.argv[1]
workspace._restore = lambda run, reads: run.workspace.mkdir(parents=True, exist_ok=True)
run = experiments.Run(name=sys.argv[2], product="tiny", as_of="2024-02-10", revision="x", shards=3)
signal.signal(signal.SIGUSR1, lambda *_: sys.exit("time is up"))
threading.Timer(1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
with workspace.exclusive_workspace(run, "train"):
    programs.call(run, ["sh", "-c", "sleep 900 & echo $!; wait"])
"""


def test_whatever_works_in_a_workspace_ends_with_a_task_whose_time_is_up(home, tmp_path):
    """As Airflow ends it, by a signal; the workspace, which may be half written, is then made anew."""
    command = [sys.executable, "-c", ENDED, str(tmp_path), RUN.name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.stderr.strip().endswith("time is up"), done.stderr
    inner = Path("/proc") / done.stdout.strip()
    for _ in range(50):
        time.sleep(0.1 * inner.exists())
    assert not inner.exists()
    assert locks.dirty_flag(RUN).exists()


def test_processes_of_a_workspace_are_in_the_group_that_airflow_ends(home, capsys):
    RUN.workspace.mkdir(parents=True)
    assert programs.call(RUN, [sys.executable, "-c", "import os; print(os.getpgrp())"])[0] == 0
    assert capsys.readouterr().out.split() == [str(os.getpgrp())]


def test_dvc_commands_of_a_step_share_a_process_until_it_is_killed(home):
    RUN.workspace.mkdir(parents=True)
    with programs.one_dvc(RUN):
        assert programs.call_dvc(RUN, ["--version"]) == (0, "3.67.1\n\n")
        first = programs._DVC_OF[RUN.workspace]
        assert programs.call_dvc(RUN, ["status"], quietly=True)[0] == 253, "DVC's own code: this is no repository"
        assert programs._DVC_OF[RUN.workspace] is first
        first.kill()
        assert programs.call_dvc(RUN, ["--version"])[0] == -9
        assert programs.call_dvc(RUN, ["--version"])[0] == 0
        second = programs._DVC_OF[RUN.workspace]
    assert second.returncode == 0, "it ends with the step"


def test_experiment_is_a_commit_on_the_revision_with_what_the_run_settled(home):
    a_repository(RUN.workspace)
    run = dataclasses.replace(RUN, revision=git.git("rev-parse", "HEAD", cwd=RUN.workspace).strip())
    for name in ("dvc.lock", "params.yaml"):
        (run.workspace / name).write_text(f"{name} of the run")
    workspace.save_experiment(run)
    shown = git.git("show", "--format=%P", "--name-only", run.reference, cwd=run.workspace).split()
    assert shown == [run.revision, "dvc.lock", "params.yaml"]
    assert git.git("diff", "--cached", "--name-only", cwd=run.workspace) == "", "nothing stays staged"


def test_password_of_the_origin_is_in_no_message(monkeypatch):
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", "https://bob:s3cr3t@127.0.0.1:1/x.git")
    with pytest.raises(TransientError, match=r"git ls-remote https://127\.0\.0\.1:1/x\.git .*failed") as caught:
        experiments.experiments("tiny")
    assert "s3cr3t" not in str(caught.value)


def test_git_that_hangs_is_ended_with_what_it_started_and_its_workspace_made_anew(home, tmp_path, monkeypatch):
    monkeypatch.setattr(git, "GIT_SECONDS", 0.5)
    hang = f"alias.hang=!echo $$ > {tmp_path}/pid; exec sleep 60"
    monkeypatch.setattr(workspace, "_restore", lambda run, reads: git.git("-c", hang, "hang"))
    with pytest.raises(TransientError, match=r"did not end within 0.5 s"), workspace.exclusive_workspace(RUN, "train"):
        pass
    inner = Path("/proc") / (tmp_path / "pid").read_text().strip()
    for _ in range(50):
        time.sleep(0.1 * inner.exists())
    assert not inner.exists()
    assert locks.dirty_flag(RUN).exists()


def test_nights_of_a_backfill_ask_their_source_once(home, tmp_path, monkeypatch, capsys):
    """The first to need it asks, as of the last night; another backfill asks anew."""
    origin = a_repository(tmp_path / "origin")
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(origin))
    revision = git.git("rev-parse", "HEAD", cwd=origin).strip()
    asked = []

    def ingest(run, name):
        asked.append((run.as_of, name, run.champion, run.backfill))
        git.git("update-ref", run.reference, revision, cwd=origin)  # as the step's push does, last of all
        (run.workspace / ".git").mkdir(parents=True)
        locks.commit_file(run).write_text(revision)

    def night(day: int, number: int):
        name = f"tiny-2024-02-{day:02d}-predict-0000000{number}"
        facts = {"revision": revision, "as_of": f"2024-02-{day:02d}", "champion": revision, "generation": 1}
        return dataclasses.replace(RUN, name=name, backfill=number, backfill_until="2024-02-12", **facts)

    monkeypatch.setattr(steps, "step", ingest)
    nights = [night(10, 3), night(11, 3), night(12, 3)]
    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(steps.raw_data_of_backfill, nights)] == [revision] * 3
    assert asked == [("2024-02-12", "ingest", None, None)]
    assert steps.raw_data_of_backfill(night(10, 4)) == revision
    assert len(asked) == 2

    def refused(run, name):
        raise UserError("a column is missing")

    monkeypatch.setattr(steps, "step", refused)
    assert steps.raw_data_of_backfill(night(10, 5)) is None
    assert "asked for this night by itself, since a column is missing" in capsys.readouterr().out
