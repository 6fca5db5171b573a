"""Keep the index of raw data, data/raw/<product>: a log of versions, of which nothing that is stored is rewritten.

rows/ holds the rows that came on time by event date, labels/ the labels and changes/ the versions of rows beside the
plan by the date on which each became known. index.json names what is said of each year's dates (see `years`). It is
written last, so that a run that was killed has stored nothing: `put_right` removes what it left.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.rows.partitions import Partitions
from tasks.rows.raw_archive.records import CHANGES, StoredChanges, StoredDay
from tasks.rows.raw_archive.years import KINDS, ByDate, Entries, Years
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file, read_json, write_json
from tasks.runtime.paths import TABLES, Table

INDEX = "index.json"
UNFINISHED = ".unfinished"
"""Beside the index while a run stores: where it lies, a run was killed, and every file is looked at."""


@dataclass(kw_only=True)
class RawIndex:
    """The dates that are stored of one product; `save` commits them."""

    folder: Path
    """data/raw/<product>."""
    years: Years
    """What is said of each date, by year."""
    undated: set[str] = field(default_factory=set)
    """Ids of the stored rows without an event date: see `undated_row_ids`."""
    refetched: dict[str, str] = field(default_factory=dict)
    """The reason with which a person had a date fetched again, by event date; `retaken` in the index."""
    left: dict[str, str] = field(default_factory=dict)
    """What identifies the differences of an event date that were told and not taken."""
    seen: str = ""
    """The digest of seen.json, see `tasks.rows.intake.seen`."""
    as_of: str = ""
    """The newest as_of of all runs so far; empty before the first."""
    earlier_as_of: str = ""
    """The newest as_of before that one; empty where there is none."""
    first_as_of: str = ""
    """The oldest as_of of all runs so far: what is older came as history, and its days are not judged. In an index of
    before this was kept, the newest as_of of then."""
    salts: dict[str, int] = field(default_factory=dict)
    """How many subjects had a salt, or were forgotten, when rows were stored last, by the first digit of their ids. A
    store that knows fewer has salts of before these rows. Empty where no column is salted."""
    anew: str | None = None
    """The reason with which a person let lost history begin anew on that date; None where none was lost."""
    is_checked: bool = False
    """Whether this run has looked for what a killed one left."""

    @classmethod
    def load(cls, folder: Path) -> "RawIndex":
        """Return the index of a folder, or an empty one. Raises UserError where it is damaged."""
        if not (folder / INDEX).exists():
            return cls(folder=folder, years=Years(folder, {}, {}))
        content = read_json(folder / INDEX)
        try:
            return cls._from_json(folder, content)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{folder / INDEX}: must be an index of raw data, and is damaged ({type(error).__name__}: {error}); "
                "restore it: dvc checkout --force"
            ) from None

    @classmethod
    def _from_json(cls, folder: Path, content: Mapping[str, Any]) -> "RawIndex":
        if "years" in content:
            years, newest, before = Years.from_json(folder, content["years"]), content["as_of"], {}
        else:  # an index of before there were years
            years = _in_one_file(folder, content)
            rows, labels = (years.totals(kind).values() for kind in TABLES)
            dates = [total.dates[1] for total in labels] or [total.dates[1] for total in rows]
            newest = content.get("as_of", "") or max(dates, default="")
            before = {day: stored["retaken"] for day, stored in content["rows"].items() if "retaken" in stored}
        return cls(
            folder=folder,
            years=years,
            undated={*content["undated"]},
            refetched={**before, **content.get("retaken", {})},
            left=content.get("left", {}),
            seen=content.get("seen", ""),
            as_of=newest,
            earlier_as_of=content.get("earlier_as_of", newest),
            first_as_of=content.get("first_as_of", newest),
            salts={**content.get("salts", {})},
            anew=content.get("anew"),
        )

    def save(self) -> None:
        """Commit: from here on the dates are stored."""
        content: dict[str, object] = {"years": self.years.save()}
        content |= {"undated": sorted(self.undated), "retaken": dict(sorted(self.refetched.items()))}
        content |= {"left": dict(sorted(self.left.items())), "seen": self.seen}
        content |= {"as_of": self.as_of, "earlier_as_of": self.earlier_as_of, "first_as_of": self.first_as_of}
        content |= {"salts": dict(sorted(self.salts.items()))} if self.salts else {}
        content |= {"anew": self.anew} if self.anew else {}
        write_json(self.folder / INDEX, content)
        self.years.remove_others()
        if self.is_checked:
            (self.folder / UNFINISHED).unlink(missing_ok=True)

    def copy(self) -> "RawIndex":
        """Return the dates as they are stored now, whatever this run adds."""
        return RawIndex(folder=self.folder, years=self.years.copy(), as_of=self.as_of)

    @cached_property
    def rows(self) -> ByDate[StoredDay]:
        """Return the rows that came on time, by event date."""
        return ByDate(self.years, "rows")

    @cached_property
    def labels(self) -> ByDate[StoredDay]:
        """Return the labels, by the date on which they became known."""
        return ByDate(self.years, "labels")

    @cached_property
    def changes(self) -> ByDate[StoredChanges]:
        """Return the versions beside the plan, by the date on which they became known."""
        return ByDate(self.years, CHANGES)

    def before(self, as_of: date) -> date | None:
        """Return the newest as_of of all runs so far that is before another one."""
        newest = self.as_of if self.as_of < as_of.isoformat() else self.earlier_as_of
        return date.fromisoformat(newest) if newest else None

    def note_run(self, as_of: date) -> None:
        """Keep that a run of this as_of has been: the newest, the one before it and the oldest of all runs follow."""
        if self.as_of < as_of.isoformat():
            self.earlier_as_of, self.as_of = self.as_of, as_of.isoformat()
        self.first_as_of = min(self.first_as_of or as_of.isoformat(), as_of.isoformat())

    def total(self, kind: Table) -> int:
        """Return how many rows were ever stored, each once, or how many versions of labels."""
        late = sum(total.late for total in self.changes.totals.values()) if kind == "rows" else 0
        return sum(total.rows for total in self.years.totals(kind).values()) + late

    def has_rows_of(self, day: str) -> bool:
        """Return whether an event date has rows, on time or late."""
        return day in self.rows or any(
            day in stored.of
            for year in self.changes.years_about(day, day)
            for stored in self.changes.of_year(year).values()
        )

    def has_rows_until(self, last: str) -> bool:
        """Return whether an event date up to `last` has rows, on time or late."""
        late = [total.of[0] for total in self.changes.totals.values() if total.of]
        return min([total.dates[0] for total in self.rows.totals.values()] + late, default="9999-99-99") <= last

    def to_refetch(self, decided: Mapping[str, str], last: str) -> dict[str, str]:
        """Return the stored dates up to `last` that a person has fetched again and that were not yet, with reasons."""
        return {
            day: reason
            for day, reason in decided.items()
            if day <= last and self.refetched.get(day) != reason and self.has_rows_of(day)
        }

    def partitions(self, kind: str) -> Partitions:
        """Return the files of rows, labels or changes."""
        return Partitions(self.folder / kind)

    def read(self, kind: str, days: Iterable[str], columns: list[str] | None = None) -> pd.DataFrame:
        """Return stored dates as one frame with the column `dt`."""
        return self.partitions(kind).read(map(date.fromisoformat, days), columns)

    def compact(self) -> None:
        """Make one file of each old month, so that the number of files stays small over years; no row changes."""
        for kind in KINDS:
            newest = ByDate(self.years, kind).newest
            if newest:
                self.partitions(kind).compact(date.fromisoformat(newest))

    def put_right(self) -> None:
        """Remove what a run that was killed has left, and note that this one begins to store.

        It left files of dates that are not in the index, and rows beyond it. No file is opened where none was killed.
        """
        mark = self.folder / UNFINISHED
        if mark.exists() or not (self.folder / INDEX).exists() or self.years.is_new:
            self.years.remove_others()
            for kind in KINDS:
                self._put_right(kind)
        with atomic_file(mark) as temporary:
            temporary.touch()
        self.is_checked = True

    def _put_right(self, kind: str) -> None:
        files, stored = self.partitions(kind), ByDate(self.years, kind)
        for file in files.folder.glob(".dt=*"):
            file.unlink()
        files.remove([day for day in files.days() if day.isoformat() not in stored])
        newest = stored.newest  # the one that a run of the same as_of adds to
        if kind != "rows" and newest and files.n_rows(day := date.fromisoformat(newest)) > stored[newest].rows:
            files.write(day, files.table(day).slice(0, stored[newest].rows))


def _in_one_file(folder: Path, content: Mapping[str, Any]) -> Years:
    """Return the years of an index that holds all dates itself."""
    entries: dict[str, Entries] = {
        kind: {day: StoredDay.from_json(stored) for day, stored in content[kind].items()} for kind in TABLES
    }
    entries[CHANGES] = {known: StoredChanges.from_json(stored) for known, stored in content.get(CHANGES, {}).items()}
    return Years.of_dates(folder, entries)
