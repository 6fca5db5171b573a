"""The task regression: a number, in the units of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model.heads.base import Fitted, Head, Metric
from model.heads.prediction_rule import PredictionRule

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Regression(Head):
    """One output: the label, on its scale, in standard deviations from the mean of the training rows."""

    task = "regression"
    has_companion = True
    has_label_scale = True
    label_kind = "number"
    largest_label = 1e30  # as of number columns: single precision holds it, its differences and their mean
    ridge_scale = 1.0
    mix_prior = 0.5  # numbers of two models have a mean
    metric_names = ("rmse", "mae", "r2")
    lower_is_better = ("rmse", "mae")
    plots = ("scatter",)

    def label_array(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Return the numbers. Shapes: float64 [n]."""
        return labels.astype("float64")

    def standardisation(self, y: np.ndarray) -> tuple[float, float]:
        """Return mean and standard deviation of the labels, 1 where all are alike."""
        return float(y.mean()), float(y.std()) or 1.0

    def loss_labels(self, y: np.ndarray, target: Fitted) -> Tensor:
        """Return numbers on their scale, standardised. Shapes: float32 [n]."""
        import numpy as np
        import torch

        bent = target.label_scale.from_labels(np.asarray(y))
        return torch.from_numpy(((bent - target.mean) / target.deviation).astype(np.float32))

    def loss(self, logits: Tensor, labels: Tensor, smoothing: float, class_weights: Tensor | None) -> Tensor:
        """Return the squared error of each row."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits, labels.reshape(logits.shape), reduction="none").mean(1)

    def score_and_information(
        self, logits: Tensor, outputs: Tensor, class_weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the derivatives of a normal likelihood whose variance is the mean squared error."""
        import torch

        errors = outputs - logits
        weight = 1 / errors.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
        return weight * errors, weight * torch.ones_like(logits)

    def activation(self, logits: Tensor, target: Fitted) -> Tensor:
        """Return the number in its own units. Shapes: [b, 1] -> [b]."""
        return target.label_scale.to_labels(logits[:, 0] * target.deviation + target.mean)

    def metrics(self, rule: float | PredictionRule) -> dict[str, Metric]:
        """Return two errors in the labels' units, and the share of their variance that is explained."""
        from sklearn import metrics as sk

        from model.heads import measures

        return {"rmse": sk.root_mean_squared_error, "mae": sk.mean_absolute_error, "r2": measures.r2}

    def tree_estimator(self, is_category: Sequence[bool], y: np.ndarray, seed: int) -> Any:
        """Return boosted trees."""
        from model.heads.estimators import boosted_regressor

        return boosted_regressor(is_category, seed)

    def linear_estimator(self) -> Any:
        """Return a ridge regression."""
        from sklearn.linear_model import Ridge

        return Ridge()

    def estimator_scores(self, estimator: Any, rows: Any, n_classes: int) -> np.ndarray:
        """Return the predictions. Shapes: float32 [n]."""
        return estimator.predict(rows).astype("float32")

    def night_columns(
        self, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, np.ndarray]:
        """Return the number alone."""
        return {"prediction": scores.astype("float64")}
