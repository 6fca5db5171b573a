"""Read the rows of a query."""

from datetime import date

import pandas as pd

from tasks.params import SqlSource
from tasks.runtime.errors import TransientError, UserError
from tasks.sources.address import redact_url, url_of
from tasks.sources.unreadable import with_unreadable


def read_query(source: SqlSource, place: str, as_of: date) -> pd.DataFrame:
    """Return the query's rows; `:as_of` in it is bound to the run's date.

    Raises UserError where the query does not run, TransientError where the database does not answer.
    """
    import sqlalchemy

    query = sqlalchemy.text(source.query)
    bound = {"as_of": as_of.isoformat()} if "as_of" in query.compile().params else {}
    url, shown = url_of(source, place)
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            result = connection.execute(query, bound)
            rows = [[_with_nan_as_text(cell) for cell in row] for row in result]
            # dtype=object keeps integers with gaps and long numbers as they are.
            return with_unreadable(pd.DataFrame(rows, columns=list(result.keys()), dtype=object), [])
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        message = redact_url(str(getattr(error, "orig", None) or error).splitlines()[0], url, shown)
        if isinstance(error, sqlalchemy.exc.OperationalError) and not _is_mistake_of_sqlite(url, message):
            raise TransientError(f"{place}: the database did not answer the query; {message}") from None
        raise UserError(f"{place}: the query must run, and does not; {message}") from None


def _is_mistake_of_sqlite(url: str, message: str) -> bool:
    """Return whether waiting is of no use: SQLite reports a person's mistakes as operational errors too."""
    return url.startswith("sqlite") and "locked" not in message


def _with_nan_as_text(cell: object) -> object:
    """Return NaN of a database as the text that it is, not as a missing cell."""
    return "NaN" if isinstance(cell, float) and cell != cell else cell
