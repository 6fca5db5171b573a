"""Oracle: the weights of a training that nobody interrupted, byte for byte; and of one process, for several."""

import os
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
import torch
from builders import a_product
from conftest import ROOT, free_port

from tasks.runtime import settings
from tasks.runtime.errors import UserError
from tasks.runtime.files import remove_older_than
from tasks.training import checkpoints
from tasks.training.checkpoints import CheckpointFolder

KILLS = int(os.environ.get("LAMPLIGHTER_TEST_KILLS", "4"))
"""Processes killed before one is left to end; raise it for a longer campaign."""

TRAINING = """
import os, random, shutil, signal, sys, time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)  # a process whose thread pool runs must not be forked
from safetensors.torch import save
from model.compute import distributed
from model.features.fitted import Features
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.target import Target
from model.training.fit import LabelledRows
from model.training.train import pretrain, train, train_again
from tasks.training.checkpoints import CheckpointFolder

home, N = Path(sys.argv[1]), 160
draw = np.random.default_rng(0)
table = {
    "colour": draw.choice(np.array(["red", "green"], object), N),
    "size": draw.normal(size=N),
    "note": draw.choice(np.array(["all quiet", "some wind and rain, and then more of it", None], object), N),
}
y = ((table["colour"] == "red") ^ (table["size"] > 0)).astype(int)

def trained(folder, dropout, max_windows=1):
    kinds = {"colour": "category", "size": "number", "note": "text"}
    features = Features.fit(kinds, table, y, "binary", max_tokens=8, max_windows=max_windows)
    rows = features.encode(table)
    labelled = LabelledRows(rows, y)
    sizes = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=32, dropout=dropout)
    kept = [folder and CheckpointFolder(folder / name, every_seconds=0) for name in ("pretrain", "train")]
    base, _ = pretrain(features, rows, sizes, PretrainingSettings(epochs=0.1), checkpoints=kept[0])
    starts = [base.with_head(Target(task="binary", classes=("no", "yes")), sizes, seed=0) for _ in range(3)]
    settings = TrainingSettings(
        epochs=1.05, learning_rate=3e-3, ema_decay=0.9, l1=0.01, class_weights="balanced", label_smoothing=0.1
    )
    first, history = train(starts[0], features, labelled, labelled, settings, checkpoints=kept[1])
    for keep, start in zip(("last", "best"), starts[1:]):  # anew, and on from there
        more, settings = kept[1] and kept[1].nested(keep), replace(settings, keep=keep)
        first, more_history = train_again(first, start, features, labelled, settings, checkpoints=more)
        history += more_history
    return {name: weight.contiguous() for name, weight in first.state_dict().items()}, history
"""

KILLED = """
def forked():
    child = os.fork()
    if child == 0:
        os.dup2(os.open(home / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        (home / "hash").write_text(hashed(trained(home / "kept", 0.1)))
        os._exit(0)
    return child

def hashed(trained):
    return sha256(save(trained[0]) + repr(trained[1]).encode()).hexdigest()

started = time.monotonic()
whole = hashed(trained(None, 0.1))
longest = max(0.05, time.monotonic() - started)  # a process that also writes checkpoints gets less far
random.seed(0)
killed = half_written = ended = 0
while killed < int(sys.argv[2]) or not ended:
    child = forked()
    if killed < int(sys.argv[2]):
        time.sleep(random.random() * longest)
        os.kill(child, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    half_written += any(home.glob("kept/*/.step*"))
    if (home / "hash").exists():
        assert (home / "hash").read_text() == whole, "resumed, the training ended with other bytes"
        ended += 1
        (home / "hash").unlink()
        shutil.rmtree(home / "kept")
print("figures", killed, half_written, ended, (home / "log").read_text().count("resumed at step"))
"""

TOGETHER = """
max_windows = int(sys.argv[3])
import model.compute.device
model.compute.device.has_fast_bfloat16 = lambda where: False  # whose rounding would hide what is compared
alone, history = trained(None, 0.1, max_windows)
children = []
for number in range(2):
    child = os.fork()
    if child == 0:
        os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[2]}
        with distributed.together():
            weights, its = trained(None, 0.1, max_windows)
        (home / f"hash-{number}").write_text(sha256(save(weights)).hexdigest())
        # A key's bias moves all scores of a query alike, so its gradient is rounding alone.
        compared = [name for name in alone if not name.endswith("key.bias")]
        apart = max(float((weights[name] - alone[name]).abs().max()) for name in compared)
        losses = max(abs(a[name] - b[name]) for a, b in zip(its, history, strict=True) for name in b)
        (home / f"apart-{number}").write_text(f"{apart} {losses}")
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", TRAINING + script, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""},  # a fork has no GPU
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.long
def test_training_killed_at_any_moment_ends_with_the_bytes_of_one_that_was_not(tmp_path):
    killed, _, ended, resumed = map(int, run(KILLED, tmp_path, KILLS).split("figures")[1].split())
    assert killed >= KILLS
    assert ended >= 1
    assert resumed >= KILLS / 4


@pytest.mark.long
@pytest.mark.parametrize("max_windows", [1, 3])
def test_two_processes_train_what_one_trains(tmp_path, max_windows):
    run(TOGETHER, tmp_path, free_port(), max_windows)
    for number in range(2):
        weights, losses = map(float, (tmp_path / f"apart-{number}").read_text().split())
        assert weights < 1e-5
        assert losses < 1e-5
    assert (tmp_path / "hash-0").read_text() == (tmp_path / "hash-1").read_text()


def kept(folder, *steps):
    checkpoints = CheckpointFolder(folder)
    for step in steps:
        checkpoints.save(step, {"weight": torch.full((3,), float(step))}, {"step": step})
    return checkpoints


def test_last_two_checkpoints_are_kept_and_the_newest_is_read(tmp_path):
    checkpoints = kept(tmp_path / "a", 1, 2, 10)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["step-000000002", "step-000000010"]
    tensors, notes = checkpoints.load_newest()
    assert (tensors["weight"][0], notes["step"]) == (10.0, 10)
    assert CheckpointFolder(tmp_path / "b").load_newest() is None


@pytest.mark.parametrize("damage", ["torn state", "flipped bit", "torn notes", "no state", "foreign"])
def test_checkpoint_that_is_broken_or_foreign_is_left_out_with_a_line(tmp_path, capsys, damage):
    checkpoints = kept(tmp_path / "a", 1, 2)
    newest = tmp_path / "a" / "step-000000002"
    state, notes = newest / "state.safetensors", newest / "notes.json"
    content = state.read_bytes()
    match damage:
        case "torn state":
            state.write_bytes(content[:-5])
        case "flipped bit":
            state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "torn notes":
            notes.write_text(notes.read_text()[:20])
        case "no state":
            state.unlink()
        case "foreign":
            notes.write_text(notes.read_text().replace('"training": "a"', '"training": "b"'))
    _, found = checkpoints.load_newest()
    assert found["step"] == 1
    assert capsys.readouterr().out.startswith("checkpoint step-000000002 is left out: ")


@pytest.mark.parametrize(
    ("failure", "stays"),
    [(None, False), (RuntimeError("a peer is gone"), True), (OSError("disk full"), True), (UserError("nan"), False)],
)
def test_state_stays_where_the_same_training_may_go_better_again(tmp_path, monkeypatch, failure, stays):
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path))
    (tmp_path / "rows").write_text("some")
    product = a_product()
    with (
        pytest.raises(type(failure)) if failure else nullcontext(),
        checkpoints.checkpoints("train", product, [tmp_path / "rows"], ["model"]) as folder,
    ):
        folder.save(1, {"weight": torch.zeros(1)}, {"step": 1})
        if failure:
            raise failure
    assert folder.folder.exists() == stays


def test_checkpoints_nobody_took_up_are_swept_by_age(tmp_path):
    kept(tmp_path / "checkpoints" / "old", 1)
    kept(tmp_path / "checkpoints" / "new", 1)
    week_ago = time.time() - (settings.KEPT_DAYS + 1) * 86400
    os.utime(tmp_path / "checkpoints" / "old", (week_ago, week_ago))
    remove_older_than(tmp_path / "checkpoints", settings.KEPT_DAYS)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["new"]
