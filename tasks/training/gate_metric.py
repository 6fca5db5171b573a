"""Measure the metric of a product's gates."""

import numpy as np

from model.heads import head_of
from model.heads.prediction_rule import PredictionRule
from tasks.params import Product
from tasks.rows import model_inputs


def gate_metric(
    product: Product,
    y: np.ndarray,
    scores: np.ndarray,
    metric: str | None = None,
    *,
    rule: PredictionRule | None = None,
) -> float | None:
    """Return the gates' metric, or another; None where these rows do not define it, or a score is not finite.

    Without a rule predictions are made as where none was measured.
    Shapes: y and scores as `tasks.rows.model_inputs` gives them.
    """
    from model.evaluation.metrics import evaluate_metric

    is_measured = head_of(product.target.task).writes_texts and scores.ndim == 2
    known = scores[:, :2] if is_measured else scores  # what a text that was not written is worth is NaN
    if known.dtype != object and not np.isfinite(known).all():  # a night's texts are no numbers
        return None
    rule = rule or model_inputs.prediction_rule(product, None, ())
    return evaluate_metric(product.target.task, y, scores, metric or product.gates.metric, rule)
