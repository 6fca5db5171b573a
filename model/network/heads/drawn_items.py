"""Items that stand for all of them in a training step, and how often each is expected among them.

Of more than `model.heads.item_lists.MANY_ITEMS` a step that gives each a logit costs seconds and gigabytes (5.1 s and
1.6 GiB of 200,000 items, where this takes 0.1 s and 0.2 GiB). So N_DRAWN items are drawn: half of them are the labels
of training rows, half are any item. With each logit less the logarithm of how often its item is expected among the
drawn, the sum of their exponentials is on average that of all items, whatever they are drawn by.

Source: Bengio and Senécal 2008, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language
Model"; two ways to draw at once: Veach and Guibas 1995, "Optimally Combining Sampling Techniques" (balance heuristic).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

N_DRAWN = 4096
"""Items drawn in a step, for all rows together."""


@dataclass(frozen=True, kw_only=True)
class DrawnItems:
    """By what items are drawn."""

    labels: Tensor
    """int64 [n], of the training rows."""
    chance: Tensor
    """float32 [i], of each item to be the next one drawn."""

    @classmethod
    def by(cls, labels: Tensor, n_items: int) -> "DrawnItems":
        """Return what draws half by labels, half evenly. Shapes: int64 [n]."""
        counts = torch.bincount(labels, minlength=n_items)
        return cls(labels=labels, chance=counts.float() / (2 * len(labels)) + 1 / (2 * n_items))

    def draw(self) -> tuple[Tensor, Tensor]:
        """Draw items by torch's random state, the even half last; return the logarithm of how often each is expected.

        Shapes: int64, float32 [N_DRAWN].
        """
        half = N_DRAWN // 2
        rows, even = torch.randint(len(self.labels), (half,)), torch.randint(len(self.chance), (half,))
        items = torch.cat([self.labels[rows], even])
        return items, (2 * half * self.chance[items]).log()
