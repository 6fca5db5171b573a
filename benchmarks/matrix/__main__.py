"""Measure a part of the benchmark, or go on with it: `python -m benchmarks.matrix --only digits`.

What has a line already is not measured again. `make bench BENCH=matrix` measures all of it and writes the page; this
command writes nothing but lines, or, with --page, the page from the lines that there are, which it keeps in
benchmarks/results.
"""

import argparse
import os

from benchmarks.matrix import measure
from benchmarks.matrix.lines import LINES
from benchmarks.matrix.products import PRODUCTS
from benchmarks.matrix.summary import summarise
from benchmarks.page import write_page
from benchmarks.report import show, write


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrix", description=__doc__)
    parser.add_argument("--only", action="append", choices=_products(), help="a product; may be given several times")
    parser.add_argument("--page", action="store_true", help="measure nothing; write the page")
    given = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if not given.page:
        measure(tuple(given.only or _products()))
        return
    LINES.keep()
    result = summarise(LINES.read())
    show(result)
    write(result)
    write_page()


def _products() -> list[str]:
    return list(dict.fromkeys(entry.product for entry in PRODUCTS.values()))


if __name__ == "__main__":
    main()
