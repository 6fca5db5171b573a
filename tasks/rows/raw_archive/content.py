"""Bring rows into the form in which they are stored, and say what identifies their content."""

import hashlib
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from model.heads.multilabel import LABEL_SEPARATOR
from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.rows.casting import cell_text
from tasks.rows.keys import row_ids


def undated_row_ids(undated: pd.DataFrame, product: Product) -> pd.Series:
    """Return an id for each row without an event date, which does not depend on the declared columns.

    It is made of key, time and the text of a row that cannot be read, which every version of a declaration has.
    """
    lasting = dict.fromkeys([*product.key, product.time, *UNREADABLE_COLUMNS])
    return row_ids(undated.reindex(columns=list(lasting)))


def canonical(table: pa.Table) -> pa.Table:
    """Return rows as they are stored: the same bytes for the same cells, whatever lay beside them in a delivery."""
    columns: dict[str, pa.Array] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        if column.null_count == len(column):
            if name in UNREADABLE_COLUMNS:
                continue
            column = pa.nulls(len(column))
        columns[name] = column
    return pa.table(columns)


def content_digest(table: pa.Table) -> str:
    """Return what identifies the cells of a table, with their types and their order."""
    found = hashlib.blake2b(digest_size=16)
    for name in table.column_names:
        column = table[name].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column
        kind = "string" if pa.types.is_large_string(column.type) else str(column.type)
        found.update(f"{name}\0{kind}\0{len(column)}\0".encode())
        if column.null_count:
            found.update(np.packbits(pc.is_valid(column).to_numpy(zero_copy_only=False)).tobytes())
        for part in _cells(column):
            found.update(part)
    return found.hexdigest()


def _cells(column: pa.Array) -> list[bytes | memoryview]:
    """Return the cells of a column as bytes that do not depend on where they lie in memory."""
    kind = column.type
    if pa.types.is_null(kind):
        return []
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        filled = pc.fill_null(column, "" if not pa.types.is_binary(kind) else b"")
        lengths = pc.binary_length(filled).cast(pa.int64()).to_numpy(zero_copy_only=False)
        size = np.dtype(np.int64 if pa.types.is_large_string(kind) else np.int32)
        offsets = np.frombuffer(filled.buffers()[1], size)[filled.offset : filled.offset + len(filled) + 1]
        data = filled.buffers()[2]
        return [lengths.tobytes(), memoryview(data)[offsets[0] : offsets[-1]] if data is not None else b""]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return [pc.fill_null(column, pa.scalar(0).cast(kind)).to_numpy(zero_copy_only=False).tobytes()]
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        numbers = column.cast(pa.int64() if kind.bit_width == 64 else pa.int32())
        return [pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False).tobytes()]
    return [str(column.to_pylist()).encode()]  # lists of labels, decimals: rare


_UNIFORM = ("string", "integer", "floating", "boolean", "bytes", "date", "datetime", "datetime64", "empty")
"""What pandas calls the cells of a column that hold neither mappings nor decimals."""


def storable(values: pd.Series) -> pd.Series:
    """Return a column that Parquet can hold: one of mixed types becomes text, for `validate` to judge cell by cell."""
    if values.dtype != object:
        return values
    found = pd.api.types.infer_dtype(values, skipna=True)
    # Of decimals Arrow would give each cell the digits of the longest one.
    if found in _UNIFORM or not (found == "decimal" or values.map(lambda cell: isinstance(cell, dict | Decimal)).any()):
        try:
            pa.array(values, from_pandas=True)
            return values
        except (pa.ArrowException, OverflowError):
            pass
    return values.map(
        lambda cell: LABEL_SEPARATOR.join(map(str, cell)) if isinstance(cell, list) else cell_text(cell),
        na_action="ignore",
    )
