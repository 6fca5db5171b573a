"""Sum up each day of checked rows in the few numbers by which days are compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import pandas as pd

from model.features.kinds import kind_class
from tasks.params import Product
from tasks.quality.checked_table import CheckedTable

CATEGORIES_KEPT = 200
"""Of a day's categories the most frequent are counted apart: ten times what is told apart when days are compared."""


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

    @property
    def rows_quarantined(self) -> int:
        """Return how many rows break a rule."""
        return self.rows_in - self.rows_valid


def category_columns(product: Product) -> list[str]:
    """Return the inputs whose mix of values is compared."""
    return [name for name, kind in product.columns.items() if kind_class(kind).reads_as == "labels"]


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
    return {
        str(each): DaySummary(
            date=str(each),
            rows_in=int(size),
            rows_valid=int(n_valid),
            missing={str(name): int(n) for name, n in missing.loc[each].items()} if n_valid else {},
            categories=categories.get(str(each), {}),
        )
        for each, size, n_valid in counts.itertuples()
    }
