"""Make the S3 client by which everything here talks to a store: how long it waits, and how often it asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tasks.publication.store_answers import BEFORE_ALL, check_answer, unanswered
from tasks.runtime.errors import UserError
from tasks.runtime.settings import store_encryption

CONNECT_SECONDS, READ_SECONDS = 5, 60
"""The wait for a response before the request is sent again."""
MAX_REQUEST_ATTEMPTS = 5
"""The number of times a request is sent where the store answers with a failure of its own, or not at all."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a caller can wait for a store."""

    connect_seconds: float = CONNECT_SECONDS
    """For a connection."""
    read_seconds: float = READ_SECONDS
    """For a response."""
    attempts: int = MAX_REQUEST_ATTEMPTS
    """The number of times a request is sent."""


OF_A_TASK = Patience()
OF_A_PAGE = Patience(connect_seconds=2, read_seconds=5, attempts=1)
"""A person waits, and can load the page again."""


def connect(url: str, patience: Patience = OF_A_TASK) -> Any:
    """Return a client by the environment's address and credentials; `url` is what errors name.

    What it writes is encrypted as `store_encryption` says. Raises UserError where that, or AWS's own variables or
    profile, are not as they must be.
    """
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    # A session of its own: a shared one is not safe between threads, and keeps credentials that it once saw.
    session = botocore.session.Session()
    session.register_component("data_loader", _service_descriptions())
    config = Config(
        connect_timeout=patience.connect_seconds,
        read_timeout=patience.read_seconds,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        s3={"addressing_style": "path"},
    )
    try:
        client = session.create_client("s3", config=config)
    except ValueError as error:
        raise not_an_address(error) from None
    except BotoCoreError as error:  # such as a profile that is not there
        raise unanswered(error, url) from None
    client.meta.events.register(BEFORE_ALL, check_answer)
    if encryption := store_encryption():

        def encrypt(params: Mapping[str, object], model: Any, **_: object) -> Mapping[str, object]:
            taken = model.input_shape.members if model.input_shape else {}
            return {**params, **{name: value for name, value in encryption.items() if name in taken}}

        client.meta.events.register("provide-client-params.s3", encrypt)
    return client


def delta_options(url: str) -> dict[str, str]:
    """Return address and credentials of the environment, as delta-rs is told them, and that it commits conditionally.

    Raises UserError as `connect` does.
    """
    import botocore.session

    client, credentials = connect(url), botocore.session.Session().get_credentials()
    address, region = str(client.meta.endpoint_url), str(client.meta.region_name)
    options = {
        "aws_endpoint": address,
        "aws_region": region,
        "aws_conditional_put": "etag",
        "allow_http": str(address.startswith("http://")).lower(),
        "max_retries": str(MAX_REQUEST_ATTEMPTS),
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "timeout": f"{READ_SECONDS}s",
    }
    options |= _delta_encryption()
    if credentials is None:
        return options
    found = credentials.get_frozen_credentials()
    options |= {"aws_access_key_id": found.access_key, "aws_secret_access_key": found.secret_key}
    return options | ({"aws_session_token": found.token} if found.token else {})


def _delta_encryption() -> dict[str, str]:
    """Return how objects are encrypted, as delta-rs is told it."""
    asked = store_encryption()
    if "SSECustomerKey" in asked:
        return {
            "aws_server_side_encryption": "sse-c",
            "aws_sse_customer_key_base64": asked["SSECustomerKey"],
        }
    names = {"ServerSideEncryption": "aws_server_side_encryption", "SSEKMSKeyId": "aws_sse_kms_key_id"}
    return {names[name]: value for name, value in asked.items()}


def not_an_address(error: ValueError) -> UserError:
    """Return the error for an endpoint that is no address."""
    return UserError(f"AWS_ENDPOINT_URL_S3 must be an address such as https://minio.example:9000; {error}; correct it")


@cache
def _service_descriptions() -> Any:
    """Return botocore's descriptions of S3: reading them is three quarters of the time that making a client takes."""
    import botocore.session

    return botocore.session.Session().get_component("data_loader")
