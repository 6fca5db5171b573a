"""Read the rows of raw data as they were known on a date: raw data is a log of versions, of which nothing is rewritten.

A row that comes on time lies in rows/ under its event date. What becomes known beside the plan lies in changes/ under
the date on which it became known: a row that comes late, a row whose cells are others now, a row that was withdrawn.
Each change names its event date (`dt_of`) and its place among the rows of that date (`slot`): those that came on time
have the first slots, late ones the following, in order of arrival. The newest version of a slot that is known counts,
so that a reader needs no keys, and a run of an earlier date sees what was known then.
"""

import hashlib
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pandas as pd

from tasks.rows.partitions import Partitions
from tasks.rows.raw_archive import CHANGE, CHANGES, DT_OF, SLOT, WITHDRAWN, RawIndex

KNOWN = "known"
"""The column of `History.slots` with the date on which a version became known."""


class History:
    """The rows of one product as known on a date. Labels need no more than their partitions up to that date."""

    def __init__(self, raw: Path, as_of: date, index: RawIndex | None = None) -> None:
        """Read the index of data/raw/<product>, or take one that was read. Raises UserError where it is damaged."""
        self._rows, self._labels, self._changes = (Partitions(raw / kind) for kind in ("rows", "labels", CHANGES))
        self._index = index or RawIndex.load(raw)
        self._changed: dict[str, dict[str, str]] = {}
        for known, stored in sorted(self._index.changes.items()):
            if known <= as_of.isoformat():
                for day, digest in stored.of.items():
                    self._changed.setdefault(day, {})[known] = digest

    def days(self, until: date | None = None) -> list[date]:
        """Return the event dates that have rows, or had them before they were withdrawn, in order, up to a date."""
        late = (date.fromisoformat(day) for day in self._changed)
        return sorted({*self._rows.days(until)}.union(day for day in late if until is None or day <= until))

    def has_versions(self, day: date) -> bool:
        """Return whether rows of an event date became known beside the plan."""
        return day.isoformat() in self._changed

    def digest(self, day: date) -> str:
        """Return what identifies the rows of an event date as known: another version of a row gives another one."""
        name = day.isoformat()
        stored = self._index.rows.get(name)
        base = stored.digest if stored else self._rows.sha256(day) if day in self._rows else ""
        changes = self._changed.get(name, {})
        if not changes:
            return base
        return hashlib.blake2b("\n".join([base, *changes.values()]).encode(), digest_size=16).hexdigest()

    def label_digest(self, known: date) -> str:
        """Return what identifies the labels that became known on a date, where there are any."""
        stored = self._index.labels.get(known.isoformat())
        return stored.digest if stored else self._labels.sha256(known)

    def read(self, days: Iterable[date], columns: list[str] | None = None) -> pd.DataFrame:
        """Return the rows of event dates as known, date by date, with the event date as the column `dt`.

        A changed row stands where the one before it stood; late rows follow in order of arrival. The frame has all
        `columns`, in that order; one is empty on a date that was stored without it.
        """
        wanted = list(days)
        if not any(day.isoformat() in self._changed for day in wanted):
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
        known = sorted(set().union(*(self._changed.get(day, {}) for day in days)))
        names = None if columns is None else [*columns, DT_OF, CHANGE, SLOT]
        changes = self._changes.read(map(date.fromisoformat, known), names)
        if changes.empty:
            return changes
        changes = changes[changes[DT_OF].isin(days)]
        return changes.rename(columns={"dt": KNOWN, DT_OF: "dt"})

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
