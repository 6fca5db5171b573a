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

EXPECTED_EFFECT = 0.2
"""How far a standard deviation of a context column moves a logit, as a guess before any row is seen."""
DIGITS = 4
"""Of a standardised value: contexts that agree in these are one."""


class Context(nn.Module):
    """What the context adds to the logits. Its weights are buffers: no gradient, decay or average moves them."""

    weight: Tensor

    def __init__(self, n_columns: int, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_columns, n_outputs))

    def forward(self, context: Tensor) -> Tensor:
        """Shapes: float32 [b, k], standardised, 0 for missing -> [b, o]."""
        return context @ self.weight


def fit_context(context: Context, columns: np.ndarray, scores: np.ndarray, informations: np.ndarray) -> None:
    """Fit the line through what the rows of each context leave unexplained.

    Shapes: columns float32 [n, k], standardised; scores float64 [n, o]: the slope of each row's log-likelihood in its
    logits; informations float64 [n, o]: by how much a step of the logit takes from that slope.
    """
    shared, which = np.unique(columns.round(DIGITS), axis=0, return_inverse=True)
    for output, (score, information) in enumerate(zip(scores.T, informations.T, strict=True)):
        line = _line(shared.astype(np.float64), _sum(score, which), _sum(information, which))
        context.weight[:, output] = torch.from_numpy(line)


def _sum(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    return np.bincount(which.ravel(), values)


def _line(shared: np.ndarray, score: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Its slopes; it need not go through zero. Shapes: shared [g, k]; score and information, summed, [g] -> [k]."""
    weighs = information > 0
    shared, score, information = shared[weighs], score[weighs], information[weighs]
    moves = score / information  # one step of Newton's: how far each context's logits should move
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
