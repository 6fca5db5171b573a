"""Compare the cells of a night's rows with those that the champion was trained on, and with the same weekdays before.

What is compared is small: quantiles and shares of a sample of the rows. That of the training rows is made once for each
champion, with what it says of them, and kept in the store: `<url>/<product>/_columns/<model>.json`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from model.features.kinds import KINDS, kind_class
from tasks.monitoring.contracts import Distance, Predictions
from tasks.params import Product
from tasks.publication.manifests import encode_checked, read_checked
from tasks.publication.object_store import Store
from tasks.rows.partitions import Partitions
from tasks.runtime.records import RECORD, Record

COLUMNS = "_columns"
MAX_ROWS_OF_DAY, N_BLOCKS = 20_000, 8
"""Of more rows so many are looked at, in so many blocks that lie evenly in the day."""
MAX_TRAINING_DAYS = 28
"""Of more training days so many are looked at, evenly."""
MAX_SHARES = 50
"""Values of a column whose shares are compared, the most frequent; the others count as one."""
DECILES = np.arange(0.1, 0.95, 0.1)
MAX_ANSWERED = 20_000
"""Of more training rows the champion is asked about so many."""
Window = Callable[[], tuple[date, date] | None]
"""Returns the first and the last day that a champion was trained and tested on; None where that is not on record."""
Answer = Callable[[pd.DataFrame], Predictions | None]
"""Returns what a champion says of rows, summed up; None where it is not here to be asked."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Cells(Record):
    """What is compared of a column."""

    rows: int
    """Rows that were looked at."""
    missing: float
    """The share of missing cells."""
    deciles: tuple[float, ...]
    """Of numbers, minutes of the day, or lengths of texts; none for classes."""
    shares: Mapping[str, float]
    """The share of the rows that are not missing, by value; none for numbers and texts."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Columns(Record):
    """What is compared of all columns."""

    columns: Mapping[str, Cells]
    """By name."""
    predictions: Predictions | None = None
    """What the champion says of a sample of these rows; null where it was not asked."""


def distances(
    product: Product, paths_rows: Partitions, scored_day: date, training: Columns | None
) -> dict[str, Distance]:
    """Return how far the inputs of a scored day are from others, by column; none where the day has no rows."""
    now = columns_of_days(product, paths_rows, [scored_day])
    if now is None:
        return {}
    weekdays = [day for day in paths_rows.days(scored_day) if day != scored_day and (scored_day - day).days % 7 == 0]
    usual = columns_of_days(product, paths_rows, weekdays[-4:])
    return {
        name: Distance(
            training=_distance(cells, training.columns.get(name)) if training else None,
            weekdays=_distance(cells, usual.columns.get(name)) if usual else None,
        )
        for name, cells in now.columns.items()
    }


def columns_of_training(
    product: Product, store: Store, rows: Partitions, model: str, window: Window, answer: Answer
) -> Columns | None:
    """Return what is compared of a champion's training rows, from the store, or else from the rows of its window.

    `model` names the champion, `window` its training days, and `answer` what it says of rows. Raises TransientError
    where the store does not answer.
    """
    key = f"{product.name}/{COLUMNS}/{model}.json"
    known, _ = read_checked(store, key, Columns)
    if known or not (days := window()):
        return known
    stored = rows.days(days[1], days[0])
    days_seen = stored[:: -(-len(stored) // MAX_TRAINING_DAYS) or 1]
    found = columns_of_days(product, rows, days_seen)
    if found:
        names = list(dict.fromkeys([product.time, *product.columns]))
        most = MAX_ANSWERED // len(days_seen)
        sample = pd.concat([_sample(rows, day, names, most) for day in days_seen], ignore_index=True)
        found = replace(found, predictions=answer(sample))
        store.replace(key, encode_checked(found.to_json()), None)  # another one may have kept the same
    return found


def columns_of_days(product: Product, rows: Partitions, days: list[date]) -> Columns | None:
    """Return what is compared of the inputs of some days; None without rows."""
    tables = [_sample(rows, day, list(product.columns)) for day in days if day in rows]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if not len(table):
        return None
    return Columns(columns={name: _cells(table[name], kind) for name, kind in product.columns.items() if name in table})


def _sample(rows: Partitions, day: date, names: list[str], most: int = MAX_ROWS_OF_DAY) -> pd.DataFrame:
    n, size = rows.n_rows(day), most // N_BLOCKS
    blocks = [range(n)] if n <= most else [range(n * i // N_BLOCKS, n * i // N_BLOCKS + size) for i in range(N_BLOCKS)]
    pieces = [piece for block in blocks for piece in rows.pieces(day, block)]
    tables = [piece.select([name for name in names if name in piece.column_names]).to_pandas() for piece in pieces]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _cells(column: pd.Series, kind: str) -> Cells:
    known, reads_as = column.dropna(), kind_class(kind).reads_as
    deciles: tuple[float, ...] = ()
    shares: dict[str, float] = {}
    if reads_as == "labels":
        counts = (
            known.astype("str").value_counts(normalize=True).sort_index().sort_values(ascending=False, kind="stable")
        )
        shares = {str(value): round(float(share), 6) for value, share in counts[:MAX_SHARES].items()}
    elif len(known):
        if KINDS[kind].cells == "str":  # as long as there is much in a text, a list of events or an image
            numbers = known.str.len().to_numpy("float64")
        elif KINDS[kind].cells == "float64":
            numbers = known.to_numpy("float64")
        else:  # a time: of a later day it is another one by itself, so the time of the day is compared
            numbers = (known.dt.hour * 60 + known.dt.minute).to_numpy("float64")
        deciles = tuple(float(f"{each:.6g}") for each in np.quantile(numbers, DECILES))
    return Cells(rows=len(column), missing=round(1 - len(known) / len(column), 6), deciles=deciles, shares=shares)


def _distance(now: Cells, before: Cells | None) -> float | None:
    if before is None:
        return None
    found = abs(now.missing - before.missing)
    if now.deciles and before.deciles:
        width = before.deciles[-1] - before.deciles[0]
        apart = float(np.abs(np.subtract(now.deciles, before.deciles)).mean())
        found = max(found, apart / width if width else float(apart > 0))
    elif now.shares and before.shares:
        found = max(found, _apart(now, before))
    return round(found, 4)


def _apart(now: Cells, before: Cells) -> float:
    """Return half the sum of the differences of shares, less what chance alone makes of so few rows."""
    names = sorted({*now.shares, *before.shares})
    of = np.array([[cells.shares.get(name, 0.0) for name in names] for cells in (now, before)])
    rest = np.clip(1 - of.sum(axis=1, keepdims=True), 0, 1)
    of = np.concatenate([of, rest], axis=1)
    usual = of.mean(axis=0)
    spread = usual * (1 - usual) * (1 / max(now.rows, 1) + 1 / max(before.rows, 1))
    by_chance = float(np.sqrt(2 / np.pi * spread).sum()) / 2
    return max(0.0, float(np.abs(of[0] - of[1]).sum()) / 2 - by_chance)
