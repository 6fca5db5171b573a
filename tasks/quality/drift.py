"""Does the day whose rows have just arrived differ in kind from the days before it?

Judged are its number of rows, the shares that are missing or quarantined, and the mix of each category, against the
28 days before. Numbers are not: one that tells of the calendar, such as days to a holiday, differs every day. What
those days themselves did is usual: a limit says how far beyond it a day may go, and what chance does to few rows is
allowed for. It does not judge the worth of single rows: that is `validate`.

A day that a person has accepted, `day.accepted` in params.yaml, is reported and passes.
"""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.params import Product
from tasks.rows.partitions import partition, read_table
from tasks.runtime.errors import UserError

WINDOW_DAYS = 28
MIN_DAYS = 7
"""With fewer days before it nothing is usual yet, and nothing is judged."""
CATEGORIES_TOLD_APART = 20
SIGMAS = 3
Counts = dict[str, dict[str, int]]


def compare(product: Product, as_of: date, valid: Path, by_date: Counts) -> dict[str, Any]:
    """What was seen of the scored day and what is usual. `valid` holds the typed rows, `by_date` the rows counted.

    Returns `figures` (name, seen, and the least and most that may be), `days_before` and `accepted`, the reason
    with which a person let the day pass.
    """
    day = product.scored_day(as_of)
    first = min(by_date, default=day.isoformat())
    window = [day - timedelta(days=i) for i in range(1, WINDOW_DAYS + 1)]
    before = [each for each in window if each.isoformat() >= first]
    stored = [each for each in before if each.isoformat() in by_date]
    told = {
        "date": day.isoformat(),
        "days_before": len(stored),
        "accepted": product.day.accepted.get(day.isoformat()),
        "figures": [],
    }
    if len(stored) < MIN_DAYS:
        return told
    categories = [name for name, kind in product.columns.items() if kind == "category"]
    now, *then = [_rows(valid, each, product, by_date) for each in [day, *stored]]
    figures = [_volume(day, before, by_date, product.day.max_volume_ratio)]
    figures.append(_quarantined(day, stored, by_date, product.day.max_share_change))
    full = [rows for rows in then if len(rows)]
    if len(now) and full:
        figures += [_missing(name, now, full, product.day.max_share_change) for name in product.columns]
        figures += [_shift(name, now, full, product.day.max_shift) for name in categories]
    return {**told, "figures": figures}


def stop_on_drift(product: Product, told: dict[str, Any], report: Path) -> None:
    """Raises UserError with the figures that do not hold, unless the day has been accepted."""
    beyond = [figure for figure in told["figures"] if not holds(figure)]
    if not beyond or told["accepted"]:
        return
    lines = [f"  {each['name']}: {each['seen']:g}, and {each['least']:g} to {each['most']:g} may be" for each in beyond]
    raise UserError(
        f"products.{product.name}: the rows of {told['date']} must be of the same kind as those of the "
        f"{told['days_before']} days before, and nothing was passed on:\n"
        + "\n".join(lines)
        + f"\nLook at {report}; let the day pass: "
        f'make accept PRODUCT={product.name} DT={told["date"]} REASON="why it is right", '
        "or mend the source and have the day fetched anew: make retake, likewise"
    )


def holds(figure: dict[str, Any]) -> bool:
    """Whether what was seen lies between the least and the most that may be."""
    return bool(figure["least"] <= figure["seen"] <= figure["most"])


def _rows(valid: Path, day: date, product: Product, by_date: Counts) -> pd.DataFrame:
    columns = list(product.columns)
    file = partition(valid, day)
    return read_table(file, columns) if file.exists() else pd.DataFrame(columns=columns)


def _figure(name: str, seen: float, least: float, most: float) -> dict[str, Any]:
    return {"name": name, "seen": round(seen, 4), "least": round(least, 4), "most": round(most, 4)}


def _volume(day: date, before: list[date], by_date: Counts, ratio: float) -> dict[str, Any]:
    def n(each: date) -> int:
        return by_date.get(each.isoformat(), {"rows_in": 0})["rows_in"]

    usual, seen = [n(each) for each in before], n(day)
    chance = SIGMAS * np.sqrt(seen + 1)
    return _figure("rows", seen, max(0.0, min(usual) / ratio - chance), max(usual) * ratio + chance)


def _quarantined(day: date, stored: list[date], by_date: Counts, change: float) -> dict[str, Any]:
    def share(each: date) -> tuple[int, int]:
        counts = by_date.get(each.isoformat(), {"rows_quarantined": 0, "rows_in": 0})
        return counts["rows_quarantined"], counts["rows_in"]

    return _share("share quarantined", share(day), [share(each) for each in stored], change)


def _missing(name: str, now: pd.DataFrame, then: list[pd.DataFrame], change: float) -> dict[str, Any]:
    def share(rows: pd.DataFrame) -> tuple[int, int]:
        return int(rows[name].isna().sum()), len(rows)

    return _share(f"{name}: share missing", share(now), [share(rows) for rows in then], change)


def _share(name: str, now: tuple[int, int], then: list[tuple[int, int]], change: float) -> dict[str, Any]:
    usual = [some / n for some, n in then if n]
    some, n = now
    likely = (some + 1) / (n + 2)  # Laplace: no row of few is not no row of any number
    chance = SIGMAS * float(np.sqrt(likely * (1 - likely) / max(n, 1)))
    least, most = min(usual, default=0.0), max(usual, default=1.0)
    return _figure(name, some / max(n, 1), max(0.0, least - change - chance), min(1.0, most + change + chance))


def _shift(name: str, now: pd.DataFrame, then: list[pd.DataFrame], limit: float) -> dict[str, Any]:
    """The population stability index of the day's mix against that of all days before, beside their own."""
    pooled = pd.concat([rows[name] for rows in then])
    binned = _bins(pooled)
    usual = binned(pooled)
    shifts = [_stability_index(binned(rows[name]), usual) for rows in then]
    chance = (len(usual) - 1) / len(now)
    return _figure(f"{name}: shift", _stability_index(binned(now[name]), usual), 0.0, max(shifts) + limit + chance)


def _bins(pooled: pd.Series) -> Callable[[pd.Series], np.ndarray]:
    """A function that counts values by category, with bins for the rarer ones and those that are missing."""
    known = pooled.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    index = pd.Index(known.index[:CATEGORIES_TOLD_APART])

    def counts(values: pd.Series) -> np.ndarray:
        place = np.where(values.isna(), len(index) + 1, index.get_indexer(pd.Index(values)) % (len(index) + 1))
        return np.bincount(place, minlength=len(index) + 2)

    return counts


def _stability_index(counts: np.ndarray, usual: np.ndarray) -> float:
    """Sum of (p - q) ln(p / q), each bin with half a row more, so that none is empty."""
    p, q = ((each + 0.5) / (each + 0.5).sum() for each in (counts, usual))
    return float(((p - q) * np.log(p / q)).sum())
