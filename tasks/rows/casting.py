"""Cast cells as delivered to the declared types; a cell that does not fit becomes missing and is reported.

A value is never changed: text stays as it is, and a number that a 64-bit float cannot hold, such as 1e999 or an integer
past 2^53 that it would round, does not fit: such a column is a category.
"""

import re
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation

import numpy as np
import pandas as pd

from model.features.kinds import KINDS, kind_class
from model.heads import head_of
from tasks.params import Target

_DAY_FIRST = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ].+)?|[0-9]{8}(?:T.+)?"
_SURPLUS = r"([.,][0-9]{6})[0-9]+"
"""Digits of a second beyond the sixth: pandas would read the whole column to the nanosecond, which has no year beyond
2262."""
_UTC = r" ?UTC$"
"""How databases write the zone that ISO 8601 writes as Z."""
_EXACT = 2**53
"""From here on a 64-bit float skips integers."""


def parse_time(values: pd.Series) -> pd.Series:
    """Return ISO 8601 dates and times as datetime64[s] in UTC without a zone; NaT where a value is none.

    A value must name its day: neither a year or month alone nor a word such as `today` is a date. Parts of a
    second are cut off, and a time without a zone is taken for UTC.
    """
    parsed = parse_moment(values).dt.tz_localize(None).astype("datetime64[s]")
    return parsed.where(parsed.dt.year.between(1, 9999))


def parse_moment(values: pd.Series) -> pd.Series:
    """Return dates and times as `parse_time` knows them, with parts of a second, as moments in UTC."""
    if pd.api.types.is_numeric_dtype(values):  # a bare number is no date, though pandas would take it for one
        return pd.Series(pd.NaT, index=values.index, dtype="datetime64[s, UTC]")
    if values.dtype == object and pd.api.types.infer_dtype(values, skipna=True) == "date":
        places, dates = pd.factorize(values)  # many rows have the same one
        parsed = pd.to_datetime(pd.Series(dates, dtype=object), errors="coerce", utc=True, format="ISO8601")
        return pd.Series(parsed.array.take(places, allow_fill=True), values.index, name=values.name)
    if values.dtype == object:
        values = values.where(values.map(_may_be_time), None)
        values = values.map(
            lambda cell: re.sub(_UTC, "Z", re.sub(_SURPLUS, r"\1", cell)) if isinstance(cell, str) else cell
        )
    elif not pd.api.types.is_datetime64_any_dtype(values):
        values = as_text(values)
        values = values.where(values.str.fullmatch(_DAY_FIRST, na=False), None)
        values = values.str.replace(_SURPLUS, r"\1", regex=True).str.replace(_UTC, "Z", regex=True)
    return pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")


def _may_be_time(cell: object) -> bool:
    return isinstance(cell, date | np.datetime64) or (
        isinstance(cell, str) and re.fullmatch(_DAY_FIRST, cell) is not None
    )


def event_day(values: pd.Series) -> pd.Series:
    """Return the dates of a time column as YYYY-MM-DD, missing where a value is no date."""
    return parse_time(values).dt.strftime("%Y-%m-%d")


def as_text(values: pd.Series) -> pd.Series:
    """Return the text of each cell, whatever type a reader chose for it.

    A whole float, which integers with a gap become, reads as an integer:

    >>> as_text(pd.Series([1, None])).tolist()[0]
    '1'
    """
    if pd.api.types.is_float_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        values = values.astype(object).where(values.notna(), None)
    if values.dtype == object:
        return values.map(cell_text, na_action="ignore").astype("str")
    if values.dtype == "str":
        return values
    return values.astype("str").where(values.notna(), None).astype("str")


def cast_column(values: pd.Series, kind: str) -> tuple[pd.Series, pd.Series]:
    """Return `values` as a column of its kind, and which of them did not fit (bool, same index).

    Where numbers are wanted, `NaN` is a missing one, as it is in a column of floats.
    """
    if KINDS[kind].cells == "float64":
        values = without_nan(values)
    cast = _CASTS[KINDS[kind].cells](values)
    fits = cast.notna()
    if fits.any():
        fits[fits] = ~kind_class(kind).misfits(cast[fits].to_numpy())
        cast = cast.where(fits)
    return cast, values.notna() & ~fits


def without_nan(values: pd.Series) -> pd.Series:
    """Return a column in which the text NaN is a missing cell."""
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return values
    is_nan = values.map(lambda cell: isinstance(cell, str) and cell == "NaN", na_action="ignore")
    is_nan = is_nan.fillna(False).astype(bool)
    return values.where(~is_nan, None) if is_nan.any() else values


def _numbers(values: pd.Series) -> pd.Series:
    """Return finite numbers that a 64-bit float holds exactly; NaN for all else."""
    if not (pd.api.types.is_numeric_dtype(values) or values.dtype == object):  # pandas would count seconds
        values = as_text(values)
    if values.dtype == object:
        values = values.where(~values.map(lambda cell: isinstance(cell, date | timedelta | bytes)), "")
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    return numbers.where(np.isfinite(numbers) & ~_rounded(values, numbers))


def _rounded(values: pd.Series, numbers: pd.Series) -> pd.Series:
    """Which cells a 64-bit float would change: long integers, and what it takes for zero."""
    suspect = numbers.abs() >= _EXACT
    if pd.api.types.is_float_dtype(values):
        return suspect & False
    if not pd.api.types.is_numeric_dtype(values):
        zero = numbers == 0
        suspect[zero] = as_text(values[zero]).str.contains("[1-9]", na=False)
    changed = [_differ(cell, number) for cell, number in zip(values[suspect], numbers[suspect], strict=True)]
    suspect[suspect] = np.array(changed, bool)
    return suspect


def _differ(cell: object, number: float) -> bool:
    if isinstance(cell, float) or not np.isfinite(number):
        return False
    try:
        exact = Decimal(str(cell).strip())
    except InvalidOperation:
        return False
    return exact != Decimal(number) if "e" not in str(cell).lower() else number == 0 != exact


def has_label(cells: pd.Series) -> pd.Series:
    """Return which cells of a target hold a label: where one is blank, or NaN, it is not known yet."""
    if pd.api.types.is_numeric_dtype(cells):
        return cells.notna()
    blank = cells.map(lambda cell: isinstance(cell, str) and cell.strip() in ("", "NaN"), na_action="ignore")
    return cells.notna() & ~blank.fillna(False).astype(bool)


def cast_target(values: pd.Series, target: Target) -> tuple[pd.Series, pd.Series]:
    """Return labels as their task has them, and which cells did not fit (bool, same index).

    Int8 of a closed set of labels, by `target.positive` where it is given; text of classes; float64 of numbers.
    """
    head = head_of(target.task)
    if head.label_values:
        labels = _yes_or_no(values, target) if target.positive else label_words(values).map(head.label_values)
        return labels.astype("Int8"), values.notna() & labels.isna()
    if head.normalises_labels:
        values = values.map(head.normalise_label, na_action="ignore")
    labels, misfit = cast_column(values, head.label_kind)
    if head.largest_label < np.inf:
        is_large = labels.abs() > head.largest_label
        return labels.mask(is_large), misfit | is_large
    return labels, misfit


def label_words(values: pd.Series) -> pd.Series:
    """Return labels of a yes or no as text in lower case, by which they are compared.

    Whole numbers are without .0, and the byte that some drivers deliver of a `bit` column is 0 or 1.
    """
    if values.dtype == object:
        values = values.map(lambda cell: cell[0] if isinstance(cell, bytes) and len(cell) == 1 else cell)
    words = values.astype("str").where(values.notna(), None).astype("str").str.strip().str.lower()
    return words.str.replace(r"^([+-]?[0-9]+)\.0+$", r"\1", regex=True)


def label_word(label: str) -> str:
    """Return a label as `label_words` does.

    >>> label_word(" Yes"), label_word("2.0")
    ('yes', '2')
    """
    return str(label_words(pd.Series([label]))[0])


def _yes_or_no(values: pd.Series, target: Target) -> pd.Series:
    """Return 1 for the positive value and 0 for the negative, or for any other where none is declared."""
    words = label_words(values)
    is_yes = words.eq(label_word(target.positive or ""))
    is_no = words.eq(label_word(target.negative)) if target.negative else words.notna() & words.ne("") & ~is_yes
    return is_yes.astype("Int8").where(is_yes | is_no)


def _texts(values: pd.Series) -> pd.Series:
    """Return the text of each value; containers have none."""
    if values.dtype == object:
        values = values.where(~values.map(lambda cell: isinstance(cell, list | dict | np.ndarray | bytes)), None)
    return as_text(values)


def cell_text(cell: object) -> str:
    """Return the text of one cell that is not missing."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return str(int(cell))
    return str(cell)


_CASTS = {"str": _texts, "float64": _numbers, "datetime64[s]": parse_time}
"""By the type of a kind's cells, how they are cast; what does not fit becomes missing."""
