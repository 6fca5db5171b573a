"""Sum up each day of checked rows in the few numbers by which days are compared."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

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


def sum_up_days(checked: CheckedTable, product: Product, wanted: Container[str]) -> dict[str, DaySummary]:
    """Return the summaries of the wanted days among those of a table, which holds each day whole; by day."""
    day, is_valid = checked.delivered["dt"], checked.is_valid
    counts = pd.DataFrame({"dt": day, "valid": is_valid}).groupby("dt", sort=True)["valid"].agg(["size", "sum"])
    counts = counts[[str(each) in wanted for each in counts.index]]
    typed = checked.typed[is_valid & day.isin(counts.index)]
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
