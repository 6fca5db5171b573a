"""Measure Lamplighter beside its peers: `make bench`, or `make bench BENCH=scoring`.

Each benchmark is a module of this folder with `run() -> Result`; it prints its tables and writes
benchmarks/results/<name>.json and docs/benchmarks.md. Lamplighter and the peers work on the same rows, on one machine,
in turns; compare the ratios, since the absolute figures of a shared machine are noisy. No timing ever fails a test.
"""

import argparse
import importlib
import os

from benchmarks.page import write_page
from benchmarks.report import show, write

NAMES = ("scoring", "training", "quality", "pretraining", "scale", "night")
GPU = "gpu"
BY_NAME = ("breadth", "matrix", "ahead", GPU)
"""Asked for by name only: one takes many hours, one an hour, one is of a single product, one needs a GPU."""


def main() -> None:
    """Run the benchmarks that are named, or all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"{', '.join(NAMES)} (default: all of these), {', '.join(BY_NAME)}"
    )
    parser.add_argument("--rows", nargs="+", type=int, metavar="ROWS", help="of night alone: histories of these sizes")
    given = parser.parse_args()
    names = given.names
    if given.rows and names != ["night"]:
        parser.error("--rows must go with the benchmark night alone; name it, or leave --rows out")
    if unknown := set(names) - {*NAMES, *BY_NAME}:
        parser.error(
            f"name must be one of {', '.join((*NAMES, *BY_NAME))}, got {', '.join(sorted(unknown))}; correct it"
        )
    if GPU not in names:  # the peers compute on the processor, and so do we beside them
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name in names or NAMES:
        arguments = {"sizes": tuple(given.rows)} if given.rows else {}
        result = importlib.import_module(f"benchmarks.{name}").run(**arguments)
        show(result)
        if not result.kept:
            continue
        print(f"\nwritten: {write(result).name} in benchmarks/results")
        write_page()


if __name__ == "__main__":
    main()
