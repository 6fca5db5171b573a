"""Oracle: DVC itself, on a repository whose remote and cache are folders: what a person deletes there is lost."""

import dataclasses
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from builders import TINY, a_product, a_repository

from tasks.rows.partitions import write_table
from tasks.rows.splitting import GROUPS
from tasks.runs import remote
from tasks.runs.dvc import dvc_hash
from tasks.runs.gates.comparison import compare
from tasks.runs.gates.unseen import learnt_by
from tasks.runs.registry.tags import Champion
from tasks.runs.remote import LostData
from tasks.runs.shadows import Found, bring
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import write_json
from tasks.runtime.git import git
from tasks.runtime.paths import Paths

PATHS = Paths("tiny")
DAY = date(2024, 2, 10)


def dvc(*arguments, cwd):
    subprocess.run([sys.executable, "-m", "dvc", *arguments, "--quiet"], cwd=cwd, check=True)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A repository whose exported model is in cache and remote, each a folder; its commit."""
    folder = tmp_path_factory.mktemp("lost")
    origin = a_repository(folder / "origin", message=None)
    dvc("init", cwd=origin)
    dvc("remote", "add", "--default", "store", str(folder / "remote"), cwd=origin)
    dvc("cache", "dir", str(folder / "cache"), cwd=origin)
    (origin / PATHS.onnx).mkdir(parents=True)
    (origin / PATHS.onnx / "network.json").write_text("{}")
    (origin / PATHS.onnx / "features.json").write_text("[]")
    write_table(origin / PATHS.splits / GROUPS, pd.DataFrame({"group": np.array([3, 2**64 - 1], np.uint64)}))
    days = {"train": ["2024-01-05", "2024-01-20"], "val": ["2024-01-21", "2024-01-25"]}
    write_json(origin / PATHS.report("split.json"), {"days": days})
    (origin / "params.yaml").write_text(TINY.replace("split: {", "split: {group: depot, "))
    dvc("add", *map(str, (PATHS.onnx, PATHS.splits, PATHS.report("split.json"))), cwd=origin)
    git("add", "--all", cwd=origin)
    git("commit", "--quiet", "-m", "A model", cwd=origin)
    dvc("push", cwd=origin)
    return folder, git("rev-parse", "HEAD", cwd=origin).strip()


@pytest.fixture
def lamplighter(pushed, tmp_path, monkeypatch):
    """A copy of it, which a test may break; returns the folder and the commit."""
    folder, _ = pushed
    for name in ("origin", "remote", "cache"):
        shutil.copytree(folder / name, tmp_path / name)
    config = tmp_path / "origin" / ".dvc" / "config"
    config.write_text(config.read_text().replace(str(folder), str(tmp_path)))
    git("commit", "--quiet", "--all", "-m", "Where it lies now", cwd=tmp_path / "origin")
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(tmp_path / "origin"))
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAMPLIGHTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path, git("rev-parse", "HEAD", cwd=tmp_path / "origin").strip()


def lose(folder, *places):
    for place in places:
        shutil.rmtree(folder / place)
        (folder / place).mkdir()


@pytest.mark.long
def test_model_that_the_remote_lost_comes_from_the_cache(lamplighter):
    folder, commit = lamplighter
    lose(folder, "remote")
    remote.get(commit, PATHS.onnx, folder / "got", "the model", "do so")
    assert sorted(path.name for path in (folder / "got").iterdir()) == ["features.json", "network.json"]


def test_bringing_of_a_model_that_was_killed_is_done_anew_and_leaves_nothing(lamplighter, monkeypatch):
    folder, commit = lamplighter
    model = yaml.safe_load((folder / "origin" / f"{PATHS.onnx}.dvc").read_text())["outs"][0]["md5"]
    found, models = (
        Found(roles=("previous",), version="v1.0.0", commit=commit, model=model),
        folder / "home/models/tiny",
    )
    monkeypatch.setenv("LAMPLIGHTER_CRASH_AT", "shadow: a model is brought")
    process = multiprocessing.get_context("fork").Process(target=bring, args=("tiny", found))
    process.start()
    process.join()
    monkeypatch.delenv("LAMPLIGHTER_CRASH_AT")
    assert process.exitcode == -signal.SIGKILL
    [left] = models.iterdir()
    assert left.name.startswith("."), "half a model has no name by which it is found"
    os.utime(left, (0, 0))
    brought = bring("tiny", found)
    assert (brought.folder, dvc_hash(brought.folder)) == (models / model.removesuffix(".dir"), model)
    assert [*models.iterdir()] == [brought.folder]


def test_what_a_champion_has_learnt_from_is_read_from_its_commit(lamplighter):
    folder, commit = lamplighter
    git("init", "--quiet", ".")
    champion = Champion(version="v1.0.0", commit=commit, as_of="2024-02-10")
    learnt = learnt_by(champion, "tiny")
    assert (learnt.first, learnt.last, learnt.as_of) == (date(2024, 1, 5), date(2024, 1, 25), DAY)
    assert learnt.groups.tolist() == [3, 2**64 - 1]
    assert learnt.product.split.group == "depot"
    assert learnt_by(dataclasses.replace(champion, as_of=None), "tiny") is None
    lose(folder, "remote", "cache")
    assert learnt_by(champion, "tiny") is None


def test_champion_that_is_lost_is_named_with_the_ways_out(lamplighter):
    folder, commit = lamplighter
    lose(folder, "remote", "cache")
    write_json(PATHS.report("metrics.json"), {"model": {"auc": 0.8}, "baseline": {"auc": 0.7}})
    with pytest.raises(LostData) as caught:
        compare(a_product(), DAY, "challenger", Champion(version="v2.0.0", commit=commit, as_of="2024-02-10"))
    message = str(caught.value)
    assert message.startswith("products.tiny: the champion v2.0.0 (data/models/tiny/onnx), which the new model")
    assert "must be in the DVC cache or remote, and 1 files and folders are not (data/models/tiny/onnx/)" in message
    assert f"train tiny again as v2.0.0 was (commit {commit[:12]}: the same revision and as_of)" in message
    assert "make ban PRODUCT=tiny VERSION=v2.0.0 REASON=" in message
    assert isinstance(caught.value, UserError), "no waiting mends it"


def test_remote_that_does_not_answer_is_left_to_a_retry(lamplighter, monkeypatch):
    folder, _ = lamplighter
    config = folder / "origin" / ".dvc" / "config"
    nobody = "s3://lamplighter/dvc\n    endpointurl = http://127.0.0.1:9"
    config.write_text(config.read_text().replace(str(folder / "remote"), nobody))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_MAX_ATTEMPTS"):
        monkeypatch.setenv(name, "1")
    git("commit", "--quiet", "--all", "-m", "A remote that is down", cwd=folder / "origin")
    lose(folder, "cache")
    commit = git("rev-parse", "HEAD", cwd=folder / "origin").strip()
    with pytest.raises(TransientError):
        remote.get(commit, PATHS.onnx, Path("got"), "the model", "do so")
