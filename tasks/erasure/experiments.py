"""Give experiments the data that they would have without the rows: each keeps its name and date, and gets a new commit.

What a dvc.lock names is brought to a scratch folder, the rows are taken out, and the new files are put into cache and
remote beside the old ones, which a later step removes. Commits of tags and branches stay as they are.
"""

import hashlib
import json
import re
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import yaml

from tasks.erasure.made import Judged, erase_judged, erase_night, erase_report, erase_splits, rows_sha256_of
from tasks.erasure.pool import Pool
from tasks.erasure.raw import RawErasure
from tasks.erasure.subject import Subject
from tasks.publication.night import NIGHT, read_night
from tasks.runs.dvc import LOCK_FILE, DvcLock, dvc_hash, read_yaml
from tasks.runs.objects import FOLDER
from tasks.runtime import faults
from tasks.runtime.git import git
from tasks.runtime.paths import DATA, Paths
from tasks.runtime.settings import settings

EXPERIMENTS = "refs/exps/"
VALIDATION = "validation.json"


@dataclass(frozen=True)
class Made:
    """An output as it is without the rows."""

    md5: str
    size: int
    nfiles: int | None


@dataclass
class Rewriting:
    """The experiments of one product, of which each output is made anew once however many name it."""

    pool: Pool
    subject: Subject
    made: dict[tuple[str, ...], Made | None] = field(default_factory=dict)
    """By path and what decides its content; None where nothing of it goes, or it is lost."""
    judged: dict[tuple[str, str], dict[str, Counter[str]]] = field(default_factory=dict)
    """How many valid or quarantined rows went, by path and hash."""
    corrected: set[tuple[str, str, str]] = field(default_factory=set)
    """Rows that went, as corrections may name them."""
    rows: dict[str, int] = field(default_factory=dict)
    """Raw rows that went, by event date."""

    @property
    def paths(self) -> Paths:
        """Return the places of the product's files."""
        return Paths(self.subject.product.name)

    def lock(self, text: str) -> str:
        """Return a dvc.lock whose outputs hold nothing of it; the same text where none did."""
        content = read_yaml(text)
        outs = DvcLock(content["stages"]).outs()
        changed: dict[tuple[str, str], Made] = {}
        now = dict(outs)
        for path in sorted((path for path in outs if self._is_mine(path)), key=self._order):
            made = self._without(path, outs, now)
            if made and made.md5 != outs[path]:
                changed[path, outs[path]], now[path] = made, made.md5
        if not changed:
            return text
        for stage in content["stages"].values():
            for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
                if (about := changed.get((entry.get("path"), entry.get("md5")))) is not None:
                    entry |= {"md5": about.md5, "size": about.size}
                    entry |= {"nfiles": about.nfiles} if "nfiles" in entry else {}
        return str(yaml.safe_dump(content, sort_keys=False))

    def _is_mine(self, path: str) -> bool:
        return f"/{self.subject.product.name}/" in f"{path}/"

    def _order(self, path: str) -> tuple[bool, str]:
        """Order the night and reports behind the valid rows, whose counts and hashes they have."""
        return path == str(self.paths.predictions) or "/reports/" in path, path

    def _without(self, path: str, outs: dict[str, str], now: dict[str, str]) -> Made | None:
        paths, md5 = self.paths, outs[path]
        about = [str(paths.valid), str(paths.quarantine)] if path.endswith(VALIDATION) else []
        name = (path, md5, *(outs.get(each, "") for each in about), *_decided(path, paths, now))
        if name not in self.made:
            judged = Judged(*(self.judged.get((each, outs.get(each, "")), {}) for each in about))
            self.made[name] = self._make(path, md5, judged, now)
        return self.made[name]

    def _make(self, path: str, md5: str, judged: Judged, now: dict[str, str]) -> Made | None:
        files = self.pool.listed(md5) if md5.endswith(FOLDER) else {"": md5}
        if files is None or not all(self.pool.has(each) for each in files.values()):
            return None  # it was lost before
        if not judged and not any(self.pool.is_holding(each, self.subject) for each in files.values()):
            return None
        with tempfile.TemporaryDirectory(dir=self.pool.scratch) as folder:
            target = Path(folder) / "out"
            for place, each in files.items():
                self.pool.bring(each, target / place if place else target)
            if not place_is_known(path):
                return None  # a model: its objects are removed, and it is banned
            self._erase(path, md5, target, judged, now)
            return self._put(target)

    def _erase(self, path: str, md5: str, target: Path, judged: Judged, now: dict[str, str]) -> None:
        paths, holds = self.paths, self.subject.is_in_file
        if path == str(paths.raw):
            erasure = RawErasure(target, self.subject, holds)
            erasure.erase()
            self.corrected |= erasure.corrected
            self.rows = {day: max(n, self.rows.get(day, 0)) for day, n in {**self.rows, **erasure.rows}.items()}
        elif path in (str(paths.valid), str(paths.quarantine)):
            self.judged[path, md5] = erase_judged(target, self.subject, holds)
        elif path == str(paths.splits):
            erase_splits(target, self.subject, holds)
        elif path == str(paths.predictions):
            night = read_night(target) if (target / NIGHT).exists() else None
            sha256 = self.rows_sha256(now.get(str(paths.valid), ""), night.scored_day) if night else None
            erase_night(target, self.subject, holds, sha256)
        elif target.is_file() and path.endswith(".json"):
            erase_report(target, self.subject, judged, name=Path(path).name)

    def rows_sha256(self, valid: str, day: date) -> str | None:
        """Return the hash of the valid rows of a day, as `predict` gives it, in the folder of a hash."""
        files = self.pool.listed(valid) or {}
        with tempfile.TemporaryDirectory(dir=self.pool.scratch) as folder:
            for period in (f"{day:%Y-%m}", day.isoformat()):
                if each := files.get(f"rows/dt={period}.parquet"):
                    self.pool.bring(each, Path(folder) / "rows" / f"dt={period}.parquet")
            return rows_sha256_of(Path(folder), day)

    def _put(self, target: Path) -> Made:
        files = [target] if target.is_file() else sorted(each for each in target.rglob("*") if each.is_file())
        for file in files:
            self.pool.put(_md5(file), file)
        size = sum(file.stat().st_size for file in files)
        if target.is_file():
            return Made(_md5(target), size, None)
        md5 = dvc_hash(target)
        with tempfile.NamedTemporaryFile(dir=self.pool.scratch) as listed:
            Path(listed.name).write_bytes(folder_list(target))
            self.pool.put(md5, Path(listed.name))
        return Made(md5, size, len(files))


def place_is_known(path: str) -> bool:
    """Return whether rows can be taken out of an output: not of a model, of what it made up, nor of a picture."""
    return not path.startswith((f"{DATA}/models/", f"{DATA}/made_rows/")) and not path.endswith(".png")


def _decided(path: str, paths: Paths, now: dict[str, str]) -> list[str]:
    """Return what decides the content of a night beside itself: the valid rows as they are now."""
    return [now.get(str(paths.valid), "")] if path == str(paths.predictions) else []


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def folder_list(folder: Path) -> bytes:
    """Return the list of a folder's files as DVC keeps it; its hash is `tasks.runs.dvc.dvc_hash`."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return json.dumps([{"md5": _md5(folder / name), "relpath": name} for name in files], sort_keys=True).encode()


def rewrite_experiments(rewriting: Rewriting, clone: Path) -> dict[str, str]:
    """Move the experiments of the origin to commits whose data hold nothing of it; return old and new commits.

    Raises TransientError where a run has saved an experiment meanwhile.
    """
    listed = git("for-each-ref", "--format=%(refname) %(objectname)", EXPERIMENTS, cwd=clone)
    moved: dict[str, str] = {}
    for reference, commit in map(str.split, listed.splitlines()):
        text = git("show", f"{commit}:{LOCK_FILE}", cwd=clone) if _has_lock(clone, commit) else ""
        now = rewriting.lock(text) if text else text
        if now == text:
            continue
        faults.failpoint("erase: the data of an experiment are made anew")
        new = _recommitted(clone, commit, now, rewriting.pool.scratch)
        lease = f"--force-with-lease={reference}:{commit}"
        git("push", "--quiet", lease, settings().origin, f"{new}:{reference}", cwd=clone)
        git("update-ref", reference, new, cwd=clone)
        faults.failpoint("erase: an experiment has moved")
        moved[commit] = new
    return moved


def _has_lock(clone: Path, commit: str) -> bool:
    return bool(git("ls-tree", "--name-only", commit, LOCK_FILE, cwd=clone).strip())


def _recommitted(clone: Path, commit: str, lock: str, scratch: Path) -> str:
    """Return a commit that differs from another one in its dvc.lock alone: authors and dates are the same."""
    file = scratch / "written"
    file.write_text(lock, "utf-8")
    blob = git("hash-object", "-w", str(file), cwd=clone).strip()
    git("read-tree", commit, cwd=clone)
    git("update-index", "--add", "--cacheinfo", f"100644,{blob},{LOCK_FILE}", cwd=clone)
    tree = git("write-tree", cwd=clone).strip()
    text = git("cat-file", "commit", commit, cwd=clone)
    text = re.sub(r"\Atree [0-9a-f]+", f"tree {tree}", text)
    digest = hashlib.sha256(lock.encode()).hexdigest()
    text = re.sub(r"^(dvc: commit experiment )[0-9a-f]{64}", rf"\g<1>{digest}", text, flags=re.MULTILINE)
    file.write_text(text, "utf-8", errors="surrogateescape")
    return git("hash-object", "-t", "commit", "-w", str(file), cwd=clone).strip()
