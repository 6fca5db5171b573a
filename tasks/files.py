"""Files that appear whole or not at all, and Parquet that is the same bytes for the same rows.

Whoever is killed while writing leaves a folder or file called `.<name>.tmp-<pid>`, which no reader looks at.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from tasks.paths import partition_day


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
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
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to write into; on success it takes the place of `path`, on failure nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        for item in [*aside.rglob("*"), aside]:
            _fsync(item)
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)
        _fsync(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """`content` as readable JSON, the same bytes for the same content. Raises ValueError on NaN."""
    with whole_file(path) as aside:
        aside.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text("utf-8"))


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """`frame` as one Parquet file, without its index."""
    with whole_file(path) as aside:
        frame.to_parquet(aside, index=False, compression="zstd", engine="pyarrow")


def read_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """What `write_table` wrote, with integers kept exact: pandas itself makes floats of a column that has gaps."""
    return pq.read_table(path, columns=columns).to_pandas(integer_object_nulls=True)


def read_tables(folder: Path, columns: list[str] | None = None, until: date | None = None) -> pd.DataFrame:
    """The partitions of a folder up to a date as one frame, in order of date, with its date as the column `dt`."""
    files = [file for file in sorted(folder.glob("dt=*.parquet")) if until is None or partition_day(file) <= until]
    frames = [read_table(file, columns).assign(dt=file.stem.removeprefix("dt=")) for file in files]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"dt": pd.Series(dtype="str")})


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
