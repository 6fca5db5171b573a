"""How good scores are: scikit-learn's metrics under one name each, and how sure one can be of them.

A metric that the rows do not define (an AUC where all labels are one class) is None, never NaN.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sk

Metric = Callable[[np.ndarray, np.ndarray], float]

THRESHOLD = 0.5
CONFIDENCE = 0.95
N_BINS = 15
"""Bins of the calibration error and of the reliability plot."""


def evaluate_scores(
    task: str, y: np.ndarray, scores: np.ndarray, classes: Sequence[str], threshold: float = THRESHOLD
) -> dict[str, Any]:
    """Every metric of the task, and for multiclass and multilabel `per_class` by class name.

    From the probability `threshold` on, a binary or multilabel row counts as predicted.
    Shapes: y and scores as in `model.scoring.scorer`: [n], or [n, C] scores with y int [n] or 0/1 [n, C].
    """
    values: dict[str, Any] = {name: _value(metric, y, scores) for name, metric in metrics_of(task, threshold).items()}
    if task in ("multiclass", "multilabel"):
        values["per_class"] = _per_class(y, _decisions(task, scores, threshold), classes)
    return values


def bootstrap_interval(
    task: str,
    y: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    metric: str,
    n_resamples: int,
    seed: int,
    threshold: float = THRESHOLD,
) -> tuple[float, float] | None:
    """The 95 % percentile interval of a metric when rows are drawn with replacement; None if never defined.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3.
    Raises: ValueError for a metric the task does not have.
    """
    measure = metrics_of(task, threshold).get(metric)
    if measure is None:
        first, *others = metrics_of(task)
        raise ValueError(
            f"metric must be one of {', '.join([first, *others])} for a {task} target, got {metric!r}; use {first}"
        )
    random = np.random.default_rng(seed)
    draws = (random.integers(len(y), size=len(y)) for _ in range(n_resamples)) if len(y) else iter(())
    values = [value for rows in draws if (value := _value(measure, y[rows], scores[rows])) is not None]
    if not values:
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def metrics_of(task: str, threshold: float = THRESHOLD) -> dict[str, Metric]:
    """The task's metrics by name, each a function of y and scores."""
    match task:
        case "binary":
            return _binary(threshold)
        case "multiclass":
            return _multiclass()
        case "multilabel":
            return _multilabel(threshold)
        case _:
            return _regression()


def reliability(y: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, share of positives and number of rows, by bin of probability.

    The N_BINS bins hold equally many rows; equal probabilities share a bin, so the order of rows does not matter.
    Shapes: y 0/1 [n], shares [n] -> three times float64 [bins that hold rows].
    """
    shares = shares.astype(np.float64)
    edges = np.quantile(shares, np.linspace(0, 1, N_BINS + 1)[1:-1])
    bins = np.searchsorted(edges, shares)
    rows, predicted, true = (np.bincount(bins, weights, N_BINS) for weights in (None, shares, y.astype(np.float64)))
    held = rows > 0
    return predicted[held] / rows[held], true[held] / rows[held], rows[held].astype(np.float64)


def confidence(y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the likeliest class is the true one, and its probability. Shapes: [n], [n, C] -> bool [n], [n]."""
    return scores.argmax(1) == y, scores.max(1)


def calibration_error(y: np.ndarray, shares: np.ndarray) -> float:
    """Expected calibration error: how far probabilities lie from shares of positives, averaged over the rows' bins.

    Shapes: as in `reliability`. Source: Naeini et al. 2015, with bins of equal mass (Nguyen and O'Connor 2015).
    """
    predicted, true, rows = reliability(y, shares)
    return float(np.average(np.abs(predicted - true), weights=rows))


def _binary(threshold: float) -> dict[str, Metric]:
    return {
        "auc": _with_both_classes(sk.roc_auc_score),
        "average_precision": _with_both_classes(sk.average_precision_score),
        **{
            name: _of_decisions("binary", metric, threshold)
            for name, metric in {
                "accuracy": sk.accuracy_score,
                "balanced_accuracy": sk.balanced_accuracy_score,
                "precision": lambda y, said: sk.precision_score(y, said, zero_division=0),
                "recall": lambda y, said: sk.recall_score(y, said, zero_division=0),
                "f1": lambda y, said: sk.f1_score(y, said, zero_division=0),
            }.items()
        },
        "log_loss": _log_loss,
        "brier": lambda y, scores: sk.brier_score_loss(y, scores, pos_label=1),
        "ece": calibration_error,
    }


def _multiclass() -> dict[str, Metric]:
    def normalised(metric: Callable[..., float]) -> Metric:
        def of(y: np.ndarray, scores: np.ndarray) -> float:
            shares = scores.astype(np.float64).clip(np.finfo(np.float32).tiny)
            return metric(y, shares / shares.sum(1, keepdims=True), labels=np.arange(scores.shape[1]))

        return of

    return {
        "accuracy": _of_decisions("multiclass", sk.accuracy_score),
        "balanced_accuracy": _of_decisions("multiclass", sk.balanced_accuracy_score),
        **_averaged("multiclass", "macro"),
        "macro_average_precision": lambda y, scores: _macro_average_precision(
            y[:, None] == np.arange(scores.shape[1]), scores
        ),
        "log_loss": normalised(sk.log_loss),
        "brier": normalised(sk.brier_score_loss),
        "ece": lambda y, scores: calibration_error(*confidence(y, scores)),
    }


def _multilabel(threshold: float) -> dict[str, Metric]:
    def mean(metric: Metric) -> Metric:
        return lambda y, scores: float(np.mean([metric(*both) for both in zip(y.T, scores.T, strict=True)]))

    return {
        **_averaged("multilabel", "macro", threshold),
        "micro_f1": _averaged("multilabel", "micro", threshold)["micro_f1"],
        "macro_average_precision": _macro_average_precision,
        "log_loss": mean(_log_loss),
        "brier": mean(lambda y, scores: sk.brier_score_loss(y, scores, pos_label=1)),
        "ece": mean(calibration_error),
    }


def _regression() -> dict[str, Metric]:
    def r2(y: np.ndarray, scores: np.ndarray) -> float:
        return sk.r2_score(y, scores) if len(y) > 1 and np.ptp(y) > 0 else float("nan")

    return {"rmse": sk.root_mean_squared_error, "mae": sk.mean_absolute_error, "r2": r2}


def _averaged(task: str, average: str, threshold: float = THRESHOLD) -> dict[str, Metric]:
    """F1, precision and recall averaged over the classes that the rows or the decisions hold."""
    scorers = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}

    def averaging(scorer: Callable[..., float]) -> Metric:
        def of(y: np.ndarray, said: np.ndarray) -> float:
            # scikit-learn takes a single column for the two classes of a binary target.
            return scorer(y, said, average="binary" if said.shape[1:] == (1,) else average, zero_division=0)

        return _of_decisions(task, of, threshold)

    return {f"{average}_{name}": averaging(scorer) for name, scorer in scorers.items()}


def _log_loss(y: np.ndarray, scores: np.ndarray) -> float:
    return sk.log_loss(y, scores.astype(np.float64), labels=[0, 1])


def _macro_average_precision(y: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the classes that some rows have and some have not. Shapes: 0/1 [n, C], [n, C]."""
    told = np.ptp(y.astype(int), axis=0) > 0
    return sk.average_precision_score(y[:, told], scores[:, told], average="macro") if told.any() else float("nan")


def _decisions(task: str, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Scores to classes. Shapes: [n] or [n, C] -> int [n]; for multilabel 0/1 [n, C]."""
    return scores.argmax(1) if task == "multiclass" else (scores >= threshold).astype(int)


def _of_decisions(task: str, metric: Metric, threshold: float = THRESHOLD) -> Metric:
    return lambda y, scores: metric(y.astype(int), _decisions(task, scores, threshold))


def _with_both_classes(metric: Metric) -> Metric:
    return lambda y, scores: metric(y, scores) if np.ptp(y) > 0 else float("nan")


def _value(metric: Metric, y: np.ndarray, scores: np.ndarray) -> float | None:
    if not len(y):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(metric(y, scores))
    return value if np.isfinite(value) else None


def _per_class(y: np.ndarray, said: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    if not len(y):
        return {}
    labels = [1] if said.shape[1:] == (1,) else np.arange(len(classes))
    columns = sk.precision_recall_fscore_support(y.astype(int), said, labels=labels, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    return {
        name: dict(zip(names, map(float, row), strict=True))
        for name, row in zip(classes, np.stack(columns, axis=1), strict=True)
    }
