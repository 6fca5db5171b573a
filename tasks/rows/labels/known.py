"""Find the newest known label of each row by its key."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from tasks.params import Product
from tasks.rows.keys import key_digests, key_text
from tasks.rows.labels.horizons import NAIVE_WEEKS, naive_names
from tasks.rows.partitions import Partitions


@dataclass(frozen=True)
class KnownLabels:
    """The newest version of each label, to be found by its key."""

    first: np.ndarray
    """uint64 [m]: the first halves of the digests of keys, in order."""
    second: np.ndarray
    """uint64 [m]: the second halves."""
    value: pd.Series
    """Missing where a label was withdrawn."""

    def places(self, wanted: np.ndarray) -> np.ndarray:
        """Return the places of the labels of keys, or -1 where none is known. Shapes: uint64 [n, 2] -> int32 [n]."""
        if not len(self.first):
            return np.full(len(wanted), -1, np.int32)
        at = (np.searchsorted(self.first, wanted[:, 0], side="right") - 1).clip(min=0)
        found = (self.first[at] == wanted[:, 0]) & (self.second[at] == wanted[:, 1])
        return np.where(found, at, -1).astype(np.int32)

    def labelled_places(self, names: pd.Series) -> np.ndarray:
        """Return the places of the labels of keys as text, or -1 where none is known or it was withdrawn."""
        at = self.places(key_digests(names))
        return np.where(self.value.notna().to_numpy()[at], at, np.int32(-1)) if len(self.value) else at

    def naive_places(self, rows: pd.DataFrame, product: Product) -> np.ndarray:
        """Return the places of the seasonal naive labels of repeated rows, or -1. Shapes: int32 [n]."""
        found = np.full(len(rows), -1, np.int32)
        for weeks_before in range(NAIVE_WEEKS):
            lacks = np.flatnonzero(found < 0)
            if len(lacks):
                found[lacks] = self.labelled_places(naive_names(rows.iloc[lacks], product, weeks_before))
        return found


def known_labels(labels: Partitions, days: list[date], product: Product) -> KnownLabels:
    """Return the newest versions of the labels that became known on dates, in order of these."""
    key, target = list(product.key), product.target.name
    digest, values = [np.empty((0, 2), np.uint64)], [pd.Series(dtype="str")]
    for _, stored in labels.batches(days, [*key, target]):
        table = stored.to_pandas(integer_object_nulls=True)
        digest.append(key_digests(key_text(table, key)))
        values.append(table[target])
    first, second = (np.concatenate([each[:, half] for each in digest]) for half in (0, 1))
    digest.clear()
    order = np.argsort(first, kind="stable")  # of several versions the newest one comes last, where it is found
    value = pd.concat([each for each in values if len(each)] or values, ignore_index=True)
    return KnownLabels(first[order], second[order], value.take(order).reset_index(drop=True))
