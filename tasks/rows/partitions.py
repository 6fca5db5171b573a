"""Read and write rows as Parquet partitions, by date: the same bytes for the same rows.

A date is a file, dt=2013-06-30.parquet, until it is old. Then its month is one, dt=2013-04.parquet, lest the number of
files grow for years. The rows of a date, their columns and types are the same in either.
"""

from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.rows.stored_days import (
    WRITING,
    GivenDay,
    StoredDay,
    day_of_file,
    days_of_month,
    open_parquet,
    row_groups,
    write_days,
)
from tasks.runtime.files import atomic_file, file_sha256

ROWS_AT_ONCE = 16_384
"""Rows of a Parquet row group: read, scored and encoded in one piece, so that memory does not grow with a file."""
KEPT_AS_DAYS = 62
"""A month becomes one file once its last day is more than so many days before the newest date."""


def partition(folder: Path, day: date) -> Path:
    """Return the file of one date in a folder of partitions."""
    return folder / f"dt={day.isoformat()}.parquet"


def partition_day(file: Path) -> date:
    """Return the date of a partition's file."""
    return date.fromisoformat(file.stem.removeprefix("dt="))


def write_table(path: Path, frame: pd.DataFrame | pa.Table) -> None:
    """Write rows as one Parquet file, without an index."""
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
                writer = closing.enter_context(pq.ParquetWriter(temporary, piece.schema, **WRITING))
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
    with open_parquet(path) as file:
        table = file.read(columns)
    return table.select(columns or table.column_names).to_pandas(integer_object_nulls=True)


def read_pieces(path: Path, rows: range | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file, or those of a range, a row group at a time; the others are not read."""
    with open_parquet(path) as file:
        for group, wanted in row_groups(file, range(file.num_row_groups), rows):
            yield file.read_row_group(group).slice(wanted.start, len(wanted))


def n_rows(path: Path) -> int:
    """Return the number of rows of a Parquet file."""
    return int(pq.read_metadata(path).num_rows)


def read_tables(folder: Path, columns: list[str] | None = None, until: date | None = None) -> pd.DataFrame:
    """Return the partitions of a folder up to a date as one frame, in order of date, with the date as column `dt`."""
    stored = Partitions(folder)
    return stored.read(stored.days(until), columns)


class Partitions:
    """A folder of rows by date. What is written appears whole or not at all; an absent folder is an empty one.

    A process that is killed while it makes a month of its days leaves both: then the month counts.
    """

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is read yet."""
        self.folder = folder

    def days(self, until: date | None = None, since: date | None = None) -> list[date]:
        """Return the stored dates from `since` up to `until`, in order; no row is read."""
        first, last = since or date.min, until or date.max
        found = {day for day in self._files_of_days() if first <= day <= last}
        for file in self.folder.glob("dt=????-??.parquet"):
            month = date.fromisoformat(f"{file.stem.removeprefix('dt=')}-01")
            if month <= last and first <= _last_day(month):
                found |= {day for day in self._in_month(month) if first <= day <= last}
        return sorted(found)

    def first(self) -> date | None:
        """Return a date before which nothing is stored, the first one or the first of its month; no file is read."""
        months = (f"{file.stem.removeprefix('dt=')}-01" for file in self.folder.glob("dt=????-??.parquet"))
        return min([*self._files_of_days(), *map(date.fromisoformat, months)], default=None)

    def newest(self) -> date | None:
        """Return the newest stored date; at most one file is opened."""
        newest = max(self._files_of_days(), default=date.min)
        months = (f"{file.stem.removeprefix('dt=')}-01" for file in self.folder.glob("dt=????-??.parquet"))
        month = max(map(date.fromisoformat, months), default=None)
        if month and _last_day(month) > newest:
            newest = max([newest, *self._in_month(month)])
        return None if newest == date.min else newest

    def __contains__(self, day: date) -> bool:
        """Return whether rows of a date are stored."""
        return partition(self.folder, day).exists() or day in self._in_month(day)

    def n_rows(self, day: date) -> int:
        """Return how many rows a date has."""
        return self._stored(day).n_rows

    def columns(self, day: date) -> list[str]:
        """Return the names of the columns with which a date was stored."""
        return list(self._stored(day).schema.names)

    def schema(self, day: date) -> pa.Schema:
        """Return the columns and types with which a date was stored."""
        return self._stored(day).schema

    def sha256(self, day: date) -> str:
        """Return the SHA-256, in hex, of the date's file, also where it has become a part of its month's."""
        stored = self._stored(day)
        if not stored.places:
            return file_sha256(stored.file)
        with TemporaryDirectory() as scratch:
            file = partition(Path(scratch), day)
            write_table(file, stored.table().cast(stored.schema))
            return file_sha256(file)

    def table(self, day: date, columns: list[str] | None = None) -> pa.Table:
        """Return the rows of a date; of `columns` those with which it was stored."""
        return self._stored(day).table(columns)

    def pieces(self, day: date, rows: range | None = None) -> Iterator[pa.Table]:
        """Yield the rows of a date, or those of a range, a row group at a time; the others are not read."""
        return self._stored(day).pieces(rows)

    def batches(self, days: Iterable[date], columns: list[str] | None = None) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """Yield the rows of dates with the date of each: small dates together, large ones a row group at a time.

        A batch ends where columns or types change, and with the piece that fills ROWS_AT_ONCE rows.

        Shapes: datetime64[D] [n], n rows.
        """
        waiting: list[tuple[date, pa.Table]] = []
        for day, stored, file in self._opened(days):
            small = stored.n_rows <= ROWS_AT_ONCE
            for groups in [stored.groups] if small else ([group] for group in stored.groups):
                piece = stored.read(file, groups, columns)
                if waiting and not piece.schema.equals(waiting[0][1].schema):
                    yield _one_batch(waiting)
                    waiting = []
                waiting.append((day, piece))
                if sum(len(each) for _, each in waiting) >= ROWS_AT_ONCE:
                    yield _one_batch(waiting)
                    waiting = []
        if waiting:
            yield _one_batch(waiting)

    def read(self, days: Iterable[date], columns: list[str] | None = None) -> pd.DataFrame:
        """Return dates as one frame, in the order given, each with its date as the column `dt`.

        The frame has all `columns`, in that order; one is empty on a date that was stored without it.
        """
        frames = []
        for alike, n_rows, table in self.alike(days, columns):
            frame = table.to_pandas(integer_object_nulls=True)
            lacking = [name for name in columns or () if name not in frame]
            frame = frame.assign(**{name: pd.Series(None, frame.index, dtype="str") for name in lacking})
            dt = pa.array([day.isoformat() for day in alike], pa.large_string()).take(_numbers(n_rows))
            frame = frame if columns is None else frame[columns]
            frames.append(frame.assign(dt=pd.Series(dt.to_pandas(), frame.index, dtype="str")))
        if not frames:
            return pd.DataFrame(columns=[*(columns or []), "dt"], dtype="str")
        for name in frames[0].columns:
            if len({frame[name].dtype for frame in frames if name in frame}) > 1:  # integers must not become floats
                frames = [
                    frame.assign(**{name: frame[name].astype(object)}) if name in frame else frame for frame in frames
                ]
        return pd.concat(frames, ignore_index=True)

    def alike(
        self, days: Iterable[date], columns: list[str] | None = None
    ) -> Iterator[tuple[list[date], list[int], pa.Table]]:
        """Yield dates that follow each other in one file with the same columns and types: how many rows each has, and
        all of them.
        """
        stored = ((day, self._stored(day)) for day in days)
        for path, of_file in groupby(stored, lambda each: each[1].file):
            with open_parquet(path) as file:
                for _, group in groupby(of_file, lambda each: each[1].schema.serialize().to_pybytes()):
                    found = [*group]
                    groups = [number for _, rows in found for number in rows.groups]
                    table = found[0][1].read(file, groups, columns)
                    yield [day for day, _ in found], [rows.n_rows for _, rows in found], table

    def write(self, day: date, table: pd.DataFrame | pa.Table) -> None:
        """Write the rows of a date in place of those that it had; a date of a month's file is written there."""
        if not self._file_of_month(day).exists():
            write_table(partition(self.folder, day), table)
            return
        with TemporaryDirectory() as scratch:
            file = partition(Path(scratch), day)
            write_table(file, table)
            self._write_month(day, {**self._in_month(day), day: day_of_file(file)})
        partition(self.folder, day).unlink(missing_ok=True)

    def add_to_month(self, tables: Mapping[date, pa.Table]) -> None:
        """Write dates of one month into the month's file, with all others that it has."""
        month = first_of_month(min(tables))
        files = {day: day_of_file(file) for day, file in self._files_of_days(month).items() if day not in tables}
        given = {day: GivenDay(table) for day, table in tables.items()}
        self._write_month(month, {**files, **self._in_month(month), **given})
        self._remove_files(month)

    def remove(self, days: Iterable[date]) -> None:
        """Remove dates, of which any may be absent."""
        for month, group in groupby(sorted(days), first_of_month):
            removed = {*group}
            for day in removed:  # first, lest a file that a killed process left beside the month be read after it
                partition(self.folder, day).unlink(missing_ok=True)
            before = self._in_month(month)
            if removed & before.keys():
                self._write_month(month, {day: stored for day, stored in before.items() if day not in removed})

    def compact(self, newest: date) -> None:
        """Make one file of each month whose last day is more than KEPT_AS_DAYS days before `newest`.

        Its bytes follow from the rows of its days alone, not from when or how often it was made.
        """
        for month in sorted({first_of_month(day) for day in self._files_of_days()}):
            if is_old(month, newest):
                days, before = self._files_of_days(month), self._in_month(month)
                if days.keys() - before.keys():
                    self._write_month(month, {day: day_of_file(file) for day, file in days.items()} | before)
                self._remove_files(month)

    def _files_of_days(self, month: date | None = None) -> dict[date, Path]:
        days = f"{month:%Y-%m}-??" if month else "????-??-??"
        return {partition_day(file): file for file in self.folder.glob(f"dt={days}.parquet")}

    def _remove_files(self, month: date) -> None:
        for file in self._files_of_days(month).values():
            file.unlink()

    def _file_of_month(self, month: date) -> Path:
        return self.folder / f"dt={month:%Y-%m}.parquet"

    def _in_month(self, month: date) -> dict[date, StoredDay]:
        """Return the dates in a month's file; none where there is no such file."""
        file = self._file_of_month(month)
        if not file.exists():
            return {}
        state = file.stat()
        return days_of_month(file, state.st_ino, state.st_mtime_ns, state.st_size)

    def _stored(self, day: date) -> StoredDay:
        return self._in_month(day).get(day) or day_of_file(partition(self.folder, day))

    def _opened(self, days: Iterable[date]) -> Iterator[tuple[date, StoredDay, pq.ParquetFile]]:
        """Yield dates with their open files; the file of a month is opened once for dates that follow each other."""
        stored = ((day, self._stored(day)) for day in days)
        for path, group in groupby(stored, lambda each: each[1].file):
            with open_parquet(path) as file:
                for day, rows in group:
                    yield day, rows, file

    def _write_month(self, month: date, days: Mapping[date, StoredDay | GivenDay]) -> None:
        file = self._file_of_month(month)
        if days:
            write_days(file, dict(sorted(days.items())), ROWS_AT_ONCE)
        else:
            file.unlink(missing_ok=True)


def _numbers(n_rows: list[int]) -> pa.Array:
    """Return the place of each row's date. Shapes: int64 [n]."""
    return pa.array(np.repeat(np.arange(len(n_rows)), n_rows))


def _one_batch(tables: list[tuple[date, pa.Table]]) -> tuple[np.ndarray, pa.Table]:
    days = np.array([day for day, _ in tables], "datetime64[D]")
    return np.repeat(days, [len(table) for _, table in tables]), pa.concat_tables([table for _, table in tables])


def first_of_month(day: date) -> date:
    """Return the first day of a date's month."""
    return day.replace(day=1)


def is_old(day: date, newest: date) -> bool:
    """Return whether the month of a date is one file where `newest` is the newest date."""
    return _last_day(day) < newest - timedelta(days=KEPT_AS_DAYS)


def _last_day(day: date) -> date:
    return day.replace(day=monthrange(day.year, day.month)[1])
