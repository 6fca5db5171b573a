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


def evaluate_scores(task: str, y: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Every metric of the task, and for multiclass and multilabel `per_class` by class name.

    Shapes: y and scores as in `model.scoring`: [n], or [n, C] scores with y int [n] or 0/1 [n, C].
    """
    values: dict[str, Any] = {name: _value(metric, y, scores) for name, metric in metrics_of(task).items()}
    if task in ("multiclass", "multilabel"):
        values["per_class"] = _per_class(y, _decisions(task, scores), classes)
    return values


def bootstrap_interval(
    task: str,
    y: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    metric: str,
    n_resamples: int,
    seed: int,
) -> tuple[float, float] | None:
    """The 95 % percentile interval of a metric when rows are drawn with replacement; None if never defined.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3.
    Raises: ValueError for a metric the task does not have.
    """
    measure = metrics_of(task).get(metric)
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


def metrics_of(task: str) -> dict[str, Metric]:
    """The task's metrics by name, each a function of y and scores."""
    of = {"binary": _binary, "multiclass": _multiclass, "multilabel": _multilabel, "regression": _regression}
    return of[task]()


def _binary() -> dict[str, Metric]:
    return {
        "auc": _with_both_classes(sk.roc_auc_score),
        "average_precision": _with_both_classes(sk.average_precision_score),
        **{
            name: _of_decisions("binary", metric)
            for name, metric in {
                "accuracy": sk.accuracy_score,
                "precision": lambda y, said: sk.precision_score(y, said, zero_division=0),
                "recall": lambda y, said: sk.recall_score(y, said, zero_division=0),
                "f1": lambda y, said: sk.f1_score(y, said, zero_division=0),
            }.items()
        },
        "log_loss": lambda y, scores: sk.log_loss(y, scores.astype(np.float64), labels=[0, 1]),
        "brier": lambda y, scores: sk.brier_score_loss(y, scores, pos_label=1),
    }


def _multiclass() -> dict[str, Metric]:
    def log_loss(y: np.ndarray, scores: np.ndarray) -> float:
        shares = scores.astype(np.float64)
        return sk.log_loss(y, shares / shares.sum(1, keepdims=True), labels=np.arange(scores.shape[1]))

    return {
        "accuracy": _of_decisions("multiclass", sk.accuracy_score),
        **_averaged("multiclass", "macro"),
        "log_loss": log_loss,
    }


def _multilabel() -> dict[str, Metric]:
    return {**_averaged("multilabel", "macro"), "micro_f1": _averaged("multilabel", "micro")["micro_f1"]}


def _regression() -> dict[str, Metric]:
    def r2(y: np.ndarray, scores: np.ndarray) -> float:
        return sk.r2_score(y, scores) if len(y) > 1 and np.ptp(y) > 0 else float("nan")

    return {"rmse": sk.root_mean_squared_error, "mae": sk.mean_absolute_error, "r2": r2}


def _averaged(task: str, average: str) -> dict[str, Metric]:
    """F1, precision and recall averaged over the classes that the rows or the decisions hold."""
    scorers = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}

    def averaging(scorer: Callable[..., float]) -> Metric:
        return _of_decisions(task, lambda y, said: scorer(y, said, average=average, zero_division=0))

    return {f"{average}_{name}": averaging(scorer) for name, scorer in scorers.items()}


def _decisions(task: str, scores: np.ndarray) -> np.ndarray:
    """Scores to classes. Shapes: [n] or [n, C] -> int [n]; for multilabel 0/1 [n, C]."""
    return scores.argmax(1) if task == "multiclass" else (scores >= THRESHOLD).astype(int)


def _of_decisions(task: str, metric: Metric) -> Metric:
    return lambda y, scores: metric(y.astype(int), _decisions(task, scores))


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
    labels = np.arange(len(classes))
    columns = sk.precision_recall_fscore_support(y.astype(int), said, labels=labels, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    return {
        name: dict(zip(names, map(float, row), strict=True))
        for name, row in zip(classes, np.stack(columns, axis=1), strict=True)
    }
