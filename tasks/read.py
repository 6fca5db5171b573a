"""Read published predictions: one complete night, its hashes verified, whatever is being written meanwhile.

    from tasks.read import read_predictions
    frame = read_predictions("s3://lamplighter/predictions", "flight-delays", dt="2013-06-30")

Needs nothing of the rest but the object store's address in AWS's own environment variables; it is a package of its own
too, `lamplighter-reader` (reader/), so that nothing here may import what that lacks. Any other reader does as well: the
manifest names the part files, and pandas, polars, DuckDB and Spark read those.
"""

import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import TypeVar

import pandas as pd
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.publication.reading import read_part, verify_part
from tasks.publication.store_client import MAX_REQUEST_ATTEMPTS
from tasks.runtime.errors import StoreUnavailable, UserError
from tasks.runtime.records import parse_date

T = TypeVar("T")


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

    def read(store: Store, manifest: Manifest) -> pd.DataFrame:
        return pd.concat([read_part(store, part) for part in manifest.parts], ignore_index=True)

    return _of_one_night(url, product, _place(Store(url), product, dt).as_of.isoformat(), read)


def verify_night(url: str, product: str, dt: str | None = None) -> Manifest:
    """Read every byte of a night's parts, by default of the newest, and return its manifest; keeps no part in memory.

    Raises UserError where the night is not there or a part is not as its manifest says.
    """

    def verify(store: Store, manifest: Manifest) -> Manifest:
        for part in manifest.parts:
            verify_part(store, part)
        return manifest

    return _of_one_night(url, product, _place(Store(url), product, dt).as_of.isoformat(), verify)


def list_nights(url: str, product: str, first: str | None = None, last: str | None = None) -> list[Manifest]:
    """Return the manifests of the nights that stand, oldest first, of the dates from `first` to `last`.

    A night that a person has withdrawn is left out. One request for each night, and one for a thousand keys. Raises
    UserError for a date that is none.
    """
    store, since, until = Store(url), _date_of(first or "0001-01-01"), _date_of(last or "9999-12-31")
    dates = [each for each in manifests.published_dates(store, product) if since <= each <= until]
    found = (manifests.current_manifest(NightPlace(store=store, product=product, as_of=each)) for each in dates)
    return [manifest for manifest in found if manifest is not None and manifest.withdrawn is None]


def follow_nights(
    url: str, product: str, after: str | None = None, poll_seconds: float = 60.0, seconds: float | None = None
) -> Iterator[Manifest]:
    """Return the manifests of the nights later than `after` (default: the newest one now), each once it is published.

    The store is asked every `poll_seconds`, and again where it does not answer; ends after `seconds`, or never. A night
    that takes the place of one of the dates before is not seen: `publish.announce` tells of those. Raises UserError for
    a date that is none.
    """
    store, deadline = Store(url), None if seconds is None else time.monotonic() + seconds
    newest = None if after else manifests.latest(store, product)
    seen = _date_of(after) if after else newest.dt if newest else date.min
    return _follow(store, product, seen, poll_seconds, deadline)


def _follow(store: Store, product: str, seen: date, poll_seconds: float, deadline: float | None) -> Iterator[Manifest]:
    while True:
        try:
            newest = manifests.latest(store, product)
            is_new = newest is not None and newest.dt > seen
            new = list_nights(store.url, product, (seen + timedelta(days=1)).isoformat()) if is_new else []
        except StoreUnavailable:
            new = []
        for manifest in new:
            yield manifest
            seen = manifest.dt
        left = poll_seconds if deadline is None else min(poll_seconds, deadline - time.monotonic())
        if left <= 0:
            return
        time.sleep(left)


@retry(retry=retry_if_exception_type(NightReplaced), stop=stop_after_attempt(MAX_REQUEST_ATTEMPTS), reraise=True)
def _of_one_night(url: str, product: str, dt: str, work: Callable[[Store, Manifest], T]) -> T:
    store, manifest = Store(url), read_manifest(url, product, dt)
    try:
        return work(store, manifest)
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
    return NightPlace(store=store, product=product, as_of=_date_of(dt))


def _date_of(dt: str) -> date:
    try:
        return parse_date(dt)
    except ValueError as error:
        raise UserError(f"dt {error}; write it like 2013-06-30") from None
