"""Tell which columns moved the score of each row most: each is taken away in turn, and the rows are scored again.

A column is taken away by making its cells missing, which a model has learnt to read where cells were missing in
training. What each column moves by itself adds up to no whole: two that say the same hide each other. With several
classes the score is that of the likeliest one. Takes as many scorings as there are columns, beside the first.

Source: Covert, Lundberg and Lee, "Explaining by Removing" (2021), which names this occlusion; Zeiler and Fergus (2014).
"""

from typing import Protocol

import numpy as np

from model.features.fitted import Features
from model.features.fitting import Table
from model.features.kinds.base import missing_cells

REASON = "reason_"
"""What begins the name of a night's column with a reason."""
DECIMALS = 2
"""Of a share; a column that moves a share by less is no reason."""


class ReadsTables(Protocol):
    """What scores rows and knows which columns it reads."""

    features: Features

    def score(self, table: Table) -> np.ndarray:
        """Return the scores of rows."""
        ...


def movements(
    scorer: ReadsTables, table: Table, scores: np.ndarray, *, are_shares: bool = True
) -> tuple[list[str], np.ndarray]:
    """Return the columns, and how far each moves every row's score; of scores that are no shares, their first.

    Shapes: scores [n] or [n, C], of the same table -> float64 [n, columns].
    """
    kinds, rows = scorer.features.kinds, np.arange(len(scores))
    likeliest = None if scores.ndim == 1 else scores.argmax(1) if are_shares else np.zeros(len(scores), int)

    def of_answer(found: np.ndarray) -> np.ndarray:
        return (found if likeliest is None else found[rows, likeliest]).astype(np.float64)

    whole, moved = of_answer(scores), np.zeros((len(scores), len(kinds)))
    for number, (name, kind) in enumerate(kinds.items() if len(scores) else ()):
        without = {**table, name: missing_cells(kind, len(scores))}
        moved[:, number] = whole - of_answer(scorer.score(without))
    return list(kinds), moved


def reasons(
    scorer: ReadsTables, table: Table, scores: np.ndarray, n_reasons: int, *, are_shares: bool
) -> dict[str, np.ndarray]:
    """Return the columns reason_1, reason_2, ... of a night: texts such as `carrier (+0.12)`, the strongest first.

    A row has fewer where fewer columns move its score; None stands for the rest. Of equally strong columns the first
    one declared comes first. Shapes: as of `movements`; each column object [n].
    """
    names, moved = movements(scorer, table, scores, are_shares=are_shares)
    # Rounded first, so that the last bit of a score decides about no order.
    moved = np.round(moved, DECIMALS) if are_shares else _three_digits(moved)
    order = np.argsort(-np.abs(moved), axis=1, kind="stable")
    columns = {}
    for place in range(n_reasons):
        texts = np.full(len(scores), None, object)
        if place < len(names):
            chosen = order[:, place]
            values = moved[np.arange(len(scores)), chosen]
            texts[:] = [
                f"{names[column]} ({_text(value, are_shares=are_shares)})" if value else None
                for column, value in zip(chosen, values, strict=True)
            ]
        columns[f"{REASON}{place + 1}"] = texts
    return columns


def _three_digits(values: np.ndarray) -> np.ndarray:
    """Return numbers rounded to three digits that count.

    >>> _three_digits(np.array([1234.0, -0.01236, 0.0])).tolist()
    [1230.0, -0.0124, 0.0]
    """
    return np.array([float(f"{value:.3g}") for value in values.ravel()]).reshape(values.shape)


def _text(value: float, *, are_shares: bool) -> str:
    return f"{value:+.{DECIMALS}f}" if are_shares else f"{value:+.3g}"
