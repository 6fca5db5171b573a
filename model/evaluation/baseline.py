"""The plain model that a Transformer must beat: boosted trees for tables, TF-IDF and a linear model for text.

Fitted in a few lines of scikit-learn on the same rows, with the same scores out; never stored.
"""

from collections import Counter
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from model.features.fitted import TIME_PARTS, Table, finite, time_parts
from model.settings import NUMERIC_KINDS

MAX_CATEGORIES = 250
"""Trees bin a category's values into at most 255; the rare ones share a bin."""


class Baseline:
    """A fitted baseline with the `score` of `model.scoring.scorer.Scorer`."""

    def __init__(self, inputs: "_TreeInputs | _LinearInputs", estimator: Any, task: str, n_classes: int) -> None:
        self.inputs, self.estimator, self.task, self.n_classes = inputs, estimator, task, n_classes

    def score(self, table: Table) -> np.ndarray:
        """Shapes: float32 [n] for binary and regression, else [n, C]."""
        rows = self.inputs.transform(table)
        if self.task == "regression":
            return self.estimator.predict(rows).astype(np.float32)
        shares = self.estimator.predict_proba(rows)
        if self.task == "multilabel" and self.n_classes > 1:
            return shares.astype(np.float32)
        # A class that no training row has is absent from the estimator: its score is 0.
        scores = np.zeros((len(shares), max(2, self.n_classes)), np.float32)
        scores[:, self.estimator.classes_.astype(int)] = shares
        return {"binary": scores[:, 1], "multilabel": scores[:, 1:]}.get(self.task, scores)


def fit_baseline(
    kinds: dict[str, str], table: Table, target: np.ndarray, task: str, n_classes: int, seed: int
) -> Baseline:
    """Fit on the rows of `table`; text anywhere makes it linear. Of `n_classes` these rows need not hold all.

    Shapes: target as in `model.training.train.train`.
    """
    inputs = _LinearInputs(kinds) if "text" in kinds.values() else _TreeInputs(kinds)
    rows = inputs.fit_transform(table)
    estimator = _trees(task, inputs.is_category, target, seed) if isinstance(inputs, _TreeInputs) else _linear(task)
    if task == "multilabel":
        estimator, target = (OneVsRestClassifier(estimator), target) if n_classes > 1 else (estimator, target[:, 0])
    if task != "regression" and target.ndim == 1 and len(np.unique(target)) == 1:
        estimator = DummyClassifier()
    return Baseline(inputs, estimator.fit(rows, target), task, n_classes)


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


def _trees(task: str, is_category: list[bool], target: np.ndarray, seed: int) -> Any:
    knobs = {"categorical_features": is_category, "random_state": seed}
    if task == "regression":
        return HistGradientBoostingRegressor(**knobs)
    # To know when to stop they hold out rows of each class, where there are many rows; of one row they cannot.
    rarest = min(np.unique(column, return_counts=True)[1].min() for column in target.reshape(len(target), -1).T)
    return HistGradientBoostingClassifier(**knobs, early_stopping="auto" if rarest > 1 else False)


def _linear(task: str) -> Any:
    if task == "regression":
        return Ridge()
    return LogisticRegression(C=10, max_iter=1000)


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
