"""Write files and folders that appear whole or not at all, and hash them.

A process that is killed while writing leaves a file or folder called `.<name>.tmp-<pid>`, which no reader looks at.
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

from tasks.runtime.errors import UserError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes `path` in one step, on failure nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{_unfinished()}")
    is_seen = not any(part.endswith(_unfinished()) for part in path.parent.parts)
    try:
        yield temporary
        if is_seen:  # what is in a folder of `atomic_folder` is put on the disk once, before the folder is seen
            _fsync(temporary)
        temporary.replace(path)
        if is_seen:
            _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to write into; on success it takes the place of `path`, on failure nothing is left.

    Between two renames there is nothing at `path`: a process killed there leaves the old folder, which the next one
    puts back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = path.with_name(f".{path.name}{_unfinished()}"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for item in [*temporary.rglob("*"), temporary]:
            if item.is_dir() or item.stat().st_nlink == 1:  # one of another name was put on the disk when it was made
                _fsync(item)
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        _fsync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON, the same bytes for the same content. Raises ValueError on NaN."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises UserError where it is damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:  # of text that is no UTF-8, too
        raise UserError(f"{path}: must be JSON, and is damaged ({error}); restore it: dvc checkout --force") from None


def remove_older_than(folder: Path, days: float, pattern: str = "*") -> None:
    """Remove the entries of a folder that were not changed for so many days."""
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process has just removed it
            if time.time() - path.stat().st_mtime > days * 86400:
                shutil.rmtree(path, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """Return one SHA-256 over the names and contents of a folder's files, in hex."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    lines = [f"{file_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _unfinished() -> str:
    """Return the end of the name of what this process has not finished."""
    return f".tmp-{os.getpid()}"


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_history(path: Path, history: list[dict[str, float]], columns: list[str]) -> None:
    """Write a training's history as CSV: one line per epoch."""
    import pandas as pd

    with atomic_file(path) as temporary:
        pd.DataFrame(history, columns=columns).to_csv(temporary, index=False, float_format="%.6f")
