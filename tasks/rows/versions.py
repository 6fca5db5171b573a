"""Read the rows of raw data as they were known on a date: raw data is a log of versions, of which nothing is rewritten.

A row that comes on time lies in rows/ under its event date. What becomes known beside the plan lies in changes/ under
the date on which it became known: a row that comes late, a row whose cells are others now, a row that was withdrawn.
Each change names its event date (`dt_of`) and its place among the rows of that date (`slot`): those that came on time
have the first slots, late ones the following, in order of arrival. The newest version of a slot that is known counts,
so that a reader needs no keys, and a run of an earlier date sees what was known then.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import date
from pathlib import Path

import pandas as pd

from tasks.rows.partitions import Partitions
from tasks.rows.raw_archive import CHANGE, CHANGES, DT_OF, SLOT, WITHDRAWN, RawIndex
from tasks.runtime.paths import Table

KNOWN = "known"
"""The column of `History.slots` with the date on which a version became known."""


class DaysByYear:
    """Dates in order, of which each year is read as it is asked for."""

    def __init__(self, years: Iterable[str], of_year: Callable[[str], Iterable[str]], last: date = date.max) -> None:
        """Take the years that may have dates, how they are read, and the last date that counts."""
        self.years = sorted(year for year in years if year <= last.isoformat()[:4])
        self._of_year, self._last = of_year, last.isoformat()
        self._read: dict[str, dict[date, None]] = {}

    @classmethod
    def of(cls, days: Iterable[date]) -> "DaysByYear":
        """Return these dates."""
        names = [day.isoformat() for day in days]
        return cls({name[:4] for name in names}, lambda year: [name for name in names if name.startswith(year)])

    def of_year(self, year: str) -> Collection[date]:
        """Return the dates of a year, in order."""
        if year not in self._read:
            names = sorted(day for day in self._of_year(year) if day <= self._last) if year in self.years else []
            self._read[year] = dict.fromkeys(map(date.fromisoformat, names))
        return self._read[year]

    def __iter__(self) -> Iterator[date]:
        """Yield all dates."""
        for year in self.years:
            yield from self.of_year(year)

    def __contains__(self, day: date) -> bool:
        """Return whether a date is among them."""
        return day in self.of_year(day.isoformat()[:4])

    @property
    def first(self) -> date | None:
        """Return the first date; None where there is none."""
        return next(iter(self), None)

    def newest(self, until: date) -> date | None:
        """Return the last date up to another one; None where there is none."""
        years = (self.of_year(year) for year in reversed(self.years) if year <= until.isoformat()[:4])
        return next((day for days in years for day in reversed([*days]) if day <= until), None)

    def between(self, first: date, end: date) -> list[date]:
        """Return the dates from one on, before another one."""
        years = (self.of_year(year) for year in self.years if first.isoformat()[:4] <= year <= end.isoformat()[:4])
        return [day for days in years for day in days if first <= day < end]


class History:
    """The rows of one product as known on a date, and which labels are."""

    def __init__(self, raw: Path, as_of: date, index: RawIndex | None = None) -> None:
        """Read the index of data/raw/<product>, or take one that was read. Raises UserError where it is damaged."""
        self._rows, self._versions = Partitions(raw / "rows"), Partitions(raw / CHANGES)
        self._index, self._as_of = index or RawIndex.load(raw), as_of.isoformat()
        self._changed: dict[str, dict[str, str]] = {}
        """By event date, what identifies its changes by the date on which they became known."""
        self._years_of_changes: set[str] = set()

    def days(self, until: date | None = None) -> list[date]:
        """Return the event dates that have rows, or had them before they were withdrawn, in order, up to a date."""
        return list(self.event_days(until or date.max))

    def event_days(self, until: date) -> DaysByYear:
        """Return the event dates up to a date that have rows, or had them; a year is read as it is asked for."""
        spans = [total.of for total in self._index.changes.totals.values() if total.of]
        late = {f"{year:04d}" for first, last in spans for year in range(int(first[:4]), int(last[:4]) + 1)}
        return DaysByYear({*self._index.rows.totals} | late, self._event_days_of, until)

    def label_days(self, until: date) -> DaysByYear:
        """Return the dates up to one on which labels became known, likewise."""
        return DaysByYear({*self._index.labels.totals}, self._index.labels.of_year, until)

    def _event_days_of(self, year: str) -> Iterable[str]:
        self._changes_between(f"{year}-01-01", f"{year}-12-31")
        return {*self._index.rows.of_year(year)}.union(day for day in self._changed if day.startswith(year))

    def inputs_of(self, table: Table, year: str) -> list[str] | None:
        """Return what identifies all that is stored of a year's days, without reading it.

        None where that is more than is known as of the date of this history, or where the index is not written.
        """
        if self._index.as_of > self._as_of:
            return None
        about = self._index.changes.years_about(f"{year}-01-01", f"{year}-12-31") if table == "rows" else []
        return self._index.years.identified([year, *about])

    def has_versions(self, day: date) -> bool:
        """Return whether rows of an event date became known beside the plan."""
        return bool(self._changes(day.isoformat()))

    def n_rows(self, day: date) -> int:
        """Return how many rows of an event date came on time."""
        stored = self._index.rows.get(day.isoformat())
        return stored.rows if stored else 0

    def digest(self, day: date) -> str:
        """Return what identifies the rows of an event date as known: another version of a row gives another one."""
        name = day.isoformat()
        stored = self._index.rows.get(name)
        base = stored.digest if stored else ""
        changes = self._changes(name)
        if not changes:
            return base
        digests = [digest for _, digest in sorted(changes.items())]
        return hashlib.blake2b("\n".join([base, *digests]).encode(), digest_size=16).hexdigest()

    def n_labels(self, known: date) -> int:
        """Return how many labels became known on a date."""
        return self._index.labels[known.isoformat()].rows

    def label_digest(self, known: date) -> str:
        """Return what identifies the labels that became known on a date, where there are any."""
        return self._index.labels[known.isoformat()].digest

    def read(self, days: Iterable[date], columns: list[str] | None = None) -> pd.DataFrame:
        """Return the rows of event dates as known, date by date, with the event date as the column `dt`.

        A changed row stands where the one before it stood; late rows follow in order of arrival. The frame has all
        `columns`, in that order; one is empty on a date that was stored without it.
        """
        wanted = list(days)
        if not any(self._changes(day.isoformat()) for day in wanted):
            return self._base(wanted, columns)
        rows = self.slots(wanted, columns)
        return rows[rows[CHANGE] != WITHDRAWN].drop(columns=[SLOT, CHANGE, KNOWN]).reset_index(drop=True)

    def slots(self, days: Iterable[date], columns: list[str] | None = None) -> pd.DataFrame:
        """Return the rows of event dates as `read` does, with their slots as the column `slot`, withdrawn ones too.

        The column `change` says how a row became as it is, and `known` on which date: both are missing for one that
        came on time and stands.
        """
        wanted = list(days)
        base = self._base(wanted, columns)
        missing = pd.Series(None, base.index, dtype="str")
        base = base.assign(**{SLOT: base.groupby("dt").cumcount(), CHANGE: missing, KNOWN: missing})
        changes = self._beside([day.isoformat() for day in wanted], columns)
        if changes.empty:
            return base
        versions = joined([base, changes])
        place = versions["dt"].map({day.isoformat(): i for i, day in enumerate(wanted)})
        newest = versions.assign(place=place)[~versions.duplicated(["dt", SLOT], keep="last")]
        return newest.sort_values(["place", SLOT], kind="stable", ignore_index=True).drop(columns="place")

    def _beside(self, days: list[str], columns: list[str] | None) -> pd.DataFrame:
        known = sorted(set().union(*(self._changes(day) for day in days)))
        names = None if columns is None else [*columns, DT_OF, CHANGE, SLOT]
        changes = self._versions.read(map(date.fromisoformat, known), names)
        if changes.empty:
            return changes
        changes = changes[changes[DT_OF].isin(days)]
        return changes.rename(columns={"dt": KNOWN, DT_OF: "dt"})

    def _changes(self, day: str) -> dict[str, str]:
        """Return what identifies the changes of an event date, by the date on which they became known."""
        self._changes_between(day, day)
        return self._changed.get(day, {})

    def _changes_between(self, first: str, last: str) -> None:
        """Read the years that may hold changes of some event dates."""
        changes = self._index.changes
        for year in {*changes.years_about(first, last)} - self._years_of_changes:
            self._years_of_changes.add(year)
            for known, stored in changes.of_year(year).items():
                if known <= self._as_of:
                    for day, digest in stored.of.items():
                        self._changed.setdefault(day, {})[known] = digest

    def _base(self, days: list[date], columns: list[str] | None) -> pd.DataFrame:
        return self._rows.read([day for day in days if day in self._rows], columns)


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return frames as one, with integers exact where a column is of several types."""
    frames = [frame for frame in frames if len(frame)] or frames[:1]
    for name in dict.fromkeys(name for frame in frames for name in frame.columns):
        if len({frame[name].dtype for frame in frames if name in frame}) > 1:
            frames = [
                frame.assign(**{name: frame[name].astype(object)}) if name in frame else frame for frame in frames
            ]
    return pd.concat(frames, ignore_index=True)
