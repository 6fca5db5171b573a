"""Read which rows have a label, of which day and group they are, and by that the days of each part of a split by time.

Holds one label, one date and one digest per row, never the rows.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from model.features.kinds import TEXT
from tasks.params import Product
from tasks.rows.casting import as_text
from tasks.rows.keys import content_of, digests, key_text
from tasks.rows.labels.horizons import (
    NAIVE_WEEKS,
    WEEK,
    by_horizon,
    has_naive,
    label_names,
    places,
)
from tasks.rows.labels.known import known_labels
from tasks.rows.labels.windows import Windows, decides, fit_windows
from tasks.rows.partitions import Partitions


@dataclass(frozen=True)
class Index:
    """Date, group and label of the rows that may be in a part, in order of date and key; the rest stays in files."""

    days: list[date]
    """The dates that were read."""
    day: np.ndarray
    """datetime64[D] [n]: the date of the row, also where it is predicted for later ones."""
    group: np.ndarray
    """uint64 [n]: digests of the groups, which must not straddle a split."""
    place: np.ndarray
    """int32 [n]: of a row's label in `labels`, or -1 where none is known."""
    labels: pd.Series
    """The labels that are known."""
    horizon: np.ndarray
    """int32 [n]: days ahead; 0 where a row is predicted for its own day alone."""
    naive: np.ndarray
    """int32 [n]: of the seasonal naive label in `labels`, or -1; empty where rows have none."""

    @property
    def labelled(self) -> np.ndarray:
        """Return the rows with a label. Shapes: bool [n]."""
        return self.place >= 0

    def naive_labels(self, rows: slice) -> pa.Array:
        """Return the seasonal naive label of rows, null where there is none."""
        at, found = self.naive[rows], np.full(rows.stop - rows.start, np.nan)
        found[at >= 0] = self.labels.take(at[at >= 0])
        return pa.array(found, from_pandas=True)

    def labels_of(self, rows: np.ndarray) -> pd.Series:
        """Return the labels of rows that have one. Shapes: bool or int [n]."""
        return self.labels.take(self.place[rows])


def find_windows(valid: Path, product: Product, as_of: date) -> tuple[Windows, date] | None:
    """Return how many days each part of a split by time has, and the newest labelled day; None without a label.

    Of the rows below `valid` that are known at `as_of`, twice as many days are read at each look: what is read follows
    from how far back the newest label is, and, where days are not declared, from the rows that they hold.
    """
    rows, labels = Partitions(valid / "rows"), Partitions(valid / "labels")
    oldest, end, n_days = rows.first(), as_of, 1

    def labelled_days(since: date) -> np.ndarray:
        days = rows.days(end, since=since)
        index = index_rows(rows, days, labels, product, as_of) if days else None
        return index.day[decides(index.labelled, index.horizon, product)] if index else np.empty(0, "datetime64[D]")

    while oldest and end >= oldest:
        since = end - timedelta(days=n_days - 1)
        day = labelled_days(since)
        if not len(day):
            end, n_days = since - timedelta(days=1), 2 * n_days
            continue
        newest = day.max()
        end = newest.item()
        n_days, n_read = (end - oldest).days + 1, (end - since).days + 1
        while (found := fit_windows(product, (newest - day).astype(int), n_days, n_read))[1]:
            n_read *= 2
            day = labelled_days(end - timedelta(days=n_read - 1))
        return found[0], end
    return None


def index_rows(rows: Partitions, days: list[date], labels: Partitions, product: Product, as_of: date) -> Index:
    """Read the keys and groups of dates, a row group at a time, and the labels that are known of them."""
    since = None
    if product.split.by == "time" and days:  # no label is known before its row is
        since = days[0] - timedelta(days=product.predict.lead_days or (NAIVE_WEEKS * WEEK if has_naive(product) else 0))
    known = known_labels(labels, labels.days(as_of, since), product)
    key = list(product.key)
    wanted = list(dict.fromkeys([*key, *([product.split.group] if product.split.group else [])]))
    day, group, place = [np.empty(0, "datetime64[D]")], [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    horizon, naive = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for dates, stored in rows.batches(days, wanted):
        table = stored.to_pandas(integer_object_nulls=True)
        row, days_ahead = places(len(table), product)
        ahead = by_horizon(table, product)
        day.append(dates[row])
        horizon.append(days_ahead)
        place.append(known.labelled_places(label_names(ahead, product)))
        if has_naive(product):
            naive.append(known.naive_places(ahead, product))
        group.append(digests(group_codes(table, key_text(table, key), product))[row, 0])
    return Index(
        days=days,
        day=np.concatenate(day),
        group=np.concatenate(group),
        place=np.concatenate(place),
        labels=known.value,
        horizon=np.concatenate(horizon),
        naive=np.concatenate(naive),
    )


def group_codes(table: pd.DataFrame, keys: pd.Series, product: Product) -> pd.Series:
    """Return one text per row for its group: case and white space do not make two texts differ."""
    alone = keys if product.has_key else content_of(keys)  # equal rows without keys are one group
    if not product.split.group:
        return alone
    group = as_text(table[product.split.group])
    if product.columns.get(product.split.group) == TEXT:
        group = group.map(lambda text: " ".join(text.lower().split()), na_action="ignore").astype("str")
    return group.where(group.notna(), "\x1f" + alone)  # a row without a group is one of its own
