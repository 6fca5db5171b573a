"""Find the parts that no manifest needs any more, and delete them."""

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.runtime import faults

_PART = re.compile(r"dt=(\d{4}-\d\d-\d\d)/run=[0-9a-f]+-(\d+)/[^/]+")


@dataclass(frozen=True, kw_only=True)
class _PartFile:
    """A part file as the store lists it."""

    key: str
    """Its key."""
    as_of: date
    """The night that it was written for."""
    generation: int
    """The generation of the run that wrote it."""
    written: datetime
    """The time at which it was written."""


def collect_garbage(store: Store, product: Product, now: datetime) -> str:
    """Delete the parts that may be deleted at a moment; return a line with their number."""
    days = product.publish.keep_days
    before, n_deleted = now - timedelta(days=days), 0
    parts = _parts(store, product)
    old = [part for part in parts if part.written < before]
    for as_of in sorted({part.as_of for part in old}):
        place = NightPlace(store=store, product=product.name, as_of=as_of)
        for key in _garbage(place, [part for part in old if part.as_of == as_of], before):
            store.delete(key)
            faults.failpoint("gc: a part is deleted")
            n_deleted += 1
    return f"{n_deleted:,} of {len(parts):,} parts deleted: no night that stood within {days} days needs them"


def _parts(store: Store, product: Product) -> list[_PartFile]:
    """Return every part file of the product."""
    found = []
    for key, written in store.list(f"{product.name}/").items():
        if match := _PART.fullmatch(key.removeprefix(f"{product.name}/")):
            as_of = date.fromisoformat(match[1])
            found.append(_PartFile(key=key, as_of=as_of, generation=int(match[2]), written=written))
    return found


def _garbage(place: NightPlace, parts: list[_PartFile], before: datetime) -> list[str]:
    """Return the keys of this night's parts that are safe to delete."""
    current = manifests.current_manifest(place)  # before the list: a part that it names stays in any case
    if current is None:
        return []
    needed: list[Manifest] = [current, *_replaced_since(place, before)]
    named = {place.store.key_of(part.key) for manifest in needed for part in manifest.parts}
    return [part.key for part in parts if part.key not in named and part.generation <= current.generation]


def _replaced_since(place: NightPlace, before: datetime) -> list[Manifest]:
    """Return the manifests that were replaced at or after a moment: somebody may still be reading their nights."""
    written = place.store.list(f"{place.folder}/")
    # A manifest was replaced when its successor was written; a copy in the history is never older than its original.
    copies = sorted(key for key in written if f"/{manifests.HISTORY}/" in key)
    replaced = {key: written[successor] for key, successor in pairwise([*copies, place.manifest])}
    found = [
        manifests.read_checked(place.store, key, Manifest)[0] for key, moment in replaced.items() if moment >= before
    ]
    return [manifest for manifest in found if manifest is not None]
