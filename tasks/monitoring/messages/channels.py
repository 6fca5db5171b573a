"""Send a message by webhook, by mail and by apprise, as the environment declares them.

LAMPLIGHTER_WEBHOOK_URL: where a message is POSTed as JSON; LAMPLIGHTER_WEBHOOK_TOKEN: sent as a bearer token.
LAMPLIGHTER_MAIL_SERVER: smtp://host:port, or smtps://user:password@host:port; LAMPLIGHTER_MAIL_TO: addresses, by
commas; LAMPLIGHTER_MAIL_FROM: the sender's address. LAMPLIGHTER_APPRISE_URLS: by spaces; needs the package apprise.

Nothing of these settings is ever part of an error's text. A channel that is not declared does not exist. What a
receiver has surely not taken is told apart from what it may have taken, since only the former may be sent again.
"""

import json
import os
import smtplib
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit

from tasks.monitoring.messages.contracts import Message
from tasks.runtime.errors import UserError

SECONDS = 5.0
"""How long all receivers together may take: nothing waits longer for one that is dead, or slow, or trickles."""
Sent = TypeVar("Sent")
Channel = Callable[[Message], None]
"""It sends a message. Raises NotTaken where the receiver has surely not taken it, others where nobody knows."""
UNANSWERED = (408, 504)
"""What a server answers that has itself waited in vain: the receiver behind it may have taken the message."""


class NotTaken(Exception):
    """The receiver was not reached, or has refused the message; its cause says why."""


@dataclass(frozen=True)
class Failure:
    """Why a receiver is not known to have taken a message."""

    reason: str
    """In words that hold no address, no password and nothing that the receiver has said."""
    is_refusal: bool
    """Whether it has surely not taken it."""

    def __str__(self) -> str:
        return self.reason


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would arrive as a GET without its content."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        """Follow none, so that the answer counts as a failure."""


def declared_channels() -> dict[str, Channel]:
    """Return the channels that the environment declares, by name. Raises UserError for a setting that is none."""
    channels: dict[str, Channel] = {}
    if address := os.environ.get("LAMPLIGHTER_WEBHOOK_URL"):
        channels["webhook"] = _webhook(address, os.environ.get("LAMPLIGHTER_WEBHOOK_TOKEN") or "")
    if server := os.environ.get("LAMPLIGHTER_MAIL_SERVER"):
        channels["mail"] = _mail(server)
    for i, address in enumerate(os.environ.get("LAMPLIGHTER_APPRISE_URLS", "").split()):
        channels[f"apprise-{i + 1}" if i else "apprise"] = _apprise(address)  # of two receivers one may be dead
    return channels


def open_address(name: str, address: str, content: bytes | None = None, headers: Mapping[str, str] = {}) -> None:
    """GET an http address, or POST content to it; `name` is the setting that holds it. Raises where it refuses."""
    if urlsplit(address).scheme not in ("http", "https"):
        raise UserError(f"{name} must be an address that begins with http:// or https://; set it so, or unset it")
    request = urllib.request.Request(address, content, {"User-Agent": "lamplighter", **headers})
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS):
        pass


def send_at_once(channels: Mapping[str, Callable[[Sent], None]], message: Sent) -> dict[str, Failure]:
    """Send a message by all channels at the same time; return why it is not known as taken, by name of the channel.

    Returns after `SECONDS` whatever they do: resolving a name, or an answer byte by byte, has no time limit of its own.
    """
    outcomes: dict[str, Failure | None] = {}

    def send(name: str, channel: Callable[[Sent], None]) -> None:
        try:
            channel(message)
            outcomes[name] = None
        except NotTaken as error:
            outcomes[name] = Failure(reason_of(error.__cause__ or error), is_refusal=True)
        except Exception as error:
            outcomes[name] = Failure(reason_of(error), is_refusal=False)

    threads = [threading.Thread(target=send, args=each, daemon=True) for each in channels.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    known = dict(outcomes)
    silent = Failure(_silence(), is_refusal=False)
    return {name: failure for name in channels if (failure := known.get(name, silent))}


def reason_of(error: BaseException) -> str:
    """Return why a receiver has not taken a message, without address, password or anything that it has said.

    >>> reason_of(ConnectionRefusedError(111, "Connection refused"))
    'Connection refused'
    >>> reason_of(ValueError("https://hooks.example/secret"))
    'ValueError'
    >>> reason_of(URLError(TimeoutError("timed out")))
    'it did not answer within 5 seconds'
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, HTTPError):
        return f"it answered with status {error.code}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"it answered with code {error.smtp_code}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError) and not cause.strerror:  # of the socket, which may end before all channels do
        return _silence()
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__


def _silence() -> str:
    return f"it did not answer within {SECONDS:g} seconds"


def _webhook(address: str, token: str) -> Channel:
    def post(message: Message) -> None:
        content = {"id": message.identity, **message.to_json()}
        headers = {"Content-Type": "application/json", "Idempotency-Key": message.identity}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            open_address("LAMPLIGHTER_WEBHOOK_URL", address, json.dumps(content).encode(), headers)
        except HTTPError as error:
            if error.code in UNANSWERED:
                raise
            raise NotTaken from error
        except (URLError, UserError) as error:  # no connection, or one that broke before all was sent
            raise NotTaken from error

    return post


def _mail(server: str) -> Channel:
    try:
        place = urlsplit(server)
        is_an_address = place.scheme in ("smtp", "smtps") and bool(place.hostname) and place.port != 0
    except ValueError:  # a port that is none
        is_an_address = False
    receivers = [each.strip() for each in os.environ.get("LAMPLIGHTER_MAIL_TO", "").split(",") if each.strip()]
    sender = os.environ.get("LAMPLIGHTER_MAIL_FROM") or "lamplighter@localhost"
    if not is_an_address or not receivers:
        raise UserError(
            "LAMPLIGHTER_MAIL_SERVER must be like smtp://host:587, or smtps://user:password@host:465, and "
            "LAMPLIGHTER_MAIL_TO must name the receivers; set them so, or unset them"
        )

    def send(message: Message) -> None:
        try:
            smtp = _connected(place)
        except Exception as error:
            raise NotTaken from error
        try:
            smtp.send_message(_letter(message, sender, receivers))
        except (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused, smtplib.SMTPNotSupportedError) as error:
            raise NotTaken from error
        finally:
            with suppress(Exception):  # a letter that was taken stays so, however the server says goodbye
                smtp.quit()
            smtp.close()

    return send


def _connected(place: SplitResult) -> smtplib.SMTP:
    """Return a connection to a mail server. A password goes through TLS only, and a server without it is refused."""
    host, tls = str(place.hostname), ssl.create_default_context()
    if place.scheme == "smtps":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(host, place.port or 465, timeout=SECONDS, context=tls)
    else:
        smtp = smtplib.SMTP(host, place.port or 587, timeout=SECONDS)
    try:
        if place.username:
            if place.scheme == "smtp":
                smtp.starttls(context=tls)
            smtp.login(unquote(place.username), unquote(place.password or ""))
    except Exception:
        smtp.close()
        raise
    return smtp


def _letter(message: Message, sender: str, receivers: list[str]) -> EmailMessage:
    letter = EmailMessage()
    letter["Subject"] = " ".join(message.subject.split())
    letter["From"], letter["To"], letter["Date"] = sender, ", ".join(receivers), formatdate()
    letter["Message-ID"] = f"<{message.identity}@lamplighter>"
    letter.set_content(f"{message.text}\n" + (f"\n{message.link}\n" if message.link else ""))
    return letter


def _apprise(address: str) -> Channel:
    with suppress(ImportError):  # which is told below, where it stops no other channel
        import apprise  # noqa: F401 (a busy machine loads it for seconds, which are not a receiver's)

    def notify(message: Message) -> None:
        try:
            from apprise import Apprise
        except ImportError:
            raise NotTaken from UserError(
                "LAMPLIGHTER_APPRISE_URLS must have the package apprise, which is not installed; "
                "pip install --constraint constraints.txt 'lamplighter[apprise]', or unset it"
            )
        receiver = Apprise()
        if not receiver.add(address):
            raise NotTaken from UserError(
                "LAMPLIGHTER_APPRISE_URLS must be addresses that apprise knows; correct them, or unset it"
            )
        body = message.text + (f"\n{message.link}" if message.link else "")
        if not receiver.notify(body=body, title=message.subject):
            raise OSError(None, "apprise does not say whether the receiver has taken it")

    return notify
