"""Read CSV: every cell as the text that it is, so that no leading zero or long number is lost.

Quotes are read strictly, and lines are counted (`csv_rows`), so that a row with a cell too many or a quote too few is
one unreadable row with its line, and rows that run together stop the run.
"""

import io
from collections.abc import Collection
from itertools import islice

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.params import CsvSource
from tasks.sources.formats.csv_rows import CsvRows
from tasks.sources.formats.text_file import no_text, open_text
from tasks.sources.formats.unreadable import UnreadableRow, with_unreadable

CHUNK_ROWS = 65536


def read_csv(file: io.BufferedReader, source: CsvSource, declared: Collection[str] = ()) -> pd.DataFrame:
    """Return every cell as text, an empty one as missing; columns that are unnamed or doubled are left out.

    Raises ValueError where rows run together, or a `declared` column comes twice.
    """
    text_file = open_text(file, source)
    skipped = sum(1 for _ in islice(text_file, source.skip_lines))
    reader = CsvRows(text_file, source, skipped + 1)
    tables: list[pa.Table] = []
    chunk: list[list[str]] = []
    unreadable: list[UnreadableRow] = []
    try:
        header = reader.header()
        if not header:
            raise ValueError("the first line must name the columns, and is empty")
        _refuse_doubled(header, declared)
        for row in reader.rows(len(header)):
            if isinstance(row, list):
                chunk.append(row)
            else:
                unreadable.append(row)
            if len(chunk) == CHUNK_ROWS:
                tables.append(_texts(chunk, header))
                chunk.clear()
    except UnicodeDecodeError as error:
        raise no_text(error, reader.last_line) from None
    tables.append(_texts(chunk, header))
    if unreadable and not sum(map(len, tables)):
        raise ValueError(
            f"all {len(unreadable):,} rows: {unreadable[0]['unreadable'].removeprefix('row: ')}, first on line "
            f"{unreadable[0]['unreadable_line']}; is the header's line complete, and source.delimiter right?"
        )
    return with_unreadable(pa.concat_tables(tables).to_pandas(), unreadable)


def _texts(rows: list[list[str]], header: list[str]) -> pa.Table:
    """Return cells as Arrow's text, of which a row takes a tenth of the memory that Python's own takes."""
    columns = [pa.array(cells, pa.large_string()) for cells in zip(*rows, strict=True)] or [
        pa.array([], pa.large_string())
    ] * len(header)
    once = {name: cells for name, cells in zip(header, columns, strict=True) if name and header.count(name) == 1}
    return pa.table({name: pc.if_else(pc.equal(cells, ""), None, cells) for name, cells in once.items()})


def _refuse_doubled(header: list[str], declared: Collection[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1 and name in declared})
    if twice:
        raise ValueError(f"every column must be named once, got {twice} more than once; rename them")
