"""What is announced of a night, and what the store keeps until it was.

    <url>/<product>/_announcements.json       the dates that may have something to announce; nothing for readers

A line is made from a manifest each time it is sent: the store keeps no copy of it.
"""

import hashlib
from collections.abc import Mapping
from datetime import date, datetime
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.publication.contracts import Manifest, Rows, Withdrawal
from tasks.publication.manifests import NightPlace
from tasks.publication.night_file import written_by
from tasks.publication.object_store import StoredObject
from tasks.runtime.records import RECORD, Record

OUTBOX = "_announcements.json"
Kind = Literal["published", "republished", "withdrawn"]


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Announcement(Record):
    """The line of one version of a night; a version is what one generation wrote."""

    format: int = 1
    """The version of this record."""
    id: str
    """Product, dt and generation; a line that comes again has the same one."""
    kind: Kind
    """published for the first one of its dt, republished where it replaced another one, withdrawn where a person has
    found that the night must not be used."""
    product: str
    """The product's name."""
    dt: date
    """The night's date: its as_of."""
    scored_day: date
    """The day whose rows are scored."""
    generation: int
    """Of two lines of one dt the one with the higher generation stands."""
    run: str
    """The hash of all that decides the night's bytes."""
    manifest: str
    """The address of the manifest: in the history where another one had taken its place before the line was sent."""
    manifest_sha256: str
    """The SHA-256 of the manifest, in hex; one that was replaced since has it in the history."""
    rows: Rows
    """The rows of the scored day."""
    model_version: str | None
    """The model's version in the registry; null for a night published by hand."""
    model_sha256: str
    """The SHA-256 of the exported model's folder."""
    withdrawn: Withdrawal | None
    """Who has withdrawn the night, and why; null otherwise."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Waiting(Record):
    """A date that may have something to announce."""

    announced: int
    """The generation up to which lines were taken, or none was to be sent; 0 where the date had no night before."""
    writers: Mapping[str, datetime]
    """Who may be about to move the manifest, and since when."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Outbox(Record):
    """_announcements.json: what is to be looked at. It names no night: what is to be sent follows from manifests."""

    format: int = 1
    """The version of this record."""
    dates: Mapping[date, Waiting] = Field(default_factory=dict)
    """By date; a date is left out once all its lines were taken and nobody is about to move its manifest."""
    looked: datetime | None = None
    """When a watcher last began to send."""
    writer: str = ""
    """A name of the last writer's own, by which it knows its own write where the answer was lost."""


def announcement_of(place: NightPlace, manifest: Manifest, stored: StoredObject) -> Announcement:
    """Return the line of a manifest."""
    generation = written_by(manifest)
    kind: Kind = "republished" if manifest.supersedes else "published"
    return Announcement(
        id=f"{place.product}/{place.as_of.isoformat()}/{generation}",
        kind="withdrawn" if manifest.withdrawn else kind,
        product=place.product,
        dt=place.as_of,
        scored_day=manifest.scored_day,
        generation=generation,
        run=manifest.run,
        manifest=stored.uri,
        manifest_sha256=hashlib.sha256(stored.body).hexdigest(),
        rows=manifest.rows,
        model_version=manifest.model.version,
        model_sha256=manifest.model.sha256,
        withdrawn=manifest.withdrawn,
    )
