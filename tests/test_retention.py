"""Oracle: DVC's own pull of every commit that must stay, from the remote alone; the remote's own list of files."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from builders import TINY, a_repository
from test_publish import make_night, url  # noqa: F401

from tasks.commands.upkeep import prune as command
from tasks.commands.upkeep.prune import prune
from tasks.publish import publish
from tasks.rows.decisions import Anew, write_decisions
from tasks.runs import retention, workspace
from tasks.runs.dvc import DvcLock
from tasks.runs.experiments import Run
from tasks.runs.locks import commit_file, locked, removal_lock
from tasks.runs.remote import LostData
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.git import git

NOW = datetime(2024, 6, 1, tzinfo=UTC)
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass
class Project:
    """An origin with experiments as runs save them, whose data lie in a remote; each file is written by hand."""

    origin: Path
    remote: Path
    cache: Path

    def objects(self, place: Path | None = None) -> set[str]:
        folder = (place or self.remote) / "files" / "md5"
        return {file.parent.name + file.name for file in folder.rglob("*") if file.is_file()}

    def store(self, content: bytes, end: str = "") -> str:
        name = hashlib.md5(content, usedforsecurity=False).hexdigest() + end
        for place in (self.remote, self.cache):
            file = place / "files" / "md5" / name[:2] / name[2:]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            os.utime(file, (LONG_AGO.timestamp(),) * 2)
        return name

    def folder(self, **files: str) -> str:
        """The hash of a folder, as DVC keeps it."""
        listed = [{"md5": self.store(text.encode()), "relpath": name} for name, text in files.items()]
        return self.store(json.dumps(listed, sort_keys=True).encode(), ".dir")

    def experiment(
        self, as_of: str, kind: str, number: int, saved: datetime = LONG_AGO, judged: str = "", **files: str
    ) -> Run:
        """A run that shares the file `shared` with all others, and one with the verdict `judged` if it has that."""
        outs = [{"path": "data/raw/tiny", "md5": self.folder(shared="history", **files), "hash": "md5"}]
        stages = {"ingest@tiny": {"cmd": "x", "outs": outs}}
        if judged:
            outs = [{"path": "data/valid/tiny", "md5": self.folder(judged=judged), "hash": "md5"}]
            stages["validate@tiny"] = {"cmd": "x", "outs": outs}
        lock = {"schema": "2.0", "stages": stages}
        head = git("rev-parse", "HEAD", cwd=self.origin).strip()
        (self.origin / "dvc.lock").write_text(yaml.safe_dump(lock))
        git("add", "--force", "dvc.lock", cwd=self.origin)
        date = f"--date={int(saved.timestamp())} +0000"
        os.environ["GIT_COMMITTER_DATE"] = f"{int(saved.timestamp())} +0000"
        git("commit", "--quiet", "--no-verify", date, "-m", "experiment", cwd=self.origin)
        del os.environ["GIT_COMMITTER_DATE"]
        commit = git("rev-parse", "HEAD", cwd=self.origin).strip()
        git("reset", "--quiet", "--hard", head, cwd=self.origin)
        name = f"tiny-{as_of}-{kind}-{number:08x}"
        run = Run(name=name, product="tiny", as_of=as_of, revision=head, shards=3, commit=commit)
        git("update-ref", run.reference, commit, cwd=self.origin)
        return run

    def names(self) -> set[str]:
        listed = git("for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps", cwd=self.origin)
        return set(listed.split())

    def pulled(self, commit: str, folder: Path) -> dict[str, str]:
        """What DVC brings of a commit's raw data from the remote alone."""
        git("clone", "--quiet", str(self.origin), str(folder))
        git("fetch", "--quiet", str(self.origin), commit, cwd=folder)
        git("checkout", "--quiet", commit, cwd=folder)
        command = [sys.executable, "-m", "dvc", "pull", "--quiet", "data/raw/tiny"]
        env = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder.with_suffix(".site"))}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {file.name: file.read_text() for file in (folder / "data/raw/tiny").iterdir()}


@pytest.fixture
def project(url, tmp_path, monkeypatch):  # noqa: F811
    origin, remote, cache = tmp_path / "origin", tmp_path / "remote", tmp_path / "cache"
    (origin / ".dvc").mkdir(parents=True)
    (origin / ".dvc" / "config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {remote}\n")
    (origin / ".gitignore").write_text("/data\n")
    text = TINY.replace("s3://lamplighter/predictions", url)
    (origin / "params.yaml").write_text(text)
    ingest = {"cmd": "x", "outs": [{"data/raw/${key}": {"persist": True}}]}
    validate = {"cmd": "x", "outs": [{"data/valid/${key}": {"persist": True}}]}
    stages = {"ingest": ingest, "validate": validate}
    pipeline = {"stages": {name: {"foreach": "${products}", "do": stage} for name, stage in stages.items()}}
    (origin / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    a_repository(origin)
    here = tmp_path / "here"
    shutil.copytree(origin, here)
    for name, value in (
        ("LAMPLIGHTER_ORIGIN", origin),
        ("LAMPLIGHTER_CACHE", cache),
        ("LAMPLIGHTER_HOME", tmp_path / "home"),
        ("DVC_SITE_CACHE_DIR", tmp_path / "site"),
    ):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(retention, "ROOT", here)
    monkeypatch.chdir(here)
    return Project(origin, remote, cache)


@pytest.fixture
def lived(project, url):  # noqa: F811
    """Two published nights, a registered model, the newest history, rejected runs, a new one; by what each is."""
    made = {
        "night": project.experiment("2024-02-10", "predict", 1, night="1"),
        "later night": project.experiment("2024-02-12", "predict", 2, night="2"),
        "registered": project.experiment("2024-01-05", "train", 3, model="3"),
        "withdrawn": project.experiment("2024-01-06", "train", 4, model="4"),
        "newest": project.experiment("2024-02-20", "train", 5, history="5"),
        "rejected": project.experiment("2024-02-01", "train", 6, model="6"),
        "stopped": project.experiment("2024-02-09", "predict", 7, night="7"),
        "new": project.experiment("2024-01-31", "train", 8, saved=NOW - timedelta(days=20), model="8"),
        "newer": project.experiment("2024-01-30", "train", 9, saved=NOW - timedelta(days=2), model="9"),
    }
    for run in (made["night"], made["later night"]):
        as_of = date.fromisoformat(run.as_of)
        product, _ = make_night(url, as_of)
        publish(product, as_of, replace(run, champion=made["registered"].commit, model_version="v1.0.0", generation=1))
    for tag, name in (("tiny@v1.0.0", "registered"), ("tiny#prod#1", "registered"), ("tiny@v2.0.0", "withdrawn")):
        git("tag", "-a", "-m", tag, tag, made[name].commit, cwd=project.origin)
    return made


GONE = ("rejected", "stopped")


@pytest.mark.long
def test_all_that_nights_registry_and_history_need_can_still_be_pulled(project, lived, tmp_path, capsys):
    before = project.objects()
    told = prune(NOW, yes=True)
    assert told.startswith("gc: removed 2 experiments and "), told
    assert project.names() == {run.name for what, run in lived.items() if what not in GONE}
    shutil.rmtree(project.cache)
    for what in ("night", "registered", "newest"):
        assert project.pulled(lived[what].commit, tmp_path / what)["shared"] == "history", what
    assert len(before - project.objects()) == 2 * len(GONE), "a file and a list of each"
    shown = capsys.readouterr().out
    for line in ("objects in the remote", f"goes: {lived['rejected'].name}", "2 experiments stay: a published night"):
        assert line in shown
    assert prune(NOW, yes=True) == "gc: removed 0 experiments and 0 B of data"


def test_nothing_goes_before_a_person_says_so(project, lived):
    before = (project.objects(), project.objects(project.cache), project.names())
    assert prune(NOW, yes=False) == "gc: nothing was removed; make gc YES=1 removes what goes"
    assert prune(NOW, yes=False, ask=lambda _: "").startswith("gc: nothing was removed")
    assert (project.objects(), project.objects(project.cache), project.names()) == before
    assert prune(NOW, yes=False, ask=lambda _: "y").startswith("gc: removed 2 experiments")


def test_nothing_is_removed_while_a_task_is_at_work(project, lived):
    before = (project.objects(), project.names())
    with locked(removal_lock(), fcntl.LOCK_SH), pytest.raises(TransientError, match="no task may be at work"):
        prune(NOW, yes=True)
    assert (project.objects(), project.names()) == before


def test_data_of_a_run_that_is_being_saved_stay_with_all_that_they_name(project, lived):
    """Its data lie in the remote, its experiment is not saved; an old file is part of it."""
    old = project.store(b"7")  # of the stopped run, which goes
    new = project.folder(night="7")
    os.utime(project.remote / "files" / "md5" / new[:2] / new[2:], (NOW.timestamp() - 60,) * 2)
    prune(NOW, yes=True)
    assert {old, new} <= project.objects()


def test_data_that_this_disk_names_stay_in_its_cache_alone(project, lived):
    names = {project.store(b"mine"), project.store(b"at work")}
    where = [retention.ROOT / "mine.dvc", Path(os.environ["LAMPLIGHTER_HOME"]) / "runs" / "x" / "dvc.lock"]
    where[1].parent.mkdir(parents=True)
    for file, content in zip(where, (b"mine", b"at work"), strict=True):
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        file.write_text(yaml.safe_dump({"outs": [{"md5": md5, "path": "x"}]}))
    prune(NOW, yes=True)
    assert names <= project.objects(project.cache)
    assert not names & project.objects()


def test_origin_that_lacks_what_a_night_names_keeps_everything(project, lived):
    """As a plain clone, or a pruned host, that has no refs/exps/*."""
    before = project.objects()
    lost = lived["night"]
    git("update-ref", "-d", lost.reference, cwd=project.origin)
    git("-c", "gc.reflogExpire=now", "reflog", "expire", "--expire=now", "--all", cwd=project.origin)
    git("gc", "--quiet", "--prune=now", cwd=project.origin)
    with pytest.raises(UserError, match=rf"must hold the experiment {lost.name} that the night of 2024-02-10 was made"):
        prune(NOW, yes=True)
    assert project.objects() == before


def test_origin_that_names_nothing_keeps_everything(project):
    project.store(b"of another origin")
    with pytest.raises(UserError, match=r"names none: nothing is removed; is LAMPLIGHTER_ORIGIN right"):
        prune(NOW, yes=True)
    assert project.objects()


def test_declared_retention_lets_old_nights_and_runs_go(project, lived):
    file = project.origin / "params.yaml"
    file.write_text(file.read_text() + "    retention: {experiments_days: 10, nights_days: 1}\n")
    git("commit", "--quiet", "--all", "-m", "Keep less", cwd=project.origin)
    prune(NOW, yes=True)
    assert project.names() == {run.name for what, run in lived.items() if what not in (*GONE, "night", "new")}


def test_experiment_that_is_saved_again_meanwhile_stays(project, lived, monkeypatch):
    run, carry_out = lived["rejected"], retention.carry_out

    def saved_again(plan):
        git("update-ref", run.reference, lived["newest"].commit, cwd=project.origin)
        carry_out(plan)

    monkeypatch.setattr(command, "carry_out", saved_again)
    with pytest.raises(TransientError, match="git push"):
        prune(NOW, yes=True)
    assert run.name in project.names()


@pytest.mark.long
@pytest.mark.parametrize("label", ["gc: experiments are removed", "gc: objects are removed"])
def test_gc_that_is_killed_is_finished_by_the_next_one(project, lived, label):
    class Killed(BaseException):
        pass

    def kill(reached):
        if reached == label:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention.faults, "failpoint", kill)
        with pytest.raises(Killed):
            prune(NOW, yes=True)
    assert {run.name for run in lived.values()} - project.names() == {lived[what].name for what in GONE}
    prune(NOW, yes=True)
    rejected = {hashlib.md5(content, usedforsecurity=False).hexdigest() for content in (b"6", b"7")}
    assert not rejected & (project.objects() | project.objects(project.cache))


def test_workspaces_beyond_the_newest_go(project, lived):
    home = Path(os.environ["LAMPLIGHTER_HOME"]) / "runs"
    for number in range(6):
        (home / f"tiny-2024-02-1{number}-train-0000000{number}").mkdir(parents=True)
    prune(NOW, yes=True)
    assert len([each for each in home.iterdir() if each.is_dir()]) == 4


def begun(project: Project, number: int, raw_commit: str | None = None) -> Run:
    """A workspace of a run of 2024-02-11, with what it carries on."""
    name, revision = f"tiny-2024-02-11-train-{number:08x}", git("rev-parse", "HEAD", cwd=project.origin).strip()
    run = Run(name=name, product="tiny", as_of="2024-02-11", revision=revision, shards=3, raw_commit=raw_commit)
    workspace._clone(run)
    workspace._begin(run)
    return run


@pytest.mark.long
def test_verdicts_are_carried_on_with_the_raw_data_and_made_anew_where_lost(project, capsys):
    project.experiment("2024-02-10", "predict", 1, judged="all is well")
    run = begun(project, 10)
    assert (run.workspace / "data/valid/tiny/judged").read_text() == "all is well"
    verdict = project.store(b"all is well")
    for place in (project.remote, project.cache):
        (place / "files" / "md5" / verdict[:2] / verdict[2:]).unlink()
    shutil.rmtree(run.workspace)
    run = begun(project, 11)
    assert "had judged is lost: all days are judged anew" in capsys.readouterr().out
    assert (run.workspace / "data/raw/tiny/shared").read_text() == "history"
    assert not (run.workspace / "data/valid/tiny").exists()
    assert set(DvcLock.of(run.workspace).stages) == {"ingest@tiny"}


@pytest.mark.long
def test_what_a_failed_stage_has_changed_is_restored_before_the_next_try(project):
    project.experiment("2024-02-10", "predict", 1, judged="all is well")
    run = begun(project, 10)
    commit_file(run).write_text(workspace.BEGUN)
    judged = run.workspace / "data/valid/tiny/judged"

    def fail():
        with workspace.exclusive_workspace(run, workspace.NIGHT):
            judged.write_text("half writ")
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        fail()
    with workspace.exclusive_workspace(run, workspace.NIGHT):
        assert judged.read_text() == "all is well"


def test_nights_of_a_backfill_carry_on_later_raw_data_and_earlier_verdicts(project):
    project.experiment("2024-02-10", "predict", 1, judged="all is well")
    last = project.experiment("2024-02-20", "predict", 2, judged="later", arrived="later")
    run = begun(project, 10, last.commit)
    assert (run.workspace / "data/raw/tiny/arrived").read_text() == "later"
    assert (run.workspace / "data/valid/tiny/judged").read_text() == "all is well"


@pytest.mark.long
def test_lost_history_is_fetched_anew_only_as_a_person_decided(project, capsys):
    lost = project.experiment("2024-02-10", "predict", 1, night="1")
    for place in (project.remote, project.cache):
        shutil.rmtree(place / "files")

    with pytest.raises(LostData, match=r"data/raw/tiny.*make anew PRODUCT=tiny AS_OF=2024-02-11 REASON="):
        begun(project, 10)
    decision = project.origin / "decisions" / "tiny" / "dt=2024-02-11.jsonl"
    write_decisions(decision, [Anew(decided="2024-02-12", person="Ann", why="the bucket is gone")])
    git("add", "--all", cwd=project.origin)
    git("commit", "--quiet", "-m", "Begin anew", cwd=project.origin)
    run = begun(project, 11)
    assert f"the raw data of {lost.name} are lost: they are fetched anew" in capsys.readouterr().out
    assert "ingest@tiny" not in DvcLock.of(run.workspace).stages
    assert not (run.workspace / "data" / "raw" / "tiny").exists()
