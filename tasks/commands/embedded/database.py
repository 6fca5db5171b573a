"""Open the embedded Airflow's SQLite database so that its programs can write at the same time.

SQLite has one writer at a time, and every other one must wait for its turn. As Airflow opens it, a transaction that
begins by reading, as each savepoint does, is refused at its first write where another program has written since: a
backfill from the UI is then answered with "Database is locked". So each transaction that sets a savepoint asks for its
turn first, and waits for it. Nothing may wait for itself: an API server whose one event loop waits keeps the request
that has the turn from ending. That is why the tasks of runs have a server of their own.
Airflow takes `CONNECT` by its name, which `tasks.commands.embedded.environment` sets.
"""

import sqlite3
from collections.abc import Callable
from typing import Any, Self

WAIT_SECONDS = 60
"""How long a writer waits for its turn; the longest transaction of Airflow's creates the runs of a backfill."""


class _Cursor(sqlite3.Cursor):
    """A cursor that asks for the turn to write before it sets a savepoint."""

    def execute(self, statement: str, parameters: Any = (), /) -> Self:
        """Run a statement."""
        if statement.startswith("SAVEPOINT") and not self.connection.in_transaction:
            super().execute("BEGIN IMMEDIATE")
        return super().execute(statement, parameters)


class Connection(sqlite3.Connection):
    """A connection whose cursors ask for the turn to write."""

    def cursor(self, factory: Callable[[sqlite3.Connection], sqlite3.Cursor] | None = None) -> Any:
        """Return a cursor."""
        return super().cursor(factory or _Cursor)


CONNECT = {"timeout": WAIT_SECONDS, "isolation_level": "IMMEDIATE", "factory": Connection}
"""What sqlite3.connect is given."""
