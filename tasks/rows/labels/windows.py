"""Part rows by time: how many days each part has, and which row is of which, so that none knows the days of the next.

The newest days of which the labels of every horizon are known are test, the days before them validation, those before
them training; where their number is not declared, it follows from the labelled rows that days hold. With several
horizons a row is validated on, or learnt from, if its label was known before the first row of the next part: so
validation and training begin earlier by the longest horizon, and a row that reaches beyond is in no part. That is what
a run on the next part's first day would have known.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from tasks.params import Product, TimeSplit

TEST, VAL, TRAIN, NONE = 0, 1, 2, 3
"""The parts as numbers, the most held-out first."""
LEAST_HELD_OUT_DAYS, LEAST_TRAIN_DAYS = 7, 90
LEAST_HELD_OUT_ROWS, LEAST_TRAIN_ROWS = 300, 20_000
"""Where days are not declared: so many, or as many more as hold so many labelled rows."""
MOST_HELD_OUT, MOST_HELD_OUT_OF_FEW = 1 / 10, 1 / 5
"""Share of all days that validation and test may each take for the sake of rows, and at all where days are few."""


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

    @property
    def apart_days(self) -> int:
        """Return by how much a part begins earlier than the next one and its own days ask for."""
        return self.horizons[-1] + self.delay_days if self.horizons else 0

    @property
    def span(self) -> timedelta:
        """Return from the first day of all parts to the newest."""
        n_days = self.test_days + self.val_days + self.train_days + 2 * self.apart_days
        return timedelta(days=n_days - 1)

    def declared(self, rule: TimeSplit) -> TimeSplit:
        """Return a split's rule that declares these days."""
        return replace(rule, test_days=self.test_days, val_days=self.val_days, train_days=self.train_days)

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


def decides(labelled: np.ndarray, horizon: np.ndarray, product: Product) -> np.ndarray:
    """Return the rows of which the newest is the newest of the test part. Shapes: bool, int [n] -> bool [n]."""
    horizons = product.predict.horizons
    return labelled & (horizon == horizons[-1]) if horizons else labelled


def fit_windows(product: Product, age: np.ndarray, n_days: int, n_read: int) -> tuple[Windows, bool]:
    """Return the days of each part, and whether they might be others if more days were read.

    The labelled rows that were read are so many days older than the newest one: those of the newest `n_read` of the
    `n_days` that there are. Shapes: int [n].
    """
    rule = product.split
    assert isinstance(rule, TimeSplit)
    n_younger = np.concatenate([[0], np.cumsum(np.bincount(age))])  # [d]: rows less than d days old
    few, many = max(1, int(n_days * MOST_HELD_OUT_OF_FEW)), int(n_days * MOST_HELD_OUT)

    def days_with(n_rows: int, begins: int) -> int:
        wanted = n_younger[min(begins, len(n_younger) - 1)] + n_rows
        found = int(np.searchsorted(n_younger, wanted))
        return (found if found < len(n_younger) else n_days) - begins

    def held_out(begins: int) -> int:
        return max(min(LEAST_HELD_OUT_DAYS, few), min(days_with(LEAST_HELD_OUT_ROWS, begins), many))

    test_days = rule.test_days or held_out(0)
    val_days = rule.val_days or held_out(test_days)
    windows = Windows(
        test_days=test_days,
        val_days=val_days,
        train_days=rule.train_days or max(LEAST_TRAIN_DAYS, days_with(LEAST_TRAIN_ROWS, test_days + val_days)),
        delay_days=product.target.delay_days,
        horizons=product.predict.horizons,
    )
    is_declared = bool(rule.test_days and rule.val_days and rule.train_days)
    return windows, not is_declared and n_read < min(n_days, windows.span.days + 1)
