"""Read what the page shows: the products of params.yaml, and the status of each in its store."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from tasks import params
from tasks.monitoring.status import Status, read_status
from tasks.publication.object_store import Store, StoredObject
from tasks.publication.store_client import OF_A_PAGE
from tasks.runtime.errors import TransientError, UserError

FILE = Path(__file__).resolve().parents[3] / params.PARAMS_FILE
AT_ONCE = 8


def declared() -> dict[str, params.Product]:
    """Return the products that params.yaml declares now. Raises UserError."""
    return _parsed(FILE.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _parsed(_written: int) -> dict[str, params.Product]:
    return dict(params.load(FILE).products)


def read_statuses(products: list[params.Product]) -> dict[str, Status | str | None]:
    """Return each product's status; None where nothing has been written, and what is wrong where it cannot be read."""
    with ThreadPoolExecutor(AT_ONCE) as readers:
        return dict(zip([each.name for each in products], readers.map(_status, products), strict=True))


def read_object(product: params.Product, key: str) -> StoredObject | None:
    """Return an object of a product's store; None where there is none. Raises as `Store.read` does."""
    return _store(product.publish.url).read(key)


def _status(product: params.Product) -> Status | str | None:
    try:
        return read_status(_store(product.publish.url), product.name)
    except (UserError, TransientError) as error:
        return str(error)


@lru_cache(maxsize=64)
def _store(url: str) -> Store:
    return Store(url, OF_A_PAGE)  # its client is kept, and may be used by several threads
