"""Choose the weights of the parts that score together, on rows that none of them was fitted on.

Shape legend: n rows, o outputs, p parts.
"""

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from model.network.blend import PARTS
from model.target import Target
from model.training.loss import Loss
from model.training.optimum import minimise

COST_OF_A_PART = 1.0
"""By how much a part must lower the loss of all rows together to be as likely without as with it. Source: Akaike 1974
(AIC)."""
CAUTION = 3.0
"""Losses count a third when choices of parts are weighed by them: rows are alike, and none of the choices is true.
Source: Grünwald and van Ommen 2017, "Inconsistency of Bayesian Inference for Misspecified Linear Models"."""
LEAST_SHARE = 0.05
"""A part with less than this share of all weight is not worth being computed."""
LEAST_ERROR = 1e-3
"""Numbers that are nearer to their labels, in standard deviations of these, are as good as exact: taken for what chance
leaves, an error of a millionth makes every other part's loss so large that its weight overflows."""


def fit_blend(
    parts: Mapping[str, Tensor], loss: Callable[[Tensor], Tensor], n_observed: int | None = None
) -> np.ndarray:
    """Return the weight of each of the p parts, 0 for one that is not worth its cost.

    `parts` are the logits of those that there are, by name. For each choice of parts the weights are those of least
    loss, drawn to equal shares as by one more observation each; the result is their mean over all choices, weighed by
    their likelihood, and each part costs `COST_OF_A_PART`: few rows leave a part its share that is hardly behind, many
    decide. A choice without a finite minimum counts for nothing. Rows that hang together count as `n_observed`.
    Shapes: logits [n, o]; loss: [n, o] -> [], a likelihood's, summed over the rows; returns float64 [p].
    Raises: FloatingPointError where no choice has one.
    Source: Burnham and Anderson 2004, "Multimodel Inference" (Akaike weights).
    """
    totals, choices = [], []
    n_rows = max(1, *map(len, parts.values()))
    evidence = 1.0 if n_observed is None else n_observed / n_rows
    for size in range(1, len(parts) + 1):
        for chosen in itertools.combinations(parts, size):
            logits, moves = [parts[part].double() for part in chosen], torch.zeros(size, dtype=torch.float64)
            moves.requires_grad_()

            def objective(logits: list[Tensor] = logits, moves: Tensor = moves) -> Tensor:
                weights = moves.exp() / len(logits)
                blend = torch.stack(logits, -1) @ weights
                return (evidence * loss(blend) + moves.square().sum() / 2) / n_rows

            minimise([moves], objective)
            total = float(objective().detach()) * n_rows + COST_OF_A_PART * size
            if not math.isfinite(total):
                continue
            totals.append(total)
            choices.append(np.zeros(len(PARTS)))
            choices[-1][[PARTS.index(part) for part in chosen]] = moves.detach().exp().numpy() / size
    if not choices:
        raise FloatingPointError("what the parts of the blend say of unseen rows must be numbers; see their labels")
    likelihoods = np.exp(-(np.array(totals) - min(totals)) / CAUTION)
    weights = likelihoods @ np.array(choices) / likelihoods.sum()
    kept = np.where(weights < LEAST_SHARE * weights.sum(), 0.0, weights)
    return kept * (weights.sum() / kept.sum())


def with_context(logits: Tensor, context: Tensor | None) -> Tensor:
    """Return logits in double precision, with what the context says added if there is one. Shapes: [n, o] each."""
    return logits.double() if context is None else logits + context


def likelihood(
    target: Target, parts: Mapping[str, Tensor], labels: Tensor, class_weights: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """Return the loss of logits as a likelihood's, over all rows; that of numbers takes the errors of the best part."""
    loss = Loss(target=target, class_weights=class_weights)
    variance = 0.5
    if not target.head.has_probabilities:
        least = min(float(loss(each, labels)) for each in parts.values())
        variance = max(least / len(labels), LEAST_ERROR**2)
    return lambda logits: loss(logits, labels) / (2 * variance)
