"""The line through the context columns: what the rest of the network leaves of its rows.

Shape legend: n rows, o outputs, k context columns, g contexts.
"""

import numpy as np
import torch

from model.network.context import Context

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
