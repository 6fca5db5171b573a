"""Keep what was measured as it is measured, so that a benchmark that was stopped goes on where it stopped.

A folder of .lamplighter/night holds the files of one history with progress.json: the figures of each stage of each
night. They count as long as the code that is measured is the same.
"""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.nights.work import Work

FILE = "progress.json"


def code_digest(*places: Path) -> str:
    """Return what identifies the Python of some folders or files."""
    found = hashlib.sha256()
    for place in places:
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            found.update(f"{file.relative_to(place.parent)}\0".encode() + file.read_bytes())
    return found.hexdigest()


class Progress:
    """The figures of one history by night and stage."""

    def __init__(self, folder: Path, code: str) -> None:
        """Take a folder; one that other code has filled begins anew."""
        self.folder = folder
        self._file, self._code = folder / FILE, code
        self._kept: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
        if self._kept.get("code") != code:
            self.begin_anew()

    def begin_anew(self) -> None:
        """Empty the folder, and forget what was measured."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._kept = {"code": self._code, "laid_out": -1, "works": {}}

    @property
    def laid_out(self) -> int:
        """Return the night whose source lies in the folder; -1 where none does."""
        return int(self._kept["laid_out"])

    def note_laid_out(self, night: int) -> None:
        """Keep that a night's source lies in the folder."""
        self._kept["laid_out"] = night
        self._write()

    def work(self, night: int, stage: str) -> Work | None:
        """Return what a stage took; None where it was not measured."""
        found = self._kept["works"].get(f"{night} {stage}")
        return None if found is None else Work(**found)

    def note(self, night: int, stage: str, work: Work) -> None:
        """Keep what a stage took."""
        self._kept["works"][f"{night} {stage}"] = asdict(work)
        self._write()

    def remove_files(self) -> None:
        """Remove all but the figures."""
        for path in self.folder.iterdir():
            if path.name != FILE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _write(self) -> None:
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._kept, indent=1))
        temporary.replace(self._file)
