"""Tell which night must be there by now, from the schedule alone, and whether it is."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tasks.monitoring.messages.contracts import Message
from tasks.monitoring.messages.wording import night_late
from tasks.params import Product
from tasks.publication.manifests import NightPlace, current_manifest, latest
from tasks.publication.object_store import Store


@dataclass(frozen=True, kw_only=True)
class Due:
    """A night that must be there."""

    as_of: date
    """The night's date."""
    by: datetime
    """Since when it must be there, on the clocks of the product's time zone."""


def due_night(product: Product, now: datetime) -> Due | None:
    """Return the newest night that must be there by `schedule.ready_by`; None where there is none.

    The run that is due before that hour makes it, and is of the day before its own, as `tasks.runs.dates` has it. `now`
    has a time zone.
    """
    from croniter import croniter

    schedule = product.schedule
    if schedule.ready_by is None or schedule.predict is None:
        return None
    clock = now.astimezone(ZoneInfo(product.time_zone)).replace(tzinfo=None)
    by = datetime.combine(clock.date(), time.fromisoformat(schedule.ready_by))
    if by > clock:
        by -= timedelta(days=1)
    due = croniter(schedule.predict, by + timedelta(seconds=1)).get_prev(datetime)
    by = datetime.combine(due.date(), by.time())
    if by < due:
        by += timedelta(days=1)
    as_of = due.date() - timedelta(days=1)
    if product.last_as_of and as_of > product.last_as_of:
        return None
    return Due(as_of=as_of, by=by)


def late_message(product: Product, now: datetime) -> Message | None:
    """Return the message about a night that must be there and is not; None where all is well.

    A night that a person has withdrawn is not late. Reads the manifest and the pointer. Raises UserError where an
    object is damaged, TransientError where the store does not answer.
    """
    due = due_night(product, now)
    if due is None:
        return None
    store = Store(product.publish.url)
    if current_manifest(NightPlace(store=store, product=product.name, as_of=due.as_of)) is not None:
        return None
    pointer = latest(store, product.name)
    return night_late(product, due.as_of, due.by, pointer.dt if pointer else None)
