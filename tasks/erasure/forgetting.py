"""Delete the salt of a subject wherever the store keeps it: in the product's table, those of simulations, and versions.

Each step is found done by whoever begins again, so that it may be killed anywhere.
"""

from collections.abc import Iterator

from tasks.erasure.beside import earlier_versions
from tasks.params import Product
from tasks.publication.object_store import Store, StoredObject
from tasks.publication.salts.shard import Forgotten, Shard
from tasks.publication.salts.table import SaltTable
from tasks.publication.store_answers import store_errors
from tasks.publication.store_client import connect
from tasks.runtime import faults


def tables_of(product: Product, subject: str) -> list[SaltTable]:
    """Return the salts of a product, then those of its simulations that may have one of the subject."""
    store, bucket = Store(product.publish.url), Store(f"s3://{Store(product.publish.url).bucket}")
    own = SaltTable(store, product.name)
    below = f"/{own.key(subject[0])}"
    simulated = sorted(key.removesuffix(below) for key in bucket.list("simulations/") if key.endswith(below))
    return [own, *(SaltTable(Store(bucket.uri(name)), product.name) for name in simulated)]


def forget(table: SaltTable, subject: str, decision: Forgotten) -> None:
    """Delete a salt, then the versions that the bucket keeps of its object: each of them may have it."""
    table.forget(subject, decision)
    faults.failpoint("forget: the salt is deleted")
    client = connect(table.store.url)
    for bucket, key, version in [*earlier_versions(table.store.url, table.key(subject[0]))]:
        with store_errors(f"s3://{bucket}/{key}"):
            client.delete_object(Bucket=bucket, Key=key, VersionId=version)
        faults.failpoint("forget: a version is deleted")


def earlier_salts(table: SaltTable, subject: str) -> Iterator[str]:
    """Yield the address of every version that has the salt still."""
    client = connect(table.store.url)
    for bucket, key, version in earlier_versions(table.store.url, table.key(subject[0])):
        uri = f"s3://{bucket}/{key}"
        with store_errors(uri):
            found = client.get_object(Bucket=bucket, Key=key, VersionId=version)
            if subject in Shard.decode(StoredObject(uri, found["Body"].read(), found["ETag"])).salts:
                yield f"{uri} (version {version})"
