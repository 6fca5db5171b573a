"""The task multiclass: one of several classes, and the probability of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from model.heads.base import CLASS_COLUMN, CalibrationPart, Head, Metric
from model.heads.fitted import Fitted
from model.heads.prediction_rule import HALF, PredictionRule, as_rule

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Multiclass(Head):
    """A logit for each class, of which the probabilities sum to 1."""

    task = "multiclass"
    has_horizons = True
    has_companion = True
    min_classes = 2
    one_class_per_row = True
    has_probabilities = True
    metric_names: ClassVar[tuple[str, ...]] = (
        *("macro_f1", "accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_average_precision"),
        *("expected_cost", "log_loss", "brier", "ece"),
    )
    has_costs = True
    probability_metrics: ClassVar[tuple[str, ...]] = ("log_loss", "brier", "ece")
    lower_is_better: ClassVar[tuple[str, ...]] = ("expected_cost", *probability_metrics)
    plots: ClassVar[tuple[str, ...]] = ("confusion", "reliability")
    reliability_label = "share that is right"

    def classes(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Return the different labels, in alphabetical order."""
        return tuple(sorted(set(labels) - {""}))

    def label_array(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Return the number of each row's class, -1 for one that is not among `classes`. Shapes: int64 [n]."""
        import numpy as np

        numbers = {name: number for number, name in enumerate(classes)}
        return np.fromiter((numbers.get(label, -1) for label in labels), np.int64, len(labels))

    def is_known(self, y: np.ndarray) -> np.ndarray:
        """Return which rows have a class that the training rows have. Shapes: bool [n]."""
        return y >= 0

    def n_outputs(self, n_classes: int) -> int:
        """Return an output for each class."""
        return n_classes

    def score_shape(self, n_classes: int) -> tuple[int, ...]:
        """Return one score for each class."""
        return (n_classes,)

    def loss_labels(self, y: np.ndarray, target: Fitted) -> Tensor:
        """Return the numbers of the classes. Shapes: int64 [n]."""
        import numpy as np
        import torch

        return torch.from_numpy(np.asarray(y).astype(np.int64))

    def loss(self, logits: Tensor, labels: Tensor, smoothing: float, class_weights: Tensor | None) -> Tensor:
        """Return the cross-entropy of each row."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels, weight=class_weights, label_smoothing=smoothing, reduction="none")

    def class_weights(self, labels: Tensor, n_outputs: int) -> Tensor | None:
        """Return the weight of each class. Shapes: float32 [C]."""
        import torch

        counts = torch.bincount(labels, minlength=n_outputs)
        return len(labels) / (len(counts) * counts.clamp(min=1).float())

    def outputs(self, labels: Tensor, n_outputs: int) -> Tensor:
        """Return 1 for each row's class, 0 for the others. Shapes: float64 [n, C]."""
        from torch.nn.functional import one_hot

        return one_hot(labels, n_outputs).double()

    def score_and_information(
        self, logits: Tensor, outputs: Tensor, class_weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the derivatives of the cross-entropy, where all logits move at once.

        The information is the probability and not p (1 - p): what one class gains the others lose, all in one move.
        """
        import torch

        means = logits.softmax(-1)
        weights = torch.ones(1, dtype=torch.float64)
        if class_weights is not None:
            weights = torch.where(outputs > 0.5, class_weights, 0.0).double().sum(1, keepdim=True)
        return weights * (outputs - means), weights * means

    def activation(self, logits: Tensor, target: Fitted) -> Tensor:
        """Return the probability of each class. Shapes: [b, C] -> [b, C]."""
        return logits.softmax(-1)

    def calibration_parts(self, logits: Tensor, labels: Tensor) -> list[CalibrationPart]:
        """Return all logits under one scale, which leaves the likeliest class as it is.

        Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4 (temperature scaling).
        """
        from torch.nn.functional import cross_entropy

        varies = len(labels.unique()) > 1
        loss = partial(cross_entropy, target=labels.long(), reduction="sum") if varies else None
        return [CalibrationPart(logits, loss, has_offset=False)]

    def uncalibrated(self, scores: np.ndarray, target: Fitted) -> np.ndarray:
        """Return the probabilities of the logits before their scale. Shapes: float32 [n, C]."""
        import numpy as np

        shares = np.clip(scores.astype(np.float64), np.finfo(np.float32).tiny, None)
        powers = shares ** (1 / target.scale[0])
        return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)

    def decisions(self, scores: np.ndarray, rule: float | PredictionRule = HALF) -> np.ndarray:
        """Return the number of the likeliest class, or by costs of that of least expected cost. Shapes: int [n]."""
        rule = as_rule(rule)
        return (scores @ rule.cost_matrix(scores.shape[1])).argmin(1) if rule.least_cost else scores.argmax(1)

    def metrics(self, rule: float | PredictionRule) -> dict[str, Metric]:
        """Return metrics of the decisions and of the probabilities."""
        import numpy as np
        from sklearn import metrics as sk

        from model.heads import measures

        rule, decide = as_rule(rule), partial(self.decisions, rule=rule)
        return {
            "accuracy": measures.of_decisions(sk.accuracy_score, decide),
            "balanced_accuracy": measures.of_decisions(sk.balanced_accuracy_score, decide),
            "macro_f1": measures.averaged("f1", "macro", decide),
            "macro_precision": measures.averaged("precision", "macro", decide),
            "macro_recall": measures.averaged("recall", "macro", decide),
            "macro_average_precision": lambda y, scores: measures.macro_average_precision(
                y[:, None] == np.arange(scores.shape[1]), scores
            ),
            "expected_cost": lambda y, scores: measures.expected_cost(rule.cost_matrix(scores.shape[1]), decide)(
                y, scores
            ),
            "log_loss": measures.of_distributions(sk.log_loss),
            "brier": measures.of_distributions(sk.brier_score_loss),
            "ece": lambda y, scores: measures.calibration_error(*self.reliability(y, scores)),
        }

    def per_class(
        self, y: np.ndarray, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, dict[str, float]] | None:
        """Return precision, recall, F1 and support by class."""
        from model.heads import measures

        return measures.per_class(y, self.decisions(scores, rule), classes)

    def reliability(self, y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return whether the likeliest class is the true one, and its probability. Shapes: bool [n], [n]."""
        return self.decisions(scores) == y, scores.max(1)

    def tree_estimator(self, is_category: Sequence[bool], y: np.ndarray, seed: int) -> Any:
        """Return boosted trees."""
        from model.heads.parts.estimators import boosted_classifier

        return boosted_classifier(is_category, y, seed)

    def linear_estimator(self) -> Any:
        """Return a logistic regression."""
        from model.heads.parts.estimators import logistic_regression

        return logistic_regression()

    def fit_estimator(self, estimator: Any, rows: Any, y: np.ndarray, n_classes: int) -> Any:
        """Return the fitted classifier."""
        from model.heads.parts.estimators import fit_classifier

        return fit_classifier(estimator, rows, y)

    def estimator_scores(self, estimator: Any, rows: Any, n_classes: int) -> np.ndarray:
        """Return the probability of each class. Shapes: float32 [n, C]."""
        from model.heads.parts.estimators import class_probabilities

        return class_probabilities(estimator, rows, n_classes)

    def night_columns(
        self, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, np.ndarray]:
        """Return the predicted class, its probability, and the probability of each."""
        import numpy as np

        best = self.decisions(scores, rule) if len(scores) else np.zeros(0, int)
        probabilities = {f"{CLASS_COLUMN}{name}": scores[:, i] for i, name in enumerate(classes)}
        prediction = np.array(classes, dtype=object)[best]
        return {"prediction": prediction, "probability": scores[np.arange(len(scores)), best], **probabilities}
