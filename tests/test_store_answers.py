"""Oracle: the store's own words, given by a real HTTP proxy before a real S3 server; that server's own objects."""

import gzip
import os
import re
import uuid

import proxy
import pytest
from botocore.exceptions import ClientError

from tasks.commands.embedded.store import refusal
from tasks.publication import object_store, store_check
from tasks.publication.object_store import Store
from tasks.publication.store_answers import ANSWERS, explained
from tasks.runtime.errors import TransientError, UserError

PAGE = b"<!DOCTYPE html><html><head><title>Sign in to the  WiFi</title></head><body><p>Hello</p></body></html>"
REFUSALS = {
    "507 Insufficient Storage": ("InsufficientStorage", UserError, "the store is full; free space or enlarge it"),
    "403 Forbidden": ("QuotaExceeded", UserError, "the quota is used up; raise the quota"),
    "501 Not Implemented": (
        "NotImplemented",
        UserError,
        r"does not know this call .*checksums.*; use a store that does",
    ),
    "503 Slow Down": ("SlowDown", TransientError, "the store is busy; waiting helps"),
    "400 Bad Request": ("ExpiredToken", UserError, "not valid any more; set a new AWS_SESSION_TOKEN"),
}


@pytest.fixture
def faulty(s3_here, monkeypatch):
    """A proxy before the store, by which everything of the test goes."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    with proxy.Proxy(s3_here["AWS_ENDPOINT_URL_S3"]) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        yield between


@pytest.fixture
def store(faulty):
    return Store(f"s3://lamplighter/answers-{uuid.uuid4().hex}")


def calls(store, file):
    """Every call of a store by the method of its request, on a key that is there and on one that is not."""
    return {
        "GET": lambda: store.read("stands"),
        "HEAD": lambda: store.head("stands"),
        "LIST": lambda: store.list(""),
        "PUT": lambda: store.replace("new", b"new", None),
        "PUT FILE": lambda: store.create_file("file", file),
        "DELETE": lambda: store.delete("stands"),
    }


@pytest.mark.parametrize("status", REFUSALS)
def test_what_the_store_answers_is_told_with_its_remedy(store, faulty, file, monkeypatch, status):
    code, kind, remedy = REFUSALS[status]
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a token")
    faulty.reset(lambda _: proxy.refusal(status, code, "Because I say so."))
    for call in calls(store, file).values():
        with pytest.raises(kind) as refused:
            call()
        words = re.escape(status.partition(" ")[0])
        assert re.search(
            rf"^s3://lamplighter/answers-.* must take \w+, and answered {words}.*{remedy}", str(refused.value)
        )


@pytest.mark.parametrize("status", REFUSALS)
def test_check_at_the_start_tells_what_the_store_answered(store, faulty, monkeypatch, status):
    code, kind, remedy = REFUSALS[status]
    monkeypatch.setattr(store_check, "WRITERS", 3)
    expired = code == "ExpiredToken"
    if expired:
        monkeypatch.setenv("AWS_SESSION_TOKEN", "a token")
    faulty.reset(lambda request: proxy.refusal(status, code) if expired or request.method == "PUT" else None)
    with pytest.raises(kind, match=rf"must take PutObject, and answered .*{code} .as asked for.*: .*{remedy}"):
        store_check.check_store(store)


def test_start_tells_what_the_bucket_answered(faulty):
    env = dict(os.environ)
    assert refusal(env) is None
    faulty.reset(lambda _: proxy.refusal("403 Forbidden", "AccessDenied"))
    assert re.search(r"answered 403 .*: these credentials lack s3:ListBucket on s3://lamplighter", str(refusal(env)))
    faulty.reset(lambda _: proxy.refusal("503 Slow Down", "SlowDown"))
    assert isinstance(refusal(env), TransientError)
    faulty.reset(lambda _: proxy.Canned("200 OK", PAGE, "text/html"))
    assert "is a web page" in str(refusal(env))


def test_permission_that_is_lacking_is_named_with_its_key(store, faulty, file):
    faulty.reset(lambda _: proxy.refusal("403 Forbidden", "AccessDenied", "Access Denied"))
    lacking = {
        "GET": r"s3:GetObject on s3://lamplighter/answers-\w+/stands, or s3:ListBucket on s3://lamplighter;",
        "HEAD": r"s3:GetObject on s3://lamplighter/answers-\w+/stands, or s3:ListBucket on s3://lamplighter;",
        "LIST": "s3:ListBucket on s3://lamplighter;",
        "PUT": r"s3:PutObject on s3://lamplighter/answers-\w+/new;",
        "PUT FILE": r"s3:GetObject on s3://lamplighter/answers-\w+/file, or s3:ListBucket on s3://lamplighter;",
        "DELETE": r"s3:DeleteObject on s3://lamplighter/answers-\w+/stands;",
    }
    for name, call in calls(store, file).items():
        with pytest.raises(UserError, match=f"these credentials lack {lacking[name]} grant it"):
            call()


@pytest.mark.parametrize("code", [*ANSWERS, "SomethingNew"])
@pytest.mark.parametrize("status", [400, 500])
def test_every_code_has_words_a_meaning_and_a_remedy(code, status):
    error = explained(
        ClientError(
            {"Error": {"Code": code, "Message": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
        ),
        "s3://b/k",
    )
    assert re.fullmatch(rf's3://b/k: the store must take PutObject, and answered .*{code}.* "x": .+; .+', str(error))
    waits = ANSWERS[code].waits if code in ANSWERS else status == 500
    assert isinstance(
        error,
        TransientError if waits or code.startswith("ExpiredToken") or code == "TokenRefreshRequired" else UserError,
    )


def test_token_that_others_renew_may_be_waited_for(monkeypatch):
    answer = {"Error": {"Code": "ExpiredToken", "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    assert isinstance(explained(ClientError(answer, "GetObject"), "s3://b/k"), TransientError)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "in the environment")
    assert isinstance(explained(ClientError(answer, "GetObject"), "s3://b/k"), UserError)


def test_failure_of_a_head_stays_a_failure_where_a_get_finds_nothing(store, faulty):
    faulty.reset(lambda request: "error before" if request.method == "HEAD" else None)
    with pytest.raises(TransientError, match="must take HeadObject, and answered 500"):
        store.head("nothing")


def test_no_secret_is_in_a_message(store, faulty):
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    faulty.reset(lambda _: proxy.refusal("403 Forbidden", "AccessDenied", f"no\n{secret} may {'x' * 1000}"))
    with pytest.raises(UserError) as refused:
        store.read("key")
    assert '"no <AWS_SECRET_ACCESS_KEY> may' in str(refused.value)
    assert secret not in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (proxy.Canned("200 OK", PAGE, "text/html"), "is a web page"),
        (proxy.Canned("200 OK", PAGE, "text/html", forwarded=True), "is a web page"),
        (proxy.Canned("200 OK", b"{}", "application/json"), "has no ETag|is no list|has a body where none belongs"),
        (proxy.Canned("200 OK", PAGE, "application/xml"), "has no ETag|is no list|has a body where none belongs"),
        (proxy.Canned("204 No Content"), "has no ETag|is no list"),
        (
            proxy.Canned("200 OK", gzip.compress(b"x"), headers=(("Content-Encoding", "gzip"),)),
            "was compressed on its way",
        ),
        (
            proxy.Canned("302 Found", PAGE, "text/html", (("Location", "http://127.0.0.1:1/login"),)),
            "sends elsewhere, to http://127.0.0.1:1 .status 302",
        ),
        (proxy.Canned("403 Forbidden", PAGE, "text/html"), "a proxy or firewall may have answered in its place"),
    ],
)
def test_what_is_no_store_is_told_by_every_call(store, faulty, file, answer, words):
    store.replace("stands", b"stood", None)
    for name, call in calls(store, file).items():
        if name == "DELETE" and answer.status.startswith("204"):
            continue  # is what a store answers
        faulty.reset(
            lambda request, name=name: (
                answer
                if request.method == name[:3].replace("LIS", "GET").replace("HEA", "HEAD").replace("DEL", "DELETE")
                else None
            )
        )
        with pytest.raises(UserError, match=words) as refused:
            call()
        assert "\n" not in str(refused.value)


def test_write_that_a_proxy_swallowed_is_no_success(store, faulty, file):
    """It answers as a store does, and has kept nothing."""
    swallowed = proxy.Canned("200 OK", headers=(("ETag", '"900150983cd24fb0d6963f7d28e17f72"'),))
    faulty.reset(lambda request: swallowed if request.method == "PUT" else None)
    for call in (
        calls(store, file)["PUT"],
        calls(store, file)["PUT FILE"],
        lambda: store.replace_file("f", file, None, {}),
    ):
        with pytest.raises(UserError, match="answer to PutObject was success, and the object is not there"):
            call()
    assert store.list("") == {}


def test_store_that_repeats_no_checksum_is_read_back(store, faulty, file):
    silent = proxy.Canned("200 OK", headers=(("ETag", '"x"'),), forwarded=True)
    faulty.reset(lambda request: silent if request.method == "PUT" else None)
    assert store.replace("key", b"1", None)
    assert store.create_file("part", file)
    assert store.replace_file("file", file, None, {"night": "a"})
    assert store.head("file").metadata["night"] == "a"


def test_list_that_breaks_off_is_no_shorter_list(store, faulty):
    for i in range(3):
        store.replace(f"key-{i}", b"1", None)
    whole = b"<ListBucketResult><Name>lamplighter</Name><Contents><Key>a</Key>"
    faulty.reset(lambda _: proxy.Canned("200 OK", whole))
    with pytest.raises(TransientError, match="must take ListObjectsV2, and answered 500"):  # what botocore makes of it
        store.list("")


def test_large_file_goes_in_pieces_and_under_the_same_conditions(store, faulty, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "MULTIPART_FROM_BYTES", 1 << 20)
    monkeypatch.setattr(object_store, "PIECE_BYTES", 5 << 20)
    large, other = tmp_path / "large", tmp_path / "other"
    large.write_bytes(os.urandom(6 << 20))
    other.write_bytes(os.urandom(6 << 20))
    assert store.create_file("part", large)
    assert store.create_file("part", large) is False
    with pytest.raises(UserError, match="an immutable object must not change"):
        store.create_file("part", other)
    assert store.replace_file("file", large, None, {})
    seen = store.head("file")
    assert store.replace_file("file", other, None, {}) is False
    assert store.replace_file("file", other, seen, {})
    assert store.replace_file("file", large, seen, {}) is False
    assert store.read("file").body == other.read_bytes()
    number = len(faulty.requests)
    faulty.reset(lambda request: "dropped after" if "uploadId" in request.path and request.method == "POST" else None)
    assert store.replace_file("file", large, store.head("file"), {}), "the answer was lost, the object is there"
    assert number
