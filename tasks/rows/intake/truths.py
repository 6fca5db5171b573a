"""Compare delivered labels with the newest versions that are stored: late, corrected and withdrawn ones.

A stored label that cannot be read is none: one that can be is new. One that cannot be read takes the place of none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta

import numpy as np
import pandas as pd

from tasks.params import Product
from tasks.rows.casting import as_text, cast_target
from tasks.rows.keys import key_text
from tasks.rows.raw_archive import RawIndex, StoredDay


@dataclass(frozen=True, kw_only=True)
class LabelDifferences:
    """How delivered labels differ from what is stored; frames of key, target and event date (`dt`)."""

    late: pd.DataFrame
    """Labels of keys that have none."""
    corrected: pd.DataFrame
    """Labels of keys that have another one."""
    withdrawn: pd.DataFrame
    """Keys whose label is known no more; the target is missing."""
    unreadable: pd.DataFrame
    """Labels that cannot be read, of keys that have one that can be."""
    waiting: pd.DataFrame
    """Labels of which a version of this very as_of is stored: of two in one file the first stands."""


_KINDS = [each.name for each in fields(LabelDifferences)]


def compare_labels(
    labels: pd.DataFrame, has_one: pd.Series, product: Product, index: RawIndex, as_of: date
) -> LabelDifferences:
    """Return the differences of labels that are due, by the key, the target and the event date (`dt`).

    `has_one` says which have a label at all.
    """
    keys = key_text(labels, product.key)
    named = keys.notna()
    labels, labelled = labels[named], has_one[named].to_numpy()
    if labels.empty:
        return LabelDifferences(**dict.fromkeys(_KINDS, labels))
    stored = _stored(labels["dt"].min(), labels["dt"].max(), product, index)
    codes, n_keys = _numbers(keys[named], key_text(stored, product.key))
    ids, stored_keys = codes[: len(labels)], codes[len(labels) :]
    (now, now_readable), (then, readable) = _values(labels, product), _values(stored, product)
    values, _ = _numbers(now, then)
    is_version = (readable | stored[product.target.name].isna().to_numpy()) & (stored_keys >= 0)
    versions = pd.DataFrame({"key": stored_keys, "known": stored["dt"], "value": values[len(labels) :]})[is_version]
    versions = versions.drop_duplicates(["key", "known"]).drop_duplicates("key", keep="last")
    newest, of_today_by_key = np.full(n_keys, -1), np.zeros(n_keys, bool)
    newest[versions["key"]] = versions["value"]
    of_today_by_key[versions["key"][versions["known"] == as_of.isoformat()]] = True
    unreadable_before = _among(ids, stored_keys[~is_version & (stored_keys >= 0)], n_keys)
    is_alive, of_today = newest[ids] >= 0, of_today_by_key[ids]
    same = _among(ids, ids[is_alive & (newest[ids] == values[: len(labels)])], n_keys)
    late = labelled & ~is_alive & ~(unreadable_before & ~now_readable)
    differs = labelled & is_alive & ~same
    corrected = differs & now_readable
    corrected[corrected] = ~pd.Series(ids[corrected]).duplicated().to_numpy()
    withdrawn = ~labelled & is_alive & ~_among(ids, ids[labelled], n_keys) & ~pd.Series(ids).duplicated().to_numpy()
    return LabelDifferences(
        late=labels[late & ~of_today],
        corrected=labels[corrected & ~of_today],
        withdrawn=labels[withdrawn & ~of_today].assign(**{product.target.name: None}),
        unreadable=labels[differs & ~_among(ids, ids[corrected], n_keys)],
        waiting=labels[(late | corrected | withdrawn) & of_today],
    )


class LabelFiles:
    """The files of labels that are stored, by the event dates of which they may hold some."""

    def __init__(self, index: RawIndex, product: Product) -> None:
        """Take the index: what a run adds to it later, of years that were asked for, is not among them."""
        self._labels, self._product = index.labels, product
        self._years: dict[str, _FilesOfYear] = {}

    def of(self, first: date, last: date) -> dict[str, StoredDay]:
        """Return the files that may hold some of the event dates from `first` to `last`, by the date that is known."""
        found: dict[str, StoredDay] = {}
        for year in self._labels.years_about(first.isoformat(), last.isoformat()):
            if year not in self._years:
                self._years[year] = _FilesOfYear(self._labels.of_year(year), self._product)
            found |= self._years[year].of(first, last)
        return found


class _FilesOfYear:
    """The files of labels that became known in one year."""

    def __init__(self, stored: Mapping[str, StoredDay], product: Product) -> None:
        spans = [_span(known, each, product) for known, each in sorted(stored.items())]
        self._stored = sorted(stored.items())
        self._since, self._until = (np.array([span[i].toordinal() for span in spans], np.int64) for i in (0, 1))

    def of(self, first: date, last: date) -> dict[str, StoredDay]:
        places = np.flatnonzero((self._since <= last.toordinal()) & (first.toordinal() <= self._until))
        return dict(self._stored[place] for place in places)


def _span(known: str, stored: StoredDay, product: Product) -> tuple[date, date]:
    """Return the first and last event date of which a file of labels may hold some."""
    if stored.of:
        return date.fromisoformat(stored.of[0]), date.fromisoformat(stored.of[1])
    usual = date.fromisoformat(known) - timedelta(days=product.target.delay_days)
    return usual - timedelta(days=product.target.late_days), usual


def label_marks(labels: pd.DataFrame, product: Product) -> np.ndarray:
    """Return what identifies each label by key and value. Shapes: uint64 [n]."""
    texts = key_text(labels, product.key).fillna("\0") + " " + as_text(labels[product.target.name]).fillna("\0")
    return pd.util.hash_array(texts.astype(object).to_numpy()) if len(texts) else np.empty(0, np.uint64)


def _stored(first: str, last: str, product: Product, index: RawIndex) -> pd.DataFrame:
    """Return the stored labels from the files that may hold those of some event dates."""
    files = LabelFiles(index, product).of(date.fromisoformat(first), date.fromisoformat(last))
    return index.read("labels", files, [*product.key, product.target.name])


def _values(labels: pd.DataFrame, product: Product) -> tuple[pd.Series, np.ndarray]:
    """Return labels as they are cast, whatever type a reader chose for them, and which can be read."""
    cast = cast_target(labels[product.target.name], product.target)[0]
    return cast, cast.notna().to_numpy()


def _numbers(now: pd.Series, then: pd.Series) -> tuple[np.ndarray, int]:
    """Return a number for each cell, the same for equal ones and -1 for a missing one, and how many there are."""
    codes, found = pd.factorize(pd.concat([now, then], ignore_index=True))
    return codes, len(found)


def _among(keys: np.ndarray, others: np.ndarray, n_keys: int) -> np.ndarray:
    """Return which numbers of keys are among others."""
    found = np.zeros(n_keys, bool)
    found[others] = True
    return found[keys]
