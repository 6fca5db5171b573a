"""Part rows that are predicted several days ahead by time, so that no part knows the days of the next.

The newest days of which the labels of every horizon are known are test. A row is validated on, or learnt from, if its
label was known before the first row of the next part: so validation and training begin earlier by the longest horizon,
and a row that reaches beyond is in no part. That is what a run on the next part's first day would have known.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from tasks.params import Product, TimeSplit

TEST, VAL, TRAIN, NONE = 0, 1, 2, 3
"""The parts as numbers, the most held-out first."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How many days each part has, and how long labels are waited for."""

    test_days: int
    val_days: int
    train_days: int
    delay_days: int
    """Days after the predicted date on which its label is known."""
    horizons: tuple[int, ...]
    """() where a row is predicted for its own day alone."""

    @classmethod
    def of(cls, product: Product) -> "Windows":
        """Return those of a product whose split is by time."""
        rule = product.split
        assert isinstance(rule, TimeSplit)
        return cls(
            test_days=rule.test_days,
            val_days=rule.val_days,
            train_days=rule.train_days,
            delay_days=product.target.delay_days,
            horizons=product.predict.horizons,
        )

    @property
    def apart_days(self) -> int:
        """Return by how much a part begins earlier than the next one and its own days ask for."""
        return self.horizons[-1] + self.delay_days if self.horizons else 0

    @property
    def span(self) -> timedelta:
        """Return from the first day of all parts to the newest."""
        n_days = self.test_days + self.val_days + self.train_days + 2 * self.apart_days
        return timedelta(days=n_days - 1)

    def decides(self, labelled: np.ndarray, horizon: np.ndarray) -> np.ndarray:
        """Return the rows of which the newest is the newest of the test part. Shapes: bool, int [n] -> bool [n]."""
        return labelled & (horizon == self.horizons[-1]) if self.horizons else labelled

    def parts(self, day: np.ndarray, horizon: np.ndarray, newest: np.datetime64) -> np.ndarray:
        """Return the part of each row. Shapes: datetime64[D], int [n] -> int8 [n]."""
        age = (newest - day).astype(int)
        first = np.cumsum([self.test_days, self.val_days + self.apart_days, self.train_days + self.apart_days])
        part = np.searchsorted(first, age, side="right").astype(np.int8)
        if not self.horizons:
            return part
        known = age - horizon - self.delay_days  # days from a label's becoming known to the newest day
        next_begins = np.array([-np.inf, *(first[:2] - 1), np.inf])[part]
        return np.where((age < 0) | (known <= next_begins) & (part != TEST), np.int8(NONE), part)
