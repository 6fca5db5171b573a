"""What is to be measured, in which order, and the work itself: one line at a time, so that it can be stopped and go on.

Ours comes first on a set, since the time that it takes is what a peer gets: the next rung of RUNGS, in seconds of one
core's work, whatever else the machine does. AutoGluon gets 30 seconds at least.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.breadth import parts
from benchmarks.breadth.lines import LINES, Line
from benchmarks.breadth.sets import Set, digest
from model.compute import processor
from model.evaluation.metrics import evaluate_metric

OURS, BASELINE = "lamplighter", "own baseline"
TUNED = {"LightGBM": "lightgbm", "CatBoost": "catboost", "linear": "linear"}
AUTOGLUON = {"AutoGluon medium": "medium", "AutoGluon best": "best"}
PEERS = (BASELINE, *TUNED, *AUTOGLUON)
RUNGS = (15, 30, 60, 120, 240, 480, 960, 1920)
LEAST_AUTOGLUON = 30
GUESS_SECONDS = {1_000: 10, 5_000: 25, 20_000: 50, 500_000: 400}
"""What ours is taken to need, by the most rows of a set, until it is known."""
PEER_REVISION = "2"
"""Raised when a script of peers changes what it does: lines of before then count no more."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One competitor on one split of one set."""

    one: Set
    split: int
    competitor: str
    rung: int
    """Seconds allowed; for ours, those that it is thought to need."""


@dataclass
class Schedule:
    """All jobs of the sets, and which of them have a line."""

    sets: list[Set]
    splits: range
    competitors: tuple[str, ...]
    """Of OURS, TUNED and AUTOGLUON; the own baseline is measured with ours."""
    exports: bool = True
    """Whether ours is exported on split 0, to be timed."""
    most_seconds: int = RUNGS[-1]
    """What a peer gets at most, also where ours took longer."""

    def __post_init__(self) -> None:
        self.machine = machine_name()
        self.digests = {one.name: digest(one) for one in self.sets}
        self.code = parts.code_revision()
        self.peer = f"{PEER_REVISION}-{_pins_revision()}"

    def jobs(self) -> Iterator[Job]:
        """Yield what has no line: ours on the first split of all sets, its peers, then the next split, and so on."""
        for split in self.splits:
            for group in ((OURS,), (*TUNED, *AUTOGLUON)):
                for one in self.sets:
                    for competitor in (name for name in group if name in self.competitors):
                        job = self._job(one, split, competitor)
                        if not self._is_done(job):
                            yield job

    def _job(self, one: Set, split: int, competitor: str) -> Job:
        wanted = self.seconds(one, split)
        if competitor in AUTOGLUON:
            wanted = max(wanted, LEAST_AUTOGLUON)
        if competitor != OURS:
            wanted = min(wanted, self.most_seconds)
        return Job(one=one, split=split, competitor=competitor, rung=rung_of(wanted))

    def seconds(self, one: Set, split: int) -> float:
        """Return what ours took, on this split or a like one; a guess where there is none."""
        found = self.here(one, OURS)
        found = [line for line in found if line.split == split] or found
        if found:
            return found[-1].seconds
        return next(seconds for rows, seconds in GUESS_SECONDS.items() if one.n_rows <= rows)

    def here(self, one: Set, competitor: str) -> list[Line]:
        """Return the lines of `usable` that this machine has measured."""
        return [line for line in self.usable(one, competitor) if line.machine == self.machine]

    def usable(self, one: Set, competitor: str) -> list[Line]:
        """Return the lines of this very set, the newest last; of ours, those of any revision."""
        peer = competitor in TUNED or competitor in AUTOGLUON
        return [
            line
            for line in LINES.read()
            if (line.set, line.competitor) == (one.name, competitor)
            and line.data == self.digests[one.name]
            and (not peer or line.revision == self.peer)
        ]

    def _is_done(self, job: Job) -> bool:
        found = [line for line in self.here(job.one, job.competitor) if line.split == job.split and line.resampled]
        if job.competitor == OURS:
            return any(line.revision == self.code for line in found)
        return any(line.rung >= job.rung for line in found)

    def work(self, job: Job) -> list[Line]:
        """Do one job and keep its lines."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rungs = [rung for rung in RUNGS if rung <= job.rung]
            truth = parts.write_parts(job.one, job.split, rungs, folder)
            if job.competitor == OURS:
                found = self._own(job, folder)
            elif job.competitor in TUNED:
                library = TUNED[job.competitor]
                figures = _run_peer(job, "breadth", folder, library)
                files = {int(rung): folder / f"{library}-{rung}.npy" for rung in figures}
                found = [self._line(job, truth, rung, figures[str(rung)], file) for rung, file in files.items()]
            else:
                preset = AUTOGLUON[job.competitor]
                figure = _run_peer(job, "autogluon", folder, preset, str(job.rung))
                found = [self._line(job, truth, job.rung, figure, folder / f"{preset}-{job.rung}.npy")]
        LINES.append(found)
        return found

    def _line(self, job: Job, truth: parts.Truth, rung: int, figures: dict, scores: Path) -> Line:
        shaped = parts.shape(job.one, np.load(scores), truth)
        value = evaluate_metric(job.one.task, truth.y, shaped, job.one.metric)
        assert value is not None
        return Line(
            set=job.one.name,
            split=job.split,
            competitor=job.competitor,
            rung=rung,
            data=self.digests[job.one.name],
            revision=self.peer,
            machine=self.machine,
            value=float(value),
            resampled=parts.resampled(job.one.task, truth.y, shaped, job.one.metric),
            seconds=figures["seconds"],
            rows_per_second=figures["rows_per_second"],
            trials=figures["trials"],
        )

    def _own(self, job: Job, folder: Path) -> list[Line]:
        command = [sys.executable, "-m", "benchmarks.breadth.own", str(folder)]
        if job.split or not self.exports:
            command.append("--without-export")
        environment = {**os.environ, **one_thread(), "LAMPLIGHTER_HOME": str(folder / "home")}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=parts.ROOT)
        if parts.code_revision() != self.code:
            raise SystemExit("the code changed while it was measured; run the benchmark again")
        figures = json.loads(done.stdout.splitlines()[-1])
        seconds = 60 * (figures["minutes"]["pretrain"] + figures["minutes"]["train"])
        given: dict[str, Any] = {"set": job.one.name, "split": job.split, "rung": 0, "data": self.digests[job.one.name]}
        given |= {"revision": self.code, "machine": self.machine}
        return [
            Line(
                competitor=OURS,
                value=figures["model"],
                resampled=figures["resampled"]["model"],
                seconds=round(seconds, 1),
                rows_per_second=figures["rows_per_second"],
                minutes=figures["minutes"],
                **given,
            ),
            Line(
                competitor=BASELINE,
                value=figures["baseline"],
                resampled=figures["resampled"]["baseline"],
                seconds=0.0,
                **given,
            ),
        ]


def rung_of(seconds: float) -> int:
    """Return the lowest rung that is not below."""
    return next((rung for rung in RUNGS if rung >= seconds), RUNGS[-1])


def one_thread() -> dict[str, str]:
    """Return the variables by which libraries compute with one thread."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**dict.fromkeys(names, "1"), "PYTHONWARNINGS": "ignore"}


def _run_peer(job: Job, name: str, *arguments: str | Path) -> dict:
    """Run a peer; one that hangs is ended by a wall clock, since the clock of work stands still while it waits."""
    timeout = 3600 + 60 * job.rung
    return peers.run(name, *arguments, pins="breadth.txt", timeout=timeout, **one_thread())


def machine_name() -> str:
    """Return what seconds are comparable on."""
    widest = next((name for name in ("amx_bf16", "avx512f", "avx2") if name in processor.features()), "plain")
    return f"{processor.name()}, {processor.n_cores()} cores, {widest}"


def _pins_revision() -> str:
    return hashlib.sha256((peers.SCRIPTS / "breadth.txt").read_bytes()).hexdigest()[:8]
