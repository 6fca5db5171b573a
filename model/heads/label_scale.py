"""The scale on which a network learns the numbers of a regression, and the way back to their own units.

Of prices, amounts and durations a few are far larger than the rest: learnt as they are, these decide everything, and
small ones come out below zero. On a logarithmic scale an error counts by its share. The mean of logarithms is not the
logarithm of the mean: on the way back predictions are multiplied by a correction, so that they are means again, or
medians, where the mean absolute error is least.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

ScaleName = Literal["linear", "log", "symlog"]
LINEAR: ScaleName = "linear"
LOG: ScaleName = "log"
SYMLOG: ScaleName = "symlog"
Point = Literal["mean", "median"]
MEAN: Point = "mean"
MEDIAN: Point = "median"
MANY = 0.1
"""Share of the positive labels that lie below what is added to all before a logarithm, where a label is 0."""
PRIOR_ROWS = 10
"""Rows without a correction that count beside those that it is fitted to."""
MAX_CORRECTION = 2.0


@dataclass(frozen=True, kw_only=True)
class LabelScale:
    """A scale, as fitted on the labels of the training rows."""

    name: ScaleName = "linear"
    """linear: the labels themselves; log: logarithms; symlog: logarithms of both signs, linear about the centre."""
    centre: float = 0.0
    """Subtracted before a logarithm."""
    unit: float = 1.0
    """What symlog takes for small."""
    point: Point = "mean"
    """What a prediction is of the labels that such a row may have."""
    correction: float = 1.0
    """Factor that makes these of predictions that were learnt as logarithms."""
    shift: float = 0.0
    """Added to what was learnt on the linear scale, to make medians of it."""
    lowest: float | None = None
    """No prediction is below; None for no limit."""
    highest: float | None = None
    """No prediction is above."""

    @classmethod
    def fit(cls, name: ScaleName, y: "np.ndarray", point: Point = MEAN) -> "LabelScale":
        """Return the scale of training labels. Predictions keep within what a deviation beyond the labels allows.

        Shapes: float64 [n].
        Raises: ValueError for logarithms of labels below 0.
        """
        import numpy as np

        if name == LINEAR or np.ptp(y) == 0:
            return cls(point=point)
        scale = _log_scale(y) if name == LOG else _symlog_scale(y)
        bent = scale.from_labels(y)
        ends = np.array([bent.min() - bent.std(), bent.max() + bent.std()])
        lowest, highest = scale.centre + (np.exp(ends) if name == LOG else scale.unit * np.sinh(ends))
        if y.min() >= 0:
            lowest = max(0.0, lowest)
        return replace(scale, point=point, lowest=float(lowest), highest=float(highest))

    def from_labels(self, y: "np.ndarray") -> "np.ndarray":
        """Return labels on the scale; those below a logarithm's range as its lowest. Shapes: float64 [n]."""
        import numpy as np

        if self.name == LINEAR:
            return np.asarray(y, np.float64)
        away = np.asarray(y, np.float64) - self.centre
        if self.name == SYMLOG:
            return np.arcsinh(away / self.unit)
        least = 0.0 if self.lowest is None else max(0.0, self.lowest - self.centre)
        return np.log(np.maximum(away, max(least, float(np.finfo(np.float32).tiny))))

    def to_labels(self, bent: "Tensor") -> "Tensor":
        """Return predictions in the labels' own units. Shapes: [n]."""
        if self.shift:
            bent = bent + self.shift
        elif self.name == LOG:
            bent = self.centre + self.correction * bent.exp()
        elif self.name == SYMLOG:  # by exponentials, which every engine has
            bent = self.centre + self.correction * self.unit / 2 * (bent.exp() - (-bent).exp())
        if self.lowest is None and self.highest is None:
            return bent
        return bent.clamp(self.lowest, self.highest)

    def steepness(self) -> float:
        """Return by how much the largest prediction moves with one step on the scale."""
        if self.name == LINEAR or self.highest is None or self.lowest is None:
            return 1.0
        away = max(abs(self.highest - self.centre), abs(self.lowest - self.centre))
        return away if self.name == LOG else (away**2 + self.unit**2) ** 0.5

    @property
    def uncorrected(self) -> "LabelScale":
        """Return the scale whose way back is the inverse of the way there alone."""
        return replace(self, correction=1.0, shift=0.0)

    def corrected(self, bent: "Tensor", y: "np.ndarray", *, are_later: bool = False) -> "LabelScale":
        """Return the scale whose predictions are means, or medians, of rows that were not fitted.

        Of rows of later days, whose level may be another, only their spread is taken.
        Shapes: bent float64 [n], what is predicted of them on the scale; y float64 [n].
        Source: Duan 1983, "Smearing Estimate: A Nonparametric Retransformation Method", where errors grow alike.
        """
        import numpy as np

        if not len(y) or (self.name == LINEAR and self.point == MEAN):
            return self
        errors, trusted = self.from_labels(y) - bent.double().numpy(), len(y) / (len(y) + PRIOR_ROWS)
        if self.name == LINEAR:
            return replace(self, shift=float((np.median(errors) - errors.mean()) * trusted))
        level = errors.mean() if are_later else 0.0
        plain = replace(self.uncorrected, lowest=None, highest=None)
        guessed = plain.to_labels(bent.double() + level).numpy() - self.centre
        ratio = (_ratio_of_medians if self.point == MEDIAN else self._ratio_of_means)(
            guessed, np.asarray(y, np.float64) - self.centre
        )
        if not 0 < ratio < np.inf:
            return self
        moved = np.log(ratio) * trusted
        correction = float(np.exp(np.clip(moved, -np.log(MAX_CORRECTION), np.log(MAX_CORRECTION))))
        return replace(self, correction=correction)

    def _ratio_of_means(self, guessed: "np.ndarray", truth: "np.ndarray") -> float:
        """Return the factor after which guesses have the mean of the truth; 0 without one. Shapes: [n], [n]."""
        import numpy as np

        # Of both signs a ratio of sums says nothing: there it is the slope through the centre.
        weight = np.ones_like(guessed) if self.name == LOG else guessed
        above, below = float((weight * truth).sum()), float((weight * guessed).sum())
        return above / below if above > 0 and 0 < below < np.inf else 0.0


LINEAR_SCALE = LabelScale()
"""Numbers as they are, without a limit."""


def _log_scale(y: "np.ndarray") -> LabelScale:
    import numpy as np

    if y.min() < 0:
        raise ValueError(
            f"target_scale must be linear or symlog where labels lie below 0, as {(y < 0).sum():,} of the {len(y):,} "
            "training rows' do, got log; use symlog"
        )
    # Of labels that are 0 there is no logarithm: a small amount is added to all.
    small = float(np.quantile(y[y > 0], MANY))
    return LabelScale(name="log", centre=-small if y.min() < small * 1e-3 else 0.0)


def _symlog_scale(y: "np.ndarray") -> LabelScale:
    import numpy as np

    low, centre, high = np.quantile(y, [0.25, 0.5, 0.75])
    return LabelScale(name="symlog", centre=float(centre), unit=float((high - low) or y.std()))


def _ratio_of_medians(guessed: "np.ndarray", truth: "np.ndarray") -> float:
    """Return the factor after which guesses have the least absolute errors; 0 without one. Shapes: [n], [n]."""
    import numpy as np

    known = np.isfinite(guessed) & (guessed != 0)
    ratio, weight = truth[known] / guessed[known], np.abs(guessed[known])
    if not len(ratio):
        return 0.0
    order = np.argsort(ratio, kind="stable")
    half = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
    return float(ratio[order][min(half, len(order) - 1)])
