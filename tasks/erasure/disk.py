"""Take the rows out of this disk: workspaces, what trainings and people left, the working tree, logs.

What can be made again is removed: workspaces, folds, trials, checkpoints, models that score beside the champion,
simulations. Data of the working tree are rewritten as those of runs are. Logs and other texts are written over in
place, as many letters as there were, since whoever writes to them holds them open.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tasks.erasure.experiments import VALIDATION, Rewriting
from tasks.erasure.made import Judged, erase_judged, erase_night, erase_report, erase_splits, rows_sha256_of
from tasks.erasure.raw import RawErasure
from tasks.erasure.subject import Subject
from tasks.publication.night import NIGHT, read_night
from tasks.runs.dvc import LOCK_FILE
from tasks.runs.experiments import workspaces
from tasks.runs.workspace import remove_workspaces
from tasks.runtime import faults
from tasks.runtime.files import atomic_file
from tasks.runtime.paths import DATA, MADE, Paths
from tasks.runtime.settings import ROOT, settings

REMADE = ("folds/{product}-*", "checkpoints/{product}-*", "models/{product}", "simulations/{product}*", "nights/*")
"""Below LAMPLIGHTER_HOME, what trainings and commands make again."""
OF_PEOPLE = ("quarantine/{product}/*", "reports/{product}/*")
"""What was made for a person to read: what of it shows the rows is removed."""
ELSEWHERE = ("store", "environments", "erasures")
"""Below LAMPLIGHTER_HOME, what is looked into otherwise, or holds no data."""


def erase_on_disk(subject: Subject) -> int:
    """Remove what can be made again, and write over what cannot; return the number of files that were written over."""
    product, home = subject.product.name, settings().home
    remove_workspaces(workspaces(product))
    faults.failpoint("erase: the workspaces are removed")
    for pattern in REMADE:
        for path in home.glob(pattern.format(product=product)):
            _remove(path)
    shutil.rmtree(ROOT / ".lamplighter" / "tune" / product, ignore_errors=True)
    for pattern in OF_PEOPLE:
        for path in home.glob(pattern.format(product=product)):
            if path.is_file() and subject.is_in_file(path):
                path.unlink()
    n_files = sum(write_over(file, subject) for file in files_of_home())
    faults.failpoint("erase: logs are written over")
    return n_files


def files_of_home() -> Iterator[Path]:
    """Yield the files below LAMPLIGHTER_HOME but for those of the object store, the cache and environments."""
    home, cache = settings().home, Path(settings().cache).resolve()
    for folder, names, files in os.walk(home):
        at = Path(folder)
        if at == home:
            names[:] = [name for name in names if name not in ELSEWHERE]
        names[:] = [name for name in names if (at / name).resolve() != cache]
        yield from (at / name for name in files if (at / name).is_file() and not (at / name).is_symlink())


def write_over(file: Path, subject: Subject) -> bool:
    """Write crosses over what shows it in a text; return whether there was any. What is no text stays as it is."""
    content = file.read_bytes()
    if b"\0" in content or not subject.is_in_bytes(content):
        return False
    with file.open("r+b") as opened:
        for start, end in subject.places_in(content):
            opened.seek(start)
            opened.write(b"x" * (end - start))
    return True


def erase_in_folder(root: Path, subject: Subject) -> dict[str, int]:
    """Take the rows out of the data that stages have left below a folder; return the raw rows that went, by date."""
    paths, holds = Paths(subject.product.name, root / DATA), subject.is_in_file
    if (paths.made_rows / MADE).exists():  # nobody can tell any more what the model that made them up has learnt from
        shutil.rmtree(paths.made_rows)
    raw: dict[str, int] = {}
    if paths.raw.exists() and _any(paths.raw, subject):
        erasure = RawErasure(paths.raw, subject, holds)
        erasure.erase()
        raw = dict(erasure.rows)
    faults.failpoint("erase: raw data of the folder are written")
    held = paths.valid.exists() and any(_any(each, subject) for each in (paths.valid, paths.quarantine))
    judged = Judged(*(erase_judged(each, subject, holds) for each in (paths.valid, paths.quarantine))) if held else None
    if paths.splits.exists():
        erase_splits(paths.splits, subject, holds)
    if (paths.predictions / NIGHT).exists():
        sha256 = rows_sha256_of(paths.valid, read_night(paths.predictions).scored_day)
        erase_night(paths.predictions, subject, holds, sha256)
    for file in paths.report("x").parent.glob("*.json"):
        if holds(file) or (judged and file.name == VALIDATION):
            erase_report(file, subject, judged or Judged(), name=file.name)
    for folder in (paths.pretrained, paths.trained, paths.onnx):
        if folder.exists() and _any(folder, subject):
            shutil.rmtree(folder)
    return raw


def erase_in_tree(rewriting: Rewriting) -> None:
    """Take the rows out of the working tree: its data, and what its dvc.lock names."""
    erase_in_folder(ROOT, rewriting.subject)
    file = ROOT / LOCK_FILE
    if file.exists() and (now := rewriting.lock(text := file.read_text("utf-8"))) != text:
        with atomic_file(file) as temporary:
            temporary.write_text(now, "utf-8")


def erase_run_cache(hashes: set[str]) -> int:
    """Forget runs of stages whose outputs are gone: DVC would look for them; return their number."""
    n_removed = 0
    for file in (Path(settings().cache) / "runs").rglob("*"):
        if file.is_file() and any(each in file.read_text("utf-8", "replace") for each in hashes):
            file.unlink()
            n_removed += 1
    return n_removed


def _any(folder: Path, subject: Subject) -> bool:
    return any(subject.is_in_file(file) for file in folder.rglob("*") if file.is_file())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
