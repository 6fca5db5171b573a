"""Keep what was found of each day, so that a day that was judged once is not read again.

    data/valid/<product>/ledger/rows-2013-06.json       what was found of each day of a month, of rows or of labels
    data/valid/<product>/ledger/compared-2013-06.json   what days are compared by
    data/valid/<product>/ledger/ledger.json             by which rules it was judged, and what the other files look like

`ledger.json` is written last: what it does not know, or knows otherwise, is not trusted, and those days are judged
anew. All of it follows from raw data, decisions and rules alone, not from how many runs it was judged in.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from tasks.quality.checked_table import Counts, Outcome
from tasks.quality.day_summaries import DaySummary
from tasks.quality.verdicts import Drift
from tasks.runtime.files import atomic_file
from tasks.runtime.paths import TABLES, Table

FOLDER = "ledger"
INDEX = "ledger.json"
KEYS = "keys"
_FOOTER_LENGTH_BYTES = 8
_END_BYTES = 4096


@checked_dataclass(frozen=True, kw_only=True)
class Tally:
    """What one expectation says of the rows of one day."""

    seen: int = 0
    """Rows."""
    missing: int = 0
    """Of these, rows without a cell to judge."""
    unexpected: int = 0
    """Rows that break it."""
    error: str | None = None
    """The reason why it could not be evaluated."""


@checked_dataclass(frozen=True, kw_only=True)
class JudgedDay:
    """What was found of the rows of one day, or of the labels that became known on it."""

    input: str
    """What identifies the rows and what is known about them."""
    window: str | None = None
    """What identifies the rows of the days with which those expectations judged it that are about a whole table."""
    rows_in: int
    """Rows."""
    rows_fit: int
    """Of these, rows that break no rule."""
    corrected: int = 0
    """Rows that hold a person's corrections."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Rows by the rule that they break."""
    columns: dict[str, int] = field(default_factory=dict)
    """Rows by the column because of which they are in quarantine."""
    examples: dict[str, int] = field(default_factory=dict)
    """Place, from 0, of the first row that breaks each rule."""
    by_row: list[Tally] = field(default_factory=list)
    """Of the expectations that judge each row by itself, in the order declared."""
    whole: list[Outcome] = field(default_factory=list)
    """Of those about a whole column or table, likewise; empty where the day was not judged by them."""
    held: str | None = None
    """The figures because of which its rows are held back."""

    @property
    def counts(self) -> Counts:
        """Return what became of the rows."""
        n_valid = 0 if self.held is not None else self.rows_fit
        return Counts(rows_in=self.rows_in, rows_valid=n_valid, rows_quarantined=self.rows_in - n_valid)


@checked_dataclass(frozen=True, kw_only=True)
class _Month:
    days: dict[str, JudgedDay]


@checked_dataclass(frozen=True, kw_only=True)
class _Compared:
    days: dict[str, DaySummary]


@checked_dataclass(frozen=True, kw_only=True)
class _Index:
    judged_by: str
    as_of: str
    first_judged: str
    compared_since: str
    verdicts: dict[str, Drift]
    files: dict[str, str]


_MONTH, _COMPARED, _INDEX = TypeAdapter(_Month), TypeAdapter(_Compared), TypeAdapter(_Index)


@dataclass
class Ledger:
    """What was found of all days of one product."""

    judged_by: str
    """What identifies the rules, and the code that follows them."""
    as_of: str = ""
    """The as_of of the run that judged last."""
    first_judged: str = ""
    """The first day of rows that is compared with the days before it."""
    compared_since: str = ""
    """The first day that is judged or compared with; of the days before it there is no summary."""
    days: dict[Table, dict[str, JudgedDay]] = field(default_factory=lambda: {name: {} for name in TABLES})
    """What was found of each day, by table."""
    compared: dict[str, DaySummary] = field(default_factory=dict)
    """What days are compared by, of the days that are, read or made so far."""
    verdicts: dict[str, Drift] = field(default_factory=dict)
    """Of judged days those that are held, or that a person accepted."""
    folder: Path | None = None
    """Where it was read from; None for a new one."""
    files: dict[str, str] = field(default_factory=dict)
    """What the files look like that belong to it, by their place; see `marks_of`."""
    _changed: set[str] = field(default_factory=set)
    _months_read: set[str] = field(default_factory=set)

    def note(self, table: Table, day: str, found: JudgedDay) -> None:
        """Keep what was found of a day."""
        self.days[table][day] = found
        self._changed.add(f"{table}-{day[:7]}")

    def note_compared(self, day: str, summary: DaySummary) -> None:
        """Keep what a day is compared by."""
        self._read_compared(day[:7])
        self.compared[day] = summary
        self._changed.add(f"compared-{day[:7]}")

    def forget(self, table: Table, day: str) -> None:
        """Forget a day."""
        self.days[table].pop(day, None)
        self._changed.add(f"{table}-{day[:7]}")
        if table == "rows":
            self.forget_compared(day)

    def forget_compared(self, day: str) -> None:
        """Forget what a day is compared by: it no longer is."""
        self._read_compared(day[:7])
        if self.compared.pop(day, None):
            self._changed.add(f"compared-{day[:7]}")

    def summary(self, day: str) -> DaySummary | None:
        """Return what a day is compared by; None where it is not kept."""
        self._read_compared(day[:7])
        return self.compared.get(day)

    def compare_since(self, day: date) -> None:
        """Forget what days before this one are compared by: they no longer are."""
        months = {place[-12:-5] for place in self.files if place.startswith(f"valid/{FOLDER}/compared-")}
        for month in (month for month in months if month <= f"{day:%Y-%m}"):
            self._read_compared(month)
        for name in [name for name in self.compared if name < day.isoformat()]:
            self.forget_compared(name)
        self.compared_since = day.isoformat()

    def save(self, valid: Path, quarantine: Path) -> None:
        """Write the months that have changed among the valid rows, and last which files of both folders count."""
        for name in sorted(self._changed):
            kind, month = name.split("-", 1)
            found: Mapping[str, Any] = (
                self.compared if kind == "compared" else self.days["rows" if kind == "rows" else "labels"]
            )
            days = {day: asdict(entry) for day, entry in sorted(found.items()) if day.startswith(month)}
            file = valid / FOLDER / f"{name}.json"
            if days:
                _write(file, {"days": {day: _without_defaults(entry) for day, entry in days.items()}})
            else:
                file.unlink(missing_ok=True)
        content = {
            "judged_by": self.judged_by,
            "as_of": self.as_of,
            "first_judged": self.first_judged,
            "compared_since": self.compared_since,
            "verdicts": {day: asdict(verdict) for day, verdict in sorted(self.verdicts.items())},
            "files": marks_of(valid, quarantine),
        }
        _write(valid / FOLDER / INDEX, content)

    @classmethod
    def read(cls, valid: Path) -> "Ledger":
        """Return the ledger of a folder of valid rows. Raises ValueError or OSError where none is whole."""
        folder = valid / FOLDER
        index = _INDEX.validate_json((folder / INDEX).read_bytes())
        found = cls(
            judged_by=index.judged_by,
            as_of=index.as_of,
            first_judged=index.first_judged,
            compared_since=index.compared_since,
            verdicts=index.verdicts,
            files=index.files,
            folder=folder,
        )
        for table in TABLES:
            for file in sorted(folder.glob(f"{table}-*.json")):
                found.days[table] |= _MONTH.validate_json(file.read_bytes()).days
        return found

    def _read_compared(self, month: str) -> None:
        if self.folder is None or month in self._months_read:
            return
        self._months_read.add(month)
        file = self.folder / f"compared-{month}.json"
        if file.exists():
            self.compared |= _COMPARED.validate_json(file.read_bytes()).days


def marks_of(valid: Path, quarantine: Path) -> dict[str, str]:
    """Return what the files below both folders look like, by their place below `valid` or `quarantine`."""
    found = {}
    for name, folder in (("valid", valid), ("quarantine", quarantine)):
        for file in sorted(folder.rglob("*")) if folder.exists() else ():
            if file.is_file() and not file.name.startswith(".") and file.name != INDEX:
                found[f"{name}/{file.relative_to(folder).as_posix()}"] = _mark(file)
    return found


def _mark(file: Path) -> str:
    """Return what tells a file from another one without reading it whole: its length, and a hash of its end.

    The end of a Parquet file says where its parts are and what is in them. JSON is short and hashed whole.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = size if file.suffix == ".json" else _END_BYTES
        if file.suffix == ".parquet" and size >= _FOOTER_LENGTH_BYTES:
            opened.seek(-_FOOTER_LENGTH_BYTES, os.SEEK_END)
            length = int.from_bytes(opened.read(4), "little") + _FOOTER_LENGTH_BYTES
        opened.seek(-min(length, size), os.SEEK_END)
        return f"{size}-{hashlib.blake2b(opened.read(), digest_size=8).hexdigest()}"


def link_files(old: Path, new: Path, but: Container[str]) -> None:
    """Fill a new folder with an old one's files, without a copy where the disk can: no such file is ever changed.

    Those at some places are left out.
    """
    for file in sorted(old.rglob("*")) if old.exists() else ():
        name = file.relative_to(old)
        if file.is_file() and not file.name.startswith(".") and name.as_posix() not in but:
            place = new / name
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file.resolve(), place)
            except OSError:  # another disk, or one that has no links
                shutil.copyfile(file, place)


def _without_defaults(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an entry without what is empty, lest years of days say the same."""
    kept = {name: value for name, value in entry.items() if value not in (None, {}, [])}
    if "by_row" in kept:
        kept["by_row"] = [{name: n for name, n in tally.items() if n} for tally in kept["by_row"]]
    return kept


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with atomic_file(file) as temporary:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", "utf-8")
