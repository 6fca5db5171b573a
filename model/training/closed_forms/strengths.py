"""Choose how strongly what is fitted in closed form is drawn to nothing, by rows that it was not fitted to.

Shape legend: n rows, d width, o outputs.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from model.features.encoded import Encoded
from model.network.wide import Wide
from model.training.closed_forms.probe import PRIOR_WEIGHT, probe_weights
from model.training.closed_forms.wide import DEFAULT_PENALTY, Bags, WideRidge, unit_bags, wide_out_of_fold
from model.training.loss import Loss

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Weights of a row of length 1 against the penalty of a head, the strongest penalty first."""
PENALTIES = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
"""Ridge penalties of the linear model of subwords, the strongest first."""
LETTER_SHARES = (1 / 3, 0.6, 0.8, 0.95)
"""Shares of groups of letters in how alike two texts are, beside subwords: of names and single words they are large."""
CHOOSING_ROWS = 20_000
"""Of more rows a penalty says little: then it is the one that does for all, and all fields count alike."""
N_FOLDS, SEED = 3, 0
ENOUGH_UNSEEN = 200
"""So many validation rows decide alone."""


def best_strength(fitted: tuple[Tensor, Tensor, Tensor | None], unseen: tuple[Tensor, Tensor], loss: Loss) -> float:
    """Return the strength for `fit_probe` of least loss of rows that it was not fitted to: unseen ones, and folds.

    Shapes: fitted: float32 [n, d], labels as of `loss_labels`, weights [n]; unseen: the first two of other rows.
    """
    pooled, labels, weights = fitted
    if not N_FOLDS <= len(pooled) <= CHOOSING_ROWS:
        return PRIOR_WEIGHT
    fold = torch.from_numpy(np.random.default_rng(SEED).permutation(len(pooled)) % N_FOLDS)
    judged = Loss(target=loss.target, class_weights=loss.class_weights)

    def of(rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return pooled[rows], labels[rows], None if weights is None else weights[rows]

    def total(strength: float) -> float:
        n_folds = N_FOLDS if len(unseen[0]) < ENOUGH_UNSEEN else 0
        parts = [(fitted, (*unseen, None)), *((of(fold != number), of(fold == number)) for number in range(n_folds))]
        losses = 0.0
        for (rows, answers, weigh), (others, truth, others_weigh) in parts:
            head = _head(rows, lambda logits, a=answers, w=weigh: loss(logits, a, w), strength, loss.target.n_outputs)  # type: ignore[misc]
            losses += float(judged(head(others), truth, others_weigh))
        return losses

    return least(STRENGTHS, PRIOR_WEIGHT, total)


def _head(
    rows: Tensor, loss: Callable[[Tensor], Tensor], strength: float, n_outputs: int
) -> Callable[[Tensor], Tensor]:
    gain, weight, bias = probe_weights(rows, loss, strength, n_outputs)
    return lambda pooled: torch.tanh(pooled.double() * gain) @ weight.T + bias


def best_ridge(
    wide: Wide, parts: Sequence[Encoded], outputs: np.ndarray, weights: np.ndarray | None, penalty: float | None
) -> WideRidge:
    """Return how `fit_wide` has the least squared error of rows that it was not fitted to.

    `penalty`: where it is declared. Shapes: as of `fit_wide`.
    """
    first = WideRidge(penalty or DEFAULT_PENALTY)
    if not N_FOLDS <= len(outputs) <= CHOOSING_ROWS:
        return first
    fields, rarity = unit_bags(wide, parts)
    centred = outputs - np.average(outputs, axis=0, weights=weights)

    def error(bags: Bags, penalty: float) -> float:
        answers = wide_out_of_fold(bags, outputs, penalty, 1.0, N_FOLDS, SEED, weights).numpy()
        return float(np.average(((answers - centred) ** 2).sum(1), weights=weights))

    def best_penalty(letters: float | None, start: float) -> float:
        bags = Bags.joined(fields, rarity, letters)
        return penalty or least(PENALTIES, start, lambda tried: error(bags, tried))

    at_first = best_penalty(None, first.penalty)
    if not wide.n_letter_groups:
        return WideRidge(at_first)
    start = LETTER_SHARES[0]
    letters = least(LETTER_SHARES, start, lambda share: error(Bags.joined(fields, rarity, share), at_first))
    return WideRidge(best_penalty(letters, at_first), letters)


def least(tried: Sequence[float], start: float, loss: Callable[[float], float]) -> float:
    """Return the value of least loss, going from `start` as long as the next one is better: losses have one dip.

    >>> least([9.0, 4.0, 1.0, 0.0, -5.0], 0.0, lambda value: (value - 4) ** 2)
    4.0
    """
    at, losses = tried.index(start), dict[int, float]()
    while True:
        for place in (at - 1, at, at + 1):
            if 0 <= place < len(tried) and place not in losses:
                losses[place] = loss(tried[place])
        best = min(losses, key=lambda place: (losses[place], place))
        if best == at:
            return tried[at]
        at = best
