"""The task multilabel: any number of labels for a row, and the probability of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from model.heads.base import CLASS_COLUMN, Metric
from model.heads.fitted import Fitted
from model.heads.parts.logistic import LogisticHead
from model.heads.prediction_rule import PredictionRule, as_rule

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

LABEL_SEPARATOR = "|"
"""Between the labels of a row, which one text holds."""


class Multilabel(LogisticHead):
    """A logit for each label."""

    task = "multilabel"
    has_horizons = True
    has_companion = True
    normalises_labels = True
    min_classes = 1
    metric_names = (
        *("macro_f1", "micro_f1", "macro_precision", "macro_recall", "macro_average_precision"),
        *("expected_cost", "log_loss", "brier", "ece"),
    )
    plots = ("average_precision", "reliability")

    def normalise_label(self, cell: object) -> str:
        """Return the labels of a cell, a list or a joined text, as one text: each once, in alphabetical order.

        >>> Multilabel().normalise_label("b|a|b"), Multilabel().normalise_label(["b", " a "])
        ('a|b', 'a|b')
        """
        import numpy as np

        labels = cell if isinstance(cell, list | np.ndarray) else str(cell).split(LABEL_SEPARATOR) if cell else []
        return LABEL_SEPARATOR.join(sorted({str(label).strip() for label in labels} - {""}))

    def classes(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Return every label that a row has, in alphabetical order."""
        return tuple(sorted({name for joined in labels for name in joined.split(LABEL_SEPARATOR)} - {""}))

    def label_array(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Return 1 for each label that a row has. Shapes: float32 [n, C]."""
        import numpy as np

        names = (set(joined.split(LABEL_SEPARATOR)) for joined in labels)
        return np.array([[name in row for name in classes] for row in names], dtype="float32")

    def n_outputs(self, n_classes: int) -> int:
        """Return an output for each label."""
        return n_classes

    def score_shape(self, n_classes: int) -> tuple[int, ...]:
        """Return one score for each label."""
        return (n_classes,)

    def activation(self, logits: Tensor, target: Fitted) -> Tensor:
        """Return the probability of each label. Shapes: [b, C] -> [b, C]."""
        return logits.sigmoid()

    def metrics(self, rule: float | PredictionRule) -> dict[str, Metric]:
        """Return metrics of the decisions, and means over the labels of those of probabilities."""
        from model.heads import measures

        decide = partial(self.decisions, rule=rule)
        return {
            "macro_f1": measures.averaged("f1", "macro", decide),
            "macro_precision": measures.averaged("precision", "macro", decide),
            "macro_recall": measures.averaged("recall", "macro", decide),
            "micro_f1": measures.averaged("f1", "micro", decide),
            "macro_average_precision": measures.macro_average_precision,
            "expected_cost": measures.expected_cost(as_rule(rule).cost_matrix(2), decide),
            "log_loss": measures.mean_over_labels(measures.log_loss),
            "brier": measures.mean_over_labels(measures.brier),
            "ece": measures.mean_over_labels(measures.calibration_error),
        }

    def per_class(
        self, y: np.ndarray, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, dict[str, float]]:
        """Return precision, recall, F1 and support by label."""
        from model.heads import measures

        return measures.per_class(y, self.decisions(scores, rule), classes)

    def reliability(self, y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels and probabilities of all outputs, end to end."""
        return y.ravel(), scores.ravel()

    def fit_estimator(self, estimator: Any, rows: Any, y: np.ndarray, n_classes: int) -> Any:
        """Return one fitted model for each label."""
        from model.heads.parts.estimators import fit_classifier, one_for_each

        return one_for_each(estimator).fit(rows, y) if n_classes > 1 else fit_classifier(estimator, rows, y[:, 0])

    def estimator_scores(self, estimator: Any, rows: Any, n_classes: int) -> np.ndarray:
        """Return the probability of each label. Shapes: float32 [n, C]."""
        from model.heads.parts.estimators import class_probabilities

        if n_classes > 1:
            return estimator.predict_proba(rows).astype("float32")
        return class_probabilities(estimator, rows, 2)[:, 1:]

    def night_columns(
        self, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, np.ndarray]:
        """Return the labels from the threshold on, joined, and the probability of each."""
        import numpy as np

        names = np.array(classes, dtype=object)
        joined = [LABEL_SEPARATOR.join(names[row]) for row in self.decisions(scores, rule) == 1]
        probabilities = {f"{CLASS_COLUMN}{name}": scores[:, i] for i, name in enumerate(classes)}
        return {"prediction": np.array(joined, dtype=object), **probabilities}
