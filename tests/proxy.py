"""A proxy before a real S3 server that injects faults into single requests, and counts what passed through it.

The requests and answers on both sides are real; only what the plan names is broken, on the wire, where the client's
own retries, checksums and timeouts have to deal with it.
"""

import http.client
import os
import re
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

FAULTS = (
    "error before",  # 500, and the request never reached the store
    "error after",  # 500, although it took effect
    "throttled",  # 503 SlowDown
    "dropped before",  # the connection closes without an answer; the request never reached the store
    "dropped after",  # the same, although it took effect
    "timeout before",
    "timeout after",
    "damaged upload",  # one bit of what is sent flips
    "damaged answer",  # one bit of the answer's body flips
    "cut answer",  # the answer's body breaks off
    "slow",
)
CONFLICT = "conflict"
"""409, which S3 answers to one of two who write a key at once, each under a condition; nothing stands there yet."""
_ANSWERS = {
    "error before": ("InternalError", "500 Internal"),
    "error after": ("InternalError", "500 Internal"),
    "throttled": ("SlowDown", "503 Slow Down"),
    CONFLICT: ("ConditionalRequestConflict", "409 Conflict"),
}
HANG_SECONDS = 1.0
SLOW_SECONDS = 0.3


@dataclass(frozen=True)
class Request:
    """What the plan decides on."""

    number: int
    """Counted from 1 since the proxy was last reset, requests that are sent again included."""
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Canned:
    """An answer that the proxy gives in the store's place, or after the store had the request."""

    status: str
    """Such as 507 Insufficient Storage."""
    body: bytes = b""
    kind: str = "application/xml"
    """The Content-Type."""
    headers: tuple[tuple[str, str], ...] = ()
    forwarded: bool = False
    """Whether the store gets the request first."""


def refusal(status: str, code: str, message: str = "as asked for") -> Canned:
    """An error as S3 words it."""
    return Canned(
        status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    )


Plan = Callable[[Request], str | Canned | None]


class Proxy:
    """Listens on loopback while it is entered; `plan` names the fault of each request, or None."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removeprefix("http://")
        self.injected: Counter[str] = Counter()
        self.plan: Plan = lambda _: None
        self.rewrite: Callable[[Request], dict[str, str]] = lambda request: request.headers
        self.requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def reset(self, plan: Plan = lambda _: None) -> None:
        """Count requests anew, under another plan."""
        with self._lock:
            self.plan, self.requests = plan, []

    def __enter__(self) -> "Proxy":
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    while outer._serve(self):
                        pass
                except (ConnectionError, TimeoutError):
                    pass  # the client was killed, or has given up

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads, request_queue_size = True, True, 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: socketserver.StreamRequestHandler) -> bool:
        """Pass one request on, broken as planned; False ends the connection."""
        first = client.rfile.readline()
        if not first:
            return False
        method, path, _ = first.decode().split()
        headers = {}
        while (line := client.rfile.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.pop("expect", None):
            client.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = client.rfile.read(int(headers.get("content-length", 0)))
        with self._lock:
            self.requests.append((method, path))
            request = Request(len(self.requests), method, path, headers, body)
            fault = self.plan(request)
            if fault:
                self.injected[fault if isinstance(fault, str) else fault.status] += 1
        return self._answer(client, request, fault)

    def _answer(self, client: socketserver.StreamRequestHandler, request: Request, fault: str | Canned | None) -> bool:
        if isinstance(fault, Canned):
            if fault.forwarded:
                self._forward(request, request.body)
            return _send_canned(client, request, fault)
        if fault in ("error before", "throttled", CONFLICT):
            return self._send_error(client, fault)
        if fault == "dropped before":
            return False
        if fault == "timeout before":
            time.sleep(HANG_SECONDS)
            return False
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        status, reason, headers, body = self._forward(request, flipped(request.body, fault == "damaged upload"))
        if fault == "error after":
            return self._send_error(client, fault)
        if fault == "dropped after":
            return False
        if fault == "timeout after":
            time.sleep(HANG_SECONDS)
            return False
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        body = flipped(body, fault == "damaged answer")
        sent = body[: len(body) // 2] if fault == "cut answer" else body
        client.wfile.write(f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode() + sent)
        return fault != "cut answer"

    def _forward(self, request: Request, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            upstream.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.rewrite(request).items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
            kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in ("transfer-encoding", "connection")]
            if not any(name.lower() == "content-length" for name, _ in kept) and answer.status != 204:
                kept.append(("Content-Length", str(len(content))))
            return answer.status, answer.reason, kept, content
        finally:
            upstream.close()

    def _send_error(self, client: socketserver.StreamRequestHandler, fault: str) -> bool:
        code, status = _ANSWERS[fault]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        client.wfile.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        return True


def _send_canned(client: socketserver.StreamRequestHandler, request: Request, answer: Canned) -> bool:
    given = [("Content-Type", answer.kind), ("Content-Length", str(len(answer.body))), *answer.headers]
    head = "".join(f"{name}: {value}\r\n" for name, value in given)
    body = b"" if request.method == "HEAD" or answer.status.startswith("204") else answer.body
    client.wfile.write(f"HTTP/1.1 {answer.status}\r\n{head}\r\n".encode() + body)
    return True


def flipped(body: bytes, really: bool) -> bytes:
    """`body` with a bit in its middle flipped."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if really and body else body


def without_conditions(request: Request) -> dict[str, str]:
    """The request's headers without If-None-Match and If-Match, signed again: a store that ignores them."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    dropped = ("if-none-match", "if-match", "authorization", "x-amz-date")
    headers = {name: value for name, value in request.headers.items() if name not in dropped}
    signed = AWSRequest(request.method, f"http://{headers['host']}{request.path}", headers=headers, data=request.body)
    keys = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    S3SigV4Auth(keys, "s3", os.environ.get("AWS_DEFAULT_REGION", "us-east-1")).add_auth(signed)
    return dict(signed.headers.items())


def key_of(path: str) -> str:
    """The key within the bucket of a request's path."""
    return re.sub(r"^/[^/]+/|\?.*$", "", path)
