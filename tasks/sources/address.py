"""Find a source's address, and keep it out of messages where it may hold a secret."""

import os
import re

from tasks.params import FileSource, SqlSource, Webhook
from tasks.runtime.errors import UserError

_URL = re.compile(r"[\w+.-]+://\S*[^\s'\"]")


def url_of(source: FileSource | SqlSource | Webhook, place: str) -> tuple[str, str]:
    """Return the URL, and what a message may show of it: a URL from the environment may hold a secret."""
    if source.url_env is None:
        return source.url or "", source.url or ""
    return variable(source.url_env, f"{place}.url_env"), f"${source.url_env}"


def variable(name: str, place: str) -> str:
    """Return the value of an environment variable that params.yaml names. Raises UserError where it is not set."""
    value = os.environ.get(name)
    if not value:
        raise UserError(f"{place}: the environment variable {name} must be set, and is not; set it")
    return value


def redact_url(text: str, url: str, shown: str) -> str:
    """Return an error's text without any URL: a library may spell ours in its own way, or name one it was sent on to.

    >>> redact_url("no answer from HTTP://ann:secret@db/", "http://ann:secret@db", "$URL")
    'no answer from $URL'
    """
    return _URL.sub(lambda _: shown, text.replace(url, shown))
