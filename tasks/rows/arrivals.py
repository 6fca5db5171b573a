"""Name and date rows whose source does neither: a product declared without `key`, without `time`, or without both.

Without a key a row's id is the hash of its cells and, among equal rows, its number, in a column `row_id`. Equal rows
are numbered from the first, so that ids stay as a file grows. The target is no part of it: a label may come later. A
row that changes is another row, and so is every row where other columns are declared.

Without a time a row's date is the as_of of the run that first saw it, in a column `arrived`: a row that is stored, by
its key or id, keeps its date.
"""

from datetime import date

import pandas as pd

from model.features.kinds import KINDS
from tasks.params import ARRIVED, ROW_ID, UNREADABLE_COLUMNS, Product
from tasks.rows.keys import as_stored, key_text, row_ids
from tasks.rows.partitions import read_partitions
from tasks.rows.raw_archive import RawIndex


def source_columns(product: Product) -> list[str]:
    """Return the columns of a row that the source must deliver, without the target."""
    added = [*([] if product.has_key else [ROW_ID]), *([] if product.has_time else [ARRIVED])]
    return [name for name in product.input_columns if name not in added]


def add_names_and_dates(frame: pd.DataFrame, product: Product, as_of: date, index: RawIndex) -> pd.DataFrame:
    """Return a delivery with `row_id` and `arrived` where the product has no key or no time of its own."""
    if not product.has_key:
        texts = [name for name in UNREADABLE_COLUMNS if name in frame]
        frame = frame.assign(**{ROW_ID: row_ids(frame[[*sorted(source_columns(product)), *texts]])})
    if not product.has_time:
        frame = frame.assign(**{ARRIVED: _arrival_days(frame, product, as_of, index)})
    return frame


def with_stored_keys(frame: pd.DataFrame, product: Product, index: RawIndex) -> tuple[pd.DataFrame, int]:
    """Return a delivery whose keys are written as those of the newest stored day, and how many were not."""
    names = [name for name in product.key if product.has_key and KINDS[product.kinds[name]].cells == "str"]
    if not index.rows or not names:
        return frame, 0
    stored = read_partitions([index.file("rows", max(index.rows))], names)
    n_rewritten = 0
    for name in names:
        cells, n = as_stored(frame[name], stored[name])
        frame, n_rewritten = frame.assign(**{name: cells}), max(n_rewritten, n)
    return frame, n_rewritten


def _arrival_days(frame: pd.DataFrame, product: Product, as_of: date, index: RawIndex) -> pd.Series:
    """Return the date on which each row was first seen, missing for a row whose key is missing.

    After a run of a later as_of nothing new is of an earlier one: it was not seen then.
    """
    stored = read_partitions(index.files("rows"), list(product.key))
    days = stored["dt"].set_axis(key_text(stored, product.key))
    days = days[days.index.notna() & ~days.index.duplicated()]
    keys = key_text(frame, product.key)
    first_seen = keys.map(days).astype("str")
    return first_seen.where(first_seen.notna() | keys.isna(), max(as_of.isoformat(), index.as_of))
