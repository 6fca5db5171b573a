"""Events: what happened before a row, a token each, the newest ones of a row.

Beside the tokens stands what a person would count by hand: how many there were and when, and sums of their numbers.
Trees, line and baseline read these.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from model.features.bins import bin_edges
from model.features.fitting import FittingRows, Table
from model.features.histories import NOTHING, PER_BIN, EventSizes, Histories, misfit_reason, read, stored_events
from model.features.kinds import EVENTS
from model.features.kinds.base import Arrays, CellForm, Input, Json, Kind
from model.features.kinds.category import FIRST_KNOWN, UNKNOWN, Category
from model.features.ragged import padded, taken_positions
from model.features.summaries import n_summaries, summaries

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.features.encoded import Sizes
    from model.features.kinds.modules.columns import Reconstruction
    from model.settings import OptimisationSettings

N_TIMES = 2
"""Numbers that every event has: the days to its row, and from the event before."""

Edges = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class EventColumn:
    """What is fitted of one column."""

    max_events: int
    """Events of the row that has most."""
    days_ago: Edges
    """Bin edges of the days to the row."""
    gap_days: Edges
    """Bin edges of the days from the event before."""
    numbers: dict[str, Edges]
    """Bin edges of each field of numbers."""
    categories: dict[str, tuple[str, ...]]
    """Known words of each field of categories, as of `category.Category`."""


class Events(Kind[EventColumn]):
    """Bins and words of each field.

    Encoded as ragged arrays: events int32 [all events, 1 + fields of all columns], end to end; event_offsets int64
    [n + 1], where each row's begin; and event_summaries float32 [n, summaries]. Of an event come first its place,
    counted from the newest of its column and after those of the columns before; then for each number its place among
    the bin edges in steps of 1 / PER_BIN, and for each category its slot. So what a network reads are small whole
    numbers, exact in any engine.
    """

    name = EVENTS
    key = "events"
    input = "events"
    module = "events"
    is_sequence = True

    is_converted = True

    @classmethod
    def misfits(cls, cells: np.ndarray) -> np.ndarray:
        """Return which cells hold no events as they are stored."""
        return np.fromiter((bool(misfit_reason(cell)) for cell in cells), bool, len(cells))

    @classmethod
    def stored(cls, cell: object, form: CellForm, at: datetime) -> str:
        """Return a delivered list of events as it is stored."""
        return stored_events(cell, form.events, at)

    @classmethod
    def misfit_reason(cls, cell: object) -> str:
        """Return what is wrong with a list of events."""
        return misfit_reason(cell)

    @classmethod
    def fit_column(cls, column: np.ndarray, rows: FittingRows) -> EventColumn:
        """Fit bins and words to the events of all rows. Shapes: object [n]."""
        parts = list(read(column))
        names = [part.names() for part in parts]
        numbers, words = (sorted({name for each in names for name in each[form]}) for form in (0, 1))

        def edges(values: list[np.ndarray]) -> Edges:
            return tuple(map(float, bin_edges(np.concatenate(values), None, "")))

        vocabularies = {
            name: Category.fit_column(np.concatenate([part.words(name) for part in parts]), rows) for name in words
        }
        return EventColumn(
            max_events=max(1, *(int(part.counts.max(initial=0)) for part in parts)),
            days_ago=edges([part.days_ago for part in parts]),
            gap_days=edges([part.gap_days for part in parts]),
            numbers={name: edges([part.numbers(name) for part in parts]) for name in numbers},
            categories=vocabularies,
        )

    def encode(self, table: Table) -> dict[str, np.ndarray]:
        """Return the events of all columns, row by row, and the summaries of all columns."""
        if not self.columns:
            return {}
        n_numbers = sum(N_TIMES + len(each.numbers) for each in self.columns.values())
        width = 1 + n_numbers + sum(len(each.categories) for each in self.columns.values())
        place, number, category = 0, 1, 1 + n_numbers
        events, owners, counted = [], [], []
        for name, fitted in self.columns.items():
            parts = list(read(table[name]))
            starts = np.cumsum([0, *(len(part.counts) for part in parts)])
            for part, start in zip(parts, starts, strict=False):
                found, rows = encode_events(part, fitted, (place, number, category), width)
                events.append(found)
                owners.append(rows + start)
            read_of = tuple(fitted.numbers), tuple(fitted.categories)
            counted.append(np.concatenate([summaries(part, *read_of) for part in parts]))
            place += fitted.max_events
            number, category = number + N_TIMES + len(fitted.numbers), category + len(fitted.categories)
        owner = np.concatenate(owners)
        counts = np.bincount(owner, minlength=len(counted[0]))
        return {
            "events": np.concatenate(events)[np.argsort(owner, kind="stable")],
            "event_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            "event_summaries": np.concatenate(counted, axis=1),
        }

    @classmethod
    def encode_column(cls, column: np.ndarray, fitted: EventColumn) -> np.ndarray:
        """Raise: the columns of a row are put together."""
        raise NotImplementedError

    def to_json(self) -> Json:
        """Return bins and words by column."""
        return {self.key: {name: asdict(each) for name, each in self.columns.items()}} if self.columns else {}

    @classmethod
    def column_from_json(cls, content: Any) -> EventColumn:
        """Read back bins and words of one column."""
        return EventColumn(
            max_events=content["max_events"],
            days_ago=tuple(content["days_ago"]),
            gap_days=tuple(content["gap_days"]),
            numbers={name: tuple(edges) for name, edges in content["numbers"].items()},
            categories={name: tuple(words) for name, words in content["categories"].items()},
        )

    @property
    def sizes(self) -> tuple[EventSizes, ...]:
        """Return the numbers of bins, slots and summaries of each column."""
        return tuple(
            EventSizes(
                max_events=each.max_events,
                n_bins=tuple(len(edges) - 1 for edges in (each.days_ago, each.gap_days, *each.numbers.values())),
                n_slots=tuple(FIRST_KNOWN + len(words) for words in each.categories.values()),
                n_summaries=n_summaries(len(each.numbers), len(each.categories)),
            )
            for each in self.columns.values()
        )

    @classmethod
    def n_tokens(cls, arrays: Arrays) -> int | np.ndarray:
        """Return the events of every window: each window of a row has all of that row's."""
        if "events" not in arrays:
            return 0
        counts = np.diff(arrays["event_offsets"])
        return np.repeat(counts, np.diff(arrays["window_offsets"])) if "window_offsets" in arrays else counts

    @classmethod
    def token_batch(cls, arrays: Arrays, rows: np.ndarray, windows: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        """Return the events of the given windows. Shapes: int64 [w, most, 1 + fields], NOTHING for padding."""
        if "events" not in arrays:
            return {}
        return {"events": padded(arrays["events"], arrays["event_offsets"], rows, np.int64(NOTHING))}

    @classmethod
    def row_batch(cls, arrays: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the summaries of the given rows. Shapes: float32 [b, summaries], NaN for what there is none of."""
        return {"event_summaries": arrays["event_summaries"][rows]} if "events" in arrays else {}

    @classmethod
    def take(cls, arrays: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the ragged arrays of the given rows alone."""
        if "events" not in arrays:
            return {}
        at, offsets = taken_positions(arrays["event_offsets"], rows)
        return {"events": arrays["events"][at], "event_offsets": offsets, **cls.row_batch(arrays, rows)}

    @classmethod
    def inputs(cls) -> tuple[Input, ...]:
        """Return events by window, and summaries by row."""
        return Input(name="events", ragged="n_events"), Input(name="event_summaries", of="rows")

    @classmethod
    def token_module(cls, sizes: tuple[EventSizes, ...], d_model: int) -> "nn.Module | None":
        """Return what sums the parts of an event."""
        from model.features.kinds.modules.events import EventTokens

        return EventTokens(sizes, d_model) if sizes else None

    @classmethod
    def real(cls, values: "Tensor", sizes: "Sizes") -> "Tensor":
        """Return which events are no padding."""
        return values[..., 0] >= 0

    @classmethod
    def disturb(cls, values: "Tensor", sizes: "Sizes", settings: "OptimisationSettings") -> "Tensor":
        """Return the events with a few words made unknown."""
        from model.features.kinds.modules.events import forget_words

        return forget_words(values, sizes.of(cls.name), UNKNOWN)

    @classmethod
    def hide(cls, values: "Tensor", sizes: "Sizes", fraction: float) -> "tuple[Tensor, Tensor]":
        """Return which events are hidden, and the others: of a hidden one only its place is seen."""
        from model.features.kinds.modules.events import hide_events

        return hide_events(values, sizes.of(cls.name), fraction)

    @classmethod
    def reconstruction(cls, sizes: "Sizes", d_model: int) -> "Reconstruction | None":
        """Return what guesses the fields of hidden events."""
        from model.features.kinds.modules.events import EventReconstruction

        return EventReconstruction(sizes.of(cls.name), d_model) if sizes.of(cls.name) else None

    @classmethod
    def plain_numbers(cls, column: np.ndarray) -> np.ndarray:
        """Return the summaries of a column, with the fields that it has itself."""
        return cls.plain_reader(column)(column)

    @classmethod
    def plain_reader(cls, column: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return what makes summaries of columns, with the fields of this one."""
        names = [part.names() for part in read(column)]
        numbers, words = (tuple(sorted({name for each in names for name in each[form]})) for form in (0, 1))
        return lambda cells: np.concatenate([summaries(part, numbers, words) for part in read(cells)])


def encode_events(
    part: Histories, fitted: EventColumn, first: tuple[int, int, int], width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the newest events of rows and the row of each; `first` are the column's first place, number and category.

    Shapes: int32 [m, width], int64 [m].
    """
    from_newest = part.offsets[1:][part.rows] - 1 - np.arange(len(part.days_ago))
    kept = from_newest < fitted.max_events
    place, number, category = first
    events = np.full((int(kept.sum()), width), NOTHING, np.int32)
    events[:, 0] = place + from_newest[kept]
    numbers = [(part.days_ago, fitted.days_ago), (part.gap_days, fitted.gap_days)]
    numbers += [(part.numbers(name), edges) for name, edges in fitted.numbers.items()]
    for at, (values, edges) in enumerate(numbers, number):
        events[:, at] = steps(values[kept], edges)
    for at, (name, known) in enumerate(fitted.categories.items(), category):
        events[:, at] = Category.encode_column(part.words(name)[kept], known)
    return events, part.rows[kept]


def steps(values: np.ndarray, edges: Edges) -> np.ndarray:
    """Return the place of each number among the edges, in steps of a bin; NOTHING for NaN. Shapes: [m] -> int32 [m].

    >>> steps(np.array([0.0, 1.5, 9.0, np.nan]), (0.0, 1.0, 2.0)).tolist()
    [0, 1536, 2048, -1]
    """
    places = np.interp(np.nan_to_num(values), edges, np.arange(len(edges)))
    return np.where(np.isnan(values), NOTHING, np.round(places * PER_BIN)).astype(np.int32)
