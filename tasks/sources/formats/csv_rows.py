"""Tell the rows of a CSV file from its lines, and go on behind a row with a quote in the wrong place.

A row that no reading fits, or two, is unreadable and the rest go on, as long as the ends of lines leave no doubt where
the next row begins: the lines that a missing quote would swallow are rows by themselves. Where they are not, it is not
known how many rows there are, and that is an error.
"""

import csv
import json
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator

from tasks.params import CsvSource
from tasks.sources.formats.unreadable import UnreadableRow

LOOK_AHEAD = 3
"""So many lines behind a quote that is never closed must be rows by themselves."""
BAD_QUOTE = "row: has a quote in the wrong place"
TWO_READINGS = "row: has a quote within a cell that may open one behind a lost delimiter"
UNCLOSED = "unexpected end of data"
"""What Python says of a cell in quotes that is not closed."""


class CsvRows:
    """The rows of lines, read with quotes taken strictly."""

    def __init__(self, lines: Iterable[str], source: CsvSource, first_line: int = 1) -> None:
        """Take lines with their ends, of which the first has the number `first_line` in its file."""
        csv.field_size_limit(sys.maxsize)
        self._source = source
        self._lines = _Lines(lines, source.comment, first_line)
        self._reader = self._strict(self._lines)
        mark = re.escape(source.delimiter)
        self._inner_quote = re.compile(rf'[^{mark}\r\n"]"[^{mark}\r\n"]')
        """A quote with text on both sides, which no cell in quotes has."""
        self._suspect = re.compile(rf'[^{mark}\r\n"]"(?:[^{mark}\r\n]|")')
        """Text before a quote that no delimiter follows: in quotes it is one of two."""
        self._cell = re.compile(rf' *"(?:[^"]|"")*" *(?={mark}|$)|[^{mark}]*')

    def header(self) -> list[str]:
        """Return the cells of the first row, none where there is none. Raises ValueError."""
        self._lines.begin()
        try:
            return next(self._reader, [])
        except csv.Error as error:
            raise ValueError(f"line {self._lines.row[0][0]}: {self._wrong_quote(str(error))}") from None

    def rows(self, n_cells: int) -> Iterator[list[str] | UnreadableRow]:
        """Yield rows of so many cells, and those that cannot be read. Raises ValueError where none can be told."""
        lines = self._lines
        while True:
            lines.begin()
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._behind_quote(n_cells, str(error))
                continue
            if len(cells) == n_cells:
                text = lines.row[0][1] if len(lines.row) == 1 else "".join(line for _, line in lines.row)
                yield self._unreadable(TWO_READINGS) if '"' in text and self._fits_twice(text) else cells
            elif len(lines.row) > 1:
                yield self._of_several_lines(cells, n_cells)
            elif cells:  # an empty line is none
                rule = f"row: must have {n_cells} cells as the header has, and has {len(cells)}"
                yield self._unreadable(rule, json.dumps(cells, ensure_ascii=False))

    @property
    def last_line(self) -> int:
        """Return the number of the last line that was read."""
        return self._lines.number - 1

    @property
    def is_within_row(self) -> bool:
        """Return whether the next line belongs to a row that has begun."""
        return bool(self._lines.row)

    def _strict(self, lines: Iterable[str]) -> Iterator[list[str]]:
        source = self._source
        return csv.reader(
            lines,
            delimiter=source.delimiter,
            escapechar=source.escape,
            skipinitialspace=source.skip_space,
            strict=True,
        )

    def _unreadable(self, rule: str, text: str | None = None) -> UnreadableRow:
        number, line = self._lines.row[0]
        raw = line.rstrip("\r\n") if text is None else text
        return UnreadableRow(unreadable=rule, unreadable_line=number, unreadable_text=raw)

    def _behind_quote(self, n_cells: int, error: str) -> UnreadableRow:
        """Give up the first line of a row that no reading fits, and have those behind it read anew."""
        (number, first), *behind = self._lines.row
        is_spark = self._source.escape is None and '\\"' in first
        if is_spark or not self._are_rows(behind, n_cells, unclosed=error == UNCLOSED):
            raise ValueError(f"line {number}: {self._wrong_quote(error)}")
        self._lines.put_back(behind)
        return self._unreadable(BAD_QUOTE)

    def _of_several_lines(self, cells: list[str], n_cells: int) -> UnreadableRow:
        """Give up a row over several lines, or its first alone where those behind it are rows by themselves."""
        (number, _), *behind = self._lines.row
        if all(self._is_row(line, n_cells) for _, line in behind if line.strip("\r\n")):
            self._lines.put_back(behind)
            return self._unreadable(BAD_QUOTE)
        if any(self._may_be_row(line, n_cells) for _, line in behind):
            raise ValueError(
                f"lines {number} to {behind[-1][0]}: a row in quotes must have {n_cells} cells as the header has, and "
                f"has {len(cells)}: a quote may be missing, and how many rows these lines are is not known"
            )
        rule = f"row: must have {n_cells} cells as the header has, and has {len(cells)}"
        return self._unreadable(rule, json.dumps(cells, ensure_ascii=False))

    def _are_rows(self, behind: list[tuple[int, str]], n_cells: int, unclosed: bool) -> bool:
        """Return whether the lines that a quote has swallowed are rows by themselves.

        The last one, on which its cell was closed, may be another with a wrong quote. Where a cell was never closed the
        first ones tell, and where it was closed on its own line the next one.
        """
        lines = [line for _, line in behind if line.strip("\r\n") and not self._lines.is_comment(line)]
        if unclosed:
            lines = lines[:LOOK_AHEAD]
        elif not behind:
            following = self._lines.peek()
            return following is None or self._may_be_row(following, n_cells)
        elif len(lines) > 1 and self._may_be_row(lines[-1], n_cells):
            lines = lines[:-1]
        return all(self._is_row(line, n_cells) for line in lines)

    def _may_be_row(self, line: str, n_cells: int) -> bool:
        """Return whether a line has as many delimiters as a row."""
        return line.count(self._source.delimiter) >= n_cells - 1

    def _is_row(self, line: str, n_cells: int) -> bool:
        """Return whether a line is a row by itself, and no part of a cell in quotes."""
        try:
            cells = next(self._strict([line]), [])
        except csv.Error:
            return False
        return n_cells > 1 and len(cells) == n_cells and not self._has_bare_quote(line)

    def _has_bare_quote(self, line: str) -> bool:
        return '"' in line and any('"' in cell for cell in self._unquoted(line))

    def _unquoted(self, line: str) -> list[str]:
        """Return the cells of a line that are not in quotes."""
        text, found, at = self._without_escapes(line.rstrip("\r\n")), [], 0
        while at <= len(text):
            cell = self._cell.match(text, at)
            assert cell is not None
            if not cell[0].lstrip(" ").startswith('"'):
                found.append(cell[0])
            at = cell.end() + 1
        return found

    def _without_escapes(self, text: str) -> str:
        escape = self._source.escape
        return re.sub(re.escape(escape) + ".", "", text) if escape else text

    def _fits_twice(self, row: str) -> bool:
        """Return whether a quote in a cell that is not in quotes can be read in two ways.

        It may open another cell, which ends in a later one, as in `Ann"Smith, Ann"` where the cells were `Ann` and
        `"Smith, Ann"`: as many cells as there should be. Or it is doubled or escaped, as within quotes, of which the
        first was lost.
        """
        if not self._suspect.search(row):
            return False
        is_open = False
        for cell in self._unquoted(row):
            n_quotes = cell.count('"')
            if '""' in cell or (self._source.escape is None and '\\"' in cell):
                return True
            if is_open and n_quotes % 2 and cell.rstrip().endswith('"'):
                return True
            is_open = is_open or (n_quotes % 2 == 1 and self._inner_quote.search(cell) is not None)
        return False

    def _wrong_quote(self, error: str) -> str:
        """Return what is wrong with a quote, and how to read it where it may be right."""
        if error == UNCLOSED:
            return "a quote is opened and never closed"
        if self._source.escape is None and "expected after" in error:
            return f'{error}; a quote within quotes is written twice, or with source.escape: "\\\\" as \\"'
        return error


class _Lines:
    """Lines for a reader of CSV, which pulls those of one row; comments between rows are left out."""

    def __init__(self, lines: Iterable[str], comment: str | None, first_line: int) -> None:
        self._lines, self._comment = iter(lines), comment
        self._ahead: deque[tuple[int, str]] = deque()
        self.row: list[tuple[int, str]] = []
        """The lines of the present row, with their numbers."""
        self.number = first_line
        """The number of the line to be read next."""

    def begin(self) -> None:
        """Begin a row."""
        self.row = []

    def put_back(self, lines: list[tuple[int, str]]) -> None:
        """Have lines pulled once more."""
        self._ahead.extendleft(reversed(lines))

    def peek(self) -> str | None:
        """Return the next line that is no comment and not empty, None at the end."""
        passed = []
        while (following := self._next()) is not None:
            passed.append(following)
            if following[1].strip("\r\n") and not self.is_comment(following[1]):
                break
        self.put_back(passed)
        return following[1] if following else None

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        """Return the next line of the row."""
        if not self._ahead and self._comment is None:  # nearly always, and a file has many lines
            line = next(self._lines)
            self.row.append((self.number, line))
            self.number += 1
            return line
        following = self._next()
        while following is not None and not self.row and self.is_comment(following[1]):
            following = self._next()
        if following is None:
            raise StopIteration
        self.row.append(following)
        return following[1]

    def is_comment(self, line: str) -> bool:
        """Return whether a line between rows is none of them."""
        return self._comment is not None and line.startswith(self._comment)

    def _next(self) -> tuple[int, str] | None:
        if self._ahead:
            return self._ahead.popleft()
        line = next(self._lines, None)
        if line is None:
            return None
        self.number += 1
        return self.number - 1, line
