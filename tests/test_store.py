"""Oracle: a real S3 server; answers get lost by botocore's own hooks, after the request took effect."""

import hashlib
import uuid
from concurrent.futures import ThreadPoolExecutor

import proxy
import pytest
from botocore.exceptions import ReadTimeoutError
from conftest import free_port

from tasks.publication.object_store import Store
from tasks.runtime.errors import TransientError, UserError


@pytest.fixture
def store(s3_here):
    return Store(f"s3://lamplighter/store-{uuid.uuid4().hex}")


def lose_answers(store, operation, times=1, *, effect=True):
    """Let the next calls time out: after they took effect, or before."""
    left = [times]

    def lose(**_):
        if left[0]:
            left[0] -= 1
            raise ReadTimeoutError(endpoint_url="http://store")

    store._client.meta.events.register_first(f"{'after-call' if effect else 'before-call'}.s3.{operation}", lose)


def send_twice(store, operation):
    """Let botocore believe that the next answer was lost: it sends the same request again."""
    left = [1]

    def again(**_):
        if left[0]:
            left[0] -= 1
            return 0
        return None

    store._client.meta.events.register_first(f"needs-retry.s3.{operation}", again)


def test_keys_lie_below_the_prefix():
    for url in ("s3://bucket/a/b", "s3://bucket/a/b/"):
        assert Store(url).full_key("x/y") == "a/b/x/y"
        assert Store(url).uri("x") == "s3://bucket/a/b/x"
    assert Store("s3://bucket").full_key("x") == "x"


def test_what_is_not_there_is_read_as_none(store):
    assert store.read("nothing") is None
    assert store.sha256("nothing") is None


def test_file_is_created_once_and_again_without_effect(store, file):
    assert store.create_file("part", file) is True
    before = store.read("part")
    assert store.create_file("part", file) is False
    assert store.read("part") == before
    assert before.body == file.read_bytes()
    assert store.sha256("part") == hashlib.sha256(file.read_bytes()).hexdigest()


def test_file_that_is_there_already_is_not_sent_again(store, s3_here, monkeypatch, file):
    store.create_file("part", file)
    assert store.recorded_sha256("part") == hashlib.sha256(file.read_bytes()).hexdigest()
    assert store.recorded_sha256("nothing") is None
    with proxy.Proxy(s3_here["AWS_ENDPOINT_URL_S3"]) as counted:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", counted.url)
        assert Store(store.url).create_file("part", file) is False
    assert [method for method, _ in counted.requests] == ["HEAD"]


def test_immutable_object_refuses_other_bytes(store, file):
    store.create_file("part", file)
    stood = store.read("part")
    file.write_bytes(b"other")
    with pytest.raises(UserError, match="an immutable object must not change, and another content is there"):
        store.create_file("part", file)
    assert store.read("part") == stood


def test_replacement_of_nothing_loses_to_what_came_first(store):
    assert store.replace("key", b"1", None) is True
    assert store.replace("key", b"2", None) is False
    assert store.read("key").body == b"1"


def test_replacement_loses_to_a_concurrent_writer(store):
    store.replace("key", b"1", None)
    seen = store.read("key")
    assert store.replace("key", b"theirs", seen) is True
    assert store.replace("key", b"ours", seen) is False
    assert store.read("key").body == b"theirs"


@pytest.mark.parametrize("lose", [lose_answers, send_twice])
def test_replacement_whose_answer_was_lost_is_read_back(store, lose):
    lose(store, "PutObject")
    assert store.replace("key", b"1", None) is True
    lose(store, "PutObject")
    assert store.replace("key", b"2", store.read("key")) is True
    assert store.read("key").body == b"2"


@pytest.mark.parametrize("lose", [lose_answers, send_twice])
def test_file_whose_answer_was_lost_is_read_back(store, file, lose):
    lose(store, "PutObject")
    store.create_file("part", file)
    assert store.read("part").body == file.read_bytes()


def test_write_that_took_no_effect_is_a_passing_failure(store, file):
    lose_answers(store, "PutObject", 2, effect=False)
    with pytest.raises(TransientError, match="the store did not answer"):
        store.replace("key", b"1", None)
    with pytest.raises(TransientError, match="the store did not answer"):
        store.create_file("part", file)
    assert store.read("key") is None
    assert store.read("part") is None


def test_lost_answer_and_lost_race_together_are_a_lost_race(store):
    """Ours took effect, its answer was lost, and another writer replaced it before we looked."""
    other = Store(store.url)

    def overtake(**_):
        other.replace("key", b"theirs", other.read("key"))
        raise ReadTimeoutError(endpoint_url="http://store")

    store._client.meta.events.register_first("after-call.s3.PutObject", overtake)
    with pytest.raises(TransientError):
        store.replace("key", b"ours", None)
    assert store.read("key").body == b"theirs"


def test_upload_that_arrives_damaged_is_refused(store, file):
    """The checksum travels with the request: a body that does not fit it never becomes an object."""

    def damage(params, **_):
        params["Body"] = b"damaged"

    store._client.meta.events.register_first("before-parameter-build.s3.PutObject", damage)
    with pytest.raises((TransientError, UserError)):
        store.create_file("part", file)
    assert Store(store.url).read("part") is None


def test_wrong_credentials_are_a_mistake_of_a_person(store, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    remedy = "does not take these credentials; correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    with pytest.raises(UserError, match=f"must take GetObject, and answered 403 SignatureDoesNotMatch .*{remedy}"):
        Store(store.url).read("key")
    with pytest.raises(UserError, match=f"must take PutObject, and answered 403 SignatureDoesNotMatch .*{remedy}"):
        Store(store.url).replace("key", b"1", None)


def test_bucket_that_is_not_there_is_a_mistake_of_a_person(store):
    with pytest.raises(UserError, match=r"404 NoSuchBucket.*the bucket is not there; make it, or correct"):
        Store("s3://no-such-bucket/x").read("key")


def test_absent_credentials_are_a_mistake_of_a_person(store, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match="credentials must be in the environment, and are not; set AWS_ACCESS_KEY_ID"):
        Store(store.url).read("key")


def test_server_that_is_down_is_a_passing_failure(monkeypatch, s3_here):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    with pytest.raises(TransientError, match="the store did not answer"):
        Store("s3://lamplighter/x").read("key")


def test_conflict_with_another_writer_passes(store, s3_here, monkeypatch, file):
    with proxy.Proxy(s3_here["AWS_ENDPOINT_URL_S3"]) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", faulty.url)
        there = Store(store.url)
        faulty.reset(lambda request: proxy.CONFLICT if request.method == "PUT" else None)
        with pytest.raises(TransientError, match="another writer was at it, and nothing is there yet"):
            there.create_file("part", file)
        faulty.reset()
        assert there.create_file("part", file)
        faulty.reset(lambda request: proxy.CONFLICT if request.method == "PUT" and request.number < 4 else None)
        assert there.update("key", lambda _: b"1")
    assert faulty.injected[proxy.CONFLICT] == 2


def test_address_that_is_none_is_one_clear_message(monkeypatch, s3_here):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "minio:9000")
    with pytest.raises(UserError, match=r"AWS_ENDPOINT_URL_S3 must be an address .*minio:9000; correct it"):
        Store("s3://lamplighter/x").read("key")


@pytest.mark.parametrize("fault", ["damaged answer", "cut answer"])
def test_body_that_breaks_on_its_way_is_asked_for_again(store, s3_here, monkeypatch, tmp_path, fault):
    """botocore sends a request again, but never reads a body again."""
    content = b"0123456789" * 100
    store.replace("key", content, None)
    with proxy.Proxy(s3_here["AWS_ENDPOINT_URL_S3"]) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", faulty.url)
        there = Store(store.url)
        for read in (
            lambda: there.read("key").body,
            lambda: there.download("key", tmp_path / "file") and (tmp_path / "file").read_bytes(),
            lambda: there.sha256("key") == hashlib.sha256(content).hexdigest() and content,
        ):
            faulty.reset(lambda request: fault if request.number < 3 else None)
            assert read() == content
            assert len(faulty.requests) == 3
        faulty.reset(lambda _: fault)
        with pytest.raises(TransientError, match="the store did not answer"):
            there.read("key")
    assert faulty.injected[fault] == 2 * 3 + 5


def test_what_is_there_is_listed_and_may_be_deleted(store):
    for key in ("b", "a/2", "a/1"):
        store.replace(key, b"x", None)
    assert list(store.list("")) == ["a/1", "a/2", "b"]
    assert list(store.list("a/")) == ["a/1", "a/2"]
    store.delete("a/1")
    store.delete("nothing")
    assert list(store.list("a")) == ["a/2"]


def test_update_is_made_of_what_stands_and_goes_on_where_another_writer_came_first(store):
    other = Store(store.url)

    def count(standing):
        """One more, signed: equal bodies of two writers cannot be told apart."""
        return b"%d %s" % (int(standing.body.split()[0]) + 1 if standing else 1, uuid.uuid4().hex.encode())

    def counted():
        return int(store.read("count").body.split()[0])

    assert store.update("count", count)
    assert counted() == 1
    overtaken = []

    def late(standing):
        if not overtaken:
            overtaken.append(other.update("count", count))
        return count(standing)

    assert store.update("count", late)
    assert counted() == 3
    assert store.update("count", lambda _: None) is False
    with ThreadPoolExecutor(8) as writers:
        assert all(writers.map(lambda _: Store(store.url).update("count", count), range(8)))
    assert counted() == 11
