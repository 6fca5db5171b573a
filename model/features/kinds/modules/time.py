"""Tokens of times: waves through day, week and year and the trend's bins, then a linear map.

Of the stretch of the rows that join when all is chosen nothing is learnt before: its weights begin at 0, so that until
then all of it is read as the last of the fitted rows.

Shape legend: b rows, t time columns, d width.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from model.features.kinds.modules.columns import ColumnReconstruction, ColumnTokens

WAVES = ((1440.0, 12), (7.0, 3), (366.0, 2))
"""Period and number of harmonics of minute of day, day of week and day of year."""
UNITS = ((60.0, 24), (1.0, 7), (30.5, 13))
"""Bin width and number of bins of minute of day, day of week and day of year."""


N_TREND_BINS = 8
"""Equal stretches of the fitted rows' time; a trend is read as its share of each, as a number of its bins."""
LATER_PACE = 30.0
"""Times as fast as others the weights of the joining rows' stretch are moved: they begin late, and at 0."""
MINUTE, WEEKDAY, YEARDAY, TREND = range(4)
"""Numbers of the parts of an encoded time."""


class Reading(Protocol):
    """What of a column of times is read: see `model.features.kinds.time.TimeReading`."""

    @property
    def cycles(self) -> tuple[int, ...]:
        """Return the parts that are read as waves."""

    @property
    def has_trend(self) -> bool:
        """Return whether the trend is read."""

    @property
    def end(self) -> float:
        """Return the greatest trend."""


class TimeEncoding(nn.Module):
    """Numbers that encode times: waves through day, week and year, and the bins of the trend if a column has one.

    A wave of a cycle that the column's fitted rows do not span is always 0. The last number, if later rows join, is the
    share of their stretch of time that lies before a time.
    """

    frequencies: Tensor
    part: Tensor
    spanned: Tensor
    trends: Tensor
    later: Tensor

    def __init__(self, readings: Sequence[Reading]) -> None:
        super().__init__()
        waves = [
            (part, 2 * math.pi * harmonic / period)
            for part, (period, n_harmonics) in enumerate(WAVES)
            for harmonic in range(1, n_harmonics + 1)
        ]
        self.register_buffer("part", torch.tensor([part for part, _ in waves]), persistent=False)
        self.register_buffer("frequencies", torch.tensor([wave for _, wave in waves]), persistent=False)
        spanned = torch.tensor([[float(part in each.cycles) for part, _ in waves] for each in readings])
        self.register_buffer("spanned", spanned.repeat(1, 2), persistent=False)
        self.has_trend = any(each.has_trend for each in readings)
        trends = torch.tensor([[float(each.has_trend)] for each in readings])
        self.register_buffer("trends", trends, persistent=False)
        self.has_later = any(each.end > 1 for each in readings)
        later = torch.tensor([[1 / (each.end - 1) if each.end > 1 else 0.0] for each in readings])
        self.register_buffer("later", later, persistent=False)
        self.n_numbers = 2 * len(waves) + N_TREND_BINS * self.has_trend + self.has_later

    def forward(self, times: Tensor) -> Tensor:
        """Shapes: float32 [b, t, 3 or 4], no NaN -> [b, t, k]."""
        angles = times[..., self.part] * self.frequencies
        encoding = torch.cat([angles.sin(), angles.cos()], dim=-1) * self.spanned
        if not self.has_trend:
            return encoding
        bins = torch.arange(N_TREND_BINS, device=times.device)
        trend = times[..., TREND:]
        parts = [encoding, (trend * N_TREND_BINS - bins).clamp(0, 1) * self.trends]
        if self.has_later:
            parts.append(((trend - 1) * self.later).clamp(0, 1))
        return torch.cat(parts, dim=-1)


class TimeTokens(ColumnTokens):
    """One token per time: its encoding, then a linear map of the column's own."""

    def __init__(self, readings: Sequence[Reading], d_model: int) -> None:
        encode = TimeEncoding(readings)
        super().__init__(len(readings), encode.n_numbers - encode.has_later, d_model)
        self.encode = encode
        self.later = nn.Parameter(torch.empty(len(readings), d_model)) if encode.has_later else None

    def forward(self, times: Tensor) -> Tensor:
        """Shapes: float32 [b, t, 3 or 4], NaN for missing -> [b, t, d]."""
        missing = torch.isnan(times)
        encoding = self.encode(torch.where(missing, 0.0, times))
        if self.later is None:
            return self.tokens(missing[..., :1], encoding.transpose(0, 1))
        tokens = self.tokens(missing[..., :1], encoding[..., :-1].transpose(0, 1))
        return tokens + encoding[..., -1:] * (LATER_PACE * self.later)


class TimeReconstruction(ColumnReconstruction):
    """Guesses the hour, weekday and month of a time, where these are read; the last choice is that it is missing."""

    def __init__(self, cycles: tuple[tuple[int, ...], ...], d_model: int) -> None:
        super().__init__()
        self.parts = cycles
        self.n_choices = tuple(tuple(UNITS[part][1] + 1 for part in read) for read in cycles)
        self.heads = nn.ModuleList(nn.ModuleList(nn.Linear(d_model, n) for n in choices) for choices in self.n_choices)

    def guesses(self, tokens: Tensor, column: int, embeddings: nn.Module) -> list[Tensor]:
        """Return the logits of each part that is read."""
        heads = self.heads[column]
        assert isinstance(heads, nn.ModuleList)
        return [head(tokens) for head in heads]

    def truths(self, values: Tensor, column: int, embeddings: nn.Module) -> list[Tensor]:
        """Return the hour, weekday and month that are read."""
        return [
            torch.where(
                values[:, column, part].isnan(),
                UNITS[part][1],
                (values[:, column, part].nan_to_num() / UNITS[part][0]).long(),
            )
            for part in self.parts[column]
        ]
