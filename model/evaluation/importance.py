"""Measure how much each column moves what a model says: its cells change places, and the rows are scored again.

Cells change places within a day, as rows of one day share what that day brought; a column that is the same for all rows
of a day changes whole days. Which cells go where follows from the column's name alone. Columns that say the same share
what they are worth: each alone then seems to be worth little.

Source: Breiman, "Random Forests" (2001), section 10; the interval is Student's, with the repeats as observations.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from model.evaluation.metrics import CONFIDENCE
from model.features.fitting import Table

MIN_ROWS_OF_A_DAY = 5
"""Where days have fewer rows in the mean, cells change places among all rows."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What one column is worth to a model."""

    column: str
    """Its name."""
    loss: float | None
    """By how much the metric is worse without it, the mean of the repeats; None where the rows do not define it."""
    interval_95: tuple[float, float] | None
    """Of the loss; None where it is."""
    movement: float
    """How far a score moves in the mean, in the unit of scores."""
    by_days: bool
    """Whether whole days changed places."""


def permutation_importance(
    table: Table,
    days: np.ndarray,
    score: Callable[[Table], np.ndarray],
    measure: Callable[[np.ndarray], float | None],
    n_repeats: int,
) -> Iterator[Importance]:
    """Yield what each column of the table is worth, in the order of the columns.

    `measure` makes of scores a metric of which more is better. Shapes: days datetime64[D] [n]; scores [n, ...].
    """
    scores = score(table)
    value = measure(scores)
    _, day = np.unique(days, return_inverse=True)
    if len(day) < MIN_ROWS_OF_A_DAY * (day.max(initial=0) + 1):
        day = np.zeros_like(day)
    for name, column in table.items():
        random, by_days = np.random.default_rng(zlib.crc32(name.encode())), is_constant_within(column, day)
        losses, movements = [], []
        for _ in range(n_repeats):
            order = whole_days(day, random) if by_days else within_days(day, random)
            moved = score({**table, name: column[order]})
            left = measure(moved)
            losses.append(np.nan if value is None or left is None else value - left)
            movements.append(float(np.abs(moved.astype(float) - scores).mean()) if len(scores) else 0.0)
        yield _summed_up(name, np.array(losses), movements, by_days=by_days)


def _summed_up(name: str, losses: np.ndarray, movements: list[float], *, by_days: bool) -> Importance:
    from scipy import stats

    movement, mean = float(np.mean(movements)), float(losses.mean())
    if not np.isfinite(mean) or len(losses) < 2:
        return Importance(column=name, loss=None, interval_95=None, movement=movement, by_days=by_days)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(losses) - 1))
    margin = quantile * float(losses.std(ddof=1)) / len(losses) ** 0.5
    interval = (mean - margin, mean + margin)
    return Importance(column=name, loss=mean, interval_95=interval, movement=movement, by_days=by_days)


def is_constant_within(column: np.ndarray, day: np.ndarray) -> bool:
    """Return whether all rows of each of several days have the same cell. Shapes: [n], int [n].

    >>> is_constant_within(np.array([1.0, 1.0, np.nan, np.nan]), np.array([0, 0, 1, 1]))
    True
    >>> is_constant_within(np.array([1.0, 1.0]), np.array([0, 0]))
    False
    """
    if day.max(initial=0) == 0:
        return False
    first = column[_first_rows(day)][day]
    same = (column == first) | ((column != column) & (first != first))
    return bool(np.all(same))


def within_days(day: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return which row's cell each row gets: of the same day. Shapes: int [n] -> int [n]."""
    order = np.empty(len(day), int)
    order[np.argsort(day, kind="stable")] = np.lexsort((random.random(len(day)), day))
    return order


def whole_days(day: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return which row's cell each row gets: all rows of a day that of one other day. Shapes: int [n] -> int [n]."""
    first = _first_rows(day)
    return first[random.permutation(len(first))][day]


def _first_rows(day: np.ndarray) -> np.ndarray:
    return np.unique(day, return_index=True)[1]
