"""Read published predictions: one complete night, its hashes verified, whatever is being written meanwhile.

    from tasks.read import read_predictions
    frame = read_predictions("s3://lamplighter/predictions", "flight-delays", dt="2013-06-30")

Needs nothing of the rest but the object store's address in AWS's own environment variables. Any other reader
does as well: the manifest names the part files, and pandas, polars, DuckDB and Spark read those.
"""

import pandas as pd
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from tasks.params import parse_date
from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.publication.reading import read_part
from tasks.publication.store_client import MAX_REQUEST_ATTEMPTS
from tasks.runtime.errors import UserError


class NightReplaced(UserError):
    """A part was not as its manifest describes it, and another manifest has taken that one's place."""


def read_manifest(url: str, product: str, dt: str | None = None) -> Manifest:
    """Return the manifest of one night, by default the newest.

    Raises UserError where there is none, or a person has withdrawn it.
    """
    place = _place(Store(url), product, dt)
    manifest = manifests.current_manifest(place)
    if manifest is None:
        uri = place.store.uri(place.folder)
        raise UserError(f"{uri}: this night has not been published; choose another dt")
    if manifest.withdrawn:
        raise UserError(
            f"{place.store.uri(place.manifest)}: {manifest.withdrawn.person} has withdrawn this night: "
            f"{manifest.withdrawn.reason}; choose another dt, or wait until it is published again"
        )
    return manifest


def read_predictions(url: str, product: str, dt: str | None = None) -> pd.DataFrame:
    """Return the predictions of one night as a frame, by default of the newest.

    Raises UserError where the night is not there or a part is not as its manifest says.
    """
    return _read_night(url, product, _place(Store(url), product, dt).as_of.isoformat())


@retry(retry=retry_if_exception_type(NightReplaced), stop=stop_after_attempt(MAX_REQUEST_ATTEMPTS), reraise=True)
def _read_night(url: str, product: str, dt: str) -> pd.DataFrame:
    store, manifest = Store(url), read_manifest(url, product, dt)
    try:
        return pd.concat([read_part(store, part) for part in manifest.parts], ignore_index=True)
    except UserError as error:
        # A reader slower than keep_days finds parts gone: by then, another night has taken this one's place.
        if read_manifest(url, product, dt) != manifest:
            raise NightReplaced(str(error)) from None
        raise


def _place(store: Store, product: str, dt: str | None) -> NightPlace:
    """Return the night of a date, by default the newest. Raises UserError for no date, or where none is published."""
    if dt is None:
        latest = manifests.latest(store, product)
        if latest is None:
            raise UserError(f"{store.uri(product)}: no night has been published; run make run PRODUCT={product}")
        return NightPlace(store=store, product=product, as_of=latest.dt)
    try:
        return NightPlace(store=store, product=product, as_of=parse_date(dt))
    except ValueError as error:
        raise UserError(f"dt {error}; write it like 2013-06-30") from None
