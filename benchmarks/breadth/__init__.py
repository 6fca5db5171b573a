"""Default entries on many products beside what a user would have picked, tuned in the same time: what a newcomer gets.

Every set of `tables` is declared by its columns and target alone, all else are defaults; it is split, trained and
measured by the project's own stages, without DVC. The peers see the same columns and learn from training and
validation rows together. LAMPLIGHTER_BREADTH=quick takes one split, and only the sets and peers that are quick.
"""

import os

from tqdm import tqdm

from benchmarks.breadth import lines
from benchmarks.breadth.schedule import AUTOGLUON, OURS, TUNED, Schedule
from benchmarks.breadth.summary import summarise
from benchmarks.breadth.tables import sets
from benchmarks.report import Result

N_SPLITS = 5
QUICK = ("iris", "hitters", "cars", "fuel", "diabetes", "tumours")


def run() -> Result:
    """Measure what has no line yet, and return all of it as tables."""
    quick = os.environ.get("LAMPLIGHTER_BREADTH") == "quick"
    names, n_splits = (QUICK, 1) if quick else ((), N_SPLITS)
    measure(names, n_splits, (OURS, *TUNED) if quick else (OURS, *TUNED, *AUTOGLUON))
    if quick:  # a glance is no result that others should have
        return report(names, n_splits)
    lines.keep()
    return report(names, n_splits)


def measure(names: tuple[str, ...], n_splits: int, competitors: tuple[str, ...], exports: bool = True) -> None:
    """Do the jobs that have no line, with the time that is left."""
    schedule = Schedule(sets(names), n_splits, competitors, exports)
    with tqdm(total=sum(job.rung for job in schedule.jobs()), unit="s of work", smoothing=0.05) as bar:
        for job in schedule.jobs():
            bar.set_description(f"{job.one.name}, split {job.split}: {job.competitor}")
            done = schedule.work(job)
            # Of a set that nothing is chosen on no figure is shown before the end.
            figures = "" if job.one.unseen else ", ".join(f"{line.competitor} {line.value:.4f}" for line in done)
            tqdm.write(f"{job.one.name} {job.split} {job.competitor}: {done[0].seconds:.0f} s {figures}")
            bar.update(job.rung)


def report(names: tuple[str, ...], n_splits: int) -> Result:
    """Return the tables over the lines that there are."""
    return summarise(Schedule(sets(names), n_splits, ()))
