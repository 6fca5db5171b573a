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

from tasks.errors import UserError
from tasks.publish import LATEST, MANIFEST
from tasks.store import Store


def read_manifest(url: str, product: str, dt: str | None = None) -> dict[str, Any]:
    """The manifest of one night, by default the newest. Raises UserError where there is none."""
    store = Store(url)
    if dt is None:
        latest = store.read(f"{product}/{LATEST}")
        if latest is None:
            raise UserError(f"{store.uri(product)}: no night has been published; run make run PRODUCT={product}")
        dt = str(latest.json()["dt"])
    manifest = store.read(f"{product}/dt={dt}/{MANIFEST}")
    if manifest is None:
        raise UserError(f"{store.uri(f'{product}/dt={dt}')}: this night has not been published; choose another dt")
    content: dict[str, Any] = manifest.json()
    return content


def read_predictions(url: str, product: str, dt: str | None = None) -> pd.DataFrame:
    """The predictions of one night as a frame, by default of the newest.

    Raises UserError where the night is not there or a part is not as its manifest says.
    """
    store, manifest = Store(url), read_manifest(url, product, dt)
    frames = []
    for part in manifest["parts"]:
        key = f"{product}/dt={manifest['dt']}/run={manifest['run']}/{part['name']}"
        stored = store.read(key)
        if stored is None or hashlib.sha256(stored.body).hexdigest() != part["sha256"]:
            raise UserError(
                f"{store.uri(key)}: must be as the manifest says, and is "
                f"{'damaged' if stored else 'missing'}; publish the night again"
            )
        frames.append(pd.read_parquet(io.BytesIO(stored.body)))
    return pd.concat(frames, ignore_index=True)
