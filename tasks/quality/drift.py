"""Compare the day whose rows have just arrived with the days before it: does it differ in kind?

Compared are its number of rows, the shares that are missing or quarantined, and the mix of each category, with those
of the 28 days before. Numbers are not: one that follows the calendar, such as days to a holiday, differs every day.
Those days' own extremes are usual: a limit says how far beyond them a day may go, and chance in few rows is allowed
for. Single rows are not judged by it: that is `tasks.quality.checks`.

A day that a person has accepted (`tasks.rows.decisions`) is reported and passes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from model.features.kinds import kind_class
from tasks.params import Product
from tasks.quality.checked_table import Counts
from tasks.rows.partitions import partition, read_table
from tasks.runtime.errors import UserError

WINDOW_DAYS = 28
MIN_DAYS = 7
"""With fewer days before it nothing is usual yet, and nothing is compared."""
CATEGORIES_TOLD_APART = 20
SIGMAS = 3


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the day, beside the limits."""

    name: str
    """Such as `depot: shift`."""
    seen: float
    """Of the day."""
    least: float
    """The least that may be."""
    most: float
    """The most that may be."""

    @property
    def holds(self) -> bool:
        """Return whether the figure lies within its limits."""
        return self.least <= self.seen <= self.most


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How the scored day compares with the days before it."""

    date: str
    """The scored day."""
    days_before: int
    """Days with rows among the 28 before it."""
    accepted: str | None
    """The reason with which a person let the day pass."""
    figures: list[Figure] = field(default_factory=list)
    """Empty with fewer than MIN_DAYS days before."""


def compare_with_days_before(
    product: Product, as_of: date, valid: Path, by_date: dict[str, Counts], accepted: str | None = None
) -> Drift:
    """Return the scored day's figures beside their limits.

    `valid` holds the typed rows, `by_date` their counts; `accepted` is the reason with which a person accepted the day.
    """
    day, limits = product.scored_day(as_of), product.drift
    first = min(by_date, default=day.isoformat())
    window = [day - timedelta(days=i) for i in range(1, WINDOW_DAYS + 1)]
    before = [each for each in window if each.isoformat() >= first]
    stored = [each for each in before if each.isoformat() in by_date]
    figures: list[Figure] = []
    if len(stored) >= MIN_DAYS:
        now, *then = [_rows(valid, each, product) for each in [day, *stored]]
        figures.append(_volume(day, before, by_date, limits.max_volume_ratio))
        figures.append(_quarantined(day, stored, by_date, limits.max_share_change))
        full = [rows for rows in then if len(rows)]
        if len(now) and full:
            categories = [name for name, kind in product.columns.items() if kind_class(kind).reads_as == "labels"]
            figures += [_missing(name, now, full, limits.max_share_change) for name in product.columns]
            figures += [_shift(name, now, full, limits.max_shift) for name in categories]
    return Drift(date=day.isoformat(), days_before=len(stored), accepted=accepted, figures=figures)


def stop_on_drift(product: Product, drift: Drift, report: Path) -> None:
    """Raise UserError with the figures beyond their limits, unless the day has been accepted."""
    beyond = [figure for figure in drift.figures if not figure.holds]
    if not beyond or drift.accepted:
        return
    lines = [f"  {each.name}: {each.seen:g}, and {each.least:g} to {each.most:g} may be" for each in beyond]
    raise UserError(
        f"products.{product.name}: the rows of {drift.date} must be of the same kind as those of the "
        f"{drift.days_before} days before, and nothing was passed on:\n"
        + "\n".join(lines)
        + f"\nLook at {report}; let the day pass: "
        f'make accept PRODUCT={product.name} DT={drift.date} REASON="why it is right", '
        "or mend the source and have the day fetched anew: make refetch, likewise"
    )


def _rows(valid: Path, day: date, product: Product) -> pd.DataFrame:
    columns = list(product.columns)
    file = partition(valid, day)
    return read_table(file, columns) if file.exists() else pd.DataFrame(columns=columns)


def _figure(name: str, seen: float, least: float, most: float) -> Figure:
    return Figure(name=name, seen=round(seen, 4), least=round(least, 4), most=round(most, 4))


def _counts(day: date, by_date: dict[str, Counts]) -> Counts:
    return by_date.get(day.isoformat(), Counts())


def _volume(day: date, before: list[date], by_date: dict[str, Counts], ratio: float) -> Figure:
    usual, seen = [_counts(each, by_date).rows_in for each in before], _counts(day, by_date).rows_in
    chance = SIGMAS * np.sqrt(seen + 1)
    return _figure("rows", seen, max(0.0, min(usual) / ratio - chance), max(usual) * ratio + chance)


def _quarantined(day: date, stored: list[date], by_date: dict[str, Counts], change: float) -> Figure:
    now, *then = [
        (counts.rows_quarantined, counts.rows_in) for counts in (_counts(each, by_date) for each in [day, *stored])
    ]
    return _share("share quarantined", now, then, change)


def _missing(name: str, now: pd.DataFrame, then: list[pd.DataFrame], change: float) -> Figure:
    def share(rows: pd.DataFrame) -> tuple[int, int]:
        return int(rows[name].isna().sum()), len(rows)

    return _share(f"{name}: share missing", share(now), [share(rows) for rows in then], change)


def _share(name: str, now: tuple[int, int], then: list[tuple[int, int]], change: float) -> Figure:
    """Compare a share, given as its rows and all rows, with those of the days before."""
    usual = [part / n for part, n in then if n]
    part, n = now
    likely = (part + 1) / (n + 2)  # Laplace: no row of few is not no row of any number
    chance = SIGMAS * float(np.sqrt(likely * (1 - likely) / max(n, 1)))
    least, most = min(usual, default=0.0), max(usual, default=1.0)
    return _figure(name, part / max(n, 1), max(0.0, least - change - chance), min(1.0, most + change + chance))


def _shift(name: str, now: pd.DataFrame, then: list[pd.DataFrame], limit: float) -> Figure:
    """Compare the day's mix with that of all days before by the population stability index, beside those days' own."""
    pooled = pd.concat([rows[name] for rows in then])
    binned = _bins(pooled)
    usual = binned(pooled)
    shifts = [stability_index(binned(rows[name]), usual) for rows in then]
    chance = (len(usual) - 1) / len(now)
    return _figure(f"{name}: shift", stability_index(binned(now[name]), usual), 0.0, max(shifts) + limit + chance)


def _bins(pooled: pd.Series) -> Callable[[pd.Series], np.ndarray]:
    """Return a function that counts values by category, with bins for the rarer ones and those that are missing."""
    known = pooled.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    index = pd.Index(known.index[:CATEGORIES_TOLD_APART])

    def counts(values: pd.Series) -> np.ndarray:
        place = np.where(values.isna(), len(index) + 1, index.get_indexer(pd.Index(values)) % (len(index) + 1))
        return np.bincount(place, minlength=len(index) + 2)

    return counts


def stability_index(counts: np.ndarray, usual: np.ndarray) -> float:
    """Return the sum of (p - q) ln(p / q), each bin with half a row more, so that none is empty.

    >>> round(stability_index(np.array([3, 1]), np.array([10, 10])), 4)
    0.1695
    """
    p, q = ((each + 0.5) / (each + 0.5).sum() for each in (counts, usual))
    return float(((p - q) * np.log(p / q)).sum())
