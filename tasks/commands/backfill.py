"""Make the nights that are missing, in order, each as of its own date.

    make backfill PRODUCT=flight-delays FROM=2013-06-20 TO=2013-06-30

The store's manifests say what is missing. A night goes through the steps of predict__<product>, in this process, and
needs no Airflow. Each date has a run of its own, the same one whenever it is tried again: killed anywhere and started
again, a backfill goes on with what is missing. A night that is stopped does not keep the later ones from being made,
since each is judged by itself; what waiting may mend is tried again, and then ends the backfill.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import uuid4

from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from tasks.commands.embedded.revision import declared_product, print_uncommitted
from tasks.commands.embedded.store import enter_with_store
from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.runs.readiness import is_ready
from tasks.runs.steps import night, open_run, parse_as_of, step
from tasks.runtime.errors import TransientError, UserError

TRIES, FIRST_WAIT_SECONDS = 3, 60
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


def backfill(product: str, first: date, last: date, *, force: bool = False, dry: bool = False) -> str:
    """Make the missing nights from `first` to `last`, all of them with `force`; return the table of what stands.

    Raises UserError where nights were stopped, TransientError where the rest must wait; the table is printed before.
    """
    described = declared_product(product)
    if first > last:
        raise UserError(f"FROM must not be later than TO, got {first} and {last}; swap them")
    for day in (first, last):
        parse_as_of(day.isoformat())
    enter_with_store()
    store = Store(described.publish.url)

    def find(day: date) -> Manifest | None:
        return manifests.current_manifest(NightPlace(store=store, product=product, as_of=day))

    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    if dry:
        return table([stands(day, find(day)) for day in days])
    print_uncommitted()
    # The same name for every try: what a run has saved already is found, and not made again.
    unique = f"backfill {uuid4().hex}" if force else "backfill"
    lines: list[Line] = []
    try:
        for line in fill(days, find, lambda day: make_night(product, day, unique), force=force):
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
    return f"nothing is missing from {first} to {last}"


def fill(
    days: list[date], find: Callable[[date], Manifest | None], make: Callable[[date], None], *, force: bool
) -> Iterator[Line]:
    """Make the nights that `find` does not find, all with `force`, in the order of the days; yield what stands of each.

    Raises TransientError as `make` does: the days after it would meet the same.
    """
    started, n_made = time.monotonic(), 0
    for number, day in enumerate(days, 1):
        night = find(day)  # only now: another backfill may have made it meanwhile
        if night and not force:
            yield stands(day, night)
            continue
        print(f"\n{day}, night {number} of {len(days)}", flush=True)
        try:
            make(day)
        except UserError as error:
            print(f"{day} stopped:\n{error}", flush=True)
            yield Line(as_of=day, state="stopped", night=find(day), reason=shortened(str(error)))
            continue
        n_made += 1
        seconds = (time.monotonic() - started) / n_made
        line = stands(day, find(day))
        print(
            f"{' '.join(line.cells).strip()} ({seconds * (len(days) - number) / 60:.0f} min left at most)", flush=True
        )
        yield line


def _print_wait(state: RetryCallState) -> None:
    assert state.outcome is not None
    print(f"this may pass; waiting before another try: {state.outcome.exception()}", flush=True)


@retry(
    retry=retry_if_exception_type(TransientError),
    stop=stop_after_attempt(TRIES),
    wait=wait_exponential(FIRST_WAIT_SECONDS),
    reraise=True,
    before_sleep=_print_wait,
)
def make_night(product: str, day: date, unique: str) -> None:
    """Run the steps of one night, as predict__<product> does. Raises UserError, and TransientError after some tries."""
    run = open_run(product, "predict", day.isoformat(), unique)
    if not is_ready(run):
        raise UserError(
            f"the night of {day} is waited for still, as schedule.ready says: its own run makes it; try later"
        )
    night(run)
    step(run, "gc")


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


def shortened(message: str) -> str:
    """Return the beginning of a message on one line.

    >>> shortened("validate stopped:\\n0 rows, and 3.7 to 63 may be")
    'validate stopped: 0 rows, and 3.7 to 63 may be'
    """
    line = " ".join(message.split())
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 1].rstrip() + "…"
