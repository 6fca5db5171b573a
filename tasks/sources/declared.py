"""Take the declared columns out of what a source delivers."""

import pandas as pd

from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.rows.arrivals import source_columns
from tasks.runtime.errors import UserError


def declared_columns(frame: pd.DataFrame, product: Product) -> pd.DataFrame:
    """Return the declared columns and those that describe unreadable rows. Raises UserError where one is missing."""
    wanted = [*source_columns(product), product.target.name]
    missing = [name for name in wanted if name not in frame.columns]
    delivered = [str(name) for name in frame.columns if name not in UNREADABLE_COLUMNS]
    if missing:
        source = f"params.yaml: products.{product.name}.source"
        if len(missing) == len(wanted):  # the names may be the cells of a row, and are not shown
            raise UserError(
                f"{source} must deliver every declared column, and delivers none of {', '.join(wanted)} in its "
                f"{len(delivered)} columns; is its first line a header (source.skip_lines), and source.delimiter right?"
            )
        spaced = any(name != name.strip() for name in delivered)
        raise UserError(
            f"{source} must deliver every declared column, and lacks {', '.join(missing)}; it has "
            f"{', '.join(repr(name) if name != name.strip() else name for name in delivered)}; "
            + ("set source.skip_space: true" if spaced else "say under source.names what a column is called there")
        )
    return frame[[*wanted, *(name for name in UNREADABLE_COLUMNS if name in frame.columns)]]
