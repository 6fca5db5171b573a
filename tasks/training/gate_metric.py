"""Measure the metric of a product's gates."""

import numpy as np

from tasks.params import Product


def gate_metric(product: Product, y: np.ndarray, scores: np.ndarray, metric: str | None = None) -> float | None:
    """Return the gates' metric, or another; None where these rows do not define it, or a score is not finite.

    Shapes: y and scores as `tasks.rows.model_inputs` gives them.
    """
    from model.evaluation.metrics import evaluate_metric

    if not np.isfinite(scores).all():
        return None
    return evaluate_metric(product.target.task, y, scores, metric or product.gates.metric, product.predict.threshold)
