"""Make the S3 client by which everything here talks to a store: how long it waits, and how often it asks."""

from functools import cache
from typing import Any

from tasks.publication.store_answers import BEFORE_ALL, check_answer, unanswered
from tasks.runtime.errors import UserError

CONNECT_SECONDS, READ_SECONDS = 5, 60
"""The wait for a response before the request is sent again."""
MAX_REQUEST_ATTEMPTS = 5
"""The number of times a request is sent where the store answers with a failure of its own, or not at all."""


def connect(url: str) -> Any:
    """Return a client by the environment's address and credentials; `url` is what errors name.

    Raises UserError where AWS's own variables or profile are not as they must be.
    """
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    # A session of its own: a shared one is not safe between threads, and keeps credentials that it once saw.
    session = botocore.session.Session()
    session.register_component("data_loader", _service_descriptions())
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": MAX_REQUEST_ATTEMPTS},
        s3={"addressing_style": "path"},
    )
    try:
        client = session.create_client("s3", config=config)
    except ValueError as error:
        raise not_an_address(error) from None
    except BotoCoreError as error:  # such as a profile that is not there
        raise unanswered(error, url) from None
    client.meta.events.register(BEFORE_ALL, check_answer)
    return client


def not_an_address(error: ValueError) -> UserError:
    """Return the error for an endpoint that is no address."""
    return UserError(f"AWS_ENDPOINT_URL_S3 must be an address such as https://minio.example:9000; {error}; correct it")


@cache
def _service_descriptions() -> Any:
    """Return botocore's descriptions of S3: reading them is three quarters of the time that making a client takes."""
    import botocore.session

    return botocore.session.Session().get_component("data_loader")
