"""A linear model of the context columns beside the encoder: numbers that many rows share, such as a day's weather.

A quarter of flights has 90 days of weather and 80,000 rows. A network, or a tree, that reads such a column with the
rest takes it for the name of the day and learns by heart what happened on it; so the encoder does not see it. After
the encoder was trained, what it leaves unexplained is averaged over the rows of one context, an observation each,
and a straight line through them is fitted: ridge regression, where the few rows of a context, and what else differs
between contexts, count as noise.
Source: DerSimonian and Laird, "Meta-analysis in clinical trials" (1986), for the variance between contexts.

Shape legend: b rows, n rows of a table, g contexts, k context columns, o outputs.
"""

import torch
from torch import Tensor, nn


class Context(nn.Module):
    """What the context adds to the logits. Its weights are buffers: no gradient, decay or average moves them."""

    weight: Tensor

    def __init__(self, n_columns: int, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_columns, n_outputs))

    def forward(self, context: Tensor) -> Tensor:
        """Shapes: float32 [b, k], standardised, 0 for missing -> [b, o]."""
        return context @ self.weight
