"""Take rows out of Parquet files, and hold each new file against the old one without those rows."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.erasure.subject import Subject
from tasks.rows.partitions import Partitions, read_pieces, table_writer
from tasks.rows.stored_days import day_of_file

Holds = Callable[[Path], bool]
"""Whether a file holds anything that is to be erased."""


def kept_rows(table: pa.Table, gone: np.ndarray) -> pa.Table:
    """Return a table without some rows. Shapes: bool [n]."""
    return table.filter(pa.array(~gone))


def check_equal(place: object, expected: pa.Table, found: pa.Table) -> None:
    """Raise RuntimeError where a file that was written anew does not hold exactly the rows that stay."""
    is_equal = expected.column_names == found.column_names and len(expected) == len(found)
    for name in expected.column_names if is_equal else ():
        now, then = found[name].combine_chunks(), expected[name].combine_chunks()
        is_equal &= now.equals(then) or _as_cells(now) == _as_cells(then)
    if not is_equal:
        raise RuntimeError(f"{place}: rows that stay were lost or changed while others were erased: nothing is removed")


def _as_cells(column: pa.Array) -> list[object]:
    """Return cells of which two that are no number are equal."""
    return [None if isinstance(cell, float) and cell != cell else cell for cell in column.to_pylist()]


def part_table(file: Path, subject: Subject) -> int:
    """Take the rows out of one Parquet file, piece by piece; return their number."""
    schema, n_gone = day_of_file(file).schema, 0
    new = file.with_name(f".{file.name}.parted")
    try:
        with table_writer(new) as write:
            write(schema.empty_table())
            for piece in read_pieces(file):
                gone = subject.of_table(piece)
                n_gone += int(gone.sum())
                write(kept_rows(piece, gone).cast(schema))
        if n_gone:
            staying = (kept_rows(piece, subject.of_table(piece)) for piece in read_pieces(file))
            for expected, found in _side_by_side(staying, read_pieces(new)):
                check_equal(file, expected, found)
            new.replace(file)
    finally:
        new.unlink(missing_ok=True)
    return n_gone


def _side_by_side(staying: Iterator[pa.Table], found: Iterator[pa.Table]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the rows of two files side by side, in the pieces of the second; rows of one alone stand beside none."""
    waiting: list[pa.Table] = []
    for piece in found:
        while sum(map(len, waiting)) < len(piece) and (more := next(staying, None)) is not None:
            waiting.append(more)
        rows = pa.concat_tables(waiting) if waiting else piece.slice(0, 0)
        yield rows.slice(0, len(piece)), piece
        waiting = [rows.slice(len(piece))]
    for piece in [*waiting, *staying]:
        if len(piece):
            yield piece, piece.slice(0, 0)


def part_days(folder: Path, subject: Subject, holds: Holds) -> Counter[str]:
    """Take the rows out of a folder of partitions by date; return their number by date."""
    days, found = Partitions(folder), Counter[str]()
    for day in days_in(folder, holds):
        table = days.table(day)
        gone = subject.of_table(table)
        if not gone.any():
            continue
        found[day.isoformat()] = int(gone.sum())
        write_day(days, day, table, gone)
    return found


def write_day(days: Partitions, day: date, table: pa.Table, gone: np.ndarray) -> None:
    """Write a date without some rows; one that has no other is removed. Shapes: bool [n]."""
    kept = kept_rows(table, gone)
    if not len(kept):
        days.remove([day])
        return
    days.write(day, kept.cast(days.schema(day)))
    check_equal(f"{days.folder} of {day}", kept, days.table(day))


def days_in(folder: Path, holds: Holds) -> list[date]:
    """Return the dates of those files of a folder that hold anything."""
    files = {file.stem.removeprefix("dt=") for file in folder.glob("dt=*.parquet") if holds(file)}
    return [day for day in Partitions(folder).days() if day.isoformat() in files or day.isoformat()[:7] in files]
