"""The days of one table by month, of which those are read that are asked for.

Of the others it is known what they are together: a night sums up years without reading them.
"""

import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from tasks.quality.ledger.records import DaysTogether, JudgedDay, together
from tasks.runtime.files import atomic_file
from tasks.runtime.paths import Table


@checked_dataclass(frozen=True, kw_only=True)
class _Month:
    days: dict[str, JudgedDay]


_MONTH = TypeAdapter(_Month)


class JudgedDays:
    """What was found of each day of rows, or of labels."""

    def __init__(self, table: Table, folder: Path | None = None, sums: Mapping[str, DaysTogether] | None = None):
        """Take the folder where the months lie, and what the days of each are together; none for new ones."""
        self._table, self._folder = table, folder
        self._sums = dict(sums or {})
        self._months: dict[str, dict[str, JudgedDay]] = {}
        self._changed: set[str] = set()

    def __contains__(self, day: str) -> bool:
        """Return whether a day is known."""
        return day in self.of_month(day[:7])

    def __getitem__(self, day: str) -> JudgedDay:
        """Return what was found of a day."""
        return self.of_month(day[:7])[day]

    def get(self, day: str) -> JudgedDay | None:
        """Return what was found of a day; None where it is not known."""
        return self.of_month(day[:7]).get(day)

    def months(self) -> list[str]:
        """Return the months that have days, in order."""
        read = {month for month, days in self._months.items() if days}
        return sorted(read | (self._sums.keys() - self._months.keys()))

    def of_month(self, month: str) -> Mapping[str, JudgedDay]:
        """Return the days of a month."""
        if month not in self._months:
            is_stored = self._folder is not None and month in self._sums
            self._months[month] = dict(_MONTH.validate_json(self._file(month).read_bytes()).days) if is_stored else {}
        return self._months[month]

    def of_year(self, year: str) -> Iterator[str]:
        """Yield the days of a year."""
        for month in self.months():
            if month.startswith(year):
                yield from sorted(self.of_month(month))

    def note(self, day: str, found: JudgedDay) -> None:
        """Keep what was found of a day."""
        self.of_month(day[:7])
        self._months[day[:7]][day] = found
        self._changed.add(day[:7])

    def forget(self, day: str) -> None:
        """Forget a day."""
        self.of_month(day[:7])
        self._months[day[:7]].pop(day, None)
        self._changed.add(day[:7])

    def sums(self) -> dict[str, DaysTogether]:
        """Return what the days of each month are together, in order."""
        return {month: self.sum_of(month) for month in self.months()}

    def sum_of(self, month: str) -> DaysTogether:
        """Return what the days of a month are together."""
        return together(self.of_month(month)) if month in self._changed else self._sums[month]

    def sums_before(self, day: str, but: Container[str]) -> Iterator[DaysTogether | JudgedDay]:
        """Yield what was found before a day, but on some days: of a month together where that is known."""
        left_out = {month for month in self.months() if any(each in but for each in _days_of(month))}
        for month in self.months():
            if month < day[:7] and month not in left_out:
                yield self.sum_of(month)
            elif month <= day[:7]:
                yield from (found for each, found in self.of_month(month).items() if each < day and each not in but)

    def save(self, folder: Path) -> None:
        """Write the months that have changed."""
        for month in sorted(self._changed):
            days = {day: without_defaults(asdict(found)) for day, found in sorted(self.of_month(month).items())}
            write(folder / self._file(month).name, {"days": days} if days else {})

    def _file(self, month: str) -> Path:
        return (self._folder or Path()) / f"{self._table}-{month}.json"


def _days_of(month: str) -> list[str]:
    return [f"{month}-{number:02d}" for number in range(1, 32)]


def without_defaults(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an entry without what is empty, lest years of days say the same."""
    kept = {name: value for name, value in entry.items() if value not in (None, {}, [])}
    if "by_row" in kept:
        kept["by_row"] = [{name: n for name, n in tally.items() if n} for tally in kept["by_row"]]
    return kept


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write compact JSON; a file without content is removed."""
    if not content:
        file.unlink(missing_ok=True)
        return
    with atomic_file(file) as temporary:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", "utf-8")
