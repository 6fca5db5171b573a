"""The minimum of a smooth function of few weights, for what is fitted to its optimum rather than by epochs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MAX_STEPS = 200


def minimise(weights: Sequence[Tensor], objective: Callable[[], Tensor]) -> None:
    """Move the float64 `weights`, leaves that require gradients, to the minimum of `objective`, a mean over rows.

    Source: Nocedal and Wright, "Numerical Optimization" (2006), algorithms 7.4 (L-BFGS) and 3.5 (strong Wolfe).
    """
    optimiser = torch.optim.LBFGS(weights, max_iter=MAX_STEPS, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimiser.zero_grad()
        value = objective()
        value.backward()
        return value

    optimiser.step(step)
