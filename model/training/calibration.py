"""Probabilities and quantiles that come true: logits stretched and shifted to fit the validation rows.

Which of them share a scale, and which have an offset, a head says (`calibration_parts`): a binary target gets both
(Platt scaling), a multilabel one both for each label, a multiclass one a single scale (temperature scaling). Scales are
positive: no order of rows is ever inverted. A target without probabilities stays as it is, and so do probabilities that
the validation rows show no better ones for: of few rows a scale says more about these rows than about the next ones.

Where the validation rows are of later days than the training rows, an offset is what their days have in common,
and the next week's may be another: then a day is one observation of it, however many rows it has.

Quantiles are widened about the mean by one factor, and then each is moved so that its share of the rows lies below it;
where the rows are of later days, what all have in common is an offset of its own, which a training that has seen these
days does without. So does conformal prediction (Romano, Patterson and Candès 2019, "Conformalized
Quantile Regression").
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from model.features.encoded import Encoded
from model.heads.base import CalibrationPart
from model.heads.label_scale import LINEAR, MEAN
from model.network.network import Network
from model.target import Target
from model.training.inference import predict_in_batches
from model.training.loss import loss_labels
from model.training.optimum import minimise

N_FOLDS, SEED = 5, 0
CROSS_FITTED_ROWS = 20_000
"""Up to so many rows it is asked whether they can carry a calibration; more can."""
WIDENINGS = (1.0, 0.5, 0.7, 0.85, 1.2, 1.4, 1.7, 2.0, 3.0)
"""Factors that are tried for the distances of quantiles from the mean."""
PRIOR_ROWS = 10.0
"""Rows that need no shift, beside those that a quantile is moved by."""
ROWS_OF_A_DAY = 10
"""As so many of these rows count those of one day at most, where rows are of later days: their errors hang together,
less so once what all later days have in common is an offset of its own."""


def calibrate(
    network: Network, encoded: Encoded, y: np.ndarray, batch_tokens: int, n_later_days: int | None = None
) -> None:
    """Give `network` the target whose probabilities fit rows that it was not trained on.

    `n_later_days` is the number of days that they are of, where these are later than the training rows'.
    Shapes: y as of `Head.label_array`.
    """
    assert network.target is not None
    if network.target.head.has_probabilities:
        logits = predict_in_batches(network, network, encoded, batch_tokens)
        network.target = calibrated(network.target, logits, y, n_later_days)


def correct_point(
    network: Network, encoded: Encoded, y: np.ndarray, batch_tokens: int, n_later_days: int | None = None
) -> None:
    """Give `network` the target whose numbers are means, or medians, of unseen rows too.

    Shapes and `n_later_days` as in `calibrate`.
    """
    target = network.target
    assert target is not None
    scale = target.label_scale
    if target.head.has_label_scale and (scale.name != LINEAR or scale.point != MEAN):
        logits = predict_in_batches(network, network, encoded, batch_tokens)
        bent = logits[:, 0].double() * target.deviation + target.mean
        scale = scale.corrected(bent, y, are_later=n_later_days is not None)
        network.target = replace(target, label_scale=scale)


def calibrate_quantiles(
    network: Network,
    encoded: Encoded,
    y: np.ndarray,
    batch_tokens: int,
    judged: tuple[Tensor, np.ndarray] | None,
    n_later_days: int | None = None,
) -> None:
    """Give `network` the target whose quantiles have their shares of unseen rows below them.

    These are `judged`, logits and labels as of the loss, where there are such, else the rows of `encoded`.
    Shapes and `n_later_days` as in `calibrate`.
    """
    target = network.target
    assert target is not None
    if judged is None:
        judged = predict_in_batches(network, network, encoded, batch_tokens), loss_labels(target, y).numpy()
    network.target = calibrated_quantiles(target, *judged, n_later_days)


def calibrated_quantiles(target: Target, logits: Tensor, labels: np.ndarray, n_later_days: int | None = None) -> Target:
    """Return `target` with the widening of least pinball loss, by cross-validation, and the shifts that belong to it.

    Shapes: logits [n, o]; labels as of `Head.loss_labels`, [n, o].
    """
    truth, n, levels = labels[:, 0].astype(np.float64), len(labels), np.asarray(target.levels)
    offset = tuple[float, ...]()
    n_observed = n if n_later_days is None else min(n, ROWS_OF_A_DAY * n_later_days)
    if n_later_days is not None:
        in_common = float((truth - logits[:, 0].double().numpy()).mean())
        truth = truth - in_common
        offset = (in_common * n_later_days / (n_later_days + PRIOR_ROWS),)
    fold = np.random.default_rng(SEED).permutation(n) % N_FOLDS

    def errors(widening: float) -> np.ndarray:
        return truth[:, None] - target.head.quantiles(logits.double(), widening, ()).numpy()

    def shifts(left: np.ndarray) -> np.ndarray:
        found = [np.quantile(each, level, method="weibull") for each, level in zip(left.T, levels, strict=True)]
        return np.array(found) * n_observed / (n_observed + PRIOR_ROWS)

    def loss(left: np.ndarray) -> float:
        moved = left.copy()
        for number in range(N_FOLDS if n > N_FOLDS else 0):
            moved[fold == number] -= shifts(left[fold != number])
        return float(np.maximum(levels * moved, (levels - 1) * moved).mean())

    widening = min(WIDENINGS, key=lambda each: loss(errors(each)))
    return replace(target, widening=widening, shifts=tuple(shifts(errors(widening)).tolist()), offset=offset)


def calibrated(target: Target, logits: Tensor, y: np.ndarray, n_later_days: int | None = None) -> Target:
    """Return `target` with the scales and offsets that fit best; rows of one class change nothing.

    `n_later_days` as in `calibrate`.
    Shapes: logits [n, o]; y as in `calibrate`.
    """
    n_observed = len(logits) if n_later_days is None else n_later_days
    parts = target.head.calibration_parts(logits.double(), torch.from_numpy(np.asarray(y)))
    fitted = [fit_scale_and_offset(part, n_observed) for part in parts]
    return replace(target, scale=tuple(scale for scale, _ in fitted), offset=tuple(offset for _, offset in fitted))


def calibration_after_refit(target: Target, n_later_days: int | None) -> Target:
    """Return `target` for a network that has learnt from the validation rows too, since it was calibrated on them.

    The scale stays. An offset that was the level of later days goes, since this network has seen these; else it stays.
    """
    return target if n_later_days is None else replace(target, offset=(0.0,) * len(target.offset))


def uncalibrated(target: Target, scores: np.ndarray) -> np.ndarray:
    """Return the probabilities as they would be without calibration. Shapes: as in `model.scoring.scorer`."""
    return target.head.uncalibrated(scores, target) if target.scale else scores


def fit_scale_and_offset(part: CalibrationPart, n_observed: int) -> tuple[float, float]:
    """Return the scale and offset of least loss, or 1 and 0 where on rows that they were not fitted to they do no good.

    Of the offset there are `n_observed` observations.
    """
    loss, n = part.loss, len(part.logits)
    if loss is None:
        return 1.0, 0.0
    share_observed = (n_observed or n) / n
    if n <= CROSS_FITTED_ROWS:
        moved, fold = part.logits.clone(), np.random.default_rng(SEED).permutation(n) % min(N_FOLDS, n)
        for number in range(min(N_FOLDS, n)):
            unseen = torch.from_numpy(fold == number)
            if unseen.all():  # of a single row nothing is left to fit to
                return 1.0, 0.0
            scale, offset = _minimum(part, ~unseen, share_observed)
            moved[unseen] = part.logits[unseen] * scale + offset
        shares = _probabilities(part.logits).mean(0)
        with torch.no_grad():
            before, after = (float(loss(logits) + _loss_at_random(logits, shares)) for logits in (part.logits, moved))
        if after >= before:
            return 1.0, 0.0
    return _minimum(part, torch.ones(n, dtype=torch.bool), share_observed)


def _minimum(part: CalibrationPart, fitted: Tensor, share_observed: float) -> tuple[float, float]:
    """Return the scale and offset of least loss of the `fitted` rows, and of one more whose label is drawn at random.

    Rows without a mistake would have it that nothing is ever mistaken; that one row keeps them from it, and fades as
    rows are added. Both are drawn to 1 and 0 as one more unit-normal observation each would.
    Shapes: bool [n].
    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", section 2.2 (labels short of certainty).
    """
    logits, loss, n = part.logits, part.loss, int(fitted.sum())
    assert loss is not None
    moves = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    kept = torch.tensor([1.0, float(part.has_offset)], dtype=torch.float64)
    prior = torch.tensor([1.0, 1 / share_observed], dtype=torch.float64)
    rows = fitted if logits.ndim == 1 else fitted[:, None]
    shares = _probabilities(logits[fitted]).mean(0)

    def objective() -> Tensor:
        log_scale, offset = (moves * kept).unbind()
        moved = logits * log_scale.exp() + offset
        value = loss(torch.where(rows, moved, logits)) + _loss_at_random(moved[fitted], shares)
        return (value + (prior * moves.square()).sum() / 2) / n

    minimise([moves], objective)
    log_scale, offset = (moves * kept).detach().tolist()
    return float(np.exp(log_scale)), offset


def _probabilities(logits: Tensor) -> Tensor:
    """Return the probability of yes, or of each class. Shapes: as the logits, [n] or [n, C]."""
    return logits.sigmoid() if logits.ndim == 1 else logits.softmax(1)


def _loss_at_random(logits: Tensor, shares: Tensor) -> Tensor:
    """Return the mean loss of rows whose labels are drawn without regard to their logits. Shapes: shares [] or [C]."""
    if logits.ndim == 1:
        return (softplus(logits) - shares * logits).mean()
    return (logits.logsumexp(1) - logits @ shares).mean()
