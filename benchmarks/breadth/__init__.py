"""Default entries on many products beside what a user would have picked, tuned in the same time: what a newcomer gets.

Every set of `tables` is declared by its columns and target alone, all else are defaults; it is split, trained and
measured by the project's own stages, without DVC. The peers see the same columns and learn from training and
validation rows together. What has been measured is kept, so that a run can be stopped and goes on.

LAMPLIGHTER_BREADTH=quick is a glance in under ten minutes: one split of few sets, without AutoGluon; names with commas
between them take these sets. Neither is written into benchmarks/results.
"""

import os
import subprocess
from dataclasses import replace

from tqdm import tqdm

from benchmarks.breadth.lines import LINES
from benchmarks.breadth.schedule import AUTOGLUON, OURS, RUNGS, TUNED, Schedule
from benchmarks.breadth.summary import summarise
from benchmarks.breadth.tables import sets
from benchmarks.report import Result

SPLITS = range(5)
QUICK = ("iris", "hitters", "cars", "fuel")


def run() -> Result:
    """Measure what has no line yet, and return all of it as tables."""
    asked = os.environ.get("LAMPLIGHTER_BREADTH", "")
    if asked == "quick":
        measure(QUICK, range(1), (OURS, *TUNED))
        return replace(report(QUICK, range(1)), kept=False)
    names = tuple(filter(None, asked.split(",")))
    measure(names, SPLITS, (OURS, *TUNED, *AUTOGLUON))
    if not names:
        LINES.keep()
    return replace(report(names, SPLITS), kept=not names)


def measure(
    names: tuple[str, ...],
    splits: range,
    competitors: tuple[str, ...],
    exports: bool = True,
    most_seconds: int = RUNGS[-1],
) -> None:
    """Do the jobs that have no line; one that fails is named, and tried when this is called the next time."""
    schedule = Schedule(sets(names), splits, competitors, exports, most_seconds)
    with tqdm(total=sum(job.rung for job in schedule.jobs()), unit="s of work", smoothing=0.05) as bar:
        for job in schedule.jobs():
            title = f"{job.one.name}, split {job.split}: {job.competitor}"
            bar.set_description(title)
            try:
                done = schedule.work(job)
            except subprocess.SubprocessError as error:
                tqdm.write(f"{title} failed: {error}; the others go on")
            else:
                # Of a set that nothing is chosen on no figure is shown before the end.
                figures = "" if job.one.unseen else ", ".join(f"{line.competitor} {line.value:.4f}" for line in done)
                tqdm.write(f"{title}, {done[0].seconds:.0f} s {figures}")
            bar.update(job.rung)


def report(names: tuple[str, ...], splits: range) -> Result:
    """Return the tables over the lines that there are."""
    return summarise(Schedule(sets(names), splits, ()))
