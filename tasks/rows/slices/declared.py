"""Find the rows of each slice that a product declares; what an entry may say, `tasks.params.slices` says."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from model.features.kinds import KINDS
from tasks.params import Product, SliceRule, slice_rule

MAX_VALUES = 20
"""Slices of an entry that names a column alone: its most frequent values."""

_COMPARED: dict[str, Callable[[Any, Any], pd.Series]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some rows of a table, by a name that is the same in every table."""

    declaration: str
    """The entry of `slices`; those of one entry are compared with each other."""
    name: str
    """`by_depot=D1`, `by_depot is missing`, or for a comparison its entry's name, and the same after `not`."""
    rows: np.ndarray
    """bool [n]: which rows of the table belong to it."""


def slice_columns(product: Product) -> list[str]:
    """Return the columns that a table must have for `declared_slices`."""
    return list(dict.fromkeys(slice_rule(text).column for text in product.slices.values()))


def declared_slices(table: pd.DataFrame, product: Product) -> list[Slice]:
    """Return every declared slice of a table of valid rows that has a row there; the same row may be in several.

    A row in which the column of a comparison is missing is on neither side of it.
    """
    found = []
    for name, text in product.slices.items():
        rule = slice_rule(text)
        column = table[rule.column]
        found += _by_comparison(name, rule, column, product) if rule.operator else _by_value(name, column)
    return [each for each in found if each.rows.any()]


def _by_value(name: str, column: pd.Series) -> list[Slice]:
    """Return a slice for each frequent value of a column, in the order of the values, and one for missing cells."""
    counts = column.value_counts().sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    slices = [
        Slice(declaration=name, name=f"{name}={_text(value)}", rows=(column == value).fillna(False).to_numpy(bool))
        for value in sorted(counts.index[:MAX_VALUES])
    ]
    return [*slices, Slice(declaration=name, name=f"{name} is missing", rows=column.isna().to_numpy())]


def _text(value: object) -> str:
    """Return a value as a part of a name: a whole number without a point."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _by_comparison(name: str, rule: SliceRule, column: pd.Series, product: Product) -> list[Slice]:
    """Return the rows of which a comparison is true, and those of which it is not."""
    cells = KINDS[product.kinds[rule.column]].cells
    value = {"float64": rule.number, "datetime64[s]": np.datetime64(rule.day)}.get(cells, rule.value)
    compared = _COMPARED[rule.operator](column, value)
    known = column.notna().to_numpy()
    is_true = compared.fillna(False).to_numpy(bool) & known
    return [
        Slice(declaration=name, name=name, rows=is_true),
        Slice(declaration=name, name=f"not {name}", rows=known & ~is_true),
    ]
