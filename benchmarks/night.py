"""Does a night of 2,000 new rows cost a night, whatever lies before it?

The same new orders come after 0.2, 2 and 20 million rows of history, in one Parquet file that is written anew for every
night, as an export is. The stages ingest, validate and split each run in a process of their own, first for the whole
history and then for one night after another. pandas, Great Expectations, DuckDB and Polars do the same on that file.
Then whole nights of a product go through the runs, from the trigger to the manifest.

    python -m benchmarks night                                 all of it; stopped, it goes on where it stopped
    python -m benchmarks night --rows 200000 2000000           histories of these sizes, which are not kept
    python -m benchmarks.night 200000 2000000                  the stages on histories of these sizes
    python -m benchmarks.night 200000 --tree ../other          of another revision, with this one's measure
    python -m benchmarks.night 200000 --peers pandas --write   beside a peer, kept as the result

Work is the time of the stage itself with all that it imports, without starting Python and reading params.yaml; seconds
are those of the process. The peak is the process's largest resident set, files that it maps included.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.nights import orders, whole
from benchmarks.nights.progress import Progress, code_digest
from benchmarks.nights.whole import WholeNights
from benchmarks.nights.work import Work
from benchmarks.page import write_page
from benchmarks.peers import HOME, SCRIPTS
from benchmarks.report import Result, Target, show, write

ROOT = Path(__file__).resolve().parent.parent
MEASURED = Path(__file__).parent / "nights" / "measured.py"
STAGES = ("ingest", "validate", "split")
PEERS = ("pandas", "great_expectations", "duckdb", "polars")
SIZES = (200_000, 2_000_000, 20_000_000)
NIGHTS = 3
SIZES_OF_PEERS = (200_000, 2_000_000)
"""pandas, and Great Expectations on it, hold all rows: more may be too many for a machine of 24 GiB."""
NIGHTS_OF_PEERS = 1
MAX_RATIO = 1.2
MAX_WORK_SECONDS = 5.0
MAX_NIGHT_MIB = 600
MAX_FIRST_LOAD_MIB = 1_500
MIN_ROWS_A_SECOND = 91_000
"""Ten times what revision 834b4ba loaded in a second."""
MAX_EMBEDDED_SECONDS, MAX_SCHEDULER_SECONDS, MAX_BACKFILL_SECONDS = 15, 20, 300


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The first load of a history and the nights after it, of ours or of a peer."""

    rows: int
    first: dict[str, Work]
    """By stage; a peer has one."""
    nights: list[dict[str, Work]]

    @property
    def first_load(self) -> Work:
        """Return the first load of all stages."""
        return _sum(self.first)

    @property
    def night(self) -> Work:
        """Return the night whose work is the median."""
        return sorted((_sum(night) for night in self.nights), key=lambda work: work.work)[len(self.nights) // 2]

    def stage(self, name: str) -> Work:
        """Return the median night of one stage."""
        return sorted((night[name] for night in self.nights), key=lambda work: work.work)[len(self.nights) // 2]


def run(
    sizes: tuple[int, ...] = SIZES,
    tree: Path = ROOT,
    peers: tuple[str, ...] = PEERS,
    n_nights: int = NIGHTS,
    most_rows_of_peers: int = SIZES[-1],
    *,
    with_whole_nights: bool = True,
) -> Result:
    """Measure growing histories, the peers on the same rows, and whole nights."""
    ours = [_measure(rows, tree, n_nights) for rows in sizes]
    beside = {
        name: [_measure_peer(name, rows) for rows in SIZES_OF_PEERS if rows in sizes and rows <= most_rows_of_peers]
        for name in peers
    }
    tables = {
        f"A night of {orders.ROWS_A_DAY:,} new rows": [row for each in ours for row in _night_rows(each)],
        "The first load": [row for each in ours for row in _first_rows(each)],
    }
    if beside:
        tables["Beside the peers: three stages, or the script that does as much"] = [
            *(_beside("Lamplighter", each) for each in ours),
            *(_beside(name, each) for name, measured in beside.items() for each in measured),
        ]
    targets = _targets(ours)
    if with_whole_nights:
        nights = whole.measure(tree, HOME / "night" / "whole")
        tables["A whole night through the scheduler"] = [
            {"task": name, "seconds": seconds} for name, seconds in nights.tasks.items()
        ]
        targets += _targets_of_whole(nights)
    is_all = sizes == SIZES
    return Result(name="night", tables=tables, targets=targets, notes=_notes(ours), kept=is_all)


def _measure(rows: int, tree: Path, n_nights: int) -> Measured:
    progress = Progress(HOME / "night" / f"ours-{rows}", code_digest(tree / "tasks", tree / "model"))
    done = [_measure_night(progress, rows, night, tree) for night in range(n_nights + 1)]
    progress.remove_files()
    return Measured(rows=rows, first=done[0], nights=done[1:])


def _measure_night(progress: Progress, rows: int, night: int, tree: Path) -> dict[str, Work]:
    done = {stage: progress.work(night, stage) for stage in STAGES}
    for stage in STAGES:
        if done[stage] is None:
            _lay_out(progress, rows, night)
            command = [sys.executable, MEASURED, stage, orders.PRODUCT]
            done[stage] = _process(stage, command, progress.folder, tree)
            progress.note(night, stage, done[stage])
    return {stage: work for stage, work in done.items() if work}


def _measure_peer(name: str, rows: int) -> Measured:
    script = SCRIPTS / "peer_night.py"
    progress = Progress(HOME / "night" / f"{name}-{rows}", code_digest(script))
    nights = range(NIGHTS_OF_PEERS + 1)
    if any(progress.work(night, "all") is None for night in nights):  # what a peer has half stored it does not mend
        progress.begin_anew()
        for night in nights:
            _lay_out(progress, rows, night)
            command = [sys.executable, script, name, orders.as_of_night(night).isoformat()]
            progress.note(night, "all", _process(f"{name}, night {night}", command, progress.folder, ROOT))
        progress.remove_files()
    done = [{"all": work} for night in nights if (work := progress.work(night, "all"))]
    return Measured(rows=rows, first=done[0], nights=done[1:])


def _lay_out(progress: Progress, rows: int, night: int) -> None:
    """Write the source as it is on a night, unless it lies there."""
    if progress.laid_out != night:
        print(f"\n{progress.folder.name}, night {night}", flush=True)
        orders.write_orders(progress.folder, rows // orders.ROWS_A_DAY, night)
        orders.write_params(progress.folder, orders.as_of_night(night))
        progress.note_laid_out(night)


def _process(name: str, command: list[str | Path], folder: Path, tree: Path) -> Work:
    """Run a command that prints its figures as JSON on its last line; return them with those of its process."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "TQDM_MININTERVAL": "30", "GX_ANALYTICS_ENABLED": "false"}
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    figures = json.loads(lines[-1])
    work = Work(
        seconds=seconds,
        work=figures["work"],
        work_cpu=figures["work_cpu"],
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss / 1024,
        own_mib=figures["own_mib"],
    )
    print(f"  {name}: {work.work:.2f} s of {seconds:.2f} s, {work.peak_mib:,.0f} MiB: {figures['summary']}", flush=True)
    return work


def _sum(stages: dict[str, Work]) -> Work:
    first, *others = stages.values()
    for each in others:
        first = first + each
    return first


def _row(rows: int, stage: str, work: Work) -> dict[str, Any]:
    return {
        "rows of history": rows,
        "stage": stage,
        "work s": work.work,
        "of it CPU s": work.work_cpu,
        "process s": work.seconds,
        "peak MiB": work.peak_mib,
        "own MiB": work.own_mib,
    }


def _night_rows(measured: Measured) -> list[dict[str, Any]]:
    each = [_row(measured.rows, stage, measured.stage(stage)) for stage in STAGES]
    return [*each, _row(measured.rows, "all three", measured.night)]


def _first_rows(measured: Measured) -> list[dict[str, Any]]:
    each = [*measured.first.items(), ("all three", measured.first_load)]
    rates = [(measured.rows / work.seconds, measured.rows / work.work_cpu) for _, work in each]
    return [
        {**_row(measured.rows, stage, work), "rows a second": a_second, "rows a CPU second": a_cpu_second}
        for (stage, work), (a_second, a_cpu_second) in zip(each, rates, strict=True)
    ]


def _beside(name: str, measured: Measured) -> dict[str, Any]:
    first, night = measured.first_load, measured.night
    return {
        "": name,
        "rows of history": measured.rows,
        "first load s": first.seconds,
        "its CPU s": first.cpu_seconds,
        "its peak MiB": first.peak_mib,
        "night s": night.seconds,
        "CPU s": night.cpu_seconds,
        "peak MiB": night.peak_mib,
    }


def _targets(ours: list[Measured]) -> list[Target]:
    works = [each.night.work for each in ours]
    cpu = [each.night.work_cpu for each in ours]
    largest, peak = ours[-1], max(each.night.peak_mib for each in ours)
    rate = largest.rows / largest.first_load.seconds
    name = f"night of {orders.ROWS_A_DAY:,} rows"
    return [
        Target(
            name=f"{name}: the dearest history against the cheapest",
            wanted=f"at most {MAX_RATIO:.2f}",
            measured=f"{max(cpu) / min(cpu):.2f} of CPU seconds ({max(works) / min(works):.2f} of walls)",
            met=max(cpu) <= MAX_RATIO * min(cpu),  # walls vary more with what else runs
        ),
        Target(
            name=f"{name}: work of {', '.join(STAGES)}",
            wanted=f"at most {MAX_WORK_SECONDS:.0f} s",
            measured=f"{max(works):.1f} s ({max(cpu):.1f} s of CPU)",
            met=max(works) <= MAX_WORK_SECONDS,
        ),
        Target(
            name=f"{name}: peak of memory",
            wanted=f"under {MAX_NIGHT_MIB} MiB",
            measured=f"{peak:,.0f} MiB",
            met=peak < MAX_NIGHT_MIB,
        ),
        Target(
            name=f"first load of {largest.rows:,} rows: peak of memory",
            wanted=f"under {MAX_FIRST_LOAD_MIB:,} MiB",
            measured=f"{largest.first_load.peak_mib:,.0f} MiB",
            met=largest.first_load.peak_mib < MAX_FIRST_LOAD_MIB,
        ),
        Target(
            name=f"first load of {largest.rows:,} rows",
            wanted=f"at least {MIN_ROWS_A_SECOND:,} rows/s",
            measured=f"{rate:,.0f} rows/s ({largest.rows / largest.first_load.work_cpu:,.0f} a CPU second)",
            met=rate >= MIN_ROWS_A_SECOND,
        ),
    ]


def _targets_of_whole(nights: WholeNights) -> list[Target]:
    wanted = (
        ("a night by make backfill, from the command to the manifest", nights.one, MAX_EMBEDDED_SECONDS),
        ("a night by the scheduler, from the trigger to the manifest", nights.scheduler, MAX_SCHEDULER_SECONDS),
        (f"{whole.BACKFILLED} nights by make backfill", nights.backfill, MAX_BACKFILL_SECONDS),
    )
    return [
        Target(name=name, wanted=f"at most {limit} s", measured=f"{seconds:.0f} s", met=seconds <= limit)
        for name, seconds, limit in wanted
    ]


def _notes(ours: list[Measured]) -> list[str]:
    spread = [
        max(_sum(night).work for night in each.nights) / statistics.median(_sum(night).work for night in each.nights)
        for each in ours
    ]
    return [
        f"the median of {len(ours[0].nights)} nights; the slowest took {max(spread):.2f} times as long",
        "work is the stage with all that it imports, seconds the whole process; the file's rewriting is not in it",
        f"peers make {NIGHTS_OF_PEERS} night, and where they hold all rows only as many as memory allows",
        f"the machine's mean load as this ended was {os.getloadavg()[2]:.1f}; CPU seconds depend less on it than walls",
    ]


def main() -> None:
    """Measure the stages on histories of the sizes that are named, and print what they took."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.night", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="+", type=int, metavar="ROWS", help="rows of history, a multiple of 100,000")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the repository whose stages are measured")
    parser.add_argument("--nights", type=int, default=NIGHTS, help="nights after the first load")
    parser.add_argument("--peers", nargs="*", default=(), metavar="NAME", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--peers-up-to", type=int, default=SIZES[-1], metavar="ROWS", help="no peer takes more rows")
    parser.add_argument("--whole", action="store_true", help="whole nights through the runs, too")
    parser.add_argument("--write", action="store_true", help="keep the result, and write the page of all results")
    given = parser.parse_args()
    tree = given.tree.resolve()
    result = run(
        tuple(given.sizes),
        tree,
        tuple(given.peers),
        given.nights,
        given.peers_up_to,
        with_whole_nights=given.whole,
    )
    if tree != ROOT:
        result = replace(result, notes=[*result.notes, f"of {given.tree}"])
    show(result)
    if given.write:
        write(result)
        write_page()


if __name__ == "__main__":
    main()
