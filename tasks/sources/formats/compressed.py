"""Open files that are compressed, by their first bytes, and list the files of a folder or of a pattern."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from typing import IO, Any

DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, zlib.error)
"""Errors of a compressed file that is cut off or damaged."""
_EXCEL = "[Content_Types].xml"


def decompressed(file: IO[bytes], random_access: bool) -> IO[bytes]:
    """Return the content of a file, where it is compressed; in memory where it must be read at random.

    Raises ValueError for an archive of several files.
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
        opened = _only_member(zipfile.ZipFile(buffered))
    if opened is buffered:
        return buffered
    return io.BytesIO(opened.read()) if random_access else opened


def _only_member(archive: zipfile.ZipFile) -> IO[bytes]:
    names = [each.filename for each in archive.infolist() if not each.is_dir()]
    if _EXCEL in names:
        raise ValueError("it is an Excel workbook; save the sheet as CSV")
    if len(names) != 1:
        raise ValueError(f"it is a ZIP archive of {len(names)} files; keep one, or unpack it and name the folder")
    return archive.open(names[0])


def files_of(url: str) -> list[tuple[str, dict[str, str]]]:
    """Return the files of a folder or of a pattern with *, in order of name, each with the columns of its folders.

    One URL of any other kind is a file. Raises ValueError where a folder or pattern has no file.

    >>> files_of("https://example.com/rows.csv?a=*")
    [('https://example.com/rows.csv?a=*', {})]
    """
    import fsspec

    if url.startswith(("http://", "https://")):
        return [(url, {})]
    system, path = fsspec.core.url_to_fs(url)
    is_local = isinstance(system.protocol, tuple) and "file" in system.protocol
    if "*" in path and not (is_local and system.exists(path)):
        found = [each for each in system.glob(path) if not system.isdir(each)]
    elif (is_local or url.endswith("/")) and system.isdir(path):
        found = system.find(path)
    else:
        return [(url, {})]
    files = sorted(each for each in found if not each.rpartition("/")[2].startswith((".", "_")))
    if not files:
        raise ValueError("must hold files, and holds none; look at the program that writes them")
    return [(system.unstrip_protocol(each), _columns_of(each)) for each in files]


def _columns_of(path: str) -> dict[str, str]:
    """Return the columns that the names of folders give.

    >>> _columns_of("rows/dt=2024-03-01/part-0.parquet")
    {'dt': '2024-03-01'}
    """
    pairs = [part.split("=", 1) for part in path.split("/")[:-1] if "=" in part]
    return {name: value for name, value in pairs if name}
