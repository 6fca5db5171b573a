"""Announce each version of a night at least once, whoever dies when; nothing that goes wrong stops a night.

Before a manifest may move its date is noted in the outbox (`expect`); after it has moved, the lines of the versions
that were not announced yet are made from the manifests, sent in the order of their generations, and marked as taken
(`announce`). A publisher that dies in between leaves the note, by which its retry, the next run of the date or the
watcher (`announce_waiting`) finds what to send. A receiver that is down is tried again at each look, oldest date first,
until it takes the line: nothing is given up. A receiver whose answer is lost, or a publisher that was killed before its
mark, means that a line comes twice, with the same id.

Nights of before a product declares `publish.announce` were noted by nobody, and are not announced.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from tasks.monitoring.announcements.contracts import OUTBOX, Announcement, Outbox, Waiting, announcement_of
from tasks.monitoring.announcements.receivers import receiver_of
from tasks.monitoring.messages.channels import reason_of, send_at_once
from tasks.monitoring.messages.contracts import CLAIM
from tasks.params import Product
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import (
    HISTORY,
    Damaged,
    NightPlace,
    current_manifest,
    decode_record,
    encode_checked,
    read_checked,
)
from tasks.publication.night_file import written_by
from tasks.publication.object_store import Store, StoredObject
from tasks.publication.store_client import MAX_REQUEST_ATTEMPTS
from tasks.runtime import faults
from tasks.runtime.errors import TransientError, UserError

LONGEST_RUN = timedelta(days=2)
"""No run takes so long: who noted a date before that is about to publish nothing any more."""
LOOK_SECONDS = 60.0
"""A watcher begins no further line after so long, and goes on at its next look."""


def expect(product: Product, place: NightPlace, writer: str) -> None:
    """Note, before a manifest may move, that its date may have something to announce; `writer` names who moves it.

    What lies in the outbox damaged, or is of another version, keeps no night back. Raises TransientError where the
    store does not answer, as publishing does then.
    """
    if product.publish.announce is None:
        return

    def note(outbox: Outbox) -> Outbox:
        known = outbox.dates.get(place.as_of)
        if known is None:
            manifest = current_manifest(place)
            known = Waiting(announced=written_by(manifest) if manifest else 0, writers={})
        noted = replace(known, writers={**known.writers, writer: datetime.now(UTC)})
        return replace(outbox, dates={**outbox.dates, place.as_of: noted})

    try:
        _change(place.store, product.name, note)
    except (UserError, Damaged) as error:
        _say(product, f"should the publisher be killed, no line follows: {error}")
    faults.failpoint("announce: the date is noted")


def announce(product: Product, place: NightPlace, writer: str) -> None:
    """Send the lines that a night's receiver has not had. Never raises; says in the log what became of them."""
    if product.publish.announce is None:
        return
    try:
        waiting = _read(place.store, product.name).dates.get(place.as_of)
        lines = lines_after(place, waiting.announced if waiting else None)
        if _send(product, place, lines):
            _settle(product, place, lines[-1].generation if lines else 0, lambda name, _: name == writer)
    except Exception as error:
        reason = str(error) if isinstance(error, TransientError) else reason_of(error)
        _say(product, f"the night of {place.as_of} is announced later: {reason}")


def announce_waiting(product: Product, now: datetime | None = None) -> int:
    """Send what could not be sent before; return how many dates still wait.

    Raises UserError for a setting that is none, and TransientError where the store does not answer.
    """
    store, moment = Store(product.publish.url), now or datetime.now(UTC)
    outbox = _read(store, product.name) if product.publish.announce else Outbox()
    if not outbox.dates or not _begin(store, product.name, moment):
        return 0
    deadline, n_waiting, is_up = time.monotonic() + LOOK_SECONDS, 0, True
    for as_of, waiting in sorted(outbox.dates.items()):
        place = NightPlace(store=store, product=product.name, as_of=as_of)
        if any(since > moment - CLAIM for since in waiting.writers.values()):
            continue  # its publisher is at it, or was killed just now
        lines = lines_after(place, waiting.announced)
        is_taken = not lines or (is_up and time.monotonic() < deadline and _send(product, place, lines))
        is_up = is_up and is_taken
        if is_taken:
            last = lines[-1].generation if lines else 0
            _settle(product, place, last, lambda _, since: since < moment - LONGEST_RUN)
        else:
            n_waiting += 1
    return n_waiting


def lines_after(place: NightPlace, announced: int | None) -> list[Announcement]:
    """Return the lines of the versions of a night above a generation, in order; of the newest alone where it is None.

    A version that another one has replaced before it was announced has its line too.
    """
    current, stored = read_checked(place.store, place.manifest, Manifest)
    if current is None or stored is None:
        return []
    newest = announcement_of(place, current, stored)
    if announced is None or newest.generation <= announced:
        return [newest] if announced is None else []
    found = {newest.generation: newest}
    for key in place.store.list(f"{place.folder}/{HISTORY}/"):
        # The name is the generation of whoever found the version last: none below wrote a later one.
        if int(key.rpartition("/")[2].removesuffix(".json")) > announced:
            manifest, kept = read_checked(place.store, key, Manifest)
            if manifest and kept and written_by(manifest) > announced:
                found.setdefault(written_by(manifest), announcement_of(place, manifest, kept))
    return [found[generation] for generation in sorted(found)]


def _send(product: Product, place: NightPlace, lines: list[Announcement]) -> bool:
    """Send lines until one is not taken; return whether all were. What was taken is marked after each."""
    if not lines:
        return True
    name, receiver = receiver_of(product)
    for line in lines:
        faults.failpoint("announce: a line is about to be sent")
        failures = send_at_once({name: receiver}, line)
        if failures:
            _say(product, f"{line.id} ({line.kind}) waits: {name} has not taken it: {failures[name]}")
            return False
        faults.failpoint("announce: a line is sent")
        _say(product, f"{line.id} ({line.kind}) sent by {name}")
        if line is not lines[-1]:
            _settle(product, place, line.generation, lambda _name, _since: False)
    return True


def _settle(product: Product, place: NightPlace, taken: int, is_done: Callable[[str, datetime], bool]) -> None:
    """Mark lines up to a generation as taken, and forget writers that move no manifest any more."""

    def mark(outbox: Outbox) -> Outbox:
        known = outbox.dates.get(place.as_of)
        if known is None:
            return outbox
        writers = {name: since for name, since in known.writers.items() if not is_done(name, since)}
        left = replace(known, announced=max(known.announced, taken), writers=writers)
        # Whoever else has written a version has noted itself before, and stays noted until its line was taken.
        dates = {**outbox.dates, place.as_of: left}
        return replace(outbox, dates=dates if writers else {day: dates[day] for day in dates if day != place.as_of})

    _change(place.store, product.name, mark)


def _begin(store: Store, product: str, now: datetime) -> bool:
    """Note that a watcher begins to send; return False where another one has, just now."""
    has_begun = True

    def begin(outbox: Outbox) -> Outbox:
        nonlocal has_begun
        has_begun = outbox.looked is None or now >= outbox.looked + CLAIM
        return replace(outbox, looked=now) if has_begun else outbox

    _change(store, product, begin)
    return has_begun


def _change(store: Store, product: str, change: Callable[[Outbox], Outbox]) -> None:
    def changed(current: StoredObject | None) -> bytes | None:
        outbox = decode_record(current, Outbox) if current else Outbox()
        new = change(outbox)
        return None if new == outbox else encode_checked(replace(new, writer=uuid.uuid4().hex).to_json())

    is_damaged, stop = retry_if_exception_type(Damaged), stop_after_attempt(MAX_REQUEST_ATTEMPTS)
    Retrying(retry=is_damaged, stop=stop, reraise=True)(store.update, f"{product}/{OUTBOX}", changed)


def _read(store: Store, product: str) -> Outbox:
    return read_checked(store, f"{product}/{OUTBOX}", Outbox)[0] or Outbox()


def _say(product: Product, line: str) -> None:
    print(f"announcement ({product.name}): {line}", flush=True)
