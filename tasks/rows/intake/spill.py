"""Hold a delivery until all of it has been read, by month of the event date: in memory while it is small, else on disk.

Nothing is stored of a delivery that turns out to be wrong at its end; and a source that is in no order of date can be
stored day by day with the memory of a month.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.rows.raw_archive import storable

IN_MEMORY = 400_000
"""So many rows are held in memory; with one more all go to disk."""
OPEN_FILES = 200
DAY, ORDER = "spill_day", "spill_order"
"""Columns beside a row's own: its event date in days since 1970, and its place in the delivery."""


class Spill:
    """Rows of a delivery with their event dates; a context, at whose end its files are removed."""

    def __init__(self, folder: Path) -> None:
        """Name the folder for what does not fit into memory; it is made when it is needed."""
        self._folder = folder
        self._tables: dict[int, list[pa.Table]] = {}
        self._files: dict[int, list[Path]] = {}
        self._writers: dict[tuple[int, pa.Schema], pa.ipc.RecordBatchStreamWriter] = {}
        self._n_rows = 0
        self._is_on_disk = False

    def __enter__(self) -> "Spill":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove its files."""
        self._close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, rows: pd.DataFrame, days: np.ndarray) -> None:
        """Add rows with their event dates in days since 1970. Shapes: int64 [n]."""
        order = np.arange(self._n_rows, self._n_rows + len(rows))
        self._n_rows += len(rows)
        for table in _uniform_tables(rows.assign(**{DAY: days.astype("int32"), ORDER: order})):
            months = _months(table[DAY].to_numpy())
            for month in np.unique(months):
                self._put(int(month), table if len(table) == (months == month).sum() else table.filter(months == month))
        if not self._is_on_disk and self._n_rows > IN_MEMORY:
            self._is_on_disk = True
            for month, tables in self._tables.items():
                for table in tables:
                    self._put(month, table)
            self._tables = {}

    def months(self) -> Iterator[tuple[int, dict[int, list[pa.Table]]]]:
        """Yield the months since 1970 in order, each with its rows by event date, in order of delivery."""
        self._close()
        for month in sorted({*self._tables, *self._files}):
            tables = self._tables.pop(month, [])
            tables += [pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in self._files.get(month, [])]
            days: dict[int, list[pa.Table]] = {}
            for table in tables:
                found = table[DAY].to_numpy()
                by_day = np.argsort(found, kind="stable")
                numbers, starts = np.unique(found[by_day], return_index=True)
                for number, places in zip(numbers, np.split(by_day, starts[1:]), strict=True):
                    days.setdefault(int(number), []).append(_taken(table, places))
            yield month, dict(sorted(days.items()))
            for file in self._files.get(month, []):
                file.unlink()

    def _put(self, month: int, table: pa.Table) -> None:
        if not self._is_on_disk:
            self._tables.setdefault(month, []).append(table)
            return
        writer = self._writers.get((month, table.schema))
        if writer is None:
            if len(self._writers) >= OPEN_FILES:
                self._close()
            self._folder.mkdir(parents=True, exist_ok=True)
            files = self._files.setdefault(month, [])
            files.append(self._folder / f"{month}-{len(files)}.arrow")
            writer = self._writers[month, table.schema] = pa.ipc.new_stream(str(files[-1]), table.schema)
        writer.write_table(table)

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


def _taken(table: pa.Table, places: np.ndarray) -> pa.Table:
    """Return some rows of a table, without a copy where they lie together."""
    if len(places) and places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all():
        return table.slice(int(places[0]), len(places))
    return table.take(pa.array(places))


def _months(days: np.ndarray) -> np.ndarray:
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def _uniform_tables(rows: pd.DataFrame) -> Iterator[pa.Table]:
    """Yield rows as tables; where a column is of mixed types one for each day, whose types hang on its own cells."""
    columns = {name: rows[name] for name in rows}
    stored = {name: storable(column) for name, column in columns.items()}
    if all(stored[name] is column for name, column in columns.items()):
        yield pa.Table.from_pandas(rows, preserve_index=False)
        return
    for _, part in rows.groupby(DAY, sort=True):
        yield pa.Table.from_pandas(part.apply(storable), preserve_index=False)
