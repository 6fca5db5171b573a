"""What heads read of a target that is fitted."""

from typing import Protocol

from model.heads.label_scale import LabelScale


class Fitted(Protocol):
    """The numbers of a `model.target.Target` that heads read."""

    @property
    def mean(self) -> float:
        """Return the mean of the training labels, 0 where labels are classes."""

    @property
    def deviation(self) -> float:
        """Return their standard deviation, 1 where labels are classes."""

    @property
    def label_scale(self) -> LabelScale:
        """Return the scale on which numbers are learnt; mean and deviation are on it."""

    @property
    def widening(self) -> float:
        """Return the factor of the distances of quantiles from the mean."""

    @property
    def shifts(self) -> tuple[float, ...]:
        """Return what is added to each quantile then."""

    @property
    def scale(self) -> tuple[float, ...]:
        """Return the factors of the calibration; () without one."""

    @property
    def offset(self) -> tuple[float, ...]:
        """Return the offsets of the calibration, as many."""
