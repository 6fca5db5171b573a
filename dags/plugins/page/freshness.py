"""Say in a word how a product stands: whether its nights come when they should, and what stops them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from dags.plugins.page.airflow_runs import SeenDag
from dags.plugins.page.words import ago, moment
from tasks import params
from tasks.monitoring.contracts import NightRecord

NO_NIGHT = "no night yet"
TIME_TO_MAKE = timedelta(hours=3)
"""A night that is due is not called late before."""


@dataclass(frozen=True)
class State:
    """How a product stands."""

    tone: str
    """good, warn, bad or idle: its colour."""
    word: str
    """The same in a word."""
    sentence: str
    """Why."""
    link: str | None = None
    """The run of predict__<product> that says more."""


def state_of(
    product: params.Product,
    night: NightRecord | None,
    dags: Mapping[str, SeenDag],
    now: datetime,
    *,
    damage: str | None = None,
) -> State:
    """Return how a product stands, of what is true of it the most pressing."""
    if damage:
        return State("bad", "unknown", "What its nights and models are cannot be read.")
    predict = dags.get("predict")
    last = predict.last if predict else None
    if last and last.state == "failed":
        began = f", which began {ago((now - last.began).total_seconds())}" if last.began else ""
        return State("bad", "stopped", f"The last run of predict__{product.name}{began}, has stopped.", last.name)
    if last and last.state in ("running", "queued"):
        return State("idle", "at work", f"A run of predict__{product.name} is {last.state}.", last.name)
    if night is None:
        return State("idle", NO_NIGHT, "A training comes first; a model that passes the gates predicts from then on.")
    if night.withdrawn:
        remedy = f"a new run of predict__{product.name} replaces it"
        return State("warn", "withdrawn", f"A person has withdrawn the night of {night.as_of}; {remedy}.")
    if product.last_as_of is not None:
        if night.as_of >= product.last_as_of:
            return State("good", "complete", f"Its data end on {product.source.ends}, and that night is published.")
        return State("idle", "to be continued", f"Its data go on until {product.source.ends}.")
    return _by_schedule(product, night.as_of, predict, now)


def _by_schedule(product: params.Product, last: date, predict: SeenDag | None, now: datetime) -> State:
    """Return whether the night is published that was due last."""
    age = (now.astimezone(ZoneInfo(product.time_zone)).date() - last).days
    if product.schedule.predict is None:
        return State("idle", "by hand", f"It has no schedule; its last night is {age:,} days old.")
    due = last_due(product.schedule.predict, product.time_zone, now)
    expected = due.date() - timedelta(days=1)
    at = moment(due.astimezone(UTC))
    if last >= expected:
        return State("good", "fresh", f"The night that was due at {at} is published.")
    if predict and predict.is_paused:
        return State("warn", "paused", f"The DAG is paused, and the night of {expected} is not made.")
    if now - due < TIME_TO_MAKE:
        return State("idle", "due", f"The night of {expected} has been due since {at}.")
    return State("bad", "late", f"The night of {expected} has been due since {at}, and is not published.")


def last_due(cron: str, time_zone: str, now: datetime) -> datetime:
    """Return when a schedule last said that a run is due, in its time zone.

    >>> last_due("0 2 * * *", "Europe/Berlin", datetime(2026, 7, 1, 0, 30, tzinfo=UTC)).isoformat()
    '2026-07-01T02:00:00+02:00'
    """
    from croniter import croniter

    return croniter(cron, now.astimezone(ZoneInfo(time_zone))).get_prev(datetime)
