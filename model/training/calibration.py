"""Probabilities that mean what they say: logits stretched and shifted to fit the validation rows.

A binary target gets a scale and an offset (Platt scaling), a multilabel one both for each class, a multiclass
one a single scale (temperature scaling), which leaves the likeliest class as it is. Scales are positive: no
order of rows is ever inverted. A regression has no probabilities and stays as it is.

Where the validation rows are of later days than the training rows, an offset is what their days have in common,
and the next week's may be another: then a day is one observation of it, however many rows it has.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.features.encoded import Encoded
from model.network.network import Network
from model.target import Target
from model.training.inference import predict_in_batches
from model.training.optimum import minimise


def calibrate(
    network: Network, encoded: Encoded, y: np.ndarray, batch_tokens: int, n_later_days: int | None = None
) -> None:
    """Give `network` the target whose probabilities fit rows that it was not trained on.

    `n_later_days` is how many days they are of, where these are later than the training rows'.
    Shapes: y int [n] for binary and multiclass, 0/1 [n, C] for multilabel.
    """
    assert network.target is not None
    if network.target.task != "regression":
        network.target = calibrated(
            network.target, predict_in_batches(network, network, encoded, batch_tokens), y, n_later_days
        )


def calibrated(target: Target, logits: Tensor, y: np.ndarray, n_later_days: int | None = None) -> Target:
    """`target` with the scales and offsets that fit best; where one class is all there is, nothing changes.

    `n_later_days` as in `calibrate`.
    Shapes: logits [n, o]; y as in `calibrate`.
    Source: Platt 1999; Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.
    """
    logits, truth = logits.double(), torch.from_numpy(np.asarray(y))
    if target.task == "multiclass":
        if len(truth.unique()) < 2:
            return replace(target, scale=(1.0,), offset=(0.0,))
        scale, _ = _fit(logits, lambda moved: F.cross_entropy(moved, truth.long(), reduction="sum"), None)
        return replace(target, scale=(scale,), offset=(0.0,))
    columns = zip(logits.T, truth.reshape(logits.shape).T.double(), strict=True)
    n_observed = len(logits) if n_later_days is None else n_later_days
    fitted = [_fit_binary(*column, n_observed) for column in columns]
    return replace(target, scale=tuple(scale for scale, _ in fitted), offset=tuple(offset for _, offset in fitted))


def calibration_after_refit(target: Target, n_later_days: int | None) -> Target:
    """`target` for a network that has learnt from the validation rows too, since it was calibrated on them.

    The scale stays. The offset was the level of later days, which this network has seen for itself; elsewhere it stays.
    """
    return target if n_later_days is None else replace(target, offset=(0.0,) * len(target.offset))


def uncalibrated(target: Target, scores: np.ndarray) -> np.ndarray:
    """The probabilities as they would be without calibration. Shapes: as in `model.scoring.scorer`."""
    if not target.scale:
        return scores
    tiny = np.finfo(np.float32).tiny
    shares = np.clip(scores.astype(np.float64), tiny, None)
    if target.task == "multiclass":
        powers = shares ** (1 / target.scale[0])
        return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)
    rest = np.clip(1 - scores.astype(np.float64), tiny, None)
    scale, offset = (np.array(values if scores.ndim > 1 else values[0]) for values in (target.scale, target.offset))
    logits = (np.log(shares) - np.log(rest) - offset) / scale
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def _fit_binary(logits: Tensor, truth: Tensor, n_observed: int) -> tuple[float, float]:
    """Scale and offset of one column. Shapes: [n], 0/1 [n]."""
    if len(truth.unique()) < 2:
        return 1.0, 0.0
    return _fit(logits, lambda moved: F.binary_cross_entropy_with_logits(moved, truth, reduction="sum"), n_observed)


def _fit(logits: Tensor, loss: Callable[[Tensor], Tensor], n_observed: int | None) -> tuple[float, float]:
    """The scale and offset of least loss, drawn to 1 and 0 as one more unit-normal observation each would.

    That prior decides where few rows or rows without a mistake say little, and fades as rows are added. Of the offset
    there are `n_observed` observations; None is for no offset.
    """
    moves = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    kept = torch.tensor([1.0, float(n_observed is not None)], dtype=torch.float64)
    prior = torch.tensor([1.0, len(logits) / (n_observed or len(logits))], dtype=torch.float64)

    def objective() -> Tensor:
        log_scale, offset = (moves * kept).unbind()
        return (loss(logits * log_scale.exp() + offset) + (prior * moves.square()).sum() / 2) / len(logits)

    minimise([moves], objective)
    log_scale, offset = (moves * kept).detach().tolist()
    return float(np.exp(log_scale)), offset
