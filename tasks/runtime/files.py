"""Files that appear whole or not at all, and Parquet that is the same bytes for the same rows.

Whoever is killed while writing leaves a folder or file called `.<name>.tmp-<pid>`, which no reader looks at.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write to; on success it becomes `path` in one step, on failure nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        yield aside
        _fsync(aside)
        aside.replace(path)
        _fsync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder to write into; on success it takes the place of `path`, on failure nothing is left.

    Between two renames nothing stands at `path`; who is killed there leaves the old folder for the next to put back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, old = path.with_name(f".{path.name}.tmp-{os.getpid()}"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        for item in [*aside.rglob("*"), aside]:
            _fsync(item)
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        aside.rename(path)
        _fsync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """`content` as readable JSON, the same bytes for the same content. Raises ValueError on NaN."""
    with atomic_file(path) as aside:
        aside.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text("utf-8"))


def remove_older_than(folder: Path, days: float) -> None:
    """Remove what in `folder` nobody has touched for so many days."""
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # whoever made it has just removed it
            if time.time() - path.stat().st_mtime > days * 86400:
                shutil.rmtree(path, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """One SHA-256 over the names and contents of a folder's files, in hex."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    lines = [f"{file_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_history(path: Path, history: list[dict[str, float]], columns: list[str]) -> None:
    """A training's history as CSV: one line per epoch."""
    with atomic_file(path) as aside:
        pd.DataFrame(history, columns=columns).to_csv(aside, index=False, float_format="%.6f")
