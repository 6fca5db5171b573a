"""Choose the scale on which numbers are learnt, by the errors of a plain model on rows that it was not fitted to.

The plain model is one of boosted trees, or linear where there is text. Each scale is judged in the labels' own units.
Labels without a long tail are learnt as they are, and nothing is fitted.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model.features.fitting import Table, chosen_rows
from model.features.kinds import kind_class
from model.heads import head_of
from model.heads.base import Head
from model.heads.label_scale import LINEAR, LOG, MEAN, MEDIAN, SYMLOG, LabelScale, Point, ScaleName
from tasks.params import Product
from tasks.rows.model_inputs import SplitPart
from tasks.runtime.errors import UserError

LONG_TAIL = 1.0
"""Skewness from which on labels have a long tail; of an exponential distribution it is 2."""
HEAVY_TAILS = 6.0
"""Kurtosis from which on labels of both signs have heavy tails; of Laplace's distribution it is 6."""
MIN_ROWS = 30
"""Of fewer rows nothing is measured: labels are learnt as they are."""
MAX_ROWS = 5_000
N_FOLDS = 3
MAX_CATEGORIES = 250
N_WORDS = 2**14


@dataclass(frozen=True, kw_only=True)
class ChosenScale:
    """A scale, and what was measured of all."""

    scale: LabelScale
    measured: dict[ScaleName, float]
    """Error by scale in the labels' own units, rmse, of medians mae; none where nothing was measured."""

    @property
    def summary(self) -> str:
        """Return the choice in a line; nothing where there was none."""
        measured = ", ".join(f"{name} {error:.4g}" for name, error in self.measured.items())
        if not measured:
            return ""
        metric = "mae" if self.scale.point == MEDIAN else "rmse"
        return f"the target is learnt on a {self.scale.name} scale ({metric} of a plain model out of fold: {measured})"


def target_scale(product: Product, train: SplitPart, y: np.ndarray) -> tuple[LabelScale | None, str]:
    """Return the scale on which labels are learnt, declared or measured, and a line about it; None without numbers.

    Raises: UserError for a declared scale that the labels do not have.
    """
    declared = product.model.train.target_scale
    if not head_of(product.target.task).has_label_scale:
        return None, ""
    if declared != "measured":
        try:
            return LabelScale.fit(declared, y, product.predict.point), ""
        except ValueError as error:
            raise UserError(f"params.yaml: products.{product.name}.model.train.{error}") from None
    # Of labels without a long tail no row is read.
    rows = train.sample(MAX_ROWS if is_measured(y) else 0).read_all()
    chosen = choose_scale(product.inputs, rows, y, product.target.task, product.model.train.seed, product.predict.point)
    return chosen.scale, chosen.summary


def choose_scale(
    kinds: dict[str, str], table: Table, y: np.ndarray, task: str, seed: int, point: Point = MEAN
) -> ChosenScale:
    """Return the scale of least squared error; of those that noise alone parts, that of least absolute error.

    Where medians are predicted the absolute error decides alone.
    Shapes: y float64 [n], the labels of the training rows, of which `table` holds those of `sampled_rows`.
    """
    candidates, sample = _candidates(y), y[sampled_rows(y)]
    errors: dict[ScaleName, np.ndarray] = {}
    if len(candidates) > 1:
        inputs, estimator = _inputs_and_estimator(kinds, table, head_of(task), seed)
        for name in candidates:
            predicted = _out_of_fold(inputs, estimator, sample, LabelScale.fit(name, sample, point), seed)
            errors[name] = np.abs(sample - predicted)
    chosen = _least(errors, point) if errors else LINEAR
    scale = LabelScale.fit(chosen, y, point)
    if chosen == LINEAR and y.min() >= 0:
        scale = replace(scale, lowest=0.0)
    return ChosenScale(scale=scale, measured={name: _error(each, point) for name, each in errors.items()})


def sampled_rows(y: np.ndarray) -> np.ndarray:
    """Return the rows on which scales are measured, ascending. Shapes: [n] -> int64 [at most MAX_ROWS]."""
    return chosen_rows(len(y), MAX_ROWS)


def is_measured(y: np.ndarray) -> bool:
    """Return whether labels have such tails that scales are measured."""
    return len(_candidates(y)) > 1


def _candidates(y: np.ndarray) -> list[ScaleName]:
    from scipy import stats

    if len(y) < MIN_ROWS or np.ptp(y) == 0:
        return [LINEAR]
    if y.min() >= 0:
        return [LINEAR, LOG] if stats.skew(y) > LONG_TAIL else [LINEAR]
    return [LINEAR, SYMLOG] if stats.kurtosis(y, fisher=False) > HEAVY_TAILS else [LINEAR]


def _error(errors: np.ndarray, point: Point) -> float:
    """Return the mean absolute error of medians, of means the root of the mean squared one. Shapes: absolute [n]."""
    return float(errors.mean() if point == MEDIAN else np.sqrt(np.mean(errors**2)))


def _least(errors: dict[ScaleName, np.ndarray], point: Point) -> ScaleName:
    """Return the scale to learn on. Shapes: absolute errors [n] of each."""
    squared = {name: each**2 for name, each in errors.items()}
    best = min(squared, key=lambda name: float(squared[name].mean()))

    def is_tied(name: ScaleName) -> bool:
        further = squared[name] - squared[best]
        return point == MEDIAN or bool(further.mean() <= further.std() / np.sqrt(len(further)))

    return min(filter(is_tied, errors), key=lambda name: float(errors[name].mean()))


def _out_of_fold(inputs: Any, estimator: Any, y: np.ndarray, scale: LabelScale, seed: int) -> np.ndarray:
    """Return what is predicted of each row by a model that is fitted, on a scale, to the other folds.

    Shapes: inputs [n, k]; y [n] -> [n].
    """
    import torch
    from sklearn.base import clone
    from threadpoolctl import threadpool_limits

    bent = np.empty(len(y))
    fold = np.random.default_rng(seed).permutation(len(y)) % N_FOLDS
    with threadpool_limits(1):  # the number of cores must decide nothing
        for number in range(N_FOLDS):
            fitted = clone(estimator).fit(inputs[fold != number], scale.from_labels(y[fold != number]))
            bent[fold == number] = fitted.predict(inputs[fold == number])
    guessed = torch.from_numpy(bent)
    return scale.corrected(guessed, y).to_labels(guessed).numpy()


def _inputs_and_estimator(kinds: dict[str, str], table: Table, head: Head, seed: int) -> tuple[Any, Any]:
    """Return columns as numbers and trees for them; with a text a sparse matrix, and a linear model. Shapes: [n, k]."""
    from scipy import sparse
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import OneHotEncoder

    def columns(form: str) -> list[str]:
        return [name for name, kind in kinds.items() if kind_class(kind).reads_as == form]

    n_rows = len(table[next(iter(kinds))])
    ordinals = [_ordinals(table[name]) for name in columns("labels")]
    labels = np.stack(ordinals, axis=1) if ordinals else np.empty((n_rows, 0))
    numbers = [kind_class(kinds[name]).plain_numbers(table[name]).astype(float) for name in columns("numbers")]
    plain = np.concatenate([np.empty((n_rows, 0)), *numbers], axis=1)
    if not columns("words"):
        is_category = [True] * labels.shape[1] + [False] * plain.shape[1]
        known = np.where(np.isnan(plain).all(axis=0), 0.0, plain)  # trees refuse a column without a value
        return np.c_[labels, known], head.tree_estimator(is_category, np.empty(0), seed)
    words = HashingVectorizer(n_features=N_WORDS)
    parts = [words.transform([text or "" for text in table[name]]) for name in columns("words")]
    if labels.shape[1]:
        parts.append(OneHotEncoder().fit_transform(labels))
    with warnings.catch_warnings():  # of columns without a value
        warnings.simplefilter("ignore")
        spread = np.nanstd(plain, axis=0)
        standard = (plain - np.nanmean(plain, axis=0)) / np.where(spread > 0, spread, 1.0)
    parts.append(sparse.csr_matrix(np.nan_to_num(standard)))
    return sparse.hstack(parts, format="csr"), head.linear_estimator()


def _ordinals(column: np.ndarray) -> np.ndarray:
    """Return the number of each value, the most frequent first; the rare ones share the last. Shapes: [n] -> [n]."""
    _, numbers, counts = np.unique([cell or "" for cell in column], return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[numbers].clip(max=MAX_CATEGORIES - 1).astype(float)
