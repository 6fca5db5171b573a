"""Lists of items as arrays: of each place of a row's list an item and its score, the best first.

float32 [n, k, 2]: the item's number among the classes, and its score. Where a list ends before its k places, the number
is NONE and the score 0. Single precision holds MOST_ITEMS numbers exactly.
"""

from collections.abc import Sequence

import numpy as np

NONE = -1
MOST_ITEMS = 2**24
MANY_ITEMS = 50_000
"""Of more items a training step reads a drawn part (`model.network.heads.drawn_items`)."""
MOST_SHARES = 2**23
"""Numbers of one array that has a number for each row of a batch and each item: 32 MiB."""


def joined(numbers: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return lists of their numbers and scores. Shapes: [n, k] twice -> float32 [n, k, 2].

    >>> joined(np.array([[2, 0]]), np.array([[0.75, 0.25]])).tolist()
    [[[2.0, 0.75], [0.0, 0.25]]]
    """
    return np.stack([numbers.astype(np.float32), scores.astype(np.float32)], axis=-1)


def numbers_of(lists: np.ndarray) -> np.ndarray:
    """Return the items' numbers. Shapes: -> int64 [n, k]."""
    return lists[..., 0].astype(np.int64)


def ranks(y: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Return the place of each label in its list, from 0, and k for one that is not there.

    Shapes: int [n], lists [n, k, 2] -> int64 [n].

    >>> ranks(np.array([0, 1, -1]), joined(np.array([[2, 0], [2, 0], [2, -1]]), np.zeros((3, 2)))).tolist()
    [1, 2, 2]
    """
    is_label = (numbers_of(lists) == y[:, None]) & (y[:, None] != NONE)
    return np.where(is_label.any(1), is_label.argmax(1), lists.shape[1])


def best(scores: np.ndarray, top: int, random: np.random.Generator) -> np.ndarray:
    """Return the lists of the highest scores, equal ones in an order drawn at random; below 0 are items left out.

    Shapes: float [n, C] -> float32 [n, min(top, C), 2].
    """
    order, top = random.random(scores.shape), min(top, scores.shape[1])
    least = np.partition(scores, -top, axis=1)[:, -top, None]
    rows, items = np.nonzero(scores >= least)  # all others need no order
    sorted_items = items[np.lexsort((order[rows, items], -scores[rows, items], rows))]
    place = sorted_items[np.searchsorted(rows, np.arange(len(scores)))[:, None] + np.arange(top)]
    found = np.take_along_axis(scores, place, 1)
    return joined(np.where(found < 0, NONE, place), np.maximum(found, 0))


def renumbered(lists: np.ndarray, own: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Return lists of the classes `own` with the numbers of the classes `wanted`, NONE where one is not among these."""
    number = {name: position for position, name in enumerate(wanted)}
    table = np.array([*(number.get(name, NONE) for name in own), NONE])
    return joined(table[numbers_of(lists)], lists[..., 1])


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference of a score; of lists, of one item's: two that swap equal scores differ by nothing.

    An item that only one list has counts by how far it lies above the other's last score. Shapes: equal, any or
    [n, k, 2].
    """
    if one.ndim != 3:
        return float(np.abs(one - other).max(initial=0.0))
    return max(_difference_from(one, other), _difference_from(other, one))


def _difference_from(one: np.ndarray, other: np.ndarray) -> float:
    numbers, scores = numbers_of(one), one[..., 1]
    is_same = numbers[:, :, None] == numbers_of(other)[:, None, :]
    found = np.where(is_same, other[:, None, :, 1], -np.inf).max(2, initial=-np.inf)
    expected = np.where(np.isfinite(found), found, other[:, -1:, 1])
    return float(np.abs(np.where(numbers == NONE, 0, scores - expected)).max(initial=0.0))
