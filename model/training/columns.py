"""Fit what stands for the columns of a batch before trees and line: scales, and numbers in place of categories.

A category's number, for each output, is the mean of its rows. Of a category with many rows that is plain; of one with
few, whose own label would tell itself in it, a row is given the mean of rows that it is not among. Given so to all, one
category had several numbers, in the opposite order of the labels that each was made without, and trees learnt that.

Shape legend: n rows, c category columns, e numbers that stand for a category, k inputs, o outputs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.network.companion import Columns

N_FOLDS = 5
MANY_ROWS = 20
"""Rows of a category from which on one of them hardly moves the mean."""
PRIOR_ROWS = 5.0
"""Rows by which the mean of a category is drawn to that of all."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What trees and line read of rows."""

    trees: np.ndarray
    """float32 [n, k]."""
    line: Any
    """Sparse float64 [n, slots + k]."""

    def __getitem__(self, chosen: np.ndarray) -> "Inputs":
        return Inputs(trees=self.trees[chosen], line=self.line[chosen])


@torch.no_grad()
def fit_columns(
    columns: Columns, batch: dict[str, Tensor], text: Tensor | None, outputs: np.ndarray, seed: int
) -> Inputs:
    """Fit scales, and numbers in place of categories, to rows; return what trees and line read of these rows.

    Shapes: text [n, o]; outputs float64 [n, o].
    """
    if columns.n_plain:
        plain = columns.plain(batch, text).double().numpy()
        with np.errstate(invalid="ignore"):
            known = ~np.isnan(plain)
            count = known.sum(0).clip(1)
            centre = np.where(known, plain, 0).sum(0) / count
            scale = np.sqrt((np.where(known, plain - centre, 0) ** 2).sum(0) / count)
        columns.centre.copy_(torch.from_numpy(centre))
        columns.scale.copy_(torch.from_numpy(np.where(scale > 1e-6, scale, 1.0)))
    encoded = [_encode_categories(columns, batch, outputs, seed)] if columns.n_categories else []
    trees = torch.cat([*encoded, *columns.beside_categories(batch, text)], dim=1).numpy()
    return Inputs(trees=trees, line=line_inputs(columns, batch, text))


@torch.no_grad()
def read_columns(columns: Columns, batch: dict[str, Tensor], text: Tensor | None) -> Inputs:
    """Return what trees and line read of rows that the columns were not fitted to. Shapes: as of `fit_columns`."""
    return Inputs(trees=columns.for_trees(batch, text).numpy(), line=line_inputs(columns, batch, text))


def _encode_categories(columns: Columns, batch: dict[str, Tensor], outputs: np.ndarray, seed: int) -> Tensor:
    """Fit the numbers of all categories; return those of the rows. Shapes: outputs [n, o] -> float32 [n, c * e]."""
    slots, n_encoded = columns.slots(batch).numpy(), columns.encodings.shape[1]
    if n_encoded < outputs.shape[1]:
        columns.encodings.copy_(torch.arange(columns.n_slots, dtype=torch.float32)[:, None])
        return columns.encodings[columns.slots(batch)].flatten(1)
    is_rare = np.bincount(slots.ravel(), minlength=columns.n_slots)[slots] < MANY_ROWS
    fold = np.random.default_rng(seed).permutation(len(outputs)) % N_FOLDS
    own = np.empty((*slots.shape, n_encoded), np.float32)
    for output, y in enumerate(outputs.T):
        means = _means(slots, y, columns.n_slots, float(y.mean()))
        own[..., output] = means[slots]
        columns.encodings[:, output] = torch.from_numpy(means).float()
        for number in range(N_FOLDS):
            without = fold != number
            if is_rare.any() and not without.all():
                others = _means(slots[without], y[without], columns.n_slots, float(y.mean()))
                at = is_rare & ~without[:, None]
                own[at, output] = others[slots[at]]
    return torch.from_numpy(own).flatten(1)


def _means(slots: np.ndarray, y: np.ndarray, n_slots: int, prior: float) -> np.ndarray:
    """Return the mean of `y` by slot, drawn to `prior`. Shapes: slots int64 [n, c], y [n] -> float64 [slots].

    Source: Micci-Barreca 2001, "A preprocessing scheme for high-cardinality categorical attributes".
    """
    count = np.bincount(slots.ravel(), minlength=n_slots)
    total = np.bincount(slots.ravel(), np.repeat(y, slots.shape[1]), minlength=n_slots)
    return (total + PRIOR_ROWS * prior) / (count + PRIOR_ROWS)


def line_inputs(columns: Columns, batch: dict[str, Tensor], text: Tensor | None) -> Any:
    """Return one-hot categories and standardised numbers as a sparse matrix. Shapes: [n, slots + k]."""
    from scipy import sparse

    parts = []
    if columns.n_categories:
        slots = columns.slots(batch).numpy()
        at = (np.repeat(np.arange(len(slots)), slots.shape[1]), slots.ravel())
        parts.append(sparse.csr_matrix((np.ones(slots.size), at), shape=(len(slots), columns.n_slots)))
    if columns.n_plain:
        numbers = columns.standardised(columns.plain(batch, text)).double().numpy()
        parts.append(sparse.csr_matrix(numbers))
    return sparse.hstack(parts, format="csr")
