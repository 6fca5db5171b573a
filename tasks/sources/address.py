"""Find a source's address, and keep it out of messages where it may hold a secret."""

import os
import re

from tasks.params import FileSource, SqlSource
from tasks.runtime.errors import UserError

_URL = re.compile(r"[\w+.-]+://\S*[^\s'\"]")


def url_of(source: FileSource | SqlSource, place: str) -> tuple[str, str]:
    """Return the URL, and what a message may show of it: a URL from the environment may hold a secret."""
    if source.url_env is None:
        return source.url or "", source.url or ""
    if not os.environ.get(source.url_env):
        raise UserError(f"{place}.url_env: the environment variable {source.url_env} must be set, and is not; set it")
    return os.environ[source.url_env], f"${source.url_env}"


def redact_url(text: str, url: str, shown: str) -> str:
    """Return an error's text without any URL: a library may spell ours in its own way, or name one it was sent on to.

    >>> redact_url("no answer from HTTP://ann:secret@db/", "http://ann:secret@db", "$URL")
    'no answer from $URL'
    """
    return _URL.sub(lambda _: shown, text.replace(url, shown))
