"""Take over the files of an earlier run without reading them, and say what tells them from others."""

import hashlib
import os
import shutil
from collections.abc import Container, Iterator
from pathlib import Path

_FOOTER_LENGTH_BYTES = 8
_END_BYTES = 4096


class Marks:
    """What files look like; one that has two names, in the old folder and the new one, is looked at once."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[tuple[int, int, int, int], str] = {}

    def of(self, valid: Path, quarantine: Path, but: str) -> dict[str, str]:
        """Return what the files below both folders look like, by their place below `valid` or `quarantine`.

        The one at the place `but` is left out.
        """
        found = {
            f"{name}/{place}": self._mark(entry)
            for name, folder in (("valid", valid), ("quarantine", quarantine))
            for place, entry in _files(folder)
            if f"{name}/{place}" != but
        }
        return dict(sorted(found.items()))

    def _mark(self, entry: "os.DirEntry[str]") -> str:
        state = entry.stat()
        name = state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
        if name not in self._known:
            self._known[name] = _mark(entry.path, state.st_size)
        return self._known[name]


def _mark(file: str, size: int) -> str:
    """Return what tells a file from another one without reading it whole: its length, and a hash of its end.

    The end of a Parquet file says where its parts are and what is in them. JSON is short and hashed whole.
    """
    with open(file, "rb") as opened:
        length = size if file.endswith(".json") else _END_BYTES
        if file.endswith(".parquet") and size >= _FOOTER_LENGTH_BYTES:
            opened.seek(-_FOOTER_LENGTH_BYTES, os.SEEK_END)
            length = int.from_bytes(opened.read(4), "little") + _FOOTER_LENGTH_BYTES
        opened.seek(-min(length, size), os.SEEK_END)
        return f"{size}-{hashlib.blake2b(opened.read(), digest_size=8).hexdigest()}"


def link_files(old: Path, new: Path, but: Container[str]) -> None:
    """Fill a new folder with an old one's files, without a copy where the disk can: no such file is ever changed.

    Those at some places are left out.
    """
    made: set[str] = set()
    for place, entry in _files(old):
        if place in but:
            continue
        target = os.path.join(new, place)
        if (folder := os.path.dirname(target)) not in made:
            os.makedirs(folder, exist_ok=True)
            made.add(folder)
        try:
            os.link(os.path.realpath(entry.path) if entry.is_symlink() else entry.path, target)
        except OSError:  # another disk, or one that has no links
            shutil.copyfile(entry.path, target)


def _files(folder: str | Path, place: str = "") -> "Iterator[tuple[str, os.DirEntry[str]]]":
    """Yield the files below a folder with their places in it, without those that are not finished."""
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path, f"{place}{entry.name}/")
            elif not entry.name.startswith("."):
                yield place + entry.name, entry
