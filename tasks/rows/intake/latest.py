"""Let the newest of several versions of a key stand: `source.latest_by` names the column that says which it is."""

import pandas as pd

from tasks.params import Product
from tasks.rows.casting import as_text, parse_moment
from tasks.rows.keys import key_text
from tasks.runtime.errors import UserError


def latest_versions(rows: pd.DataFrame, product: Product) -> pd.DataFrame:
    """Return the rows of one date, of each key the one with the largest cell in `latest_by`; of equal ones the first.

    Cells are compared as numbers where all are numbers, and as times where all are times. A missing one is the
    smallest; a row whose key is missing stays.

    Raises UserError where they are neither: as texts 29.02. would come after 01.03., and a version be lost.
    """
    column = product.source.latest_by
    if column is None or rows.empty:
        return rows
    ranks = _ordered(rows[column], product).rank(method="dense").fillna(0)
    keys = key_text(rows, product.key)
    best = ranks.groupby(keys).transform("max")
    first = ~keys.where(ranks == best).duplicated()
    kept = keys.isna() | ((ranks == best) & first)
    return rows[kept]


def _ordered(cells: pd.Series, product: Product) -> pd.Series:
    numbers = pd.to_numeric(as_text(cells), errors="coerce")
    if (numbers.notna() | cells.isna()).all():
        return numbers
    times = parse_moment(cells)
    is_time = times.notna() | cells.isna()
    if not is_time.all():
        raise UserError(
            f"params.yaml: products.{product.name}.source.latest_by: {product.source.latest_by} "
            f"must hold numbers alone or times alone, and {(~is_time).mean():.0%} of {len(cells):,} cells are no time; "
            'set source.time_format to how they are written, such as "%d.%m.%Y %H:%M", or name another column'
        )
    return times
