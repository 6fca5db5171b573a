"""Send each message once by each channel, whoever tries, and let nothing that goes wrong stop the work that tells it.

Before a try its channel is claimed in the store by a conditional PUT, and after it the outcome is written there: of two
watchers, or of eight shards that fail together, one sends. Where a receiver did not take it, `deliver_waiting` tries
again, as it does where a process died between claim and outcome: **at least once**, since an alarm that is lost costs
more than one that comes twice. A receiver that has taken a message and whose answer was lost gets it again, with the
same identity, at most five times.
"""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tasks.monitoring.messages.channels import Channel, declared_channels, reason_of, send_at_once
from tasks.monitoring.messages.contracts import MESSAGES, Delivery, Message, Outgoing
from tasks.params import Product
from tasks.publication.manifests import decode_record, encode_checked, read_checked
from tasks.publication.object_store import Store, StoredObject
from tasks.runtime import faults

WAITS = timedelta(days=1)
"""A message that no receiver has taken for so long is not tried any more."""


def tell(product: Product, message: Message) -> None:
    """Send a message by every channel that has not had it. Never raises; says in the log what became of it.

    Where the store does not answer, which is a reason to be told, it is sent without a claim and may come twice.
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
        _say(message, f"the store has no mark of it ({type(error).__name__}); it may come twice")
        _send(message, channels)
        return
    try:
        deliver(store, message, {name: channels[name] for name in claimed})
    except Exception as error:
        _say(message, f"what became of it could not be kept ({type(error).__name__}); it may come twice")


def leave(product: Product, message: Message) -> None:
    """Keep a message for `deliver_waiting` to send, from where no channel need be declared, such as a person's shell.

    Raises TransientError where the store does not answer.
    """
    Store(product.publish.url).replace(message.key, _encoded(message, {}), None)


def deliver_waiting(product: Product, now: datetime | None = None) -> int:
    """Try the messages again that some channel has not taken; return how many were tried.

    Raises UserError for a setting that is none, and TransientError where the store does not answer.
    """
    channels = declared_channels()
    if not channels:
        return 0
    store, moment, n_tried = Store(product.publish.url), now or datetime.now(UTC), 0
    for key, written in store.list(f"{product.name}/{MESSAGES}/").items():
        if written < moment - WAITS:
            continue
        outgoing, _ = read_checked(store, key, Outgoing)
        if outgoing is None:
            continue
        claimed = claim(store, outgoing.message, channels, moment)
        deliver(store, outgoing.message, {name: channels[name] for name in claimed})
        n_tried += bool(claimed)
    return n_tried


def claim(store: Store, message: Message, channels: Mapping[str, Channel], now: datetime | None = None) -> list[str]:
    """Begin a try in the store; return the channels that are the caller's to send by.

    Raises TransientError where the store does not answer.
    """
    moment, claimed = now or datetime.now(UTC), list[str]()

    def begin(current: StoredObject | None) -> bytes | None:
        known = decode_record(current, Outgoing).deliveries if current else {}
        claimed[:] = [name for name in channels if name not in known or known[name].may_begin(moment)]
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
        sent = {name: replace(known[name], is_sent=True) for name in channels if name in known and name not in failures}
        return _encoded(message, {**known, **sent}) if sent else None

    store.update(message.key, settle)


def _send(message: Message, channels: Mapping[str, Channel]) -> dict[str, str]:
    failures = send_at_once(channels, message)
    for name in channels:
        reason = failures.get(name)
        _say(message, f"sent by {name}" if not reason else f"{name} has not taken it: {reason}")
    return failures


def _encoded(message: Message, deliveries: Mapping[str, Delivery]) -> bytes:
    outgoing = Outgoing(message=message, deliveries=deliveries, writer=uuid.uuid4().hex)
    return encode_checked(outgoing.to_json())


def _say(message: Message, line: str) -> None:
    print(f"message {message.kind} ({message.product}, {message.about}): {line}", flush=True)
