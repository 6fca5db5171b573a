"""Read the rows of a query, by any driver of SQLAlchemy.

Not a number, in a column of floats or decimals, is a missing cell, as in Parquet.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd

from tasks.params import SqlSource
from tasks.runtime.errors import TransientError, UserError
from tasks.sources.address import redact_url, url_of
from tasks.sources.formats.unreadable import with_unreadable

if TYPE_CHECKING:
    import sqlalchemy

_MISTAKES = re.compile(
    r"authentication failed|no password supplied|no pg_hba.conf entry|(role|database) .* does not exist"  # Postgres
    r"|permission denied|\(?10(44|45|49|54)\b|\(?11(42|46)\b"  # MySQL: access, database, column, table
)
"""What databases report like an outage though waiting mends nothing: a person's mistakes."""
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


def read_query(source: SqlSource, place: str, as_of: date, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Return the query's rows; `:as_of` in it is bound to the run's date.

    `kinds` are the kinds of the declared columns. Raises UserError where the query does not run or a declared column is
    of a type of which no cell is made, TransientError where the database does not answer.
    """
    import sqlalchemy

    query = sqlalchemy.text(source.query)
    bound = {"as_of": as_of.isoformat()} if "as_of" in query.compile().params else {}
    url, shown = url_of(source, place)
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            result = _execute(connection, query, bound, kinds, place)
            rows = [[None if _is_nan(cell) else cell for cell in row] for row in result]
            # dtype=object keeps integers with gaps and long numbers as they are.
            return with_unreadable(pd.DataFrame(rows, columns=list(result.keys()), dtype=object), [])
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise UserError(f"{place}: {_missing_driver(error)}") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        message = redact_url(str(getattr(error, "orig", None) or error).strip().splitlines()[0], url, shown)
        if isinstance(error, sqlalchemy.exc.OperationalError) and not _is_mistake(url, str(error)):
            raise TransientError(f"{place}: the database did not answer the query; {message}") from None
        raise UserError(f"{place}: the query must run, and does not; {message}") from None


def _execute(
    connection: "sqlalchemy.Connection",
    query: "sqlalchemy.TextClause",
    bound: dict[str, str],
    kinds: Mapping[str, str],
    place: str,
) -> "sqlalchemy.CursorResult":
    from tasks.sources import postgres

    if connection.dialect.name != "postgresql":
        return connection.execute(query, bound)
    postgres.keep_times_as_they_are(connection)
    result = connection.execute(query, bound)
    described: Sequence[Any] = result.cursor.description if result.cursor is not None else ()
    types = postgres.column_types(connection, [column[1] for column in described])
    refused = postgres.refusals(dict(zip(result.keys(), types, strict=False)), kinds)
    if refused:
        raise UserError("\n".join(f"{place}.query: column {message}" for message in refused))
    return result


def _missing_driver(error: Exception) -> str:
    """Return what to install for a driver or a dialect that is not there."""
    wanted = str(getattr(error, "name", None) or str(error).rpartition(":")[2]).strip()
    package = DRIVERS.get(wanted.partition(".")[0], wanted.partition(".")[0])
    return (
        f"the driver of the database must be installed, and {wanted} is not; run pip install '{package}' where the "
        "stages run (workers and images too)"
    )


def _is_mistake(url: str, message: str) -> bool:
    """Return whether waiting is of no use: SQLite reports all of a person's mistakes as operational errors too."""
    return _MISTAKES.search(message) is not None or (url.startswith("sqlite") and "locked" not in message)


def _is_nan(cell: object) -> bool:
    return isinstance(cell, float | Decimal) and cell != cell
