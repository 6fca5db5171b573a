"""scikit-learn's estimators as the baselines of several tasks use them; imported only when a baseline is fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from model.heads.base import Head

MOST_ROUNDS, FEWEST_ROUNDS = 100, 20
MOST_TREES = 4_000
"""Trees of all classes, or labels, together: each round makes one for each, and of hundreds they take minutes."""
RATE, SLOW_RATE = 0.1, 0.05
"""Of 200 classes of 25 rows each, 20 rounds at 0.05 tell 39 % of unseen rows, 100 at 0.1 run wild and tell 14 %."""


def boosted_classifier(is_category: Sequence[bool], y: np.ndarray, seed: int) -> HistGradientBoostingClassifier:
    """Return boosted trees for the labels y, which may be several columns with one model each."""
    # To know when to stop they hold out rows of each class, where there are many rows; of one row they cannot.
    rarest = min(np.unique(column, return_counts=True)[1].min() for column in y.reshape(len(y), -1).T)
    early_stopping = "auto" if rarest > 1 else False
    n_trees_a_round = y.shape[1] if y.ndim > 1 else len(np.unique(y))
    rounds = int(np.clip(MOST_TREES // n_trees_a_round, FEWEST_ROUNDS, MOST_ROUNDS))
    return HistGradientBoostingClassifier(
        categorical_features=is_category,
        random_state=seed,
        early_stopping=early_stopping,
        max_iter=rounds,
        learning_rate=RATE if rounds == MOST_ROUNDS else SLOW_RATE,
    )


def boosted_regressor(is_category: Sequence[bool], seed: int) -> HistGradientBoostingRegressor:
    """Return boosted trees for numbers."""
    return HistGradientBoostingRegressor(categorical_features=is_category, random_state=seed)


def logistic_regression() -> LogisticRegression:
    """Return the linear model of texts."""
    return LogisticRegression(C=10, max_iter=1000)


def one_for_each(estimator: Any) -> OneVsRestClassifier:
    """Return a model of several labels: one estimator for each."""
    return OneVsRestClassifier(estimator)


def fit_classifier(estimator: Any, rows: Any, y: np.ndarray) -> Any:
    """Return the fitted estimator, or one that always predicts the only class there is. Shapes: y [n]."""
    return (DummyClassifier() if len(np.unique(y)) == 1 else estimator).fit(rows, y)


def class_probabilities(estimator: Any, rows: Any, n_classes: int) -> np.ndarray:
    """Return the probability of each class, 0 for one that no fitted row had. Shapes: float32 [n, at least 2]."""
    shares = estimator.predict_proba(rows)
    scores = np.zeros((len(shares), max(2, n_classes)), np.float32)
    scores[:, estimator.classes_.astype(int)] = shares
    return scores


@dataclass(frozen=True)
class WithQuantiles:
    """One fitted model of the mean, and one of each quantile."""

    models: list[Any]
    """Of each output; of a linear model the one of the mean alone."""
    added: np.ndarray
    """float64 [o]: what is added to each."""

    def predict(self, rows: Any) -> np.ndarray:
        """Return mean and quantiles, in order. Shapes: [n, o]."""
        found = np.stack([model.predict(rows) for model in self.models], axis=1) + self.added
        return np.concatenate([found[:, :1], np.sort(found[:, 1:], axis=1)], axis=1)


def fit_quantiles(head: Head, estimator: Any, rows: Any, y: np.ndarray) -> WithQuantiles:
    """Return the estimator fitted to the mean and to each level of the head; of a line the errors' own quantiles."""
    n_outputs = 1 + len(head.levels)
    if isinstance(estimator, HistGradientBoostingRegressor):
        models = [head.of_output(clone(estimator), output).fit(rows, y) for output in range(n_outputs)]
        return WithQuantiles(models, np.zeros(n_outputs))
    fitted = estimator.fit(rows, y)
    return WithQuantiles([fitted], head.spread(y - fitted.predict(rows), None))
