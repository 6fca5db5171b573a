"""Read and write rows as Parquet partitions, one file per date: the same bytes for the same rows."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.runtime.files import atomic_file


def partition(folder: Path, day: date) -> Path:
    """Return the file of one date in a folder of partitions."""
    return folder / f"dt={day.isoformat()}.parquet"


def partition_day(file: Path) -> date:
    """Return the date of a partition's file."""
    return date.fromisoformat(file.stem.removeprefix("dt="))


ROWS_AT_ONCE = 16_384
"""Rows of a Parquet row group: read, scored and encoded in one piece, so that memory does not grow with a file."""


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as one Parquet file, without its index."""
    with table_writer(path) as write:
        write(frame)


@contextmanager
def table_writer(path: Path) -> Iterator[Callable[[pd.DataFrame | pa.Table], None]]:
    """Yield a function that adds rows to a Parquet file, which appears whole; its bytes do not depend on the pieces.

    The first piece decides the columns and their types; it may hold no row.
    """
    with atomic_file(path) as temporary, ExitStack() as closing:
        pieces: list[pa.Table] = []
        writer: pq.ParquetWriter | None = None

        def write(piece: pd.DataFrame | pa.Table) -> None:
            nonlocal writer, pieces
            if isinstance(piece, pd.DataFrame):
                piece = pa.Table.from_pandas(piece, preserve_index=False, schema=writer.schema if writer else None)
            if writer is None:
                writer = closing.enter_context(pq.ParquetWriter(temporary, piece.schema, compression="zstd"))
            pieces.append(piece)
            if sum(map(len, pieces)) >= ROWS_AT_ONCE:
                waiting = pa.concat_tables(pieces)
                n_full = len(waiting) - len(waiting) % ROWS_AT_ONCE
                # One chunk per column, as where the pieces met would show in the pages.
                writer.write_table(waiting.slice(0, n_full).combine_chunks(), row_group_size=ROWS_AT_ONCE)
                pieces = [waiting.slice(n_full)]

        yield write
        if writer is not None:
            writer.write_table(pa.concat_tables(pieces).combine_chunks())


def read_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Return a table with its integers exact: pandas itself makes floats of a column that has gaps."""
    return pq.read_table(path, columns=columns).to_pandas(integer_object_nulls=True)


def read_pieces(path: Path, rows: range | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file, or those of a range, a row group at a time; the others are not read."""
    with pq.ParquetFile(path) as file:
        first = 0
        for group in range(file.num_row_groups):
            in_group = range(first, first + file.metadata.row_group(group).num_rows)
            first = in_group.stop
            wanted = in_group if rows is None else range(max(in_group.start, rows.start), min(in_group.stop, rows.stop))
            if len(wanted):
                yield file.read_row_group(group).slice(wanted.start - in_group.start, len(wanted))


def n_rows(path: Path) -> int:
    """Return the number of rows of a Parquet file."""
    return int(pq.read_metadata(path).num_rows)


def partitions(folder: Path, until: date | None = None) -> list[Path]:
    """Return the partitions of a folder, up to a date, in order of date."""
    return [file for file in sorted(folder.glob("dt=*.parquet")) if until is None or partition_day(file) <= until]


def read_partitions(files: list[Path], columns: list[str] | None = None) -> pd.DataFrame:
    """Return partitions as one frame, in the order given, each with its date as the column `dt`.

    The frame has all `columns`, in that order; one is empty on a date that was stored without it.
    """
    frames = [_partition(file, columns).assign(dt=file.stem.removeprefix("dt=")) for file in files]
    if not frames:
        return pd.DataFrame(columns=[*(columns or []), "dt"], dtype="str")
    for name in frames[0].columns:
        if len({frame[name].dtype for frame in frames if name in frame}) > 1:  # integers must not become floats
            frames = [
                frame.assign(**{name: frame[name].astype(object)}) if name in frame else frame for frame in frames
            ]
    return pd.concat(frames, ignore_index=True)


def _partition(file: Path, columns: list[str] | None) -> pd.DataFrame:
    if columns is None:
        return read_table(file)
    stored = pq.read_schema(file).names
    table = read_table(file, [name for name in columns if name in stored])
    lacking = {name: pd.Series(None, table.index, dtype="str") for name in columns if name not in stored}
    return table.assign(**lacking)[columns]


def read_tables(folder: Path, columns: list[str] | None = None, until: date | None = None) -> pd.DataFrame:
    """Return the partitions of a folder up to a date as one frame, in order of date, with the date as column `dt`."""
    return read_partitions(partitions(folder, until), columns)
