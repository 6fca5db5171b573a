"""Parquet rows to the arrays that `model` reads, and truths to targets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from model.features.kinds import KINDS
from model.heads import head_of
from model.target import Target
from tasks.params import Product
from tasks.rows.casting import cast_column
from tasks.rows.partitions import n_rows, read_pieces, read_table
from tasks.runtime.errors import UserError


def inputs(frame: pd.DataFrame, product: Product) -> dict[str, np.ndarray]:
    """The declared inputs of `frame` as the arrays of their kinds' cells."""
    return {name: _array(frame[name], KINDS[kind].cells) for name, kind in product.columns.items()}


def no_rows(product: Product) -> pd.DataFrame:
    """The columns of a product's valid rows, with their types, and no row."""
    none = pd.Series(dtype="str")
    return pd.DataFrame({name: cast_column(none, kind)[0] for name, kind in product.kinds.items()})


def classes(frame: pd.DataFrame, product: Product) -> tuple[str, ...]:
    """Return the names of the classes in the labels of `frame`; none where labels are numbers."""
    return head_of(product.target.task).classes(frame[product.target.name].dropna().unique())


def targets(frame: pd.DataFrame, product: Product, known: tuple[str, ...]) -> np.ndarray:
    """Return the labels of `frame` as the model takes them: see `Head.label_array`."""
    return head_of(product.target.task).label_array(frame[product.target.name].to_numpy(), known)


@dataclass(frozen=True)
class SplitPart:
    """The inputs of one part of data/splits, piece by piece and as often as is asked: never held whole."""

    file: Path
    product: Product
    keep: np.ndarray | None = None
    """bool [n]: the rows that are meant; None for all."""

    def __len__(self) -> int:
        """How many rows are meant."""
        return n_rows(self.file) if self.keep is None else int(self.keep.sum())

    @property
    def truths(self) -> pd.DataFrame:
        """The target of every row, in a column of its name."""
        return self._column(self.product.target.name)

    @property
    def n_days(self) -> int:
        """How many dates the rows are of."""
        return len(np.unique(self.times.astype("datetime64[D]")))

    @property
    def times(self) -> np.ndarray:
        """The date of every row. Shapes: datetime64[s] [n]."""
        return self._column(self.product.time)[self.product.time].to_numpy("datetime64[s]")

    def _column(self, name: str) -> pd.DataFrame:
        column = read_table(self.file, [name])
        return column if self.keep is None else column[self.keep]

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """At first no row, so that no rows at all have their columns too."""
        yield inputs(no_rows(self.product), self.product)
        first = 0
        for piece in read_pieces(self.file):
            here = slice(first, first := first + len(piece))
            chosen = piece if self.keep is None else piece.filter(pa.array(self.keep[here]))
            yield inputs(chosen.select(list(self.product.columns)).to_pandas(), self.product)

    def answerable(self, known: tuple[str, ...]) -> tuple["SplitPart", np.ndarray]:
        """The rows whose truth a model of the classes `known` can give, and their targets.

        Raises UserError where there is none.
        """
        y = targets(self.truths, self.product, known)
        can_be = head_of(self.product.target.task).is_known(y)
        if not can_be.any():
            raise UserError(
                f"{self.file} must hold a row whose truth the training rows tell of, and holds none; "
                f"see products.{self.product.name}.split"
            )
        return self._only(can_be), y[can_be]

    def sample(self, most: int) -> "SplitPart":
        """All rows, or of more than `most` the same sample every time."""
        n = len(self)
        if n <= most:
            return self
        chosen = np.zeros(n, bool)
        chosen[np.random.default_rng(0).choice(n, most, replace=False, shuffle=False)] = True
        return self._only(chosen)

    def _only(self, chosen: np.ndarray) -> "SplitPart":
        """Some of the rows that are meant. Shapes: bool [as many as these]."""
        keep = np.ones(len(chosen), bool) if self.keep is None else self.keep.copy()
        keep[keep] = chosen
        return replace(self, keep=keep)

    def whole(self) -> dict[str, np.ndarray]:
        """The pieces as one table, for those who need it: it must fit into memory."""
        pieces = list(self)
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in self.product.columns}


def split_part(folder: Path, name: str, product: Product) -> SplitPart:
    """One part of data/splits, to be read piece by piece."""
    return SplitPart(folder / f"{name}.parquet", product)


def age_days(times: np.ndarray) -> np.ndarray:
    """Days from each time to the newest. Shapes: datetime64 [n] -> float64 [n]."""
    return (times.max() - times) / np.timedelta64(1, "D")


def scores(scorer: Any, rows: SplitPart) -> np.ndarray:
    """What a scorer of `model.scoring.scorer` answers, as its `score` gives it."""
    return np.concatenate(list(scorer.score_stream(rows)))


def schema_mismatch(kinds: dict[str, str], target: Target, product: Product) -> str:
    """What a model reads or answers that the product, as it is declared, does not have; nothing where it fits."""
    if unread := kinds.items() - product.columns.items():
        return "reads " + ", ".join(f"{name} as {kind}" for name, kind in sorted(unread))
    if target.task != product.target.task or target.column not in (None, product.target.name):
        return f"answers {target.column or 'a target'} as {target.task}"
    return ""


def _array(values: pd.Series, cells: str) -> np.ndarray:
    """Return a valid column as an array of its type of cells; texts as object, str or None."""
    if cells != "str":
        return values.to_numpy(cells)
    # By way of Arrow, whose texts pandas holds: ten times as fast as cell by cell, and None where there is none.
    return pa.array(values, from_pandas=True).to_numpy(zero_copy_only=False)
