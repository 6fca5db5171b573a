"""Use an object store through botocore: immutable objects, conditional replacement, and lost responses.

Address and credentials come from the environment in AWS's own variables (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, ...).
A request whose response was lost may have taken effect: every write reads back and compares, instead of trusting the
response; so does one whose response does not repeat the checksum that was sent. What else a store may answer, and what
it means, is in `tasks.publication.store_answers`.
"""

import base64
import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from tasks.publication.store_answers import store_errors, unproven
from tasks.publication.store_client import MAX_REQUEST_ATTEMPTS, OF_A_TASK, Patience, connect
from tasks.runtime.errors import StoreUnavailable, TransientError, UserError
from tasks.runtime.files import file_sha256

MAX_CAS_ROUNDS = 25
"""The number of times a compare-and-swap is begun anew where other writers come first."""
T = TypeVar("T")
_CHUNK_BYTES = 1 << 20
_JSON, _PARQUET = "application/json", "application/vnd.apache.parquet"
_PLAIN = "text/plain; charset=utf-8"
"""Of a page too: an answer of type text/html is taken for that of a proxy, not of a store."""
_LOST_RACE = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
_ABSENT = ("NoSuchKey", "404", "NotFound")
MULTIPART_FROM_BYTES, PIECE_BYTES = 1 << 30, 128 << 20
"""From which size on a file is sent in pieces, and their size: S3 takes 5 GB in one PUT, and 10,000 pieces."""
_Outcome = Literal["won", "lost", "unproven"]
"""Whether a conditional write took effect, by its answer; unproven where it does not repeat what was sent."""


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
class ObjectHead:
    """What a store says of an object without sending it."""

    uri: str
    """The s3:// address."""
    etag: str
    """The tag that a conditional replacement must match."""
    sha256: str | None
    """The checksum in hex that the store, or else the writer, recorded with it."""
    metadata: Mapping[str, str]
    """What its writer noted on it."""


@dataclass(frozen=True)
class Store:
    """A prefix of a bucket: s3://bucket/prefix. Keys are relative to the prefix."""

    url: str
    """s3://bucket/prefix."""
    patience: Patience = OF_A_TASK
    """How long to wait for it."""

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

    def head(self, key: str) -> ObjectHead | None:
        """Return what the store says of an object, in one request without a body; None where there is none."""
        with store_errors(self.uri(key)):
            try:
                head = self._client.head_object(Bucket=self.bucket, Key=self.full_key(key), ChecksumMode="ENABLED")
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise self._worded(key, error) from None
        checksum, metadata = head.get("ChecksumSHA256", ""), head.get("Metadata", {})
        # Of an object that was sent in pieces a store records a checksum of checksums, as "...-3".
        is_whole = checksum and "-" not in checksum
        digest = base64.b64decode(checksum).hex() if is_whole else metadata.get("sha256")
        return ObjectHead(self.uri(key), head["ETag"], digest, metadata)

    def _worded(self, key: str, error: Any) -> Any:
        """Return the refusal of a HEAD with its words: the answer has a status alone, and that of a GET has both."""
        try:
            self._client.get_object(Bucket=self.bucket, Key=self.full_key(key), Range="bytes=0-0")
        except self._client.exceptions.ClientError as worded:
            if _status(worded) == _status(error):
                return worded
        return error

    def recorded_sha256(self, key: str) -> str | None:
        """Return the checksum in hex that was stored with the object; None without an object, or a checksum of it."""
        head = self.head(key)
        return head.sha256 if head else None

    def list(self, prefix: str) -> dict[str, datetime]:
        """Return the keys below a prefix, in their order, each with the time at which it was last written."""
        with store_errors(self.uri(prefix)):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.full_key(prefix)
            )
            return {
                self.key_of(each["Key"]): each["LastModified"] for page in pages for each in page.get("Contents", [])
            }

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with store_errors(self.uri(key)):
            self._client.delete_object(Bucket=self.bucket, Key=self.full_key(key))

    def create_file(self, key: str, file: Path) -> bool:
        """Upload an immutable object; return False where the same content is there already, which is not sent again.

        Raises UserError where another content is there.
        """
        digest, failure = file_sha256(file), None
        if self.recorded_sha256(key) == digest:
            return False
        outcome: _Outcome | None = None
        try:
            outcome = self._put_file(key, file, digest, {}, IfNoneMatch="*")
            if outcome == "won":
                return True
        except TransientError as error:
            failure = error
        current = self.sha256(key)
        if current is None and outcome == "unproven":
            raise unproven(self.uri(key))
        if current is None:
            raise failure or TransientError(f"{self.uri(key)}: another writer was at it, and nothing is there yet")
        if current != digest:
            raise UserError(
                f"{self.uri(key)}: an immutable object must not change, and another content is there "
                f"(sha256 {current}); the same inputs gave other bytes: compare the two machines"
            )
        return failure is not None or outcome == "unproven"

    def replace_file(self, key: str, file: Path, expected: ObjectHead | None, metadata: Mapping[str, str]) -> bool:
        """Put a file in place of the object that was seen before, or of none; return False where another writer won.

        `metadata` is noted on the object. A lost response is decided by the checksum that the store has.
        """
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected.etag}
        digest, failure, outcome = file_sha256(file), None, None
        try:
            outcome = self._put_file(key, file, digest, metadata, **condition)
            if outcome == "won":
                return True
        except TransientError as error:
            failure = error
        current = self.head(key)
        if current is not None and (current.sha256 or self.sha256(key)) == digest:
            return True
        if failure or outcome == "unproven":
            raise failure or unproven(self.uri(key))
        return False

    def replace(self, key: str, body: bytes, expected: StoredObject | None) -> bool:
        """Put `body` in place of the object that was read before, or of none; return False where another writer won.

        If the response is lost, success is decided by reading back: bodies must differ where it matters which writer
        wrote, so manifests carry a writer's name.
        """
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected.etag}
        failure, outcome, kept = None, None, {"ContentType": _JSON if key.endswith(".json") else _PLAIN}
        try:
            outcome = self._put(key, body, hashlib.sha256(body).hexdigest(), kept, **condition)
            if outcome == "won":
                return True
        except TransientError as error:
            failure = error
        current = self.read(key)  # a lost response looks like a lost race, or like a failure: this write may have won
        if current is not None and current.body == body:
            return True
        if failure or outcome == "unproven":
            raise failure or unproven(self.uri(key))
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

        with store_errors(self.uri(key)):
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

    def _put_file(self, key: str, file: Path, digest: str, metadata: Mapping[str, str], **conditions: str) -> _Outcome:
        kept = {"ContentType": _PARQUET, "Metadata": {**metadata, "sha256": digest}}
        if file.stat().st_size >= MULTIPART_FROM_BYTES:
            return self._put_in_pieces(key, file, kept, conditions)
        with file.open("rb") as body:
            return self._put(key, body, digest, kept, **conditions)

    def _put(self, key: str, body: Any, digest: str, kept: Mapping[str, Any], **conditions: str) -> _Outcome:
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        place = {"Bucket": self.bucket, "Key": self.full_key(key)}
        with store_errors(self.uri(key)):
            try:
                answer = self._client.put_object(**place, Body=body, ChecksumSHA256=checksum, **kept, **conditions)
            except self._client.exceptions.ClientError as error:
                if _code(error) in _LOST_RACE:
                    return "lost"
                raise
        return "won" if answer.get("ChecksumSHA256") == checksum else "unproven"

    def _put_in_pieces(self, key: str, file: Path, kept: Mapping[str, Any], conditions: Mapping[str, str]) -> _Outcome:
        """Send a file in pieces, each with its checksum; it becomes the object in one conditional step."""
        place = {"Bucket": self.bucket, "Key": self.full_key(key)}
        with store_errors(self.uri(key)):
            begun = self._client.create_multipart_upload(**place, ChecksumAlgorithm="SHA256", **kept)
            upload = {**place, "UploadId": begun["UploadId"]}
            pieces: list[Mapping[str, str | int]] = []
            try:
                with file.open("rb") as body:
                    while piece := body.read(PIECE_BYTES):
                        checksum = base64.b64encode(hashlib.sha256(piece).digest()).decode()
                        number = len(pieces) + 1
                        answer = self._client.upload_part(
                            **upload, PartNumber=number, Body=piece, ChecksumSHA256=checksum
                        )
                        pieces.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})
                self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": pieces}, **conditions)
            except Exception as error:
                with suppress(Exception):  # pieces that stay cost space; the bucket's rules may remove them
                    self._client.abort_multipart_upload(**upload)
                if isinstance(error, self._client.exceptions.ClientError) and _code(error) in _LOST_RACE:
                    return "lost"
                raise
        return "won"

    @cached_property
    def _client(self) -> Any:
        return connect(self.url, self.patience)


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"].get("HTTPStatusCode") or 0)


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
