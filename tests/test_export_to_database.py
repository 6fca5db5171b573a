"""Oracle: what a real Postgres server has in its tables, beside the rows that were published on a real S3 server."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pandas as pd
import pytest
import sqlalchemy
from test_postgres import server  # noqa: F401 (a fixture)
from test_publish import AS_OF, by_id, make_night, place, tiny, url  # noqa: F401 (url is a fixture)

from tasks.commands.nights.withdraw import withdraw
from tasks.publication.tables import database
from tasks.publication.tables.database import export_night
from tasks.publish import publish
from tasks.runtime.errors import TransientError, UserError

pytestmark = pytest.mark.parametrize("server", ["wheel"], indirect=True)
LATER = AS_OF + timedelta(days=1)


@pytest.fixture
def warehouse(server):  # noqa: F811
    """The address of an empty database."""
    address = f"postgresql+psycopg://postgres@/postgres?host={server}"
    engine = sqlalchemy.create_engine(address)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    engine.dispose()
    return address


def publish_one(url, as_of=AS_OF, model="m1", n_rows=10):  # noqa: F811
    product, rows = make_night(url, as_of, n_rows, model)
    publish(product, as_of)
    return rows


def rows_in(warehouse, as_of=AS_OF, table="tiny"):
    engine = sqlalchemy.create_engine(warehouse)
    with engine.connect() as connection:
        frame = pd.read_sql(sqlalchemy.text(f"SELECT * FROM {table} WHERE dt = '{as_of}'"), connection)
    engine.dispose()
    return by_id(frame.drop(columns="dt"))


def test_night_is_written_once_replaced_whole_and_withdrawn(url, warehouse):  # noqa: F811
    first, later = publish_one(url), publish_one(url, LATER, "later")
    assert export_night(place(url), warehouse) == "10 rows of 2024-02-10 written to tiny"
    assert export_night(place(url), warehouse) == "10 rows of 2024-02-10 were in tiny already"
    export_night(place(url, LATER), warehouse)
    assert rows_in(warehouse).equals(by_id(first))
    second = publish_one(url, model="another model", n_rows=7)
    export_night(place(url), warehouse)
    assert rows_in(warehouse).equals(by_id(second))
    withdraw(tiny(url), AS_OF, "wrong", "Ann")
    assert export_night(place(url), warehouse).startswith("0 rows of 2024-02-10 written")
    assert rows_in(warehouse).empty
    assert rows_in(warehouse, LATER).equals(by_id(later))


def test_export_that_dies_before_its_commit_leaves_the_night_before(url, warehouse, monkeypatch):  # noqa: F811
    first = publish_one(url)
    export_night(place(url), warehouse)
    second = publish_one(url, model="another model")

    def die(label):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(database.faults, "failpoint", die)
        with pytest.raises(KeyboardInterrupt):
            export_night(place(url), warehouse)
    assert rows_in(warehouse).equals(by_id(first))
    export_night(place(url), warehouse)
    assert rows_in(warehouse).equals(by_id(second))


def test_exports_at_once_and_one_that_wakes_late_leave_the_newest_night_once(url, warehouse):  # noqa: F811
    publish_one(url)
    barrier = threading.Barrier(4)

    def export(_):
        barrier.wait()
        return export_night(place(url), warehouse)

    with ThreadPoolExecutor(4) as pool:
        lines = list(pool.map(export, range(4)))
    assert sum("written" in line for line in lines) == 1
    current, slept = database.manifests.current_manifest, []
    patch = pytest.MonkeyPatch()

    def sleep_after_reading(night):
        patch.undo()
        manifest = current(night)
        slept.append(publish_one(url, model="another model"))
        export_night(place(url), warehouse)
        return manifest

    patch.setattr(database.manifests, "current_manifest", sleep_after_reading)
    assert "were in tiny already" in export_night(place(url), warehouse)
    assert rows_in(warehouse).equals(by_id(slept[0]))


def test_column_that_is_new_is_added_and_what_does_not_fit_is_told(url, warehouse, monkeypatch):  # noqa: F811
    rows = publish_one(url)
    engine = sqlalchemy.create_engine(warehouse)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE tiny (parcel_id text, dt date)"))
        connection.execute(sqlalchemy.text("CREATE TABLE other (parcel_id integer, dt date)"))
    export_night(place(url), warehouse)
    assert rows_in(warehouse)[list(rows.columns)].equals(by_id(rows))
    with pytest.raises(UserError, match=r"TO=postgresql\+psycopg://\.\.\.: the table other must take the night"):
        export_night(place(url), warehouse, "other")
    with pytest.raises(UserError, match="a night must be published, and none is"):
        export_night(place(url, LATER), warehouse)
    with pytest.raises(UserError, match="TO must be a URL of SQLAlchemy"):
        export_night(place(url), "WAREHOUSE")
    monkeypatch.setenv("WAREHOUSE", "postgresql+psycopg://ann:secret@127.0.0.1:9/x")
    with pytest.raises(TransientError, match=r"TO=\$WAREHOUSE: the database did not answer") as told:
        export_night(place(url), "WAREHOUSE")
    assert "secret" not in str(told.value)
