"""Bin edges for the piecewise-linear encoding of numbers, fitted on the rows that are given.

The encoding itself happens inside the network (`model.features.kinds.modules.number`); here only edges are found.
Source: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning" (2022),
section 3.2.2 (edges from a decision tree on the target) and 3.2.1 (quantiles).
"""

import numpy as np

from model.heads import head_of

N_BINS = 32
MIN_ROWS_PER_BIN = 64
MAX_GUESSED_BINS = 256
"""Bins of a column that is guessed: of more rows more, since what lies in one bin is not told apart."""
MIN_CELLS_PER_VALUE = 8
"""How often each value occurs on average in a column whose values are bins of their own, such as a price."""


def bin_edges(values: np.ndarray, target: np.ndarray | None, task: str) -> np.ndarray:
    """Return strictly increasing edges that cut a column where the target changes most, or at its quantiles.

    Shapes: values float64 [n], NaN for missing; target [n] or [n, C], NaN where the label is unknown;
    returns float32 [n_bins + 1], at least two edges.

    >>> bin_edges(np.array([1.0, 1.0, np.nan]), None, "")
    array([1., 2.], dtype=float32)
    """
    known = np.isfinite(values)
    if not known.any():
        return np.array([0, 1], np.float32)
    inner = _quantiles(values[known])
    if target is not None:
        # NOTE[DIFF]: where the tree finds nothing to cut, quantiles stand in: one bin would hide the
        # column from interactions and leave masked modelling nothing to guess.
        cuts = _tree_thresholds(values, target, task)
        inner = cuts if cuts.size else inner
    edges = np.unique(np.r_[values[known].min(), inner, values[known].max()].astype(np.float32))
    return edges if edges.size > 1 else np.array([edges[0], edges[0] + 1], np.float32)


def guessed_edges(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return edges for a column whose cells are guessed, and whether each bin is one value.

    Each value is a bin where there are few of them, which occur again and again; else quantiles, the more the more rows
    there are. Shapes: float64 [n], NaN for missing -> float32 [n_bins + 1], at least two edges.

    >>> guessed_edges(np.repeat([1.0, 2.0, 5.0], 9))
    (array([1., 2., 5., 6.], dtype=float32), True)
    """
    known = values[np.isfinite(values)].astype(np.float32)
    different = np.unique(known)
    if different.size and different.size <= min(MAX_GUESSED_BINS, known.size // MIN_CELLS_PER_VALUE):
        last = different[-1]
        return np.append(different, max(last + 1, np.nextafter(last, np.float32(np.inf)))).astype(np.float32), True
    if different.size < 2:
        return bin_edges(values, None, ""), False
    n_bins = int(np.clip(known.size // MIN_ROWS_PER_BIN, N_BINS, MAX_GUESSED_BINS))
    return np.unique(np.r_[different[0], _quantiles(known, n_bins), different[-1]].astype(np.float32)), False


def _quantiles(values: np.ndarray, n_bins: int = N_BINS) -> np.ndarray:
    return np.quantile(values, np.linspace(0, 1, n_bins + 1)[1:-1])


def _tree_thresholds(values: np.ndarray, target: np.ndarray, task: str) -> np.ndarray:
    """Return where a decision tree of one column splits, ascending."""
    # Whoever loads fitted features would wait a second or two for it in vain.
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    truth = target.astype(np.float64).reshape(len(target), -1)
    usable = np.isfinite(values) & np.isfinite(truth).all(axis=1)
    n_rows = int(usable.sum())
    if n_rows < 2:
        return np.empty(0)
    leaf = max(1, min(MIN_ROWS_PER_BIN, n_rows // N_BINS))
    kind = DecisionTreeClassifier if head_of(task).one_class_per_row else DecisionTreeRegressor
    tree = kind(max_leaf_nodes=N_BINS, min_samples_leaf=leaf, random_state=0)
    tree.fit(values[usable, None], truth[usable].squeeze(axis=1) if truth.shape[1] == 1 else truth[usable])
    is_split = tree.tree_.children_left != -1
    return np.sort(tree.tree_.threshold[is_split])
