"""Compare a day with the days before it: does it differ in kind?

Compared are its number of rows, the shares that are missing or quarantined, the mix of each category, the quantiles of
each number, and how far the newest row is behind. A number that all rows of a day share, of kind `context`, is not: one
that follows the calendar, such as days to a holiday, differs every day. The extremes of the days before are usual: a
limit says how far beyond them a day may go, and chance in few rows is allowed for. Single rows are not judged by it:
that is `tasks.quality.checks`. Which days are judged, and against which, is `tasks.quality.judging`.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date

import numpy as np

from tasks.params import DriftLimits, Product
from tasks.quality.day_summaries import QUANTILES, DaySummary, category_columns, number_columns
from tasks.quality.verdicts import Figure

MIN_DAYS = 7
"""With fewer days of rows before it nothing is usual yet: compared is only whether the day has a valid row."""
MIN_CELLS = 10
"""Of fewer numbers the outermost quantiles are single cells."""
SHARE_OF_SPREAD = 0.1
"""How much of the interquartile range counts as usual from day to day, lest days that are all but equal allow none."""
CATEGORIES_TOLD_APART = 20
USUAL_PERCENTILE = 99
"""A row surprises that has more surprise than so many of 100 training rows."""
SIGMAS = 3
USUAL_SHARE_OF_WEEKDAY = 0.5
"""Where at least so many of the same weekdays before had no row, a day without rows is usual, as on Sundays."""
USUAL_SHARE_OF_DAYS = 0.2
"""Likewise of the days before that fall on a weekday that has rows, as where rows come now and then. Holidays, one or
two a month, are fewer: a source that ends after one is seen."""


def compare(day: DaySummary, before: Sequence[DaySummary], newest_row: str | None, product: Product) -> list[Figure]:
    """Return a day's figures beside their limits.

    `before` are the days that are usual, in order, those without rows too; `newest_row` is the newest day with rows, up
    to this one.
    """
    limits = product.drift
    stored = [each for each in before if each.rows_in]
    is_known = len(stored) >= MIN_DAYS
    figures = [_volume(day, before, limits) if is_known else _presence(day, before)]
    if not day.rows_in:
        return [*figures, _freshness(day, before, newest_row)]
    figures += [_quarantined(day, stored, limits) if is_known else _validity(day)]
    full = [each for each in stored if each.rows_valid]
    if is_known and day.rows_valid and full:
        figures += [_missing(name, day, full, limits) for name in product.columns]
        figures += [_shift(name, day, full, limits) for name in category_columns(product)]
        moved = (_moved(name, day, full, limits) for name in number_columns(product))
        figures += [figure for figure in moved if figure]
    return figures


def is_empty_usual(day: DaySummary, before: Sequence[DaySummary]) -> bool:
    """Return whether a day without rows is nothing new: on its weekday, or among all days."""
    weekdays: dict[int, list[bool]] = {}
    for each in before:
        weekdays.setdefault(date.fromisoformat(each.date).weekday(), []).append(each.rows_in == 0)
    same = weekdays.get(date.fromisoformat(day.date).weekday(), [])
    if same and sum(same) >= USUAL_SHARE_OF_WEEKDAY * len(same):
        return True
    others = [empty for days in weekdays.values() if not all(days) for empty in days]
    return bool(others) and sum(others) >= USUAL_SHARE_OF_DAYS * len(others)


def _figure(name: str, seen: float, least: float, most: float | None, unit: str = "") -> Figure:
    rounded = [None if limit is None else round(float(limit), 4) for limit in (seen, least, most)]
    return Figure(name=name, seen=rounded[0] or 0.0, least=rounded[1] or 0.0, most=rounded[2], unit=unit)


def _presence(day: DaySummary, before: Sequence[DaySummary]) -> Figure:
    return _figure("rows", day.rows_in, 0 if is_empty_usual(day, before) else 1, None)


def _validity(day: DaySummary) -> Figure:
    return _figure("valid rows", day.rows_valid, 1, None)


def _volume(day: DaySummary, before: Sequence[DaySummary], limits: DriftLimits) -> Figure:
    usual, seen = [each.rows_in for each in before if each.rows_in], day.rows_in
    chance = SIGMAS * np.sqrt(seen + 1)
    least = max(1.0, min(usual) / limits.max_volume_ratio - chance)
    if not seen and is_empty_usual(day, before):
        least = 0.0
    return _figure("rows", seen, least, max(usual) * limits.max_volume_ratio + chance)


def _freshness(day: DaySummary, before: Sequence[DaySummary], newest_row: str | None) -> Figure:
    """Compare how many days the newest row is behind with how many it was on the days before."""
    usual, behind = [0], 0
    for each in before:
        behind = 0 if each.rows_in else behind + 1
        usual.append(behind)
    seen = 0 if newest_row is None else (date.fromisoformat(day.date) - date.fromisoformat(newest_row)).days
    return _figure("newest row", seen, 0, max(usual), "days behind")


def _quarantined(day: DaySummary, stored: Sequence[DaySummary], limits: DriftLimits) -> Figure:
    now, *then = [(each.rows_quarantined, each.rows_in) for each in (day, *stored)]
    return _share("share quarantined", now, then, limits.max_share_change)


def _missing(name: str, day: DaySummary, full: Sequence[DaySummary], limits: DriftLimits) -> Figure:
    now, *then = [(each.missing[name], each.rows_valid) for each in (day, *full)]
    return _share(f"{name}: share missing", now, then, limits.max_share_change)


def _share(name: str, now: tuple[int, int], then: list[tuple[int, int]], change: float) -> Figure:
    """Compare a share, given as its rows and all rows, with those of the days before."""
    usual = [part / n for part, n in then]
    part, n = now
    likely = (part + 1) / (n + 2)  # Laplace: no row of few is not no row of any number
    chance = SIGMAS * float(np.sqrt(likely * (1 - likely) / n))
    return _figure(name, part / n, max(0.0, min(usual) - change - chance), min(1.0, max(usual) + change + chance))


def compare_surprise(percentiles: np.ndarray, product: Product) -> list[Figure]:
    """Return the share of a night's rows that surprise the model, beside its limit; nothing without limit or rows.

    `percentiles` are those of the rows' surprise among the training rows, float [n].
    """
    most = product.drift.max_surprising
    if most is None or not len(percentiles):
        return []
    name = f"share of rows with more surprise than {USUAL_PERCENTILE} of 100 training rows"
    return [share_figure(name, int((percentiles > USUAL_PERCENTILE).sum()), len(percentiles), most)]


def share_figure(name: str, part: int, n: int, most: float) -> Figure:
    """Return the share of `part` of n rows, beside the most that it may be and chance in few rows."""
    return _figure(name, part / n, 0.0, min(1.0, most + SIGMAS * float(np.sqrt(most * (1 - most) / n))))


def _shift(name: str, day: DaySummary, full: Sequence[DaySummary], limits: DriftLimits) -> Figure:
    """Compare the day's mix with that of all days before by the population stability index, beside those days' own."""
    pooled: Counter[str] = Counter()
    for each in full:
        pooled.update(each.categories[name])
    told_apart = sorted(pooled, key=lambda value: (-pooled[value], value))[:CATEGORIES_TOLD_APART]
    now, *then = [_bins(each, name, told_apart) for each in (day, *full)]
    usual = np.sum(then, axis=0)
    shifts = [stability_index(each, usual) for each in then]
    chance = (len(usual) - 1) / day.rows_valid
    return _figure(f"{name}: shift", stability_index(now, usual), 0.0, max(shifts) + limits.max_shift + chance)


def _moved(name: str, day: DaySummary, full: Sequence[DaySummary], limits: DriftLimits) -> Figure | None:
    """Return the quantile of a number that lies furthest beyond those of the days before, or nearest to that.

    None of too few cells or days, as in a ledger of before quantiles were kept, and where all cells have been one.
    """
    known = [each for each in full if name in each.numbers and _cells(each, name) >= MIN_CELLS]
    if name not in day.numbers or _cells(day, name) < MIN_CELLS or len(known) < MIN_DAYS:
        return None
    then, now = np.array([each.numbers[name] for each in known]), np.array(day.numbers[name])
    spread = float((then[:, QUANTILES.index(0.75)] - then[:, QUANTILES.index(0.25)]).mean())
    low, high = then.min(axis=0), then.max(axis=0)
    # The days' own distances hold the chance in their rows; a day of fewer rows has more of it.
    n_least = min(_cells(each, name) for each in known)
    more_chance = max(0.0, SIGMAS / np.sqrt(_cells(day, name)) - SIGMAS / np.sqrt(n_least)) * spread
    margin = limits.max_number_shift * (high - low + SHARE_OF_SPREAD * spread) + more_chance
    if not margin.any():
        return None
    beyond = np.maximum(now - high, low - now) - margin
    worst = int(beyond.argmax())
    seen, least, most = (float(f"{each[worst]:.6g}") for each in (now, low - margin, high + margin))
    return Figure(name=f"{name}: quantile {QUANTILES[worst]}", seen=seen, least=least, most=most)


def _cells(day: DaySummary, name: str) -> int:
    return day.rows_valid - day.missing[name]


def _bins(day: DaySummary, name: str, told_apart: Sequence[str]) -> np.ndarray:
    """Return a day's rows by category, with bins for the rarer ones and those that are missing."""
    counts, missing = day.categories[name], day.missing[name]
    apart = [counts.get(value, 0) for value in told_apart]
    return np.array([*apart, day.rows_valid - missing - sum(apart), missing])


def stability_index(counts: np.ndarray, usual: np.ndarray) -> float:
    """Return the sum of (p - q) ln(p / q), each bin with half a row more, so that none is empty.

    >>> round(stability_index(np.array([3, 1]), np.array([10, 10])), 4)
    0.1695
    """
    p, q = ((each + 0.5) / (each + 0.5).sum() for each in (counts, usual))
    return float(((p - q) * np.log(p / q)).sum())
