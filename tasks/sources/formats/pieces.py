"""Cut a file into pieces that stay the same, with the same digest, while the file grows at its end.

A text is cut at the first end of a row after every PIECE_BYTES, counted from its begin. Where a row ends is guessed
from the number of quotes, and a reader that finds a cut within a row takes in the rest of that row with `Cut.line`.
"""

import codecs
import hashlib
import io
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date
from typing import IO

import numpy as np
import pandas as pd

PIECE_BYTES = 8 * 2**20
"""So long is a piece of text, and the part of a row in which the cut falls."""
SEARCH_BYTES = 2**20
"""So far behind a piece's end the end of a row is looked for where quotes are opened."""
PIECE_ROWS = 100_000
"""About so many rows are a piece of a file that is no text."""
ROW_BYTES = 16 * 2**20
"""A row that goes on for longer behind a cut is none: a quote was not closed."""
COUNTED_BYTES = 2**17
"""So many bytes are compared at once: as many as a processor has at hand."""
_MARKS = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
"""Encodings whose decoder keeps the mark of byte order as an invisible character."""
_SHIFTING = ("utf-7", "hz", "iso2022")
"""Beginnings of names of encodings in which a byte's meaning follows from those before it."""


@dataclass(frozen=True, kw_only=True)
class RawPiece:
    """A piece of a file, with the names and cells that the file has."""

    number: str
    """Its place in the file."""
    digest: str
    """Of its bytes, and of what in the file decides what they mean."""
    rows: pd.DataFrame | None
    """None where the piece is known, or lies outside of the wanted days."""
    n_rows: int | None = None
    """How many rows it has, where that is known."""
    days: tuple[str, str] | None = None
    """The first and last day of a piece that lies outside of the wanted ones."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is wanted of a file."""

    declared: Collection[str] = ()
    """Names of the columns, as the file has them."""
    is_known: Callable[[str, str], bool] = lambda number, digest: False
    """Whether the piece of this number and digest need not be read."""
    time: str | None = None
    """The column with a row's date."""
    zone: str = "UTC"
    """The time zone in which a moment has its date."""
    since: date | None = None
    """Rows before it may be left out."""
    until: date | None = None
    """Rows after it may be left out."""

    def leaves_out(self, days: tuple[str, str]) -> bool:
        """Return whether rows of no other than these days, first and last, may be left out."""
        first, last = days
        is_after = self.until is not None and first > self.until.isoformat()
        return is_after or (self.since is not None and last < self.since.isoformat())


def digest_of(*parts: bytes) -> str:
    """Return a digest over bytes, in hex."""
    found = hashlib.sha256()  # which processors compute themselves, faster than blake2
    for part in parts:
        found.update(len(part).to_bytes(8))
        found.update(part)
    return found.hexdigest()[:32]


class Cut:
    """The pieces of a file of text."""

    def __init__(self, file: IO[bytes], encoding: str, quote: bytes = b"", escape: bytes = b"") -> None:
        """Take a file from its begin on; `quote` opens and closes cells in which a line may end."""
        self.encoding = encoding
        is_cuttable = not codecs.lookup(encoding).name.startswith(_SHIFTING) and _holds_ascii(encoding)
        if not is_cuttable:
            file, self.encoding = io.BufferedReader(_Utf8(file, encoding)), "utf-8"
        self._file, self._quote, self._escape = file, quote, escape
        self._rest = file.read(SEARCH_BYTES)
        if codecs.lookup(encoding).name in _MARKS:
            self._rest = self._rest.removeprefix(codecs.BOM_UTF8)

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of each piece."""
        while data := self._piece():
            yield data

    def line(self) -> bytes:
        """Return the bytes up to the next end of a line, for a row that goes on behind a cut; empty at the end."""
        end = self._rest.find(b"\n") + 1
        while not end and self._fill(len(self._rest) + SEARCH_BYTES):
            end = self._rest.find(b"\n") + 1
        return self._take(end or len(self._rest))

    def _piece(self) -> bytes:
        goes_on = self._fill(PIECE_BYTES + SEARCH_BYTES)
        end = self._end() if len(self._rest) > PIECE_BYTES else len(self._rest)
        while not end and goes_on:
            end = self._rest.find(b"\n", PIECE_BYTES) + 1
            goes_on = end > 0 or self._fill(len(self._rest) + PIECE_BYTES)
        return self._take(end or len(self._rest))

    def _end(self) -> int:
        """Return the first end of a line behind PIECE_BYTES before which as many quotes close as open; 0 for none."""
        at, n_quotes = PIECE_BYTES, self._count(0, PIECE_BYTES)
        while end := self._rest.find(b"\n", at) + 1:
            n_quotes += self._count(at, end)
            if n_quotes % 2 == 0:
                return end
            at = end
        return 0

    def _count(self, begin: int, end: int) -> int:
        if not self._quote:
            return 0
        escaped = self._rest.count(self._escape + self._quote, begin, end) if self._escape else 0
        return count_of(self._quote, memoryview(self._rest)[begin:end]) - escaped

    def _fill(self, n_bytes: int) -> bool:
        """Have so many bytes ready, and return whether there were as many."""
        if len(self._rest) < n_bytes:
            self._rest += self._file.read(n_bytes - len(self._rest))
        return len(self._rest) >= n_bytes

    def _take(self, n_bytes: int) -> bytes:
        taken, self._rest = self._rest[:n_bytes], self._rest[n_bytes:]
        return taken


def n_lines(data: bytes) -> int:
    r"""Return how many ends of lines there are: \n, \r\n and \r.

    >>> n_lines(b"a\r\nb\nc\rd")
    3
    """
    n = count_of(b"\n", data)
    return n + data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else n


def count_of(byte: bytes, data: bytes | memoryview) -> int:
    """Return how often a byte comes, ten times as fast as `bytes.count` where it comes often."""
    found = np.frombuffer(data, np.uint8)
    return sum(
        int(np.count_nonzero(found[at : at + COUNTED_BYTES] == ord(byte))) for at in range(0, len(found), COUNTED_BYTES)
    )


def text_of(data: bytes, encoding: str, first_line: int) -> str:
    """Return a piece's text. Raises ValueError where bytes are none."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise no_text(error, first_line - 1 + n_lines(data[: error.start])) from None


def no_text(error: UnicodeDecodeError, line: int) -> ValueError:
    """Return the error of a file with bytes that are no text after a line."""
    return ValueError(
        f"after line {line}: every byte must be {error.encoding}, and byte 0x{error.object[error.start]:02x} is "
        "not; write the file anew or set source.encoding"
    )


def _holds_ascii(encoding: str) -> bool:
    """Return whether a byte of a line's end or of a quote is one wherever it stands."""
    ascii_bytes = bytes(range(128))
    try:
        return ascii_bytes.decode(encoding) == ascii_bytes.decode("ascii")
    except UnicodeDecodeError:
        return False


class _Utf8(io.RawIOBase):
    """A file of any encoding as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file, self._encoding = file, encoding
        self._decoder, self._rest, self._n_lines = codecs.getincrementaldecoder(encoding)(), b"", 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        while not self._rest:
            data = self._file.read(len(buffer))
            try:
                self._rest = self._decoder.decode(data, final=not data).encode()
            except UnicodeDecodeError as error:
                raise no_text(error, self._n_lines) from None
            self._n_lines += self._rest.count(b"\n")
            if not data:
                break
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)
