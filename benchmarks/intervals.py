"""Give a mean over dates, folds or splits its interval: Student's 95 %."""

import numpy as np
from scipy import stats


def student_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean."""
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return float(low), float(high)


def with_interval(differences: np.ndarray) -> str:
    """Return the mean and its interval, for a person to read."""
    return "{:+.4f} ({:+.4f} to {:+.4f})".format(differences.mean(), *student_interval(differences))
