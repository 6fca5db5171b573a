"""Send each message once by each channel, whoever tries, and let nothing that goes wrong stop the work that tells it.

Before a try its channel is claimed in the store by a conditional PUT, and after it the outcome is written there: of two
watchers, or of eight shards that fail together, one sends. `deliver_waiting` tries again, at most five times, where a
receiver has surely not taken it. **No message is sent twice**: one whose process was killed between claim and outcome,
or whose receiver did not answer, may have arrived and is not tried again. Where that leaves a message that nobody is
known to have had, the log says so at each look, the page of the products shows it, and `tasks.watch` holds back its
heartbeat for an hour, so that an outside monitor calls somebody: the alarm is not lost without a word.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.monitoring.messages.channels import Channel, Failure, declared_channels, reason_of, send_at_once
from tasks.monitoring.messages.contracts import MESSAGES, Delivery, Message, Outgoing
from tasks.params import Product
from tasks.publication.manifests import decode_record, encode_checked, read_checked
from tasks.publication.object_store import Store, StoredObject
from tasks.runtime import faults
from tasks.runtime.settings import settings

WAITS = timedelta(days=1)
"""A message that no receiver has taken for so long is not tried, and not shown, any more."""
MARKS = "messages"
"""Below LAMPLIGHTER_HOME: a file for each message and channel that was sent while the store did not answer."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a look at the waiting messages has come to."""

    n_tried: int = 0
    """Messages that were sent, or tried."""
    lost: tuple[Outgoing, ...] = ()
    """Those of the last day that no channel is known to have taken, and that none will be tried with any more."""


def tell(product: Product, message: Message) -> None:
    """Send a message by every channel that has not had it. Never raises; says in the log what became of it.

    Where the store does not answer, which is a reason to be told, this machine sends it once.
    """
    try:
        channels = declared_channels()
    except Exception as error:
        _say(message, f"not sent: {reason_of(error)}")
        return
    if not channels:
        return
    store = Store(product.publish.url)
    try:
        claimed = claim(store, message, channels)
    except Exception as error:
        _tell_without_store(message, channels, error)
        return
    try:
        deliver(store, message, {name: channels[name] for name in claimed})
    except Exception as error:
        _say(message, f"what became of it could not be kept ({type(error).__name__}); it is not sent again")


def _tell_without_store(message: Message, channels: Mapping[str, Channel], reason: Exception) -> None:
    """Send a message by the channels that this machine has not sent it by, as far as its disk can say."""
    try:
        claimed = list(_marked_now(message, channels))
    except OSError as error:
        _say(message, f"not sent: neither store nor disk takes a mark of it ({reason_of(error)})")
        return
    _say(message, f"the store has no mark of it ({type(reason).__name__}); other machines may send it too")
    for name, failure in _send(message, {name: channels[name] for name in claimed}).items():
        if failure.is_refusal:
            _mark(message, name).unlink(missing_ok=True)


def _marked_now(message: Message, channels: Collection[str]) -> Iterator[str]:
    """Yield the channels of which this machine had no mark, each with a mark from now on. Raises OSError."""
    folder, oldest = settings().home / MARKS, (datetime.now(UTC) - 2 * WAITS).timestamp()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        with suppress(FileNotFoundError):  # another process has removed it
            if old.stat().st_mtime < oldest:
                old.unlink()
    for name in channels:
        with suppress(FileExistsError):
            _mark(message, name).open("x").close()
            yield name


def _mark(message: Message, channel: str) -> Path:
    return settings().home / MARKS / f"{message.identity}.{channel}"


def leave(product: Product, message: Message) -> None:
    """Keep a message for `deliver_waiting` to send, from where no channel need be declared, such as a person's shell.

    Raises TransientError where the store does not answer.
    """
    Store(product.publish.url).replace(message.key, _encoded(message, {}), None)


def deliver_waiting(product: Product, now: datetime | None = None) -> Looked:
    """Try the messages again that some channel has surely not taken; say which may be lost.

    Raises UserError for a setting that is none, and TransientError where the store does not answer.
    """
    channels = declared_channels()
    if not channels:
        return Looked()
    store, moment, n_tried, lost = Store(product.publish.url), now or datetime.now(UTC), 0, list[Outgoing]()
    for key, written in store.list(f"{product.name}/{MESSAGES}/").items():
        if written < moment - WAITS:
            continue
        outgoing, _ = read_checked(store, key, Outgoing)
        if outgoing is None:
            continue
        claimed = claim(store, outgoing.message, channels, moment)
        deliver(store, outgoing.message, {name: channels[name] for name in claimed})
        n_tried += bool(claimed)
        for name, delivery in outgoing.deliveries.items():
            if delivery.is_unknown(moment):
                _say(outgoing.message, f"whether {name} has taken it is not known, so it is not sent again")
        lost += [outgoing] * outgoing.is_lost(moment)
    return Looked(n_tried=n_tried, lost=tuple(lost))


def claim(store: Store, message: Message, channels: Mapping[str, Channel], now: datetime | None = None) -> list[str]:
    """Begin a try in the store; return the channels that are the caller's to send by.

    Raises TransientError where the store does not answer.
    """
    moment, claimed = now or datetime.now(UTC), list[str]()

    def begin(current: StoredObject | None) -> bytes | None:
        known = decode_record(current, Outgoing).deliveries if current else {}
        waiting = [name for name in channels if name not in known or known[name].may_begin(moment)]
        claimed[:] = [name for name in waiting if not _mark(message, name).exists()]
        if not claimed:
            return None
        begun = {name: Delivery(tries=known[name].tries + 1 if name in known else 1, begun=moment) for name in claimed}
        return _encoded(message, {**known, **begun})

    store.update(message.key, begin)
    return claimed


def deliver(store: Store, message: Message, channels: Mapping[str, Channel]) -> None:
    """Send by channels that were claimed, and keep which of them have taken it. Raises as the store does."""
    if not channels:
        return
    faults.failpoint("tell: the message is claimed")
    failures = _send(message, channels)
    faults.failpoint("tell: the message is sent")

    def settle(current: StoredObject | None) -> bytes | None:
        known = decode_record(current, Outgoing).deliveries if current else {}
        refused = {name for name, failure in failures.items() if failure.is_refusal}
        ended = {
            name: replace(known[name], is_sent=name not in failures, is_refused=name in refused)
            for name in channels
            if name in known and (name in refused or name not in failures)
        }
        return _encoded(message, {**known, **ended}) if ended else None

    store.update(message.key, settle)


def _send(message: Message, channels: Mapping[str, Channel]) -> dict[str, Failure]:
    failures = send_at_once(channels, message)
    for name in channels:
        failure = failures.get(name)
        if failure is None:
            _say(message, f"sent by {name}")
        else:
            taken = f"{name} has not taken it" if failure.is_refusal else f"whether {name} has taken it is not known"
            _say(message, f"{taken}: {failure.reason}")
    return failures


def _encoded(message: Message, deliveries: Mapping[str, Delivery]) -> bytes:
    outgoing = Outgoing(message=message, deliveries=deliveries, writer=uuid.uuid4().hex)
    return encode_checked(outgoing.to_json())


def _say(message: Message, line: str) -> None:
    print(f"message {message.kind} ({message.product}, {message.about}): {line}", flush=True)
