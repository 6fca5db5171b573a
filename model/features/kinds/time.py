"""Times: minute of day, day of week and day of year, which the network reads as waves."""

from typing import TYPE_CHECKING, Any

import numpy as np

from model.features.fitting import FittingRows
from model.features.kinds import TIME
from model.features.kinds.base import Kind

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.features.encoded import Sizes
    from model.features.kinds.modules.columns import Reconstruction

PERIOD_DAYS = (1, 7, 365)
"""Days after which minute of day, day of week and day of year have been through all their values."""

Cycles = tuple[int, ...]


class Time(Kind[Cycles]):
    """Per column the parts that are read, as numbered by `time_parts`.

    Encoded as float32 [n, columns, 3]: minute of day, day of week (Monday 0), day of year (from 0), NaN for missing.
    """

    name = TIME
    key = "cycles"
    input = "times"
    module = "times"

    @classmethod
    def fit_column(cls, column: np.ndarray, rows: FittingRows) -> Cycles:
        """Return the cycles that the rows have been through at least once. Shapes: datetime64[s] [n].

        Of any other a network would learn a stretch and guess the rest, wildly: what it makes of June it has
        only ever seen in spring.
        """
        days = column.astype("datetime64[D]")
        days = days[~np.isnat(days)]
        n_days = int((days.max() - days.min()).astype(int)) + 1 if days.size else 0
        return tuple(part for part, period in enumerate(PERIOD_DAYS) if n_days >= period)

    @classmethod
    def encode_column(cls, column: np.ndarray, fitted: Cycles) -> np.ndarray:
        """Return all parts: the network leaves out those that are not read. Shapes: [n] -> float32 [n, 3]."""
        return time_parts(column)

    @classmethod
    def column_from_json(cls, content: Any) -> Cycles:
        """Read back the parts of one column."""
        return tuple(content)

    @classmethod
    def token_module(cls, sizes: tuple[Cycles, ...], d_model: int) -> "nn.Module | None":
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

        return TimeReconstruction(sizes.of(cls.name), d_model) if sizes.of(cls.name) else None

    @classmethod
    def plain_numbers(cls, column: np.ndarray) -> np.ndarray:
        """Return all parts of every time. Shapes: datetime64[s] [n] -> float32 [n, 3]."""
        return time_parts(column)


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
