"""Bring a night to the layout of now: its file follows its manifest, and no part lies where a glob finds it.

Nights that were published before there was a night file have their parts at dt=D/run=<run>-<generation>/*.parquet,
where a glob sees replaced and unpublished ones too. Such a night is moved: its parts are copied, its manifest names the
copies (under the same generation, for it is the same night), the night file is written, the old parts are deleted.
Every step is found done by whoever comes next, so that it may be killed anywhere.
"""

import re
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

from tasks.publication import manifests
from tasks.publication.contracts import Manifest, PublishedPart
from tasks.publication.manifests import NightPlace
from tasks.publication.night_file import fetch_part, sync_night_file, write_night_file
from tasks.publication.object_store import MAX_CAS_ROUNDS
from tasks.runtime import faults
from tasks.runtime.errors import TransientError

EARLIER = re.compile(r"dt=(?P<as_of>\d{4}-\d\d-\d\d)/run=(?P<run>[0-9a-f]+)-(?P<generation>\d+)/(?P<name>[^/]+)")
"""The place of a part before, below the product's prefix."""


@dataclass(frozen=True, kw_only=True)
class PartKey:
    """A part file as the store lists it."""

    key: str
    """Its key."""
    as_of: date
    """The night that it was written for."""
    generation: int
    """The generation of the run that wrote it."""
    written: datetime
    """The time at which it was written."""


def part_keys(product: str, listed: dict[str, datetime], form: re.Pattern[str]) -> list[PartKey]:
    """Return the keys of a list that have the form of a part's place below the product's prefix."""
    found = []
    for key, written in listed.items():
        if match := form.fullmatch(key.removeprefix(f"{product}/")):
            as_of = date.fromisoformat(match["as_of"])
            found.append(PartKey(key=key, as_of=as_of, generation=int(match["generation"]), written=written))
    return found


def earlier_parts(place: NightPlace) -> list[PartKey]:
    """Return the parts of a night that lie where they lay before."""
    return part_keys(place.product, place.store.list(f"{place.folder}/run="), EARLIER)


def settle(
    place: NightPlace,
    earlier: list[PartKey],
    scratch: Path,
    folder: Path | None = None,
    abandoned_before: datetime | None = None,
) -> bool:
    """Make what a glob sees of the night that of the manifest; return whether anything had to be changed.

    `earlier` are its parts of before. One that a run may still publish stays, unless it was written before
    `abandoned_before`. Raises UserError where a part is not as the manifest says.
    """
    if earlier:
        _name_copies(place, scratch, folder)
    changed = sync_night_file(place, scratch, folder)
    faults.failpoint("relocate: the night file has followed")
    if not earlier:
        return changed
    current = manifests.current_manifest(place)
    generation = current.generation if current else 0
    named = {place.store.key_of(part.key) for part in current.parts} if current else set()
    for part in earlier:
        is_abandoned = abandoned_before is not None and part.written < abandoned_before
        if part.key not in named and (part.generation <= generation or is_abandoned):
            place.store.delete(part.key)
            faults.failpoint("relocate: a part of before is deleted")
            changed = True
    return changed


def _name_copies(place: NightPlace, scratch: Path, folder: Path | None) -> None:
    """Copy the parts that the manifest names to where parts lie now, and let it name the copies."""
    for _ in range(MAX_CAS_ROUNDS):
        manifest, stored = manifests.read_checked(place.store, place.manifest, Manifest)
        if manifest is None or stored is None or not _lies_where_it_lay(place, manifest):
            return
        moved = replace(manifest, parts=tuple(_copy(place, part, scratch, folder) for part in manifest.parts))
        moved = replace(moved, file=write_night_file(place, moved, scratch, folder))
        faults.failpoint("relocate: the parts are copied")
        new = moved.to_json()
        # Keys that a newer version of this project has added are kept.
        body = manifests.encode_checked(
            {**manifests.decode_checked(stored), "parts": new["parts"], "file": new["file"]}
        )
        if place.store.replace(place.manifest, body, stored):
            return
    raise TransientError(
        f"{place.store.uri(place.manifest)}: other writers came first {MAX_CAS_ROUNDS} times while we tried"
    )


def present_key(place: NightPlace, key: str) -> str:
    """Return the key of a part in the layout of now, of its key in the layout of now or before."""
    match = EARLIER.fullmatch(key.removeprefix(f"{place.product}/"))
    return place.part(match["run"], int(match["generation"]), match["name"]) if match else key


def _lies_where_it_lay(place: NightPlace, manifest: Manifest) -> bool:
    keys = [place.store.key_of(part.key) for part in manifest.parts]
    return any(present_key(place, key) != key for key in keys)


def _copy(place: NightPlace, part: PublishedPart, scratch: Path, folder: Path | None) -> PublishedPart:
    key = place.store.key_of(part.key)
    if (present := present_key(place, key)) != key:
        place.store.create_file(present, fetch_part(place, part, scratch, folder))
    return replace(part, key=place.store.full_key(present))
