"""Read published predictions: one complete night, its hashes verified, whatever is being written meanwhile.

    from tasks.read import read_predictions
    frame = read_predictions("s3://lamplighter/predictions", "flight-delays", dt="2013-06-30")

Needs nothing of the rest but the object store's address in AWS's own environment variables. Any other reader
does as well: the manifest names the part files, and pandas, polars, DuckDB and Spark read those.
"""

import hashlib
import io
from typing import Any

import pandas as pd

from tasks.params import parse_date
from tasks.publication import manifests
from tasks.publication.object_store import MAX_REQUEST_ATTEMPTS, Store
from tasks.runtime.errors import UserError


def read_manifest(url: str, product: str, dt: str | None = None) -> dict[str, Any]:
    """The manifest of one night, by default the newest. Raises UserError where there is none."""
    store = Store(url)
    if dt is None:
        latest, _ = manifests.read_checked(store, f"{product}/{manifests.LATEST}")
        if latest is None:
            raise UserError(f"{store.uri(product)}: no night has been published; run make run PRODUCT={product}")
        dt = str(latest["dt"])
    try:
        as_of = parse_date(dt)
    except ValueError as error:
        raise UserError(f"dt {error}; write it like 2013-06-30") from None
    manifest = manifests.current_manifest(store, product, as_of)
    if manifest is None:
        raise UserError(f"{store.uri(f'{product}/dt={dt}')}: this night has not been published; choose another dt")
    return manifest


def read_predictions(url: str, product: str, dt: str | None = None) -> pd.DataFrame:
    """The predictions of one night as a frame, by default of the newest.

    Raises UserError where the night is not there or a part is not as its manifest says.
    """
    store, manifest = Store(url), read_manifest(url, product, dt)
    for _ in range(MAX_REQUEST_ATTEMPTS):
        try:
            return pd.concat([_read_part(store, part) for part in manifest["parts"]], ignore_index=True)
        except UserError:
            # A reader slower than keep_days finds parts gone: by then, another night has taken this one's place.
            now = read_manifest(url, product, manifest["dt"])
            if now == manifest:
                raise
            manifest = now
    return pd.concat([_read_part(store, part) for part in manifest["parts"]], ignore_index=True)


def _read_part(store: Store, part: dict[str, Any]) -> pd.DataFrame:
    key = store.key_of(part["key"])
    for _ in range(MAX_REQUEST_ATTEMPTS):
        stored = store.read(key)
        if stored is None:
            break
        if hashlib.sha256(stored.body).hexdigest() == part["sha256"]:
            return pd.read_parquet(io.BytesIO(stored.body))
    raise UserError(
        f"{store.uri(key)}: must be as the manifest says, and is {'damaged' if stored else 'missing'}; "
        "publish the night again"
    )
