"""Compare delivered labels with the newest versions that are stored: late, corrected and withdrawn ones.

A stored label that cannot be read is none: one that can be is new. One that cannot be read takes the place of none.
"""

from dataclasses import dataclass
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


def compare_labels(
    labels: pd.DataFrame, has_one: pd.Series, product: Product, index: RawIndex, as_of: date
) -> LabelDifferences:
    """Return the differences of labels that are due, by the key, the target and the event date (`dt`).

    `has_one` says which have a label at all.
    """
    keys = key_text(labels, product.key)
    labels, has_one, keys = labels[keys.notna()], has_one[keys.notna()], keys.dropna()
    stored = _stored(labels["dt"].min(), labels["dt"].max(), product, index)
    stored_keys, is_null = key_text(stored, product.key), stored[product.target.name].isna()
    values, readable = _values(stored, product)
    is_version = (readable | is_null) & stored_keys.notna()
    versions = pd.DataFrame({"key": stored_keys, "known": stored["dt"], "value": values})[is_version]
    versions = versions.drop_duplicates(["key", "known"]).drop_duplicates("key", keep="last").set_index("key")
    alive = versions[versions["value"].notna()]
    unreadable_before = keys.isin(set(stored_keys[~is_version].dropna()))
    now, now_readable = _values(labels, product)
    is_alive = keys.isin(alive.index)
    then = alive["value"].reindex(keys).set_axis(keys.index)
    of_today = versions["known"].reindex(keys).set_axis(keys.index) == as_of.isoformat()
    same = keys.isin(set(keys[is_alive & (now == then)]))
    late = has_one & ~is_alive & ~(unreadable_before & ~now_readable)
    differs = has_one & is_alive & ~same
    corrected = differs & now_readable
    corrected &= ~keys.where(corrected).duplicated()
    withdrawn = ~has_one & is_alive & ~keys.isin(set(keys[has_one])) & ~keys.duplicated()
    return LabelDifferences(
        late=labels[late & ~of_today],
        corrected=labels[corrected & ~of_today],
        withdrawn=labels[withdrawn & ~of_today].assign(**{product.target.name: None}),
        unreadable=labels[differs & ~keys.isin(set(keys[corrected]))],
        waiting=labels[(late | corrected | withdrawn) & of_today],
    )


def covers(known: str, stored: StoredDay, first: str, last: str, product: Product) -> bool:
    """Return whether a file of labels may hold some of the event dates from `first` to `last`."""
    usual = date.fromisoformat(known) - timedelta(days=product.target.delay_days)
    oldest = usual - timedelta(days=product.target.late_days)
    since, until = stored.of or (oldest.isoformat(), usual.isoformat())
    return since <= last and first <= until


def label_marks(labels: pd.DataFrame, product: Product) -> np.ndarray:
    """Return what identifies each label by key and value. Shapes: uint64 [n]."""
    texts = key_text(labels, product.key).fillna("\0") + " " + as_text(labels[product.target.name]).fillna("\0")
    return pd.util.hash_array(texts.astype(object).to_numpy()) if len(texts) else np.empty(0, np.uint64)


def _stored(first: str, last: str, product: Product, index: RawIndex) -> pd.DataFrame:
    """Return the stored labels from the files that may hold those of some event dates."""
    files = [known for known, stored in sorted(index.labels.items()) if covers(known, stored, first, last, product)]
    return index.read("labels", files, [*product.key, product.target.name])


def _values(labels: pd.DataFrame, product: Product) -> tuple[pd.Series, pd.Series]:
    """Return labels as text, whatever type a reader chose for them, and which can be read."""
    cast = cast_target(labels[product.target.name], product.target)[0]
    return as_text(cast), cast.notna()
