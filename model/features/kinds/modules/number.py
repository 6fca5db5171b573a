"""Tokens of numbers: a piecewise-linear encoding over fitted bins, then a linear map.

Shape legend: b rows, m number columns, k bins, d width.
"""

import math

import torch
from torch import Tensor, nn

from model.features.kinds.modules.columns import ColumnReconstruction, ColumnTokens


class PiecewiseLinear(nn.Module):
    """Numbers to their share of every bin: 1 left of the value, 0 right of it, between in its own bin.

    NOTE[DIFF]: the paper lets the outermost bins run on linearly. Here a value beyond the fitted range
    reads as its nearest end, as in a tree, so that a freak value cannot drive a score anywhere.
    Source: Gorishniy et al. (2022), section 3.2, equation 1.

    >>> PiecewiseLinear(((0.0, 1.0, 3.0),))(torch.tensor([[2.0]]))
    tensor([[[1.0000, 0.5000]]])
    """

    left: Tensor
    width: Tensor

    def __init__(self, edges: tuple[tuple[float, ...], ...]) -> None:
        super().__init__()
        n_bins = max(len(column) for column in edges) - 1
        left = torch.full((len(edges), n_bins), math.inf)
        width = torch.ones(len(edges), n_bins)
        for column, fitted in enumerate(edges):
            cuts = torch.tensor(fitted)
            left[column, : len(fitted) - 1] = cuts[:-1]
            width[column, : len(fitted) - 1] = cuts.diff()
        self.register_buffer("left", left)
        self.register_buffer("width", width)

    @property
    def n_bins(self) -> int:
        """Return the bins of the column that has most; the others leave the rest at 0."""
        return self.left.shape[1]

    def forward(self, numbers: Tensor) -> Tensor:
        """Shapes: numbers float32 [b, m], no NaN -> [m, b, k] in [0, 1]."""
        return ((numbers.T[..., None] - self.left[:, None]) / self.width[:, None]).clamp(0, 1)

    def bins(self, numbers: Tensor) -> Tensor:
        """Return the number of the bin that each value lies in. Shapes: [b, m] -> int64 [b, m]."""
        return (numbers[..., None] >= self.left[:, 1:]).sum(-1)


class NumberTokens(ColumnTokens):
    """One token per number: its piecewise-linear encoding through a linear map of the column's own."""

    def __init__(self, edges: tuple[tuple[float, ...], ...], d_model: int) -> None:
        encode = PiecewiseLinear(edges)
        super().__init__(len(edges), encode.n_bins, d_model)
        self.encode = encode

    def forward(self, numbers: Tensor) -> Tensor:
        """Shapes: float32 [b, m], NaN for missing -> [b, m, d]."""
        missing = torch.isnan(numbers)
        encoding = self.encode(torch.where(missing, 0.0, numbers))
        return self.tokens(missing[..., None], encoding)


class NumberReconstruction(ColumnReconstruction):
    """Guesses the bin of a number; the last choice is that it is missing."""

    def __init__(self, edges: tuple[tuple[float, ...], ...], d_model: int) -> None:
        super().__init__()
        self.n_choices = tuple((len(fitted),) for fitted in edges)
        self.heads = nn.ModuleList(nn.Linear(d_model, n) for (n,) in self.n_choices)

    def guesses(self, tokens: Tensor, column: int, embeddings: nn.Module) -> list[Tensor]:
        """Return the logits of the bins."""
        return [self.heads[column](tokens)]

    def truths(self, values: Tensor, column: int, embeddings: nn.Module) -> list[Tensor]:
        """Return the bin of each number."""
        assert isinstance(embeddings.numbers, NumberTokens)
        bins = embeddings.numbers.encode.bins(values)[:, column]
        return [torch.where(values[:, column].isnan(), self.n_choices[column][0] - 1, bins)]
