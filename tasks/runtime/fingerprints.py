"""Hash what decides an outcome, code, data and settings, so that the same is not computed twice, or mixed up."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from tasks.runtime.files import file_sha256, folder_sha256
from tasks.runtime.settings import ROOT


def code_sha256(*places: str) -> str:
    """Return one SHA-256 over the Python files at or below places of the repository, such as `model`.

    Folders are walked to their ends: a module that moved deeper still counts.
    """
    files = {
        file for place in places for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
    }
    lines = [f"{file_sha256(file)}  {file.relative_to(ROOT).as_posix()}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def json_sha256(content: object) -> str:
    """Return the SHA-256 of a content's JSON, in hex; the order of keys does not matter.

    >>> json_sha256({"a": 1, "b": (2, 3)}) == json_sha256({"b": [2, 3], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(*, code: Iterable[str], data: Iterable[Path], settings: object) -> str:
    """Return one SHA-256, in hex, over the code at some places, files or folders of data, and settings as JSON."""
    hashes = [folder_sha256(path) if path.is_dir() else file_sha256(path) for path in data]
    return json_sha256({"code": code_sha256(*code), "data": hashes, "settings": settings})
