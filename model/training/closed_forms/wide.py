"""The linear model of subwords and groups of letters: ridge regression on bags.

Shape legend: n rows, o outputs.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.features.encoded import Encoded
from model.network.wide import Wide
from model.training.optimum import minimise

MAX_KERNEL_ROWS = 3_000
"""Up to so many rows a ridge regression is solved by what each row adds, exactly; of more by steps on the subwords."""
DEFAULT_PENALTY = 0.3
"""Of the ridge regression, where nothing chooses another."""


@dataclass(frozen=True)
class WideRidge:
    """How the linear model of subwords is fitted."""

    penalty: float = DEFAULT_PENALTY
    letters: float | None = None
    """The share of groups of letters, as of `Bags.of`."""


@dataclass(frozen=True)
class Bags:
    """The bags of rows, each a vector of length 1, for ridge regressions on all or on a part of them."""

    units: Any
    """Sparse float64 [n, ids]: the fields beside one another, each by the root of its share."""
    rarity: np.ndarray
    """Of each subword or group of letters, by all rows."""
    kernel: np.ndarray | None
    """float64 [n, n]: how alike two rows are; None of many rows."""

    @classmethod
    def of(cls, wide: Wide, parts: Sequence[Encoded], letters: float | None = None) -> "Bags":
        """Read the rows of all parts; holds their bags in memory, 12 bytes for each subword of a row.

        `letters` is the share of the groups of letters in how alike two rows are; None for that of the other fields.
        """
        return cls.joined(*unit_bags(wide, parts), letters)

    @classmethod
    def joined(cls, fields: Sequence[Any], rarity: np.ndarray, letters: float | None) -> "Bags":
        """Return the bags of these fields, as of `unit_bags`; `letters` as of `of`."""
        from scipy import sparse

        roots = roots_of_shares(len(fields), letters)
        units = sparse.hstack([each * root for each, root in zip(fields, roots, strict=True)], format="csr")
        return cls(units, rarity, (units @ units.T).toarray() if units.shape[0] <= MAX_KERNEL_ROWS else None)

    def fit(
        self, outputs: np.ndarray, penalty: float, weights: np.ndarray | None, tolerance: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and intercept of a ridge regression on all rows. Shapes: [n, o] -> [ids, o], [o]."""
        if self.kernel is not None:
            moves, intercept = ridge_by_rows(self.kernel, outputs, penalty, weights)
            return self.units.T @ moves, intercept
        return _ridge_by_steps(self.units, outputs, penalty, weights, tolerance)

    def predict_unseen(
        self, learnt: np.ndarray, outputs: np.ndarray, penalty: float, weights: np.ndarray | None, tolerance: float
    ) -> np.ndarray:
        """Return what a ridge regression on the rows that are `learnt` says of the others. Shapes: bool [n], [n, o]."""
        if self.kernel is not None:
            moves, intercept = ridge_by_rows(self.kernel[np.ix_(learnt, learnt)], outputs[learnt], penalty, weights)
            return self.kernel[np.ix_(~learnt, learnt)] @ moves + intercept
        weight, intercept = _ridge_by_steps(self.units[learnt], outputs[learnt], penalty, weights, tolerance)
        return self.units[~learnt] @ weight + intercept


def roots_of_shares(n_fields: int, letters: float | None) -> list[float]:
    """Return what the fields, of which groups of letters are the last, are multiplied by: their squares sum to 1."""
    if letters is None:
        return [n_fields**-0.5] * n_fields
    return [((1 - letters) / (n_fields - 1)) ** 0.5] * (n_fields - 1) + [letters**0.5]


def ridge_by_rows(
    kernel: np.ndarray, outputs: np.ndarray, penalty: float, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each row is in the weights of a ridge regression, which are sums of rows, and the intercept.

    Shapes: kernel [n, n], the rows' products with each other; outputs [n, o]; weights [n]; returns [n, o], [o].
    Source: Saunders et al. 1998, "Ridge Regression Learning Algorithm in Dual Variables".
    """
    from scipy import linalg
    from threadpoolctl import threadpool_limits

    weights = np.ones(len(kernel)) if weights is None else weights
    share, root = weights / weights.sum(), np.sqrt(weights)[:, None]
    mean, towards = share @ outputs, share @ kernel
    system = root * (kernel - towards - towards[:, None] + towards @ share) * root.T
    system[np.diag_indices(len(system))] += penalty
    with threadpool_limits(1):  # the number of cores must change no bit
        moves = root * linalg.solve(system, root * (outputs - mean), assume_a="pos", overwrite_a=True)
    moves -= share[:, None] * moves.sum(0)
    return moves, mean - towards @ moves


def _ridge_by_steps(
    units: Any, outputs: np.ndarray, penalty: float, weights: np.ndarray | None, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import Ridge

    ridge = Ridge(alpha=penalty, solver="sparse_cg", tol=tolerance).fit(units, outputs, sample_weight=weights)
    return ridge.coef_.reshape(outputs.shape[1], -1).T, np.reshape(ridge.intercept_, -1)


def fit_wide(
    wide: Wide,
    parts: Sequence[Encoded],
    outputs: np.ndarray,
    ridge: WideRidge,
    scale: float,
    row_weights: np.ndarray | None = None,
) -> None:
    """Fit rarity on the bags, and weights on `outputs` by ridge regression; its predictions are scaled by `scale`.

    `wide` counts all fields alike: the weights of one that has another share are stretched.
    Shapes: outputs float64 [n, o], of the rows of all parts, as of `Head.outputs`; row_weights [n], 1 in the mean.
    """
    bags = Bags.of(wide, parts, ridge.letters)
    weight, intercept = bags.fit(outputs, ridge.penalty, row_weights, tolerance=1e-6)
    wide.rarity.copy_(torch.from_numpy(bags.rarity))
    mean = np.average(outputs, axis=0, weights=row_weights)
    n_fields = len(wide.starts)
    stretched = np.array(roots_of_shares(n_fields, ridge.letters)) * n_fields**0.5
    weight *= np.repeat(stretched, np.diff([*wide.starts, len(weight)]))[:, None]
    wide.weight.copy_(torch.from_numpy(weight * scale))
    wide.bias.copy_(torch.from_numpy((intercept - mean) * scale))


def wide_out_of_fold(
    bags: Bags,
    outputs: np.ndarray,
    penalty: float,
    scale: float,
    n_folds: int,
    seed: int,
    row_weights: np.ndarray | None = None,
) -> Tensor:
    """Return what the linear model says of each row when it is fitted to the other folds.

    Shapes: as of `fit_wide`; returns float32 [n, o].
    """
    n_folds = min(n_folds, len(outputs))
    fold, answers = np.random.default_rng(seed).permutation(len(outputs)) % n_folds, np.zeros(outputs.shape)
    mean = np.average(outputs, axis=0, weights=row_weights)
    for number in range(n_folds):
        learnt = fold != number
        if not learnt.any():  # of one row nothing is known without it
            continue
        weights = None if row_weights is None else row_weights[learnt]
        found = bags.predict_unseen(learnt, outputs, penalty, weights, tolerance=1e-4)
        answers[~learnt] = (found - mean) * scale
    return torch.from_numpy(answers).float()


def unit_bags(wide: Wide, parts: Sequence[Encoded]) -> tuple[list[Any], np.ndarray]:
    """Return the fields of the bags of all rows, as of `units_of`, and the rarity of each subword, by these rows."""
    n_rows = sum(map(len, parts))
    n_with = sum(np.bincount(part["bag"], minlength=len(wide.rarity)) for part in parts)
    rarity = np.where(n_with > 0, np.log((1 + n_rows) / (1 + n_with)) + 1, 0.0)
    return _unit_fields(wide, parts, rarity), rarity


def units_of(wide: Wide, parts: Sequence[Encoded]) -> list[Any]:
    """Return the fields of the bags of all rows, each of length 1, by the rarity that was fitted.

    Shapes: sparse float64 [n, ids of the field] each.
    """
    return _unit_fields(wide, parts, wide.rarity.double().cpu().numpy())


def _unit_fields(wide: Wide, parts: Sequence[Encoded], rarity: np.ndarray) -> list[Any]:
    from scipy import sparse
    from sklearn.preprocessing import normalize

    n_ids = len(rarity)
    rows = sparse.vstack([sparse.csr_matrix(bags_of_subwords(part), shape=(len(part), n_ids)) for part in parts])
    columns = (rows @ sparse.diags_array(rarity)).tocsc()
    bounds = [*wide.starts, len(rarity)]
    return [normalize(columns[:, start:end].tocsr()) for start, end in itertools.pairwise(bounds)]


def bags_of_subwords(part: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights, subwords and offsets of the bags of a part."""
    return part["bag_weights"].astype(np.float64), part["bag"], part["bag_offsets"]


def fit_mix(wide: Wide, deep: Tensor, flat: Tensor, loss: Callable[[Tensor], Tensor], prior: float = 1.0) -> None:
    """Choose the weights of encoder and linear model, each above 0, by the loss of rows that neither was fitted on.

    Each weight is drawn to `prior` as by one more observation: that decides where few rows, or rows without a mistake,
    say little.
    Shapes: logits `deep` of the encoder and `flat` of the linear model [n, o]; loss: [n, o] -> [], summed over the
    rows.
    """
    moves = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    deep, flat = deep.double(), flat.double()

    def objective() -> Tensor:
        mix = prior * moves.exp()
        return (loss(mix[0] * deep + mix[1] * flat) + moves.square().sum() / 2) / len(deep)

    minimise([moves], objective)
    wide.mix.copy_(prior * moves.detach().exp())
