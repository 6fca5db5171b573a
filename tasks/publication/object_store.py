"""An object store through botocore: immutable objects, conditional replacement, and answers that got lost.

Where it lies and with which credentials comes from the environment in AWS's own variables
(AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, ...). A request whose answer was lost may have taken effect: every
write here reads back what stands and compares, instead of trusting the answer.
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

from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import file_sha256

CONNECT_SECONDS, READ_SECONDS = 5, 60
"""How long an answer is waited for before the request is sent again."""
MAX_REQUEST_ATTEMPTS = 5
"""How often a request is sent where the store answers with a failure of its own, or not at all."""
MAX_CAS_ROUNDS = 25
"""How often a change of an object is begun anew where other writers come first."""
T = TypeVar("T")
_CHUNK_BYTES = 1 << 20
_LOST_RACE = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
_ABSENT = ("NoSuchKey", "404", "NotFound")
_REFUSED = ("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket")


@dataclass(frozen=True)
class StoredObject:
    """A small object as it was read."""

    uri: str
    """Where it stands."""
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

    def key_of(self, full_key: str) -> str:
        """The key relative to the prefix, of one within the bucket."""
        return full_key.removeprefix(self.full_key(""))

    def uri(self, key: str) -> str:
        """The s3:// address of a key."""
        return f"s3://{self.bucket}/{self.full_key(key)}"

    def read(self, key: str) -> StoredObject | None:
        """The object, or None where there is none."""
        return self._whole(key, lambda answer: StoredObject(self.uri(key), answer["Body"].read(), answer["ETag"]))

    def download(self, key: str, file: Path) -> bool:
        """Write the object to a file, without holding it in memory; False where there is none."""

        def write(answer: Any) -> bool:
            with file.open("wb") as out:
                for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                    out.write(chunk)
            return True

        return bool(self._whole(key, write))

    def sha256(self, key: str) -> str | None:
        """The SHA-256 of what stands at the key in hex, computed from what it gives back; None where nothing does."""

        def digest(answer: Any) -> str:
            hashed = hashlib.sha256()
            for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                hashed.update(chunk)
            return hashed.hexdigest()

        return self._whole(key, digest)

    def list(self, prefix: str) -> dict[str, datetime]:
        """The keys below a prefix, in their order, each with the time at which it was last written."""
        with _answers(self.uri(prefix)):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.full_key(prefix)
            )
            return {
                self.key_of(each["Key"]): each["LastModified"] for page in pages for each in page.get("Contents", [])
            }

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with _answers(self.uri(key)):
            self._client.delete_object(Bucket=self.bucket, Key=self.full_key(key))

    def create_file(self, key: str, file: Path) -> bool:
        """Upload an immutable object; False where the same content already stood there.

        Raises UserError where something else stands at the key.
        """
        digest, unanswered = file_sha256(file), None
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        try:
            with file.open("rb") as body:
                if self._put(key, body, IfNoneMatch="*", ChecksumSHA256=checksum):
                    return True
        except TransientError as error:
            unanswered = error
        standing = self.sha256(key)
        if standing is None:
            raise unanswered or TransientError(
                f"{self.uri(key)}: another writer was at it, and nothing stands there yet"
            )
        if standing != digest:
            raise UserError(
                f"{self.uri(key)}: an immutable object must not change, and another content stands there "
                f"(sha256 {standing}); the same inputs gave other bytes: compare the two machines"
            )
        return unanswered is not None

    def replace(self, key: str, body: bytes, standing: StoredObject | None) -> bool:
        """Put `body` in place of what was read before, or of nothing; False where another writer came first.

        Who won is told by what stands afterwards: bodies must differ where it matters which writer wrote.
        """
        condition = {"IfNoneMatch": "*"} if standing is None else {"IfMatch": standing.etag}
        unanswered = None
        try:
            if self._put(key, body, **condition):
                return True
        except TransientError as error:
            unanswered = error
        now = self.read(key)  # a lost answer looks like a lost race, or like a failure: ours may stand
        if now is not None and now.body == body:
            return True
        if unanswered:
            raise unanswered
        return False

    def update(self, key: str, change: Callable[[StoredObject | None], bytes | None]) -> bool:
        """Replace an object by what `change` makes of it; None leaves it alone, and the answer is False then.

        `change` is called anew with what stands whenever another writer came first. Raises PassingError where
        others keep winning.
        """
        for turn in range(MAX_CAS_ROUNDS):
            standing = self.read(key)
            body = change(standing)
            if body is None:
                return False
            if self.replace(key, body, standing):
                return True
            time.sleep(random.uniform(0, min(0.01 * 2**turn, 1.0)))  # else writers in step lose to one another for long
        raise TransientError(f"{self.uri(key)}: other writers came first {MAX_CAS_ROUNDS} times while we tried")

    def _whole(self, key: str, consume: Callable[[Any], T]) -> T | None:
        """What `consume` makes of the object's answer; asked anew where its body breaks off or fails its checksum."""
        from botocore.exceptions import BotoCoreError

        for attempt in range(1, MAX_REQUEST_ATTEMPTS + 1):
            with _answers(self.uri(key)):
                try:
                    answer = self._client.get_object(Bucket=self.bucket, Key=self.full_key(key))
                except self._client.exceptions.ClientError as error:
                    if _code(error) in _ABSENT:
                        return None
                    raise
                try:
                    return consume(answer)
                except BotoCoreError:  # botocore sends a request again whose answer is lost, but not for its body
                    if attempt == MAX_REQUEST_ATTEMPTS:
                        raise
        raise AssertionError("the last attempt returns or raises")

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
    """What botocore says of an endpoint that is none."""
    return UserError(f"AWS_ENDPOINT_URL_S3 must be an address such as https://minio.example:9000; {error}; correct it")


@cache
def _service_descriptions() -> Any:
    """What botocore reads of S3 when it makes a client: three quarters of the time that takes, and always the same."""
    import botocore.session

    return botocore.session.Session().get_component("data_loader")


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
        raise TransientError(f"{uri}: {error}") from None
    except BotoCoreError as error:
        raise TransientError(f"{uri}: the store did not answer; {error}") from None
