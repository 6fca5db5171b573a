"""Measure what the gates of a product go by."""

import numpy as np

from tasks.params import Product


def gate_metric(product: Product, y: np.ndarray, scores: np.ndarray, classes: tuple[str, ...]) -> float | None:
    """Return the gates' metric; None where these rows do not define it, or a score is not finite.

    Shapes: y and scores as `tasks.rows.model_inputs` gives them.
    """
    from model.evaluation.metrics import evaluate_scores

    if not np.isfinite(scores).all():
        return None
    threshold = product.predict.threshold
    return evaluate_scores(product.target.task, y, scores, classes, threshold)[product.gates.metric]
