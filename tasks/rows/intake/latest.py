"""Let the newest of several versions of a key stand: `source.latest_by` names the column that says which it is."""

import pandas as pd

from tasks.params import Product
from tasks.rows.casting import as_text, parse_moment
from tasks.rows.keys import key_text


def latest_versions(rows: pd.DataFrame, product: Product) -> pd.DataFrame:
    """Return the rows of one date, of each key the one with the largest cell in `latest_by`; of equal ones the first.

    Cells are compared as numbers where all are numbers, else as times where all are times, else as text. A missing one
    is the smallest; a row whose key is missing stays.
    """
    column = product.source.latest_by
    if column is None or rows.empty:
        return rows
    ranks = _ordered(rows[column]).rank(method="dense").fillna(0)
    keys = key_text(rows, product.key)
    best = ranks.groupby(keys).transform("max")
    first = ~keys.where(ranks == best).duplicated()
    kept = keys.isna() | ((ranks == best) & first)
    return rows[kept]


def _ordered(cells: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(as_text(cells), errors="coerce")
    if (numbers.notna() | cells.isna()).all():
        return numbers
    times = parse_moment(cells)
    return times if (times.notna() | cells.isna()).all() else as_text(cells)
