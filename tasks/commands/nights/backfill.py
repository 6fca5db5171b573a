"""Make the nights that are missing, in order, each as of its own date.

    make backfill PRODUCT=flight-delays FROM=2013-06-20 TO=2013-06-30

The store's manifests say what is missing. A night goes through the stages of predict__<product> in one go, and needs no
Airflow; two are made at a time, each in a process of its own. The source is asked once, as of the last night: raw data
are a log of what became known when, of which each night sees what was known on its own date. A product without `time`
asks it each night, since the date of its rows is that of the run that first saw them.
Each date has a run of its own, the same one whenever it is tried again: killed anywhere and started again, a backfill
goes on with what is missing. A night that is stopped does not keep the later ones from being made, since each is judged
by itself; what waiting may mend is tried again, and then ends the backfill.
"""

import multiprocessing
import os
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from datetime import date, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from tasks import params
from tasks.commands.embedded.revision import declared_product, print_uncommitted
from tasks.commands.embedded.store import enter_with_store
from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.runs.experiments import Run
from tasks.runs.programs import run_environment
from tasks.runs.readiness import is_ready
from tasks.runs.steps import night, open_run, parse_as_of, step
from tasks.runs.workspace import saved_commit
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.forks.forked import fork_server
from tasks.runtime.settings import settings

TRIES, FIRST_WAIT_SECONDS = 4, 60
"""As often and as late as a task of the DAG is tried again."""
REASON_LENGTH = 90


@dataclass(frozen=True, kw_only=True)
class Line:
    """What stands of one night: a line of the table."""

    as_of: date
    """The night's date."""
    state: str
    """published, missing, stopped or withdrawn."""
    night: Manifest | None = None
    """The night's manifest, where it is published."""
    reason: str = ""
    """Why it was not made, or not made anew."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the line's cells as they are shown."""
        rows, model = (f"{self.night.rows.published:,}", self.night.model.version or "") if self.night else ("", "")
        return self.as_of.isoformat(), self.state, rows, model, self.reason


def backfill(product: str, first: date, last: date, *, force: bool = False, dry: bool = False, at_once: int = 2) -> str:
    """Make the missing nights from `first` to `last`, all of them with `force`; return the table of what stands.

    So many are made `at_once`, each in a process of its own; a single one is made in this process.
    Raises UserError where nights were stopped, TransientError where the rest must wait; the table is printed before.
    """
    described = declared_product(product)
    if first > last:
        raise UserError(f"FROM must not be later than TO, got {first} and {last}; swap them")
    for day in (first, last):
        parse_as_of(day.isoformat())
    enter_with_store()
    if dry:
        days, find = days_of(first, last), night_finder(described)
        return table([stands(day, find(day)) for day in days])
    with fork_server(settings().home / f"fork-server-{os.getpid()}.socket", run_environment()):
        return make_missing(described, days_of(first, last), force=force, at_once=at_once)


def days_of(first: date, last: date) -> list[date]:
    """Return the days of a range, in order."""
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]


def night_finder(product: params.Product) -> Callable[[date], Manifest | None]:
    """Return the function that finds what the store has of a night."""
    store = Store(product.publish.url)
    return lambda day: manifests.current_manifest(NightPlace(store=store, product=product.name, as_of=day))


def make_missing(described: params.Product, days: list[date], *, force: bool, at_once: int) -> str:
    """Make the nights of the days that are missing, all of them with `force`. Raises as `backfill` does."""
    product, find = described.name, night_finder(described)
    print_uncommitted()
    # The same name for every try: what a run has saved already is found, and not made again.
    unique = f"backfill {uuid4().hex}" if force else "backfill"
    missing = [day for day in days if force or not find(day)]
    raw_commit = raw_data_of(product, missing[-1], unique) if described.time and len(missing) > 1 else None

    def make(day: date) -> None:
        asked = Asked(
            product=product,
            as_of=day,
            unique=unique,
            raw_commit=raw_commit,
            waits=described.schedule.ready is not None,
            tidies=day == days[-1],
        )
        make_apart(asked) if at_once > 1 and len(missing) > 1 else make_night(asked)

    lines: list[Line] = []
    try:
        for line in fill(days, find, make, force=force, at_once=at_once):
            lines.append(line)
    finally:
        done = {line.as_of for line in lines}
        print("\n" + table([*lines, *(stands(day, find(day)) for day in days if day not in done)]), flush=True)
    stopped = [line for line in lines if line.state == "stopped"]
    if stopped:
        raise UserError(
            f"{len(stopped)} of {len(days)} nights were stopped, the first of them {stopped[0].as_of}; the lines above "
            "say why: mend that, and run the same command again"
        )
    return f"nothing is missing from {days[0]} to {days[-1]}"


def fill(
    days: list[date],
    find: Callable[[date], Manifest | None],
    make: Callable[[date], None],
    *,
    force: bool,
    at_once: int = 1,
) -> Iterator[Line]:
    """Make the nights that `find` does not find, all with `force`, in the order of the days; yield what stands of each.

    Raises TransientError as `make` does: the days after it would meet the same.
    """
    started = time.monotonic()

    def line_of(number: int, day: date) -> Line:
        night = find(day)  # only now: another backfill may have made it meanwhile
        if night and not force:
            return stands(day, night)
        print(f"\n{day}, night {number} of {len(days)}", flush=True)
        try:
            make(day)
        except UserError as error:
            print(f"{day} stopped:\n{error}", flush=True)
            return Line(as_of=day, state="stopped", night=find(day), reason=shortened(str(error)))
        line = stands(day, find(day))
        minutes = (time.monotonic() - started) / number * (len(days) - number) / 60
        print(f"{' '.join(line.cells).strip()} ({minutes:.0f} min left at most)", flush=True)
        return line

    rest, waiting = iter(enumerate(days, 1)), deque[Future[Line]]()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            while True:
                while len(waiting) < at_once and (following := next(rest, None)):
                    waiting.append(pool.submit(line_of, *following))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A night that is to be made."""

    product: str
    """The product's name."""
    as_of: date
    """The night's date."""
    unique: str
    """What distinguishes its run from others of the date."""
    raw_commit: str | None = None
    """The experiment whose raw data it carries on; see `tasks.runs.experiments.Run`."""
    waits: bool = False
    """Whether the product's nights wait for late data."""
    tidies: bool = True
    """Whether parts that no reader needs any more are deleted afterwards."""


def make_apart(asked: Asked) -> None:
    """Make a night in a process of its own, and print what that printed when it has ended. Raises as `make_night` does.

    The process is forked from a server that has imported what it needs and runs no threads.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = context.Process(target=_make_and_tell, args=(asked, log, sender))
        process.start()
        sender.close()
        try:
            error: Exception | None = receiver.recv()
        except EOFError:
            error = TransientError(f"the night of {asked.as_of} was killed")
        process.join()
        print(log.read_text("utf-8") if log.exists() else "", end="", flush=True)
    if error:
        raise error


def _make_and_tell(asked: Asked, log: Path, sender: Connection) -> None:
    """Make a night, with all that it prints in a file, and send the error that stopped it, or None."""
    with log.open("w", encoding="utf-8") as out, redirect_stdout(out), redirect_stderr(out):
        try:
            make_night(asked)
        except (UserError, TransientError) as error:  # one of a class of its own could not be sent
            sender.send(UserError(str(error)) if isinstance(error, UserError) else TransientError(str(error)))
        except Exception as error:
            traceback.print_exc(file=out)
            sender.send(RuntimeError(repr(error)))
        else:
            sender.send(None)


def _print_wait(state: RetryCallState) -> None:
    assert state.outcome is not None
    print(f"this may pass; waiting before another try: {state.outcome.exception()}", flush=True)


tried_again = retry(
    retry=retry_if_exception_type(TransientError),
    stop=stop_after_attempt(TRIES),
    wait=wait_exponential(FIRST_WAIT_SECONDS),
    reraise=True,
    before_sleep=_print_wait,
)
"""Do again what waiting may mend, as often and as late as a task of the DAG."""


@tried_again
def make_night(asked: Asked) -> Run:
    """Run the steps of one night, as predict__<product> does; return its run.

    Raises UserError, and TransientError after some tries.
    """
    run = replace(
        open_run(asked.product, "predict", asked.as_of.isoformat(), asked.unique), raw_commit=asked.raw_commit
    )
    if asked.waits and not is_ready(run):
        raise UserError(
            f"the night of {asked.as_of} is waited for still, as schedule.ready says: its own run makes it; try later"
        )
    night(run)
    if asked.tidies:
        step(run, "gc")
    return run


def raw_data_of(product: str, as_of: date, unique: str) -> str | None:
    """Ask the source once for all nights up to `as_of`: the commit with their raw data; None where that is stopped."""
    try:
        run = open_run(product, "predict", as_of.isoformat(), unique)
        step(run, "ingest")
    except UserError as error:  # each night says so where it is true of it as well
        print(f"the source is asked for each night by itself, since {shortened(str(error))}", flush=True)
        return None
    return saved_commit(run)


def stands(day: date, night: Manifest | None) -> Line:
    """Return what the store holds of a night; one that a person has withdrawn is not missing."""
    if night and night.withdrawn:
        reason = shortened(f"{night.withdrawn.person}: {night.withdrawn.reason}")
        return Line(as_of=day, state="withdrawn", night=night, reason=reason)
    return Line(as_of=day, state="published" if night else "missing", night=night)


def table(lines: list[Line]) -> str:
    """Return the lines as a table for a person to read.

    >>> print(table([Line(as_of=date(2013, 6, 30), state="missing")]))
    as_of       state    rows  model  reason
    2013-06-30  missing
    """
    rows = [("as_of", "state", "rows", "model", "reason"), *(line.cells for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in shown)


def shortened(message: str, most: int = REASON_LENGTH) -> str:
    """Return the beginning of a message on one line, of at most so many characters.

    >>> shortened("validate stopped:\\n0 rows, and 3.7 to 63 may be")
    'validate stopped: 0 rows, and 3.7 to 63 may be'
    """
    line = " ".join(message.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
