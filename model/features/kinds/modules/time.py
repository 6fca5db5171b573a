"""Tokens of times: waves through day, week and year, then a linear map.

Shape legend: b rows, t time columns, d width.
"""

import math

import torch
from torch import Tensor, nn

from model.features.kinds.modules.columns import ColumnTokens, Reconstruction, normalised_cross_entropy

WAVES = ((1440.0, 12), (7.0, 3), (366.0, 2))
"""Period and number of harmonics of minute of day, day of week and day of year."""
UNITS = ((60.0, 24), (1.0, 7), (30.5, 13))
"""Bin width and number of bins of minute of day, day of week and day of year."""


class TimeTokens(ColumnTokens):
    """One token per time: waves through its day, week and year, then a linear map of the column's own.

    A wave of a cycle that the column's fitted rows do not span is always 0.
    """

    frequencies: Tensor
    part: Tensor
    spanned: Tensor

    def __init__(self, cycles: tuple[tuple[int, ...], ...], d_model: int) -> None:
        waves = [
            (part, 2 * math.pi * harmonic / period)
            for part, (period, n_harmonics) in enumerate(WAVES)
            for harmonic in range(1, n_harmonics + 1)
        ]
        super().__init__(len(cycles), 2 * len(waves), d_model)
        self.register_buffer("part", torch.tensor([part for part, _ in waves]), persistent=False)
        self.register_buffer("frequencies", torch.tensor([wave for _, wave in waves]), persistent=False)
        spanned = torch.tensor([[float(part in read) for part, _ in waves] for read in cycles])
        self.register_buffer("spanned", spanned.repeat(1, 2), persistent=False)

    def forward(self, times: Tensor) -> Tensor:
        """Shapes: float32 [b, t, 3], NaN for missing -> [b, t, d]."""
        missing = torch.isnan(times)
        angles = torch.where(missing, 0.0, times)[..., self.part] * self.frequencies
        encoding = torch.cat([angles.sin(), angles.cos()], dim=-1) * self.spanned
        return self.tokens(missing[..., :1], encoding.transpose(0, 1))


class TimeReconstruction(Reconstruction):
    """Guesses the hour, weekday and month of a time, where these are read."""

    def __init__(self, cycles: tuple[tuple[int, ...], ...], d_model: int) -> None:
        super().__init__()
        self.n_parts = [len(read) for read in cycles]
        self.parts = [(column, part) for column, read in enumerate(cycles) for part in read]
        self.heads = nn.ModuleList(nn.Linear(d_model, UNITS[part][1]) for _, part in self.parts)

    def losses(self, tokens: Tensor, values: Tensor, hidden: Tensor, embeddings: nn.Module) -> list[Tensor]:
        """Return one loss for each part that is read; a time has up to three and counts once."""
        losses = []
        for (column, part), head in zip(self.parts, self.heads, strict=True):
            rows = hidden[:, column]
            truth = (values[rows, column, part] / UNITS[part][0]).long()
            losses.append(normalised_cross_entropy(head(tokens[rows, column]), truth) / self.n_parts[column])
        return losses
