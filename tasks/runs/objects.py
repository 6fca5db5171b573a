"""List and remove the objects of a DVC cache or remote, and find which of them commits and files of hashes need.

DVC's own gc keeps what the refs of one clone name, and takes everything else, however new. Here what is needed is
decided elsewhere (`tasks.runs.retention`), and nothing is removed that is newer than a moment, since a task saves its
data before the experiment that names them.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.runs.dvc import LOCK_FILE, hashes_in
from tasks.runs.programs import s3_options
from tasks.runtime import faults
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.git import git
from tasks.runtime.surroundings import explained, explained_output

FOLDER = ".dir"
"""The end of the hash of a folder: its object lists the folder's files, each with its own hash."""
_OBJECT = re.compile(r"(?:^|/)([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)$")
_REMOVED_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """A file of a cache or remote."""

    path: str
    """Its place there."""
    size: int
    """In bytes."""
    written: datetime
    """The time at which it was written last."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of one place, by hash."""

    name: str
    """Its name for people: the address of the remote, or the folder of the cache."""
    fs: Any
    """The place as fsspec sees it."""
    stored: dict[str, StoredObject]
    """All that lies there, by hash."""
    odb: Any
    """The place as DVC sees it."""

    @classmethod
    def of_remote(cls, clone: Path) -> "Objects":
        """Return what lies in the default remote of a clone."""
        from dvc.repo import Repo

        with _remote_encrypted():
            return cls._listed(lambda: Repo(str(clone)).cloud.get_remote_odb(None, "gc", hash_name="md5"))

    @classmethod
    def of_cache(cls, cache: Path) -> "Objects":
        """Return what lies in a cache on this disk."""
        from dvc_data.hashfile.db.local import LocalHashFileDB
        from dvc_objects.fs.local import LocalFileSystem

        return cls._listed(lambda: LocalHashFileDB(LocalFileSystem(), str(cache.resolve() / "files" / "md5")))

    @classmethod
    def _listed(cls, open_place: Callable[[], Any]) -> "Objects":
        """List a place. Raises UserError or TransientError where it does not answer."""
        import fsspec

        with _answering("list the objects"):
            odb = open_place()
            fs = fsspec.filesystem("file") if odb.fs.protocol == "local" else odb.fs.fs  # DVC's own lists no sizes
            found = fs.find(odb.path, detail=True) if fs.exists(odb.path) else {}
        stored = {
            match[1] + match[2]: StoredObject(path=path, size=info["size"] or 0, written=_written(info))
            for path, info in found.items()
            if (match := _OBJECT.search(path))
        }
        return cls(name=odb.fs.unstrip_protocol(odb.path), fs=fs, stored=stored, odb=odb)

    def read_folder(self, hash_of_folder: str) -> list[str] | None:
        """Return the hashes of a folder's files; None where its list is not here."""
        listed = self._listed_files(hash_of_folder)
        return None if listed is None else [*listed.values()]

    def read_file(self, hash_of_folder: str, name: str) -> bytes | None:
        """Return the content of a folder's file; None where the folder has none of that name, or it is not here."""
        found = (self._listed_files(hash_of_folder) or {}).get(name)
        if found not in self.stored:
            return None
        with _answering("read a file"):
            content: bytes = self.fs.cat_file(self.stored[found].path)
        return content

    def _listed_files(self, hash_of_folder: str) -> dict[str, str] | None:
        """Return the hashes of a folder's files by their names; None where its list is not here."""
        if hash_of_folder not in self.stored:
            return None
        with _answering("read the list of a folder"):
            content = json.loads(self.fs.cat_file(self.stored[hash_of_folder].path))
        return {each["relpath"]: each["md5"] for each in content}

    def unneeded(self, needed: set[str], before: datetime) -> list[str]:
        """Return the hashes that nobody needs and that were written before a moment, lists of folders first.

        A folder that is new keeps its files however old they are: whoever pushes finds its list, and takes them for
        present. So a list must go before the files that it names.
        """
        kept = set(needed)
        for each, stored in self.stored.items():
            if each.endswith(FOLDER) and each not in kept and stored.written >= before:
                kept.update(self.read_folder(each) or [])
        going = [each for each, stored in self.stored.items() if each not in kept and stored.written < before]
        return sorted(going, key=lambda each: (not each.endswith(FOLDER), each))

    def size(self, hashes: Iterable[str]) -> int:
        """Return the bytes of objects that lie here."""
        return sum(self.stored[each].size for each in hashes)

    def remove(self, hashes: list[str]) -> None:
        """Remove objects. What was removed already is no error: another gc may have been killed here."""
        from dvc_data.hashfile.db import get_index

        for first in range(0, len(hashes), _REMOVED_AT_ONCE):
            paths = [self.stored[each].path for each in hashes[first : first + _REMOVED_AT_ONCE]]
            with _answering("remove objects"):
                self._remove(paths)
            faults.failpoint("gc: objects are removed")
        if hashes:
            get_index(self.odb).clear()  # DVC remembers what it has seen in a remote

    def _remove(self, paths: list[str]) -> None:
        try:
            self.fs.rm(paths)
        except FileNotFoundError:
            for path in paths:
                with suppress(FileNotFoundError):
                    self.fs.rm_file(path)


@dataclass
class Needed:
    """The hashes that are needed, and the folders whose lists are lost."""

    hashes: set[str] = field(default_factory=set)
    """Of files and folders."""
    lost: set[str] = field(default_factory=set)
    """Folders whose lists are nowhere to be had: which files they need is not known."""

    def add(self, recorded: Iterable[str], places: list[Objects]) -> None:
        """Add hashes and, of each folder, those of its files, from the first place that has its list."""
        for each in set(recorded) - self.hashes:
            self.hashes.add(each)
            if each.endswith(FOLDER):
                found = next((files for place in places if (files := place.read_folder(each)) is not None), None)
                if found is None:
                    self.lost.add(each)
                self.hashes.update(found or [])


def recorded_hashes(repository: Path, commits: Iterable[str]) -> set[str]:
    """Return the hashes that the dvc.lock and .dvc files of commits name."""
    found: set[str] = set()
    seen: set[str] = set()
    for commit in commits:
        for line in git("ls-tree", "-r", "-z", commit, cwd=repository).split("\0"):
            about, _, name = line.partition("\t")
            blob = about.rpartition(" ")[2]
            if (name.endswith(".dvc") or name.rpartition("/")[2] == LOCK_FILE) and blob not in seen:
                seen.add(blob)
                found.update(hashes_in(git("cat-file", "blob", blob, cwd=repository)))
    return found


def _written(info: Mapping[str, Any]) -> datetime:
    written = info.get("LastModified") or info.get("mtime") or info.get("created") or info.get("last_modified")
    if isinstance(written, datetime):
        return written if written.tzinfo else written.replace(tzinfo=UTC)
    if isinstance(written, int | float):
        return datetime.fromtimestamp(written, UTC)
    return datetime.now(UTC)  # a place that does not say: as if it were new, and so never removed


@contextmanager
def _remote_encrypted() -> Iterator[None]:
    """Let a file system of S3 that is made within encrypt as this installation does."""
    from fsspec.config import conf

    before = conf.get("s3")
    if options := s3_options():
        conf["s3"] = options
    try:
        yield
    finally:
        conf.pop("s3", None)
        if before is not None:
            conf["s3"] = before


@contextmanager
def _answering(verb: str) -> Iterator[None]:
    """Turn the failures of a place, whatever library they come from, into UserError or TransientError."""
    try:
        yield
    except (UserError, TransientError):
        raise
    except Exception as error:
        name = f"gc could not {verb}"
        known = explained(error) or explained_output(name, f"{type(error).__name__}: {error}")
        raise known or TransientError(
            f"{name}: the DVC remote or cache must answer, and did not; {type(error).__name__}: {error}"
        ) from None
