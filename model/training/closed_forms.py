"""Fits to the optimum, once the encoder is trained: head of a probe, linear models of subwords and columns, context.

Shape legend: n rows, d width, o outputs, k context columns, g contexts.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.features.encoded import Encoded
from model.heads.base import Head
from model.network.context import Context
from model.network.network import Head as NetworkHead
from model.network.wide import Wide
from model.training.boosting import LOGIT_OF_NONE
from model.training.optimum import minimise

TANH_INPUT_RMS = 0.25
"""Root mean square of the input of the head's tanh, small enough that the function is nearly a line."""
PRIOR_WEIGHT = 10.0
"""Weight of a row of length 1 against the ridge penalty on the weights of the head, where nothing chooses another."""


def fit_probe(
    head: NetworkHead, pooled: Tensor, loss: Callable[[Tensor], Tensor], strength: float = PRIOR_WEIGHT
) -> None:
    """Fit `head` by a loss of its logits: its first map only scales, its second is a regression with a ridge penalty.

    `strength` is the weight of a row of length 1 against that penalty.
    Shapes: pooled [n, d]; loss: logits [n, o] -> [], summed over the rows.
    """
    gain, weight, bias = probe_weights(pooled, loss, strength, head.out.out_features)
    with torch.no_grad():
        head.dense.weight.copy_(torch.eye(pooled.shape[1]) * gain)
        head.dense.bias.zero_()
        head.out.weight.copy_(weight)
        head.out.bias.copy_(bias)


def probe_weights(
    pooled: Tensor, loss: Callable[[Tensor], Tensor], strength: float, n_outputs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gain, weights and bias of the head that `fit_probe` fits. Shapes: [], float64 [o, d], [o]."""
    pooled = pooled.double()
    gain = TANH_INPUT_RMS / pooled.square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    rows = torch.tanh(pooled * gain)
    penalty = rows.square().sum(1).mean() / (2 * strength)
    weight = torch.zeros(n_outputs, pooled.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(n_outputs, dtype=torch.float64, requires_grad=True)
    minimise([weight, bias], lambda: (loss(rows @ weight.T + bias) + penalty * weight.square().sum()) / len(rows))
    return gain, weight.detach(), bias.detach()


MAX_KERNEL_ROWS = 3_000
"""Up to so many rows a ridge regression is solved by what each row adds, exactly; of more by steps on the subwords."""


@dataclass(frozen=True)
class Bags:
    """The bags of rows, each a vector of length 1, for ridge regressions on all or on a part of them."""

    units: Any
    """Sparse float64 [n, ids]."""
    rarity: np.ndarray
    """Of each subword or group of letters, by all rows."""
    kernel: np.ndarray | None
    """float64 [n, n]: how alike two rows are; None of many rows."""

    @classmethod
    def of(cls, wide: Wide, parts: Sequence[Encoded]) -> "Bags":
        """Read the rows of all parts; holds their bags in memory, 12 bytes for each subword of a row."""
        units, rarity = unit_bags(wide, parts)
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
    penalty: float,
    scale: float,
    row_weights: np.ndarray | None = None,
) -> None:
    """Fit rarity on the bags, and weights on `outputs` by ridge regression; its predictions are scaled by `scale`.

    Shapes: outputs float64 [n, o], of the rows of all parts, as of `Head.outputs`; row_weights [n], 1 in the mean.
    """
    bags = Bags.of(wide, parts)
    weight, intercept = bags.fit(outputs, penalty, row_weights, tolerance=1e-6)
    wide.rarity.copy_(torch.from_numpy(bags.rarity))
    mean = np.average(outputs, axis=0, weights=row_weights)
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


def unit_bags(wide: Wide, parts: Sequence[Encoded]) -> tuple[Any, np.ndarray]:
    """Return the bags of all rows as vectors of one length, a sparse matrix, and the rarity of each subword."""
    from scipy import sparse

    n_rows = sum(map(len, parts))
    n_with = sum(np.bincount(part["bag"], minlength=len(wide.rarity)) for part in parts)
    rarity = np.where(n_with > 0, np.log((1 + n_rows) / (1 + n_with)) + 1, 0.0)
    fields = _unit_fields(wide, parts, rarity)
    return sparse.hstack(fields, format="csr") / len(fields) ** 0.5, rarity


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


def fit_line(
    head: Head, inputs: Any, y: np.ndarray, n_outputs: int, strength: float, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and bias of a regression with a ridge penalty, logistic where labels are classes.

    Shapes: inputs sparse [n, k]; y [n] or [n, o]; returns float64 [k, o], [o].
    """
    from scipy import sparse

    inputs = sparse.csr_matrix(inputs)
    # What no row has gets no weight; of groups of letters that is most.
    used = np.unique(inputs.indices)
    full, inputs = np.zeros((inputs.shape[1], n_outputs)), inputs[:, used]
    full[used], bias = _fit_used(head, inputs, y, n_outputs, strength, weights)
    return full, bias


def _fit_used(
    head: Head, inputs: Any, y: np.ndarray, n_outputs: int, strength: float, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Do what `fit_line` does, of inputs that rows have."""
    from sklearn.linear_model import LogisticRegression, Ridge

    weight, bias = np.zeros((inputs.shape[1], n_outputs)), np.zeros(n_outputs)
    if not head.has_classes:
        ridge = Ridge(alpha=strength, solver="lsqr", tol=1e-6).fit(inputs, y.reshape(len(y), -1), weights)
        errors = y.reshape(len(y), -1)[:, 0] - ridge.predict(inputs).reshape(len(y), -1)[:, 0]
        return ridge.coef_.reshape(n_outputs, -1).T, ridge.intercept_.reshape(-1) + head.spread(errors, weights)
    columns = [y] if y.ndim == 1 else list(y.T)
    is_of_several = len(columns) == 1 and n_outputs > 1
    if is_of_several:
        bias -= LOGIT_OF_NONE  # of a class that these rows do not hold
    for at, column in enumerate(columns):
        known = np.unique(column.astype(np.int64))
        if len(known) == 1:
            bias[known[0] if is_of_several else at] = LOGIT_OF_NONE if is_of_several or known[0] else -LOGIT_OF_NONE
            continue
        model = LogisticRegression(C=1 / strength, max_iter=300, tol=1e-3)
        model.fit(inputs, column.astype(np.int64), sample_weight=weights)
        found, start = model.coef_.T, model.intercept_
        if is_of_several:
            if len(known) == 2:
                found, start = np.hstack([-found / 2, found / 2]), np.r_[-start / 2, start / 2]
            weight[:, known], bias[known] = found, start
        else:
            weight[:, at], bias[at] = found[:, 0], start[0]
    return weight, bias


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


EXPECTED_EFFECT = 0.2
"""By how much a standard deviation of a context column moves a logit, as a guess before any row is seen."""
DIGITS = 4
"""Decimal places of a standardised value; contexts that agree in all columns so rounded are one."""


def fit_context(context: Context, columns: np.ndarray, scores: np.ndarray, informations: np.ndarray) -> None:
    """Fit the line through what the rows of each context leave unexplained.

    Shapes: columns float32 [n, k], standardised; scores and informations float64 [n, o], as of
    `Head.score_and_information`.
    """
    contexts, numbers = np.unique(columns.round(DIGITS), axis=0, return_inverse=True)
    for output, (score, information) in enumerate(zip(scores.T, informations.T, strict=True)):
        score, information = (np.bincount(numbers.ravel(), values) for values in (score, information))
        context.weight[:, output] = torch.from_numpy(slopes(contexts.astype(np.float64), score, information))


def slopes(contexts: np.ndarray, score: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Return the slopes of the line through all contexts, which need not go through zero.

    Shapes: contexts float64 [g, k]; score and information, summed over the rows of each, float64 [g]; returns [k].
    Source: DerSimonian and Laird 1986 (weights of observations that vary by more than their own errors).
    """
    is_known = information > 0
    contexts, score, information = contexts[is_known], score[is_known], information[is_known]
    moves = score / information  # Newton's step: by how much each context's logits should move
    weights = 1 / (1 / information + variance_between(moves, information))
    terms = np.column_stack([np.ones(len(contexts)), contexts])
    penalty = np.diag([0.0, *[EXPECTED_EFFECT**-2] * contexts.shape[1]])
    squares = terms.T @ (weights[:, None] * terms) + penalty
    return np.linalg.lstsq(squares, terms.T @ (weights * moves), rcond=None)[0][1:]


def variance_between(moves: np.ndarray, information: np.ndarray) -> float:
    """Return by how much the contexts' moves vary beyond what the number of their rows explains. Shapes: [g], [g]."""
    total = information.sum()
    if not len(moves):
        return 0.0
    surplus = (information * (moves - (information @ moves) / total) ** 2).sum() - (len(moves) - 1)
    weight = total - (information**2).sum() / total
    return max(0.0, surplus / weight) if weight > 0 else 0.0
