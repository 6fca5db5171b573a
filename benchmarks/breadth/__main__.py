"""Measure a part of the benchmark, or go on with it: `python -m benchmarks.breadth --splits 1 --only LightGBM`.

What has a line already is not measured again. `make bench BENCH=breadth` measures all of it and writes the page; this
command writes nothing but lines, or, with --page, the page from the lines that there are, which it keeps in
benchmarks/results.
"""

import argparse
import os

from benchmarks.breadth import SPLITS, measure, report, tables
from benchmarks.breadth.lines import LINES
from benchmarks.breadth.schedule import AUTOGLUON, OURS, RUNGS, TUNED
from benchmarks.breadth.sets import UNSEEN
from benchmarks.page import write_page
from benchmarks.report import show, write


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.breadth", description=__doc__)
    parser.add_argument("--sets", default="", help="names with commas between them, or seen or unseen; default: all")
    parser.add_argument("--most-rows", type=int, default=500_000, help="leave out the sets that have more")
    parser.add_argument("--splits", type=int, default=len(SPLITS), help="the first so many splits")
    parser.add_argument("--from-split", type=int, default=0, help="leave out the splits before this one")
    names = (OURS, *TUNED, *AUTOGLUON)
    parser.add_argument("--only", action="append", choices=names, help="a competitor; may be given several times")
    parser.add_argument("--without-export", action="store_true", help="leave out the time of ours to export and score")
    parser.add_argument("--most-seconds", type=int, default=RUNGS[-1], help="what a peer gets at most")
    parser.add_argument("--page", action="store_true", help="measure nothing; write the page")
    given = parser.parse_args()
    splits = range(given.from_split, given.splits)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    groups = {"seen": tuple(name for name in tables.MAKERS if name not in UNSEEN), "unseen": tuple(UNSEEN)}
    sets = groups.get(given.sets, tuple(filter(None, given.sets.split(","))))
    sets = tuple(one.name for one in tables.sets(sets) if one.n_rows <= given.most_rows)
    if given.page:
        LINES.keep()
        result = report(sets, splits)
        show(result)
        write(result)
        write_page()
    else:
        measure(sets, splits, tuple(given.only or names), not given.without_export, given.most_seconds)


if __name__ == "__main__":
    main()
