"""Name and date rows whose source does neither: a product declared without `key`, without `time`, or without both.

Without a key a row's id is the hash of its cells and, among equal rows, its number, in a column `row_id`. Equal rows
are numbered from the first, so that ids stay as a file grows. The target is no part of it: a label may come later. A
row that changes is another row, and so is every row where other columns are declared.

Without a time a row's date is the as_of of the run that first saw it, in a column `arrived`: a row that is stored, by
its key or id, keeps its date.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import pandas as pd

from model.features.kinds import KINDS
from tasks.params import ARRIVED, ROW_ID, UNREADABLE_COLUMNS, Product
from tasks.rows.keys import as_stored, key_text, row_hashes, row_ids
from tasks.rows.raw_archive import CHANGES, DT_OF, RawIndex


def source_columns(product: Product) -> list[str]:
    """Return the columns of a row that the source must deliver, without the target."""
    added = [*([] if product.has_key else [ROW_ID]), *([] if product.has_time else [ARRIVED])]
    latest_by = [product.source.latest_by] if product.source.latest_by else []
    return list(dict.fromkeys(name for name in [*product.stored_columns, *latest_by] if name not in added))


def with_row_ids(rows: pd.DataFrame, product: Product) -> pd.DataFrame:
    """Return all rows of a date, or all without one, with `row_id` where the product has a time, but no key.

    Without a time they have it already: see `Arrivals.with_dates`.
    """
    return (
        rows
        if product.has_key or not product.has_time
        else rows.assign(**{ROW_ID: row_ids(rows[_hashed_columns(rows, product)])})
    )


def _hashed_columns(rows: pd.DataFrame, product: Product) -> list[str]:
    texts = [name for name in UNREADABLE_COLUMNS if name in rows]
    return [*sorted(name for name in source_columns(product) if name in rows), *texts]


@dataclass
class Arrivals:
    """Write the keys of a delivery as they are stored, and date its rows where the source does not."""

    product: Product
    as_of: date
    index: RawIndex

    def __post_init__(self) -> None:
        """Begin with no row."""
        self._hashes, self._counts = np.empty(0, np.uint64), np.empty(0, np.int64)

    def with_stored_keys(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
        """Return rows whose keys are written as those of the newest stored day, and how many were not."""
        n_rewritten = 0
        for name, stored in self._keys_of_newest_day.items():
            cells, n = as_stored(rows[name], stored)
            rows, n_rewritten = rows.assign(**{name: cells}), max(n_rewritten, n)
        return rows, n_rewritten

    def with_dates(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return rows with `arrived` where the product has no time, for which they need their `row_id`, too.

        A row whose key is missing has no date. A row that is stored keeps its own.
        """
        if self.product.has_time:
            return rows
        if not self.product.has_key:
            rows = rows.assign(**{ROW_ID: self._numbered(rows)})
        keys = key_text(rows, self.product.key)
        days = keys.map(self._stored_days).astype("str")
        return rows.assign(**{ARRIVED: days.where(days.notna() | keys.isna(), self.as_of.isoformat())})

    def _numbered(self, rows: pd.DataFrame) -> pd.Series:
        """Return `row_ids` of rows that follow those of the pieces before."""
        hashes = np.array(row_hashes(rows[_hashed_columns(rows, self.product)]), np.uint64)
        places = np.searchsorted(self._hashes, hashes)
        before = np.zeros(len(hashes), np.int64)
        inside = places < len(self._hashes)
        found = inside.copy()
        found[inside] = self._hashes[places[inside]] == hashes[inside]
        before[found] = self._counts[places[found]]
        number = before + pd.Series(hashes).groupby(hashes).cumcount().to_numpy()
        joined = np.concatenate([self._hashes, hashes])
        self._hashes, positions = np.unique(joined, return_inverse=True)
        weights = np.concatenate([self._counts, np.ones(len(hashes), np.int64)])
        self._counts = np.bincount(positions, weights, len(self._hashes)).astype(np.int64)
        texts = [f"{value:016x}" if not n else f"{value:016x}#{n}" for value, n in zip(hashes, number, strict=True)]
        return pd.Series(texts, index=rows.index, dtype="str")

    @cached_property
    def _keys_of_newest_day(self) -> dict[str, pd.Series]:
        product = self.product
        names = [name for name in product.key if product.has_key and KINDS[product.kinds[name]].cells == "str"]
        if not self.index.rows.newest or not names:
            return {}
        stored = self.index.read("rows", [self.index.rows.newest], names)
        return {name: stored[name] for name in names}

    @cached_property
    def _stored_days(self) -> pd.Series:
        """The date of each stored key, by the key."""
        key = list(self.product.key)
        base = self.index.read("rows", sorted(self.index.rows), key)
        late = self.index.read(CHANGES, sorted(self.index.changes), [*key, DT_OF])
        days = pd.concat([_by_key(base, base["dt"], key), _by_key(late, late[DT_OF], key)])
        return days[days.index.notna() & ~days.index.duplicated()]


def _by_key(rows: pd.DataFrame, days: pd.Series, key: Iterable[str]) -> pd.Series:
    return days.set_axis(key_text(rows, [*key]))
