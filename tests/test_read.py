"""Oracle: what was published, on a real S3 server; pandas and DuckDB as readers of their own."""

import io
import os
from datetime import date, timedelta

import boto3
import duckdb
import pandas as pd
import proxy
import pytest
from test_publish import AS_OF, by_id, make_night, objects, url  # noqa: F401 (url is a fixture)

from tasks.commands.nights.withdraw import withdraw
from tasks.publication.object_store import Store
from tasks.publish import publish
from tasks.read import follow_nights, list_nights, read_manifest, read_predictions, verify_night
from tasks.runtime.errors import UserError


@pytest.fixture
def published(url):  # noqa: F811
    product, table = make_night(url)
    publish(product, AS_OF)
    return url, table


def parts_of(url):  # noqa: F811
    return [part.key for part in read_manifest(url, "tiny").parts]


def test_night_is_read_by_its_date_or_as_the_newest(published):
    url, table = published  # noqa: F811
    later, other = make_night(url, date(2024, 2, 12), n_rows=4)
    publish(later, date(2024, 2, 12))
    pd.testing.assert_frame_equal(by_id(read_predictions(url, "tiny", "2024-02-10")), by_id(table))
    pd.testing.assert_frame_equal(by_id(read_predictions(url, "tiny")), by_id(other))


def test_part_that_was_damaged_or_lost_is_refused(published):
    url, _ = published  # noqa: F811
    client = boto3.session.Session().client("s3")
    body = client.get_object(Bucket="lamplighter", Key=parts_of(url)[1])["Body"].read()
    client.put_object(Bucket="lamplighter", Key=parts_of(url)[1], Body=body[:-8] + b"\0" * 8)
    with pytest.raises(UserError, match=r"part-00001: must be as the manifest says, and is damaged"):
        read_predictions(url, "tiny")
    client.delete_object(Bucket="lamplighter", Key=parts_of(url)[1])
    with pytest.raises(UserError, match=r"part-00001: must be as the manifest says, and is missing; publish the night"):
        read_predictions(url, "tiny")
    publish(make_night(url)[0], AS_OF)
    assert len(read_predictions(url, "tiny")) == 10, "what the message says helps"


@pytest.mark.parametrize("damage", [lambda body: body.replace(b'"rows": 4', b'"rows": 5'), lambda body: body[:-30]])
def test_manifest_that_was_damaged_is_refused(published, damage):
    url, _ = published  # noqa: F811
    store, key = Store(url), "tiny/dt=2024-02-10/_manifest.json"
    stood = store.read(key)
    assert damage(stood.body) != stood.body
    store.replace(key, damage(stood.body), stood)
    with pytest.raises(UserError, match=r"_manifest.json: must be as it was written, and arrived damaged"):
        read_predictions(url, "tiny")


def test_night_that_was_not_published_is_told(published):
    url, _ = published  # noqa: F811
    with pytest.raises(UserError, match=r"/tiny/dt=2024-02-11: this night has not been published; choose another dt"):
        read_predictions(url, "tiny", "2024-02-11")
    with pytest.raises(UserError, match=r"/other: no night has been published; run make run PRODUCT=other"):
        read_predictions(url, "other")


def test_any_parquet_reader_reads_what_the_manifest_names(published, tmp_path):
    url, table = published  # noqa: F811
    client, files = boto3.session.Session().client("s3"), []
    for i, key in enumerate(parts_of(url)):
        body = client.get_object(Bucket="lamplighter", Key=key)["Body"].read()
        files.append(str(tmp_path / f"{i}.parquet"))
        (tmp_path / f"{i}.parquet").write_bytes(body)
        assert len(pd.read_parquet(io.BytesIO(body)))
    seen = duckdb.read_parquet(files).df()
    pd.testing.assert_frame_equal(by_id(seen), by_id(table), check_dtype=False)
    schema = {field.name: field.type for field in read_manifest(url, "tiny").schema}
    assert schema == {"parcel_id": "large_string", "prediction": "bool", "probability": "double"}


def test_reading_changes_nothing(published):
    url, _ = published  # noqa: F811
    before = objects(url)
    read_predictions(url, "tiny")
    assert objects(url) == before
    assert Store(url).read("tiny/_latest.json") is not None


def dates(found):
    return [manifest.dt.day for manifest in found]


def test_follower_gets_each_later_night_once_and_in_order(published):
    url, _ = published  # noqa: F811
    following = follow_nights(url, "tiny", poll_seconds=0.05, seconds=600)
    first = follow_nights(url, "tiny", "2024-02-09", poll_seconds=0.05, seconds=0)
    assert dates(first) == [10], "what is there is not waited for"
    for day in (14, 12, 13):
        publish(make_night(url, date(2024, 2, day), model=f"m{day}")[0], date(2024, 2, day))
    withdraw(make_night(url)[0], date(2024, 2, 13), "wrong", "Ann")
    assert dates(follow_nights(url, "tiny", "2024-02-10", poll_seconds=0.05, seconds=0.2)) == [12, 14]
    assert dates(follow_nights(url, "tiny", poll_seconds=0.05, seconds=0.2)) == [], "only what comes from now on"
    publish(make_night(url, date(2024, 2, 15), model="m15")[0], date(2024, 2, 15))
    assert [next(following).dt.day for _ in range(3)] == [12, 14, 15]


def test_follower_goes_on_when_the_store_answers_again(published, monkeypatch):
    url, _ = published  # noqa: F811
    publish(make_night(url, AS_OF + timedelta(days=1))[0], AS_OF + timedelta(days=1))
    with proxy.Proxy(os.environ["AWS_ENDPOINT_URL_S3"]) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", faulty.url)
        faulty.reset(lambda request: "error before" if request.number <= 7 else None)
        assert next(follow_nights(url, "tiny", "2024-02-10", poll_seconds=0.05)).dt == AS_OF + timedelta(days=1)
        assert faulty.injected["error before"] == 7, "more than one call is sent again by itself"


def test_every_byte_of_a_night_is_verified(published):
    url, _ = published  # noqa: F811
    assert verify_night(url, "tiny") == read_manifest(url, "tiny") == list_nights(url, "tiny")[0]
    key = parts_of(url)[2]
    client = boto3.session.Session().client("s3")
    body = client.get_object(Bucket="lamplighter", Key=key)["Body"].read()
    for i in (0, len(body) // 2, len(body) - 1):
        client.put_object(Bucket="lamplighter", Key=key, Body=body[:i] + bytes([body[i] ^ 1]) + body[i + 1 :])
        with pytest.raises(UserError, match=r"part-00002: must be as the manifest says, and is damaged"):
            verify_night(url, "tiny")
    client.put_object(Bucket="lamplighter", Key=key, Body=body)
    assert verify_night(url, "tiny", "2024-02-10").dt == AS_OF
