"""Give rows the labels that another source has of their keys: `target.source`.

That source is read whole and held in memory as one text per key; the rows come in pieces as ever. Where a label has
changed all pieces of the rows are read again, since only then it is known of which row it is.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.rows.casting import as_text, has_label
from tasks.rows.keys import key_text
from tasks.runtime.errors import UserError
from tasks.sources.formats.pieces import digest_of


def product_of_labels(product: Product) -> Product:
    """Return the product whose rows are the labels: its source is `target.source`, its columns are key and target."""
    target = product.target
    assert target.source is not None
    return replace(
        product,
        name=f"{product.name}.target",  # so that messages name the place products.<name>.target.source
        source=target.source,
        declared_time=None,  # type: ignore[call-arg]  # mypy knows the alias alone
        columns={},
        pii={},
        target=replace(target, source=None),
    )


class LabelSource:
    """The labels of a source of their own, by key."""

    def __init__(self, product: Product, frames: Iterator[pd.DataFrame]) -> None:
        """Take all labels in the order of the source: of several of one key the last one stands."""
        self._product, self._place = product, f"params.yaml: products.{product.name}.target.source"
        self._n_rows = self._n_found = 0
        target = product.target.name
        parts = [frame.loc[has_label(frame[target]), [*product.key, target]] for frame in self._readable(frames)]
        labels = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*product.key, target])
        keys = self._keys(labels)
        named = labels[target].set_axis(keys)[keys.notna().to_numpy()]
        self._labels = named[~named.index.duplicated(keep="last")]
        several = named[named.index.duplicated(keep=False)]
        n_differ = int((several.astype("str").groupby(level=0).nunique() > 1).sum())
        if n_differ:
            note = f"{self._place}: {n_differ:,} keys have several labels that differ; the last one of each stands"
            print(note, file=sys.stderr, flush=True)

    @property
    def digest(self) -> bytes:
        """Return what identifies all labels, in any order."""
        keys = pd.util.hash_array(self._labels.index.to_numpy(dtype=object))
        values = pd.util.hash_array(as_text(self._labels).fillna("").to_numpy(dtype=object))
        pairs = keys * np.uint64(0x9E3779B97F4A7C15) ^ values
        return digest_of(np.sort(pairs).tobytes()).encode()

    def add_to(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return rows with the labels of their keys; the target is missing where there is none."""
        keys = self._keys(rows)
        found = self._labels.reindex(keys).set_axis(rows.index)
        self._n_rows += len(rows)
        self._n_found += int(found.notna().sum())
        return rows.assign(**{self._product.target.name: found})

    def check(self) -> None:
        """Raise UserError where there are labels and none is of any row: then the keys are others."""
        if len(self._labels) and self._n_rows and not self._n_found:
            raise UserError(
                f"{self._place}: labels must have the keys of rows ({', '.join(self._product.key)}), and none of "
                f"{len(self._labels):,} has that of one of {self._n_rows:,} rows; is the key the same in both sources, "
                "or called otherwise (target.source.names)?"
            )

    def _readable(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        n_unreadable = 0
        for frame in frames:
            is_row = frame[UNREADABLE_COLUMNS[0]].isna() if UNREADABLE_COLUMNS[0] in frame else None
            n_unreadable += 0 if is_row is None else int((~is_row).sum())
            yield frame if is_row is None else frame[is_row]
        if n_unreadable:
            print(f"{self._place}: {n_unreadable:,} rows cannot be read and are left out", file=sys.stderr, flush=True)

    def _keys(self, rows: pd.DataFrame) -> pd.Series:
        """Return the keys as text; a whole number is one with or without .0, which a gap in a column makes of it."""
        key = [*self._product.key]
        whole = {
            name: as_text(rows[name]).str.replace(r"^(-?(?:0|[1-9][0-9]*))\.0+$", r"\1", regex=True) for name in key
        }
        return key_text(pd.DataFrame(whole, index=rows.index), key)
