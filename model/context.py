"""A linear model of the context columns beside the encoder: numbers that many rows share, such as a day's weather.

A quarter of flights has 90 days of weather and 80,000 rows. A network, or a tree, that reads such a column with the
rest takes it for the name of the day and learns by heart what happened on it; so the encoder does not see it. After
the encoder was trained, what it leaves unexplained is averaged over the rows of one context, an observation each,
and a straight line through them is fitted: ridge regression, where the few rows of a context, and what else differs
between contexts, count as noise.
Source: DerSimonian and Laird, "Meta-analysis in clinical trials" (1986), for the variance between contexts.

Shape legend: b rows, n rows of a table, g contexts, k context columns, o outputs.
"""

import numpy as np
import torch
from torch import Tensor, nn

MOST_DEVIATIONS = 3.0
"""A value further from the fitted mean counts as this far, so that a freak cannot drive a score anywhere."""
EXPECTED_EFFECT = 0.2
"""How far a standard deviation of a context column moves a logit, as a guess before any row is seen."""
DIGITS = 4
"""Of a standardised value: contexts that agree in these are one."""


class Context(nn.Module):
    """What the context adds to the logits. Its weights are buffers: no gradient, decay or average moves them."""

    centre: Tensor
    deviation: Tensor
    weight: Tensor

    def __init__(self, n_columns: int, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(n_columns))
        self.register_buffer("deviation", torch.ones(n_columns))
        self.register_buffer("weight", torch.zeros(n_columns, n_outputs))

    def forward(self, context: Tensor) -> Tensor:
        """Shapes: float32 [b, k], NaN for missing, which adds nothing -> [b, o]."""
        return self.standardised(context) @ self.weight

    def standardised(self, context: Tensor) -> Tensor:
        """In standard deviations from the mean, a missing value at the mean. Shapes: [b, k] -> [b, k]."""
        known = torch.where(torch.isnan(context), self.centre, context)
        return ((known - self.centre) / self.deviation).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)


def fit_context(context: Context, columns: np.ndarray, errors: np.ndarray, informations: np.ndarray) -> None:
    """Fit the line through the mean error of each context.

    Shapes: columns float32 [n, k], NaN for missing; errors float64 [n, o]: of each row, by how much the truth is above
    the mean that the network gives it; informations float64 [n, o]: how fast that mean moves with the logit.
    """
    known = np.isfinite(columns)
    n_known = known.sum(0).clip(min=1)
    # In float64, as torch is given what it will see: neither may depend on the order of the rows.
    centre = np.where(known, columns, 0.0).sum(0, dtype=np.float64) / n_known
    deviation = np.sqrt((np.where(known, columns - centre, 0.0) ** 2).sum(0) / n_known)
    context.centre.copy_(torch.from_numpy(centre))
    context.deviation.copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1.0)))
    rows = context.standardised(torch.from_numpy(columns).to(context.centre.device)).cpu().numpy()
    shared, which = np.unique(rows.round(DIGITS), axis=0, return_inverse=True)
    for output, (error, information) in enumerate(zip(errors.T, informations.T, strict=True)):
        line = _line(shared.astype(np.float64), _sum(error, which), _sum(information, which))
        context.weight[:, output] = torch.from_numpy(line)


def _sum(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    return np.bincount(which.ravel(), values)


def _line(shared: np.ndarray, error: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Its slopes; it need not go through zero. Shapes: shared [g, k]; error and information, summed, [g] -> [k]."""
    weighs = information > 0
    shared, error, information = shared[weighs], error[weighs], information[weighs]
    moves = error / information  # one step of Newton's: how far each context's logits should move
    weights = 1 / (1 / information + _variance_between(moves, information))
    terms = np.column_stack([np.ones(len(shared)), shared])
    penalty = np.diag([0.0, *[EXPECTED_EFFECT**-2] * shared.shape[1]])
    squares = terms.T @ (weights[:, None] * terms) + penalty
    return np.linalg.lstsq(squares, terms.T @ (weights * moves), rcond=None)[0][1:]


def _variance_between(moves: np.ndarray, information: np.ndarray) -> float:
    """By how much the contexts' moves vary beyond what the number of their rows explains. Shapes: [g], [g]."""
    total = information.sum()
    if not len(moves):
        return 0.0
    surplus = (information * (moves - (information @ moves) / total) ** 2).sum() - (len(moves) - 1)
    apart = total - (information**2).sum() / total
    return max(0.0, surplus / apart) if apart > 0 else 0.0
