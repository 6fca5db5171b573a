"""Cells as delivered, made into the declared types; a cell that does not fit becomes missing and is told of.

Never a changed value: text stays as it is, and what a 64-bit float cannot hold, such as 1e999, is not a number here.
"""

import numpy as np
import pandas as pd

from tasks.params import Target

LABEL_SEPARATOR = "|"
_TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def parse_time(values: pd.Series) -> pd.Series:
    """ISO 8601 dates and times as datetime64[s] in UTC without a zone; NaT where a value is none."""
    if pd.api.types.is_numeric_dtype(values):  # a bare number is no date, though pandas would take it for one
        return pd.Series(pd.NaT, index=values.index, dtype="datetime64[s]")
    if values.dtype == object:
        values = values.where(~values.map(lambda cell: isinstance(cell, int | float | list | dict | np.ndarray)), None)
    parsed = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    return parsed.dt.tz_localize(None).astype("datetime64[s]")


def event_day(values: pd.Series) -> pd.Series:
    """The dates of a time column as YYYY-MM-DD, missing where a value is no date."""
    return parse_time(values).dt.strftime("%Y-%m-%d")


def as_text(values: pd.Series) -> pd.Series:
    """Text of each cell, whatever type a reader chose for it: a whole float, made so by a gap, reads as an integer."""
    if pd.api.types.is_float_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        values = values.astype(object).where(values.notna(), None)
    if values.dtype == object:
        return values.map(_cell_text, na_action="ignore").astype("str")
    return values.astype("str").where(values.notna(), None).astype("str")


def cast_column(values: pd.Series, kind: str) -> tuple[pd.Series, pd.Series]:
    """`values` as a category, number, time or text, and which of them did not fit (bool, same index)."""
    present = values.notna()
    if kind == "number":
        if pd.api.types.is_datetime64_any_dtype(values):  # pandas would count its seconds
            values = as_text(values)
        numbers = pd.to_numeric(values, errors="coerce").astype("float64")
        numbers = numbers.where(np.isfinite(numbers))
        return numbers, present & numbers.isna()
    if kind == "time":
        times = parse_time(values)
        return times, present & times.isna()
    texts = _text(values)
    return texts, present & texts.isna()


def cast_target(values: pd.Series, target: Target) -> tuple[pd.Series, pd.Series]:
    """The truth as int8 (binary), text (multiclass, and multilabel joined by `|`) or float64 (regression)."""
    if target.task == "regression":
        return cast_column(values, "number")
    if target.task == "binary":
        truth = values.astype("str").str.lower().map(_TRUTH)
        return truth.astype("Int8"), values.notna() & truth.isna()
    if target.task == "multilabel":
        values = values.map(_joined, na_action="ignore")
    return cast_column(values, "category")


def _text(values: pd.Series) -> pd.Series:
    """Text of each value; containers have none."""
    if values.dtype == object:
        values = values.where(~values.map(lambda cell: isinstance(cell, list | dict | np.ndarray)), None)
    return as_text(values)


def _cell_text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return str(int(cell))
    return str(cell)


def _joined(value: object) -> object:
    labels = value if isinstance(value, list | np.ndarray) else str(value).split(LABEL_SEPARATOR) if value else []
    return LABEL_SEPARATOR.join(sorted({str(label).strip() for label in labels} - {""}))
