"""Use an object store through botocore: immutable objects, conditional replacement, and lost responses.

Address and credentials come from the environment in AWS's own variables (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, ...).
A request whose response was lost may have taken effect: every write reads back and compares, instead of trusting the
response.
"""

import base64
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from tasks.runtime.errors import StoreUnavailable, TransientError, UserError
from tasks.runtime.files import file_sha256

CONNECT_SECONDS, READ_SECONDS = 5, 60
"""The wait for a response before the request is sent again."""
MAX_REQUEST_ATTEMPTS = 5
"""The number of times a request is sent where the store answers with a failure of its own, or not at all."""
MAX_CAS_ROUNDS = 25
"""The number of times a compare-and-swap is begun anew where other writers come first."""
T = TypeVar("T")
_CHUNK_BYTES = 1 << 20
_LOST_RACE = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
_ABSENT = ("NoSuchKey", "404", "NotFound")
_REFUSED = ("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket")


class _BrokenBody(StoreUnavailable):
    """A response began well, and its body broke off or failed its checksum."""


@dataclass(frozen=True)
class StoredObject:
    """A small object as it was read."""

    uri: str
    """The s3:// address."""
    body: bytes
    """The content."""
    etag: str
    """The tag that a conditional replacement must match."""

    def json(self) -> Any:
        """Return the content as JSON that has been parsed."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Store:
    """A prefix of a bucket: s3://bucket/prefix. Keys are relative to the prefix."""

    url: str
    """s3://bucket/prefix."""

    @property
    def bucket(self) -> str:
        """Return the bucket's name."""
        return self.url.removeprefix("s3://").partition("/")[0]

    def full_key(self, key: str) -> str:
        """Return the key within the bucket."""
        return f"{self.url.removeprefix('s3://').partition('/')[2].strip('/')}/{key}".lstrip("/")

    def key_of(self, full_key: str) -> str:
        """Return the key relative to the prefix, of one within the bucket."""
        return full_key.removeprefix(self.full_key(""))

    def uri(self, key: str) -> str:
        """Return the s3:// address of a key."""
        return f"s3://{self.bucket}/{self.full_key(key)}"

    def read(self, key: str) -> StoredObject | None:
        """Return the object; None where there is none."""
        return self._get(key, lambda response: StoredObject(self.uri(key), response["Body"].read(), response["ETag"]))

    def download(self, key: str, file: Path) -> bool:
        """Write the object to a file, without holding it in memory; return False where there is none."""

        def write(response: Any) -> bool:
            with file.open("wb") as out:
                for chunk in response["Body"].iter_chunks(_CHUNK_BYTES):
                    out.write(chunk)
            return True

        return bool(self._get(key, write))

    def sha256(self, key: str) -> str | None:
        """Return the SHA-256 of the object's body in hex, computed from its download; None where there is none."""

        def digest(response: Any) -> str:
            hashed = hashlib.sha256()
            for chunk in response["Body"].iter_chunks(_CHUNK_BYTES):
                hashed.update(chunk)
            return hashed.hexdigest()

        return self._get(key, digest)

    def recorded_sha256(self, key: str) -> str | None:
        """Return the checksum in hex that was stored with the object; None without an object, or a checksum of it.

        It costs one request without a body: the store compared checksum and body when the object was written.
        """
        with _store_errors(self.uri(key)):
            try:
                head = self._client.head_object(Bucket=self.bucket, Key=self.full_key(key), ChecksumMode="ENABLED")
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
        checksum = head.get("ChecksumSHA256")
        return base64.b64decode(checksum).hex() if checksum else None

    def list(self, prefix: str) -> dict[str, datetime]:
        """Return the keys below a prefix, in their order, each with the time at which it was last written."""
        with _store_errors(self.uri(prefix)):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.full_key(prefix)
            )
            return {
                self.key_of(each["Key"]): each["LastModified"] for page in pages for each in page.get("Contents", [])
            }

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with _store_errors(self.uri(key)):
            self._client.delete_object(Bucket=self.bucket, Key=self.full_key(key))

    def create_file(self, key: str, file: Path) -> bool:
        """Upload an immutable object; return False where the same content is there already, which is not sent again.

        Raises UserError where another content is there.
        """
        digest, unanswered = file_sha256(file), None
        if self.recorded_sha256(key) == digest:
            return False
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        try:
            with file.open("rb") as body:
                if self._put(key, body, IfNoneMatch="*", ChecksumSHA256=checksum):
                    return True
        except TransientError as error:
            unanswered = error
        current = self.sha256(key)
        if current is None:
            raise unanswered or TransientError(f"{self.uri(key)}: another writer was at it, and nothing is there yet")
        if current != digest:
            raise UserError(
                f"{self.uri(key)}: an immutable object must not change, and another content is there "
                f"(sha256 {current}); the same inputs gave other bytes: compare the two machines"
            )
        return unanswered is not None

    def replace(self, key: str, body: bytes, expected: StoredObject | None) -> bool:
        """Put `body` in place of the object that was read before, or of none; return False where another writer won.

        If the response is lost, success is decided by reading back: bodies must differ where it matters which writer
        wrote, so manifests carry a writer's name.
        """
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected.etag}
        unanswered = None
        try:
            if self._put(key, body, **condition):
                return True
        except TransientError as error:
            unanswered = error
        current = self.read(key)  # a lost response looks like a lost race, or like a failure: this write may have won
        if current is not None and current.body == body:
            return True
        if unanswered:
            raise unanswered
        return False

    def update(self, key: str, change: Callable[[StoredObject | None], bytes | None]) -> bool:
        """Replace an object by the body that `change` makes of it; return False where that is None.

        `change` is called anew with the current object whenever another writer came first. Raises TransientError
        where others keep winning.
        """
        for turn in range(MAX_CAS_ROUNDS):
            current = self.read(key)
            body = change(current)
            if body is None:
                return False
            if self.replace(key, body, current):
                return True
            time.sleep(random.uniform(0, min(0.01 * 2**turn, 1.0)))  # else writers in step lose to one another for long
        raise TransientError(f"{self.uri(key)}: other writers came first {MAX_CAS_ROUNDS} times while we tried")

    def _get(self, key: str, consume: Callable[[Any], T]) -> T | None:
        """Return what `consume` makes of the response; ask again where its body breaks off or fails its checksum."""
        is_broken, stop = retry_if_exception_type(_BrokenBody), stop_after_attempt(MAX_REQUEST_ATTEMPTS)
        return Retrying(retry=is_broken, stop=stop, reraise=True)(self._get_once, key, consume)

    def _get_once(self, key: str, consume: Callable[[Any], T]) -> T | None:
        from botocore.exceptions import BotoCoreError

        with _store_errors(self.uri(key)):
            try:
                response = self._client.get_object(Bucket=self.bucket, Key=self.full_key(key))
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
            try:
                return consume(response)
            except BotoCoreError as error:  # botocore sends a request again whose response is lost, but not for a body
                raise _BrokenBody(f"{self.uri(key)}: the store did not answer; {error}") from None

    def _put(self, key: str, body: Any, **conditions: str) -> bool:
        with _store_errors(self.uri(key)):
            try:
                self._client.put_object(Bucket=self.bucket, Key=self.full_key(key), Body=body, **conditions)
                return True
            except self._client.exceptions.ClientError as error:
                if _code(error) in _LOST_RACE:
                    return False
                raise

    @cached_property
    def _client(self) -> Any:
        import botocore.session
        from botocore.config import Config

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
            return session.create_client("s3", config=config)
        except ValueError as error:
            raise not_an_address(error) from None


def not_an_address(error: ValueError) -> UserError:
    """Return the error for an endpoint that is no address."""
    return UserError(f"AWS_ENDPOINT_URL_S3 must be an address such as https://minio.example:9000; {error}; correct it")


@cache
def _service_descriptions() -> Any:
    """Return botocore's descriptions of S3: reading them is three quarters of the time that making a client takes."""
    import botocore.session

    return botocore.session.Session().get_component("data_loader")


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    """Turn botocore's errors into UserError where a person must act, and into StoreUnavailable otherwise."""
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
        raise StoreUnavailable(f"{uri}: {error}") from None
    except BotoCoreError as error:
        raise StoreUnavailable(f"{uri}: the store did not answer; {error}") from None
