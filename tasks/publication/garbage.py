"""Find the parts that no manifest needs any more, and delete them; put right what readers by glob see."""

import re
from datetime import date, datetime, timedelta
from itertools import pairwise

from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.night_file import scratch_folder
from tasks.publication.object_store import Store
from tasks.publication.relocation import EARLIER, PartKey, part_keys, settle
from tasks.runtime import faults
from tasks.runtime.errors import UserError

_PART = re.compile(rf"{manifests.PARTS}/{EARLIER.pattern}")
_MANIFEST = re.compile(rf"dt=(\d{{4}}-\d\d-\d\d)/{re.escape(manifests.MANIFEST)}")
_LONGEST_RUN = timedelta(days=2)
"""No run takes so long: a task may take a day."""
_MAX_TOLD = 3


def collect_garbage(store: Store, product: Product, now: datetime) -> str:
    """Delete the parts that may be deleted at a moment, and settle nights; return a line with their numbers.

    Raises UserError, after all else is done, where the night file of a date could not be written.
    """
    listed = store.list(f"{product.name}/")
    n_settled, refused = _settle_nights(store, product, listed, now)
    days = product.publish.keep_days
    before, n_deleted = now - timedelta(days=days), 0
    parts = part_keys(product.name, listed, _PART)
    old = [part for part in parts if part.written < before]
    for as_of in sorted({part.as_of for part in old}):
        place = NightPlace(store=store, product=product.name, as_of=as_of)
        for key in _garbage(place, [part for part in old if part.as_of == as_of], before):
            store.delete(key)
            faults.failpoint("gc: a part is deleted")
            n_deleted += 1
    if refused:
        raise UserError(
            "\n".join(refused[:_MAX_TOLD] + [f"and {len(refused) - _MAX_TOLD} more"] * (len(refused) > _MAX_TOLD))
        )
    line = f"{n_deleted:,} of {len(parts):,} parts deleted: no night that stood within {days} days needs them"
    return f"{line}; {n_settled:,} nights put right for readers by glob" if n_settled else line


def _settle_nights(store: Store, product: Product, listed: dict[str, datetime], now: datetime) -> tuple[int, list[str]]:
    """Settle every night whose file may not be that of its manifest; return their number, and what was refused."""
    earlier = part_keys(product.name, listed, EARLIER)
    n_settled, refused = 0, []
    for as_of in sorted({part.as_of for part in earlier} | _doubtful(product, listed, now)):
        place = NightPlace(store=store, product=product.name, as_of=as_of)
        with scratch_folder() as scratch:
            try:
                of_night = [part for part in earlier if part.as_of == as_of]
                n_settled += settle(place, of_night, scratch, abandoned_before=now - _LONGEST_RUN)
            except UserError as error:
                refused.append(str(error))
    return n_settled, refused


def _doubtful(product: Product, listed: dict[str, datetime], now: datetime) -> set[date]:
    """Return the dates whose night file is not younger than their manifest: a store's clock ticks in seconds.

    Where both are of one second and old, a former look has found it right.
    """
    found = set()
    for key, moved in listed.items():
        if match := _MANIFEST.fullmatch(key.removeprefix(f"{product.name}/")):
            written = listed.get(key.replace(manifests.MANIFEST, manifests.NIGHT_FILE))
            is_recent = now - moved < timedelta(days=product.publish.keep_days)
            if written is None or written < moved or (written == moved and is_recent):
                found.add(date.fromisoformat(match[1]))
    return found


def _garbage(place: NightPlace, parts: list[PartKey], before: datetime) -> list[str]:
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
