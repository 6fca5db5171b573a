"""Find the rows that repeat a key: of rows with one key the first stands, by day and then by place."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby

import numpy as np

from tasks.quality.duplicates.key_index import (
    NO_KEYS,
    KeyIndex,
    Keys,
    day_number,
    day_of,
    distinct,
    is_among,
)
from tasks.quality.raw_tables import RawTable
from tasks.quality.tallies import Days
from tasks.rows.keys import key_digests

ROWS_AT_ONCE = 250_000
"""Rows whose keys are read together."""
DAYS_LOOKED_UP = 50
"""Of more days than these the keys are not looked up day by day: all are compared at once."""


@dataclass
class Repeats:
    """Keys that more than one row takes."""

    table: RawTable
    keys: KeyIndex | None
    """Which days take a key; None for labels, of which one of another day is a newer version."""
    _clean: set[date] = field(default_factory=set)
    """Days of which no two rows take one key."""
    _repeated: dict[date, Keys] | None = None
    """Of all days, where known."""

    def of(self, day: date) -> Keys | None:
        """Return the keys of a day that an earlier one takes; None where rows of the day may repeat each other only."""
        repeated = self._of_earlier_days(day) if self.keys else NO_KEYS
        return None if not len(repeated) and day not in self._clean else repeated

    def update(self, changed: Sequence[date], gone: Sequence[date]) -> set[date]:
        """Bring the index up to date, and return the days of whose rows others are repeated now."""
        if self.keys is None or not (changed or gone):
            return set()
        is_new = self.keys.is_empty
        moved = [NO_KEYS]
        for month, days in groupby(sorted([*changed, *gone]), lambda day: f"{day:%Y-%m}"):
            now = self._taken([*days], {*gone})
            for day, keys in now.items() if not is_new else ():
                then = self.keys.keys_of(day)
                moved += [then[~is_among(then, keys)], keys[~is_among(keys, then)]]
            self.keys.replace(month, now)
        if is_new:
            return self._compare_all(set())
        first = day_number(min([*changed, *gone]))
        found = np.unique(self.keys.days_that_take(np.concatenate(moved)).day)
        also = {day_of(number) for number in found if number > first} - {*changed, *gone}
        return self._compare_all(also) if len(changed) + len(also) > DAYS_LOOKED_UP else also

    def _taken(self, days: Sequence[date], gone: set[date]) -> dict[date, Keys]:
        """Return the keys that some days of a month take, each once."""
        found = dict.fromkeys(gone & {*days}, NO_KEYS)
        for together in self.table.delivered.batches([day for day in days if day not in found], ROWS_AT_ONCE):
            keys, dt = self.table.keys(together)
            digests, rows = key_digests(keys), Days(dt, together)
            for day, place in zip(together, rows.slices, strict=True):
                found[day] = distinct(digests[place])
                if len(found[day]) == place.stop - place.start:
                    self._clean.add(day)
        return found

    def _compare_all(self, also: set[date]) -> set[date]:
        assert self.keys is not None
        repeated = self.keys.repeated()
        order = np.argsort(repeated.day, kind="stable")
        numbers, starts = np.unique(repeated.day[order], return_index=True)
        parts = np.split(repeated.keys[order], starts[1:]) if len(numbers) else []
        self._repeated = {day_of(number): keys for number, keys in zip(numbers, parts, strict=True)}
        return also

    def _of_earlier_days(self, day: date) -> Keys:
        assert self.keys is not None
        if self._repeated is not None:
            return self._repeated.get(day, NO_KEYS)
        taken = self.keys.days_that_take(self.keys.keys_of(day))
        return taken[taken.day < day_number(day)].keys
