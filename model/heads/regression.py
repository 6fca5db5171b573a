"""The task regression: a number, in the units of its labels, and quantiles of it where these are asked for.

With quantiles the scores of a row are the mean, then one number for each level, ascending. Each is learnt by an output
of its own: the mean by its squared error, a quantile by its pinball loss. What calibration has found on rows that were
not fitted widens them and moves each; then they are sorted, so that none crosses another. Quantiles on a bent scale are
those of the bent labels: unlike means they need no correction on the way back.

Sources: Koenker and Bassett 1978, "Regression Quantiles"; Chernozhukov, Fernández-Val and Galichon 2010, "Quantile and
Probability Curves Without Crossing" (sorting lowers the loss or leaves it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from model.heads.base import Head, Metric
from model.heads.fitted import Fitted
from model.heads.label_scale import MEDIAN
from model.heads.prediction_rule import HALF, PredictionRule, as_rule

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

QUANTILE = "quantile_"
"""What begins the name of a night's column with a quantile."""
MAX_LEVELS = 19
WEIGHT_OF_MEAN = 0.1
"""Of a squared error beside pinball losses. With 0.5 the large errors of rows whose labels spread hid from an encoder
that they spread: it gave all rows one width, and from 0.2 on it did not."""
LEVEL_DECIMALS = 4
"""Of a level: quantile_2_5 is the level 0.025."""


@dataclass(frozen=True)
class Regression(Head):
    """The label, on its scale, in standard deviations from the mean of the training rows; and its quantiles."""

    levels: Sequence[float] = ()

    task = "regression"
    has_horizons = True
    has_companion = True
    has_label_scale = True
    label_kind = "number"
    largest_label = 1e30  # as of number columns: single precision holds it, its differences and their mean
    ridge_scale = 1.0
    mix_prior = 0.5  # numbers of two models have a mean
    metric_names = ("rmse", "mae", "r2", "pinball", "coverage_error")
    lower_is_better = ("rmse", "mae", "pinball", "coverage_error")
    median_metrics = ("mae",)
    quantile_metrics = ("pinball", "coverage_error")
    plots = ("scatter",)

    def with_levels(self, levels: Sequence[float]) -> Regression:
        """Return the head that predicts these quantiles too."""
        return replace(self, levels=tuple(levels))

    def label_array(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Return the numbers. Shapes: float64 [n]."""
        return labels.astype("float64")

    def standardisation(self, y: np.ndarray) -> tuple[float, float]:
        """Return mean and standard deviation of the labels, 1 where all are alike."""
        return float(y.mean()), float(y.std()) or 1.0

    def n_outputs(self, n_classes: int) -> int:
        """Return one for the mean, and one for each quantile."""
        return 1 + len(self.levels)

    def score_shape(self, n_classes: int) -> tuple[int, ...]:
        """Return that of a number; with quantiles one more than there are levels."""
        return (1 + len(self.levels),) if self.levels else ()

    def loss_labels(self, y: np.ndarray, target: Fitted) -> Tensor:
        """Return numbers on their scale, standardised; once for each output. Shapes: float32 [n], or [n, o]."""
        import numpy as np
        import torch

        bent = target.label_scale.from_labels(np.asarray(y))
        labels = torch.from_numpy(((bent - target.mean) / target.deviation).astype(np.float32))
        return labels[:, None].repeat(1, 1 + len(self.levels)) if self.levels else labels

    def loss(self, logits: Tensor, labels: Tensor, smoothing: float, class_weights: Tensor | None) -> Tensor:
        """Return the squared error of each row; with quantiles a part of it, and twice their mean pinball loss."""
        errors = labels.reshape(logits.shape) - logits
        if not self.levels:
            return errors.square().mean(1)
        levels = logits.new_tensor(self.levels)
        pinball = (levels * errors[:, 1:]).maximum((levels - 1) * errors[:, 1:])
        return WEIGHT_OF_MEAN * errors[:, 0].square() + 2 * pinball.mean(1)

    def score_and_information(
        self, logits: Tensor, outputs: Tensor, class_weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the derivatives of a normal likelihood whose variance is the mean squared error, of the mean.

        What lies beyond the mean's prediction is the same for all outputs: quantiles move with the mean.
        """
        import torch

        errors = (outputs - logits)[:, :1].expand_as(logits)
        weight = 1 / errors.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
        return weight * errors, weight * torch.ones_like(logits)

    def activation(self, logits: Tensor, target: Fitted) -> Tensor:
        """Return the mean or median in its own units, with the quantiles. Shapes: [b, o] -> [b], or [b, o]."""
        import torch

        scale, mean = target.label_scale, logits[:, 0] * target.deviation + target.mean
        if not self.levels:
            return scale.to_labels(mean)
        quantiles = self.quantiles(logits, target.widening, target.shifts)
        if target.offset:
            quantiles = quantiles + quantiles.new_tensor(target.offset)
        ascending = quantiles.topk(len(self.levels), largest=False).values * target.deviation + target.mean
        bent = scale.uncorrected.to_labels(ascending)
        # A median that was learnt knows of each row by itself what a correction knows of all: a night has but one.
        is_median = scale.point == MEDIAN and HALF in self.levels
        point = bent[:, self.levels.index(HALF)] if is_median else scale.to_labels(mean)
        return torch.cat([point[:, None], bent], 1)

    def quantiles(self, logits: Tensor, widening: float, shifts: Sequence[float]) -> Tensor:
        """Return the calibrated quantiles, not sorted yet. Shapes: [b, o] -> [b, levels]."""
        widened = logits[:, :1] + widening * (logits[:, 1:] - logits[:, :1])
        return widened + widened.new_tensor(shifts) if shifts else widened

    def point(self, scores: np.ndarray) -> np.ndarray:
        """Return the mean alone. Shapes: [n] or [n, o] -> [n]."""
        return scores[:, 0] if scores.ndim > 1 else scores

    def metrics(self, rule: float | PredictionRule) -> dict[str, Metric]:
        """Return two errors in the labels' units, and the share of their variance that is explained, of the mean.

        With quantiles also: pinball, their mean loss, in the labels' units; coverage_error, how far the share of labels
        below a quantile lies from its level, the mean over these; interval_coverage, the share of the labels from the
        lowest to the highest quantile, and interval_width, how far these lie apart in the mean.
        """
        from sklearn import metrics as sk

        from model.heads import measures

        found = {"rmse": sk.root_mean_squared_error, "mae": sk.mean_absolute_error, "r2": measures.r2}
        found = {name: _of_point(metric) for name, metric in found.items()}
        levels = self.levels or as_rule(rule).levels
        if levels:
            found |= {
                "pinball": _of_quantiles(lambda y, below: float(measures.pinball(y, below, levels).mean()), levels),
                "coverage_error": _of_quantiles(lambda y, below: measures.coverage_error(y, below, levels), levels),
            }
        if len(levels) > 1:
            found |= {
                "interval_coverage": _of_quantiles(measures.interval_coverage, levels),
                "interval_width": _of_quantiles(lambda _, below: float((below[:, -1] - below[:, 0]).mean()), levels),
            }
        return found

    def per_class(
        self, y: np.ndarray, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, dict[str, float]] | None:
        """Return by quantile its level, the share of the labels below it, and its pinball loss; None without such."""
        from model.heads import measures

        levels = self.levels or as_rule(rule).levels
        if not levels or scores.ndim == 1 or not len(y):
            return None
        losses, found = measures.pinball(y, scores[:, 1:], levels).mean(0), measures.shares_below(y, scores[:, 1:])
        return {
            quantile_name(level): {"level": level, "below": float(below), "pinball": float(loss), "support": len(y)}
            for level, below, loss in zip(levels, found, losses, strict=True)
        }

    def tree_estimator(self, is_category: Sequence[bool], y: np.ndarray, seed: int) -> Any:
        """Return boosted trees."""
        from model.heads.parts.estimators import boosted_regressor

        return boosted_regressor(is_category, seed)

    def linear_estimator(self) -> Any:
        """Return a ridge regression."""
        from sklearn.linear_model import Ridge

        return Ridge()

    def of_output(self, estimator: Any, output: int) -> Any:
        """Return trees for the mean, or for a quantile."""
        return estimator.set_params(loss="quantile", quantile=self.levels[output - 1]) if output else estimator

    def spread(self, errors: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """Return 0 for the mean, and the quantiles of the errors. Shapes: [n] -> [o]."""
        import numpy as np

        if not self.levels:
            return np.zeros(1)
        order = np.argsort(errors)
        of_row = np.ones(len(errors)) if weights is None else weights[order]
        places = (of_row.cumsum() - of_row / 2) / of_row.sum()
        return np.r_[0.0, np.interp(self.levels, places, errors[order])]

    def fit_estimator(self, estimator: Any, rows: Any, y: np.ndarray, n_classes: int) -> Any:
        """Return the fitted estimator; with quantiles one for the mean and one for each of them."""
        from model.heads.parts.estimators import fit_quantiles

        return fit_quantiles(self, estimator, rows, y) if self.levels else estimator.fit(rows, y)

    def estimator_scores(self, estimator: Any, rows: Any, n_classes: int) -> np.ndarray:
        """Return the predictions. Shapes: float32 [n] or [n, o]."""
        return estimator.predict(rows).astype("float32")

    def night_columns(
        self, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, np.ndarray]:
        """Return the number, and each quantile."""
        numbers = scores.astype("float64")
        names = map(quantile_name, self.levels)
        beside = {name: numbers[:, 1 + at] for at, name in enumerate(names)}
        return {"prediction": self.point(numbers), **beside}

    def scores_of_night(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the numbers with their quantiles, where a night has all of these. Shapes: [n] or [n, o]."""
        import numpy as np

        names = ["prediction", *map(quantile_name, self.levels)]
        if len(names) == 1 or not all(name in columns for name in names):
            return columns["prediction"], ()
        return np.stack([columns[name] for name in names], axis=1), ()

    def night_score(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the number. Shapes: [n]."""
        return columns["prediction"]


def quantile_name(level: float) -> str:
    """Return the name of the column of a quantile: its level in percent, with _ for a point.

    >>> [quantile_name(level) for level in (0.1, 0.5, 0.025)]
    ['quantile_10', 'quantile_50', 'quantile_2_5']
    """
    return QUANTILE + f"{round(100 * level, LEVEL_DECIMALS - 2):g}".replace(".", "_")


def _of_point(metric: Metric) -> Metric:
    """Return a metric of numbers as one of scores that may have quantiles beside them."""
    return lambda y, scores: metric(y, scores[:, 0] if scores.ndim > 1 else scores)


def _of_quantiles(metric: Metric, levels: Sequence[float]) -> Metric:
    """Return a metric of quantiles as one of scores, NaN where these have others, or none."""
    return lambda y, scores: metric(y, scores[:, 1:]) if scores.shape[1:] == (1 + len(levels),) else float("nan")
