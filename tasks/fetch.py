"""What a product's source delivers, as it delivers it: files, SQL and Python.

Nothing is cast here: a CSV cell stays the text that it is, so that no leading zero or long number is lost.
`tasks.validate` types the cells and keeps those that do not fit.
"""

import importlib
import json
import os
from collections.abc import Callable
from datetime import date

import pandas as pd

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
        raise UserError(f"{place}.callable must name a function, got {product.source.callable!r}; define {name} in {module}")
    frame: pd.DataFrame = rows(start, product.scored_day(as_of))
    return frame


def _sql(product: Product, place: str, start: date | None, as_of: date) -> pd.DataFrame:
    import sqlalchemy

    query = sqlalchemy.text(product.source.query or "")
    bound = {"as_of": as_of.isoformat()} if "as_of" in query._bindparams else {}
    try:
        engine = sqlalchemy.create_engine(_url(product.source, place))
        with engine.connect() as connection:
            # dtype=object keeps integers with gaps and long numbers as they are.
            result = connection.execute(query, bound)
            return pd.DataFrame(result.fetchall(), columns=list(result.keys()), dtype=object)
    except sqlalchemy.exc.OperationalError as error:
        raise PassingError(f"{place}: the database did not answer the query; {error.orig}") from None
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise UserError(f"{place}: the query must run, and does not; {str(error).splitlines()[0]}") from None


def _file(product: Product, place: str, start: date | None, as_of: date) -> pd.DataFrame:
    import fsspec

    url = _url(product.source, place)
    read: Callable[..., pd.DataFrame] = {"csv": _csv, "parquet": _parquet, "jsonl": _jsonl}[product.source.kind]
    try:
        with fsspec.open(url, "rb") as file:
            return read(file)
    except FileNotFoundError:
        raise UserError(f"{place}.url must exist, and {url} does not; correct the path") from None
    except (UnicodeDecodeError, ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{place}.url: {url} must be {product.source.kind}; {' '.join(str(error).split())}") from None
    except OSError as error:
        raise PassingError(f"{place}.url: {url} could not be read; {error}") from None


def _csv(file: object) -> pd.DataFrame:
    return pd.read_csv(file, dtype="str", keep_default_na=False, na_values=[""], encoding="utf-8-sig")


def _parquet(file: object) -> pd.DataFrame:
    return pd.read_parquet(file, engine="pyarrow")


def _jsonl(file: list[bytes]) -> pd.DataFrame:
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


def _url(source: Source, place: str) -> str:
    if source.url_env is None:
        return source.url or ""
    if source.url_env not in os.environ:
        raise UserError(f"{place}.url_env: the environment variable {source.url_env} must be set, and is not; set it")
    return os.environ[source.url_env]
