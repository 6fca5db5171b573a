"""Boosted trees for the companion: scikit-learn's, fitted on numbers alone, and as the arrays of a network.

Fitted on one thread: the number of cores must change no bit of a model, and on a busy machine more of them are slower.

Shape legend: n rows, k inputs, o outputs.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from model.heads.base import Head

FEW_ROWS = 5_000
MANY_LABELS, MOST_LABELS = 20_000, 500_000
"""Rows, times outputs, beyond which trees grow in two ways and in one, unless the rows are few: each takes its time."""
ROUNDS = (20, 40, 80, 160, 320, 640)
"""Rounds after which it is looked whether more are of use."""
MAX_TREES = 4_000
"""Of many outputs the rounds end where the trees of all of them are so many."""
LOGIT_OF_NONE = 8.0
"""Logit of what a training has never, or always, seen."""
MAX_NUMBER = float(np.finfo(np.float32).max)
Size = TypeVar("Size", int, float)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How large the trees of a forest grow, and by how many rows and columns."""

    leaves: int
    """Leaves of a tree at most."""
    rows: int
    """Rows of a leaf at least."""
    columns: float
    """Share of the inputs that each split chooses from."""
    penalty: float = 1.0
    """On the squares of the leaves' values."""


def growths(n_rows: int, n_inputs: int) -> tuple[Growth, ...]:
    """Return the ways in which trees grow on so many rows; `tried` says which of them are tried.

    Large trees of many small leaves are for labels without noise, small ones for columns that add up. The last are on
    few rows those of the baseline, large and of leaves that are sure; on more rows larger ones, for columns that act
    together.

    >>> [growth.leaves for growth in growths(300, 8)], [growth.leaves for growth in growths(100_000, 8)]
    ([12, 4, 31], [31, 4, 100])
    """
    rows, are_several, are_few = int(np.clip(n_rows // 60, 3, 20)), n_inputs >= 4, n_rows < FEW_ROWS
    share = 0.6 if are_several else 1.0
    return (
        Growth(leaves=12 if are_few else 31, rows=rows, columns=share),
        Growth(leaves=4, rows=rows, columns=0.4 if are_several else 1.0),
        Growth(leaves=31, rows=20, columns=1.0, penalty=0.0)
        if are_few
        else Growth(leaves=100, rows=rows, columns=share, penalty=5.0),
    )


def tried(n_rows: int, head: Head, n_outputs: int) -> tuple[int, ...]:
    """Return the numbers of the `growths` that are tried, to choose among them.

    Of many rows small trees are left out, which would need more rounds than there are; trees of quantiles take several
    times as long.

    >>> from model.heads import head_of
    >>> [tried(rows, head_of("multiclass"), 4) for rows in (4_999, 5_001, 200_000)]
    [(0, 1, 2), (0, 2), (0,)]
    """
    n_labels = n_rows * n_outputs
    if head.levels:
        return (0,)
    if n_rows < FEW_ROWS or n_labels <= MANY_LABELS:
        return (0, 1, 2)
    return (0, 2) if n_labels <= MOST_LABELS else (0,)


@dataclass(frozen=True)
class Boosted:
    """Trees of every output, as scikit-learn has fitted them."""

    models: list[Any]
    """One for all outputs, or one for each; None for an output whose labels are all alike."""
    head: Head
    n_outputs: int
    constant: np.ndarray
    """float64 [o]: of outputs without a model."""

    def raw(self, inputs: np.ndarray) -> np.ndarray:
        """Return what the trees say. Shapes: [n, k] -> float64 [n, o]."""
        *_, last = self.staged(inputs)
        return last

    def staged(self, inputs: np.ndarray) -> Iterator[np.ndarray]:
        """Yield what the trees say after each round. Shapes: as of `raw`."""
        stages = [None if model is None else _stages(model, inputs) for model in self.models]
        n_rounds = max((model.max_iter for model in self.models if model is not None), default=1)
        for _ in range(n_rounds):
            answers = np.tile(self.constant, (len(inputs), 1))
            for at, stage in enumerate(stages):
                if stage is not None:
                    columns, found = next(stage)
                    answers[:, at + np.asarray(columns)] = found
            yield answers


def _stages(model: Any, inputs: np.ndarray) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield the outputs that a model is of, beside its first, and what it says of them after each round."""
    if not hasattr(model, "classes_"):
        yield from (([0], values[:, None]) for values in model.staged_predict(inputs))
        return
    several = model.several_
    for values in model.staged_decision_function(inputs):
        if not several:
            yield [0], values.reshape(len(inputs), 1)
        elif values.ndim == 1 or values.shape[1] == 1:
            half = values.reshape(-1) / 2
            yield [int(each) for each in model.classes_], np.stack([-half, half], axis=1)
        else:
            yield [int(each) for each in model.classes_], values


def fit_trees(
    head: Head,
    inputs: np.ndarray,
    y: np.ndarray,
    n_outputs: int,
    n_rounds: int,
    weights: np.ndarray | None,
    seed: int,
    growth: Growth,
    before: Boosted | None = None,
) -> Boosted:
    """Return trees fitted to labels; with `before`, which fewer rounds made of the same rows, its trees and more.

    Shapes: inputs [n, k]; y as of `Head.loss_labels`, [n] or [n, o]; weights [n].
    """
    from threadpoolctl import threadpool_limits

    columns = [y] if y.ndim == 1 else list(y.T)
    constant = np.full(n_outputs, -LOGIT_OF_NONE if head.has_classes else 0.0)
    models: list[Any] = []
    with threadpool_limits(1):
        for at, column in enumerate(columns):
            truth = column.astype(np.int64) if head.has_classes else column.astype(np.float64)
            is_of_several = len(columns) == 1 and n_outputs > 1
            if head.has_classes and (truth == truth[0]).all():
                models.append(None)
                if is_of_several or truth[0]:
                    constant[truth[0] if is_of_several else at] = LOGIT_OF_NONE
                continue
            known = None if before is None else before.models[at]
            model = known
            if model is None:
                model = head.of_output(_estimator(head, inputs.shape[1], column, seed, growth), at)
            model.set_params(max_iter=n_rounds)
            model.fit(inputs, truth, sample_weight=weights)
            model.several_ = is_of_several
            models.append(model)
    return Boosted(models, head, n_outputs, constant)


def _estimator(head: Head, n_inputs: int, y: np.ndarray, seed: int, growth: Growth) -> Any:
    return head.tree_estimator([False] * n_inputs, y, seed).set_params(
        categorical_features=None,
        early_stopping=False,
        warm_start=True,
        max_leaf_nodes=growth.leaves,
        min_samples_leaf=growth.rows,
        l2_regularization=growth.penalty,
        max_features=growth.columns,
    )


def choose_rounds(
    fit: Callable[[int, list[Boosted] | None], list[Boosted]],
    judge: Callable[[list[Boosted]], np.ndarray],
    n_outputs: int,
) -> tuple[int, list[Boosted]]:
    """Return the rounds of least loss, and trees of at least so many.

    `fit` is given the rounds and what fewer of them made; `judge` gives the loss after each round, summed
    over rows that the trees were not fitted to.
    """
    fitted: list[Boosted] | None = None
    for most in [rounds for rounds in ROUNDS if rounds == ROUNDS[0] or rounds * n_outputs <= MAX_TREES]:
        fitted = fit(most, fitted)
        losses = judge(fitted)
        best = int(np.argmin(losses)) + 1
        if best <= 0.7 * most:
            break
    assert fitted is not None
    return best, fitted


def choose_mean(
    fits: Sequence[tuple[Size, list[np.ndarray]]], loss: Callable[[list[np.ndarray]], float]
) -> tuple[tuple[Size, ...], list[np.ndarray]]:
    """Return the rounds of each forest, or the strength of each line, 0 for one left out, and what the mean says.

    Of each are given these and what it says of rows that it was not fitted to, in parts. Kept are those whose
    mean has the least loss: forests that grew in another way err otherwise, and their mean less than each.
    """
    numbers = range(len(fits))
    picks = [pick for size in numbers for pick in itertools.combinations(numbers, size + 1)]
    means = [[np.mean(part, axis=0) for part in zip(*(fits[at][1] for at in pick), strict=True)] for pick in picks]
    best = int(np.argmin([loss(each) for each in means]))
    return tuple(fits[at][0] if at in picks[best] else 0 for at in numbers), means[best]


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Trees as `model.network.companion.Trees` holds them."""

    n_nodes: int
    n_trees: int
    depth: int
    """As of `model.network.blend.Shape`."""
    tensors: dict[str, Tensor]
    """The buffers by name; none where there is no tree."""


def as_arrays(forests: Sequence[Boosted]) -> Arrays:
    """Return the nodes of all trees end to end, of which the mean of the forests is the sum."""
    nodes: dict[str, list[np.ndarray]] = {name: [] for name in ("feature", "threshold", "missing_left", "left")}
    nodes |= {name: [] for name in ("right", "value")}
    roots, outputs, depth, n_nodes, base = [], [], 0, 0, np.zeros(forests[0].n_outputs)
    for forest in forests:
        start = forest.constant.copy()
        for at, model in enumerate(forest.models):
            for factor, output, tree in _trees(model, at, start):
                roots.append(n_nodes)
                outputs.append(output)
                own = np.arange(len(tree))
                is_leaf = tree["is_leaf"].astype(bool)
                nodes["feature"].append(np.where(is_leaf, 0, tree["feature_idx"]))
                nodes["threshold"].append(_rounded_down(np.where(is_leaf, 0.0, tree["num_threshold"])))
                nodes["missing_left"].append(tree["missing_go_to_left"].astype(bool))
                for side in ("left", "right"):
                    nodes[side].append(n_nodes + np.where(is_leaf, own, tree[side]))
                nodes["value"].append(np.where(is_leaf, factor / len(forests) * tree["value"], 0.0))
                depth, n_nodes = max(depth, int(tree["depth"].max())), n_nodes + len(tree)
        base += start / len(forests)
    if not roots:
        return Arrays(n_nodes=0, n_trees=0, depth=0, tensors={})
    arrays = {name: np.concatenate(parts) for name, parts in nodes.items()}
    grid = _grid(arrays["value"], np.asarray(roots), base)
    arrays |= {"value": np.round(arrays["value"] / grid) * grid, "base": np.round(base / grid) * grid}
    arrays = {name: each.astype(np.float32) if each.dtype == np.float64 else each for name, each in arrays.items()}
    arrays |= {"roots": np.asarray(roots), "output": np.asarray(outputs)}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return Arrays(n_nodes=n_nodes, n_trees=len(roots), depth=depth, tensors=tensors)


def _trees(model: Any, at: int, base: np.ndarray) -> Iterator[tuple[float, int, np.ndarray]]:
    """Yield each tree's nodes with a factor and its output, and add to `base` what a model says without trees."""
    if model is None:
        return
    start = np.asarray(model._baseline_prediction, np.float64).reshape(-1)
    if not hasattr(model, "classes_") or not model.several_:
        places = [[(1.0, at)]]
    elif len(start) == 1:
        places = [[(-0.5, int(model.classes_[0])), (0.5, int(model.classes_[1]))]]
    else:
        places = [[(1.0, int(each))] for each in model.classes_]
    for value, targets in zip(start, places, strict=True):
        for factor, output in targets:
            base[output] = factor * value
    for predictors in model._predictors:
        for predictor, targets in zip(predictors, places, strict=True):
            for factor, output in targets:
                yield factor, output, predictor.nodes


def _rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """Return the largest single-precision numbers that are no larger: the same numbers of that precision lie below.

    >>> _rounded_down(np.array([0.1, 0.5, np.inf])).tolist() == [np.float32(0.1) - np.float32(2**-27), 0.5, MAX_NUMBER]
    True
    """
    near = thresholds.clip(-MAX_NUMBER, MAX_NUMBER).astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


def _grid(values: np.ndarray, roots: np.ndarray, base: np.ndarray) -> float:
    """Return the power of two of whose multiples every sum of a leaf of each tree is exact in single precision."""
    most = np.maximum.reduceat(np.abs(values), roots).sum() + np.abs(base).max()
    return float(2.0 ** (np.ceil(np.log2(most)) - np.finfo(np.float32).nmant)) if most > 0 else 1.0
