"""Does a night of millions of rows take memory that does not grow, and time that grows no faster than it?

Real rows (flights, and sentences of BBC articles), repeated under new keys, are laid out as `validate` leaves them
and scored by the stage `predict` itself, each night in a process of its own. What the smallest night takes is the
model and its libraries; what a larger one takes beyond that is the price of its rows.

    python -m benchmarks scale                                        all of it
    python -m benchmarks.scale flight-delays small 1000000 4000000    one product, network and list of sizes

Reads the memory from Linux's /proc.

The time per row must not grow, which shows best where the network takes the least of it: `tiny` does the tables of
ten million rows. The memory must not grow with any network: `small` is the one that the products have.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.peers import FOLDER
from benchmarks.report import Result, Target, show
from tasks import params
from tasks.files import partitions, read_partitions, table_writer, write_json
from tasks.params import Product, Split
from tasks.paths import Paths, partition

ROOT = Path(__file__).resolve().parent.parent
AS_OF = {"flight-delays": date(2013, 1, 31), "news-topics": date(2013, 6, 30)}
TINY = {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_feedforward": 16}
NETWORKS: dict[str, dict[str, Any]] = {"tiny": TINY, "small": {}}
"""What differs from the preset small."""
NIGHTS = (
    ("flight-delays", "tiny", [1_000_000, 10_000_000]),
    ("flight-delays", "small", [250_000, 1_000_000]),
    ("news-topics", "tiny", [250_000, 1_000_000]),
)
WARM_UP = 1_000
"""Rows of the smallest night: enough that everything has been loaded and used."""
MAX_MIB_BEYOND_MODEL = 1536
MAX_TIME_RATIO = 1.1


@dataclass(frozen=True)
class Night:
    """What one process took to score one night."""

    rows: int
    seconds: float
    peak_mib: float


def run(nights: Sequence[tuple[str, str, list[int]]] = NIGHTS) -> Result:
    """Score nights of growing size, of each product and network."""
    tables: dict[str, list[dict[str, Any]]] = {}
    targets = []
    for name, network, sizes in nights:
        done = [_night(name, network, n) for n in (WARM_UP, *sizes)]
        tables[f"{name}, network {network}"] = _rows(done)
        targets += _targets(f"{name}, {network}", done)
    notes = [
        f"the model and its libraries are what a night of {WARM_UP:,} rows takes; seconds are those of the stage "
        "without starting Python, less those of that night",
        "the networks are hardly trained: how well they are does not change what they take",
    ]
    return Result(name="scale", tables=tables, targets=targets, notes=notes)


def _rows(nights: list[Night]) -> list[dict[str, Any]]:
    first = nights[0]
    return [
        {
            "rows": night.rows,
            "seconds": night.seconds - first.seconds,
            "rows a second": (night.rows - first.rows) / (night.seconds - first.seconds),
            "peak MiB": night.peak_mib,
            "MiB beyond the model": night.peak_mib - first.peak_mib,
        }
        for night in nights[1:]
    ]


def _targets(name: str, nights: list[Night]) -> list[Target]:
    first, small, *_, large = nights
    beyond = large.peak_mib - first.peak_mib
    growth = (large.seconds - first.seconds) / (small.seconds - first.seconds) / (large.rows / small.rows)
    return [
        Target(
            name=f"{name}: memory of {large.rows:,} rows beyond the model",
            wanted=f"under {MAX_MIB_BEYOND_MODEL:,} MiB",
            measured=f"{beyond:,.0f} MiB",
            met=beyond < MAX_MIB_BEYOND_MODEL,
        ),
        Target(
            name=f"{name}: time per row, {large.rows:,} rows against {small.rows:,}",
            wanted=f"at most {MAX_TIME_RATIO:.2f}",
            measured=f"{growth:.2f}",
            met=growth <= MAX_TIME_RATIO,
        ),
    ]


def _night(name: str, network: str, n_rows: int) -> Night:
    """Lay out a night of so many rows and score it in a process of its own."""
    workspace = FOLDER.parent / "scale" / f"{name}-{network}"
    if not (workspace / "data" / "models" / name / "onnx").exists():
        _prepare(name, network, workspace)
    with chdir(workspace):
        _lay_out(_product(name, network), n_rows)
    print(f"{name}, {network}: scoring {n_rows:,} rows", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", name, network],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TQDM_MININTERVAL": "10"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    night = Night(n_rows, **json.loads(done.stdout.splitlines()[-1]))
    print(f"  {night.seconds:.1f} s, peak {night.peak_mib:,.0f} MiB", flush=True)
    return night


def _score(name: str, network: str) -> dict[str, float]:
    """In the process of its own: the stage's seconds, and the most memory that the process ever held."""
    from tasks.predict import predict

    started = time.monotonic()
    predict(_product(name, network), AS_OF[name])
    seconds = time.monotonic() - started
    return {"seconds": seconds, "peak_mib": _peak_mib()}


def _peak_mib() -> float:
    """The most memory that this program held; getrusage would tell that of the process which started it, if larger."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _product(name: str, network: str) -> Product:
    """The product as declared, with a network that a few seconds train."""
    product = params.load(ROOT / params.PARAMS_FILE).product(name)
    train = replace(product.model.train, epochs=0.1)
    model = replace(product.model, preset="small", init="scratch", network=NETWORKS[network], train=train)
    split = Split(by="time", test_days=3, val_days=3, train_days=14)
    return replace(product, model=model, split=split if product.split.by == "time" else product.split)


def _prepare(name: str, network: str, workspace: Path) -> None:
    """Everything before `predict`, by the stages themselves."""
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


def _lay_out(product: Product, n_rows: int) -> None:
    """The valid rows of the night: real ones, again and again, each under a key of its own, in order of key."""
    real = read_partitions(partitions(Path("real/rows"))).drop(columns="dt")
    if product.columns == {"text": "text"}:
        real = _sentences(real, product)
    day, key = product.scored_day(AS_OF[product.name]), product.key[0]
    with table_writer(partition(Paths(product.name).valid / "rows", day)) as write:
        for first in range(0, n_rows, len(real)):
            some = real.head(n_rows - first)
            write(some.assign(**{key: [f"{first + i:09d}" for i in range(len(some))]}))
    counts = {"date": day.isoformat(), "rows_in": n_rows, "rows_valid": n_rows, "rows_quarantined": 0}
    write_json(Paths(product.name).report("validation.json"), {"scored_day": counts})


def _sentences(real: pd.DataFrame, product: Product) -> pd.DataFrame:
    """Each sentence of the articles as a row."""
    split = real.assign(text=real["text"].map(lambda text: re.split(r"(?<=[.!?])\s+", text))).explode("text")
    return split[split["text"].str.len() >= 20].astype({"text": "str"}).reset_index(drop=True)


if __name__ == "__main__":
    _name, _network, *_sizes = sys.argv[1:]
    if _sizes:
        show(run([(_name, _network, [int(each) for each in _sizes])]))
    else:
        print(json.dumps(_score(_name, _network)))
