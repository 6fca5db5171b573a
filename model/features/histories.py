"""Lists of events as cells: what a source delivers, checked and written once as JSON, and read again as arrays.

A stored cell is `{"at": "2024-03-01", "events": [{"time": "2024-02-07", "amount": 12.5, "shop": "north"}]}`: the row's
own time, by which events lie in the past, and the events from the oldest to the newest. A number is one of JSON and a
category is text, so that a cell says itself which fields are which.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

TIME = "time"
"""The key of an event's time in a cell."""
NO_EVENTS = "no events: "
"""How the cell begins that is stored in place of what is none, before the reason."""
MAX_BYTES = 32 * 2**20
MAX_DELIVERED = 100_000
"""Events of a delivered cell at most."""
MAX_NUMBER = 1e30
MAX_WORD = 1_000
"""Characters of a category at most."""
CHUNK_CELLS = 10_000
"""Cells that lie in memory as objects at once."""
PER_BIN = 1024
"""Steps of a bin in which the place of a number among its bin edges is counted, as networks read it."""
NOTHING = -1
"""In place of a number that an event does not have, of all fields that another column has, and of padding."""
LEAK = "an event is later than its row"

Event = dict[str, str | float]


@dataclass(frozen=True, kw_only=True)
class EventForm:
    """How the events of a column are read."""

    numbers: tuple[str, ...] = ()
    """Fields that hold numbers."""
    categories: tuple[str, ...] = ()
    """Fields that hold words."""
    time: str = TIME
    """The field with an event's time."""
    max_events: int = 64
    """Events that are kept of a row, the newest."""
    days_before: int = 0
    """How many days before its own date a row is known: later events are from its future."""
    zone: str = "UTC"
    """The time zone whose clocks tell an event's date."""


@dataclass(frozen=True, kw_only=True)
class EventSizes:
    """What the network must know of one column."""

    max_events: int
    n_bins: tuple[int, ...]
    """Of the days to the row, of those from the event before, and of each field of numbers."""
    n_slots: tuple[int, ...]
    """Of each field of categories."""
    n_summaries: int


def stored_events(cell: object, form: EventForm, at: datetime) -> str:
    """Return a delivered list as it is stored for a row of the time `at`.

    `cell` is a list of mappings, or such a list as JSON text. What is no such list becomes NO_EVENTS and the reason,
    which holds no value of the cell.
    """
    try:
        events = [_event(each, form) for each in _items_of(cell)]
        if any(event[0].toordinal() > at.toordinal() - form.days_before for event in events):
            raise ValueError(LEAK)
    except ValueError as error:
        return f"{NO_EVENTS}{error}"
    events.sort(key=lambda event: event[0])  # a stable order: events of one time stay as they were delivered
    return cell_of(at, [fragment for _, fragment in events[-form.max_events :]])


def cell_of(at: datetime, fragments: Sequence[str]) -> str:
    """Return a stored cell of events that are written already."""
    return f'{{"at":"{_iso(at)}","events":[{",".join(fragments)}]}}'


def fragment_of(time: datetime, fields: Mapping[str, object]) -> str:
    """Return one event of a stored cell; a field that is None is left out."""
    known = {name: value for name, value in fields.items() if value is not None}
    return json.dumps({TIME: _iso(time), **known}, ensure_ascii=False, separators=(",", ":"))


def misfit_reason(cell: object) -> str:
    """Return why a cell holds no events as they are stored; empty where it does."""
    if not isinstance(cell, str):
        return "it is no text"
    if cell.startswith(NO_EVENTS):
        return cell.removeprefix(NO_EVENTS)
    try:
        content = json.loads(cell)
        last = datetime.fromisoformat(content["at"]).date()
        for event in content["events"]:
            if datetime.fromisoformat(event[TIME]).date() > last:
                return LEAK
            if not all(isinstance(value, str | int | float) for value in event.values()):
                return "a field is neither a number nor text"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "it is not as events are stored"
    return ""


@dataclass(frozen=True, kw_only=True)
class Histories:
    """The events of rows, end to end, the oldest of each row first."""

    offsets: np.ndarray
    """int64 [n + 1]: where each row's events begin."""
    days_ago: np.ndarray
    """float64 [m]: days from an event to its row's time, 0 where it lies later on the same day."""
    fields: Mapping[str, Sequence[Any]]
    """The values of each field, [m]: numbers, or text; None where an event has none."""

    @property
    def counts(self) -> np.ndarray:
        """Return the events of each row. Shapes: int64 [n]."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> np.ndarray:
        """Return the row of each event. Shapes: int64 [m]."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    @property
    def gap_days(self) -> np.ndarray:
        """Return the days from the event before to each one, NaN for a row's first. Shapes: float64 [m]."""
        gaps = np.full(len(self.days_ago), np.nan)
        gaps[1:] = self.days_ago[:-1] - self.days_ago[1:]
        gaps[self.offsets[:-1][self.counts > 0]] = np.nan
        return gaps

    def numbers(self, name: str) -> np.ndarray:
        """Return a field as numbers, NaN for what is none. Shapes: float64 [m]."""
        values = self.fields.get(name, [None] * len(self.days_ago))
        return np.array([value if _is_number(value) else np.nan for value in values], np.float64)

    def words(self, name: str) -> np.ndarray:
        """Return a field as words, None for what is none. Shapes: object [m]."""
        words = np.full(len(self.days_ago), None, object)
        words[:] = [
            value if isinstance(value, str) else None for value in self.fields.get(name, [None] * len(self.days_ago))
        ]
        return words

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the fields that hold numbers, and those that hold words, each by the alphabet."""
        numbers = (name for name, values in self.fields.items() if any(map(_is_number, values)))
        words = (name for name, values in self.fields.items() if any(isinstance(value, str) for value in values))
        return tuple(sorted(numbers)), tuple(sorted(words))


def read(cells: np.ndarray) -> Iterator[Histories]:
    """Yield the events of stored cells, None for none, in chunks of CHUNK_CELLS rows; one without rows for no cell.

    Shapes: object [n].
    """
    for first in range(0, max(1, len(cells)), CHUNK_CELLS):
        yield _read(cells[first : first + CHUNK_CELLS])


def _read(cells: np.ndarray) -> Histories:
    known = [cell for cell in cells if cell is not None]
    contents = iter(json.loads(f"[{','.join(known)}]"))
    rows = [None if cell is None else next(contents) for cell in cells]
    counts = np.array([0 if row is None else len(row["events"]) for row in rows], np.int64)
    events: list[Event] = [event for row in rows if row is not None for event in row["events"]]
    at = np.array(["1970-01-01" if row is None else row["at"] for row in rows], "datetime64[s]")
    times = np.array([event[TIME] for event in events], "datetime64[s]")
    days = (np.repeat(at, counts) - times) / np.timedelta64(1, "D")
    names = {name for event in events for name in event} - {TIME}
    return Histories(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        days_ago=np.maximum(days, 0.0),
        fields={name: [event.get(name) for event in events] for name in sorted(names)},
    )


def _items_of(cell: object) -> list[Any]:
    """Return the events of a delivered cell. Raises ValueError where it is no list."""
    if isinstance(cell, str):
        if len(cell) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES // 2**20} MiB")
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise ValueError("neither a list nor one as JSON") from None
    if isinstance(cell, np.ndarray | tuple):
        cell = list(cell)
    if not isinstance(cell, list):
        raise ValueError("neither a list nor one as JSON")
    if len(cell) > MAX_DELIVERED:
        raise ValueError(f"more than {MAX_DELIVERED:,} events")
    return cell


def _event(event: object, form: EventForm) -> tuple[datetime, str]:
    """Return an event's time and how it is stored. Raises ValueError."""
    if not isinstance(event, Mapping):
        raise ValueError("an event is no object")
    time = time_of(event.get(form.time), form.zone)
    if time is None:
        raise ValueError(f"an event has no {form.time}")
    fields: dict[str, object] = {name: number_of(event.get(name), name) for name in form.numbers}
    fields |= {name: word_of(event.get(name), name) for name in form.categories}
    return time, fragment_of(time, fields)


def time_of(value: object, zone: str) -> datetime | None:
    """Return a time as the clocks of the zone show it, without parts of a second; None for what is none."""
    if isinstance(value, np.datetime64):
        value = None if np.isnat(value) else value.astype("datetime64[us]").item()
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime) or value != value:
        return None
    if value.tzinfo is not None:
        value = value.astimezone(UTC if zone == "UTC" else ZoneInfo(zone))
    return datetime(value.year, value.month, value.day, value.hour, value.minute, value.second)


def number_of(value: object, name: str) -> float | None:
    """Return a number, None for what is missing. Raises ValueError for what is neither."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | int | float | Decimal | np.number):
        raise ValueError(f"{name} of an event is no number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} of an event is no number") from None
    if math.isnan(number) and not isinstance(value, str):  # what a column of floats has for missing
        return None
    if not math.isfinite(number):
        raise ValueError(f"{name} of an event is no finite number")
    return max(-MAX_NUMBER, min(MAX_NUMBER, number))


def word_of(value: object, name: str) -> str | None:
    """Return a category as text, None for what is missing. Raises ValueError for what is neither."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | int | float | np.number | np.bool_ | date | Decimal):
        raise ValueError(f"{name} of an event is no single value")
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) < 2**53:
        value = int(value)
    if len(word := str(value)) > MAX_WORD:
        raise ValueError(f"{name} of an event has more than {MAX_WORD:,} characters")
    return word or None


def _iso(time: datetime) -> str:
    text = time.isoformat()
    return text.removesuffix("T00:00:00")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
