"""Delete the parts of nights that others have replaced, once nobody can be reading them any more.

A part is deleted where all of this holds: no manifest that stands names it; no manifest names it that was replaced
within publish.keep_days; it was written longer ago than that; and its generation is not above that of the manifest
that stands, so that no publisher can name it any more, however late it wakes. Manifests themselves are kept for good:
what was published can still be traced, and re-created. Runs after publish, for every date of the product.
"""

import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from tasks import stage
from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.object_store import Store
from tasks.runtime import faults

_PART = re.compile(r"dt=(\d{4}-\d\d-\d\d)/run=[0-9a-f]+-(\d+)/[^/]+")


def gc(product: Product, as_of: date) -> str:
    """Delete what may be; `as_of` plays no part in it."""
    return collect_garbage(Store(product.publish.url), product, datetime.now(UTC))


def collect_garbage(store: Store, product: Product, now: datetime) -> str:
    """As `gc`, at a given moment."""
    written = store.list(f"{product.name}/")
    before, deleted = now - timedelta(days=product.publish.keep_days), 0
    parts = [(match, key) for key in written if (match := _PART.fullmatch(key.removeprefix(f"{product.name}/")))]
    old = [(match, key) for match, key in parts if written[key] < before]
    for dt in sorted({match[1] for match, _ in old}):
        mine = {key: int(match[2]) for match, key in old if match[1] == dt}
        for key in _garbage(store, product, date.fromisoformat(dt), mine, before):
            store.delete(key)
            faults.failpoint("gc: a part is deleted")
            deleted += 1
    days = product.publish.keep_days
    return f"{deleted:,} of {len(parts):,} parts deleted: no night that stood within {days} days needs them"


def _garbage(store: Store, product: Product, as_of: date, parts: dict[str, int], before: datetime) -> list[str]:
    """Those of a date's parts, given with their generations, that may be deleted."""
    night = manifests.current_manifest(store, product.name, as_of)  # before the list: what it names stays in any case
    if night is None:
        return []
    manifest = manifests.manifest_key(product.name, as_of)
    written = store.list(f"{manifests.night_key(product.name, as_of)}/")
    # A manifest was replaced when its successor was written; a copy in the history is never older than what it copies.
    copies = sorted(key for key in written if f"/{manifests.HISTORY}/" in key)
    replaced = {key: written[successor] for key, successor in pairwise([*copies, manifest])}
    kept = [content for key in copies if replaced[key] >= before and (content := manifests.read_checked(store, key)[0])]
    named = {store.key_of(part["key"]) for each in [night, *kept] for part in each["parts"]}
    return [key for key, generation in parts.items() if key not in named and generation <= night["generation"]]


if __name__ == "__main__":
    stage.main(gc)
