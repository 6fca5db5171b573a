"""Keep what was found of each day of one product, in files among its valid rows.

    data/valid/<product>/ledger/rows-2013-06.json       what was found of each day of a month, of rows or of labels
    data/valid/<product>/ledger/compared-2013-06.json   what days are compared by
    data/valid/<product>/ledger/ledger.json             by which rules it was judged, what the days of each month are
                                                        together, and what the other files look like

`ledger.json` is written last: what it does not know, or knows otherwise, is not trusted, and those days are judged
anew. All of it follows from raw data, decisions and rules alone, not from how many runs it was judged in.
"""

from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from tasks.quality.day_summaries import DaySummary
from tasks.quality.ledger.days import JudgedDays, without_defaults, write
from tasks.quality.ledger.files import Marks
from tasks.quality.ledger.records import DaysTogether, JudgedDay
from tasks.quality.verdicts import Drift
from tasks.runtime.paths import TABLES, Table

FOLDER = "ledger"
INDEX = "ledger.json"
PLACE = f"valid/{FOLDER}/{INDEX}"
KEYS = "keys"


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
    inputs: dict[Table, dict[str, str]]
    sums: dict[Table, dict[str, DaysTogether]]
    files: dict[str, str]


_COMPARED, _INDEX = TypeAdapter(_Compared), TypeAdapter(_Index)
_SUMS = TypeAdapter(dict[Table, dict[str, DaysTogether]])


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
    days: dict[Table, JudgedDays] = field(default_factory=lambda: {name: JudgedDays(name) for name in TABLES})
    """What was found of each day, by table."""
    inputs: dict[Table, dict[str, str]] = field(default_factory=lambda: {name: {} for name in TABLES})
    """What identifies all that is known of the days of a year, of years that are over, by table."""
    compared: dict[str, DaySummary] = field(default_factory=dict)
    """What days are compared by, of the days that are, read or made so far."""
    verdicts: dict[str, Drift] = field(default_factory=dict)
    """Of judged days those that are held, or that a person accepted."""
    folder: Path | None = None
    """Where it was read from; None for a new one."""
    files: dict[str, str] = field(default_factory=dict)
    """What the files look like that belong to it, by their place; see `Marks`."""
    marks: Marks = field(default_factory=Marks)
    """What files this run has looked at."""
    _changed: set[str] = field(default_factory=set)
    _months_read: set[str] = field(default_factory=set)

    def note(self, table: Table, day: str, found: JudgedDay) -> None:
        """Keep what was found of a day."""
        self.days[table].note(day, found)

    def note_compared(self, day: str, summary: DaySummary) -> None:
        """Keep what a day is compared by."""
        self._read_compared(day[:7])
        self.compared[day] = summary
        self._changed.add(day[:7])

    def forget(self, table: Table, day: str) -> None:
        """Forget a day."""
        self.days[table].forget(day)
        if table == "rows":
            self.forget_compared(day)

    def forget_compared(self, day: str) -> None:
        """Forget what a day is compared by: it no longer is."""
        self._read_compared(day[:7])
        if self.compared.pop(day, None):
            self._changed.add(day[:7])

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
        folder = valid / FOLDER
        for days in self.days.values():
            days.save(folder)
        for month in sorted(self._changed):
            of_month = {day: asdict(each) for day, each in sorted(self.compared.items()) if day.startswith(month)}
            content = {"days": {day: without_defaults(entry) for day, entry in of_month.items()}} if of_month else {}
            write(folder / f"compared-{month}.json", content)
        index = {
            "judged_by": self.judged_by,
            "as_of": self.as_of,
            "first_judged": self.first_judged,
            "compared_since": self.compared_since,
            "verdicts": {day: asdict(verdict) for day, verdict in sorted(self.verdicts.items())},
            "inputs": self.inputs,
            "sums": _SUMS.dump_python({name: days.sums() for name, days in self.days.items()}, exclude_defaults=True),
            "files": self.marks.of(valid, quarantine, PLACE),
        }
        write(folder / INDEX, index)

    @classmethod
    def read(cls, valid: Path) -> "Ledger":
        """Return the ledger of a folder of valid rows. Raises ValueError or OSError where none is whole."""
        folder = valid / FOLDER
        index = _INDEX.validate_json((folder / INDEX).read_bytes())
        return cls(
            judged_by=index.judged_by,
            as_of=index.as_of,
            first_judged=index.first_judged,
            compared_since=index.compared_since,
            verdicts=index.verdicts,
            days={name: JudgedDays(name, folder, index.sums[name]) for name in TABLES},
            inputs=index.inputs,
            files=index.files,
            folder=folder,
        )

    def _read_compared(self, month: str) -> None:
        if self.folder is None or month in self._months_read:
            return
        self._months_read.add(month)
        file = self.folder / f"compared-{month}.json"
        if file.exists():
            self.compared |= _COMPARED.validate_json(file.read_bytes()).days
