"""Times: minute of day, day of week and day of year, which the network reads as waves, and how late it is: the trend.

The trend goes from 0 at the first of the fitted rows to 1 at the last, and on to the newest of the rows that join once
all is chosen, if that is a year later: in a shorter stretch nobody can tell a season from a trend. Beyond that a model
knows only that a time is later than all it has seen, and takes it for the last it knows.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from model.features.fitting import FittingRows
from model.features.kinds import TIME
from model.features.kinds.base import Json, Kind
from model.features.kinds.making import Maker, TimeMaker

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.features.encoded import Sizes
    from model.features.kinds.modules.columns import Reconstruction

PERIOD_DAYS = (1, 7, 365)
"""Days after which minute of day, day of week and day of year have been through all their values."""

PART_NAMES = (
    tuple(f"{hour:02}:00 to {hour:02}:59" for hour in range(24)),
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    tuple(f"days {math.ceil(30.5 * month)} to {math.ceil(30.5 * (month + 1)) - 1} of the year" for month in range(13)),
)
"""What hour, weekday and month are called, as `modules.time` counts them."""

Cycles = tuple[int, ...]
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class TimeReading:
    """What is read of a column of times."""

    cycles: Cycles
    """The parts that are read as waves, as numbered by `time_parts`."""
    first: int | None = None
    """Seconds since 1970 of the first fitted time; None where a model is older than the trend."""
    last: int | None = None
    """The same of the last."""
    until: int | None = None
    """The same of the newest row that joins the fitted ones, where the trend goes on to it; else None."""

    @property
    def has_trend(self) -> bool:
        """Return whether the trend is read: a stretch of time is needed, and not only a day."""
        return self.first is not None and self.last is not None and self.last - self.first > SECONDS_PER_DAY

    @property
    def end(self) -> float:
        """Return the greatest trend: 1, or more where later rows join."""
        if not self.has_trend or self.until is None:
            return 1.0
        assert self.first is not None
        assert self.last is not None
        return (self.until - self.first) / (self.last - self.first)

    def prolonged(self, newest: np.datetime64) -> "TimeReading":
        """Return the reading whose trend goes on to `newest`, if a year lies between. Shapes: datetime64[s]."""
        if not self.has_trend or np.isnat(newest):
            return self
        last = np.datetime64(self.last, "s").astype("datetime64[D]")
        n_days = int((newest.astype("datetime64[D]") - last).astype(int))
        return replace(self, until=int(newest.astype(int))) if n_days >= max(PERIOD_DAYS) else self

    def to_json(self) -> Json:
        """Return what features.json keeps; of a trend that ends with the fitted rows, as older models wrote it."""
        content = asdict(self)
        return {name: value for name, value in content.items() if name != "until" or value is not None}


class Time(Kind[TimeReading]):
    """Per column what is read of it.

    Encoded as float32 [n, columns, 4]: minute of day, day of week (Monday 0), day of year (from 0) and the trend, NaN
    for missing; of models older than the trend [n, columns, 3].
    """

    name = TIME
    key = "cycles"
    input = "times"
    module = "times"

    @classmethod
    def fit(cls, names: list[str], rows: FittingRows) -> Self:
        """Fit the columns, and how far the trend of each goes on with the rows that join later."""
        fitted = super().fit(names, rows).columns
        newest = dict(zip(names, rows.newest_joining(names), strict=True))
        return cls({name: reading.prolonged(newest[name]) for name, reading in fitted.items()})

    @classmethod
    def fit_column(cls, column: np.ndarray, rows: FittingRows) -> TimeReading:
        """Return the cycles that the rows have been through at least once, and their stretch.

        Of any other a network would learn a stretch and guess the rest, wildly: what it makes of June it has
        only ever seen in spring.
        Shapes: datetime64[s] [n].
        """
        known = column[~np.isnat(column)].astype("datetime64[s]")
        if not known.size:
            return TimeReading(cycles=(), first=0, last=0)
        days = known.astype("datetime64[D]")
        n_days = int((days.max() - days.min()).astype(int)) + 1
        cycles = tuple(part for part, period in enumerate(PERIOD_DAYS) if n_days >= period)
        return TimeReading(cycles=cycles, first=int(known.min().astype(int)), last=int(known.max().astype(int)))

    @classmethod
    def encode_column(cls, column: np.ndarray, fitted: TimeReading) -> np.ndarray:
        """Return all parts: the network leaves out those that are not read. Shapes: [n] -> float32 [n, 4] or [n, 3]."""
        parts = time_parts(column)
        return parts if fitted.first is None else np.c_[parts, trend(column, fitted)]

    def to_json(self) -> Json:
        """Return what is read, by column."""
        return {self.key: {name: reading.to_json() for name, reading in self.columns.items()}}

    @classmethod
    def column_from_json(cls, content: Any) -> TimeReading:
        """Read back what is read of one column; of a model older than the trend, that is its cycles alone."""
        if isinstance(content, list):
            return TimeReading(cycles=tuple(content))
        return TimeReading(**{**content, "cycles": tuple(content["cycles"])})

    @classmethod
    def token_module(cls, sizes: tuple[TimeReading, ...], d_model: int) -> "nn.Module | None":
        """Return waves and a linear map for each column."""
        from model.features.kinds.modules.time import TimeTokens

        return TimeTokens(sizes, d_model) if sizes else None

    @classmethod
    def known(cls, values: "Tensor") -> "Tensor":
        """Return which times are not missing."""
        return ~values[..., 0].isnan()

    @classmethod
    def reconstruction(cls, sizes: "Sizes", d_model: int) -> "Reconstruction | None":
        """Return what guesses the hour, weekday and month of a time, where these are read."""
        from model.features.kinds.modules.time import TimeReconstruction

        readings = sizes.of(cls.name)
        return TimeReconstruction(tuple(each.cycles for each in readings), d_model) if readings else None

    @classmethod
    def cell_name(cls, cell: Any) -> str | None:
        """Return the time to the minute."""
        return None if np.isnat(cell) else str(np.datetime64(cell, "m")).replace("T", " ")

    @classmethod
    def choice_names(cls, fitted: TimeReading) -> np.ndarray:
        """Return hour, weekday and month, as far as these are read; None where one of them is missing."""
        names: list[str | None] = [""]
        for part in fitted.cycles:  # the first part is the least of the number
            names = [
                None if before is None or name is None else f"{before} {name}".strip()
                for name in (*PART_NAMES[part], None)
                for before in names
            ]
        return np.array(names, object)

    @classmethod
    def maker(cls, fitted: TimeReading, known: np.ndarray) -> Maker:
        """Return what makes times of hour, weekday and month, as far as these are read."""
        from model.features.kinds.modules.time import MINUTE, UNITS

        known, parts = known.astype("datetime64[s]"), np.empty((len(known), 0), np.int64)
        for number in fitted.cycles:
            unit, n_choices = UNITS[number]
            chosen = np.where(np.isnat(known), n_choices, np.nan_to_num(time_parts(known)[:, number]) // unit)
            parts = np.c_[parts, chosen.astype(np.int64)]
        hour = fitted.cycles.index(MINUTE) if MINUTE in fitted.cycles else None
        return TimeMaker(known, parts, tuple(UNITS[number][1] + 1 for number in fitted.cycles), hour)

    @classmethod
    def plain_numbers(cls, column: np.ndarray) -> np.ndarray:
        """Return all parts of every time, and its days since 1970. Shapes: datetime64[s] [n] -> float32 [n, 4]."""
        seconds = np.where(np.isnat(column), np.nan, column.astype("datetime64[s]").astype(np.int64))
        return np.c_[time_parts(column), (seconds / SECONDS_PER_DAY).astype(np.float32)]


def trend(column: np.ndarray, fitted: TimeReading) -> np.ndarray:
    """Return how late each time is: 0 at the first of the fitted rows, 1 at the last. Shapes: [n] -> float32 [n].

    >>> days = np.array(["2024-01-01", "2024-01-03", "2031-01-01", "NaT"], "datetime64[s]")
    >>> reading = TimeReading(cycles=(), first=1_704_067_200, last=1_704_067_200 + 4 * 86_400)
    >>> trend(days, reading)
    array([0. , 0.5, 1. , nan], dtype=float32)
    """
    if not fitted.has_trend:
        return np.where(np.isnat(column), np.nan, 0.0).astype(np.float32)
    assert fitted.first is not None
    assert fitted.last is not None
    seconds = column.astype("datetime64[s]").astype(np.int64)
    share = (seconds.astype(np.float64) - fitted.first) / (fitted.last - fitted.first)
    return np.where(np.isnat(column), np.nan, share.clip(0, fitted.end)).astype(np.float32)


def time_parts(column: np.ndarray) -> np.ndarray:
    """Return minute of day, day of week (Monday 0) and day of year (from 0).

    Shapes: datetime64[s] [n] -> float32 [n, 3].

    >>> time_parts(np.array(["1970-01-01T01:30", "NaT"], "datetime64[s]"))
    array([[90.,  3.,  0.],
           [nan, nan, nan]], dtype=float32)
    """
    seconds = column.astype("datetime64[s]")
    days, years = seconds.astype("datetime64[D]"), seconds.astype("datetime64[Y]")
    minute_of_day = (seconds - days).astype(np.int64) / 60
    day_of_week = (days.astype(np.int64) + 3) % 7  # the epoch was a Thursday
    day_of_year = (days - years.astype("datetime64[D]")).astype(np.int64)
    parts = np.stack([minute_of_day, day_of_week, day_of_year], axis=1).astype(np.float32)
    parts[np.isnat(seconds)] = np.nan
    return parts
