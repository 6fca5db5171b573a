"""What is told, and what the store keeps of it.

    <url>/<product>/_messages/<kind>/<identity>.json      the message, and for each channel whether it was sent

The object carries its checksum and is replaced by conditional PUTs, as the manifests are.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.runtime.records import RECORD, Record

MESSAGES = "_messages"
MAX_TRIES = 5
"""The number of times that a channel is tried with one message which its receiver refuses."""
CLAIM = timedelta(minutes=5)
"""How long a try may take, and how long after its beginning the next one begins."""
Kind = Literal["night-late", "stopped", "champion-changed", "approval-waits"]


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Message(Record):
    """One message; kind, product and `about` are its identity."""

    kind: Kind
    """Which of the four it is."""
    product: str
    """The product's name."""
    about: str
    """What it is about: a night's date, a run, a version and the run that promoted it."""
    subject: str
    """One line."""
    text: str
    """What happened and what to do; no value of the data."""
    link: str | None = None
    """Where to look, such as the task's page in Airflow."""

    @property
    def identity(self) -> str:
        """Return the name under which it is sent once; receivers may use it to find a message that came twice."""
        return hashlib.sha256(f"{self.kind}\n{self.product}\n{self.about}".encode()).hexdigest()[:16]

    @property
    def key(self) -> str:
        """Return its key in the store of the product's nights."""
        return f"{self.product}/{MESSAGES}/{self.kind}/{self.identity}.json"


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Delivery(Record):
    """How far a message has come by one channel."""

    tries: int
    """Tries that have begun."""
    begun: datetime
    """When the last one began."""
    is_sent: bool = False
    """Whether the receiver has taken it."""
    is_refused: bool = False
    """Whether the receiver has surely not taken it at the last try."""

    def may_begin(self, now: datetime) -> bool:
        """Return whether another try may begin: only where the last one has surely not arrived."""
        return self.is_refused and self.tries < MAX_TRIES and now >= self.begun + CLAIM

    def is_unknown(self, now: datetime) -> bool:
        """Return whether nobody knows if the last try has arrived: its process was killed, or no answer came."""
        return not self.is_sent and not self.is_refused and now >= self.begun + CLAIM


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Outgoing(Record):
    """A message with its deliveries."""

    format: int = 1
    """The version of this record."""
    message: Message
    """What is told."""
    deliveries: Mapping[str, Delivery] = Field(default_factory=dict)
    """By channel."""
    writer: str
    """A name of the last writer's own, by which it knows its own write where the answer was lost."""

    def is_lost(self, now: datetime) -> bool:
        """Return whether no channel is known to have taken it, and none will be tried any more."""
        known = self.deliveries.values()
        return bool(known) and all(
            each.is_unknown(now) or (each.is_refused and each.tries >= MAX_TRIES) for each in known
        )
