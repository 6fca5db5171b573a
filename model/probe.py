"""Linear probing: a head fitted to what the encoder says of each row, while the encoder stays as it is.

Few rows say little about millions of weights, and may spoil what a pretrained encoder knows; about a head they say
enough. It is fitted to the optimum, so that no rate or number of epochs is to be chosen. A training may go on from it.
Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution" (2022).

Shape legend: n rows, d width, o outputs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from model.network import Head
from model.optimum import minimise

SPREAD = 0.25
"""Root mean square of what enters the head's tanh: it bends that hardly at all."""
STRENGTH = 10.0
"""A row's weight against that of small weights, where a row's length is 1."""


def fit_probe(head: Head, pooled: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
    """Fit `head` to the answers that `loss` knows: its first map scales, its second is a regression.

    Shapes: pooled [n, d]; loss: logits [n, o] -> [], summed over the rows.
    """
    pooled = pooled.double()
    gain = SPREAD / pooled.square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    with torch.no_grad():
        head.dense.weight.copy_(torch.eye(pooled.shape[1]) * gain)
        head.dense.bias.zero_()
    rows = torch.tanh(pooled * gain)
    penalty = rows.square().sum(1).mean() / (2 * STRENGTH)
    weight, bias = (torch.zeros(part.shape, dtype=torch.float64, requires_grad=True) for part in head.out.parameters())
    minimise([weight, bias], lambda: (loss(rows @ weight.T + bias) + penalty * weight.square().sum()) / len(rows))
    with torch.no_grad():
        head.out.weight.copy_(weight)
        head.out.bias.copy_(bias)
