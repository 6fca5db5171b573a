"""Read the settings of this machine from the environment: where things lie, and which ports are used.

LAMPLIGHTER_ORIGIN: the repository that runs clone and push to; default: the one this file lies in.
LAMPLIGHTER_HOME: where workspaces, checkpoints and folds lie; default: <root>/.lamplighter.
LAMPLIGHTER_CACHE: the DVC cache of all workspaces on this disk; default: <root>/.dvc/cache.
LAMPLIGHTER_S3_PORT, LAMPLIGHTER_UI_PORT: of the embedded servers; defaults: 8333, 8080.
LAMPLIGHTER_STORE_ENCRYPTION, LAMPLIGHTER_STORE_KEY: how the store encrypts nights and data; see `store_encryption`.
LAMPLIGHTER_TASK_LOGS: where in the store logs of tasks are kept; see `task_logs`.
"""

import base64
import binascii
import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tasks.runtime.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
"""The repository that this file lies in."""
BIN = Path(sys.executable).parent
"""Where the programs of this environment lie."""
KEPT_DAYS = 7
"""A checkpoint or fold untouched for longer belongs to no training that will go on."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment says of this machine."""

    origin: str
    """The repository that runs clone, and push experiments and tags to: a path or a git URL."""
    home: Path
    """Where workspaces, checkpoints, folds and the embedded servers' files lie."""
    cache: str
    """The DVC cache of all workspaces on this disk."""
    s3_port: int
    """The embedded object store's port on loopback."""
    ui_port: int
    """The embedded Airflow's port on loopback; the next one is for the tasks of its runs."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the environment as it is now. Raises UserError for a port that is none."""
        return cls(
            origin=os.environ.get("LAMPLIGHTER_ORIGIN") or str(ROOT),
            home=Path(os.environ.get("LAMPLIGHTER_HOME") or ROOT / ".lamplighter").resolve(),
            cache=os.environ.get("LAMPLIGHTER_CACHE") or str(ROOT / ".dvc" / "cache"),
            s3_port=_port("LAMPLIGHTER_S3_PORT", "8333"),
            ui_port=_port("LAMPLIGHTER_UI_PORT", "8080"),
        )


def _port(name: str, default: str) -> int:
    text = os.environ.get(name) or default
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise UserError(f"{name} must be a port from 1 to 65535, got {text!r}; set it so, or unset it")
    return int(text)


def airflow_run() -> str | None:
    """Return Airflow's name of the run that this process works for; None outside of Airflow."""
    return os.environ.get("AIRFLOW_CTX_DAG_RUN_ID") or None


def airflow_page(dag: str) -> str | None:
    """Return the address of that run's page; None outside of Airflow, and where the environment does not say its place.

    Airflow's address is its own setting `[api] base_url`, given as AIRFLOW__API__BASE_URL.
    """
    base, run = os.environ.get("AIRFLOW__API__BASE_URL"), airflow_run()
    return f"{base.rstrip('/')}/dags/{quote(dag, safe='')}/runs/{quote(run, safe='')}" if base and run else None


def settings() -> Settings:
    """Return the settings that the environment holds at this moment."""
    return Settings.from_environment()


def task_logs() -> str | None:
    """Return the address, s3://bucket/prefix, below which Airflow keeps the logs of tasks; None where it keeps none.

    Raises UserError for an address that is none, and where nights are encrypted as Airflow cannot encrypt a log.
    """
    address = os.environ.get("LAMPLIGHTER_TASK_LOGS") or None
    if address and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+/[A-Za-z0-9._=-][A-Za-z0-9._=/-]*", address):
        raise UserError(f"LAMPLIGHTER_TASK_LOGS must be s3://bucket/prefix, got {address!r}; set it so, or unset it")
    kind = os.environ.get("LAMPLIGHTER_STORE_ENCRYPTION") or "AES256"
    if address and kind != "AES256":
        raise UserError(
            f"LAMPLIGHTER_TASK_LOGS must be unset where LAMPLIGHTER_STORE_ENCRYPTION is {kind}: Airflow encrypts logs "
            "by AES256 alone, and they would be less protected than nights; unset it, or have the bucket encrypt"
        )
    return address


def store_encryption() -> dict[str, str]:
    """Return how the store is to encrypt objects at rest, as S3 names it in a request; nothing where that is its own.

    LAMPLIGHTER_STORE_ENCRYPTION is AES256 (keys of the store), aws:kms or aws:kms:KEY (of a key service), or customer:
    then LAMPLIGHTER_STORE_KEY is 32 bytes as base64, which go with every request and are not kept by the store.
    Raises UserError for another value, and for a key that is none.
    """
    kind, _, key_id = os.environ.get("LAMPLIGHTER_STORE_ENCRYPTION", "").partition("aws:kms:")
    if key_id:
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key_id}
    if kind in ("AES256", "aws:kms"):
        return {"ServerSideEncryption": kind}
    if kind == "customer":
        key = _store_key()
        digest = base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()
        return {
            "SSECustomerAlgorithm": "AES256",
            "SSECustomerKey": base64.b64encode(key).decode(),
            "SSECustomerKeyMD5": digest,
        }
    if kind:
        raise UserError(
            "LAMPLIGHTER_STORE_ENCRYPTION must be AES256, aws:kms, aws:kms:KEY or customer, got "
            f"{os.environ['LAMPLIGHTER_STORE_ENCRYPTION']!r}; set it so, or unset it"
        )
    return {}


def _store_key() -> bytes:
    try:
        key = base64.b64decode(os.environ.get("LAMPLIGHTER_STORE_KEY", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:  # its value is a secret, and is not shown
        raise UserError(
            "LAMPLIGHTER_STORE_KEY must be 32 bytes as base64 where LAMPLIGHTER_STORE_ENCRYPTION is customer, and is "
            "not; make one by `openssl rand -base64 32`, and keep it: without it nothing can be read"
        )
    return key
