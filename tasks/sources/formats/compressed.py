"""Open files that are compressed, by their first bytes, and list the files of a folder or of a pattern.

What the names of files and folders say of the rows is a column of each.
"""

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, zlib.error)
"""Errors of a compressed file that is cut off or damaged."""
FILE_DATE = "file_date"
"""The column with the date of a file's name."""
_WORKBOOK = ("[Content_Types].xml", "mimetype")
"""Members of a ZIP archive that is a workbook, of Excel and of LibreOffice."""
_JUNK = re.compile(r"^__MACOSX/|(^|/)\.[^/]*$")
"""Members that the Finder of macOS packs beside what it is asked to."""
_DIGITS = {"Y": "[0-9]{4}", "j": "[0-9]{3}"}
"""How many digits a letter of `source.file_date` stands for, where these are not two."""


def decompressed(file: IO[bytes], random_access: bool) -> IO[bytes]:
    """Return the content of a file, where it is compressed; in memory where it must be read at random.

    A workbook is a ZIP archive, and left as it is. Raises ValueError for an archive of several files.
    """
    buffered = io.BufferedReader(file)  # type: ignore[type-var]
    head = buffered.peek(8)[:8]
    opened: Any = buffered
    if head.startswith(b"\x1f\x8b"):
        opened = gzip.GzipFile(fileobj=buffered)
    elif head.startswith(b"BZh"):
        opened = bz2.BZ2File(buffered)
    elif head.startswith(b"\xfd7zXZ\x00"):
        opened = lzma.LZMAFile(buffered)  # noqa: SIM115
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow as pa

        opened = pa.CompressedInputStream(pa.PythonFile(buffered, mode="r"), "zstd")
    elif head.startswith(b"PK\x03\x04"):
        archive = zipfile.ZipFile(buffered)
        opened = buffered if any(name in archive.namelist() for name in _WORKBOOK) else _only_member(archive)
        if opened is buffered:
            buffered.seek(0)
    if opened is buffered:
        return buffered
    return io.BytesIO(opened.read()) if random_access else opened


def _only_member(archive: zipfile.ZipFile) -> IO[bytes]:
    names = [each.filename for each in archive.infolist() if not each.is_dir() and not _JUNK.search(each.filename)]
    if len(names) != 1:
        raise ValueError(f"it is a ZIP archive of {len(names)} files; keep one, or unpack it and name the folder")
    return archive.open(names[0])


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of a source."""

    url: str
    """Where it lies."""
    name: str
    """Its name, from the folder or pattern on."""
    columns: dict[str, str]
    """The columns that the names of its folders give."""
    n_bytes: int = 0
    """How long it is, where its tag is known."""
    tag: str = ""
    """What its store calls this content (ETag): another content has another one. Empty where it has no name for it."""


def files_of(url: str) -> list[SourceFile]:
    """Return the files of a folder or of a pattern with *, in order of name.

    One URL of any other kind is a file. Raises ValueError where a folder or pattern has no file.

    >>> files_of("https://example.com/rows.csv?a=*")[0].name
    'rows.csv'
    """
    import fsspec

    if url.startswith(("http://", "https://")):
        return [SourceFile(url=url, name=url.partition("?")[0].rpartition("/")[2], columns={})]
    system, path = fsspec.core.url_to_fs(url)
    system.invalidate_cache()  # a listing of before would hide what has come, or another content
    is_local = isinstance(system.protocol, tuple) and "file" in system.protocol
    if "*" in path and not (is_local and system.exists(path)):
        root = path.partition("*")[0].rpartition("/")[0]
        found = {each: info for each, info in system.glob(path, detail=True).items() if info["type"] != "directory"}
    elif (is_local or url.endswith("/")) and system.isdir(path):
        root, found = path.rstrip("/"), system.find(path, detail=True)
    else:
        return [_file(url, path.rpartition("/")[2], {}, {} if is_local else _info(system, path))]
    names = sorted(each for each in found if not each.rpartition("/")[2].startswith((".", "_")))
    if not names:
        raise ValueError("must hold files, and holds none; look at the program that writes them")
    return [
        _file(system.unstrip_protocol(each), each[len(root) :].lstrip("/"), _columns_of(each), found[each])
        for each in names
    ]


def _file(url: str, name: str, columns: dict[str, str], info: Mapping[str, Any]) -> SourceFile:
    tag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    n_bytes = info.get("size") or 0
    return SourceFile(url=url, name=name, columns=columns, n_bytes=n_bytes, tag="" if tag.startswith("W/") else tag)


def _info(system: Any, path: str) -> Mapping[str, Any]:
    """Return what a store says of a file; nothing where it does not answer, and opening it will say why."""
    try:
        return dict(system.info(path))
    except Exception:
        return {}


def _columns_of(path: str) -> dict[str, str]:
    """Return the columns that the names of folders give.

    >>> _columns_of("rows/dt=2024-03-01/part-0.parquet")
    {'dt': '2024-03-01'}
    """
    pairs = [part.split("=", 1) for part in path.split("/")[:-1] if "=" in part]
    return {name: value for name, value in pairs if name}


def dated_by_name(columns: dict[str, str], path: str, pattern: str | None) -> dict[str, str]:
    """Return the columns of a file's folders, and FILE_DATE where its own name holds a date by a pattern.

    A pattern with a slash is looked for in the names of its folders too.

    >>> dated_by_name({}, "2013/sales_20240301.csv.gz", "%Y%m%d")
    {'file_date': '2024-03-01'}
    >>> dated_by_name({}, "rows/year=2024/month=3/day=01/a.csv", "year=%Y/month=%m/day=%d")
    {'file_date': '2024-03-01'}

    Raises ValueError where the name holds no such date, or several.
    """
    if not pattern:
        return columns
    return {**columns, FILE_DATE: _date_in(path if "/" in pattern else path.rpartition("/")[2], pattern)}


def _date_in(name: str, pattern: str) -> str:
    """Return the day, or the moment, that a file's name holds as ISO 8601."""
    parts = re.split("%([YmdjHMS])", pattern)
    digits = "[0-9]{1,2}" if "/" in pattern else "[0-9]{2}"  # folders of hive are month=3 as often as month=03
    form = "".join(_DIGITS.get(part, digits) if i % 2 else re.escape(part) for i, part in enumerate(parts))
    texts = re.findall(f"(?<![0-9]){form}(?![0-9])", name)
    found = set()
    for text in texts:
        with suppress(ValueError):
            found.add(datetime.strptime(text, pattern))
    if len(found) != 1:
        n = "none" if not found else f"{len(found)} of them"
        raise ValueError(
            f"its name must hold one date as source.file_date says, {pattern}, and holds {n}; rename the file, or name "
            "by a pattern with * those that have one"
        )
    (moment,) = found
    return moment.isoformat() if re.search("%[HMS]", pattern) else moment.date().isoformat()
