"""Measure scores on held-out rows, with intervals."""

from typing import Any

import numpy as np

from tasks.params import Product

N_RESAMPLES = 500
SEED = 0
MAX_BASELINE_ROWS = 1_000_000
"""The baseline's libraries hold all rows in memory: of more it sees a sample."""
OF_PROBABILITIES = ("log_loss", "brier", "ece")
UNCALIBRATED = "model_before_calibration"

Scores = dict[str, np.ndarray]
"""By name: of the model, of the baseline, and of the model before its calibration."""


def measured_scores(
    product: Product, y: np.ndarray, scores: Scores, classes: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Return every metric by the scores' name, with the interval of the gates' metric."""
    from model.evaluation.metrics import bootstrap_interval, evaluate_scores

    task, metric, threshold = product.target.task, product.gates.metric, product.predict.threshold
    measured = {name: evaluate_scores(task, y, values, classes, threshold) for name, values in scores.items()}
    for name, values in final_scores(scores).items():
        interval = bootstrap_interval(task, y, values, metric, N_RESAMPLES, SEED, threshold)
        measured[name][f"{metric}_interval_95"] = interval
    if UNCALIBRATED in scores:
        measured[UNCALIBRATED] = {name: measured[UNCALIBRATED][name] for name in OF_PROBABILITIES}
    return measured


def format_metric(value: float | None) -> str:
    """Return a metric for a person to read."""
    return "not defined" if value is None else f"{value:.4f}"


def final_scores(scores: Scores) -> Scores:
    """Return the scores without those before calibration."""
    return {name: values for name, values in scores.items() if name != UNCALIBRATED}
