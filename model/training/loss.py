"""What a training makes small: a row's loss by the kind of its target, and what each class and row weighs in it.

Shape legend: b rows of a batch, n rows of a table, o outputs, C classes or labels.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.target import Target


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Cross-entropy, or of a regression the squared error."""

    target: Target
    smoothing: float = 0.0
    """Share of a target's mass spread over all classes."""
    class_weights: Tensor | None = None
    """As of `balanced`."""

    def __call__(self, logits: Tensor, truth: Tensor, row_weights: Tensor | None = None) -> Tensor:
        """Summed over the rows, of each row the mean over its outputs.

        Shapes: logits [b, o]; truth as of `truths`; row_weights [b]; returns [].
        """
        logits, truth = logits.float(), truth.to(logits.device)
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        if self.target.task == "multiclass":
            smoothing = self.smoothing
            each = F.cross_entropy(logits, truth, weight=weights, label_smoothing=smoothing, reduction="none")
        else:
            truth = truth.reshape(logits.shape)
            if self.target.task == "regression":
                each = F.mse_loss(logits, truth, reduction="none")
            else:
                element = None if weights is None else torch.where(truth > 0.5, weights[1], weights[0])
                smooth = truth * (1 - self.smoothing) + self.smoothing / 2
                each = F.binary_cross_entropy_with_logits(logits, smooth, weight=element, reduction="none")
            each = each.mean(1)
        return each.sum() if row_weights is None else each @ row_weights.to(logits.device)


def loss_targets(target: Target, y: np.ndarray) -> Tensor:
    """Labels as the loss wants them: int64 classes, float32 shares, standardised numbers."""
    if target.task == "multiclass":
        return torch.from_numpy(np.asarray(y).astype(np.int64))
    if target.task == "regression":
        y = (np.asarray(y) - target.mean) / target.deviation
    return torch.from_numpy(np.asarray(y).astype(np.float32))


def regression_targets(target: Target, truth: Tensor) -> np.ndarray:
    """What a regression should answer to every row. Shapes: truth as of `truths` -> float64 [n, o]."""
    if target.task == "multiclass":
        truth = F.one_hot(truth, target.n_outputs)
    return truth.reshape(len(truth), target.n_outputs).double().numpy()


def balanced_class_weights(target: Target, truth: Tensor) -> Tensor | None:
    """Weights under which every class, or each label's yes and no, weighs as much; their mean over the rows is 1.

    Shapes: truth as of `truths`; returns [C] for multiclass, [2, o] (no, yes) for binary and multilabel, None
    for regression.
    """
    if target.task == "regression":
        return None
    if target.task == "multiclass":
        counts = torch.bincount(truth, minlength=target.n_outputs)
    else:
        yes = (truth.reshape(len(truth), -1) > 0.5).sum(0)
        counts = torch.stack([len(truth) - yes, yes])
    return len(truth) / (len(counts) * counts.clamp(min=1).float())


def recency_weights(age_days: np.ndarray | None, half_life_days: float) -> Tensor | None:
    """What each row weighs in the loss, 1 in the mean; None where all weigh the same. Shapes: [n] -> float32 [n].

    Raises: ValueError where rows are to weigh by their age, and that is not given.
    """
    if not half_life_days:
        return None
    if age_days is None:
        raise ValueError("age_days must be given for half_life_days, got None; set half_life_days: 0")
    weights = 0.5 ** (np.asarray(age_days, np.float64) / half_life_days)
    return torch.from_numpy((weights / weights.mean()).astype(np.float32))
