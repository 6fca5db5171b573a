"""The parts of a product's entry about its nights: where they go, who hears of them, what is seen of them after."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from model.settings import STRICT, Count
from tasks.params.fields import URL_PASSWORD, S3Url, without_password
from tasks.params.source import UrlEnv, check_one_url


def _is_http(url: str | None) -> str | None:
    if url is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url):
        raise ValueError(f"must be an http:// or https:// address, got {url!r}; use https://example.org/nights")
    return url


def _is_queue(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+/\d+/[\w-]+(\.fifo)?", url):
        raise ValueError(
            f"must be the URL of an SQS queue, got {url!r}; use for example "
            "https://sqs.eu-central-1.amazonaws.com/123456789012/nights"
        )
    return url


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Webhook:
    """An address that each line is POSTed to; it has taken it once it answers with a status of 200 to 299 within five
    seconds."""

    kind: Literal["webhook"]
    """webhook: each line is POSTed to an address."""
    url: Annotated[
        str | None,
        Field(examples=["https://example.org/nights"]),
        without_password(URL_PASSWORD),
        AfterValidator(_is_http),
    ] = None
    """The http:// or https:// address."""
    url_env: UrlEnv = None
    """The environment variable that holds the address, for one that holds a secret."""
    secret_env: Annotated[str | None, Field(examples=["NIGHTS_SECRET"])] = None
    """The environment variable that holds the secret by which lines are signed, as Standard Webhooks says; two, with a
    space between, while receivers change from one to the other. null: lines are not signed."""

    def __post_init__(self) -> None:
        check_one_url(self.kind, self.url, self.url_env)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SqsQueue:
    """A queue of Amazon SQS, with address and credentials by AWS's own environment variables."""

    kind: Literal["sqs"]
    """sqs: each line is a message of a queue of Amazon SQS."""
    url: Annotated[
        str,
        Field(examples=["https://sqs.eu-central-1.amazonaws.com/123456789012/nights"]),
        AfterValidator(_is_queue),
    ]
    """The queue's URL; in one that ends with .fifo a line that is sent again within five minutes comes once."""


Announce = Annotated[Webhook | SqsQueue, Field(discriminator="kind")]
"""Who is sent a line of JSON of each published night."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Publish:
    """Where the nights go, and who hears of them."""

    url: S3Url = "s3://lamplighter/predictions"
    """s3://bucket/prefix."""
    keep_days: Count = 30
    """The parts of a night that another one replaced are kept this long, for those who are reading them."""
    table: Literal["none", "delta"] = "none"
    """delta: the nights are also rows of a Delta Lake table, <url>/_tables/<product>, which follows the manifests and
    can be read as of any version of the last `keep_days`. It needs the package deltalake:
    pip install --constraint constraints.txt '.[delta]'."""
    announce: Announce | None = None
    """Who is sent a line of JSON of each night that is published, published again or withdrawn from now on, at least
    once (docs/reading.md); null: nobody."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rollback:
    """When the champion before is assigned again by itself: its nights were better, by a confidence sequence."""

    cool_down_days: Count = 28
    """So many days lie between the as_of of two such rollbacks."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Monitor:
    """What is seen of nights after they are published, and what follows from it."""

    shadow: bool = True
    """Whether the champion before, the newest model that was refused or waits, and the first champion score the same
    rows, apart from what is published, where they read the same columns."""
    retrain: bool = True
    """Whether train__<product> is started where labels show that the champion has become worse than in its first
    nights; drift of inputs warns, and starts nothing."""
    retrain_days: Count = 14
    """So many days lie between the as_of of two such trainings."""
    rollback: Rollback | None = Field(default_factory=Rollback)
    """When the champion before is assigned again; null: by a person only."""
