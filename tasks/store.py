"""An object store through boto3: immutable objects, conditional replacement, and answers that got lost.

Where it lies and with which credentials comes from the environment in AWS's own variables
(AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, ...). A request whose answer was lost may have taken effect: every
write here reads back what stands and compares, instead of trusting the answer.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.errors import PassingError, UserError

_LOST_RACE = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
_ABSENT = ("NoSuchKey", "404", "NotFound")
_REFUSED = ("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket")


@dataclass(frozen=True)
class Stored:
    """A small object as it was read."""

    body: bytes
    """Its content."""
    etag: str
    """What a conditional replacement must match."""

    def json(self) -> Any:
        """Its content as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Store:
    """A prefix of a bucket: s3://bucket/prefix. Keys are relative to the prefix."""

    url: str
    """s3://bucket/prefix."""

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.url.removeprefix("s3://").partition("/")[0]

    def full_key(self, key: str) -> str:
        """The key within the bucket."""
        return f"{self.url.removeprefix('s3://').partition('/')[2].strip('/')}/{key}".lstrip("/")

    def uri(self, key: str) -> str:
        """The s3:// address of a key."""
        return f"s3://{self.bucket}/{self.full_key(key)}"

    def read(self, key: str) -> Stored | None:
        """The object, or None where there is none."""
        with _answers(self.uri(key)):
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=self.full_key(key))
                return Stored(answer["Body"].read(), answer["ETag"])
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise

    def create_file(self, key: str, file: Path) -> bool:
        """Upload an immutable object; False where the same content already stood there.

        Raises UserError where something else stands at the key.
        """
        digest = hashlib.sha256(file.read_bytes())
        checksum, unanswered = base64.b64encode(digest.digest()).decode(), None
        try:
            with file.open("rb") as body:
                if self._put(key, body, IfNoneMatch="*", ChecksumSHA256=checksum):
                    return True
        except PassingError as error:
            unanswered = error
        standing = self.sha256(key)
        if unanswered and standing is None:
            raise unanswered
        if standing != digest.hexdigest():
            raise UserError(
                f"{self.uri(key)}: an immutable object must not change, and another content stands there "
                f"(sha256 {standing}); the same inputs gave other bytes: compare the two machines"
            )
        return unanswered is not None

    def sha256(self, key: str) -> str | None:
        """The SHA-256 of what stands at the key in hex, computed from what it gives back; None where nothing does."""
        stored = self.read(key)
        return None if stored is None else hashlib.sha256(stored.body).hexdigest()

    def replace(self, key: str, body: bytes, standing: Stored | None) -> bool:
        """Put `body` in place of what was read before, or of nothing; False where another writer came first."""
        condition = {"IfNoneMatch": "*"} if standing is None else {"IfMatch": standing.etag}
        unanswered = None
        try:
            if self._put(key, body, **condition):
                return True
        except PassingError as error:
            unanswered = error
        now = self.read(key)  # a lost answer looks like a lost race, or like a failure: ours may stand
        if now is not None and now.body == body:
            return True
        if unanswered:
            raise unanswered
        return False

    def _put(self, key: str, body: Any, **conditions: str) -> bool:
        with _answers(self.uri(key)):
            try:
                self._client.put_object(Bucket=self.bucket, Key=self.full_key(key), Body=body, **conditions)
                return True
            except self._client.exceptions.ClientError as error:
                if _code(error) in _LOST_RACE:
                    return False
                raise

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        # A session of its own: boto3's shared one is not safe between threads, and keeps credentials it once saw.
        return boto3.session.Session().client(
            "s3",
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                retries={"mode": "standard", "total_max_attempts": 5},
                s3={"addressing_style": "path"},
            ),
        )


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _answers(uri: str) -> Iterator[None]:
    """Tell what a person must mend from what passes."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError:
        raise UserError(
            f"{uri}: credentials must be in the environment, and are not; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        ) from None
    except ClientError as error:
        if _code(error) in _REFUSED:
            raise UserError(
                f"{uri}: the store must grant the request, and refuses it ({_code(error)}); "
                "check bucket and credentials"
            ) from None
        raise PassingError(f"{uri}: {error}") from None
    except BotoCoreError as error:
        raise PassingError(f"{uri}: the store did not answer; {error}") from None
