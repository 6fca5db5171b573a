"""Cells as delivered, made into the declared types; a cell that does not fit becomes missing and is told of.

Never a changed value: text stays as it is, and a number that a 64-bit float cannot hold is not a number here.
"""

import numpy as np
import pandas as pd

from tasks.ingest import parse_time
from tasks.params import Target

LABEL_SEPARATOR = "|"
_TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def cast_column(values: pd.Series, kind: str) -> tuple[pd.Series, pd.Series]:
    """`values` as a category, number, time or text, and which of them did not fit (bool, same index)."""
    present = values.notna()
    if kind == "number":
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
        values = values.map(_joined)
    return cast_column(values, "category")


def _text(values: pd.Series) -> pd.Series:
    """Text of each value; containers have none. A whole float such as 3.0, made so by a gap, reads as 3."""
    if pd.api.types.is_float_dtype(values):
        whole = values.notna() & (values == np.floor(values)) & (values.abs() < 2**53)
        texts = values.astype("str").astype(object)
        texts[whole] = values[whole].astype("int64").astype("str")
        return texts.where(values.notna(), None).astype("str")
    if values.dtype == object:
        values = values.map(lambda value: None if isinstance(value, list | dict | np.ndarray) else value)
    return values.astype("str").where(values.notna(), None).astype("str")


def _joined(value: object) -> object:
    labels = value if isinstance(value, list | np.ndarray) else str(value).split(LABEL_SEPARATOR) if value else []
    return LABEL_SEPARATOR.join(sorted({str(label).strip() for label in labels} - {""}))
