"""Choose the thresholds from which on a yes or a label is predicted, on rows that no model was fitted to.

Few rows say little: each counts as its label and, less the more rows there are, as its calibrated probability, from
which alone the best threshold follows too. Source: Lipton et al. 2014, "Optimal Thresholding of Classifiers to
Maximize F1 Measure"; Elkan 2001, "The Foundations of Cost-Sensitive Learning".
"""

from dataclasses import dataclass

import numpy as np

from model.heads.prediction_rule import HALF, PredictionRule
from model.heads.span import values_of

EXPECTED_COST, F1 = "expected_cost", "f1"
WEIGHED = ("accuracy", "balanced_accuracy")
"""Metrics that are the negative of a cost of each error."""
PRIOR_ROWS = 20
"""Rows of the rarer answer up to which probabilities count for more than labels."""
MAX_CANDIDATES = 1000
"""Thresholds that are tried; of more different scores their quantiles."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A metric by threshold."""

    thresholds: np.ndarray
    """float64 [t], rising."""
    values: np.ndarray
    """float64 [t]: the mean cost of a row, or F1."""
    is_cost: bool
    """Whether less is better."""

    @property
    def best(self) -> float:
        """Return the best threshold; of several, which make the same predictions, that in their middle."""
        losses = self.values if self.is_cost else -self.values
        first = int(np.argmin(losses))
        equal = np.flatnonzero(losses[first:] > losses[first] + 1e-12)
        last = first + int(equal[0]) - 1 if len(equal) else len(losses) - 1
        return float(np.float32((self.thresholds[first] + self.thresholds[last]) / 2))


def choose_threshold(
    y: np.ndarray, shares: np.ndarray, metric: str, rule: PredictionRule, *, is_calibrated: bool
) -> float:
    """Return the threshold that is best by a metric: EXPECTED_COST, F1 or one of WEIGHED.

    Shapes: y 0 or 1 [n]; shares, the probabilities of a yes, float32 [n].
    """
    if not len(y):
        return HALF
    n_rarer = float(min(y.sum(), len(y) - y.sum()))
    prior = PRIOR_ROWS / (PRIOR_ROWS + n_rarer) if is_calibrated else 0.0
    return curve((1 - prior) * y + prior * shares, shares, metric, rule).best


def curve(y: np.ndarray, shares: np.ndarray, metric: str, rule: PredictionRule) -> Curve:
    """Return a metric by threshold. Shapes: y from 0 to 1 [n]; shares [n]."""
    y, shares = np.asarray(y, np.float64), np.asarray(shares, np.float64)
    order = np.argsort(shares)
    found, n_no, n_yes = shares[order], len(y) - y.sum(), y.sum()
    thresholds = _candidates(found)
    n_below = np.searchsorted(found, thresholds)
    missed = np.r_[0.0, y[order].cumsum()][n_below]
    false_alarms = n_no - (n_below - missed)
    if metric == F1:
        hits = n_yes - missed
        return Curve(
            thresholds=thresholds, values=2 * hits / np.maximum(hits + n_yes + false_alarms, 1e-12), is_cost=False
        )
    costs = rule.cost_matrix(2) if metric == EXPECTED_COST else 1.0 - np.eye(2)
    of_alarm, of_miss = float(costs[0, 1]), float(costs[1, 0])
    if metric == "balanced_accuracy":
        of_alarm, of_miss = (len(y) / 2 / max(n, 1e-12) for n in (n_no, n_yes))
    return Curve(thresholds=thresholds, values=(of_alarm * false_alarms + of_miss * missed) / len(y), is_cost=True)


def curve_of_answers(scores: np.ndarray, metric: str, *, has_prior: bool) -> Curve:
    """Return a metric of answers that stand in texts by threshold.

    With `has_prior` a row counts, the more the fewer rows there are, as what its probabilities say, as in
    `choose_threshold`. Shapes: scores as of `model.heads.span.measured`, of one row at least.
    """
    share, likely, is_none = (scores[:, at].astype(np.float64) for at in (0, 1, -1))
    answered, left_out = (values_of(metric, scores, threshold) for threshold in (-1.0, 1.0))
    if has_prior:
        n_rarer = float(min(is_none.sum(), len(scores) - is_none.sum()))
        prior = PRIOR_ROWS / (PRIOR_ROWS + n_rarer)
        foreseen = share if metric == "none_accuracy" else likely
        answered = (1 - prior) * answered + prior * foreseen
        left_out = (1 - prior) * left_out + prior * (1 - share)
    order = np.argsort(share)
    thresholds = _candidates(share[order])
    n_below = np.searchsorted(share[order], thresholds)
    gained = np.r_[0.0, (left_out - answered)[order].cumsum()]
    return Curve(thresholds=thresholds, values=(answered.sum() + gained[n_below]) / len(scores), is_cost=False)


def _candidates(rising: np.ndarray) -> np.ndarray:
    """Return a threshold between each two different scores, and one beyond each end. Shapes: [n] -> [t]."""
    known = np.unique(rising)
    if len(known) > MAX_CANDIDATES:
        known = np.unique(np.quantile(known, np.linspace(0, 1, MAX_CANDIDATES)))
    return np.r_[known[0] / 2, (known[:-1] + known[1:]) / 2, (known[-1] + 1) / 2]
