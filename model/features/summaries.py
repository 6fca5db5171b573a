"""What a person would count of the events of a row by hand, as plain numbers for trees and lines.

Counts, days and sums are given as logarithms: trees do not mind, and lines read them better.
"""

import numpy as np

from model.features.histories import Histories

RECENT_DAYS = (7, 30, 90, 180, 365)
"""Days in which events are counted."""
SUMMED_DAYS = 90
"""Days over which the numbers of events are summed beside the sum of all."""
N_OF_TIMES = 9 + len(RECENT_DAYS)
N_OF_NUMBER = 5


def n_summaries(n_numbers: int, n_categories: int) -> int:
    """Return how many numbers sum up the events of a row."""
    return N_OF_TIMES + N_OF_NUMBER * n_numbers + n_categories


def summaries(events: Histories, numbers: tuple[str, ...], categories: tuple[str, ...]) -> np.ndarray:
    """Return the summaries of each row's events. Shapes: float32 [n, summaries], NaN for what there is none of."""
    parts = [_of_times(events), *(_of_number(events, events.numbers(name)) for name in numbers)]
    parts += [np.log1p(_different(events, name))[:, None] for name in categories]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _of_times(events: Histories) -> np.ndarray:
    """Return counts, days and gaps. Shapes: float64 [n, N_OF_TIMES]."""
    n, rows, gaps = events.counts, events.rows, events.gap_days
    newest, oldest = _at(events, events.days_ago, -1), _at(events, events.days_ago, 0)
    gapped = ~np.isnan(gaps) & (gaps > 0)  # what happens at one time is no gap
    n_gaps, longest = _sum(events, gapped), np.full(len(n), np.nan)
    np.fmax.at(longest, rows[gapped], gaps[gapped])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n_gaps > 0, _sum(events, np.where(gapped, gaps, 0)) / n_gaps, np.nan)
        square = _sum(events, np.where(gapped, (gaps - mean[rows]) ** 2, 0))
        spread = np.where(n_gaps > 1, np.sqrt(square / n_gaps), np.nan)
        overdue = newest / mean
    last = _at(events, np.where(gapped, gaps, np.nan), -1)
    recent = [_sum(events, events.days_ago < days) for days in RECENT_DAYS]
    columns = [n, newest, oldest, n_gaps, mean, spread, longest, last, overdue, *recent]
    return np.log1p(np.stack(columns, axis=1))


def _of_number(events: Histories, values: np.ndarray) -> np.ndarray:
    """Return sum, mean, largest and newest number, and the recent sum. Shapes: [m] -> float64 [n, N_OF_NUMBER]."""
    known = ~np.isnan(values)
    total, n = _sum(events, np.where(known, values, 0)), _sum(events, known)
    largest = np.full(len(n), np.nan)
    np.fmax.at(largest, events.rows, values)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n > 0, total / n, np.nan)
    recent = _sum(events, np.where(known & (events.days_ago < SUMMED_DAYS), values, 0))
    columns = np.stack([total, mean, largest, _at(events, values, -1), recent], axis=1)
    return np.sign(columns) * np.log1p(np.abs(columns))


def _different(events: Histories, name: str) -> np.ndarray:
    """Return how many different words each row has. Shapes: float64 [n]."""
    words = events.words(name)
    known = np.array([word is not None for word in words], bool)
    _, numbers = np.unique(words[known].astype(str), return_inverse=True)
    pairs = np.unique(np.stack([events.rows[known], numbers]), axis=1)
    return np.bincount(pairs[0], minlength=len(events.counts)).astype(float)


def _sum(events: Histories, values: np.ndarray) -> np.ndarray:
    """Return the sum of each row. Shapes: [m] -> float64 [n]."""
    return np.bincount(events.rows, values.astype(float), minlength=len(events.counts))


def _at(events: Histories, values: np.ndarray, place: int) -> np.ndarray:
    """Return the first (0) or last (-1) value of each row, NaN for a row without one. Shapes: [m] -> float64 [n]."""
    found, has = np.full(len(events.counts), np.nan), events.counts > 0
    at = events.offsets[:-1] if place == 0 else events.offsets[1:] - 1
    found[has] = values[at[has]]
    return found
