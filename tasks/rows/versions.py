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

from tasks.rows.partitions import partition, partition_day, partitions, read_partitions
from tasks.rows.raw_archive import CHANGE, CHANGES, DT_OF, SLOT, WITHDRAWN, RawIndex
from tasks.runtime.files import file_sha256


class History:
    """The rows of one product as known on a date. Labels need no more than their partitions up to that date."""

    def __init__(self, raw: Path, as_of: date) -> None:
        """Read the index of data/raw/<product>. Raises UserError where it is damaged."""
        self._raw = raw
        self._index = RawIndex.load(raw)
        self._changed: dict[str, dict[str, str]] = {}
        for known, stored in sorted(self._index.changes.items()):
            if known <= as_of.isoformat():
                for day, digest in stored.of.items():
                    self._changed.setdefault(day, {})[known] = digest

    def days(self, until: date | None = None) -> list[date]:
        """Return the event dates that have rows, or had them before they were withdrawn, in order, up to a date."""
        stored = {partition_day(file) for file in partitions(self._raw / "rows", until)}
        late = (date.fromisoformat(day) for day in self._changed)
        return sorted(stored.union(day for day in late if until is None or day <= until))

    def digest(self, day: date) -> str:
        """Return what identifies the rows of an event date as known: another version of a row gives another one."""
        name, file = day.isoformat(), partition(self._raw / "rows", day)
        stored = self._index.rows.get(name)
        base = stored.digest if stored else file_sha256(file) if file.exists() else ""
        changes = self._changed.get(name, {})
        if not changes:
            return base
        return hashlib.blake2b("\n".join([base, *changes.values()]).encode(), digest_size=16).hexdigest()

    def label_digest(self, known: date) -> str:
        """Return what identifies the labels that became known on a date, where there are any."""
        stored = self._index.labels.get(known.isoformat())
        return stored.digest if stored else file_sha256(partition(self._raw / "labels", known))

    def read(self, days: Iterable[date], columns: list[str] | None = None) -> pd.DataFrame:
        """Return the rows of event dates as known, date by date, with the event date as the column `dt`.

        A changed row stands where the one before it stood; late rows follow in order of arrival. The frame has all
        `columns`, in that order; one is empty on a date that was stored without it.
        """
        wanted = [day.isoformat() for day in days]
        if not any(day in self._changed for day in wanted):
            return read_partitions(self._files(wanted), columns)
        frames, plain = [], []
        for day in wanted:
            if day not in self._changed:
                plain.append(day)
                continue
            frames += [read_partitions(self._files(plain), columns)] if plain else []
            frames.append(self._as_known(day, columns))
            plain = []
        frames += [read_partitions(self._files(plain), columns)] if plain else []
        return joined(frames)

    def slots(self, day: date, columns: list[str] | None = None) -> pd.DataFrame:
        """Return the rows of a date as `read` does, with their slots as the column `slot`, and withdrawn rows, too.

        The column `change` says how a row became as it is, and is missing for one that came on time and stands.
        """
        name = day.isoformat()
        base = read_partitions(self._files([name]), columns)
        base = base.assign(dt=name, **{SLOT: range(len(base)), CHANGE: None})
        names = None if columns is None else [*columns, DT_OF, CHANGE, SLOT]
        files = [partition(self._raw / CHANGES, date.fromisoformat(known)) for known in self._changed.get(name, {})]
        if not files:
            return base
        changes = read_partitions(files, names)
        changes = changes[changes[DT_OF] == name].drop(columns=DT_OF).assign(dt=name)
        versions = joined([base, changes])
        newest = ~versions[SLOT].duplicated(keep="last")
        return versions[newest].sort_values(SLOT, kind="stable", ignore_index=True)

    def _as_known(self, day: str, columns: list[str] | None) -> pd.DataFrame:
        rows = self.slots(date.fromisoformat(day), columns)
        return rows[rows[CHANGE] != WITHDRAWN].drop(columns=[SLOT, CHANGE]).reset_index(drop=True)

    def _files(self, days: list[str]) -> list[Path]:
        files = [partition(self._raw / "rows", date.fromisoformat(day)) for day in days]
        return [file for file in files if file.exists()]


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return frames as one, with integers exact where a column is of several types."""
    frames = [frame for frame in frames if len(frame)] or frames[:1]
    for name in frames[0].columns:
        if len({frame[name].dtype for frame in frames if name in frame}) > 1:
            frames = [
                frame.assign(**{name: frame[name].astype(object)}) if name in frame else frame for frame in frames
            ]
    return pd.concat(frames, ignore_index=True)
