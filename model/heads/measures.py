"""Parts of metrics that several tasks share, over scikit-learn; imported only when something is measured.

A metric that the rows do not define (an AUC where all labels are one class) is NaN here.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn import metrics as sk

from model.heads.base import Metric

N_BINS = 15
"""Bins of the calibration error and of the reliability plot."""

Decide = Callable[[np.ndarray], np.ndarray]
"""Scores to predicted classes: int [n], or 0 and 1 [n, C]."""


def reliability(y: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean probability, share of positives and number of rows, by bin of probability.

    The N_BINS bins hold equally many rows; equal probabilities share a bin, so the order of rows does not matter.
    Shapes: y 0/1 [n], shares [n] -> three times float64 [bins that hold rows].
    """
    shares = shares.astype(np.float64)
    edges = np.quantile(shares, np.linspace(0, 1, N_BINS + 1)[1:-1])
    bins = np.searchsorted(edges, shares)
    rows, predicted, true = (np.bincount(bins, weights, N_BINS) for weights in (None, shares, y.astype(np.float64)))
    held = rows > 0
    return predicted[held] / rows[held], true[held] / rows[held], rows[held].astype(np.float64)


def calibration_error(y: np.ndarray, shares: np.ndarray) -> float:
    """Return how far probabilities lie from shares of positives, averaged over the rows' bins.

    >>> round(calibration_error(np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.7, 0.7])), 3)
    0.2

    Shapes: as in `reliability`. Source: Naeini et al. 2015 (expected calibration error), with bins of equal mass
    (Nguyen and O'Connor 2015).
    """
    predicted, true, rows = reliability(y, shares)
    return float(np.average(np.abs(predicted - true), weights=rows))


def log_loss(y: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean negative log-likelihood. Shapes: 0/1 [n], [n]."""
    return sk.log_loss(y, scores.astype(np.float64), labels=[0, 1])


def brier(y: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean squared error of probabilities. Shapes: 0/1 [n], [n]."""
    return sk.brier_score_loss(y, scores, pos_label=1)


def auc(y: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of the pairs of a yes and a no in which the yes has the higher score; ties count half.

    >>> auc(np.array([0, 1, 1]), np.array([0.2, 0.2, 0.9]))
    0.75

    Shapes: 0/1 [n], [n]. Raises: ValueError for a score that is no number.
    Source: Mann and Whitney 1947. An interval asks for it a thousand times, and scikit-learn's takes 4 to 20 times
    as long.
    """
    yes = y.astype(bool)
    n_yes = int(yes.sum())
    ranks = rankdata(scores, nan_policy="raise")
    return float((ranks[yes].sum() - n_yes * (n_yes + 1) / 2) / (n_yes * (len(y) - n_yes)))


def r2(y: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of the labels' variance that is explained. Shapes: [n], [n]."""
    return sk.r2_score(y, scores) if len(y) > 1 and np.ptp(y) > 0 else float("nan")


def macro_average_precision(y: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean over the classes that only a part of the rows has. Shapes: 0/1 [n, C], [n, C]."""
    varies = np.ptp(y.astype(int), axis=0) > 0
    if not varies.any():
        return float("nan")
    return sk.average_precision_score(y[:, varies], scores[:, varies], average="macro")


def of_decisions(metric: Metric, decide: Decide) -> Metric:
    """Return a metric of predicted classes as one of scores."""
    return lambda y, scores: metric(y.astype(int), decide(scores))


def expected_cost(costs: np.ndarray, decide: Decide) -> Metric:
    """Return the mean cost of a row's errors, by what an error costs. Shapes: [true class, predicted class]."""

    def cost(y: np.ndarray, decided: np.ndarray) -> float:
        each = costs[y, decided]
        return float(each.reshape(len(y), -1).sum(1).mean())

    return of_decisions(cost, decide)


def averaged(name: str, average: str, decide: Decide) -> Metric:
    """Return f1, precision or recall averaged over the classes that the rows or the decisions hold, or over labels."""

    def of_classes(y: np.ndarray, decided: np.ndarray) -> float:
        if y.ndim == 1:
            least = min(y.min(), decided.min())
            n_classes = max(y.max(), decided.max()) - least + 1
            counts = np.stack(
                [np.bincount(each - least, minlength=n_classes) for each in (y[y == decided], y, decided)]
            )
            hits, true, found = counts[:, counts.any(0)]
        else:
            hits, true, found = (y * decided).sum(0), y.sum(0), decided.sum(0)
        return share_of_hits(name, hits, true, found, average)

    return of_decisions(of_classes, decide)


def of_yes(name: str, decide: Decide) -> Metric:
    """Return f1, precision or recall of the rows that are a yes. Shapes: of the result's arguments [n], [n]."""
    averages = averaged(name, "macro", lambda scores: decide(scores).reshape(-1, 1))
    return lambda y, scores: averages(y.reshape(-1, 1), scores)


def share_of_hits(name: str, hits: np.ndarray, true: np.ndarray, found: np.ndarray, average: str) -> float:
    """Return f1, precision or recall by counts of each class; one of which there is no row is 0.

    >>> share_of_hits("f1", np.array([1, 0]), np.array([1, 1]), np.array([2, 0]), "macro") == 1 / 3
    True

    Shapes: hits, labels and decisions of each class [C]. Source: van Rijsbergen 1979, chapter 7. An interval asks for
    it a thousand times, and scikit-learn's takes fifty times as long.
    """
    if average == "micro":
        hits, true, found = (each.sum(keepdims=True) for each in (hits, true, found))
    of = {"f1": (true + found) / 2, "precision": found, "recall": true}[name]
    return float(np.mean(np.divide(hits, of, out=np.zeros(len(hits)), where=of > 0)))


def with_both_classes(metric: Metric) -> Metric:
    """Return the metric, not defined on rows of one class."""
    return lambda y, scores: metric(y, scores) if np.ptp(y) > 0 else float("nan")


def mean_over_labels(metric: Metric) -> Metric:
    """Return the mean of a metric over the labels. Shapes: of the result's arguments [n, C]."""
    return lambda y, scores: float(np.mean([metric(*column) for column in zip(y.T, scores.T, strict=True)]))


def of_distributions(metric: Callable[..., float]) -> Metric:
    """Return a metric of probabilities that sum to 1 in double precision. Shapes: of its arguments int [n], [n, C]."""

    def normalised(y: np.ndarray, scores: np.ndarray) -> float:
        shares = scores.astype(np.float64).clip(np.finfo(np.float32).tiny)
        return metric(y, shares / shares.sum(1, keepdims=True), labels=np.arange(scores.shape[1]))

    return normalised


def per_class(y: np.ndarray, decided: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and support by class. Shapes: int [n] twice, or 0/1 [n, C]."""
    if not len(y):
        return {}
    labels = [1] if decided.shape[1:] == (1,) else np.arange(len(classes))
    columns = sk.precision_recall_fscore_support(y.astype(int), decided, labels=labels, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    return {
        name: dict(zip(names, map(float, row), strict=True))
        for name, row in zip(classes, np.stack(columns, axis=1), strict=True)
    }


def pinball(y: np.ndarray, quantiles: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return the pinball loss of each quantile: its distance from the label, times the level where it is too low.

    >>> pinball(np.array([2.0, 0.0]), np.array([[1.0], [1.0]]), [0.9]).round(3).tolist()
    [[0.9], [0.1]]

    Shapes: [n], [n, levels] -> float64 [n, levels]. Source: Koenker and Bassett 1978, "Regression Quantiles".
    """
    errors, at = y.astype(np.float64)[:, None] - quantiles, np.asarray(levels)
    return np.maximum(at * errors, (at - 1) * errors)


def shares_below(y: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Return the share of the labels that lie below each quantile, of those on it half. Shapes: -> [levels]."""
    labels = y[:, None]
    return ((labels < quantiles) + (labels == quantiles) / 2).mean(axis=0)


def coverage_error(y: np.ndarray, quantiles: np.ndarray, levels: Sequence[float]) -> float:
    """Return how far the share of the labels below each quantile lies from its level, the mean over these."""
    return float(np.abs(shares_below(y, quantiles) - np.asarray(levels)).mean())


def interval_coverage(y: np.ndarray, quantiles: np.ndarray) -> float:
    """Return the share of the labels from the lowest quantile to the highest."""
    return float(((quantiles[:, 0] <= y) & (y <= quantiles[:, -1])).mean())
