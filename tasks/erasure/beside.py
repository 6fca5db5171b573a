"""Take the rows out of what lies beside the nights: table, reports, records, earlier versions of objects."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tasks.erasure.made import cleaned
from tasks.erasure.nights import others_in
from tasks.erasure.subject import Subject
from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store, StoredObject
from tasks.publication.store_answers import store_errors
from tasks.publication.store_client import connect
from tasks.publication.tables.delta import TABLES, follow_manifest, open_table, table_errors
from tasks.runtime import faults
from tasks.runtime.settings import task_logs

MADE_PICTURES = b'class="pictures made-pictures"'
"""What a page has that shows images which a model has made up: these may be like those of whoever is erased."""
REMOVED = (
    "<!doctype html><title>Removed</title><p>This report showed a row that a person has asked to have erased, and was "
    "removed. The figures of the training are in its record: make runs.</p>\n"
)


def erase_in_table(store: Store, product: Product, places: list[NightPlace]) -> int:
    """Bring the table to the nights as they are now, and delete all files but those of its newest version.

    Returns the number of files. Earlier versions of the table can be read no more.
    """
    if not store.list(f"{TABLES}/{product.name}/"):
        return 0
    for place in places:
        follow_manifest(place, product.publish.keep_days)
    faults.failpoint("erase: the table has followed")
    table = open_table(store, product.name)
    if table is None:
        return 0
    with table_errors(table.table_uri):
        return len(table.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True))


def erase_simulations(store: Store, product: str) -> int:
    """Delete nights that simulations of the product have left in its bucket; return the number of objects."""
    bucket = Store(f"s3://{store.bucket}")
    keys = [key for key in bucket.list("simulations/") if f"/{product}/" in key]
    for key in keys:
        bucket.delete(key)
    return len(keys)


def erase_records(store: Store, product: str, subject: Subject, others: frozenset[str]) -> int:
    """Take it out of records and messages, and remove pages that show it, or images that models have made up.

    `others` are the pages of models that are known not to have learnt from the rows: they may show made-up images.
    Returns the number of objects.
    """
    n_changed = 0
    for key in [*others_in(store, product)]:
        n_changed += store.update(key, partial(without, key, subject, may_show_made=key in others))
        faults.failpoint("erase: a record is written")
    return n_changed


def without(key: str, subject: Subject, stored: StoredObject | None, *, may_show_made: bool) -> bytes | None:
    """Return an object's content without what is to be erased, of a page that it was removed; None where it stays."""
    if stored is None:
        return None
    shows_made = MADE_PICTURES in stored.body and not may_show_made
    if not (shows_made or subject.is_in_bytes(stored.body)):
        return None
    if not key.endswith(".json"):
        return REMOVED.encode()
    content = manifests.decode_checked(stored)
    now = cleaned(content, subject)
    return None if now == content else manifests.encode_checked(now)


def erase_task_logs(subject: Subject) -> int:
    """Write crosses over what shows it in the logs of tasks that the store keeps; return the number of logs."""
    store = Store(address) if (address := task_logs()) else None
    n_changed = 0
    for key in store.list("") if store else ():
        assert store is not None
        n_changed += store.update(key, partial(_crossed_out, subject))
        faults.failpoint("erase: a log is written")
    return n_changed


def _crossed_out(subject: Subject, stored: StoredObject | None) -> bytes | None:
    if stored is None or not subject.is_in_bytes(stored.body):
        return None
    content = bytearray(stored.body)
    for start, end in subject.places_in(stored.body):
        content[start:end] = b"x" * (end - start)
    return bytes(content)


def earlier_versions(url: str, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield bucket, key and id of each version of objects below a prefix that is not the newest one.

    None where the store keeps no versions.
    """
    store = Store(url)
    client = connect(url)
    with store_errors(store.uri(prefix)):
        try:
            pages = client.get_paginator("list_object_versions").paginate(
                Bucket=store.bucket, Prefix=store.full_key(prefix)
            )
            for page in pages:
                for each in page.get("Versions", []):
                    if not each["IsLatest"]:
                        yield store.bucket, each["Key"], each["VersionId"]
        except client.exceptions.ClientError as error:
            if error.response.get("Error", {}).get("Code") not in ("NotImplemented", "MethodNotAllowed"):
                raise


def erase_versions(url: str, prefix: str, subject: Subject, erased: frozenset[str] = frozenset()) -> int:
    """Delete earlier versions of objects that show it, or whose key ends with one of the hashes; return the number."""
    client, n_deleted = connect(url), 0
    for bucket, key, version in [*earlier_versions(url, prefix)]:
        name = "".join(key.rsplit("/", 2)[-2:])
        if name in erased or version_holds(url, bucket, key, version, subject):
            with store_errors(f"s3://{bucket}/{key}"):
                client.delete_object(Bucket=bucket, Key=key, VersionId=version)
            n_deleted += 1
            faults.failpoint("erase: a version is deleted")
    _abort_uploads(client, Store(url), prefix)
    return n_deleted


def version_holds(url: str, bucket: str, key: str, version: str, subject: Subject) -> bool:
    """Return whether a version of an object shows it."""
    client = connect(url)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "object"
        with store_errors(f"s3://{bucket}/{key}"):
            body = client.get_object(Bucket=bucket, Key=key, VersionId=version)["Body"]
            with file.open("wb") as out:
                for chunk in body.iter_chunks(1 << 20):
                    out.write(chunk)
        return subject.is_in_file(file)


def _abort_uploads(client: Any, store: Store, prefix: str) -> None:
    """Abort uploads that were begun and not ended: their pieces can be looked into by nobody."""
    with suppress(client.exceptions.ClientError), store_errors(store.uri(prefix)):
        listed = client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.full_key(prefix))
        for each in listed.get("Uploads") or ():
            client.abort_multipart_upload(Bucket=store.bucket, Key=each["Key"], UploadId=each["UploadId"])
