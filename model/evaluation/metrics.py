"""Measure scores by the metrics of their task, with intervals.

A metric that the rows do not define (an AUC where all labels are one class) is None, never NaN.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from model.heads import head_of
from model.heads.base import Metric
from model.heads.prediction_rule import HALF, PredictionRule

Metrics = dict[str, Any]
"""Values by name, None where the rows do not define one; `per_class` has those of each class by its name."""

CONFIDENCE = 0.95


def evaluate_scores(
    task: str, y: np.ndarray, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule = HALF
) -> Metrics:
    """Return every metric of the task and, where classes are part of its report, `per_class` by class name.

    `rule` says what counts as predicted; a number is the probability from which on a yes or a label does.
    Shapes: scores as in `model.scoring.scorer`; y as of `Head.label_array`.
    """
    head = head_of(task)
    values: Metrics = {name: _value(metric, y, scores) for name, metric in head.metrics(rule).items()}
    per_class = head.per_class(y, scores, classes, rule)
    return values if per_class is None else {**values, "per_class": per_class}


def evaluate_metric(
    task: str, y: np.ndarray, scores: np.ndarray, metric: str, rule: float | PredictionRule = HALF
) -> float | None:
    """Return one metric of the task.

    Shapes: as in `evaluate_scores`.
    Raises: ValueError for a metric that the task does not have.
    """
    return _value(_metric(task, metric, rule), y, scores)


def bootstrap_interval(
    task: str,
    y: np.ndarray,
    scores: np.ndarray,
    metric: str,
    n_resamples: int,
    seed: int,
    rule: float | PredictionRule = HALF,
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of a metric when rows are drawn with replacement; None if never defined.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3.
    Raises: ValueError for a metric that the task does not have.
    """
    found = bootstrap_values(task, y, scores, metric, n_resamples, seed, rule)
    values = [value for value in found if value is not None]
    if not values:
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def bootstrap_values(
    task: str,
    y: np.ndarray,
    scores: np.ndarray,
    metric: str,
    n_resamples: int,
    seed: int,
    rule: float | PredictionRule = HALF,
) -> list[float | None]:
    """Return a metric of rows drawn with replacement, for each draw; None where the drawn rows do not define it.

    The draws follow from the seed and the number of rows, so that values of two models on the same rows are pairs.
    Raises: ValueError for a metric that the task does not have.
    """
    measure = _metric(task, metric, rule)
    random = np.random.default_rng(seed)
    draws = (random.integers(len(y), size=len(y)) for _ in range(n_resamples)) if len(y) else iter(())
    return [_value(measure, y[rows], scores[rows]) for rows in draws]


def _metric(task: str, name: str, rule: float | PredictionRule) -> Metric:
    head = head_of(task)
    if name not in head.metric_names:
        names = ", ".join(head.metric_names)
        raise ValueError(f"metric must be one of {names} for a {task} target, got {name!r}; use {head.metric_names[0]}")
    return head.metrics(rule)[name]


def _value(metric: Metric, y: np.ndarray, scores: np.ndarray) -> float | None:
    if not len(y):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(metric(y, scores))
    return value if np.isfinite(value) else None
