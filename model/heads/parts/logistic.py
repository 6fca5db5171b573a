"""The base of the tasks with independent yes-or-no labels: each output of the network is a logit of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from model.heads.base import CalibrationPart, Head
from model.heads.fitted import Fitted
from model.heads.prediction_rule import PredictionRule, as_rule

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class LogisticHead(Head):
    """Cross-entropy of each output, and Platt scaling of each."""

    has_probabilities = True
    has_threshold = True
    calibrates_offset = True
    has_costs = True
    probability_metrics = ("log_loss", "brier", "ece")
    lower_is_better = ("expected_cost", *probability_metrics)

    def loss_labels(self, y: np.ndarray, target: Fitted) -> Tensor:
        """Return 0 and 1. Shapes: float32 [n] or [n, C]."""
        import numpy as np
        import torch

        return torch.from_numpy(np.asarray(y).astype(np.float32))

    def loss(self, logits: Tensor, labels: Tensor, smoothing: float, class_weights: Tensor | None) -> Tensor:
        """Return the cross-entropy of each row, the mean over its outputs."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        labels = labels.reshape(logits.shape)
        weights = None if class_weights is None else torch.where(labels > 0.5, class_weights[1], class_weights[0])
        smooth = labels * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits, smooth, weight=weights, reduction="none").mean(1)

    def class_weights(self, labels: Tensor, n_outputs: int) -> Tensor:
        """Return the weights of no and yes of each output. Shapes: float32 [2, o]."""
        import torch

        yes = (labels.reshape(len(labels), -1) > 0.5).sum(0)
        counts = torch.stack([len(labels) - yes, yes])
        return len(labels) / (len(counts) * counts.clamp(min=1).float())

    def score_and_information(
        self, logits: Tensor, outputs: Tensor, class_weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the derivatives of the cross-entropy of each output."""
        import torch

        means = logits.sigmoid()
        weights = torch.ones(1, dtype=torch.float64)
        if class_weights is not None:
            weights = torch.where(outputs > 0.5, class_weights[1], class_weights[0]).double()
        return weights * (outputs - means), weights * (means * (1 - means))

    def calibration_parts(self, logits: Tensor, labels: Tensor) -> list[CalibrationPart]:
        """Return each output, with an offset of its own. Source: Platt 1999."""
        columns = zip(logits.T, labels.reshape(logits.shape).T.double(), strict=True)
        return [_platt(*column) for column in columns]

    def uncalibrated(self, scores: np.ndarray, target: Fitted) -> np.ndarray:
        """Return the probabilities of the logits before scale and offset. Shapes: float32, as the scores."""
        import numpy as np

        tiny = np.finfo(np.float32).tiny
        yes, no = (np.clip(part, tiny, None) for part in (scores.astype(np.float64), 1 - scores.astype(np.float64)))
        scale, offset = (np.array(values if scores.ndim > 1 else values[0]) for values in (target.scale, target.offset))
        logits = (np.log(yes) - np.log(no) - offset) / scale
        return (1 / (1 + np.exp(-logits))).astype(np.float32)

    def decisions(self, scores: np.ndarray, rule: float | PredictionRule) -> np.ndarray:
        """Return which labels count as predicted, 0 or 1. Shapes: int, as the scores."""
        thresholds = as_rule(rule).thresholds_of(1 if scores.ndim == 1 else scores.shape[1])
        return (scores >= thresholds).astype(int)

    def tree_estimator(self, is_category: Sequence[bool], y: np.ndarray, seed: int) -> Any:
        """Return boosted trees for one label; several get one such model each."""
        from model.heads.parts.estimators import boosted_classifier

        return boosted_classifier(is_category, y, seed)

    def linear_estimator(self) -> Any:
        """Return a logistic regression."""
        from model.heads.parts.estimators import logistic_regression

        return logistic_regression()


def _platt(logits: Tensor, labels: Tensor) -> CalibrationPart:
    """Return one output to calibrate. Shapes: float64 [n], 0 or 1 [n]."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    if len(labels.unique()) < 2:
        return CalibrationPart(logits, None)
    return CalibrationPart(logits, partial(binary_cross_entropy_with_logits, target=labels, reduction="sum"))
