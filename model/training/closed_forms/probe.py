"""The head of a probe, fitted to what the encoder says of rows.

Shape legend: n rows, d width, o outputs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from model.network.network import Head
from model.training.optimum import minimise

TANH_INPUT_RMS = 0.25
"""Root mean square of the input of the head's tanh, small enough that the function is nearly a line."""
PRIOR_WEIGHT = 10.0
"""Weight of a row of length 1 against the ridge penalty on the weights of the head, where nothing chooses another."""


def fit_probe(head: Head, pooled: Tensor, loss: Callable[[Tensor], Tensor], strength: float = PRIOR_WEIGHT) -> None:
    """Fit `head` by a loss of its logits: its first map only scales, its second is a regression with a ridge penalty.

    `strength` is the weight of a row of length 1 against that penalty.
    Shapes: pooled [n, d]; loss: logits [n, o] -> [], summed over the rows.
    """
    gain, weight, bias = probe_weights(pooled, loss, strength, head.out.out_features)
    with torch.no_grad():
        head.dense.weight.copy_(torch.eye(pooled.shape[1]) * gain)
        head.dense.bias.zero_()
        head.out.weight.copy_(weight)
        head.out.bias.copy_(bias)


def probe_weights(
    pooled: Tensor, loss: Callable[[Tensor], Tensor], strength: float, n_outputs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gain, weights and bias of the head that `fit_probe` fits. Shapes: [], float64 [o, d], [o]."""
    pooled = pooled.double()
    gain = TANH_INPUT_RMS / pooled.square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    rows = torch.tanh(pooled * gain)
    penalty = rows.square().sum(1).mean() / (2 * strength)
    weight = torch.zeros(n_outputs, pooled.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(n_outputs, dtype=torch.float64, requires_grad=True)
    minimise([weight, bias], lambda: (loss(rows @ weight.T + bias) + penalty * weight.square().sum()) / len(rows))
    return gain, weight.detach(), bias.detach()
