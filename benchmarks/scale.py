"""Do millions of rows take memory that does not grow, and time that grows no faster than they do?

Real rows (flights, and sentences of BBC articles), repeated under new keys, are laid out as `validate` and `split`
leave them, scored by the stage `predict` itself and learnt from by the stage `train` itself, each time in a process of
its own. What the fewest rows take is the model and its libraries; what more take beyond that is the price of the rows.

    python -m benchmarks scale                                              all of it
    python -m benchmarks.scale predict flight-delays own 1000000 4000000    one stage, product, network and its sizes

Reads the memory from Linux's /proc: the program's own, without the files that it maps, which the system takes back
whenever somebody needs the room.

The time per row of a night must not grow, which shows best where the network takes the least of it: most texts are
read by a tiny one. A training learns from a part of its rows as long as from another: only what holding them takes is
looked at.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.peers import HOME
from benchmarks.report import Result, Target, show
from tasks import params
from tasks.params import Product, TimeSplit
from tasks.rows.partitions import n_rows, partition, read_table, read_tables, table_writer
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths

ROOT = Path(__file__).resolve().parent.parent
AS_OF = {"flight-delays": date(2013, 1, 31), "news-topics": date(2013, 6, 30)}
TINY = {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_feedforward": 16}
NETWORKS: dict[str, dict[str, Any] | None] = {"tiny": TINY, "own": None}
"""What differs from the preset small; or the product's own."""
RUNS = (
    ("predict", "flight-delays", "own", [1_000_000, 10_000_000]),
    ("predict", "news-topics", "tiny", [250_000, 1_000_000]),
    ("predict", "news-topics", "own", [25_000, 100_000]),
    ("train", "flight-delays", "own", [1_000_000, 4_000_000]),
    ("train", "news-topics", "tiny", [250_000, 1_000_000]),
)
WARM_UP = 1_000
"""The fewest rows: enough that everything has been loaded and used."""
TRAINED_ROWS = 50_000
"""Of all rows, as many are learnt from in a training of any size."""
SECONDS_BETWEEN_LOOKS = 0.05
MAX_MIB_BEYOND_MODEL = 1536
MAX_TIME_RATIO = 1.1


@dataclass(frozen=True)
class Work:
    """The time and memory that one process took for so many rows."""

    rows: int
    seconds: float
    peak_mib: float


def run(runs: Sequence[tuple[str, str, str, list[int]]] = RUNS) -> Result:
    """Measure growing numbers of rows of each stage, product and network."""
    tables: dict[str, list[dict[str, Any]]] = {}
    targets = []
    for stage, name, network, sizes in runs:
        done = [_work(stage, name, network, n) for n in (WARM_UP, *sizes)]
        tables[f"{stage}: {name}, network {network}"] = _rows(done)
        targets += _targets(f"{stage}: {name}, {network}", done, timed=stage == "predict")
    notes = [
        f"the model and its libraries are what {WARM_UP:,} rows take; seconds are those of the stage without starting "
        "Python, less those of so many rows",
        "the networks are hardly trained: how well they are does not change what they take",
        f"a training learns from {TRAINED_ROWS:,} of its rows",
    ]
    return Result(name="scale", tables=tables, targets=targets, notes=notes)


def _rows(works: list[Work]) -> list[dict[str, Any]]:
    first = works[0]
    return [
        {
            "rows": work.rows,
            "seconds": work.seconds - first.seconds,
            "rows a second": (work.rows - first.rows) / (work.seconds - first.seconds),
            "peak MiB": work.peak_mib,
            "MiB beyond the model": work.peak_mib - first.peak_mib,
        }
        for work in works[1:]
    ]


def _targets(name: str, works: list[Work], timed: bool) -> list[Target]:
    first, small, *_, large = works
    beyond = large.peak_mib - first.peak_mib
    growth = (large.seconds - first.seconds) / (small.seconds - first.seconds) / (large.rows / small.rows)
    memory = Target(
        name=f"{name}: memory of {large.rows:,} rows beyond the model",
        wanted=f"under {MAX_MIB_BEYOND_MODEL:,} MiB",
        measured=f"{beyond:,.0f} MiB",
        met=beyond < MAX_MIB_BEYOND_MODEL,
    )
    time = Target(
        name=f"{name}: time per row, {large.rows:,} rows against {small.rows:,}",
        wanted=f"at most {MAX_TIME_RATIO:.2f}",
        measured=f"{growth:.2f}",
        met=growth <= MAX_TIME_RATIO,
    )
    return [memory, time] if timed else [memory]


def _work(stage: str, name: str, network: str, n_rows: int) -> Work:
    """Lay out so many rows and give them to the stage in a process of its own."""
    workspace = HOME / "scale" / f"{name}-{network}"
    if not (workspace / "real").exists():
        _prepare(name, network, workspace)
    with chdir(workspace):
        {"predict": _lay_out_night, "train": _lay_out_split}[stage](_product(name, network), n_rows)
    print(f"{stage}: {name}, {network}: {n_rows:,} rows", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", stage, name, network],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TQDM_MININTERVAL": "10"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    work = Work(n_rows, **json.loads(done.stdout.splitlines()[-1]))
    print(f"  {work.seconds:.1f} s, peak {work.peak_mib:,.0f} MiB", flush=True)
    return work


def _measured(stage: str, name: str, network: str) -> dict[str, float]:
    """Return, in a process of its own, the stage's seconds, and the most memory that the process ever held."""
    does = getattr(importlib.import_module(f"tasks.{stage}"), stage)
    product = _product(name, network)
    if stage == "train":
        epochs = min(1.0, TRAINED_ROWS / n_rows(Paths(name).splits / "train.parquet"))
        product = replace(product, model=replace(product.model, train=replace(product.model.train, epochs=epochs)))
    peak, done = [0.0], threading.Event()
    watch = threading.Thread(target=_watch, args=(peak, done), daemon=True)
    watch.start()
    started = time.monotonic()
    does(product, AS_OF[name])
    seconds = time.monotonic() - started
    done.set()
    watch.join()
    return {"seconds": seconds, "peak_mib": peak[0]}


def _watch(peak: list[float], done: threading.Event) -> None:
    """Keep the most memory of its own that this program is seen to hold."""
    while not done.wait(SECONDS_BETWEEN_LOOKS):
        lines = Path("/proc/self/status").read_text().splitlines()
        own = sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:")))
        peak[0] = max(peak[0], own / 1024)


def _product(name: str, network: str) -> Product:
    """Return the product as declared, with a network that a few seconds train."""
    product = params.load(ROOT / params.PARAMS_FILE).product(name)
    model, differs = replace(product.model, train=replace(product.model.train, epochs=0.1)), NETWORKS[network]
    if differs is not None:
        model = replace(model, preset="small", init="scratch", network=differs)
    split = TimeSplit(by="time", test_days=3, val_days=3, train_days=14)
    return replace(product, model=model, split=split if product.split.by == "time" else product.split)


def _prepare(name: str, network: str, workspace: Path) -> None:
    """Do everything before `predict`, by the stages themselves."""
    from tasks.export import export
    from tasks.ingest import ingest
    from tasks.pretrain import pretrain
    from tasks.split import split
    from tasks.train import train
    from tasks.validate import validate

    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    shutil.copy(ROOT / "constraints.txt", workspace)
    with chdir(workspace):
        for stage in (ingest, validate, split, pretrain, train, export):
            print(f"{name}: {stage.__name__}: {stage(_product(name, network), AS_OF[name])}", flush=True)
        shutil.copytree(Paths(name).valid, "real")
        shutil.copy(Paths(name).splits / "train.parquet", "real")


def _lay_out_night(product: Product, n_rows: int) -> None:
    """Write the valid rows of the night."""
    real = read_tables(Path("real/rows")).drop(columns="dt")
    day = product.scored_day(AS_OF[product.name])
    _repeat(real, product, n_rows, partition(Paths(product.name).valid / "rows", day))
    counts = {"date": day.isoformat(), "rows_in": n_rows, "rows_valid": n_rows, "rows_quarantined": 0}
    write_json(Paths(product.name).report("validation.json"), {"scored_day": counts})


def _lay_out_split(product: Product, n_rows: int) -> None:
    """Write the training rows; those of validation and test stay."""
    _repeat(read_table(Path("real/train.parquet")), product, n_rows, Paths(product.name).splits / "train.parquet")


def _repeat(real: pd.DataFrame, product: Product, n_rows: int, into: Path) -> None:
    """Repeat real rows, each under a key of its own, in order of key; of articles, their sentences."""
    if product.columns == {"text": "text"}:
        real = _sentences(real)
    with table_writer(into) as write:
        for first in range(0, n_rows, len(real)):
            chunk = real.head(n_rows - first)
            write(chunk.assign(**{product.key[0]: [f"{first + i:09d}" for i in range(len(chunk))]}))


def _sentences(real: pd.DataFrame) -> pd.DataFrame:
    split = real.assign(text=real["text"].map(lambda text: re.split(r"(?<=[.!?])\s+", text))).explode("text")
    return split[split["text"].str.len() >= 20].astype({"text": "str"}).reset_index(drop=True)


if __name__ == "__main__":
    _stage, _name, _network, *_sizes = sys.argv[1:]
    if _sizes:
        show(run([(_stage, _name, _network, [int(each) for each in _sizes])]))
    else:
        print(json.dumps(_measured(_stage, _name, _network)))
