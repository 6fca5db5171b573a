"""The rows of one date where they lie: in a file of its own, or in the row groups of its month's file.

In a month's file the columns of days that were stored with other types or other columns lie side by side.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file

WRITING = {"compression": "zstd", "write_page_checksum": True}
"""How Parquet files are written: each page with a checksum, by which a changed byte is seen by whoever reads it."""


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file and check the pages that are read. Raises UserError where it is damaged."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except pa.ArrowException as error:  # cut off, or no Parquet file any more
        raise _damaged(path, error) from None
    try:
        with file:
            yield file
    except OSError as error:
        if error.errno is not None:  # the system's, such as of a full disk; Arrow's own has no number
            raise
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(
        f"{path}: must be as it was written, and is damaged ({reason}); restore it: dvc checkout --force; in a run's "
        "workspace delete that, and clear the task"
    )


@dataclass(frozen=True)
class StoredDay:
    """The rows of one date: a file, or row groups of its month's file."""

    file: Path
    schema: pa.Schema
    """What it was written with. Parquet keeps seconds as milliseconds: what is read may differ."""
    n_rows: int
    groups: range
    """Its row groups."""
    places: tuple[str, ...] = ()
    """In a month's file, the names that its columns have there; see `_places`."""

    @property
    def types_read(self) -> list[pa.DataType]:
        """Return the types of its columns as they are read."""
        with open_parquet(self.file) as file:
            return self.read(file, []).schema.types

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """Return the rows; of `columns` those that are stored."""
        with open_parquet(self.file) as file:
            return self.read(file, self.groups, columns)

    def pieces(self, rows: range | None = None) -> Iterator[pa.Table]:
        """Yield the rows, or those of a range, a row group at a time."""
        with open_parquet(self.file) as file:
            for group, wanted in row_groups(file, self.groups, rows):
                yield self.read(file, [group]).slice(wanted.start, len(wanted))

    def read(self, file: pq.ParquetFile, groups: Iterable[int], columns: list[str] | None = None) -> pa.Table:
        """Return row groups of its open file as they were stored; of `columns` those that are stored."""
        place = dict(zip(self.schema.names, self.places or self.schema.names, strict=True))
        names = self.schema.names if columns is None else [name for name in columns if name in place]
        # One column at least: it says how many rows there are.
        found = file.read_row_groups([*groups], columns=[place[name] for name in names] or [*place.values()][:1])
        null = [pa.types.is_null(self.schema.field(name).type) for name in names]
        cells = [pa.nulls(len(found)) if none else found[place[name]] for name, none in zip(names, null, strict=True)]
        if not names:
            return found.select([])
        return pa.Table.from_arrays(cells, names, metadata=self.schema.metadata)


@dataclass(frozen=True)
class GivenDay:
    """The rows of one date in memory, as they would be read from a file of their own."""

    rows: pa.Table

    @property
    def schema(self) -> pa.Schema:
        """Return what its file would be written with."""
        return _once_stored(_text(self.rows.schema))[0]

    @property
    def types_read(self) -> list[pa.DataType]:
        """Return the types of its columns as they would be read."""
        return _once_stored(_text(self.rows.schema))[1]

    @property
    def n_rows(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def pieces(self) -> Iterator[pa.Table]:
        """Yield the rows."""
        yield self.rows


@lru_cache(maxsize=64)
def _once_stored(text: str) -> tuple[pa.Schema, list[pa.DataType]]:
    """Return the schema that a file of rows has, and the types that are read from it."""
    stored = BytesIO()
    with pq.ParquetWriter(stored, _schema(text)) as writer:
        writer.write_table(_schema(text).empty_table())
    with pq.ParquetFile(stored) as file:
        day = StoredDay(Path(), _schema_of(file), 0, range(0))
        return day.schema, day.read(file, []).schema.types


def row_groups(file: pq.ParquetFile, groups: range, rows: range | None) -> Iterator[tuple[int, range]]:
    """Yield those of the row groups that hold a row of a range counted from the first, with the rows wanted of each."""
    first = 0
    for group in groups:
        end = first + file.metadata.row_group(group).num_rows
        wanted = range(first, end) if rows is None else range(max(first, rows.start), min(end, rows.stop))
        if len(wanted):
            yield group, range(wanted.start - first, wanted.stop - first)
        first = end


def _even(pieces: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """Yield the rows of pieces in new ones of `size` rows, of which the last may have fewer."""
    waiting: list[pa.Table] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= size:
            joined = pa.concat_tables(waiting)
            n_full = len(joined) - len(joined) % size
            yield from (joined.slice(first, size) for first in range(0, n_full, size))
            waiting = [joined.slice(n_full)]
    if any(map(len, waiting)):
        yield pa.concat_tables(waiting)


def day_of_file(file: Path) -> StoredDay:
    """Return the rows of a date that has a file of its own."""
    with open_parquet(file) as opened:
        return StoredDay(file, _schema_of(opened), opened.metadata.num_rows, range(opened.num_row_groups))


def _schema_of(file: pq.ParquetFile) -> pa.Schema:
    """Return what a file was written with."""
    written = (file.metadata.metadata or {}).get(b"ARROW:schema")
    return _schema(written.decode()) if written else file.schema_arrow


@lru_cache(maxsize=1024)
def days_of_month(file: Path, *_state: int) -> dict[date, StoredDay]:
    """Return the dates in a month's file, which is read once as long as it is the same."""
    metadata = pq.read_metadata(file).metadata
    schemas = [_schema(text) for text in json.loads(metadata[b"schemas"])]
    places, days, first = _places(schemas), {}, 0
    for day, (schema, rows, groups) in json.loads(metadata[b"days"]).items():
        in_file = range(first, first := first + groups)
        days[date.fromisoformat(day)] = StoredDay(file, schemas[schema], rows, in_file, places[schema])
    return days


def write_days(path: Path, days: Mapping[date, StoredDay | GivenDay], size: int) -> None:
    """Write dates, in their order, as one file: a column of two types becomes two, and a row group is of one date."""
    texts = {day: _text(stored.schema) for day, stored in days.items()}
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts.values()))}
    places = _places([_schema(text) for text in numbers])
    types: dict[str, pa.DataType] = {}
    for day, stored in days.items():
        for place, kind in zip(places[numbers[texts[day]]], stored.types_read, strict=True):
            if place not in types or pa.types.is_null(types[place]):
                types[place] = kind
    groups = {day: (numbers[texts[day]], stored.n_rows, -(-stored.n_rows // size)) for day, stored in days.items()}
    about = {
        "days": json.dumps({day.isoformat(): each for day, each in groups.items()}),
        "schemas": json.dumps([*numbers]),
    }
    schema = pa.schema(types.items(), metadata=about)
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema, **WRITING) as writer:
        for day, stored in days.items():
            names = places[numbers[texts[day]]]
            for piece in _even(stored.pieces(), size):
                cells = dict(zip(names, piece.columns, strict=True))
                row_group = [
                    cells[name].cast(kind) if name in cells else pa.nulls(len(piece), kind)
                    for name, kind in types.items()
                ]
                writer.write_table(pa.Table.from_arrays(row_group, schema=schema).combine_chunks(), row_group_size=size)


def _places(schemas: list[pa.Schema]) -> list[tuple[str, ...]]:
    """Return what the columns of each schema are called in a file of them all: another type has another column.

    A column without any value has the place of one with values.
    """
    found: dict[str, list[pa.DataType]] = {}
    for field in (field for schema in schemas for field in schema if not pa.types.is_null(field.type)):
        kinds = found.setdefault(field.name, [])
        if field.type not in kinds:
            kinds.append(field.type)

    def place(field: pa.Field) -> str:
        number = 0 if pa.types.is_null(field.type) else found[field.name].index(field.type)
        return f"{field.name}\x1f{number}" if number else field.name

    return [tuple(place(field) for field in schema) for schema in schemas]


def _schema(text: str) -> pa.Schema:
    """Return the schema of a text of `_text`, which is also what Parquet files keep as ARROW:schema."""
    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text)))


def _text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()
