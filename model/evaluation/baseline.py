"""The plain model that a Transformer must beat: boosted trees for tables, TF-IDF and a linear model for text.

Fitted in a few lines of scikit-learn on the same rows, with the same scores out; never stored.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from model.evaluation.cooccurrence import Cooccurrence
from model.features.fitting import Table
from model.features.kinds import KINDS, kind_class
from model.heads import head_of
from model.heads.base import Head

MAX_CATEGORIES = 250
"""Trees bin a category's values into at most 255; the rare ones share a bin."""
Readers = dict[str, Callable[[np.ndarray], np.ndarray]]
"""By column, what makes numbers of it."""


class Baseline:
    """A fitted baseline with the `score` of `model.scoring.scorer.Scorer`."""

    def __init__(self, inputs: "TreeInputs | _LinearInputs", estimator: Any, head: Head, n_classes: int) -> None:
        self.inputs, self.estimator, self.head, self.n_classes = inputs, estimator, head, n_classes

    def score(self, table: Table) -> np.ndarray:
        """Return the scores of rows. Shapes: float32 [n, *score_shape] of the task's head."""
        return self.head.estimator_scores(self.estimator, self.inputs.transform(table), self.n_classes)


def fit_baseline(
    kinds: dict[str, str],
    table: Table,
    y: np.ndarray,
    task: str,
    n_classes: int,
    seed: int,
    levels: Sequence[float] = (),
) -> Baseline | Cooccurrence:
    """Fit on the rows of `table`; text anywhere makes it linear. Of `n_classes` these rows need not hold all.

    Where rows have no labels it counts which values occur together; with `levels` it predicts these quantiles too.

    Shapes: y as of `Head.label_array`.
    """
    head = head_of(task).with_levels(levels)
    if not head.has_labels:
        return Cooccurrence.fit(kinds, table)
    inputs = _LinearInputs(kinds) if _read_as("words", kinds) else TreeInputs(kinds)
    rows = inputs.fit_transform(table)
    if isinstance(inputs, TreeInputs):
        estimator = head.tree_estimator(inputs.is_category, y, seed)
    else:
        estimator = head.linear_estimator()
    return Baseline(inputs, head.fit_estimator(estimator, rows, y, n_classes), head, n_classes)


class TreeInputs:
    """Labels as ordinals, all else as numbers."""

    def __init__(self, kinds: dict[str, str]) -> None:
        self.kinds, self.labels = kinds, _read_as("labels", kinds)
        self.ordinals = OrdinalEncoder(
            max_categories=MAX_CATEGORIES,
            handle_unknown="use_encoded_value",
            unknown_value=np.nan,
            encoded_missing_value=np.nan,
        )
        self.readers: Readers = {}
        self.is_missing = np.empty(0, bool)

    @property
    def is_category(self) -> list[bool]:
        """Return which of the columns that `transform` returns are categories."""
        return [position < len(self.labels) for position in range(len(self.is_missing))]

    def fit_transform(self, table: Table) -> np.ndarray:
        """Fit to the rows of a table, and return what trees read of them. Shapes: float64 [n, m]."""
        if self.labels:
            self.ordinals.fit(_stacked(table, self.labels))
        self.readers = _readers(self.kinds, table)
        self.is_missing = np.isnan(self._all_columns(table)).all(axis=0)
        return self.transform(table)

    def transform(self, table: Table) -> np.ndarray:
        """Return what trees read of rows. Shapes: float64 [n, m]."""
        # Trees refuse a column in which no fitted row has a value.
        return np.where(self.is_missing, 0.0, self._all_columns(table))

    def _all_columns(self, table: Table) -> np.ndarray:
        numbers = _numbers(self.kinds, table, self.readers)
        return np.c_[self.ordinals.transform(_stacked(table, self.labels)), numbers] if self.labels else numbers


class _LinearInputs:
    """TF-IDF of each text, one-hot labels, standardised numbers, side by side."""

    def __init__(self, kinds: dict[str, str]) -> None:
        self.kinds, self.labels = kinds, _read_as("labels", kinds)
        self.words = {
            name: TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), strip_accents="unicode")
            for name in _read_as("words", kinds)
        }
        self.one_hot = OneHotEncoder(handle_unknown="ignore", min_frequency=2)
        self.readers: Readers = {}
        self.scaler = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())

    def fit_transform(self, table: Table) -> sparse.csr_matrix:
        for name, words in list(self.words.items()):
            if any(map(words.build_analyzer(), _texts(table[name]))):
                words.fit(_texts(table[name]))
            else:  # no fitted row has a word
                del self.words[name]
        if self.labels:
            self.one_hot.fit(_stacked(table, self.labels))
        self.readers = _readers(self.kinds, table)
        if (numbers := _numbers(self.kinds, table, self.readers)).shape[1]:
            self.scaler.fit(numbers)
        return self.transform(table)

    def transform(self, table: Table) -> sparse.csr_matrix:
        n = len(table[next(iter(self.kinds))])
        parts = [sparse.csr_matrix((n, 1))]  # should none of the columns have a value
        parts += [words.transform(_texts(table[name])) for name, words in self.words.items()]
        if self.labels:
            parts.append(self.one_hot.transform(_stacked(table, self.labels)))
        if (numbers := _numbers(self.kinds, table, self.readers)).shape[1]:
            parts.append(sparse.csr_matrix(self.scaler.transform(numbers)))
        return sparse.hstack(parts, format="csr")


def _read_as(form: str, kinds: dict[str, str]) -> list[str]:
    """Return the columns that the baseline reads in one form: as labels, numbers or words."""
    return [name for name, kind in kinds.items() if kind_class(kind).reads_as == form]


def _stacked(table: Table, names: list[str]) -> np.ndarray:
    return np.stack([table[name] for name in names], axis=1)


def _readers(kinds: dict[str, str], table: Table) -> Readers:
    """Return what reads each column that is read as numbers, those of one type of cells together."""
    types = [kind.cells for kind in KINDS.values()]
    names = sorted(_read_as("numbers", kinds), key=lambda name: types.index(KINDS[kinds[name]].cells))
    return {name: kind_class(kinds[name]).plain_reader(table[name]) for name in names}


def _numbers(kinds: dict[str, str], table: Table, readers: Readers) -> np.ndarray:
    """Return what is read as numbers, side by side. Shapes: float64 [n, m]."""
    n = len(table[next(iter(kinds))])
    return np.concatenate([np.empty((n, 0)), *(read(table[name]) for name, read in readers.items())], axis=1)


def _texts(column: np.ndarray) -> list[str]:
    return [text or "" for text in column]
