"""Read a file, or those of a folder or pattern, in pieces: by the reader of their format, whatever they are packed in.

A piece is known by its bytes: every file is read and hashed each night, and only what is new is parsed. A small file in
an object store that gives content its own tag (ETag) is not even opened: another content has another tag. Times and
lengths of local files prove nothing and are not looked at. A file in a folder such as day=2024-03-01 is not opened
where that is the product's time and a day after the night.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import IO, Any

import pandas as pd
import pyarrow as pa

from tasks.params import FileSource
from tasks.runtime.errors import TransientError, UserError
from tasks.sources.address import redact_url, url_of
from tasks.sources.formats.compressed import DAMAGED, FILE_DATE, SourceFile, dated_by_name, decompressed, files_of
from tasks.sources.formats.csv_file import csv_pieces
from tasks.sources.formats.excel_file import excel_pieces
from tasks.sources.formats.image_files import is_outage
from tasks.sources.formats.jsonl_file import jsonl_pieces
from tasks.sources.formats.other_files import checked
from tasks.sources.formats.parquet_file import parquet_pieces
from tasks.sources.formats.pieces import RawPiece, Wanted, digest_of

SMALL_BYTES = 2**21
"""A file up to this size is one piece where its store says which content it has."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """How files of one kind are read."""

    pieces: Callable[[IO[bytes], Any, Wanted], Iterator[RawPiece]]
    """The reader."""
    is_read_at_random: bool = False
    """Whether it does not read from the begin to the end."""


FORMATS = {
    "csv": Format(pieces=csv_pieces),
    "jsonl": Format(pieces=jsonl_pieces),
    "parquet": Format(pieces=parquet_pieces, is_read_at_random=True),
    "excel": Format(pieces=excel_pieces, is_read_at_random=True),
}
"""The formats by kind of source."""


def file_pieces(source: FileSource, place: str, wanted: Wanted) -> Iterator[RawPiece]:
    """Yield the pieces of a file, or of all files of a folder or pattern; `number` is name and place, as `a.csv#3`.

    Raises UserError for what a person must mend, TransientError where the other side did not answer.
    """
    url, shown = url_of(source, place)
    at = shown
    try:
        files = files_of(url)
        for file in files:
            at = file.url if source.url_env is None and file.url != url else shown
            yield from _pieces_of(file, source, wanted)
    except Exception as error:
        raise _explained(error, source, place, url, at) from None


def _pieces_of(file: SourceFile, source: FileSource, wanted: Wanted) -> Iterator[RawPiece]:
    columns = dated_by_name(file.columns, file.url, source.file_date)
    day = _day(columns.get(wanted.time or "", ""))
    if day and wanted.leaves_out((day, day)):
        yield RawPiece(number=f"{file.name}#0", digest="", rows=None, days=(day, day))
        return
    of_file = replace(wanted, is_known=lambda number, digest: wanted.is_known(f"{file.name}#{number}", digest))
    pieces = (
        _whole(file, source, of_file) if file.tag and file.n_bytes <= SMALL_BYTES else _opened(file, source, of_file)
    )
    for piece in pieces:
        rows = piece.rows
        if rows is not None and source.file_date and FILE_DATE in rows and FILE_DATE in wanted.declared:
            raise ValueError(f"it has a column {FILE_DATE} beside the date of its name; leave out source.file_date")
        if rows is not None:
            rows = rows.assign(**{name: value for name, value in columns.items() if name not in rows})
        yield replace(piece, number=f"{file.name}#{piece.number}", rows=rows)


def _day(text: str) -> str:
    """Return the date that a folder's name gives, empty where it gives none."""
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        return ""


def _whole(file: SourceFile, source: FileSource, wanted: Wanted) -> Iterator[RawPiece]:
    """Yield a file as one piece that is known by the tag that its store gives it."""
    digest = digest_of(file.tag.encode(), str(file.n_bytes).encode())
    if wanted.is_known("0", digest):
        yield RawPiece(number="0", digest=digest, rows=None)
        return
    never = replace(wanted, is_known=lambda number, digest: False)
    pieces = [piece for piece in _opened(file, source, never) if piece.rows is not None]
    rows = [piece.rows for piece in pieces if piece.rows is not None]
    if rows:
        joined = rows[0] if len(rows) == 1 else pd.concat(rows, ignore_index=True)
        yield RawPiece(number="0", digest=digest, rows=joined, n_rows=len(joined))


def _opened(file: SourceFile, source: FileSource, wanted: Wanted) -> Iterator[RawPiece]:
    import fsspec

    form = FORMATS[source.kind]
    with fsspec.open(file.url, "rb") as opened:
        yield from form.pieces(checked(decompressed(opened, form.is_read_at_random), source), source, wanted)


def _explained(error: Exception, source: FileSource, place: str, url: str, shown: str) -> Exception:
    """Return what a person is told of an error, or the error itself where it is none of a source."""
    if isinstance(error, UserError | TransientError):
        return error
    if isinstance(error, DAMAGED):
        error = ValueError(f"it is compressed, and damaged or cut off; {error}")
    message = redact_url(" ".join(str(error).split()), url, shown)
    if isinstance(error, FileNotFoundError) and _is_absent(error):
        return UserError(f"{place}.url must exist, and {shown} does not; correct the path")
    if isinstance(error, IsADirectoryError):
        return UserError(f"{place}.url must be a file, and {shown} is a folder; name a file in it")
    if isinstance(error, PermissionError):
        return UserError(f"{place}.url: {shown} must be readable, and is refused; check the credentials")
    if isinstance(error, ValueError | ImportError | MemoryError | pa.ArrowException) or _is_corrupt(error):
        return UserError(f"{place}.url: {shown} must be {source.kind}; {message or type(error).__name__}")
    if is_outage(error):
        return TransientError(f"{place}.url: {shown} could not be read; {message}")
    return error


def _is_corrupt(error: Exception) -> bool:
    """Return whether a page is damaged: pyarrow reports it like a failing disk, but without an error number."""
    return type(error) is OSError and error.errno is None


def _is_absent(error: FileNotFoundError) -> bool:
    """Return whether the file does not exist: fsspec says so of a web server that is down too, for another cause."""
    cause: BaseException | None = error
    while isinstance(cause, FileNotFoundError):
        cause = cause.__cause__
    return cause is None or getattr(cause, "status", None) in (404, 410)
