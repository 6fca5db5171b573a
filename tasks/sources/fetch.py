"""Fetch a product's rows as its source delivers them: files, SQL and Python.

Nothing is cast: a CSV cell stays the text that it is, so that no leading zero or long number is lost. `tasks.validate`
casts the cells and quarantines those that do not fit. A row that cannot be read is a row too: see
`tasks.sources.formats.unreadable`.
"""

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date

import pandas as pd
import pyarrow as pa

from model.heads import head_of
from tasks.params import UNREADABLE_COLUMNS, FileSource, Product, PythonSource
from tasks.runtime.errors import TransientError, UserError
from tasks.sources.address import redact_url, url_of
from tasks.sources.declared import declared_columns
from tasks.sources.formats.compressed import DAMAGED, FILE_DATE, dated_by_name, decompressed, files_of
from tasks.sources.formats.csv_file import read_csv
from tasks.sources.formats.dialect import in_own_terms, names_in_source
from tasks.sources.formats.excel_file import read_excel
from tasks.sources.formats.jsonl_file import read_jsonl
from tasks.sources.formats.other_files import checked
from tasks.sources.formats.parquet_file import read_parquet
from tasks.sources.formats.unreadable import mark_containers
from tasks.sources.labels import Labels
from tasks.sources.sql import read_query


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of what a source delivers: so many rows as fit into memory at once."""

    name: str
    """Where it lies at the source, such as `orders.parquet#3`: always the same part while the source only grows."""
    digest: str
    """Of its bytes and of how they are read; another one means that it must be read. Empty: not known, always read."""
    rows: pd.DataFrame | None
    """All declared columns under the product's names, and those that describe unreadable rows where there are such.
    None where the piece is known already, or lies outside of the days that were asked for (`days` says which)."""
    n_rows: int | None = None
    """How many rows it has, where that is known."""
    days: tuple[str, str] | None = None
    """The first and last event date of a piece that was not read, as it lies outside of the days asked for."""
    evidence: Mapping[str, int] = field(default_factory=dict)
    """What it adds to the checks of whole columns; to be given back when the piece is known."""


IsKnown = Callable[[str, str], bool]
"""Whether a piece of this name and digest was taken whole before, so that it need not be read."""
Evidence = Callable[[str], Mapping[str, int]]
"""The evidence that came with a known piece of this name."""


def fetch(
    product: Product,
    since: date | None,
    as_of: date,
    is_known: IsKnown = lambda name, digest: False,
    evidence: Evidence = lambda name: {},
) -> Iterator[Piece]:
    """Yield what the source knows on `as_of` in pieces; what is before event date `since` may be left out.

    Raises UserError for what a person must mend, at the end where it concerns a whole column; TransientError where the
    other side did not answer.
    """
    frame = declared_columns(fetch_whole(product, since, as_of), product)
    yield Piece(name="source#0", digest="", rows=frame, n_rows=len(frame))


def fetch_whole(product: Product, start: date | None, as_of: date) -> pd.DataFrame:
    """Return all rows at once, with undeclared columns where a declared one lacks: for a look at a source.

    Raises UserError for what a person must mend, TransientError where the other side did not answer.
    """
    place = f"params.yaml: products.{product.name}.source"
    source = product.source
    if source.kind == "python":
        frame = _call(source, place, start, product.scored_day(as_of))
    elif source.kind == "sql":
        frame = read_query(source, place, as_of, _kinds_of_cells(product))
    else:
        frame = _read_files(source, place, names_in_source(product).values())
    if not isinstance(frame, pd.DataFrame):
        raise UserError(f"{place} must deliver a pandas DataFrame, got {type(frame).__name__}; return a DataFrame")
    doubled = frame.columns[frame.columns.duplicated()]
    twice = [name for name in doubled.unique() if name in names_in_source(product).values()]
    if twice:
        raise UserError(f"{place} must deliver every column once, got {twice} more than once; rename them")
    frame = frame.loc[:, ~frame.columns.isin(doubled)].reset_index(drop=True)
    labels = Labels(product.target, place, source.kind)
    frame = mark_containers(in_own_terms(frame, product, place, labels), product, place)
    labels.check()
    return frame


def _kinds_of_cells(product: Product) -> dict[str, str]:
    """Return the kinds of the columns that hold single values: also of the target, unless its labels may be lists."""
    head = head_of(product.target.task)
    return product.kinds if head.normalises_labels else {**product.kinds, product.target.name: head.label_kind}


def _call(source: PythonSource, place: str, start: date | None, end: date) -> pd.DataFrame:
    module, _, name = source.callable.partition(":")
    rows = getattr(importlib.import_module(module), name, None)
    if not callable(rows):
        raise UserError(f"{place}.callable must name a function, got {source.callable!r}; define {name} in {module}")
    frame: pd.DataFrame = rows(start, end)
    return frame.drop(columns=list(UNREADABLE_COLUMNS), errors="ignore") if isinstance(frame, pd.DataFrame) else frame


def _read_files(source: FileSource, place: str, declared: Collection[str]) -> pd.DataFrame:
    """Return the rows of a file, or of all files of a folder or pattern; a column that some lack is missing in them."""
    url, shown = url_of(source, place)
    frames = []
    try:
        for file, columns in files_of(url):
            shown = file if source.url_env is None and file != url else shown
            columns = dated_by_name(columns, file, source.file_date)
            frame = _read_file(file, source, declared)
            if source.file_date and FILE_DATE in frame and FILE_DATE in declared:
                raise ValueError(f"it has a column {FILE_DATE} beside the date of its name; leave out source.file_date")
            frames.append(frame.assign(**{name: value for name, value in columns.items() if name not in frame}))
        return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    except Exception as error:
        if isinstance(error, DAMAGED):
            error = ValueError(f"it is compressed, and damaged or cut off; {error}")
        message = redact_url(" ".join(str(error).split()), url, shown)
        if isinstance(error, FileNotFoundError) and _is_absent(error):
            raise UserError(f"{place}.url must exist, and {shown} does not; correct the path") from None
        if isinstance(error, IsADirectoryError):
            raise UserError(f"{place}.url must be a file, and {shown} is a folder; name a file in it") from None
        if isinstance(error, PermissionError):
            raise UserError(f"{place}.url: {shown} must be readable, and is refused; check the credentials") from None
        if isinstance(error, ValueError | ImportError | MemoryError | pa.ArrowException) or _is_corrupt(error):
            raise UserError(f"{place}.url: {shown} must be {source.kind}; {message or type(error).__name__}") from None
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("aiohttp", "botocore"):
            raise TransientError(f"{place}.url: {shown} could not be read; {message}") from None
        raise


def _read_file(url: str, source: FileSource, declared: Collection[str]) -> pd.DataFrame:
    import fsspec

    with fsspec.open(url, "rb") as opened:
        file = checked(decompressed(opened, source.kind in ("parquet", "excel")), source)
        if source.kind == "csv":
            return read_csv(file, source, declared)
        if source.kind == "jsonl":
            return read_jsonl(file, source, declared)
        return read_excel(file, source, declared) if source.kind == "excel" else read_parquet(file, declared)


def _is_corrupt(error: Exception) -> bool:
    """Return whether a page is damaged: pyarrow reports it like a failing disk, but without an error number."""
    return type(error) is OSError and error.errno is None


def _is_absent(error: FileNotFoundError) -> bool:
    """Return whether the file does not exist: fsspec says so of a web server that is down too, for another cause."""
    cause: BaseException | None = error
    while isinstance(cause, FileNotFoundError):
        cause = cause.__cause__
    return cause is None or getattr(cause, "status", None) in (404, 410)
