"""The task binary: a yes or no, and the probability of a yes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from model.heads.base import Metric
from model.heads.fitted import Fitted
from model.heads.parts.logistic import LogisticHead
from model.heads.prediction_rule import PredictionRule, as_rule

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Binary(LogisticHead):
    """One logit."""

    task = "binary"
    has_horizons = True
    has_companion = True
    label_values = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}  # noqa: RUF012
    min_classes = max_classes = 2
    one_class_per_row = True
    metric_names = (
        *("auc", "average_precision", "accuracy", "balanced_accuracy", "precision", "recall", "f1"),
        *("expected_cost", "log_loss", "brier", "ece"),
    )
    plots = ("roc", "reliability")

    def classes(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Return no and yes, whichever of them the labels hold."""
        return ("0", "1")

    def label_array(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Return 0 for no and 1 for yes. Shapes: int64 [n]."""
        return labels.astype("int64")

    def activation(self, logits: Tensor, target: Fitted) -> Tensor:
        """Return the probability of a yes. Shapes: [b, 1] -> [b]."""
        return logits[:, 0].sigmoid()

    def metrics(self, rule: float | PredictionRule) -> dict[str, Metric]:
        """Return ranking, decision and probability metrics."""
        from sklearn import metrics as sk

        from model.heads import measures

        decide = partial(self.decisions, rule=rule)
        decided = partial(measures.of_decisions, decide=decide)
        return {
            "auc": measures.with_both_classes(measures.auc),
            "average_precision": measures.with_both_classes(sk.average_precision_score),
            "accuracy": decided(sk.accuracy_score),
            "balanced_accuracy": decided(sk.balanced_accuracy_score),
            "precision": measures.of_yes("precision", decide),
            "recall": measures.of_yes("recall", decide),
            "f1": measures.of_yes("f1", decide),
            "expected_cost": measures.expected_cost(as_rule(rule).cost_matrix(2), decide),
            "log_loss": measures.log_loss,
            "brier": measures.brier,
            "ece": measures.calibration_error,
        }

    def fit_estimator(self, estimator: Any, rows: Any, y: np.ndarray, n_classes: int) -> Any:
        """Return the fitted classifier."""
        from model.heads.parts.estimators import fit_classifier

        return fit_classifier(estimator, rows, y)

    def estimator_scores(self, estimator: Any, rows: Any, n_classes: int) -> np.ndarray:
        """Return the probability of a yes. Shapes: float32 [n]."""
        from model.heads.parts.estimators import class_probabilities

        return class_probabilities(estimator, rows, 2)[:, 1]

    def night_columns(
        self, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, np.ndarray]:
        """Return the decision, true or false, and the probability of a yes."""
        threshold = as_rule(rule).thresholds_of(1)[0]
        return {"prediction": scores >= threshold, "probability": scores}
