"""The work itself: ours by phases, each kept when it is done, and then each peer on the same rows.

A product has a folder of its own below .lamplighter/matrix, named after the state of code and entry: what was
prepared and trained there is not done again. Peers run in an environment of their own, one process each, one thread.
"""

import hashlib
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.breadth.parts import ROOT, code_revision
from benchmarks.breadth.schedule import machine_name, one_thread
from benchmarks.matrix.lines import FOLDER, LINES, Line
from benchmarks.matrix.products import Entry
from model.evaluation.metrics import bootstrap_interval, evaluate_metric
from model.evaluation.paired import Difference, paired_difference
from model.heads import LOWER_IS_BETTER, head_of
from model.heads.item_lists import best
from tasks import params

OURS, BASELINE = "Lamplighter", "own baseline"
PINS = "matrix.txt"
PEER_REVISION = "1"
"""Raised when a script of peers changes what it does: lines of before are then measured again."""
N_RESAMPLES, SEED = 500, 0
PHASES = ("prepare", "train", "measure")


class Bench:
    """One product and all who compete on it."""

    first = OURS
    """On whose held-out rows all others are measured."""
    own_names: tuple[str, ...] = (OURS, BASELINE)
    """Of whom no peer is asked."""

    def __init__(self, entry: Entry) -> None:
        self.entry, self.machine = entry, machine_name()
        declared = params.load(ROOT / entry.file)
        self.product = declared.product(entry.product)
        self.code = hashlib.sha256(f"{code_revision()} {self.product!r}".encode()).hexdigest()[:12]
        self.as_of = date.fromisoformat(entry.as_of) if entry.as_of else declared.as_of
        self.folder = FOLDER / f"{entry.product}-{self.code}"
        self.files = self.folder / "peers"

    def missing(self) -> list[str]:
        """Return who has no line of this state of the code and of the pins, ours first."""
        done = {(line.competitor, line.revision) for line in LINES.read() if self._is_of_this(line)}
        wanted = (*self.own_names, *self.entry.peers)
        return [name for name in wanted if (name, self.revision(name)) not in done]

    def revision(self, competitor: str) -> str:
        """Return what a line of it must have been measured with."""
        return self.code if competitor in self.own_names else f"{self.code}-{PEER_REVISION}"

    def measure(self, competitor: str) -> Line:
        """Measure one and keep its line."""
        line = self.line(competitor, self.cost(competitor))
        LINES.append([line])
        return line

    def line(self, competitor: str, cost: dict[str, Any]) -> Line:
        """Return the line of one that has been run, which took so much."""
        of = {"product": self.entry.name, "competitor": competitor, "revision": self.revision(competitor)}
        return Line(**of, machine=self.machine, **self.quality(competitor), **cost)

    def cost(self, competitor: str) -> dict[str, Any]:
        """Run it, unless that is done; return the fields of its line that say what it takes."""
        figures = self._own() if competitor in (OURS, BASELINE) else self._peer(competitor)
        if competitor == BASELINE:
            return {}
        costs = {name: figures[name] for name in ("rows_per_second", "training_bytes", "scoring_bytes")}
        minutes = figures["minutes"] if competitor == OURS else {}
        return {**costs, "seconds": round(figures["seconds"], 1), "minutes": minutes}

    def _is_of_this(self, line: Line) -> bool:
        return (line.product, line.machine) == (self.entry.name, self.machine)

    def _own(self) -> dict[str, Any]:
        """Go through the phases that are not done; return the figures of all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {name: name for name in ("tasks", "model", "constraints.txt", "examples")}
        for name, place in (files | {"params.yaml": self.entry.file}).items():
            if not (self.folder / name).exists():
                (self.folder / name).symlink_to(ROOT / place)
        figures: dict[str, Any] = {"minutes": {}}
        for name in PHASES:
            found = self.phase(name)
            figures = {**figures, **found, "minutes": figures["minutes"] | found["minutes"]}
        figures["seconds"] = 60 * (figures["minutes"]["pretrain"] + figures["minutes"]["train"])
        return figures

    def phase(self, name: str) -> dict[str, Any]:
        """Go through a phase of our own, unless that is done; return its figures."""
        kept = self.folder / f"{name}.json"
        if not kept.exists():
            print(f"{self.entry.product}: {name}, see {self.folder / name}.log", flush=True)
            command = [sys.executable, "-m", "benchmarks.matrix.own", name]
            with (self.folder / f"{name}.log").open("w") as log:
                done = subprocess.run(
                    [*command, self.entry.product, self.as_of.isoformat()],
                    cwd=self.folder,
                    env={**os.environ, **one_thread(), "PYTHONPATH": str(ROOT)},
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    check=True,
                )
            kept.write_text(done.stdout.splitlines()[-1], "utf-8")
        found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return found

    def _peer(self, competitor: str) -> dict[str, Any]:
        self._own()  # a no-op where all phases are done
        arguments = (self.files, self.entry.product, competitor)
        return peers.run("matrix", *arguments, pins=PINS, timeout=3600, **one_thread())

    def _scores(self, competitor: str) -> np.ndarray:
        name = {OURS: "model", BASELINE: "baseline"}.get(competitor, competitor.replace("/", "-"))
        scores = np.load(self.files / f"{name}.npy")
        head = head_of(self.product.target.task)
        if head.answers_lists and scores.ndim == 2:  # a score of each item, from a peer
            return best(scores, self.product.predict.top, np.random.default_rng(SEED))
        return scores

    def quality(self, competitor: str) -> dict[str, Any]:
        """Return the fields of its line that say how good its scores are."""
        scores, task, metric = self._scores(competitor), self.product.target.task, self.product.gates.metric
        y, block = (np.load(self.files / f"{name}.npy") for name in ("y", "block"))
        assert len(scores) == len(y), f"{len(scores)} scores of {len(y)} rows"
        value = evaluate_metric(task, y, scores, metric)
        assert value is not None
        lead = None
        if competitor != OURS:
            own, sign = self._scores(OURS), -1 if metric in LOWER_IS_BETTER else 1

            def difference(kept: np.ndarray) -> float | None:
                found = [evaluate_metric(task, y[kept], each[kept], metric) for each in (own, scores)]
                return None if None in found else sign * (found[0] - found[1])

            lead = paired_difference(difference, block)
        return {
            "metric": metric,
            "lower_is_better": metric in LOWER_IS_BETTER,
            "rows": {name: _n_rows(self.files / f"{name}.parquet") for name in ("train", "val", "test")},
            "value": value,
            "interval": bootstrap_interval(task, y, scores, metric, N_RESAMPLES, SEED),
            **fields_of(lead),
        }


def fields_of(lead: Difference | None) -> dict[str, Any]:
    """Return the fields of a line that say how much ours leads."""
    return {"lead": lead and (lead.value, lead.low, lead.high), "n_blocks": lead.n_blocks if lead else 0}


def _n_rows(file: Path) -> int:
    from tasks.rows.partitions import n_rows

    return n_rows(file)
