"""Read the rows of a query, by any driver of SQLAlchemy.

Not a number, in a column of floats or decimals, is a missing cell, as in Parquet.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

import pandas as pd

from tasks.params import SqlSource
from tasks.runtime.errors import TransientError, UserError
from tasks.sources.address import redact_url, url_of
from tasks.sources.formats.pieces import RawPiece, Wanted, digest_of
from tasks.sources.formats.unreadable import with_unreadable

if TYPE_CHECKING:
    import sqlalchemy

_MISTAKES = re.compile(
    r"authentication failed|no password supplied|no pg_hba.conf entry|(role|database) .* does not exist"  # Postgres
    r"|permission denied|\(?10(44|45|49|54)\b|\(?11(42|46)\b"  # MySQL: access, database, column, table
)
"""What databases report like an outage though waiting mends nothing: a person's mistakes."""
_NO_DATE = re.compile(r"(?<![:\w\\]):(?=[0-9])")
"""A colon that begins no name, such as that of the text ':30': SQLAlchemy would want a value for it."""
MYSQL = ("mysql", "mariadb")
"""Schemes of addresses, and names of SQLAlchemy's dialects."""
PIECE_ROWS = 50_000
"""So many rows of a query are a piece."""
DRIVERS = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "cx_Oracle": "cx_Oracle",
    "snowflake": "snowflake-sqlalchemy",
    "bigquery": "sqlalchemy-bigquery",
    "redshift": "sqlalchemy-redshift",
    "duckdb": "duckdb-engine",
    "clickhouse": "clickhouse-sqlalchemy",
    "databricks": "databricks-sqlalchemy",
}
"""Packages to install whose name differs from that of the module, or of the URL's scheme, that is missing."""


def query_pieces(
    source: SqlSource, place: str, since: date | None, as_of: date, kinds: Mapping[str, str], wanted: Wanted
) -> Iterator[RawPiece]:
    """Yield the query's rows as the database has them ready; `:as_of` and `:since` in it are bound to dates.

    Where all rows are wanted, `:since` is the first date there is. `kinds` are the kinds of the declared columns.
    Raises UserError where the query does not run or a declared column is of a type of which no cell is made,
    TransientError where the database does not answer.
    """
    import sqlalchemy

    query = sqlalchemy.text(_NO_DATE.sub(r"\\:", source.query))
    dates = {"as_of": as_of.isoformat(), "since": (since or date.min).isoformat()}
    bound = {name: value for name, value in dates.items() if name in query.compile().params}
    url, shown = url_of(source, place)
    try:
        engine = sqlalchemy.create_engine(url)
        # A server keeps the result and sends it in parts, where the driver can ask for that.
        with engine.connect().execution_options(stream_results=True, max_row_buffer=PIECE_ROWS) as connection:
            result, parts = _execute(connection, query, bound, kinds, place)
            for number, part in enumerate(parts):
                rows = [tuple(None if _is_nan(cell) else cell for cell in row) for row in part]
                digest = digest_of(repr([*result.keys()]).encode(), repr(rows).encode())
                if wanted.is_known(f"query#{number}", digest):
                    yield RawPiece(number=f"query#{number}", digest=digest, rows=None, n_rows=len(rows))
                    continue
                # dtype=object keeps integers with gaps and long numbers as they are.
                frame = with_unreadable(pd.DataFrame(rows, columns=list(result.keys()), dtype=object), [])
                yield RawPiece(number=f"query#{number}", digest=digest, rows=frame, n_rows=len(rows))
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise UserError(f"{place}: {missing_driver(error)}") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        message = redact_url(str(getattr(error, "orig", None) or error).strip().splitlines()[0], url, shown)
        if is_outage(url, error, message):
            raise TransientError(f"{place}: the database did not answer the query; {message}") from None
        raise UserError(f"{place}: the query must run, and does not; {message}") from None


def _execute(
    connection: "sqlalchemy.Connection",
    query: "sqlalchemy.TextClause",
    bound: dict[str, str],
    kinds: Mapping[str, str],
    place: str,
) -> tuple["sqlalchemy.CursorResult", Iterator[Sequence[Any]]]:
    """Return the result and its rows in parts; the first one is there, and empty where there are none."""
    from tasks.sources.databases import mysql, postgres

    is_postgres = connection.dialect.name == "postgresql"
    if is_postgres:
        postgres.keep_times_as_they_are(connection)
    result = connection.execute(query, bound)
    described: Sequence[Any] = result.cursor.description if result.cursor is not None else ()
    if is_postgres:
        types = postgres.column_types(connection, [column[1] for column in described])
        refused = postgres.refusals(dict(zip(result.keys(), types, strict=False)), kinds)
        if refused:
            raise UserError("\n".join(f"{place}.query: column {message}" for message in refused))
    parts: Iterator[Sequence[Any]] = chain(
        [result.fetchmany(PIECE_ROWS)], iter(lambda: result.fetchmany(PIECE_ROWS), [])
    )
    return result, mysql.as_written(described, parts) if connection.dialect.name in MYSQL else parts


def missing_driver(error: Exception) -> str:
    """Return what to install for a driver or a dialect that is not there."""
    wanted = str(getattr(error, "name", None) or str(error).rpartition(":")[2]).strip()
    package = DRIVERS.get(wanted.partition(".")[0], wanted.partition(".")[0])
    return (
        f"the driver of the database must be installed, and {wanted} is not; run pip install '{package}' where the "
        "stages run (workers and images too)"
    )


def is_outage(url: str, error: "sqlalchemy.exc.SQLAlchemyError", message: str) -> bool:
    """Return whether waiting may mend an error: SQLite reports all of a person's mistakes as operational ones too."""
    import sqlalchemy

    from tasks.sources.databases import mysql

    if url.startswith(MYSQL) and mysql.is_outage(message):
        return True
    if not isinstance(error, sqlalchemy.exc.OperationalError) or _MISTAKES.search(str(error)):
        return False
    return "locked" in str(error) or not url.startswith("sqlite")


def _is_nan(cell: object) -> bool:
    return isinstance(cell, float | Decimal) and cell != cell
