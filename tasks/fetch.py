"""What a product's source delivers, as it delivers it: files, SQL and Python.

Nothing is cast here: a CSV cell stays the text that it is, so that no leading zero or long number is lost.
`tasks.validate` types the cells and keeps those that do not fit.
"""

import importlib
import json
import os
from collections.abc import Callable
from datetime import date
from typing import IO

import pandas as pd
import pyarrow.parquet as pq

from tasks.errors import PassingError, UserError
from tasks.params import Product, Source


def fetch(product: Product, start: date | None, as_of: date) -> pd.DataFrame:
    """Every row that the source knows on `as_of`, or for Python sources from event date `start` on.

    Raises UserError for what a person must mend, PassingError where the other side did not answer.
    """
    place = f"params.yaml: products.{product.name}.source"
    reader = {"python": _python, "sql": _sql}.get(product.source.kind, _file)
    frame = reader(product, place, start, as_of)
    if not isinstance(frame, pd.DataFrame):
        raise UserError(f"{place} must deliver a pandas DataFrame, got {type(frame).__name__}; return a DataFrame")
    twice = frame.columns[frame.columns.duplicated()].tolist()
    if twice:
        raise UserError(f"{place} must deliver every column once, got {twice} more than once; rename them")
    return frame


def _python(product: Product, place: str, start: date | None, as_of: date) -> pd.DataFrame:
    assert product.source.callable is not None
    module, _, name = product.source.callable.partition(":")
    rows = getattr(importlib.import_module(module), name, None)
    if not callable(rows):
        raise UserError(
            f"{place}.callable must name a function, got {product.source.callable!r}; define {name} in {module}"
        )
    frame: pd.DataFrame = rows(start, product.scored_day(as_of))
    return frame


def _sql(product: Product, place: str, start: date | None, as_of: date) -> pd.DataFrame:
    import sqlalchemy

    query = sqlalchemy.text(product.source.query or "")
    bound = {"as_of": as_of.isoformat()} if "as_of" in query._bindparams else {}
    url, shown = _url(product.source, place)
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            # dtype=object keeps integers with gaps and long numbers as they are.
            result = connection.execute(query, bound)
            return pd.DataFrame(result.fetchall(), columns=list(result.keys()), dtype=object)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        told = str(getattr(error, "orig", None) or error).splitlines()[0].replace(url, shown)
        if isinstance(error, sqlalchemy.exc.OperationalError) and not _sqlite_refuses(url, told):
            raise PassingError(f"{place}: the database did not answer the query; {told}") from None
        raise UserError(f"{place}: the query must run, and does not; {told}") from None


def _sqlite_refuses(url: str, told: str) -> bool:
    """SQLite reports a person's mistakes as operational errors too; only a lock passes."""
    return url.startswith("sqlite") and "locked" not in told


def _file(product: Product, place: str, start: date | None, as_of: date) -> pd.DataFrame:
    import fsspec

    url, shown = _url(product.source, place)
    read: Callable[[IO[bytes]], pd.DataFrame] = {"csv": _csv, "parquet": _parquet, "jsonl": _jsonl}[product.source.kind]
    try:
        with fsspec.open(url, "rb") as file:
            return read(file)
    except Exception as error:
        told = " ".join(str(error).split()).replace(url, shown)
        if isinstance(error, FileNotFoundError) and _is_absent(error):
            raise UserError(f"{place}.url must exist, and {shown} does not; correct the path") from None
        if isinstance(error, PermissionError):
            raise UserError(f"{place}.url: {shown} must be readable, and is refused; check the credentials") from None
        if isinstance(error, ValueError | ImportError):
            raise UserError(f"{place}.url: {shown} must be {product.source.kind}; {told}") from None
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("aiohttp", "botocore"):
            raise PassingError(f"{place}.url: {shown} could not be read; {told}") from None
        raise


def _is_absent(error: FileNotFoundError) -> bool:
    """fsspec says of a web server that is down, or ails, that the file is not there; its cause tells."""
    cause = error.__cause__
    return cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in (404, 410)


def _csv(file: IO[bytes]) -> pd.DataFrame:
    frame = pd.read_csv(file, dtype="str", keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    if not isinstance(frame.index, pd.RangeIndex):  # pandas would shift every cell by a column
        raise ValueError(f"rows must have as many cells as the header, {len(frame.columns)}, and have more")
    return frame


def _parquet(file: IO[bytes]) -> pd.DataFrame:
    return pq.read_table(file).to_pandas(integer_object_nulls=True)


def _jsonl(file: IO[bytes]) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number}: must be an object, got {type(row).__name__}")
            rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def _url(source: Source, place: str) -> tuple[str, str]:
    """The URL, and what may be shown of it: a URL from the environment may hold a secret."""
    if source.url_env is None:
        return source.url or "", source.url or ""
    if not os.environ.get(source.url_env):
        raise UserError(f"{place}.url_env: the environment variable {source.url_env} must be set, and is not; set it")
    return os.environ[source.url_env], f"${source.url_env}"
