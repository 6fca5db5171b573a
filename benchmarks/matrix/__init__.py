"""Every kind of product beside what a user would pick instead: quality, speed, memory and minutes in one table.

Each product of `products.PRODUCTS` is taken through the project's own stages; the peers learn from the same training
and validation rows and score the same held-out rows. What has been measured is kept, so that a run can be stopped and
goes on; LAMPLIGHTER_MATRIX=digits,credit-risk takes these products alone and writes nothing into benchmarks/results.
"""

import os
import subprocess
from dataclasses import replace

from benchmarks.ahead import PRODUCT
from benchmarks.matrix.forecasts import ForecastBench
from benchmarks.matrix.lines import LINES
from benchmarks.matrix.made import MadeRowsBench
from benchmarks.matrix.measuring import Bench
from benchmarks.matrix.products import PRODUCTS, Entry
from benchmarks.matrix.summary import summarise
from benchmarks.report import Result


def run() -> Result:
    """Measure what has no line yet, and return all of it as tables."""
    asked = tuple(filter(None, os.environ.get("LAMPLIGHTER_MATRIX", "").split(",")))
    measure(asked or tuple(entry.product for entry in PRODUCTS.values()))
    if not asked:
        LINES.keep()
    return replace(summarise(LINES.read()), kept=not asked)


def measure(names: tuple[str, ...]) -> None:
    """Do all of these products that has no line; what fails is named, and tried when this is called the next time."""
    for name, entry in PRODUCTS.items():
        if entry.product not in names:
            continue
        bench = _kind_of(entry)(entry)
        for competitor in bench.missing():
            try:
                line = bench.measure(competitor)
            except subprocess.SubprocessError as error:
                print(f"{name}: {competitor} failed: {error}; the others go on", flush=True)
                if competitor == bench.first:
                    break
            else:
                print(f"{name}: {line.summary}", flush=True)


def _kind_of(entry: Entry) -> type[Bench]:
    if entry.about:
        return MadeRowsBench
    return ForecastBench if entry.product == PRODUCT else Bench
