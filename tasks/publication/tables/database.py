"""Write a published night into a table of a database, by any driver of SQLAlchemy, once however often it is asked.

All is one transaction: the rows of the date are replaced, and the table `lamplighter_nights` keeps which night they are
of. The same night again changes nothing; an export that wakes late finds a night of a higher generation there, and
leaves it; a withdrawn night has no row. Readers see the night of before or the new one, as their database isolates.
"""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.night_file import night_rows, scratch_folder, version_of, written_by
from tasks.publication.object_store import MAX_CAS_ROUNDS
from tasks.publication.tables.delta import DATE, delta_schema, with_date
from tasks.runtime import faults
from tasks.runtime.errors import TransientError, UserError
from tasks.sources.address import redact_url
from tasks.sources.databases.sql import is_outage, missing_driver

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy

NIGHTS = "lamplighter_nights"


def export_night(place: NightPlace, to: str, name: str = "") -> str:
    """Write the night as it is published now into the table `name`, by default the product's name; return a line.

    `to` is a URL of SQLAlchemy, or the name of the environment variable that holds one. Raises UserError where the
    night is not there or a person must mend the database, TransientError where it does not answer.
    """
    import sqlalchemy

    table_name = name or place.product.replace("-", "_")
    url, shown = _address(to)
    manifest = manifests.current_manifest(place)
    if manifest is None:
        raise UserError(
            f"{place.store.uri(place.folder)}: a night must be published, and none is; choose another AS_OF"
        )
    try:
        engine = sqlalchemy.create_engine(url)
        try:
            done = _write(engine, place, manifest, table_name)
        finally:
            engine.dispose()
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise UserError(f"TO={shown}: {missing_driver(error)}") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        message = redact_url(str(getattr(error, "orig", None) or error).strip().splitlines()[0], url, shown)
        if is_outage(url, error, message):
            raise TransientError(f"TO={shown}: the database did not answer; {message}") from None
        raise UserError(
            f"TO={shown}: the table {table_name} must take the night, and does not; {message}; mend or drop the table"
        ) from None
    rows = 0 if manifest.withdrawn else manifest.rows.published
    return (
        f"{rows:,} rows of {place.as_of} {'written to' if done else 'were in'} {table_name}{'' if done else ' already'}"
    )


def _address(to: str) -> tuple[str, str]:
    """Return the URL, and what a message may show of it. Raises UserError where it is none."""
    url = to if "://" in to else os.environ.get(to, "")
    if "://" not in url:
        raise UserError(
            f"TO must be a URL of SQLAlchemy, such as postgresql+psycopg://user@host/database, or the name of an "
            f"environment variable that holds one, got {to!r}; set it so"
        )
    return url, url.partition("://")[0] + "://..." if "://" in to else f"${to}"


def _write(engine: "sqlalchemy.Engine", place: NightPlace, manifest: Manifest, name: str) -> bool:
    """Replace the rows of the date; return False where those of this night, or of a later one, are there."""
    import sqlalchemy

    for _ in range(MAX_CAS_ROUNDS):
        try:
            with scratch_folder() as scratch, engine.begin() as connection:
                schema, pieces = night_rows(place, manifest, scratch)
                form = delta_schema(schema, f"table {name}")
                if not _take(connection, place, manifest, name):
                    return False
                table = _table(connection, name, form)
                connection.execute(table.delete().where(table.c[DATE] == place.as_of))
                for rows in _rows(pieces, place, form):
                    connection.execute(table.insert(), rows)
                faults.failpoint("export: the rows are about to be committed")
            return True
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError) as error:
            # Two that begin at once make the same table, or the same line: one of them does it anew.
            known = str(error.orig)
            if not any(words in known for words in ("already exists", "duplicate key", "UNIQUE constraint")):
                raise
    raise TransientError(f"table {name}: other writers came first {MAX_CAS_ROUNDS} times while we tried")


def _take(connection: "sqlalchemy.Connection", place: NightPlace, manifest: Manifest, name: str) -> bool:
    """Hold the line of the date until the transaction ends, and write the night there; return False if it is newer."""
    import sqlalchemy
    from sqlalchemy import Column

    nights = sqlalchemy.Table(
        NIGHTS,
        sqlalchemy.MetaData(),
        Column("table_name", sqlalchemy.String(200), primary_key=True),
        Column(DATE, sqlalchemy.Date, primary_key=True),
        Column("generation", sqlalchemy.BigInteger, nullable=False),
        Column("night", sqlalchemy.String(200), nullable=False),
        Column("manifest", sqlalchemy.String(2000), nullable=False),
    )
    nights.create(connection, checkfirst=True)
    line = (nights.c.table_name == name) & (nights.c[DATE] == place.as_of)
    stored = connection.execute(sqlalchemy.select(nights.c.generation).where(line).with_for_update()).scalar()
    generation = written_by(manifest)
    found = {"generation": generation, "night": version_of(manifest), "manifest": place.store.uri(place.manifest)}
    if stored is not None and stored >= generation:
        return False
    if stored is None:
        connection.execute(nights.insert(), {"table_name": name, DATE: place.as_of, **found})
    else:
        connection.execute(nights.update().where(line), found)
    return True


def _table(connection: "sqlalchemy.Connection", name: str, schema: "pa.Schema") -> "sqlalchemy.Table":
    """Return the table of the nights, made where there is none, with a column for each that is new."""
    import sqlalchemy

    table = sqlalchemy.Table(
        name, sqlalchemy.MetaData(), *(sqlalchemy.Column(field.name, _sql_type(field.type)) for field in schema)
    )
    table.create(connection, checkfirst=True)
    known = {column["name"] for column in sqlalchemy.inspect(connection).get_columns(name)}
    quote = connection.dialect.identifier_preparer.quote
    for column in table.columns:
        if column.name not in known:
            kind = column.type.compile(connection.dialect)
            connection.execute(sqlalchemy.DDL(f"ALTER TABLE {quote(name)} ADD COLUMN {quote(column.name)} {kind}"))
    return table


def _rows(pieces: Iterator["pa.Table"], place: NightPlace, schema: "pa.Schema") -> Iterator[list[dict[str, object]]]:
    """Yield the rows some thousands at a time; a list is one text, joined by |."""
    for piece in pieces:
        for batch in with_date(piece, place, schema).to_batches(max_chunksize=5000):
            rows = batch.to_pylist()
            for row in rows:
                row.update({name: "|".join(cell) for name, cell in row.items() if isinstance(cell, list)})
            if rows:
                yield rows


def _sql_type(kind: "pa.DataType") -> "sqlalchemy.types.TypeEngine[Any]":
    import pyarrow as pa
    import sqlalchemy

    if pa.types.is_timestamp(kind):
        return sqlalchemy.DateTime(timezone=kind.tz is not None)
    tests: list[tuple[Callable[[pa.DataType], bool], sqlalchemy.types.TypeEngine[Any]]] = [
        (pa.types.is_boolean, sqlalchemy.Boolean()),
        (pa.types.is_integer, sqlalchemy.BigInteger()),
        (pa.types.is_floating, sqlalchemy.Double()),
        (pa.types.is_date, sqlalchemy.Date()),
    ]
    return next((found for is_kind, found in tests if is_kind(kind)), sqlalchemy.Text())
