"""Oracle: what a real HTTP receiver was sent, beside the nights of a real S3 server; the law of at least once."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from builders import a_product, declared, mistakes
from chaos_publication import labels_of
from conftest import ROOT
from test_messages import Hook, only_declared_here  # noqa: F401 (a fixture)
from test_publish import AS_OF, make_night, objects, place, run_with, url  # noqa: F401 (url is a fixture)

from tasks.commands.nights.withdraw import withdraw
from tasks.monitoring.announcements import outbox
from tasks.monitoring.announcements.contracts import OUTBOX, Outbox
from tasks.monitoring.announcements.receivers import signature
from tasks.monitoring.messages import channels
from tasks.monitoring.messages.contracts import CLAIM
from tasks.publication import manifests
from tasks.publication.object_store import Store
from tasks.publish import publish
from tasks.read import read_manifest
from tasks.runtime.errors import TransientError
from tasks.watch import watch

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LATER = AS_OF + timedelta(days=1)
PUBLISH = """
import sys
from datetime import date
from builders import a_product
from test_publish import run_with
from tasks.publish import publish
url, address, generation = sys.argv[1:]
announce = {"kind": "webhook", "url": address}
publish(a_product(publish={"url": url, "announce": announce}), date(2024, 2, 10), run_with(int(generation)))
"""


@pytest.fixture
def hook():
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def product(url, hook):  # noqa: F811
    return announced(url, kind="webhook", url=hook.url)


def announced(prefix, **announce):
    return a_product(publish={"url": prefix, "announce": announce})


def publish_night(product, as_of=AS_OF, model="m1", run=None):
    make_night(product.publish.url, as_of, model=model)
    return publish(product, as_of, run)


def claim(product, name, as_of=AS_OF):
    return run_with(manifests.acquire_generation(place(product.publish.url, as_of), name))


def ids(hook):
    return [body["id"] for body in hook.bodies]


def sent_headers(hook):
    return {name.lower(): value for name, value in hook.headers[0].items()}


def soon(**more):
    """A moment at which nobody is at work any more who was at it now."""
    return datetime.now(UTC) + CLAIM + timedelta(seconds=1) + timedelta(**more)


def waits(product):
    """The dates that the outbox holds."""
    found, _ = manifests.read_checked(Store(product.publish.url), f"tiny/{OUTBOX}", Outbox)
    return sorted(found.dates) if found else []


def test_line_names_the_night_as_its_manifest_does(product, hook):
    publish_night(product)
    manifest, stored = read_manifest(product.publish.url, "tiny"), f"{product.publish.url}/tiny/dt=2024-02-10/"
    key = f"{stored.removeprefix('s3://lamplighter/')}_manifest.json"
    body = boto3.session.Session().client("s3").get_object(Bucket="lamplighter", Key=key)["Body"].read()
    assert hook.bodies == [
        {
            "format": 1,
            "id": "tiny/2024-02-10/1",
            "kind": "published",
            "product": "tiny",
            "dt": "2024-02-10",
            "scored_day": "2024-02-11",
            "generation": 1,
            "run": manifest.run,
            "manifest": f"{stored}_manifest.json",
            "manifest_sha256": hashlib.sha256(body).hexdigest(),
            "rows": {"in": 12, "published": 10, "quarantined": 2},
            "model_version": None,
            "model_sha256": "m1",
            "withdrawn": None,
        }
    ]
    assert hook.raw[0].count(b"\n") == 1
    assert hook.raw[0].endswith(b"\n")
    assert sent_headers(hook)["webhook-id"] == sent_headers(hook)["idempotency-key"] == "tiny/2024-02-10/1"
    assert waits(product) == []


def test_each_version_has_a_line_and_the_same_night_again_none(product, hook):
    publish_night(product)
    publish_night(product)
    publish_night(product, model="another model")
    publish_night(product, LATER)
    withdraw(product, AS_OF, "yesterday's weights", "Ann")
    publish_night(product, model="another model")
    assert [(body["dt"], body["generation"], body["kind"]) for body in hook.bodies] == [
        ("2024-02-10", 1, "published"),
        ("2024-02-10", 3, "republished"),
        ("2024-02-11", 1, "published"),
        ("2024-02-10", 4, "withdrawn"),
        ("2024-02-10", 5, "republished"),
    ]
    assert hook.bodies[3]["withdrawn"] == {"person": "Ann", "reason": "yesterday's weights"}
    assert outbox.announce_waiting(product, soon()) == 0
    assert len(hook.bodies) == 5


def test_signature_is_that_of_standard_webhooks_own_library(product, hook, monkeypatch):
    """Both were computed by the package standardwebhooks; the first one is the example of its specification."""
    first = signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert first == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    line = b'{"id": "tiny/2024-02-10/3"}\n'
    assert signature(SECRET, "tiny/2024-02-10/3", 1707606000, line) == "v1,SIomf07mUxlotJyducgrp6OBKRjy7jI+PP8Rr/2hADg="
    monkeypatch.setenv("NIGHTS_SECRET", f"{SECRET} another")
    publish_night(announced(product.publish.url, kind="webhook", url=hook.url, secret_env="NIGHTS_SECRET"))
    sent = sent_headers(hook)
    moment = int(sent["webhook-timestamp"])
    wanted = [signature(each, sent["webhook-id"], moment, hook.raw[0]) for each in (SECRET, "another")]
    assert sent["webhook-signature"].split() == wanted
    assert abs(datetime.now(UTC).timestamp() - moment) < 300


def killed_at(label, product, hook, generation):
    """Publish the night of data/predictions in a process of its own that is killed at a label."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "LAMPLIGHTER_CRASH_AT": label}
    command = [sys.executable, "-c", PUBLISH, product.publish.url, hook.url, str(generation)]
    done = subprocess.run(command, cwd=Path.cwd(), env=env, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


BEFORE = "publish: a part is uploaded"
AFTER = ["publish: the manifest has moved", *labels_of("monitoring/announcements/outbox")[1:]]


@pytest.mark.long
@pytest.mark.parametrize("label", AFTER)
@pytest.mark.parametrize("finder", ["watcher", "retry", "next run"])
def test_line_of_a_killed_publisher_is_sent(product, hook, label, finder):
    run = claim(product, "killed")
    make_night(product.publish.url)
    killed_at(label, product, hook, run.generation)
    was_sent = label == "announce: a line is sent"
    assert ids(hook) == ["tiny/2024-02-10/1"] * was_sent
    if finder == "watcher":
        assert outbox.announce_waiting(product) == 0, "its publisher may be at it"
        assert outbox.announce_waiting(product, soon()) == 0
    elif finder == "retry":
        publish(product, AS_OF, run)
    else:
        publish_night(product, model="another model")
    expected = ["tiny/2024-02-10/1"] * (1 + was_sent) + ["tiny/2024-02-10/2"] * (finder == "next run")
    assert ids(hook) == expected
    outbox.announce_waiting(product, soon(days=3))
    assert ids(hook) == expected
    assert waits(product) == []
    assert hook.bodies[-1]["manifest_sha256"] in {
        hashlib.sha256(Store(product.publish.url).read(key).body).hexdigest()
        for key in Store(product.publish.url).list("tiny/dt=")
        if key.endswith(".json")
    }


@pytest.mark.long
@pytest.mark.parametrize("label", ["announce: the date is noted", BEFORE])
def test_publisher_killed_before_its_commit_announces_nothing(product, hook, label):
    publish_night(product)
    make_night(product.publish.url, model="another model")
    killed_at(label, product, hook, claim(product, "killed").generation)
    outbox.announce_waiting(product, soon())
    assert waits(product) == [AS_OF], "it may wake"
    outbox.announce_waiting(product, soon(days=2))
    assert (ids(hook), waits(product)) == (["tiny/2024-02-10/1"], [])


def test_publisher_that_wakes_after_the_watcher_looked_is_announced(product, hook, monkeypatch):
    """Noted, not committed, looked at, committed, killed: what was noted is still there."""
    run = claim(product, "sleeps")
    make_night(product.publish.url)

    def look(label):
        if label == "publish: a part is uploaded":
            outbox.announce_waiting(product, soon())

    monkeypatch.setattr("tasks.publication.publishing.faults.failpoint", look)
    monkeypatch.setattr("tasks.publish.announce", lambda *_: None)
    publish(product, AS_OF, run)
    assert ids(hook) == []
    outbox.announce_waiting(product, soon(minutes=10))
    assert ids(hook) == ["tiny/2024-02-10/1"]


@pytest.mark.parametrize(("status", "reason"), [(500, "status 500"), (302, "status 302"), (404, "status 404")])
def test_receiver_that_refuses_gets_the_line_later_and_no_night_fails(product, hook, capsys, status, reason):
    hook.status = status
    assert "10 predictions in 3 parts published" in publish_night(product)
    publish_night(product, LATER)
    assert reason in capsys.readouterr().out
    assert outbox.announce_waiting(product, soon()) == 2
    assert capsys.readouterr().out.count("waits: webhook has not taken it") == 1, "the others are not tried then"
    assert "receivers have not taken what is announced of tiny (2 nights)" in watch([product], soon(minutes=6))
    hook.status = 200
    assert outbox.announce_waiting(product, soon(days=9)) == 0
    assert ids(hook) == ["tiny/2024-02-10/1", "tiny/2024-02-11/1"]
    assert waits(product) == []


def test_slow_receiver_costs_a_night_its_seconds_alone(product, hook, monkeypatch, capsys):
    monkeypatch.setattr(channels, "SECONDS", 0.3)
    hook.waits = 20
    began = datetime.now(UTC)
    publish_night(product)
    assert (datetime.now(UTC) - began).total_seconds() < 15
    assert "did not answer within 0.3 seconds" in capsys.readouterr().out
    assert waits(product) == [AS_OF]


def test_many_at_once_send_at_least_once_and_watchers_once(product, hook):
    hook.status = 500
    publish_night(product)
    hook.status = 200
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: outbox.announce_waiting(product, soon()), range(8)))
    assert ids(hook) == ["tiny/2024-02-10/1"]
    run = claim(product, "twice")
    make_night(product.publish.url, model="another model")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: publish(product, AS_OF, run), range(4)))
    assert set(ids(hook)[1:]) == {"tiny/2024-02-10/2"}
    outbox.announce_waiting(product, soon(days=3))
    assert waits(product) == []


def test_many_dates_published_at_once_lose_no_line(product, hook):
    dates = [AS_OF + timedelta(days=i) for i in range(8)]
    hook.status = 500
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda as_of: outbox.expect(product, place(product.publish.url, as_of), f"run {as_of}"), dates))
    assert waits(product) == dates
    hook.status = 200
    make_night(product.publish.url)
    publish(product, AS_OF)
    for as_of in dates[1:]:
        outbox.announce(product, place(product.publish.url, as_of), f"run {as_of}")
    assert ids(hook) == ["tiny/2024-02-10/1"]
    assert waits(product) == [AS_OF], "one that has noted it has not come yet"


def test_nights_of_before_are_not_announced(url, product, hook):  # noqa: F811
    before = replace(product, publish=replace(product.publish, announce=None))
    publish_night(before)
    publish_night(before, LATER)
    assert f"tiny/{OUTBOX}" not in objects(url)
    publish_night(product, LATER, model="another model")
    outbox.announce_waiting(product, soon(days=3))
    assert ids(hook) == ["tiny/2024-02-11/2"]


def test_damaged_outbox_keeps_no_night_back_and_the_watcher_says_so(product, hook, capsys):
    store, key = Store(product.publish.url), f"tiny/{OUTBOX}"
    store.replace(key, b'{"format": 1}', None)
    assert "published" in publish_night(product)
    assert "arrived damaged" in capsys.readouterr().out
    with pytest.raises(TransientError, match=rf"{OUTBOX}: must be as it was written, and arrived damaged"):
        watch([product])
    store.delete(key)
    publish_night(product, model="another model")
    assert ids(hook) == ["tiny/2024-02-10/2"]


def test_variable_that_is_not_set_stops_no_night_and_is_named(product, hook, monkeypatch, capsys):
    secret = announced(product.publish.url, kind="webhook", url_env="NIGHTS_URL", secret_env="NIGHTS_SECRET")
    publish_night(secret)
    assert "publish.announce.url_env: the environment variable NIGHTS_URL must be set" in capsys.readouterr().out
    monkeypatch.setenv("NIGHTS_URL", hook.url)
    with pytest.raises(TransientError, match=r"secret_env: the environment variable NIGHTS_SECRET must be set"):
        watch([secret], soon())
    monkeypatch.setenv("NIGHTS_SECRET", "whsec_*")
    assert outbox.announce_waiting(secret, soon(minutes=6)) == 1
    assert "must go on in base64" in capsys.readouterr().out
    monkeypatch.setenv("NIGHTS_SECRET", SECRET)
    outbox.announce_waiting(secret, soon(minutes=12))
    assert ids(hook) == ["tiny/2024-02-10/1"]


@pytest.mark.parametrize("queue", ["nights", "nights.fifo"])
def test_queue_is_sent_the_line_as_sqs_wants_it(product, hook, monkeypatch, queue, capsys):
    """The receiver is no SQS: it keeps what botocore's own client has sent, by the protocol of its service model."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", hook.url)
    address = f"https://sqs.eu-central-1.amazonaws.com/123456789012/{queue}"
    hook.status = 400
    to_queue = announced(product.publish.url, kind="sqs", url=address)
    publish_night(to_queue)
    assert "sqs has not taken it: it answered" in capsys.readouterr().out
    hook.status = 200
    outbox.announce_waiting(to_queue, soon())
    [body] = hook.bodies
    assert json.loads(body["MessageBody"])["id"] == "tiny/2024-02-10/1"
    assert body["QueueUrl"] == address
    is_ordered = queue.endswith(".fifo")
    assert body.get("MessageDeduplicationId") == ("tiny/2024-02-10/1" if is_ordered else None)
    assert sent_headers(hook)["x-amz-target"] == "AmazonSQS.SendMessage"
    assert "/eu-central-1/sqs/" in sent_headers(hook)["authorization"]


@pytest.mark.parametrize(
    ("announce", "mistake"),
    [
        ({"kind": "webhook"}, "url must be given for kind webhook, or url_env in its place; add one of the two"),
        ({"kind": "webhook", "url": "ftp://x/y"}, "url must be an http:// or https:// address, got 'ftp://x/y'"),
        ({"kind": "webhook", "url": "https://a:b@x/y"}, "must not hold a password; put the URL into an environment"),
        ({"kind": "sqs", "url": "https://sqs.x/nights"}, "url must be the URL of an SQS queue"),
        ({"kind": "kafka"}, "webhook"),
    ],
)
def test_mistakes_of_a_declared_receiver_are_told(announce, mistake):
    [line] = mistakes(declared(publish={"url": "s3://lamplighter/x", "announce": announce}))
    assert line.startswith("products.tiny.publish.announce")
    assert mistake in line
