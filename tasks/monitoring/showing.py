"""Bring up to date what the page of the products shows: see `tasks.monitoring.status`."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, timedelta

from tasks.monitoring.past import nights
from tasks.monitoring.status import LostMessage, ShownTraining, ShownVersion, Status, key_of_status, read_status
from tasks.publication.manifests import Damaged, decode_record, encode_checked
from tasks.publication.object_store import Store, StoredObject
from tasks.runtime.errors import UserError

DAYS_SHOWN = 92
"""A quarter."""
TRAININGS_SHOWN, VERSIONS_SHOWN = 26, 26


def show_nights(store: Store, product: str, as_of: date) -> None:
    """Let the page show the nights that are recorded, up to that of `as_of` or a later one that it shows already."""

    def follow(status: Status) -> Status:
        # Read after the status was: where another night is recorded meanwhile, this replacement is refused.
        last = max([as_of, *(each.as_of for each in status.nights)])
        recorded = list(nights(store, product, last - timedelta(days=DAYS_SHOWN - 1), last).values())
        shown = [replace(each, columns={}, not_scored={}, seconds={}) for each in recorded]
        return replace(status, nights=(*(replace(each, shadows=()) for each in shown[:-1]), *shown[-1:]))

    _update(store, product, follow)


def show_trainings(store: Store, product: str, look: Callable[[], Iterable[ShownTraining]]) -> None:
    """Let the page show the trainings that `look` finds on record."""

    def follow(status: Status) -> Status:
        known = sorted(look(), key=lambda each: (each.decided, each.run))
        return replace(status, trainings=tuple(known[-TRAININGS_SHOWN:]))

    _update(store, product, follow)


def show_versions(store: Store, product: str, look: Callable[[], tuple[tuple[ShownVersion, ...], str]]) -> None:
    """Let the page show the versions that `look` finds, and what it says of a hold."""

    def follow(status: Status) -> Status:
        versions, held = look()
        return replace(status, versions=versions[-VERSIONS_SHOWN:], held=held)

    _update(store, product, follow)


def show_lost(store: Store, product: str, lost: tuple[LostMessage, ...]) -> None:
    """Let the page show the messages that may not have arrived."""
    _update(store, product, lambda status: replace(status, lost=lost))


def _update(store: Store, product: str, follow: Callable[[Status], Status]) -> None:
    """Replace the status by what follows from it; nothing is written where nothing changes."""

    def change(current: StoredObject | None) -> bytes | None:
        after = follow(_known(store, product, current))
        if current is None and after == Status(product=product):
            return None
        body = encode_checked(after.to_json())
        return None if current and current.body == body else body

    store.update(key_of_status(product), change)


def _known(store: Store, product: str, current: StoredObject | None) -> Status:
    """Return the status that an object holds, or an empty one in place of one that lies damaged."""
    if current is None:
        return Status(product=product)
    try:
        return decode_record(current, Status)
    except (Damaged, UserError):
        try:  # it may have arrived damaged, and lie there whole
            return read_status(store, product) or Status(product=product)
        except UserError:
            return Status(product=product)
