"""Keep data/raw/<product>: a log of versions, of which nothing that is stored is rewritten, and the index of it."""

from tasks.rows.raw_archive.content import canonical, content_digest, storable, undated_row_ids
from tasks.rows.raw_archive.index import INDEX, RawIndex
from tasks.rows.raw_archive.records import (
    CHANGE,
    CHANGED,
    CHANGES,
    DT_OF,
    LATE,
    SLOT,
    WITHDRAWN,
    StoredChanges,
    StoredDay,
)

__all__ = [
    "CHANGE",
    "CHANGED",
    "CHANGES",
    "DT_OF",
    "INDEX",
    "LATE",
    "SLOT",
    "WITHDRAWN",
    "RawIndex",
    "StoredChanges",
    "StoredDay",
    "canonical",
    "content_digest",
    "storable",
    "undated_row_ids",
]
