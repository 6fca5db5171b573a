"""Oracle: what real receivers on loopback were sent, an HTTP server and a mail server; a real S3 server."""

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as Received
from builders import a_product
from conftest import ROOT, free_port

from tasks.monitoring.messages import channels, outbox
from tasks.monitoring.messages.contracts import CLAIM, MAX_TRIES, Outgoing
from tasks.monitoring.messages.wording import champion_changed, of_decision, stopped
from tasks.publication.manifests import read_checked
from tasks.publication.object_store import Store
from tasks.runtime.errors import UserError
from tasks.runtime.settings import settings

SECRET = "s3cr3t-of-the-hook"


class Hook(ThreadingHTTPServer):
    """A webhook that keeps what it is sent, and answers as it is told."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Receiver)
        self.bodies, self.headers, self.raw, self.status, self.waits = [], [], [], 200, 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/{SECRET}"


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.waits)
        if self.server.status == 200:
            self.server.bodies.append(json.loads(raw))
            self.server.raw.append(raw)
            self.server.headers.append(dict(self.headers))
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", self.server.url)
        self.end_headers()

    def do_GET(self):
        self.server.bodies.append("GET")
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


class Letters(Received):
    def __init__(self):
        super().__init__()
        self.letters = []

    def handle_message(self, message):
        self.letters.append(message)


@pytest.fixture(autouse=True)
def only_declared_here(monkeypatch, tmp_path):
    monkeypatch.setattr(channels, "SECONDS", 60.0)  # however busy the machine is
    for name in [name for name in os.environ if name.startswith("LAMPLIGHTER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path / "home"))


@pytest.fixture
def hook(monkeypatch):
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("LAMPLIGHTER_WEBHOOK_URL", server.url)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def mailbox(monkeypatch):
    handler = Letters()
    server = Controller(handler, hostname="127.0.0.1", port=free_port())
    server.start()
    monkeypatch.setenv("LAMPLIGHTER_MAIL_SERVER", f"smtp://127.0.0.1:{server.port}")
    monkeypatch.setenv("LAMPLIGHTER_MAIL_TO", "ada@example.org, grace@example.org")
    yield handler
    server.stop()


@pytest.fixture
def product(s3_here):
    return a_product(publish={"url": f"s3://lamplighter/messages-{uuid.uuid4()}"})


def outgoing(product, message):
    return read_checked(Store(product.publish.url), message.key, Outgoing)[0]


def a_stop(product, about="predict scheduled__2024-02-11"):
    return stopped(product, "the night of 2024-02-10", about, "rows must reconcile", "http://127.0.0.1/log")


def test_message_reaches_webhook_and_mail_whole(product, hook, mailbox, monkeypatch):
    monkeypatch.setenv("LAMPLIGHTER_WEBHOOK_TOKEN", "t0ken")
    message = a_stop(product)
    outbox.tell(product, message)
    assert hook.bodies == [{"id": message.identity, **message.to_json()}]
    assert hook.headers[0]["Idempotency-Key"] == message.identity
    assert hook.headers[0]["Authorization"] == "Bearer t0ken"
    [letter] = mailbox.letters
    assert letter["Subject"] == "tiny: the night of 2024-02-10 has stopped"
    assert (letter["To"], letter["Message-ID"]) == (
        "ada@example.org, grace@example.org",
        f"<{message.identity}@lamplighter>",
    )
    assert "rows must reconcile" in letter.get_payload()
    assert message.link in letter.get_payload()
    assert {each.is_sent for each in outgoing(product, message).deliveries.values()} == {True}


def test_of_many_who_tell_the_same_one_sends(product, hook):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: outbox.tell(product, a_stop(product)), range(16)))
    outbox.tell(product, replace(a_stop(product), text="another text of the same event"))
    outbox.deliver_waiting(product, datetime.now(UTC) + timedelta(hours=1))
    assert len(hook.bodies) == 1
    outbox.tell(product, a_stop(product, "predict scheduled__2024-02-12"))
    outbox.tell(product, champion_changed(product, a_stop(product).about, "v2.0.0 is the champion now"))
    assert len(hook.bodies) == 3, "another run, and another kind"


def test_dead_receiver_stops_nothing_and_gets_the_message_later(product, hook, mailbox, capsys):
    hook.status = 503
    message = a_stop(product)
    outbox.tell(product, message)
    assert len(mailbox.letters) == 1
    log = capsys.readouterr().out
    assert "webhook has not taken it: it answered with status 503" in log
    assert SECRET not in log
    hook.status = 200
    assert outbox.deliver_waiting(product).n_tried == 0, "the try has just begun"
    assert outbox.deliver_waiting(product, datetime.now(UTC) + CLAIM) == outbox.Looked(n_tried=1)
    assert (len(hook.bodies), len(mailbox.letters)) == (1, 1)


def test_tries_end(product, hook):
    hook.status = 500
    outbox.tell(product, a_stop(product))
    later = [datetime.now(UTC) + CLAIM * n for n in range(1, 9)]
    looks = [outbox.deliver_waiting(product, each) for each in later]
    assert sum(each.n_tried for each in looks) == MAX_TRIES - 1
    assert [each.message.about for each in looks[-1].lost] == [a_stop(product).about], "nobody has had it"
    assert outbox.deliver_waiting(product, datetime.now(UTC) + outbox.WAITS * 2) == outbox.Looked()


@pytest.mark.parametrize(("status", "n_tried"), [(302, 1), (404, 1), (504, 0)])
def test_redirected_or_refused_post_is_tried_again_and_an_unknown_one_not(product, hook, capsys, status, n_tried):
    """A gateway that has waited in vain does not know what the receiver behind it has taken."""
    hook.status = status
    outbox.tell(product, a_stop(product))
    assert f"status {status}" in capsys.readouterr().out
    assert not hook.bodies, "a redirect is not followed"
    assert not outgoing(product, a_stop(product)).deliveries["webhook"].is_sent
    assert outbox.deliver_waiting(product, datetime.now(UTC) + CLAIM).n_tried == n_tried


def test_receivers_that_hang_are_left_after_seconds(product, hook, monkeypatch, capsys):
    monkeypatch.setattr(channels, "SECONDS", 0.5)
    hook.waits = 30
    for name, address in (
        ("LAMPLIGHTER_MAIL_SERVER", "smtp://127.0.0.1:9"),
        ("LAMPLIGHTER_MAIL_TO", "ada@example.org"),
    ):
        monkeypatch.setenv(name, address)
    outbox.tell(product, a_stop(product))
    log = capsys.readouterr().out
    assert "mail has not taken it: Connection refused" in log
    assert "whether webhook has taken it is not known: " in log


def test_letter_that_was_taken_stays_so_however_the_server_says_goodbye(product, mailbox, monkeypatch):
    async def rude(*_):
        return "554 go away"

    monkeypatch.setattr(mailbox, "handle_QUIT", rude, raising=False)
    outbox.tell(product, a_stop(product))
    assert outgoing(product, a_stop(product)).deliveries["mail"].is_sent
    assert len(mailbox.letters) == 1


@pytest.mark.long
def test_store_that_is_down_keeps_no_message_back_and_lets_none_come_twice(product, hook, monkeypatch, capsys):
    old = settings().home / outbox.MARKS / "of long ago"
    old.parent.mkdir(parents=True)
    old.touch()
    os.utime(old, (0, 0))
    with monkeypatch.context() as down:
        down.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        down.setattr("tasks.publication.store_client.MAX_REQUEST_ATTEMPTS", 1)
        hook.status = 503
        outbox.tell(product, a_stop(product))
        hook.status = 200
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: outbox.tell(product, a_stop(product)), range(3)))
        assert len(hook.bodies) == 1, "the one that was refused is sent again, by one of three"
        assert "the store has no mark of it" in capsys.readouterr().out
    outbox.tell(product, a_stop(product))
    assert len(hook.bodies) == 1, "the disk knows"
    assert not old.exists(), "marks of long ago are removed"


TELL = """
import sys
from builders import a_product
from tasks.monitoring.messages import outbox
from tasks.monitoring.messages.wording import stopped
product = a_product(publish={"url": sys.argv[1]})
outbox.tell(product, stopped(product, "the night of 2024-02-10", "killed", "rows must reconcile"))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("label", "n_arrived"), [("tell: the message is claimed", 0), ("tell: the message is sent", 1)]
)
def test_message_of_a_killed_process_never_comes_twice_and_is_said(product, hook, capsys, label, n_arrived):
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "LAMPLIGHTER_CRASH_AT": label}
    done = subprocess.run([sys.executable, "-c", TELL, product.publish.url], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    assert outbox.deliver_waiting(product) == outbox.Looked(), "it may be at work"
    for n in (1, 2):
        looked = outbox.deliver_waiting(product, datetime.now(UTC) + CLAIM * n)
        assert (looked.n_tried, [each.message.about for each in looked.lost]) == (0, ["killed"])
        assert "whether webhook has taken it is not known, so it is not sent again" in capsys.readouterr().out
    assert len(hook.bodies) == n_arrived


def test_password_goes_to_no_mail_server_without_tls(product, mailbox, monkeypatch, capsys):
    address = os.environ["LAMPLIGHTER_MAIL_SERVER"].replace("smtp://", f"smtp://ada:{SECRET}@")
    monkeypatch.setenv("LAMPLIGHTER_MAIL_SERVER", address)
    outbox.tell(product, a_stop(product))
    log = capsys.readouterr().out
    assert "mail has not taken it: SMTPNotSupportedError" in log
    assert SECRET not in log
    assert not mailbox.letters


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("LAMPLIGHTER_WEBHOOK_URL", f"file:///etc/{SECRET}"),
        ("LAMPLIGHTER_MAIL_SERVER", f"{SECRET}.example.org:25"),
        ("LAMPLIGHTER_MAIL_SERVER", f"smtp://{SECRET}:port"),
        ("LAMPLIGHTER_APPRISE_URLS", f"nothing-that-is-known://{SECRET}"),
    ],
)
def test_wrong_setting_fails_nothing_and_is_named_without_its_value(product, monkeypatch, capsys, setting, value):
    monkeypatch.setenv(setting, value)
    outbox.tell(product, a_stop(product))
    log = capsys.readouterr().out
    assert f"{setting} must" in log
    assert SECRET not in log


def test_apprise_sends_to_what_it_knows_and_a_dead_receiver_repeats_no_other(product, hook, monkeypatch):
    monkeypatch.delenv("LAMPLIGHTER_WEBHOOK_URL")
    address = hook.url.replace("http://", "json://")
    monkeypatch.setenv("LAMPLIGHTER_APPRISE_URLS", f"json://127.0.0.1:9/x {address}")
    outbox.tell(product, a_stop(product))
    outbox.deliver_waiting(product, datetime.now(UTC) + CLAIM)
    sent = {name: each.is_sent for name, each in outgoing(product, a_stop(product)).deliveries.items()}
    assert sent == {"apprise": False, "apprise-2": True}
    [body] = hook.bodies
    assert body["title"] == "tiny: the night of 2024-02-10 has stopped"
    assert "rows must reconcile" in body["message"]


def test_nothing_is_declared_and_nothing_is_kept(product, capsys):
    outbox.tell(product, a_stop(product))
    assert outbox.deliver_waiting(product) == outbox.Looked()
    assert outgoing(product, a_stop(product)) is None
    assert capsys.readouterr().out == ""


def test_what_a_person_did_is_left_for_the_watcher(product, hook):
    message = champion_changed(product, "rollback 3", "v1.0.0 predicts tiny from the next night on")
    for _ in range(2):
        outbox.leave(product, message)
    assert not hook.bodies
    assert [outbox.deliver_waiting(product).n_tried for _ in range(2)] == [1, 0]
    assert [body["about"] for body in hook.bodies] == ["rollback 3"]


@pytest.mark.parametrize(
    ("decision", "kind"),
    [
        ("promoted", "champion-changed"),
        ("needs approval", "approval-waits"),
        ("rejected", "stopped"),
        ("withdrawn", "stopped"),
        ("held", "stopped"),
        ("champion already", None),
    ],
)
def test_decisions_call_for_one_of_the_four_messages(decision, kind):
    message = of_decision(a_product(), decision, "auc 0.8", "2024-02-10", "tiny-2024-02-10-train-0")
    assert (message and message.kind) == kind
    assert message is None or "auc 0.8" in message.text


def test_reason_holds_nothing_that_a_receiver_says():
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    assert channels.reason_of(refused) == "certificate verify failed"
    assert channels.reason_of(KeyError(SECRET)) == "KeyError"
    assert channels.reason_of(UserError("LAMPLIGHTER_MAIL_TO must")) == "LAMPLIGHTER_MAIL_TO must"
