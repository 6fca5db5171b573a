"""Compare two models on the same rows, with blocks of rows as observations: days, or groups.

Rows of one day have much in common, so that a thousand of them are not a thousand observations. What a metric would be
without one block, for each of them, shows how far chance alone moves the difference.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 11; the interval is Student's, with one
degree of freedom less than there are blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.evaluation.metrics import CONFIDENCE

MAX_BLOCKS = 100
"""Of more days, consecutive ones share a block, so that a comparison takes seconds."""
N_RANDOM_BLOCKS = 20
"""Blocks of rows that no day parts."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better one model is than another, and what chance leaves open."""

    value: float
    """On all rows together; above 0 where the first one is better."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end."""
    n_blocks: int
    """Number of blocks, the observations."""

    def __str__(self) -> str:
        """Return it for a person to read."""
        return f"{self.value:+.4f} (95% interval {self.low:+.4f} to {self.high:+.4f}, {self.n_blocks} blocks of rows)"


def paired_difference(
    difference: Callable[[np.ndarray], float | None], block: np.ndarray, confidence: float = CONFIDENCE
) -> Difference | None:
    """Return the difference of two models on all rows, with the interval that leaving out each block gives.

    `difference` returns it on the rows that are chosen, bool [n], or None where these do not define it. None where
    there are fewer than two blocks, or a choice of rows does not define it. The interval covers the share `confidence`.
    Shapes: block int [n], 0 to the number of blocks less 1; below 0 where a row is in none.

    >>> leads = np.array([1.0, 2.0, 3.0, 6.0])
    >>> print(paired_difference(lambda kept: leads[kept].mean(), np.arange(4)))
    +3.0000 (95% interval -0.4374 to +6.4374, 4 blocks of rows)
    """
    from scipy import stats

    n_blocks = int(block.max(initial=-1)) + 1
    if n_blocks < 2:
        return None
    value = difference(np.ones(len(block), bool))
    without = [difference(block != each) for each in range(n_blocks)]
    left = np.array([each for each in without if each is not None])
    if value is None or len(left) < n_blocks:
        return None
    deviation = np.sqrt((n_blocks - 1) / n_blocks * np.square(left - left.mean()).sum())
    margin = float(stats.t.ppf((1 + confidence) / 2, n_blocks - 1) * deviation)
    return Difference(value=float(value), low=float(value) - margin, high=float(value) + margin, n_blocks=n_blocks)


def blocks_of_days(days: np.ndarray) -> np.ndarray:
    """Return the block of each row: its day, or of many days the run of consecutive days. Shapes: datetime64[D] [n].

    >>> blocks_of_days(np.array(["2024-01-05", "2024-01-01", "2024-01-05"], "datetime64[D]")).tolist()
    [1, 0, 1]
    """
    found, number = np.unique(days, return_inverse=True)
    return number * MAX_BLOCKS // len(found) if len(found) > MAX_BLOCKS else number


def blocks_of_groups(groups: np.ndarray) -> np.ndarray:
    """Return the block of each row, such that rows of one group share it. Shapes: uint64 [n], digests of the groups."""
    _, block = np.unique(groups % np.uint64(N_RANDOM_BLOCKS), return_inverse=True)
    return block
