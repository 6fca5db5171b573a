"""Check that a store honours what publication relies on: conditional writes, and reads that see them at once.

A store that takes `If-None-Match` and ignores it lets two publishers win at once, and a night would be lost without
a word. A store is checked when a run is opened, at most once a day for each store and disk.
"""

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tasks.publication.object_store import Store
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import read_json, write_json
from tasks.runtime.settings import settings

WRITERS = 32
REMEMBERED_SECONDS = 24 * 3600


def check_store_once(store: Store) -> None:
    """Check the store unless it has passed within a day; see `check_store`."""
    file, name = settings().home / "probed.json", f"{os.environ.get('AWS_ENDPOINT_URL_S3', '')} {store.url}"
    known: dict[str, int] = read_json(file) if file.exists() else {}
    if time.time() - known.get(name, 0) > REMEMBERED_SECONDS:
        check_store(store)
        write_json(file, {**known, name: int(time.time())})


def check_store(store: Store) -> None:
    """Let many writers create one object at once, then replace it, rightly and wrongly; remove the object again.

    Raises UserError where the store does not let exactly one writer win or refuses a request, TransientError where it
    does not answer, or answers that it cannot now: each time with the store's own words.
    """
    key = f"_probe/{uuid.uuid4().hex}"
    bodies = [f"writer {i}\n".encode() for i in range(WRITERS)]
    try:
        with ThreadPoolExecutor(WRITERS) as writers:
            outcomes = list(writers.map(lambda body: _create(store, key, body), bodies))
        won = [body for body, outcome in zip(bodies, outcomes, strict=True) if outcome is True]
        created = store.read(key)
        if created is None and (passing := [each for each in outcomes if isinstance(each, TransientError)]):
            raise passing[0]
        if len(won) > 1:
            _refuse(
                store, f"{len(won)} of {WRITERS} writers that sent If-None-Match: * at once were told that they won"
            )
        if created is None or created.body not in (won or bodies):
            _refuse(store, "what had been written was not there to be read")
        assert created is not None
        if not store.replace(key, b"replaced\n", created) or store.replace(key, b"too late\n", created):
            _refuse(store, "of two writers with If-Match, it took the one that came too late, or neither")
        replaced = store.read(key)
        if replaced is None or replaced.body != b"replaced\n":
            _refuse(store, "a read after a replacement gave something else")
    except (UserError, TransientError):
        with suppress(UserError, TransientError):  # what was found first is what counts
            store.delete(key)
        raise
    store.delete(key)


def _create(store: Store, key: str, body: bytes) -> bool | TransientError:
    """Return whether this writer got the answer that it won, or the failure; a lost response says nothing."""
    try:
        return store.replace(key, body, None)
    except TransientError as error:
        return error


def _refuse(store: Store, observed: str) -> None:
    raise UserError(
        f"{store.url}: the store must honour conditional writes (If-None-Match, If-Match), and does not: {observed}; "
        "use one that does, such as AWS S3, MinIO, or SeaweedFS 4.48, or mend the proxy before it"
    )
