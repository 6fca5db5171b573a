"""Oracle: Delta's own library, Polars and DuckDB as readers on a real S3 server; the law that it shows manifests."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import duckdb
import pandas as pd
import polars
import pyarrow as pa
import pytest
from builders import a_product
from conftest import ROOT
from deltalake import DeltaTable
from test_publish import AS_OF, by_id, claims, make_night, place, run_with, url  # noqa: F401 (url is a fixture)

from tasks.commands.nights.withdraw import withdraw
from tasks.gc import gc
from tasks.publication.object_store import Store
from tasks.publication.store_client import delta_options
from tasks.publication.tables import delta
from tasks.publication.tables.delta import delta_schema, follow_manifest, open_table
from tasks.publish import publish
from tasks.read import read_manifest
from tasks.runtime.errors import TransientError, UserError

DATES = [AS_OF + timedelta(days=i) for i in range(4)]
KILLED = """
import sys
from datetime import date
from builders import a_product
from tasks.publish import publish
publish(a_product(publish={"url": sys.argv[1], "table": "delta"}), date.fromisoformat(sys.argv[2]))
"""


def tabled(url):  # noqa: F811
    return a_product(publish={"url": url, "table": "delta"})


def publish_in_table(url, as_of=AS_OF, model="m1", generation=None, n_rows=10):  # noqa: F811
    """Publish a night of the tiny product with its table; returns the rows."""
    _, table = make_night(url, as_of, n_rows, model)
    publish(tabled(url), as_of, run_with(generation) if generation else None)
    return table


def rows_of(table, as_of=AS_OF):
    """The rows of a date, in order, without the date."""
    frame = table if isinstance(table, pd.DataFrame) else pa.table(table.to_pyarrow_table()).to_pandas()
    return by_id(frame[pd.to_datetime(frame["dt"]).dt.date == as_of].drop(columns="dt"))


def options():
    """What docs/reading.md tells a reader beside the variables of AWS."""
    return {"aws_endpoint_url": os.environ["AWS_ENDPOINT_URL_S3"], "allow_http": "true"}


def by_library(url, version=None):  # noqa: F811
    return DeltaTable(f"{url}/_tables/tiny", version=version, storage_options=options()).to_pandas()


def by_polars(url, version=None):  # noqa: F811
    return polars.scan_delta(f"{url}/_tables/tiny", version=version, storage_options=options()).collect().to_pandas()


def by_duckdb(url, version=None):  # noqa: F811
    rows = DeltaTable(f"{url}/_tables/tiny", version=version, storage_options=options()).to_pyarrow_dataset()
    return duckdb.from_arrow(rows).df()


@pytest.mark.parametrize("reader", [by_library, by_polars, by_duckdb])
def test_readers_see_each_night_once_and_travel_to_the_one_before(reader, url):  # noqa: F811
    before = publish_in_table(url)
    other = publish_in_table(url, DATES[1], "later")
    earlier_version = open_table(Store(url), "tiny").version()
    after = publish_in_table(url, model="another model", n_rows=7)
    now, then = reader(url), reader(url, earlier_version)
    for frame, as_of, rows in [(now, AS_OF, after), (now, DATES[1], other), (then, AS_OF, before)]:
        pd.testing.assert_frame_equal(rows_of(frame, as_of), by_id(rows), check_dtype=False)
    assert len(now) == 17


def test_same_night_again_commits_nothing_and_the_log_names_the_night(url):  # noqa: F811
    publish_in_table(url)
    version = open_table(Store(url), "tiny").version()
    publish_in_table(url)
    table = open_table(Store(url), "tiny")
    assert table.version() == version == 1
    manifest = read_manifest(url, "tiny")
    commit = table.history(1)[0]
    assert commit["lamplighter.night"] == manifest.file.version == f"{manifest.run}-000001"
    assert commit["lamplighter.manifest"] == f"{url}/tiny/dt=2024-02-10/_manifest.json"


def test_withdrawn_night_vanishes_and_comes_back_when_published_again(url):  # noqa: F811
    publish_in_table(url)
    publish_in_table(url, DATES[1], "later")
    withdraw(tabled(url), DATES[1], "yesterday's weights", "Ann")
    assert set(pd.to_datetime(by_library(url)["dt"]).dt.date) == {AS_OF}
    again = publish_in_table(url, DATES[1], "later")
    assert rows_of(by_library(url), DATES[1]).equals(by_id(again))


def test_withdrawn_night_that_was_never_in_the_table_cannot_come_late(url, monkeypatch):  # noqa: F811
    """The publisher sleeps between the manifest that it has read and its commit; meanwhile the night is withdrawn."""
    make_night(url)
    product = tabled(url)

    def withdraw_it(label):
        if label == "table: the manifest is read":
            monkeypatch.setattr(delta.faults, "failpoint", lambda label: None)
            withdraw(product, AS_OF, "wrong", "Ann")

    monkeypatch.setattr(delta.faults, "failpoint", withdraw_it)
    publish(product, AS_OF)
    assert by_library(url).empty


@pytest.mark.long
@pytest.mark.parametrize("table_exists", [True, False])
def test_publisher_that_wakes_after_a_later_one_brings_nothing_back(url, table_exists, monkeypatch):  # noqa: F811
    first, second = claims(url, "first", "second")
    if table_exists:
        publish_in_table(url, DATES[1])
    expected = []

    def overtake(label):
        if label == "table: the manifest is read" and not expected:
            expected.append(None)
            expected[0] = publish_in_table(url, model="second one", generation=second)

    monkeypatch.setattr(delta.faults, "failpoint", overtake)
    publish_in_table(url, model="first", generation=first)
    assert rows_of(by_library(url)).equals(by_id(expected[0]))
    assert delta.recorded_generation(open_table(Store(url), "tiny"), place(url)) == second


@pytest.mark.long
@pytest.mark.parametrize("label", ["table: the manifest is read", "table: the rows are committed"])
def test_publisher_killed_around_the_commit_leaves_a_whole_table_and_its_retry_mends(label, url):  # noqa: F811
    before = publish_in_table(url)
    _, table = make_night(url, model="another model")
    environ = {**os.environ, "LAMPLIGHTER_CRASH_AT": label, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    killed = subprocess.run([sys.executable, "-c", KILLED, url, AS_OF.isoformat()], env=environ, check=False)
    assert killed.returncode == -9
    is_committed = label == "table: the rows are committed"
    assert rows_of(by_library(url)).equals(by_id(table if is_committed else before))
    publish(tabled(url), AS_OF)
    assert rows_of(by_library(url)).equals(by_id(table))
    assert open_table(Store(url), "tiny").version() == 2


def test_publishers_at_once_leave_each_night_once(url):  # noqa: F811
    expected = {}
    for as_of in DATES:  # into the manifests alone
        product, expected[as_of] = make_night(url, as_of, model=as_of.isoformat())
        publish(product, as_of)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda as_of: follow_manifest(place(url, as_of), 30), DATES * 2))
    assert sum(done) == len(DATES), "of two with the same night one commits"
    seen = by_library(url)
    assert all(rows_of(seen, as_of).equals(by_id(rows)) for as_of, rows in expected.items())


def test_gc_brings_nights_of_before_into_the_table_and_mends_what_died(url):  # noqa: F811
    product, first = make_night(url)
    publish(product, AS_OF)  # before the table was asked for
    assert "1 nights put right in the table; 0 files of the table deleted" in gc(tabled(url), AS_OF)
    second_product, second = make_night(url, model="another model")
    publish(second_product, AS_OF)  # as a publisher that died before the table
    assert rows_of(by_library(url)).equals(by_id(first))
    assert "1 nights put right in the table" in gc(tabled(url), AS_OF)
    assert rows_of(by_library(url)).equals(by_id(second))
    assert "put right" not in gc(tabled(url), AS_OF)
    assert gc(product, AS_OF).startswith("0 of 6 parts deleted"), "a product without a table has none to keep"


def test_gc_deletes_files_only_after_the_days_that_readers_may_travel_back(url, monkeypatch):  # noqa: F811
    publish_in_table(url)
    publish_in_table(url, model="another model")
    files = [key for key in Store(url).list("_tables/tiny/") if key.endswith(".parquet")]
    gc(tabled(url), AS_OF)
    assert [key for key in Store(url).list("_tables/tiny/") if key.endswith(".parquet")] == files
    table = open_table(Store(url), "tiny")
    assert len(table.vacuum(retention_hours=0, enforce_retention_duration=False, full=True)) == 1, "what is replaced"
    other = a_product(publish={"url": url, "table": "delta", "keep_days": 9})
    gc(other, AS_OF)
    assert open_table(Store(url), "tiny").metadata().configuration["delta.logRetentionDuration"] == "interval 9 days"


def test_new_column_is_taken_and_another_type_is_told(url):  # noqa: F811
    publish_in_table(url)
    schema = pa.schema([("parcel_id", pa.string()), ("probability_not spam", pa.float64())])
    assert delta_schema(schema, "s3://x").names == ["parcel_id", "probability_not_spam", "dt"]
    with pytest.raises(UserError, match="columns of a table must differ in more than upper case"):
        delta_schema(pa.schema([("a b", pa.string()), ("A_b", pa.string())]), "s3://x")
    table = open_table(Store(url), "tiny")
    manifest = read_manifest(url, "tiny")
    *before, dates = pa.schema(table.schema().to_arrow())
    form = pa.schema([*before, ("more", pa.float64()), dates])
    rows = pa.table({"parcel_id": ["p"], "prediction": [True], "probability": [0.5], "more": [1.5]})
    delta._check_types(table, form)
    assert delta._commit(place(url, DATES[1]), manifest, table, form, [rows])
    assert by_library(url)["more"].count() == 1
    with pytest.raises(UserError, match="a column must keep its type, and more was double and is now string"):
        delta._check_types(open_table(Store(url), "tiny"), form.set(3, pa.field("more", pa.string())))


def test_table_that_the_store_refuses_is_told_and_the_night_stands(url, monkeypatch):  # noqa: F811
    _, rows = make_night(url)
    publish(a_product(publish={"url": url}), AS_OF)
    monkeypatch.setattr(delta, "delta_options", lambda url: {**delta_options(url), "aws_secret_access_key": "another"})
    with pytest.raises(TransientError, match="the table must be readable and writable, and is not"):
        follow_manifest(place(url), 30)
    assert read_manifest(url, "tiny").rows.published == len(rows)


def test_log_is_cut_short_so_that_a_night_costs_the_same_later_on(url):  # noqa: F811
    """The law: what is read to open a table is one checkpoint and at most ten entries."""
    publish_in_table(url)
    manifest = read_manifest(url, "tiny")
    for _ in range(11):
        table = open_table(Store(url), "tiny")
        assert delta._commit(place(url), manifest, table, pa.schema(table.schema().to_arrow()), [])
    store = Store(url)
    log = [key.rpartition("/")[2] for key in store.list("_tables/tiny/_delta_log/")]
    newest = max(int(name[:20]) for name in log if "checkpoint" in name and name[:20].isdigit())
    entries = [name for name in log if name.endswith(".json") and name[:20].isdigit() and int(name[:20]) > newest]
    assert newest == 9
    assert len(entries) <= 10
    assert not any(b"p0" in store.read(f"_tables/tiny/_delta_log/{name}").body for name in log), "no cell is kept there"
