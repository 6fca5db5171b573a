"""Oracle: pandas, pyarrow, DuckDB and polars as readers by glob, on a real S3 server; rows that were published."""

import json
from datetime import date

import boto3
import duckdb
import fsspec
import pandas as pd
import polars
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import S3FileSystem
from test_publish import AS_OF, attempt, claims, make_night, place, tiny, two_nights, url  # noqa: F401

from tasks.publication import publishing
from tasks.publication.contracts import Withdrawal
from tasks.publication.garbage import collect_garbage
from tasks.publication.manifests import NightPlace
from tasks.publication.night_file import scratch_folder, sync_night_file, write_night_file
from tasks.publication.object_store import Store
from tasks.publication.withdrawal import withdraw_night
from tasks.publish import publish
from tasks.read import read_manifest, read_predictions
from tasks.runtime.errors import TransientError
from tasks.runtime.paths import Paths

LATER = date(2024, 2, 12)
FILE = "tiny/dt=2024-02-10/predictions.parquet"


def by_pandas(url, s3):  # noqa: F811
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    files = store.glob(f"{url}/tiny/dt=*/**/*.parquet")
    return pd.concat(pd.read_parquet(store.open(file)).assign(dt=file.split("dt=")[1][:10]) for file in files)


def by_pandas_folder(url, s3):  # noqa: F811
    frame = pd.read_parquet(f"{url}/tiny", filters=None, storage_options={"skip_instance_cache": True})
    return frame.assign(dt=frame["dt"].astype(str))


def by_pyarrow(url, s3):  # noqa: F811
    store = S3FileSystem(
        endpoint_override=s3["AWS_ENDPOINT_URL_S3"].removeprefix("http://"), scheme="http", region="us-east-1",
        access_key=s3["AWS_ACCESS_KEY_ID"], secret_key=s3["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    folder = f"{url.removeprefix('s3://')}/tiny"
    return pyarrow.dataset.dataset(folder, filesystem=store, partitioning="hive").to_table().to_pandas()


def by_duckdb(url, s3, glob="dt=*/**/*.parquet"):  # noqa: F811
    connection = duckdb.connect()
    connection.register_filesystem(fsspec.filesystem("s3", skip_instance_cache=True))
    frame = connection.sql(f"SELECT * FROM read_parquet('{url}/tiny/{glob}', hive_partitioning=true)").df()
    return frame.assign(dt=frame["dt"].astype(str).str[:10])


def by_duckdb_everywhere(url, s3):  # noqa: F811
    return by_duckdb(url, s3, "**/*.parquet")


def by_polars(url, s3):  # noqa: F811
    options = {
        "aws_endpoint_url": s3["AWS_ENDPOINT_URL_S3"], "aws_allow_http": "true", "aws_region": "us-east-1",
        "aws_access_key_id": s3["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": s3["AWS_SECRET_ACCESS_KEY"],
    }  # fmt: skip
    glob = f"{url}/tiny/dt=*/**/*.parquet"
    frame = polars.scan_parquet(glob, hive_partitioning=True, storage_options=options).collect().to_pandas()
    return frame.assign(dt=frame["dt"].astype(str))


READERS = [by_pandas, by_pandas_folder, by_pyarrow, by_duckdb, by_duckdb_everywhere, by_polars]


def settled(url, as_of=AS_OF):  # noqa: F811
    """Make the night file that of the manifest, as the next one who comes by does."""
    with scratch_folder() as scratch:
        return sync_night_file(place(url, as_of), scratch)


def row_ids(url, as_of=AS_OF):  # noqa: F811
    stored = Store(url).read(place(url, as_of).file)
    table = pq.read_table(pyarrow.BufferReader(stored.body))
    return table["probability"].to_pylist()


@pytest.fixture
def many_nights(url, two_nights):  # noqa: F811
    """A replaced night, another date with no row, and parts of a run that never published; returns what is right."""
    empty, _ = make_night(url, date(2024, 2, 11), 0)
    publish(empty, date(2024, 2, 11))
    later, table = make_night(url, LATER, 5, "later")
    publish(later, LATER)
    (unpublished,) = claims(url, "unpublished")
    make_night(url, model="unpublished")
    folder = Paths("tiny").predictions
    for part in (folder / "part-00000.parquet", folder / "part-00001.parquet"):
        Store(url).create_file(place(url).part("ab", unpublished, part.name), part)
    first = read_predictions(url, "tiny", "2024-02-10").assign(dt="2024-02-10")
    return pd.concat([first, table.assign(dt="2024-02-12")])


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_obvious_glob_gives_each_night_once(reader, url, s3, many_nights):  # noqa: F811
    seen = reader(url, s3)
    columns, order = list(many_nights.columns), ["dt", "parcel_id"]
    expected = many_nights.sort_values(order).reset_index(drop=True)
    got = seen[columns].astype({"dt": str}).sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(got, expected, check_dtype=False)


def test_manifest_names_the_night_file_as_it_lies_in_the_store(url, two_nights):  # noqa: F811
    second = two_nights[1]
    stored, head = Store(url).read(FILE), Store(url).head(FILE)
    file = second.file
    assert (file.key, file.rows, file.bytes) == (Store(url).full_key(FILE), 10, len(stored.body))
    assert head.sha256 == file.sha256
    assert head.metadata["night"] == file.version == f"{second.run}-000002"
    about = json.loads(pq.read_metadata(pyarrow.BufferReader(stored.body)).metadata[b"lamplighter"])
    assert about["night"] == file.version
    assert {"product": "tiny", "dt": "2024-02-10"}.items() <= about.items()
    kinds = {field.name: field.type for field in second.schema}
    assert {
        name: str(kind)
        for name, kind in zip(kinds, pq.read_schema(pyarrow.BufferReader(stored.body)).types, strict=True)
    } == kinds


def test_night_file_has_the_same_bytes_from_folder_and_store(url, tmp_path):  # noqa: F811
    product, _ = make_night(url)
    publish(product, AS_OF)
    manifest = read_manifest(url, "tiny")
    made = []
    for folder in (Paths("tiny").predictions, None):
        with scratch_folder() as scratch:
            made.append(write_night_file(place(url), manifest, scratch, folder))
    assert made == [manifest.file, manifest.file]


def test_publisher_that_died_before_the_night_file_is_made_good_by_whoever_comes(url, monkeypatch):  # noqa: F811
    (mine,) = claims(url, "mine")
    attempt(url, "first", mine)
    before = row_ids(url)
    for mend in ("retry", "run", "gc"):
        (generation,) = claims(url, f"dies before {mend}")
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "settle", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                attempt(url, f"model that {mend} mends", generation)
        assert row_ids(url) == before, "the night before, whole"
        if mend == "retry":
            attempt(url, f"model that {mend} mends", generation)
        elif mend == "run":
            attempt(url, f"model that {mend} mends", *claims(url, "a later run"))
        else:
            product = tiny(url)
            line = collect_garbage(Store(url), product, manifests_moment(url))
            assert line.endswith("; 1 nights put right for readers by glob")
            assert not collect_garbage(Store(url), product, manifests_moment(url)).endswith("glob")
        before = row_ids(url)
        assert sorted(before) == sorted(read_predictions(url, "tiny")["probability"])


def manifests_moment(url):  # noqa: F811
    """A moment shortly after the manifest was written."""
    return max(Store(url).list("tiny/").values())


def test_publisher_that_wakes_late_puts_no_old_night_back(url, monkeypatch):  # noqa: F811
    """It has read ETag and manifest; then a later run publishes, and another one the first night again."""
    first, zombie, later, last = claims(url, "first", "zombie", "later", "last")
    attempt(url, "right", first)
    replace_file, woken = Store.replace_file, []

    def late(store, key, file, expected, metadata):
        if not woken:
            woken.append(key)
            attempt(url, "of a later run", later)
            attempt(url, "right", last)
        return replace_file(store, key, file, expected, metadata)

    monkeypatch.setattr(Store, "replace_file", late)
    attempt(url, "of the zombie", zombie)
    assert woken
    current = read_manifest(url, "tiny")
    assert (current.generation, current.model.sha256) == (last, "right")
    assert Store(url).head(FILE).metadata["night"] == current.file.version == f"{current.run}-{last:06d}"


def test_night_file_that_was_damaged_or_deleted_is_written_again(url, two_nights):  # noqa: F811
    store, whole = Store(url), Store(url).read(FILE)
    assert settled(url) is False
    client = boto3.session.Session().client("s3")
    client.put_object(Bucket="lamplighter", Key=store.full_key(FILE), Body=b"PAR1")
    assert settled(url) is True
    assert store.read(FILE).body == whole.body
    store.delete(FILE)
    assert settled(url) is True
    assert store.read(FILE).body == whole.body


def test_withdrawn_night_has_no_row_for_readers_by_glob(url, two_nights, s3):  # noqa: F811
    assert withdraw_night(place(url), Withdrawal(person="Ada", reason="wrong rows"))
    assert settled(url) is False
    assert row_ids(url) == []
    assert [field.name for field in pq.read_schema(pyarrow.BufferReader(Store(url).read(FILE).body))] == [
        field.name for field in two_nights[1].schema
    ]
    (again,) = claims(url, "again")
    said, _ = attempt(url, "second one", again)
    assert "parts published" in said, "the same inputs may be published again by a new run"
    assert len(row_ids(url)) == 10


def test_others_who_keep_winning_are_a_passing_failure(url, two_nights, monkeypatch):  # noqa: F811
    Store(url).delete(FILE)
    monkeypatch.setattr(Store, "replace_file", lambda *_: False)
    with pytest.raises(TransientError, match=r"predictions\.parquet: other writers came first 25 times"):
        settled(url)


def test_scratch_of_a_killed_publisher_is_removed_after_days(workspace, monkeypatch):
    with scratch_folder() as scratch:
        left = scratch.parent / "left"
        left.mkdir()
    monkeypatch.setattr("time.time", lambda: left.stat().st_mtime + 3 * 86400)
    with scratch_folder():
        assert not left.exists()
    assert not scratch.exists()


def test_name_of_a_part_has_no_suffix_that_a_glob_looks_for():
    night = NightPlace(store=Store("s3://b/p"), product="tiny", as_of=AS_OF)
    assert night.part("ab", 3, "part-00001.parquet") == "tiny/_parts/dt=2024-02-10/run=ab-000003/part-00001"
