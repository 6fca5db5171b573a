"""Say what an object store answered, what it means, and whether waiting helps: one table for every call.

    507 InsufficientStorage     UserError        the store is full: a person must free space
    503 SlowDown                StoreUnavailable the store is busy: the same call succeeds a little later

A store's own words (code and message) are in every error; keys, tokens and the content of objects in none. What answers
with success and is no S3 store at all (a login page, a web console, a firewall) is told apart here too.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tasks.runtime.errors import StoreUnavailable, TransientError, UserError

PERMISSIONS = {
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "DeleteObject": "s3:DeleteObject",
}
"""The permission that each call needs."""
OF_BUCKET = ("ListObjectsV2", "HeadBucket")
"""The calls whose permission is one on the bucket; the others' is on the key."""
SHOWN_CHARACTERS = 200
"""As much is shown of a store's own message."""


@dataclass(frozen=True)
class Answer:
    """What a code of a store means."""

    meaning: str
    """The cause, in a few words."""
    remedy: str
    """What to do."""
    waits: bool = False
    """Whether the same call may succeed a little later, with nobody doing anything."""


_DENIED = Answer("these credentials lack {permission}", "grant it, or use other credentials")
_KEYS = Answer("the store does not take these credentials", "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
_EXPIRED = Answer("the session token is not valid any more", "set a new AWS_SESSION_TOKEN with its keys")
_RENEWED = Answer("the session token has expired", "waiting helps once the credentials have been renewed", waits=True)
_FULL = Answer("the store is full", "free space or enlarge it, then run this again; waiting alone does not help")
_QUOTA = Answer("the quota is used up", "raise the quota or free space, then run this again; waiting does not help")
_BUSY = Answer("the store is busy", "waiting helps", waits=True)
_FAILED = Answer("the store failed", "waiting may help; where it does not, read the store's log", waits=True)
_RACE = Answer("another request to the same key was under way", "waiting helps", waits=True)
_DAMAGED = Answer("the request arrived damaged", "sending it again helps", waits=True)
_ELSEWHERE = Answer(
    "the bucket lies in another region or at another address", "correct AWS_ENDPOINT_URL_S3 and AWS_DEFAULT_REGION"
)
_UNSUPPORTED = Answer(
    "the store, or a proxy before it, does not know this call or a header of it (conditions, SHA-256 checksums)",
    "use a store that does, such as AWS S3, MinIO or SeaweedFS 4.48, or mend the proxy",
)
_TOO_LARGE = Answer(
    "the store takes no object of this size", "raise its limit, or lower the product's predict.rows_per_shard"
)
_INVALID = Answer("the store takes the request for a mistake", "correct publish.url and AWS_*; it will not pass")
_LOCKED = Answer("the object is archived or locked", "restore or unlock it, and leave publish.url out of such rules")
_ACCOUNT = Answer("the account may not use the store", "settle it with the store's provider")
_ENCRYPTION = Answer(
    "the key that encrypts the bucket cannot be used", "enable it, and grant these credentials its use"
)

ANSWERS: Mapping[str, Answer] = {
    **dict.fromkeys(("AccessDenied", "Forbidden", "AllAccessDisabled", "UnauthorizedAccess", "403"), _DENIED),
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthFailure", "Unauthorized", "401"), _KEYS),
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"), _EXPIRED),
    "InvalidToken": Answer("the session token is not valid", "correct or unset AWS_SESSION_TOKEN"),
    "RequestTimeTooSkewed": Answer("this machine's clock is wrong", "set it; the store compares it with its own"),
    **dict.fromkeys(("NoSuchBucket", "404"), Answer("the bucket is not there", "make it, or correct publish.url")),
    "InvalidBucketName": Answer("the bucket's name is none", "correct publish.url or S3_BUCKET"),
    **dict.fromkeys(("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"), _ELSEWHERE),
    **dict.fromkeys(("301", "302", "303", "307", "308", "IllegalLocationConstraintException"), _ELSEWHERE),
    **dict.fromkeys(("QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "ServiceQuotaExceeded"), _QUOTA),
    **dict.fromkeys(("InsufficientStorage", "XMinioStorageFull", "InsufficientCapacity", "507"), _FULL),
    **dict.fromkeys(("NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "405", "501"), _UNSUPPORTED),
    **dict.fromkeys(("EntityTooLarge", "MaxMessageLengthExceeded", "413"), _TOO_LARGE),
    **dict.fromkeys(("InvalidObjectState", "ObjectLocked", "InvalidRetentionPeriod"), _LOCKED),
    **dict.fromkeys(("AccountProblem", "NotSignedUp", "AccountSuspended", "402"), _ACCOUNT),
    **dict.fromkeys(("KMS.DisabledException", "KMS.NotFoundException", "KMS.KMSInvalidStateException"), _ENCRYPTION),
    "407": Answer("a proxy asks for a login", "correct HTTPS_PROXY, or set NO_PROXY for the store's address"),
    **dict.fromkeys(("SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException"), _BUSY),
    **dict.fromkeys(("RequestLimitExceeded", "TooManyRequests", "ServiceUnavailable", "429", "503"), _BUSY),
    **dict.fromkeys(
        ("InternalError", "RequestTimeout", "RequestTimeoutException", "408", "500", "502", "504"), _FAILED
    ),
    **dict.fromkeys(("OperationAborted", "ConditionalRequestConflict", "NoSuchUpload", "409"), _RACE),
    **dict.fromkeys(("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "InvalidDigest"), _DAMAGED),
}
"""What each code of a store means; an answer without a body has its HTTP status as its code."""


BEFORE_ALL = "before-parse.*"
"""The event of botocore's to register `check_answer` for: it comes before botocore's own handlers of "...s3.*"."""


class NoAnswer(StoreUnavailable):
    """A request was not answered at all, however often it was sent."""


class ForeignAnswer(Exception):
    """An answer with success that no S3 store gives; its text says what it was."""


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn botocore's errors about an address into UserError where a person must act, else into StoreUnavailable."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise explained(error, uri) from None
    except ResponseParserError as error:
        raise _foreign(uri, f"cannot be read as XML ({_line(str(error).partition('invalid XML')[0])})") from None
    except ForeignAnswer as error:
        raise _foreign(uri, str(error)) from None
    except BotoCoreError as error:
        raise unanswered(error, uri) from None


def explained(error: Any, uri: str) -> UserError | TransientError:
    """Return the error for a refusal (botocore's ClientError): the store's words, their meaning, and what to do."""
    code, message = (str(error.response.get("Error", {}).get(key, "")) for key in ("Code", "Message"))
    answered = error.response.get("ResponseMetadata", {})
    status, call = int(answered.get("HTTPStatusCode") or 0), str(error.operation_name)
    answer = meaning_of(code, status)
    permission = f"{PERMISSIONS.get(call, call)} on {_bucket_of(uri) if call in OF_BUCKET else uri}"
    if call in ("GetObject", "HeadObject"):  # for a key that is not there S3 asks for more
        permission += f", or s3:ListBucket on {_bucket_of(uri)}"
    words = " ".join(dict.fromkeys([str(status), code, *([f'"{_line(message)}"'] if message else [])]))
    page = ", with a web page: a proxy or firewall may have answered in its place" * _is_page(answered)
    text = (
        f"{uri}: the store must take {call}, and answered {words}{page}: "
        f"{answer.meaning.format(permission=permission)}; {answer.remedy}"
    )
    return StoreUnavailable(text) if answer.waits else UserError(text)


def meaning_of(code: str, status: int) -> Answer:
    """Return what a code means; of an unknown one its HTTP status decides: 5xx passes, 4xx does not."""
    if (found := ANSWERS.get(code)) is None and (found := ANSWERS.get(str(status))) is None:
        return _FAILED if status >= 500 else _INVALID
    # A token in the environment stays what it is; one from a profile or the machine's role is renewed by others.
    return _RENEWED if found is _EXPIRED and "AWS_SESSION_TOKEN" not in os.environ else found


def unanswered(error: Any, uri: str) -> UserError | TransientError:
    """Return the error for a request that got no answer (botocore's BotoCoreError), or was never sent."""
    from botocore import exceptions as botocore

    if isinstance(error, botocore.NoCredentialsError):
        return UserError(
            f"{uri}: credentials must be in the environment, and are not; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(error, botocore.SSLError) and "certificate" in str(error).lower():
        return UserError(
            f"{uri}: the store's certificate must be one that this machine trusts, and is not ({_line(str(error))}); "
            "set AWS_CA_BUNDLE to the authority's file, or correct AWS_ENDPOINT_URL_S3"
        )
    settings = (
        botocore.PartialCredentialsError,
        botocore.ProfileNotFound,
        botocore.ConfigParseError,
        botocore.NoRegionError,
        botocore.ParamValidationError,
        botocore.ValidationError,
        botocore.SSOError,
        botocore.InvalidConfigError,
        botocore.EndpointProviderError,
    )
    if isinstance(error, settings):
        return UserError(f"{uri}: the request could not be made: {_line(str(error))}; correct publish.url and AWS_*")
    return NoAnswer(f"{uri}: the store did not answer; {_line(str(error))}")


def check_answer(operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
    """Refuse an answer with success that no S3 store gives: registered with botocore, which takes an HTML page for one.

    Raises ForeignAnswer.
    """
    status, headers, call = response_dict["status_code"], response_dict["headers"], operation_model.name
    if 300 <= status < 400 and "x-amz-bucket-region" not in headers and b"<Error" not in (_body(response_dict)):
        # Of a store's own redirects botocore takes care; of any other it asks again, without end.
        elsewhere = re.match(r"\w+://[^/?#@]+", str(headers.get("location", "")))
        raise ForeignAnswer(f"sends elsewhere{f', to {elsewhere[0]}' if elsewhere else ''} (status {status})")
    if not 200 <= status < 300:
        return
    kind, encoding = (str(headers.get(name, "")).lower() for name in ("content-type", "content-encoding"))
    if kind.startswith(("text/html", "application/xhtml")):
        raise ForeignAnswer(f"is a web page{_title(response_dict)} (status {status})")
    if encoding in ("gzip", "deflate", "br", "zstd"):
        raise ForeignAnswer(f"was compressed on its way (Content-Encoding: {encoding})")
    if call in ("GetObject", "HeadObject", "PutObject", "UploadPart") and not headers.get("etag"):
        raise ForeignAnswer(f"has no ETag (status {status})")
    if call == "DeleteObject" and _body(response_dict).strip():
        raise ForeignAnswer(f"has a body where none belongs (status {status})")
    if call == "ListObjectsV2" and b"<ListBucketResult" not in _body(response_dict):
        raise ForeignAnswer(f"is no list (status {status})")


def _foreign(uri: str, answer: str) -> UserError:
    return UserError(
        f"{uri}: an S3 store must answer, and the answer {answer}: a login page, a web console or a proxy lies at the "
        "store's address or before it, and nothing was written; correct AWS_ENDPOINT_URL_S3, HTTPS_PROXY and NO_PROXY, "
        "or mend the proxy"
    )


def unproven(uri: str) -> UserError:
    """Return the error for an object that was not there after a PUT that was answered with success."""
    return _foreign(uri, "to PutObject was success, and the object is not there")


def _title(response: Mapping[str, Any]) -> str:
    found = re.search(rb"<title[^>]*>(.*?)</title>", _body(response), re.I | re.S)
    return f' called "{_line(found[1].decode("utf-8", "replace"))[:60]}"' if found else ""


def _body(response: Mapping[str, Any]) -> bytes:
    """Return a response's body; nothing of one that is still to be read."""
    body = response.get("body")
    return body if isinstance(body, bytes) else b""


def _is_page(answered: Mapping[str, Any]) -> bool:
    return str(answered.get("HTTPHeaders", {}).get("content-type", "")).lower().startswith("text/html")


def _bucket_of(uri: str) -> str:
    return "/".join(uri.split("/")[:3])


def _line(text: str) -> str:
    """Return the beginning of a store's message in one line, without what must stay secret."""
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        if secret := os.environ.get(name):
            text = text.replace(secret, f"<{name}>")
    return "".join(each for each in " ".join(text.split()) if each.isprintable())[:SHOWN_CHARACTERS]
