"""Sum up each day of checked rows in the few numbers by which days are compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd

from model.features.kinds import kind_class
from tasks.params import Product
from tasks.quality.checked_table import CheckedTable

CATEGORIES_KEPT = 200
"""Of a day's categories the most frequent are counted apart: ten times what is told apart when days are compared."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
DIGITS = 6
"""Of a quantile, so that a day takes little space."""


@dataclass(frozen=True, kw_only=True)
class DaySummary:
    """What days are compared by: a day's counts of rows, missing cells and categories, without any row."""

    date: str
    """The day."""
    rows_in: int = 0
    """Rows that arrived."""
    rows_valid: int = 0
    """Rows that break no rule."""
    missing: Mapping[str, int] = field(default_factory=dict)
    """Missing cells of the valid rows, by column."""
    categories: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Valid rows by category, the most frequent ones, by column."""
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The QUANTILES of the valid rows' cells, by column; none of a column without a cell."""

    @property
    def rows_quarantined(self) -> int:
        """Return how many rows break a rule."""
        return self.rows_in - self.rows_valid


def category_columns(product: Product) -> list[str]:
    """Return the inputs whose mix of values is compared."""
    return [name for name, kind in product.columns.items() if kind_class(kind).reads_as == "labels"]


def number_columns(product: Product) -> list[str]:
    """Return the inputs whose quantiles are compared."""
    return [name for name, kind in product.columns.items() if kind_class(kind).has_quantiles]


def quantiles(cells: np.ndarray) -> tuple[float, ...]:
    """Return the QUANTILES of cells, none where none is finite: between values in proportion to how often these come.

    So a quantile of counts, or of many equal cells, moves little where little has changed.

    >>> quantiles(np.array([0.0, 0.0, 1.0, 1.0, np.nan]))
    (0.0, 0.0, 0.5, 1.0, 1.0)

    Shapes: float64 [n]. Source: Ma, Genton and Parzen 2011 (quantiles of the mid-distribution function).
    """
    values, counts = np.unique(cells[np.isfinite(cells)], return_counts=True)
    if not len(values):
        return ()
    middles = (np.cumsum(counts) - counts / 2) / counts.sum()
    return tuple(float(f"{each:.{DIGITS}g}") for each in np.interp(QUANTILES, middles, values))


def sum_up_days(checked: CheckedTable, product: Product, since: date) -> dict[str, DaySummary]:
    """Return the summaries of the days of a table from one on, by day; the table holds each of them whole."""
    day = checked.delivered["dt"]
    is_wanted = day >= since.isoformat()
    if not is_wanted.any():
        return {}
    counts = pd.DataFrame({"dt": day, "valid": checked.is_valid})[is_wanted]
    counts = counts.groupby("dt", sort=True)["valid"].agg(["size", "sum"])
    typed = checked.typed[checked.is_valid & is_wanted]
    missing = typed[list(product.columns)].isna().groupby(typed["dt"]).sum()
    categories: dict[str, dict[str, Mapping[str, int]]] = {}
    for name in category_columns(product):
        for each, values in typed.groupby("dt", sort=True)[name]:
            found = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")[:CATEGORIES_KEPT]
            categories.setdefault(str(each), {})[name] = {str(value): int(n) for value, n in found.items()}
    numbers: dict[str, dict[str, tuple[float, ...]]] = {}
    for name in number_columns(product):
        for each, values in typed.groupby("dt", sort=True)[name]:
            if found_quantiles := quantiles(values.to_numpy(np.float64, na_value=np.nan)):
                numbers.setdefault(str(each), {})[name] = found_quantiles
    return {
        str(each): DaySummary(
            date=str(each),
            rows_in=int(size),
            rows_valid=int(n_valid),
            missing={str(name): int(n) for name, n in missing.loc[each].items()} if n_valid else {},
            categories=categories.get(str(each), {}),
            numbers=numbers.get(str(each), {}),
        )
        for each, size, n_valid in counts.itertuples()
    }
