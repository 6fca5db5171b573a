"""Search everything for what was erased: data of cache, remote and disk, the store with its versions, logs, git.

Files are looked into by their readers, and by their bytes.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tasks.erasure import beside, disk
from tasks.erasure.erasing import Erasing, places_with_versions
from tasks.erasure.subject import Subject
from tasks.publication.object_store import Store
from tasks.runtime.git import try_git
from tasks.runtime.paths import DATA
from tasks.runtime.settings import ROOT, task_logs


def search(erasing: Erasing) -> list[str]:
    """Return every place that shows it still, but for git's history and the source."""
    subject, found = erasing.subject, list[str]()
    for place in erasing.pool.places:
        held = sorted(erasing.pool.holding & place.stored.keys() - erasing.others)
        found += [f"{place.name}: the object {each}" for each in held]
    found += [str(file) for file in (*disk.files_of_home(), *_files_of_data(subject)) if _shows(file, subject)]
    found += list(_in_store(erasing))
    return found


def _shows(file: Path, subject: Subject) -> bool:
    return file.exists() and file.stat().st_size > 0 and subject.is_in_file(file)


def _files_of_data(subject: Subject) -> Iterator[Path]:
    for folder in (ROOT / DATA).glob(f"*/{subject.product.name}"):
        yield from (each for each in folder.rglob("*") if each.is_file())


def _in_store(erasing: Erasing) -> Iterator[str]:
    subject, store = erasing.subject, erasing.store
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "object"
        places = [(store, prefix) for prefix in (f"{erasing.product}/", f"{beside.TABLES}/{erasing.product}/")]
        if logs := task_logs():
            places.append((Store(logs), ""))
        for each, prefix in places:
            for key in each.list(prefix):
                if each.download(key, file) and _shows(file, subject):
                    yield each.uri(key)
    for url, prefix in places_with_versions(subject, erasing.pool):
        for bucket, key, version in beside.earlier_versions(url, prefix):
            if beside.version_holds(url, bucket, key, version, subject):
                yield f"s3://{bucket}/{key} (version {version})"


def in_git(erasing: Erasing) -> list[str]:
    """Return the commits that show it in git, which are left: their files, or what they changed."""
    found: set[str] = set()
    for text in erasing.subject.texts:
        listed = try_git("log", "--all", "--format=%h %s", "-S", text, cwd=erasing.clone) or ""
        found |= {*listed.splitlines()}
    return sorted(found)
