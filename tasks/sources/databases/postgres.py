"""Read what a Postgres server has and Python has not, and refuse by name the types of which no cell can be made.

Drivers differ in what they make of `infinity`, of a year beyond 9999 and of 24:00: one stops, another takes the last
moment that Python knows. Here such a cell is the text that the server sends, which is no time and says so.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from model.features.kinds import KINDS

if TYPE_CHECKING:
    import sqlalchemy

TIMES = {1082: "date", 1083: "time", 1114: "timestamp", 1184: "timestamptz", 1266: "timetz"}
"""Numbers of the types of time, fixed by Postgres."""
_NO_PYTHON_TIME = re.compile(r"infinity| BC$|^[0-9]{5,}-|^24:")


def keep_times_as_they_are(connection: "sqlalchemy.Connection") -> None:
    """Have a connection return the text of a time that Python has no value for."""
    driver = connection.dialect.driver
    raw: Any = connection.connection.driver_connection
    if driver == "psycopg":
        import psycopg

        for name in TIMES.values():
            loader: Any = raw.adapters.get_loader(raw.adapters.types[name].oid, psycopg.pq.Format.TEXT)
            raw.adapters.register_loader(name, _or_text(loader))
    elif driver == "psycopg2":
        from psycopg2 import extensions

        casts = {1082: extensions.PYDATE, 1083: extensions.PYTIME, 1266: extensions.PYTIME}
        casts |= {1114: extensions.PYDATETIME, 1184: extensions.PYDATETIMETZ}
        for number, name in TIMES.items():
            extensions.register_type(extensions.new_type((number,), name, _cast_or_text(casts[number])), raw)


def _or_text(loader: Any) -> Any:
    """Return a psycopg loader that gives the server's text where `loader` finds no value."""
    import psycopg
    from psycopg.adapt import Loader

    class OrText(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self.inner = loader(oid, context)

        def load(self, data: Any) -> Any:
            try:
                return self.inner.load(data)
            except psycopg.DataError:
                return bytes(data).decode()

    return OrText


def _cast_or_text(cast: Any) -> Any:
    """Return a psycopg2 cast that gives the server's text where Python has no such time."""
    return lambda text, cursor: text if text and _NO_PYTHON_TIME.search(text) else cast(text, cursor)


def column_types(connection: "sqlalchemy.Connection", numbers: Sequence[int]) -> list[str]:
    """Return the names of types, such as `jsonb` and `text[]`, by their numbers."""
    import sqlalchemy

    query = sqlalchemy.text("select oid, format_type(oid, null), typtype = 'c' from pg_type where oid = any(:numbers)")
    found = connection.execute(query, {"numbers": list(numbers)})
    names = {oid: f"{name} (composite)" if is_composite else name for oid, name, is_composite in found}
    return [names.get(number, "") for number in numbers]


def refusals(types: Mapping[str, str], kinds: Mapping[str, str]) -> list[str]:
    """Return a message for each declared column of a type of which no cell is made.

    >>> refusals({"tags": "text[]", "n": "integer"}, {"tags": "category", "n": "number"})
    ['tags is of type text[], which is no single value; select a part of it, such as tags[1]']
    """
    found = []
    for name, kind in kinds.items():
        type_ = types.get(name, "")
        remedy = _REMEDIES.get(type_.split("(")[0].strip(), "")
        if type_.endswith("[]"):
            remedy = "which is no single value; select a part of it, such as {name}[1]"
        elif type_.endswith("(composite)"):
            remedy = "which is no single value; select a part of it, such as ({name}).field"
        elif type_ == "money" and KINDS[kind].cells == "float64":
            remedy = "whose text depends on the server's settings; select {name}::numeric"
        if remedy:
            found.append(f"{name} is of type {type_}, {remedy.format(name=name)}")
    return found


_REMEDIES = {
    "json": "which is no single value; select a part of it, such as {name}->>'key'",
    "jsonb": "which is no single value; select a part of it, such as {name}->>'key'",
    "bytea": "which is no text; select encode({name}, 'hex')",
    "interval": "whose months have no length; select extract(epoch from {name}), or {name}::text",
}
"""By the name of a type, why no cell is made of it, and what to select in its place."""
