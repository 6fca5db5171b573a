"""Read Parquet without what pandas would change of it.

A cell is delivered as the value that it is, or as its text where Python has no such value: a date beyond the year 9999,
a part of a second below the microsecond. Not a number, in a column of floats, is how numpy and pandas write a missing
cell, and is one. Sixteen bytes are a UUID; other bytes are text where they are UTF-8.
"""

import uuid
from collections.abc import Collection
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.sources.formats.unreadable import with_unreadable

UUID_BYTES = 16


def read_parquet(file: IO[bytes], declared: Collection[str] = ()) -> pd.DataFrame:
    """Return the table, integers exact; where it has all `declared` columns these alone, and none else is read.

    Raises ValueError or an Arrow error where it is damaged.
    """
    # INT96 holds years far beyond those that an integer of nanoseconds can count.
    parquet = pq.ParquetFile(file, page_checksum_verification=True, coerce_int96_timestamp_unit="us")
    has_all = bool(declared) and {*declared} <= {*parquet.schema_arrow.names}
    table = parquet.read(columns=list(declared) if has_all else None)
    table.validate(full=True)  # text that is no UTF-8 would fail much later
    columns = {place: cells(table.column(place)) for place in range(table.num_columns)}
    frame = pd.DataFrame(columns, index=range(table.num_rows))
    return with_unreadable(frame.set_axis(table.column_names, axis=1), [])


def cells(column: pa.ChunkedArray) -> pd.Series:
    """Return a column as pandas holds it, its integers exact and each value as it is, or as its text."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):  # a UUID, JSON: the type that it is stored as says all
        return cells(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    if pa.types.is_dictionary(kind):
        return cells(column.cast(kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        return cells(pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], kind.value_type))
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == UUID_BYTES:
        texts = [None if cell is None else str(uuid.UUID(bytes=cell)) for cell in column.to_pylist()]
        return pd.Series(texts, dtype="str")
    if _is_bytes(kind):
        return pd.Series([_text_or_bytes(cell) for cell in column.to_pylist()], dtype=object)
    if pa.types.is_date(kind):
        return _dates(column)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return _moments(column)
    if pa.types.is_time64(kind) and kind.unit == "ns" and _has_nanoseconds(column):
        column = column.cast(pa.string())
    return column.to_pandas(integer_object_nulls=True)


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _text_or_bytes(cell: bytes | None) -> str | bytes | None:
    try:
        return None if cell is None else cell.decode()
    except UnicodeDecodeError:
        return cell


def _dates(column: pa.ChunkedArray) -> pd.Series:
    """Return dates, and as text those of a year that Python has not."""
    days = column.cast(pa.date32()).cast(pa.int32())
    outside = _outside(days, np.datetime64("0001-01-01", "D"), np.datetime64("9999-12-31", "D"))
    return _with_texts(column, days, outside, "D", "")


def _moments(column: pa.ChunkedArray) -> pd.Series:
    """Return moments in their time zone, and as text in UTC those that a zone may move out of the years there are."""
    unit = column.type.unit
    years = ("1677-09-23", "2262-04-10") if unit == "ns" else ("0001-01-03", "9999-12-29")
    first, last = (np.datetime64(day, unit) for day in years)
    ticks = column.cast(pa.int64())
    return _with_texts(column, ticks, _outside(ticks, first, last), unit, "Z")


def _outside(ticks: pa.ChunkedArray, first: np.datetime64, last: np.datetime64) -> pa.ChunkedArray:
    low, high = (int(end.astype(np.int64)) for end in (first, last))
    return pc.fill_null(pc.or_(pc.less(ticks, low), pc.greater(ticks, high)), False)


def _with_texts(
    column: pa.ChunkedArray, ticks: pa.ChunkedArray, outside: pa.ChunkedArray, unit: str, zone: str
) -> pd.Series:
    inside = pc.if_else(outside, pa.scalar(None, column.type), column).to_pandas()
    if not pc.any(outside).as_py():
        return inside
    is_outside = outside.to_numpy().astype(bool)
    found = inside.astype(object).where(inside.notna(), None)
    far = pc.filter(ticks, outside).to_numpy().astype(np.int64).astype(f"M8[{unit}]")
    found[is_outside] = [f"{text}{zone}" for text in far.astype(str)]
    return found


def _has_nanoseconds(column: pa.ChunkedArray) -> bool:
    ticks = pc.drop_null(column.cast(pa.int64())).to_numpy()
    return bool((ticks % 1000).any())
