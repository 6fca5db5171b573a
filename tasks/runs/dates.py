"""Tell which date a run of Airflow's is of: one rule, for every kind of run and every setting of Airflow.

A run is of the as_of that its configuration gives; else of last night, the last day that had ended, in the product's
time zone, at the moment that the run itself names: the end of its data interval, a logical date outside of that
interval, or the time from which it may run. A run of a backfill is of the very day of its logical date, whatever its
form proposes: a person who fills the 2nd to the 8th means these nights. The default of a form is for people: a run that
Airflow makes by itself has no configuration. What else Airflow calls the run (scheduled, manual, ...) decides nothing,
and neither does params.yaml, whose as_of is the clock of `dvc repro` alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from tasks.runtime.errors import UserError

BACKFILL = "backfill"
"""What Airflow calls a run that it makes of the dates that a person picks."""
BACKFILL_OF_RUN = "backfill"
"""In the configuration of such a run: which backfill it belongs to; `dags/plugins` writes it, and no person."""
REMEDY = "trigger the run with an as_of, such as 2013-06-30"


class DagRun(Protocol):
    """What a run of Airflow's says of its time; any of it may be missing."""

    logical_date: datetime | None
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    run_after: datetime | None
    run_type: str
    conf: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """A backfill of Airflow's, all of whose nights share what the source is asked for."""

    number: int
    """Airflow's number of it."""
    until: str
    """The as_of of its last night."""


def backfill_of(conf: Mapping[str, Any] | None, dag_run: DagRun) -> Backfill | None:
    """Return the backfill that a run belongs to; None where it belongs to none, or the plugin has not said so."""
    named = (conf or {}).get(BACKFILL_OF_RUN)
    return Backfill(**named) if dag_run.run_type == BACKFILL and named else None


@dataclass(frozen=True)
class RunDate:
    """The as_of of a run, and why it is that."""

    as_of: str
    reason: str

    def __str__(self) -> str:
        """Return the line that stands first in a run's log and in its note."""
        return f"as_of {self.as_of} ({self.reason})"


def run_date(dag_run: DagRun, time_zone: str) -> RunDate:
    """Return the date of a run. Raises UserError where none can be told."""
    given = (dag_run.conf or {}).get("as_of")
    if given is not None and dag_run.run_type != BACKFILL:
        return RunDate(str(given), "as given")
    moment = moment_of(dag_run)
    local = moment.astimezone(ZoneInfo(time_zone))
    if dag_run.run_type == BACKFILL:
        return RunDate(local.date().isoformat(), f"the day of the backfill's {local:%Y-%m-%d %H:%M} in {time_zone}")
    last_night = local.date() - timedelta(days=1)  # not of the moment: a day may have 23 hours or 25
    return RunDate(last_night.isoformat(), f"the day before {local:%Y-%m-%d %H:%M} in {time_zone}")


def moment_of(dag_run: DagRun) -> datetime:
    """Return the moment that a run stands for, whenever its tasks run. Raises UserError where it names none.

    A logical date within the data interval is the interval's start or end, and the run was due at the end. One outside
    of it was typed by a person: Airflow then makes the interval of the time of typing.
    """
    start, end, logical = dag_run.data_interval_start, dag_run.data_interval_end, dag_run.logical_date
    due = start and end and (logical is None or start <= logical <= end)
    moment = end if due else logical or end or dag_run.run_after
    if moment is None:
        raise UserError(
            f"a run must have an as_of, a data interval, a logical date or a run_after, and it has none; {REMEDY}"
        )
    if moment.tzinfo is None:
        raise UserError(f"the time of a run must have a time zone, got {moment.isoformat()}; {REMEDY}")
    return moment
