"""What a product's source delivers, as it delivers it: files, SQL and Python.

Nothing is cast here: a CSV cell stays the text that it is, so that no leading zero or long number is lost.
`tasks.validate` types the cells and keeps those that do not fit.

A row that cannot be read, such as one with a cell too many, is a row too: it comes without cells, and with what
is wrong with it in the columns UNREADABLE (`column: rule`), LINE and TEXT (what stands there).
"""

import csv
import importlib
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from datetime import date
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.params import (
    UNREADABLE_COLUMNS,
    CsvSource,
    FileSource,
    JsonlSource,
    ParquetSource,
    Product,
    PythonSource,
    SqlSource,
)
from tasks.rows.casting import cell_text
from tasks.runtime.errors import TransientError, UserError

UNREADABLE, LINE, TEXT = UNREADABLE_COLUMNS
CHUNK_ROWS = 65536
_CONTAINERS = (list, tuple, set, dict, np.ndarray, bytes, bytearray, memoryview)


def fetch(product: Product, start: date | None, as_of: date) -> pd.DataFrame:
    """Every row that the source knows on `as_of`, or for Python sources from event date `start` on.

    Raises UserError for what a person must mend, PassingError where the other side did not answer.
    """
    place = f"params.yaml: products.{product.name}.source"
    source = product.source
    if source.kind == "python":
        frame = _python(source, place, start, product.scored_day(as_of))
    elif source.kind == "sql":
        frame = _sql(source, place, as_of)
    else:
        frame = _file(source, place)
    if not isinstance(frame, pd.DataFrame):
        raise UserError(f"{place} must deliver a pandas DataFrame, got {type(frame).__name__}; return a DataFrame")
    twice = frame.columns[frame.columns.duplicated()].tolist()
    if twice:
        raise UserError(f"{place} must deliver every column once, got {twice} more than once; rename them")
    return _single_values(frame.reset_index(drop=True), product)


def _python(source: PythonSource, place: str, start: date | None, end: date) -> pd.DataFrame:
    module, _, name = source.callable.partition(":")
    rows = getattr(importlib.import_module(module), name, None)
    if not callable(rows):
        raise UserError(f"{place}.callable must name a function, got {source.callable!r}; define {name} in {module}")
    frame: pd.DataFrame = rows(start, end)
    return frame.drop(columns=list(UNREADABLE_COLUMNS), errors="ignore") if isinstance(frame, pd.DataFrame) else frame


def _sql(source: SqlSource, place: str, as_of: date) -> pd.DataFrame:
    import sqlalchemy

    query = sqlalchemy.text(source.query)
    bound = {"as_of": as_of.isoformat()} if "as_of" in query._bindparams else {}
    url, shown = _url(source, place)
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            # dtype=object keeps integers with gaps and long numbers as they are.
            result = connection.execute(query, bound)
            rows = [[_nan_told(cell) for cell in row] for row in result]
            return _with_unreadable(pd.DataFrame(rows, columns=list(result.keys()), dtype=object), [])
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        told = _told(str(getattr(error, "orig", None) or error).splitlines()[0], url, shown)
        if isinstance(error, sqlalchemy.exc.OperationalError) and not _sqlite_refuses(url, told):
            raise TransientError(f"{place}: the database did not answer the query; {told}") from None
        raise UserError(f"{place}: the query must run, and does not; {told}") from None


def _sqlite_refuses(url: str, told: str) -> bool:
    """SQLite reports a person's mistakes as operational errors too; only a lock passes."""
    return url.startswith("sqlite") and "locked" not in told


def _file(source: FileSource, place: str) -> pd.DataFrame:
    import fsspec

    url, shown = _url(source, place)
    try:
        with fsspec.open(url, "rb") as file:
            if source.kind == "csv":
                return _csv(file, source)
            return _jsonl(file, source) if source.kind == "jsonl" else _parquet(file, source)
    except Exception as error:
        told = _told(" ".join(str(error).split()), url, shown)
        if isinstance(error, FileNotFoundError) and _is_absent(error):
            raise UserError(f"{place}.url must exist, and {shown} does not; correct the path") from None
        if isinstance(error, PermissionError):
            raise UserError(f"{place}.url: {shown} must be readable, and is refused; check the credentials") from None
        if isinstance(error, ValueError | ImportError | MemoryError | pa.ArrowException) or _is_corrupt(error):
            raise UserError(f"{place}.url: {shown} must be {source.kind}; {told or type(error).__name__}") from None
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("aiohttp", "botocore"):
            raise TransientError(f"{place}.url: {shown} could not be read; {told}") from None
        raise


def _is_corrupt(error: Exception) -> bool:
    """pyarrow tells of a damaged page as of a disk that ails, but without an error number."""
    return type(error) is OSError and error.errno is None


def _is_absent(error: FileNotFoundError) -> bool:
    """fsspec says of a web server that is down, or ails, that the file is not there; what caused it tells."""
    cause: BaseException | None = error
    while isinstance(cause, FileNotFoundError):
        cause = cause.__cause__
    return cause is None or getattr(cause, "status", None) in (404, 410)


def _csv(file: IO[bytes], source: CsvSource) -> pd.DataFrame:
    """Every cell as text, an empty one as missing. Raises ValueError where rows cannot be told apart."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(_text_of(file, source), delimiter=source.delimiter, strict=True)
    tables, chunk, unreadable, ended = [], [], [], 0
    try:
        header = next(reader, [])
        if not header:
            raise ValueError("the first line must name the columns, and is empty")
        ended = reader.line_num
        for row in reader:
            begun, ended = ended + 1, reader.line_num
            if len(row) == len(header):
                chunk.append(row)
            elif row:  # an empty line is none
                if ended > begun:
                    raise ValueError(
                        f"lines {begun} to {ended}: a row in quotes must have {len(header)} cells as the header has, "
                        f"and has {len(row)}: a quote may be missing, and how many rows these lines are is not known"
                    )
                rule = f"row: must have {len(header)} cells as the header has, and has {len(row)}"
                unreadable.append({UNREADABLE: rule, LINE: begun, TEXT: json.dumps(row, ensure_ascii=False)})
            if len(chunk) == CHUNK_ROWS:
                tables.append(_texts(chunk, header))
                chunk.clear()
    except csv.Error as error:
        quote = "a quote is opened and never closed" if "unexpected end" in str(error) else str(error)
        raise ValueError(f"line {ended + 1}: {quote}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"after line {ended}: every byte must be {error.encoding}, and byte 0x{error.object[error.start]:02x} is "
            "not; write the file anew or set source.encoding"
        ) from None
    tables.append(_texts(chunk, header))
    return _with_unreadable(pa.concat_tables(tables).to_pandas(), unreadable)


def _text_of(file: IO[bytes], source: CsvSource | JsonlSource) -> io.TextIOWrapper:
    """A file's text without the mark of its byte order."""
    encoding = "utf-8-sig" if source.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else source.encoding
    return io.TextIOWrapper(file, encoding, newline="")


def _texts(rows: list[list[str]], header: list[str]) -> pa.Table:
    """Cells as Arrow's text, of which a row takes a tenth of the room that Python's own takes."""
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"every column must be named once, got {twice} more than once; rename them")
    columns = [pa.array(cells, pa.large_string()) for cells in zip(*rows, strict=True)] or [
        pa.array([], pa.large_string())
    ] * len(header)
    return pa.table([pc.if_else(pc.equal(cells, ""), None, cells) for cells in columns], names=header)


def _with_unreadable(frame: pd.DataFrame, unreadable: list[dict[str, Any]]) -> pd.DataFrame:
    frame = frame.drop(columns=list(UNREADABLE_COLUMNS), errors="ignore")  # the source's own are not declared
    if not unreadable:
        return frame
    return pd.concat([frame, pd.DataFrame(unreadable).astype({LINE: "Int64"})], ignore_index=True)


def _parquet(file: IO[bytes], source: ParquetSource) -> pd.DataFrame:
    table = pq.ParquetFile(file, page_checksum_verification=True).read()
    table.validate(full=True)  # text that is no UTF-8 would fail much later
    for place, field in enumerate(table.schema):
        plain = _plain(table.column(place), field.type)
        table = table.set_column(place, field.name, plain)
    return _with_unreadable(table.to_pandas(integer_object_nulls=True, ignore_metadata=True), [])


def _plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A column without what pandas would change: NaN, of which it makes a missing cell, and bytes that are text."""
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type), kind.value_type)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            return column.cast(pa.large_string())
        except pa.ArrowInvalid:
            return column
    if pa.types.is_floating(kind) and pc.any(pc.is_nan(column)).as_py():
        # Each as our own text of a number is, so that a column reads alike with and without a NaN.
        cells = column.cast(pa.float64()).to_pylist()
        texts = [cell if cell is None else "NaN" if math.isnan(cell) else cell_text(cell) for cell in cells]
        return pa.chunked_array([pa.array(texts, pa.string())])
    return column


def _jsonl(file: IO[bytes], source: JsonlSource) -> pd.DataFrame:
    rows, unreadable = [], []
    for number, line in enumerate(_lines(file, source), 1):
        if not line.strip():
            continue
        try:
            # Numbers with a point stay text, which they are in the file: a float would lose digits.
            row = json.loads(line, parse_float=str, parse_constant=str, object_pairs_hook=_object)
            if not isinstance(row, dict):
                raise ValueError("must be an object")
            if "\\u" in line:
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
            rows.append(row)
        except (ValueError, RecursionError) as error:
            rule = "names a column twice" if error.args[0] == _TWICE else "is no JSON object"
            unreadable.append({UNREADABLE: f"row: {rule}", LINE: number, TEXT: line.strip()})
    if unreadable and not rows:
        raise ValueError(f"line {unreadable[0][LINE]}: {unreadable[0][UNREADABLE]}, and no other line is one")
    return _with_unreadable(pd.DataFrame(rows, dtype=object), unreadable)


_TWICE = "a name is given twice"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(_TWICE)
    return made


def _lines(file: IO[bytes], source: JsonlSource) -> Iterator[str]:
    """Lines as JSON Lines means them: ended by \\n alone. Raises ValueError where bytes are no text."""
    number = 0
    text = _text_of(file, source)
    text.reconfigure(newline="\n")
    try:
        for number, line in enumerate(text, 1):  # noqa: B007 (told on failure)
            yield line
    except UnicodeDecodeError as error:
        raise ValueError(
            f"after line {number}: every byte must be {error.encoding}, and byte 0x{error.object[error.start]:02x} is "
            "not; write the file anew or set source.encoding"
        ) from None


def _single_values(frame: pd.DataFrame, product: Product) -> pd.DataFrame:
    """Rows with a list, an object or bytes in an input are marked, and hold it as JSON: no input is made of those."""
    for name in product.input_columns:
        if name not in frame or frame[name].dtype != object:
            continue
        nested = frame[name].map(lambda cell: isinstance(cell, _CONTAINERS))
        if nested.any():
            rule = f"{name}: is no single value"
            earlier = frame[UNREADABLE] if UNREADABLE in frame else pd.Series(None, frame.index, dtype=object)
            frame[UNREADABLE] = earlier.where(
                ~nested, earlier.map(lambda text: f"{text}; ", na_action="ignore").fillna("") + rule
            )
            shown = frame.loc[nested, name].map(lambda cell: json.dumps(cell, ensure_ascii=False, default=_shown))
            frame[name] = frame[name].where(~nested, shown)
    return frame


def _shown(cell: Any) -> Any:
    return cell.tolist() if isinstance(cell, np.ndarray) else sorted(cell) if isinstance(cell, set) else str(cell)


def _nan_told(cell: Any) -> Any:
    """NaN of a database as the text that it is, not as a missing cell."""
    return "NaN" if isinstance(cell, float) and cell != cell else cell


def _url(source: FileSource | SqlSource, place: str) -> tuple[str, str]:
    """The URL, and what may be shown of it: a URL from the environment may hold a secret."""
    if source.url_env is None:
        return source.url or "", source.url or ""
    if not os.environ.get(source.url_env):
        raise UserError(f"{place}.url_env: the environment variable {source.url_env} must be set, and is not; set it")
    return os.environ[source.url_env], f"${source.url_env}"


_URL = re.compile(r"[\w+.-]+://\S*[^\s'\"]")


def _told(text: str, url: str, shown: str) -> str:
    """What an error says, without any URL: a library may tell ours in its own spelling, or where it was sent on to."""
    return _URL.sub(lambda _: shown, text.replace(url, shown))
