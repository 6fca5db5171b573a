"""Send a line to the webhook or the queue that a product declares.

A webhook is sent a line as its body, with the headers of Standard Webhooks (standardwebhooks.com): `webhook-id`,
`webhook-timestamp` in seconds, and, where there is a secret, `webhook-signature`: "v1," and the base64 of the
HMAC-SHA256 of "<id>.<timestamp>.<body>". Of a secret that begins with whsec_ the rest is base64 of its bytes; any other
one is taken as UTF-8. Of two secrets with a space between there are two signatures with a space between.

Neither secret nor address is ever part of an error's text.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tasks.monitoring.announcements.contracts import Announcement
from tasks.monitoring.messages.channels import SECONDS, open_address
from tasks.params import Product, SqsQueue, Webhook
from tasks.runtime.errors import UserError
from tasks.sources.address import url_of, variable

PLACE = "publish.announce"
"""Where receivers are declared."""
Receiver = Callable[[Announcement], None]
"""It sends a line, and raises where that was not taken."""


def receiver_of(product: Product) -> tuple[str, Receiver]:
    """Return a product's receiver with the name of its kind. Raises UserError where a variable of it is not set."""
    declared = product.publish.announce
    assert declared is not None, "asked of products that announce alone"
    return declared.kind, _webhook(declared) if isinstance(declared, Webhook) else _queue(declared)


def body_of(line: Announcement) -> bytes:
    """Return the line itself: JSON without a line break, and one at its end."""
    return (json.dumps(line.to_json(), ensure_ascii=False) + "\n").encode()


def signature(secrets: str, name: str, moment: int, body: bytes) -> str:
    """Return the header `webhook-signature` of a body that is sent under a name at a moment, in seconds since 1970.

    Raises UserError for a secret that is none.
    """
    signed = f"{name}.{moment}.".encode() + body
    digests = [hmac.new(_key(secret), signed, hashlib.sha256).digest() for secret in secrets.split()]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _key(secret: str) -> bytes:
    prefix, _, encoded = secret.rpartition("whsec_")
    if prefix or encoded == secret:
        return secret.encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise UserError(
            f"{PLACE}.secret_env: a secret that begins with whsec_ must go on in base64, and does not; correct it"
        ) from None


def _webhook(declared: Webhook) -> Receiver:
    url, _ = url_of(declared, PLACE)
    secrets = variable(declared.secret_env, f"{PLACE}.secret_env") if declared.secret_env else ""

    def post(line: Announcement) -> None:
        body, moment = body_of(line), int(time.time())
        headers = {"Content-Type": "application/json", "Idempotency-Key": line.id, "webhook-id": line.id}
        headers["webhook-timestamp"] = str(moment)
        if secrets:
            headers["webhook-signature"] = signature(secrets, line.id, moment, body)
        open_address(PLACE, url, body, headers)

    return post


def _queue(declared: SqsQueue) -> Receiver:
    def send(line: Announcement) -> None:
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import ClientError

        named = re.match(r"sqs\.([\w-]+)\.", str(urlsplit(declared.url).hostname))
        config = Config(connect_timeout=SECONDS, read_timeout=SECONDS, retries={"total_max_attempts": 1})
        session = botocore.session.Session()
        client = session.create_client("sqs", region_name=named[1] if named else None, config=config)
        ordered = {"MessageGroupId": line.product, "MessageDeduplicationId": line.id}
        try:
            client.send_message(
                QueueUrl=declared.url,
                MessageBody=body_of(line).decode(),
                **(ordered if declared.url.endswith(".fifo") else {}),
            )
        except ClientError as error:
            code = re.sub(r"[^\w.]", "", str(error.response.get("Error", {}).get("Code", "")))
            raise OSError(None, f"it answered {code[:100]}") from None

    return send
