"""Whether a store honours what publication stands on: conditional writes, and reads that see them at once.

A store that takes `If-None-Match` and ignores it lets two publishers win at once, and a night would be lost without
a word. Asked when a run is opened, at most once a day for each store and disk.
"""

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from tasks.publication.object_store import Store
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import read_json, write_json
from tasks.runtime.settings import settings

WRITERS = 32
REMEMBERED_SECONDS = 24 * 3600


def probe_once(store: Store) -> None:
    """Probe the store unless it has stood the test within a day; see `probe`."""
    file, name = settings().home / "probed.json", f"{os.environ.get('AWS_ENDPOINT_URL_S3', '')} {store.url}"
    known = read_json(file) if file.exists() else {}
    if time.time() - known.get(name, 0) > REMEMBERED_SECONDS:
        probe(store)
        write_json(file, {**known, name: int(time.time())})


def probe(store: Store) -> None:
    """Let many writers create one object at once, then replace it, rightly and wrongly; the object is removed again.

    Raises UserError where the store does not let exactly one writer win, PassingError where it does not answer.
    """
    key = f"_probe/{uuid.uuid4().hex}"
    bodies = [f"writer {i}\n".encode() for i in range(WRITERS)]
    try:
        with ThreadPoolExecutor(WRITERS) as writers:
            told = writers.map(lambda body: _create(store, key, body), bodies)
            won = [body for body, first in zip(bodies, told, strict=True) if first]
        stands = store.read(key)
        if len(won) > 1:
            _refuse(
                store, f"{len(won)} of {WRITERS} writers that sent If-None-Match: * at once were told that they won"
            )
        if stands is None or stands.body not in (won or bodies):
            _refuse(store, "what had been written was not there to be read")
        assert stands is not None
        if not store.replace(key, b"replaced\n", stands) or store.replace(key, b"too late\n", stands):
            _refuse(store, "of two writers with If-Match, it took the one that came too late, or neither")
        now = store.read(key)
        if now is None or now.body != b"replaced\n":
            _refuse(store, "a read after a replacement gave something else")
    finally:
        store.delete(key)


def _create(store: Store, key: str, body: bytes) -> bool:
    """Whether this writer was told that it won; an answer that got lost tells nothing."""
    try:
        return store.replace(key, body, None)
    except TransientError:
        return False


def _refuse(store: Store, seen: str) -> None:
    raise UserError(
        f"{store.url}: the store must honour conditional writes (If-None-Match, If-Match), and does not: {seen}; "
        "use one that does, such as AWS S3, MinIO, or SeaweedFS 4.48, or mend the proxy before it"
    )
