"""Read Parquet without what pandas would change of it.

A cell is delivered as the value that it is, or as its text where Python has no such value: a date beyond the year 9999,
a part of a second below the microsecond. Not a number, in a column of floats, is how numpy and pandas write a missing
cell, and is one. Sixteen bytes are a UUID; other bytes are text where they are UTF-8.
"""

import uuid
from collections.abc import Collection, Iterator
from datetime import date, datetime
from typing import IO
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.params import ParquetSource
from tasks.sources.formats.pieces import PIECE_ROWS, RawPiece, Wanted, digest_of
from tasks.sources.formats.unreadable import with_unreadable

UUID_BYTES = 16
_READ_BYTES = 2**20
"""Pages are read through a buffer of this size, so that a group of any length takes no more memory."""


def parquet_pieces(file: IO[bytes], _: ParquetSource, wanted: Wanted) -> Iterator[RawPiece]:
    """Yield groups of rows, integers exact; where the file has all declared columns these alone, and none else is read.

    Small groups are read together, a large one in parts. A group is left out by the statistics of its dates alone.
    Raises ValueError or an Arrow error where the file is damaged.
    """
    # INT96 holds years far beyond those that an integer of nanoseconds can count.
    reader = _Reader(file, wanted.declared)
    for number, groups in enumerate(reader.pieces()):
        n_rows = sum(reader.n_rows(group) for group in groups)
        days = reader.days(groups, wanted)
        if days is not None and wanted.leaves_out(days):
            yield RawPiece(number=str(number), digest="", rows=None, n_rows=n_rows, days=days)
            continue
        digest = reader.digest(groups)
        parts = range(max(1, -(-n_rows // PIECE_ROWS)) if len(groups) == 1 else 1)
        numbers = [f"{number}.{part}" if len(parts) > 1 else str(number) for part in parts]
        known = [wanted.is_known(each, digest) for each in numbers]
        tables = iter(()) if all(known) else reader.tables(groups, len(parts))
        for each, is_known in zip(numbers, known, strict=True):
            rows = None if all(known) else frame_of(next(tables))
            yield RawPiece(
                number=each, digest=digest, rows=None if is_known else rows, n_rows=None if rows is None else len(rows)
            )


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Return a table as pandas holds it."""
    table.validate(full=True)  # text that is no UTF-8 would fail much later
    columns = {place: cells(table.column(place)) for place in range(table.num_columns)}
    frame = pd.DataFrame(columns, index=range(table.num_rows))
    return with_unreadable(frame.set_axis(table.column_names, axis=1), [])


class _Reader:
    """A file of Parquet, its groups and their bytes."""

    def __init__(self, file: IO[bytes], declared: Collection[str]) -> None:
        self._file = file
        self._parquet = self._open("us")
        schema = self._parquet.schema_arrow
        has_all = bool(declared) and {*declared} <= {*schema.names}
        self._columns = list(declared) if has_all else None
        leaves = [self._parquet.schema.column(place) for place in range(len(self._parquet.schema))]
        self._leaves = [
            place for place, leaf in enumerate(leaves) if not has_all or leaf.path.partition(".")[0] in declared
        ]
        self._long_ago = [leaf.name for leaf in leaves if leaf.physical_type == "INT96" and leaf.path in schema.names]
        named = [field.remove_metadata() for field in schema if not has_all or field.name in declared]
        self._identity = str(named).encode()

    def _open(self, unit: str) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._file,
            page_checksum_verification=True,
            coerce_int96_timestamp_unit=unit,
            buffer_size=_READ_BYTES,
        )

    def n_rows(self, group: int) -> int:
        """Return how many rows a group has."""
        return self._parquet.metadata.row_group(group).num_rows

    def pieces(self) -> Iterator[list[int]]:
        """Yield the groups of each piece, in order, so that those of the first ones stay when others follow."""
        groups: list[int] = []
        n_rows = 0
        for group in range(self._parquet.num_row_groups):
            if groups and n_rows + self.n_rows(group) > PIECE_ROWS:
                yield groups
                groups, n_rows = [], 0
            groups, n_rows = [*groups, group], n_rows + self.n_rows(group)
        yield groups

    def digest(self, groups: list[int]) -> str:
        """Return a digest over the bytes of the groups' columns, and over what they mean."""
        return digest_of(self._identity, *(part for group in groups for part in self._bytes_of(group)))

    def _bytes_of(self, group: int) -> Iterator[bytes]:
        content = self._parquet.metadata.row_group(group)
        yield content.num_rows.to_bytes(8)
        for place in self._leaves:
            chunk = content.column(place)
            self._file.seek(min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset))))
            rest = chunk.total_compressed_size
            while rest > 0 and (data := self._file.read(min(rest, 2**24))):
                yield data
                rest -= len(data)

    def days(self, groups: list[int], wanted: Wanted) -> tuple[str, str] | None:
        """Return the first and last date of the groups; None where their statistics do not say."""
        place = next((each for each in self._leaves if self._parquet.schema.column(each).path == wanted.time), None)
        if place is None:
            return None
        found: list[str] = []
        for group in groups:
            ends = _ends(self._parquet.metadata.row_group(group).column(place), wanted.zone)
            if ends is None:
                return None
            found += ends
        return (min(found), max(found)) if found else None

    def tables(self, groups: list[int], n_parts: int) -> Iterator[pa.Table]:
        """Yield the rows of the groups, in so many parts."""
        size = PIECE_ROWS if n_parts > 1 else max(1, sum(self.n_rows(group) for group in groups))
        far_columns = [name for name in self._long_ago if self._columns is None or name in self._columns]
        batches = self._batches(self._parquet, groups, size, self._columns)
        seconds = self._batches(self._open("s"), groups, size, far_columns) if far_columns else None
        for table in batches:
            yield table if seconds is None else _with_far_years(table, next(seconds))

    def _batches(
        self, parquet: pq.ParquetFile, groups: list[int], size: int, columns: list[str] | None
    ) -> Iterator[pa.Table]:
        if sum(self.n_rows(group) for group in groups) <= size:
            yield parquet.read_row_groups(groups, columns=columns)
            return
        rest = parquet.schema_arrow.empty_table().select(columns if columns is not None else parquet.schema_arrow.names)
        for batch in parquet.iter_batches(batch_size=size, row_groups=groups, columns=columns):
            rest = pa.concat_tables([rest, pa.Table.from_batches([batch]).select(rest.column_names)])
            while len(rest) >= size:
                yield rest.slice(0, size)
                rest = rest.slice(size)
        if len(rest):
            yield rest


def _ends(chunk: pq.ColumnChunkMetaData, zone: str) -> list[str] | None:
    """Return the first and last date of a chunk of a column of dates or moments, if all its rows have one."""
    statistics = chunk.statistics
    if statistics is None or not statistics.has_min_max or not statistics.has_null_count or statistics.null_count:
        return None
    try:
        ends = [statistics.min, statistics.max]
    except (ValueError, OverflowError):  # a year that Python has not
        return None
    if all(isinstance(end, datetime) for end in ends):
        return [(end if end.tzinfo is None else end.astimezone(ZoneInfo(zone))).date().isoformat() for end in ends]
    return [end.isoformat() for end in ends] if all(isinstance(end, date) for end in ends) else None


def _with_far_years(table: pa.Table, seconds: pa.Table) -> pa.Table:
    """Return a table in which a time of 96 bits whose microseconds are too many for an integer is its text."""
    for name in seconds.column_names:
        exact, counted = (each.column(name).cast(pa.int64()) for each in (seconds, table))
        counts, meant = (pc.fill_null(each, 0).to_numpy() for each in (counted, exact))
        wrapped = counts // 10**6 != meant
        if wrapped.any():
            far = pa.array(meant.astype("M8[s]").astype(str).tolist(), pa.string())
            texts = pc.if_else(pa.array(wrapped), far, table.column(name).cast(pa.string()).combine_chunks())
            table = table.set_column(table.column_names.index(name), name, texts)
    return table


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
