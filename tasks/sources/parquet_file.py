"""Read Parquet without what pandas would change of it."""

import math
from typing import IO

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.rows.casting import cell_text
from tasks.sources.unreadable import with_unreadable


def read_parquet(file: IO[bytes]) -> pd.DataFrame:
    """Return the table, integers exact and NaN as text. Raises ValueError or an Arrow error where it is damaged."""
    table = pq.ParquetFile(file, page_checksum_verification=True).read()
    table.validate(full=True)  # text that is no UTF-8 would fail much later
    for place, field in enumerate(table.schema):
        plain = _plain(table.column(place), field.type)
        table = table.set_column(place, field.name, plain)
    return with_unreadable(table.to_pandas(integer_object_nulls=True, ignore_metadata=True), [])


def _plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column that pandas leaves alone: NaN as text, which it would make a missing cell, and bytes as text."""
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type), kind.value_type)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            return column.cast(pa.large_string())
        except pa.ArrowInvalid:
            return column
    if pa.types.is_floating(kind) and pc.any(pc.is_nan(column)).as_py():
        # Each as our own text of a number is, so that a column reads alike with and without a NaN.
        cells = column.cast(pa.float64()).to_pylist()
        texts = [cell if cell is None else "NaN" if math.isnan(cell) else cell_text(cell) for cell in cells]
        return pa.chunked_array([pa.array(texts, pa.string())])
    return column
