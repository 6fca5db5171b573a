"""Put right what the table of a product lacks of its nights, and delete the files that none of its versions needs."""

import re
from datetime import date, datetime
from typing import TYPE_CHECKING

from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.publication.tables.delta import DATE, follow_manifest, open_table, properties, table_errors
from tasks.runtime import faults

if TYPE_CHECKING:
    from deltalake import DeltaTable

_MANIFEST = re.compile(rf"dt=(\d{{4}}-\d\d-\d\d)/{re.escape(manifests.MANIFEST)}")
_HOURS_OF_A_RUN = 48
"""No run takes so long: a file that is older and that no version names is nobody's."""


def keep_table(store: Store, product: Product) -> str:
    """Bring the table to its nights, and delete what `publish.keep_days` is over for; return a line, or none.

    Raises UserError and TransientError as `follow_manifest` does.
    """
    if product.publish.table != "delta":
        return ""
    n_mended = sum(
        follow_manifest(NightPlace(store=store, product=product.name, as_of=as_of), product.publish.keep_days)
        for as_of in sorted(_doubtful(store, product.name))
    )
    table = open_table(store, product.name)
    n_deleted = _delete_old_files(table, product.publish.keep_days) if table else 0
    mended = f"{n_mended:,} nights put right in the table; " if n_mended else ""
    return f"{mended}{n_deleted:,} files of the table deleted"


def _doubtful(store: Store, product: str) -> set[date]:
    """Return the dates whose rows are not younger in the table than their manifest.

    A night that was withdrawn has no row there, so that its manifest is read each time; so is that of a night whose
    rows and manifest are of the same second, which is as fine as the clock of a store is.
    """
    table = open_table(store, product)
    written = _written(store, table) if table else {}
    found = set()
    for key, moved in store.list(f"{product}/").items():
        if match := _MANIFEST.fullmatch(key.removeprefix(f"{product}/")):
            as_of = date.fromisoformat(match[1])
            if as_of not in written or written[as_of] <= moved:
                found.add(as_of)
    return found


def _written(store: Store, table: "DeltaTable") -> dict[date, datetime]:
    """Return by date when its rows were written into the table, by the store's clock."""
    listed = store.list(store.key_of(table.table_uri.rstrip("/").removeprefix(f"s3://{store.bucket}/")) + "/")
    keys = [store.key_of(uri.removeprefix(f"s3://{store.bucket}/")) for uri in table.file_uris()]
    found: dict[date, datetime] = {}
    for key in keys:
        if (match := re.search(rf"/{DATE}=(\d{{4}}-\d\d-\d\d)/", key)) and key in listed:
            as_of = date.fromisoformat(match[1])
            found[as_of] = min(found.get(as_of, listed[key]), listed[key])
    return found


def _delete_old_files(table: "DeltaTable", keep_days: int) -> int:
    """Delete the files that no version of the last days names; return their number."""
    with table_errors(table.table_uri):
        wanted = properties(keep_days)
        if wanted.items() - table.metadata().configuration.items():
            table.alter.set_table_properties(wanted)
        hours = max(24 * keep_days, _HOURS_OF_A_RUN)
        if not table.vacuum(hours, dry_run=True, full=True):  # a commit of its own, even where nothing is deleted
            return 0
        faults.failpoint("gc: files of the table are deleted")
        return len(table.vacuum(hours, dry_run=False, full=True))
