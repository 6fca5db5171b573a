"""Tell of rows how they rank among the training rows, and what their most surprising cell holds beside what it might.

The surprise itself is what a network of the task scores: see `model.heads.reconstruct`.
"""

from typing import Protocol

import numpy as np

from model.features.fitted import Features
from model.features.fitting import Table
from model.features.kinds import kind_class
from model.heads.reconstruct import SURPRISE_PERCENTILE, bits_of, likeliest_of, most_surprising
from model.target import Target


class ReadsTables(Protocol):
    """What has scored the rows."""

    features: Features
    target: Target


def surprise_columns(scorer: ReadsTables, table: Table, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of a night that stand beside the surprise: percentile, and cell and expectation as text.

    A missing cell is None. Shapes: scores float32 [n, 3 m] of the table; returns float32 [n], object [n], object [n].
    """
    bits, likeliest = bits_of(scores), likeliest_of(scores)
    most = most_surprising(scores)
    found, expected = np.full(len(bits), None, object), np.full(len(bits), None, object)
    for number, name in enumerate(scorer.target.classes):
        rows = np.flatnonzero(most == number)
        kind = kind_class(scorer.features.kinds[name])
        choices = kind.choice_names(scorer.features.fitted[kind.name].columns[name])
        found[rows] = [kind.cell_name(cell) for cell in table[name][rows]]
        expected[rows] = choices[likeliest[rows, number]]
    return {
        SURPRISE_PERCENTILE: percentiles(bits.sum(axis=1), scorer.target.quantiles),
        "surprise_cell": found,
        "surprise_expected": expected,
    }


def percentiles(values: np.ndarray, quantiles: tuple[float, ...]) -> np.ndarray:
    """Return how many of 100 training rows have less surprise. Shapes: [n] -> float32 [n].

    >>> percentiles(np.array([0.5, 3.0, 9.0]), (1.0, 2.0, 4.0)).tolist()
    [0.0, 75.0, 100.0]
    """
    if not quantiles:
        return np.full(len(values), np.nan, np.float32)
    return np.interp(values, quantiles, np.linspace(0, 100, len(quantiles))).astype(np.float32)
