"""Look into all data that DVC keeps of a product, in the cache and the remote, whether a run names them or not.

Objects are known by their content, so that a row lies in as many as there were states of its file. Those that other
products name are theirs. What no commit names may be of a run that was killed, or was removed: it is looked into as
well.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.erasure.subject import Subject
from tasks.runs.dvc import LOCK_FILE, DvcLock
from tasks.runs.objects import FOLDER, Objects, StoredObject
from tasks.runtime.git import git, try_git
from tasks.runtime.settings import settings


@dataclass
class Pool:
    """The objects of cache and remote."""

    clone: Path
    """A clone of the origin with all its refs."""
    places: list[Objects]
    """The cache, then the remote."""
    scratch: Path
    """A folder for what lies in the remote alone."""
    holding: set[str] = field(default_factory=set)
    """The hashes of files that hold what is to be erased."""
    _clean: set[str] = field(default_factory=set)

    def known(self) -> set[str]:
        """Return the hashes of all objects."""
        return {each for place in self.places for each in place.stored}

    def look(self, subject: Subject, others: set[str]) -> None:
        """Find the keys of the rows, and the files that hold anything of it, but for those of other products."""
        candidates = sorted(each for each in self.known() - others if not each.endswith(FOLDER))
        if not subject.is_of_keys:
            for each in candidates:
                with self.file(each) as file:
                    subject.learn_from(file)
            subject.forget_found()
        for each in candidates:
            with self.file(each) as file:
                self._note(each, subject.is_in_file(file))

    def is_holding(self, name: str, subject: Subject) -> bool:
        """Return whether the object of a hash holds anything of it."""
        if name not in self.holding and name not in self._clean:
            with self.file(name) as file:
                self._note(name, subject.is_in_file(file))
        return name in self.holding

    def _note(self, name: str, is_in: bool) -> None:
        (self.holding if is_in else self._clean).add(name)

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield a file with the content of an object, from the cache or else from the remote."""
        for place in self.places:
            if name in place.stored and _is_local(place):
                yield Path(place.stored[name].path)
                return
        place = next(each for each in self.places if name in each.stored)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            place.fs.get_file(place.stored[name].path, f"{folder}/object")
            yield Path(folder) / "object"

    def has(self, name: str) -> bool:
        """Return whether an object is to be had."""
        return any(name in place.stored for place in self.places)

    def listed(self, name: str) -> dict[str, str] | None:
        """Return the hashes of a folder's files by their places in it; None where its list is lost."""
        if not self.has(name):
            return None
        with self.file(name) as file:
            return {each["relpath"]: each["md5"] for each in json.loads(file.read_bytes())}

    def bring(self, name: str, target: Path) -> bool:
        """Write the content of an object to a new file; return False where it is lost."""
        if not self.has(name):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.file(name) as file:
            shutil.copyfile(file, target)
        return True

    def put(self, name: str, file: Path) -> None:
        """Put a file into cache and remote, whole or not at all, where it is not there yet."""
        for place in self.places:
            path = f"{place.odb.path}/{name[:2]}/{name[2:]}"
            if name in place.stored:
                continue
            if _is_local(place):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                temporary = Path(path).with_name(f".{name}.tmp")
                shutil.copyfile(file, temporary)
                temporary.chmod(0o444)
                temporary.replace(path)
            else:
                place.fs.put_file(str(file), path)
            written = StoredObject(path=path, size=file.stat().st_size, written=datetime.now(UTC))
            place.stored[name] = written

    def folders_with(self, names: set[str]) -> set[str]:
        """Return the hashes of folders of which some file is among others."""
        lists = (each for each in sorted(self.known()) if each.endswith(FOLDER))
        return {each for each in lists if {*(self.listed(each) or {}).values()} & names}


def _is_local(place: Objects) -> bool:
    return place.odb.fs.protocol == "local"


def others_of(clone: Path, product: str) -> set[str]:
    """Return the hashes that commits of a clone name as outs of other products, without those of this one."""
    found: set[str] = set()
    for blob in locks_in(clone).values():
        with suppress(TypeError, KeyError, AttributeError):
            for stage, entry in DvcLock.parse(git("cat-file", "blob", blob, cwd=clone)).stages.items():
                if not stage.endswith(f"@{product}"):
                    found |= {out["md5"] for out in entry.get("outs", []) if "md5" in out}
    return found


def locks_in(clone: Path) -> dict[str, str]:
    """Return the blob of the dvc.lock of each commit that a ref of a clone names."""
    listed = git("for-each-ref", "--format=%(objecttype) %(objectname) %(*objecttype) %(*objectname)", cwd=clone)
    pairs = [line.split() for line in listed.splitlines()]
    commits = {pair[-1] for pair in pairs if pair[-2] == "commit"}
    blobs = {each: try_git("rev-parse", "--verify", "--quiet", f"{each}:{LOCK_FILE}", cwd=clone) for each in commits}
    return {commit: blob.strip() for commit, blob in blobs.items() if blob}


def expanded(pool: Pool, names: Iterable[str]) -> set[str]:
    """Return hashes with those of the files of each folder."""
    found = {*names}
    for each in [*found]:
        if each.endswith(FOLDER):
            found |= {*(pool.listed(each) or {}).values()}
    return found


@contextmanager
def pool_of(clone: Path) -> Iterator[Pool]:
    """Yield the objects of cache and remote. Raises UserError or TransientError where a place does not answer."""
    with tempfile.TemporaryDirectory(prefix="erase-", dir=settings().home) as scratch:
        places = [Objects.of_cache(Path(settings().cache)), Objects.of_remote(clone)]
        yield Pool(clone=clone, places=places, scratch=Path(scratch))
