"""Read CSV: every cell as the text that it is, so that no leading zero or long number is lost.

Quotes are read strictly, and lines are counted (`csv_rows`), so that a row with a cell too many or a quote too few is
one unreadable row with its line, and rows that run together stop the run. A piece without any quote, in which all rows
have as many cells as the header, has one reading only, and is left to Arrow's reader, which is ten times as fast.
"""

import csv
import io
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from tasks.params import CsvSource
from tasks.sources.formats.csv_rows import UNCLOSED, CsvRows
from tasks.sources.formats.pieces import ROW_BYTES, Cut, RawPiece, Wanted, digest_of, n_lines, text_of
from tasks.sources.formats.unreadable import UnreadableRow, with_unreadable

CHUNK_ROWS = 65536


@dataclass(frozen=True, kw_only=True)
class Header:
    """The line that names the columns."""

    names: list[str]
    """The names, with those that are empty or doubled."""
    n_lines: int
    """Lines up to the first row."""
    columns: list[int]
    """Places of the columns that are read."""

    @classmethod
    def read(cls, text: str, source: CsvSource, declared: Collection[str]) -> "Header":
        """Return the header of a file that begins so. Raises ValueError where there is none that can be used."""
        lines = io.StringIO(text, newline="")
        n_skipped = sum(1 for _ in islice(lines, source.skip_lines))
        reader = CsvRows(lines, source, n_skipped + 1)
        names = reader.header()
        if not names:
            raise ValueError("the first line must name the columns, and is empty")
        twice = sorted({name for name in names if names.count(name) > 1 and name in declared})
        if twice:
            raise ValueError(f"every column must be named once, got {twice} more than once; rename them")
        once = [place for place, name in enumerate(names) if name and names.count(name) == 1]
        has_all = bool(declared) and {*declared} <= {*names}
        columns = [place for place in once if not has_all or names[place] in declared]
        return cls(names=names, n_lines=reader.last_line, columns=columns)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a piece holds."""

    data: bytes
    """The piece, with the rest of its last row where the cut fell within that."""
    table: pa.Table
    """The rows that can be read."""
    unreadable: list[UnreadableRow]
    """Those that cannot."""


def csv_pieces(file: IO[bytes], source: CsvSource, wanted: Wanted) -> Iterator[RawPiece]:
    """Yield every cell as text, an empty one as missing; columns that are unnamed or doubled are left out.

    Raises ValueError where rows run together, a declared column comes twice, or no row can be read.
    """
    cut = Cut(file, source.encoding, b'"', (source.escape or "").encode())
    header: Header | None = None
    line, n_readable, n_unreadable, first = 1, 0, 0, None
    for number, data in enumerate(cut.pieces()):
        if header is None:
            header = Header.read(text_of(data, cut.encoding, 1), source, wanted.declared)
        identity = json.dumps(header.names).encode() if number else b""
        digest = digest_of(identity, data)
        if wanted.is_known(str(number), digest):
            n_readable += 1
            yield RawPiece(number=str(number), digest=digest, rows=None)
        else:
            n_before = 0 if number else header.n_lines
            found = _plain(data, n_before, header, cut, source) or _parse(data, n_before, line, header, cut, source)
            data, digest = found.data, digest_of(identity, found.data)
            rows = with_unreadable(found.table.to_pandas(), found.unreadable)
            n_readable, n_unreadable = n_readable + len(found.table), n_unreadable + len(found.unreadable)
            first = first or next(iter(found.unreadable), None)
            yield RawPiece(number=str(number), digest=digest, rows=rows, n_rows=len(rows))
        line += n_lines(data)
    if first and not n_readable:
        raise ValueError(
            f"all {n_unreadable:,} rows: {first['unreadable'].removeprefix('row: ')}, first on line "
            f"{first['unreadable_line']}; is the header's line complete, and source.delimiter right?"
        )


def _plain(data: bytes, n_before: int, header: Header, cut: Cut, source: CsvSource) -> Rows | None:
    """Return the rows of a piece behind so many lines, by Arrow; None where it must be looked at row by row."""
    from pyarrow import csv as arrow

    marks = [b'"', *(mark.encode() for mark in (source.escape, source.comment) if mark)]
    if (
        source.skip_space
        or any(mark in data for mark in marks)
        or not source.delimiter.isascii()
        or data.count(b"\r") != data.count(b"\r\n")
    ):
        return None
    begin = 0
    for _ in range(n_before):
        begin = data.find(b"\n", begin) + 1 or len(data)
    names = [str(place) for place in range(len(header.names))]
    is_odd: list[bool] = []

    def note(row: object) -> str:
        is_odd.append(True)
        return "skip"

    empty = pa.table({header.names[place]: pa.array([], pa.large_string()) for place in header.columns})
    if not data[begin:].strip(b"\r\n"):
        return Rows(data=data, table=empty, unreadable=[])
    try:
        table = arrow.read_csv(
            io.BytesIO(data[begin:] if cut.encoding == "utf-8" else data[begin:].decode(cut.encoding).encode()),
            arrow.ReadOptions(column_names=names, block_size=2**22),
            arrow.ParseOptions(
                delimiter=source.delimiter, quote_char=False, escape_char=False, invalid_row_handler=note
            ),
            arrow.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()),
                include_columns=[names[place] for place in header.columns],
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None  # the reader of single rows finds the words for it
    if is_odd:
        return None
    columns = [_without_empty(table.column(names[place])) for place in header.columns]
    return Rows(data=data, table=pa.table(columns, names=empty.column_names), unreadable=[])


class _Lines:
    """The lines of a piece behind its first ones, and those behind its cut that belong to its last row."""

    def __init__(self, data: bytes, n_before: int, line: int, cut: Cut) -> None:
        self._lines = io.StringIO(text_of(data, cut.encoding, line), newline="")
        self._cut, self._line = cut, line + n_lines(data)
        self._n_bytes = 0
        self.beyond: list[bytes] = []
        self.reader: CsvRows | None = None
        for _ in range(n_before):
            self._lines.readline()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._lines.readline()
        if not line and self.reader is not None and self.reader.is_within_row:
            if self._n_bytes > ROW_BYTES:
                raise csv.Error(UNCLOSED)
            more = self._cut.line()
            self.beyond.append(more)
            self._n_bytes += len(more)
            self._lines = io.StringIO(text_of(more, self._cut.encoding, self._line), newline="")
            self._line += n_lines(more)
            line = self._lines.readline()
        if not line:
            raise StopIteration
        return line


def _parse(data: bytes, n_before: int, line: int, header: Header, cut: Cut, source: CsvSource) -> Rows:
    """Return the rows of a piece that begins on a line of the file, behind so many lines of its own."""
    lines = _Lines(data, n_before, line, cut)
    lines.reader = CsvRows(lines, source, line + n_before)
    tables: list[pa.Table] = []
    chunk: list[list[str]] = []
    unreadable: list[UnreadableRow] = []
    for row in lines.reader.rows(len(header.names)):
        if isinstance(row, list):
            chunk.append(row)
        else:
            unreadable.append(row)
        if len(chunk) == CHUNK_ROWS:
            tables.append(_texts(chunk, header))
            chunk.clear()
    tables.append(_texts(chunk, header))
    return Rows(data=b"".join([data, *lines.beyond]), table=pa.concat_tables(tables), unreadable=unreadable)


def _texts(rows: list[list[str]], header: Header) -> pa.Table:
    """Return cells as Arrow's text, of which a row takes a tenth of the memory that Python's own takes."""
    cells = list(zip(*rows, strict=True)) or [()] * len(header.names)
    columns = [
        _without_empty(pa.chunked_array([pa.array(cells[place], pa.large_string())])) for place in header.columns
    ]
    return pa.table(columns, names=[header.names[place] for place in header.columns])


def _without_empty(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(cells, ""), None, cells)
