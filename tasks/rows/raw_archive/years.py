"""Keep what is said of each date in a file for each year, of which a night reads and writes those that it needs.

    data/raw/<product>/index/2013-0f3a....json      the dates of one year: of rows, of labels and of changes

A file's name ends with the digest of its bytes, and index.json names the files that count with what is asked of a whole
year: so a file is never written over, one that is damaged or missing is seen when it is read, and what a year holds is
known by its name alone.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from tasks.rows.raw_archive.records import CHANGES, Span, StoredChanges, StoredDay
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file
from tasks.runtime.paths import TABLES

FOLDER = "index"
KINDS = (*TABLES, CHANGES)
Entry = TypeVar("Entry", StoredDay, StoredChanges)
Entries = dict[str, StoredDay | StoredChanges]
"""StoredDay or StoredChanges by date."""


@dataclass(frozen=True, kw_only=True)
class Total:
    """What the entries of one kind and year are together."""

    rows: int
    """Rows, labels or versions."""
    late: int
    """Of versions the late rows."""
    dates: Span
    """The first and the last date that has an entry."""
    of: Span | None
    """The first and last event date of the labels or versions; None where it is not known, or of rows."""

    @classmethod
    def of_entries(cls, entries: Entries) -> "Total":
        """Sum up entries, of which there is one at least."""
        spans = [entry.event_days for entry in entries.values()]
        known = [span for span in spans if span]
        return cls(
            rows=sum(entry.rows for entry in entries.values()),
            late=sum(entry.late for entry in entries.values()),
            dates=(min(entries), max(entries)),
            of=(min(first for first, _ in known), max(last for _, last in known)) if len(known) == len(spans) else None,
        )


class Years:
    """The files of one product, read as they are asked for."""

    def __init__(self, folder: Path, digests: Mapping[str, str], totals: Mapping[str, Mapping[str, Total]]) -> None:
        """Take data/raw/<product>, and the digest and the totals by kind of each year's file."""
        self.folder = folder
        self.digests = dict(digests)
        self._totals: dict[str, dict[str, Total]] = {year: dict(by_kind) for year, by_kind in totals.items()}
        self._by_kind: dict[str, dict[str, Total]] = {}
        self._read: dict[str, dict[str, Entries]] = {}
        self._changed: set[str] = set()

    @classmethod
    def from_json(cls, folder: Path, content: Mapping[str, Any]) -> "Years":
        """Return the years that index.json names."""
        digests = {year: about["digest"] for year, about in content.items()}
        totals = {
            year: {
                kind: Total(
                    rows=total["rows"],
                    late=total["late"],
                    dates=tuple(total["dates"]),
                    of=tuple(total["of"]) if total["of"] else None,
                )
                for kind, total in about["totals"].items()
            }
            for year, about in content.items()
        }
        return cls(folder, digests, totals)

    @classmethod
    def of_dates(cls, folder: Path, entries: Mapping[str, Entries]) -> "Years":
        """Return the years of entries by kind, as an index of before there were years holds them: all are written."""
        found = cls(folder, {}, {})
        for kind, by_date in entries.items():
            for day, entry in by_date.items():
                found.change(kind, day, entry)
        return found

    def copy(self) -> "Years":
        """Return them as they are now, whatever is changed later."""
        found = Years(self.folder, self.digests, self._totals)
        found._read = {year: {kind: {**each} for kind, each in by_kind.items()} for year, by_kind in self._read.items()}
        found._changed = {*self._changed}
        return found

    def of_year(self, year: str) -> dict[str, Entries]:
        """Return the entries of a year by kind. Raises UserError where its file is damaged or missing."""
        if year not in self._read:
            content = self._content(year) if year in self.digests else {}
            self._read[year] = {
                kind: {day: _entry(kind).from_json(entry) for day, entry in content.get(kind, {}).items()}
                for kind in KINDS
            }
        return self._read[year]

    def total(self, kind: str, year: str) -> Total | None:
        """Return what the entries of a kind and year are together; None where there is none."""
        by_kind = self._totals.setdefault(year, {})
        if kind not in by_kind and year in self._changed:
            entries = self.of_year(year)[kind]
            if entries:
                by_kind[kind] = Total.of_entries(entries)
        return by_kind.get(kind)

    def totals(self, kind: str) -> dict[str, Total]:
        """Return the totals of a kind by year, in order, of those that have an entry."""
        if kind not in self._by_kind:
            found = ((year, self.total(kind, year)) for year in sorted({*self.digests, *self._read}))
            self._by_kind[kind] = {year: total for year, total in found if total}
        return self._by_kind[kind]

    def change(self, kind: str, day: str, entry: StoredDay | StoredChanges | None) -> None:
        """Set the entry of a date, or remove it."""
        entries = self.of_year(day[:4])[kind]
        if entry is None:
            del entries[day]
        else:
            entries[day] = entry
        self._changed.add(day[:4])
        self._totals.setdefault(day[:4], {}).pop(kind, None)
        self._by_kind.pop(kind, None)

    def identified(self, years: list[str]) -> list[str] | None:
        """Return what identifies the files of some years; None where one is not written as it is now."""
        if self._changed & {*years}:
            return None
        return [self.digests.get(year, "") for year in years]

    @property
    def is_new(self) -> bool:
        """Return whether no year has a file yet, as where an index of before there were years was read."""
        return not self.digests

    def save(self) -> dict[str, object]:
        """Write the files of years that have changed, and return what index.json says of all years."""
        for year in sorted(self._changed):
            by_kind = {
                kind: {day: entry.to_json() for day, entry in sorted(entries.items())}
                for kind, entries in self.of_year(year).items()
            }
            self.digests.pop(year, None)
            if any(by_kind.values()):
                text = json.dumps(by_kind, separators=(",", ":"), allow_nan=False) + "\n"
                self.digests[year] = _digest(text.encode())
                with atomic_file(self._file(year)) as temporary:
                    temporary.write_text(text, "utf-8")
        found: dict[str, object] = {}
        for year, digest in sorted(self.digests.items()):
            totals = {kind: asdict(total) for kind in KINDS if (total := self.total(kind, year))}
            found[year] = {"digest": digest, "totals": totals}
        self._changed.clear()
        return found

    def remove_others(self) -> None:
        """Remove the files that count no longer, or that a run which was killed has left."""
        kept = {self._file(year).name for year in self.digests}
        for file in (self.folder / FOLDER).glob("*") if (self.folder / FOLDER).exists() else ():
            if file.name not in kept:
                file.unlink()

    def _file(self, year: str) -> Path:
        return self.folder / FOLDER / f"{year}-{self.digests[year]}.json"

    def _content(self, year: str) -> Any:
        file = self._file(year)
        try:
            text = file.read_bytes()
        except OSError:
            raise UserError(
                f"{file}: must be there, as index.json names it; restore it: dvc checkout --force"
            ) from None
        if _digest(text) != self.digests[year]:
            raise UserError(f"{file}: must be as its name says, and is damaged; restore it: dvc checkout --force")
        return json.loads(text)


class ByDate(MutableMapping[str, Entry], Generic[Entry]):
    """The entries of one kind by date; only the years that are asked for are read, but to go through all of them."""

    def __init__(self, years: Years, kind: str) -> None:
        """Take the years."""
        self._years, self._kind = years, kind

    def __getitem__(self, day: str) -> Entry:
        """Return the entry of a date."""
        return self.of_year(day[:4])[day]

    def __setitem__(self, day: str, entry: Entry) -> None:
        """Set the entry of a date."""
        self._years.change(self._kind, day, entry)

    def __delitem__(self, day: str) -> None:
        """Remove the entry of a date."""
        self._years.change(self._kind, day, None)

    def __iter__(self) -> Iterator[str]:
        """Yield all dates, in order."""
        for year in self.totals:
            yield from sorted(self.of_year(year))

    def __len__(self) -> int:
        """Return how many dates there are."""
        return sum(len(self.of_year(year)) for year in self.totals)

    @property
    def totals(self) -> dict[str, Total]:
        """Return what the entries of each year are together, in order."""
        return self._years.totals(self._kind)

    @property
    def newest(self) -> str:
        """Return the newest date; empty where there is none."""
        return max((total.dates[1] for total in self.totals.values()), default="")

    def of_year(self, year: str) -> dict[str, Entry]:
        """Return the entries of a year by date."""
        return cast(dict[str, Entry], self._years.of_year(year)[self._kind])

    def years_about(self, first: str, last: str) -> list[str]:
        """Return the years whose labels or versions may be of event dates from `first` to `last`."""
        spans = ((year, total.of) for year, total in self.totals.items())
        return [year for year, span in spans if span is None or (span[0] <= last and first <= span[1])]


def _entry(kind: str) -> type[StoredDay] | type[StoredChanges]:
    return StoredChanges if kind == CHANGES else StoredDay


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()
