"""The plain model that a Transformer must beat: boosted trees for tables, TF-IDF and a linear model for text.

Fitted in a few lines of scikit-learn on the same rows, with the same scores out; never stored.
"""

from collections import Counter
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from model.features.fitted import TIME_PARTS, Table, finite, time_parts
from model.heads import head_of
from model.heads.base import Head
from model.settings import NUMERIC_KINDS

MAX_CATEGORIES = 250
"""Trees bin a category's values into at most 255; the rare ones share a bin."""


class Baseline:
    """A fitted baseline with the `score` of `model.scoring.scorer.Scorer`."""

    def __init__(self, inputs: "_TreeInputs | _LinearInputs", estimator: Any, head: Head, n_classes: int) -> None:
        self.inputs, self.estimator, self.head, self.n_classes = inputs, estimator, head, n_classes

    def score(self, table: Table) -> np.ndarray:
        """Return the scores of rows. Shapes: float32 [n, *score_shape] of the task's head."""
        return self.head.estimator_scores(self.estimator, self.inputs.transform(table), self.n_classes)


def fit_baseline(kinds: dict[str, str], table: Table, y: np.ndarray, task: str, n_classes: int, seed: int) -> Baseline:
    """Fit on the rows of `table`; text anywhere makes it linear. Of `n_classes` these rows need not hold all.

    Shapes: y as of `Head.label_array`.
    """
    head = head_of(task)
    inputs = _LinearInputs(kinds) if "text" in kinds.values() else _TreeInputs(kinds)
    rows = inputs.fit_transform(table)
    if isinstance(inputs, _TreeInputs):
        estimator = head.tree_estimator(inputs.is_category, y, seed)
    else:
        estimator = head.linear_estimator()
    return Baseline(inputs, head.fit_estimator(estimator, rows, y, n_classes), head, n_classes)


class _TreeInputs:
    """Categories as ordinals, numbers as they are, times as minute of day, day of week and day of year."""

    def __init__(self, kinds: dict[str, str]) -> None:
        self.kinds = kinds
        self.ordinals = OrdinalEncoder(
            max_categories=MAX_CATEGORIES,
            handle_unknown="use_encoded_value",
            unknown_value=np.nan,
            encoded_missing_value=np.nan,
        )
        self.silent = np.empty(0, bool)

    @property
    def is_category(self) -> list[bool]:
        """Which of the columns that `transform` returns are categories."""
        n = Counter(self.kinds.values())
        return [True] * n["category"] + [False] * (n["number"] + n["context"] + TIME_PARTS * n["time"])

    def fit_transform(self, table: Table) -> np.ndarray:
        if any(self.is_category):
            self.ordinals.fit(_columns(self.kinds, table, "category"))
        self.silent = np.isnan(self._together(table)).all(axis=0)
        return self.transform(table)

    def transform(self, table: Table) -> np.ndarray:
        # Trees refuse a column in which no fitted row has a value.
        return np.where(self.silent, 0.0, self._together(table))

    def _together(self, table: Table) -> np.ndarray:
        numeric = _numeric(self.kinds, table)
        if not any(self.is_category):
            return numeric
        return np.c_[self.ordinals.transform(_columns(self.kinds, table, "category")), numeric]


class _LinearInputs:
    """TF-IDF of each text, one-hot categories, standardised numbers and time parts, side by side."""

    def __init__(self, kinds: dict[str, str]) -> None:
        self.kinds = kinds
        self.words = {
            name: TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), strip_accents="unicode")
            for name, kind in kinds.items()
            if kind == "text"
        }
        self.one_hot = OneHotEncoder(handle_unknown="ignore", min_frequency=2)
        self.scaler = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())

    def fit_transform(self, table: Table) -> sparse.csr_matrix:
        for name, words in list(self.words.items()):
            if any(map(words.build_analyzer(), _texts(table[name]))):
                words.fit(_texts(table[name]))
            else:  # no fitted row has a word
                del self.words[name]
        if "category" in self.kinds.values():
            self.one_hot.fit(_columns(self.kinds, table, "category"))
        if _numeric(self.kinds, table).shape[1]:
            self.scaler.fit(_numeric(self.kinds, table))
        return self.transform(table)

    def transform(self, table: Table) -> sparse.csr_matrix:
        n = len(table[next(iter(self.kinds))])
        parts = [sparse.csr_matrix((n, 1))]  # should none of the columns say anything
        parts += [words.transform(_texts(table[name])) for name, words in self.words.items()]
        if "category" in self.kinds.values():
            parts.append(self.one_hot.transform(_columns(self.kinds, table, "category")))
        if (numeric := _numeric(self.kinds, table)).shape[1]:
            parts.append(sparse.csr_matrix(self.scaler.transform(numeric)))
        return sparse.hstack(parts, format="csr")


def _columns(kinds: dict[str, str], table: Table, kind: str) -> np.ndarray:
    return np.stack([table[name] for name, its in kinds.items() if its == kind], axis=1)


def _numeric(kinds: dict[str, str], table: Table) -> np.ndarray:
    """Numbers and context, then the parts of every time. Shapes: float64 [n, numbers + context + 3 times]."""
    n = len(table[next(iter(kinds))])
    numbers = [finite(table[name])[:, None] for name, kind in kinds.items() if kind in NUMERIC_KINDS]
    times = [time_parts(table[name]) for name, kind in kinds.items() if kind == "time"]
    return np.concatenate([np.empty((n, 0)), *numbers, *times], axis=1)


def _texts(column: np.ndarray) -> list[str]:
    return [text or "" for text in column]
