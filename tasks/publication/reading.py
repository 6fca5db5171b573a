"""Read a part of a published night, verified by the hash that its manifest records."""

import hashlib
import io
from pathlib import Path

import pandas as pd
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from tasks.publication.contracts import PublishedPart
from tasks.publication.object_store import Store
from tasks.publication.store_client import MAX_REQUEST_ATTEMPTS
from tasks.runtime.errors import UserError
from tasks.runtime.files import file_sha256


class PartDamaged(UserError):
    """A part's content does not have the hash that its manifest records."""


@retry(retry=retry_if_exception_type(PartDamaged), stop=stop_after_attempt(MAX_REQUEST_ATTEMPTS), reraise=True)
def read_part(store: Store, part: PublishedPart, folder: Path | None = None) -> pd.DataFrame:
    """Return the rows of a part, from `folder` where the same file lies there.

    Raises UserError where the store's is missing, or damaged however often it is read.
    """
    if folder and (folder / part.name).exists() and file_sha256(folder / part.name) == part.sha256:
        return pd.read_parquet(folder / part.name)
    stored = store.read(store.key_of(part.key))
    _check(store, part, hashlib.sha256(stored.body).hexdigest() if stored else None)
    return pd.read_parquet(io.BytesIO(stored.body if stored else b""))


@retry(retry=retry_if_exception_type(PartDamaged), stop=stop_after_attempt(MAX_REQUEST_ATTEMPTS), reraise=True)
def verify_part(store: Store, part: PublishedPart) -> None:
    """Read every byte of a part, without holding it in memory; raises as `read_part` does."""
    _check(store, part, store.sha256(store.key_of(part.key)))


def _check(store: Store, part: PublishedPart, digest: str | None) -> None:
    rule = f"{store.uri(store.key_of(part.key))}: must be as the manifest says, and is"
    if digest is None:
        raise UserError(f"{rule} missing; publish the night again")
    if digest != part.sha256:
        raise PartDamaged(f"{rule} damaged; publish the night again")
