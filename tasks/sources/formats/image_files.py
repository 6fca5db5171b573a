"""Read the files that rows name by their path below `source.images`, several at once, as stores are slow to answer.

A row names what it likes, so nothing is read that does not lie below the folder or address that params.yaml declares.
"""

import errno
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from model.features.pixels import MAX_BYTES, NO_IMAGE
from tasks.runtime.errors import TransientError, UserError
from tasks.sources.address import redact_url

FILES_AT_ONCE = 32
NOT_THERE = "there is no such file"


def contents_of(cells: Iterable[object], images: str, place: str) -> Iterator[object]:
    """Yield for each cell the bytes of the file that it names, or the ValueError that says why there are none.

    A cell that is no path stays as it is; a mapping without bytes is one by its `path`. `images` is the folder or
    address below which files lie; `place` is named in errors. Raises UserError where reading is refused, TransientError
    where the other side does not answer.
    """
    import fsspec

    system, root = fsspec.core.url_to_fs(images)
    system.invalidate_cache()
    root = root.rstrip("/")
    rest = iter(cells)
    while batch := list(itertools.islice(rest, FILES_AT_ONCE)):
        paths = [_path_of(cell, images) for cell in batch]
        wanted = sorted({path for path in paths if path})
        whole = [f"{root}/{path}" for path in wanted]
        try:
            # A byte more than may be, so that what is too long is seen to be so.
            found = system.cat_ranges(whole, [0] * len(whole), [MAX_BYTES + 1] * len(whole), on_error="return")
        except Exception as error:  # of the whole request, such as a proxy that does not answer
            found = [error] * len(whole)
        contents = {path: _content(each, path, place) for path, each in zip(wanted, found, strict=True)}
        for cell, path in zip(batch, paths, strict=True):
            yield cell if path is None else contents[path] if path else ValueError("its path leads out of the folder")


def lacks_files(cells: Iterable[object]) -> bool:
    """Return whether any stored cell stands for a file that was not there, and may come yet."""
    return any(cell == f"{NO_IMAGE}{NOT_THERE}" for cell in cells)


def _path_of(cell: object, images: str) -> str | None:
    """Return the path of a file below `images`; empty for one that lies elsewhere, None for a cell that is no path.

    >>> cells = ("a/1.jpg", "s3://acme/photos/1.jpg", "../1.jpg", "s3://other/1.jpg", "/etc/x")
    >>> [_path_of(cell, "s3://acme/photos/") for cell in cells]
    ['a/1.jpg', '1.jpg', '', '', '']
    """
    if isinstance(cell, Mapping) and cell.get("bytes") is None:
        cell = cell.get("path")
    if not isinstance(cell, str):
        return None
    path = cell.strip()
    base = f"{images.rstrip('/')}/"
    if path.startswith(base):
        path = path.removeprefix(base)
    parts = path.partition("?")[0].replace("\\", "/").split("/")
    is_outside = path.startswith(("/", "\\")) or "://" in path or ".." in parts or "\0" in path
    return "" if is_outside else path


def _content(found: Any, path: str, place: str) -> bytes | ValueError:
    """Return the bytes of a file, or why there is nothing to be read. Raises as of `contents_of`."""
    if isinstance(found, bytes | bytearray):
        return bytes(found)
    status = getattr(found, "status", None)
    if isinstance(found, FileNotFoundError | NotADirectoryError) or status in (404, 410):
        return ValueError(NOT_THERE)
    if isinstance(found, IsADirectoryError):
        return ValueError("it is a folder")
    if _is_empty_range(found) or status == 416:  # of an empty file no byte can be asked for
        return b""
    shown = path.partition("?")[0]  # a query may be what lets us in
    if isinstance(found, PermissionError) or status in (401, 403):
        raise UserError(f"{place}.images: the files must be readable, and {shown} is refused; check the credentials")
    if not is_outage(found):
        raise found
    message = redact_url(" ".join(str(found).split()), path, shown)
    raise TransientError(f"{place}.images: {shown} could not be read; {type(found).__name__}: {message}")


def is_outage(error: Exception) -> bool:
    """Return whether an error is one of reaching files, which may be gone the next time."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("aiohttp", "botocore")


def _is_empty_range(error: Any) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EINVAL
