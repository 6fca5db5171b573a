"""The loss of a training: that of each row, as its task has it, and the weights of classes and rows in it.

Shape legend: b rows of a batch, n rows of a table, o outputs, C classes or labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model.target import Target

if TYPE_CHECKING:
    from model.network.network import Network


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss of a target's task, summed over weighted rows."""

    target: Target
    smoothing: float = 0.0
    """Share of a label's mass spread over all classes."""
    class_weights: Tensor | None = None
    """As of `balanced_class_weights`."""

    def __call__(self, logits: Tensor, labels: Tensor, row_weights: Tensor | None = None) -> Tensor:
        """Return the sum over the rows, of each row the mean over its outputs.

        Shapes: logits [b, o]; labels as of `loss_labels`; row_weights [b]; returns [].
        """
        logits, labels = logits.float(), labels.to(logits.device)
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        return _weighed(self.target.head.loss(logits, labels, self.smoothing, weights), row_weights)

    def of_batch(
        self, network: "Network", batch: Mapping[str, Tensor], labels: Tensor, row_weights: Tensor | None = None
    ) -> Tensor:
        """Return the same of what a network says of a batch, which of many items is never one logit for each."""
        if not self.target.has_many_items:
            return self(network(batch), labels, row_weights)
        return _weighed(network.item_losses(batch, labels.to(network.device), self.smoothing), row_weights)


def _weighed(losses: Tensor, row_weights: Tensor | None) -> Tensor:
    return losses.sum() if row_weights is None else losses @ row_weights.to(losses.device)


def loss_labels(target: Target, y: np.ndarray) -> Tensor:
    """Return labels as the loss takes them: int64 classes, float32 shares, standardised numbers."""
    return target.head.loss_labels(y, target)


def balanced_class_weights(target: Target, labels: Tensor) -> Tensor | None:
    """Return weights under which every class, or each label's yes and no, weighs alike; their mean over rows is 1.

    Shapes: labels as of `loss_labels`; returns [C] of one class for each row, [2, o] (no, yes) of labels of their own,
    None of a number.
    """
    return target.head.class_weights(labels, target.n_outputs)


def recency_weights(age_days: np.ndarray | None, half_life_days: float) -> Tensor | None:
    """Return what each row weighs in the loss, 1 in the mean; None if all weigh the same.

    >>> recency_weights(np.array([0.0, 10.0]), half_life_days=10)
    tensor([1.3333, 0.6667])

    Shapes: [n] -> float32 [n].
    Raises: ValueError if rows are to weigh by their age, and that is not given.
    """
    if not half_life_days:
        return None
    if age_days is None:
        raise ValueError("age_days must be given for half_life_days, got None; set half_life_days: 0")
    weights = 0.5 ** (np.asarray(age_days, np.float64) / half_life_days)
    return torch.from_numpy((weights / weights.mean()).astype(np.float32))
