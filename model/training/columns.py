"""Rows as trees and line read them, and what is fitted for that: scales, pieces, and numbers in place of categories.

A category's number, for each output, is the mean of its rows. Of a category with many rows that is plain; of one with
few, whose own label would tell itself in it, a row is given the mean of rows that it is not among. Given so to all, one
category had several numbers, in the opposite order of the labels that each was made without, and trees learnt that.

Shape legend: n rows, c category columns, e numbers that stand for a category, k inputs, m number columns, p pieces of
each, o outputs.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.features.encoded import Encoded
from model.features.fitting import chosen_rows
from model.features.kinds import CONTEXT
from model.features.kinds.number import MAX_MAGNITUDE
from model.network.companion import Columns
from model.network.wide import Wide
from model.training.closed_forms.wide import units_of

MAX_ROWS = 200_000
"""Rows that trees and line are fitted to; of more they take a sample."""
N_FOLDS = 5
MANY_ROWS = 20
"""Rows of a category from which on one of them hardly moves the mean."""
PRIOR_ROWS = 5.0
"""Rows by which the mean of a category is drawn to that of all."""
N_PIECES = 8
"""Pieces in which the line may read a number."""
COLUMNS = ("categories", "numbers", "times", "event_summaries", CONTEXT)
"""Inputs of a batch that hold columns, or sum up events."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows to fit to, as arrays of single precision, with their labels."""

    batch: dict[str, Tensor]
    """The inputs of the columns, as of a batch."""
    text: Tensor | None
    """float32 [n, o]: what the linear model of subwords says."""
    labels: Tensor
    """As of `Head.loss_labels`."""
    letters: Any | None = None
    """Sparse float64 [n, groups]: what groups of letters count (see `Wide.letters`), where the line reads them."""
    weights: np.ndarray | None = None
    """float64 [n]: what each weighs."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: np.ndarray) -> "Rows":
        at = torch.from_numpy(chosen)
        return Rows(
            batch={name: array[at] for name, array in self.batch.items()},
            text=None if self.text is None else self.text[at],
            labels=self.labels[at],
            letters=None if self.letters is None else self.letters[chosen],
            weights=None if self.weights is None else self.weights[chosen],
        )


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What trees and line read of rows."""

    trees: np.ndarray
    """float32 [n, k]."""
    lines: tuple[Any, ...]
    """Sparse float64 [n, k] of the line that reads numbers plainly, and of the one that reads their pieces too, if the
    columns have such: slots, numbers, letters, pieces."""


def rows_of(
    parts: Sequence[Encoded], text: Tensor | None, labels: Tensor, weights: np.ndarray | None, wide: Wide | None = None
) -> Rows:
    """Return the rows of encoded parts, or of more than MAX_ROWS a sample; with letters, if `wide` is given.

    Shapes: text [n, o]; labels [n, ...].
    """
    chosen = chosen_rows(len(labels), MAX_ROWS)
    starts = np.cumsum([0, *map(len, parts)])
    inside = [chosen[(chosen >= start) & (chosen < end)] - start for start, end in itertools.pairwise(starts)]
    at = torch.from_numpy(chosen)
    return Rows(
        batch={
            name: torch.from_numpy(np.concatenate([part[name][own] for part, own in zip(parts, inside, strict=True)]))
            for name in COLUMNS
            if name in parts[0].arrays
        },
        text=None if text is None else text[at],
        labels=labels[at],
        letters=None if wide is None else units_of(wide, parts)[-1][chosen],
        weights=None if weights is None else weights[chosen],
    )


@torch.no_grad()
def fit_columns(columns: Columns, rows: Rows, outputs: np.ndarray, seed: int) -> Inputs:
    """Fit scales, pieces, and numbers in place of categories, to rows; return what trees and line read of these rows.

    Shapes: outputs float64 [n, o].
    """
    batch, text = rows.batch, rows.text
    if columns.n_plain:
        plain = columns.plain(batch, text).double().numpy()
        with np.errstate(invalid="ignore"):
            known = ~np.isnan(plain)
            count = known.sum(0).clip(1)
            centre = np.where(known, plain, 0).sum(0) / count
            scale = np.sqrt((np.where(known, plain - centre, 0) ** 2).sum(0) / count)
        columns.centre.copy_(torch.from_numpy(centre))
        columns.scale.copy_(torch.from_numpy(np.where(scale > 1e-6, scale, 1.0)))
    if columns.n_pieces:
        for at, numbers in enumerate(batch["numbers"].numpy().T):
            ends = _ends_of_pieces(numbers)
            n_pieces = max(0, len(ends) - 1)
            columns.lower[at, :n_pieces] = torch.from_numpy(ends[:-1])
            columns.steepness[at, :n_pieces] = torch.from_numpy(1 / np.diff(ends).clip(1 / MAX_MAGNITUDE))
    encoded = [_encode_categories(columns, batch, outputs, seed)] if columns.n_categories else []
    trees = torch.cat([*encoded, *columns.beside_categories(batch, text)], dim=1).numpy()
    return Inputs(trees=trees, lines=_line_inputs(columns, rows))


@torch.no_grad()
def read_columns(columns: Columns, rows: Rows) -> Inputs:
    """Return what trees and line read of rows that the columns were not fitted to."""
    return Inputs(trees=columns.for_trees(rows.batch, rows.text).numpy(), lines=_line_inputs(columns, rows))


def _ends_of_pieces(numbers: np.ndarray) -> np.ndarray:
    """Return where the pieces of a column end, of like many rows each: fewer where many rows have one number.

    Shapes: float32 [n] -> float32 [at most p + 1]

    >>> _ends_of_pieces(np.array([1, 1, 1, 2, 5, np.nan], np.float32)).tolist()
    [1.0, 2.0, 5.0]
    """
    known = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
    if len(known[0]) <= N_PIECES + 1:
        return known[0]
    return np.unique(np.quantile(np.repeat(*known), np.linspace(0, 1, N_PIECES + 1), method="inverted_cdf"))


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


def _line_inputs(columns: Columns, rows: Rows) -> tuple[Any, ...]:
    """Return one-hot categories, standardised numbers and letters; and with the pieces of numbers, if there are such.

    Letters take the place of what the linear model of subwords says, whose column stays empty: where that is added, few
    rows give all weight to it.
    """
    from scipy import sparse

    parts = []
    if columns.n_categories:
        slots = columns.slots(rows.batch).numpy()
        at = (np.repeat(np.arange(len(slots)), slots.shape[1]), slots.ravel())
        parts.append(sparse.csr_matrix((np.ones(slots.size), at), shape=(len(slots), columns.n_slots)))
    if columns.n_plain:
        numbers = columns.standardised(columns.plain(rows.batch, rows.text)).double().numpy()
        if rows.letters is not None and columns.n_logits:
            numbers[:, -columns.n_logits :] = 0.0
        parts.append(sparse.csr_matrix(numbers))
    if rows.letters is not None:
        parts.append(rows.letters)
    plain = sparse.hstack(parts, format="csr")
    if not columns.n_pieces:
        return (plain,)
    return plain, sparse.hstack([plain, sparse.csr_matrix(columns.pieces(rows.batch).double().numpy())], format="csr")
