"""Ragged arrays: rows of different lengths end to end, with offsets where each begins."""

import numpy as np


def padded(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray, padding: np.generic) -> np.ndarray:
    """Return the given rows of a ragged array as a rectangle of the padding's type, at least 1 wide.

    Shapes: values [elements, ...], offsets int64 [n + 1], rows int64 [b] -> [b, longest, ...].

    >>> padded(np.array([5, 6, 7]), np.array([0, 2, 3]), np.array([0, 1]), np.int64(0))
    array([[5, 6],
           [7, 0]])
    """
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    inside = np.arange(max(1, lengths.max())) < lengths[:, None]
    rectangle = np.full((*inside.shape, *values.shape[1:]), padding)
    rectangle[inside] = values[positions(starts, lengths)]
    return rectangle


def positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the places of `lengths` elements from each start on, one start after the other.

    >>> positions(np.array([0, 7]), np.array([2, 3]))
    array([0, 1, 7, 8, 9])
    """
    first = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - first, lengths)


def taken_positions(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the given rows' elements, end to end, and the offsets of these rows.

    >>> taken_positions(np.array([0, 2, 3, 5]), np.array([2, 0]))
    (array([3, 4, 0, 1]), array([0, 2, 4]))
    """
    lengths = offsets[rows + 1] - offsets[rows]
    return positions(offsets[rows], lengths), np.concatenate([[0], np.cumsum(lengths)])
