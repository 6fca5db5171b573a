"""A row's raw inputs to token vectors: [CLS], one token per column, then its subwords.

Shape legend: b rows, c/m/t category, number and time columns, k bins, s subwords, d width.
"""

import math

import torch
from torch import Tensor, nn

from model.features.encoded import Sizes
from model.network.dropout import Dropout

CYCLES = ((1440.0, 12), (7.0, 3), (366.0, 2))
"""Period and number of harmonics of minute of day, day of week and day of year."""
N_TOKEN_TYPES = 2


class PiecewiseLinear(nn.Module):
    """Numbers to their share of every bin: 1 left of the value, 0 right of it, between in its own bin.

    NOTE[DIFF]: the paper lets the outermost bins run on linearly. Here a value beyond the fitted range
    reads as its nearest end, as in a tree, so that a freak value cannot drive a score anywhere.
    Source: Gorishniy et al. (2022), section 3.2, equation 1.
    """

    left: Tensor
    width: Tensor

    def __init__(self, edges: tuple[tuple[float, ...], ...]) -> None:
        super().__init__()
        n_bins = max(len(column) for column in edges) - 1
        left = torch.full((len(edges), n_bins), math.inf)
        width = torch.ones(len(edges), n_bins)
        for column, its in enumerate(edges):
            cuts = torch.tensor(its)
            left[column, : len(its) - 1] = cuts[:-1]
            width[column, : len(its) - 1] = cuts.diff()
        self.register_buffer("left", left)
        self.register_buffer("width", width)

    @property
    def n_bins(self) -> int:
        """Bins of the column that has most; the others leave the rest at 0."""
        return self.left.shape[1]

    def forward(self, numbers: Tensor) -> Tensor:
        """Shapes: numbers float32 [b, m], no NaN -> [m, b, k] in [0, 1]."""
        return ((numbers.T[..., None] - self.left[:, None]) / self.width[:, None]).clamp(0, 1)

    def bins(self, numbers: Tensor) -> Tensor:
        """Number of the bin a value lies in. Shapes: [b, m] -> int64 [b, m]."""
        return (numbers[..., None] >= self.left[:, 1:]).sum(-1)


class NumberTokens(nn.Module):
    """One token per number: its piecewise-linear encoding through a linear map of the column's own."""

    def __init__(self, edges: tuple[tuple[float, ...], ...], d_model: int) -> None:
        super().__init__()
        self.encode = PiecewiseLinear(edges)
        self.weight = nn.Parameter(torch.empty(len(edges), self.encode.n_bins, d_model))
        self.bias = nn.Parameter(torch.empty(len(edges), d_model))
        self.missing = nn.Parameter(torch.empty(len(edges), d_model))

    def forward(self, numbers: Tensor) -> Tensor:
        """Shapes: float32 [b, m], NaN for missing -> [b, m, d]."""
        missing = torch.isnan(numbers)
        encoding = self.encode(torch.where(missing, 0.0, numbers))
        return torch.where(missing[..., None], self.missing, _per_column(encoding, self.weight, self.bias))


class TimeTokens(nn.Module):
    """One token per time: waves through its day, week and year, then a linear map of the column's own.

    A wave of a cycle that the column's fitted rows do not span is always 0.
    """

    frequencies: Tensor
    part: Tensor
    spanned: Tensor

    def __init__(self, cycles: tuple[tuple[int, ...], ...], d_model: int) -> None:
        super().__init__()
        waves = [
            (part, 2 * math.pi * harmonic / period)
            for part, (period, n_harmonics) in enumerate(CYCLES)
            for harmonic in range(1, n_harmonics + 1)
        ]
        self.register_buffer("part", torch.tensor([part for part, _ in waves]), persistent=False)
        self.register_buffer("frequencies", torch.tensor([wave for _, wave in waves]), persistent=False)
        spanned = torch.tensor([[float(part in its) for part, _ in waves] for its in cycles])
        self.register_buffer("spanned", spanned.repeat(1, 2), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(cycles), 2 * len(waves), d_model))
        self.bias = nn.Parameter(torch.empty(len(cycles), d_model))
        self.missing = nn.Parameter(torch.empty(len(cycles), d_model))

    def forward(self, times: Tensor) -> Tensor:
        """Shapes: float32 [b, t, 3], NaN for missing -> [b, t, d]."""
        missing = torch.isnan(times)
        angles = torch.where(missing, 0.0, times)[..., self.part] * self.frequencies
        encoding = torch.cat([angles.sin(), angles.cos()], dim=-1) * self.spanned
        return torch.where(
            missing[..., :1], self.missing, _per_column(encoding.transpose(0, 1), self.weight, self.bias)
        )


class RowEmbedding(nn.Module):
    """All tokens of a row. The names of the text part are BERT's."""

    category_starts: Tensor

    def __init__(self, sizes: Sizes, d_model: int, dropout: float, norm_epsilon: float) -> None:
        super().__init__()
        self.sizes = sizes
        self.word_embeddings = nn.Embedding(sizes.n_subwords, d_model)
        self.position_embeddings = nn.Embedding(sizes.max_tokens + 1 if sizes.n_texts else 1, d_model)
        self.token_type_embeddings = nn.Embedding(N_TOKEN_TYPES, d_model)
        starts = torch.tensor([0, *sizes.n_categories]).cumsum(0)
        self.register_buffer("category_starts", starts[:-1], persistent=False)
        self.category_embeddings = nn.Embedding(int(starts[-1]), d_model)
        self.numbers = NumberTokens(sizes.edges, d_model) if sizes.edges else None
        self.times = TimeTokens(sizes.cycles, d_model) if sizes.n_times else None
        self.column_masks = nn.Parameter(torch.empty(sizes.n_columns, d_model))
        self.LayerNorm = nn.LayerNorm(d_model, eps=norm_epsilon)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        categories: Tensor | None = None,
        numbers: Tensor | None = None,
        times: Tensor | None = None,
        text: Tensor | None = None,
        hidden_columns: Tensor | None = None,
    ) -> Tensor:
        """Tokens in the order [CLS], categories, numbers, times, subwords.

        Shapes: categories int64 [b, c]; numbers [b, m]; times [b, t, 3]; text int64 [b, s];
        hidden_columns bool [b, c + m + t], True where masked modelling hides a column;
        returns [b, 1 + c + m + t + s, d].
        """
        columns = []
        if categories is not None:
            columns.append(self.category_embeddings(categories + self.category_starts))
        if numbers is not None and self.numbers is not None:
            columns.append(self.numbers(numbers))
        if times is not None and self.times is not None:
            columns.append(self.times(times))
        if hidden_columns is not None and columns:
            columns = [torch.where(hidden_columns[..., None], self.column_masks, torch.cat(columns, dim=1))]
        subwords = [] if text is None else [self._subwords(text)]
        given = (columns + subwords)[0]
        cls = self._cls().expand(given.shape[0], 1, -1)
        return self.dropout(self.LayerNorm(torch.cat([cls, *columns, *subwords], dim=1)))

    def _cls(self) -> Tensor:
        cls = self.word_embeddings.weight[self.sizes.cls_id]
        return cls + self.position_embeddings.weight[0] + self.token_type_embeddings.weight[0]

    def _subwords(self, text: Tensor) -> Tensor:
        """Subwords with their position after [CLS] and their text column as token type.

        Shapes: [b, s] -> [b, s, d].
        """
        positions = torch.arange(1, text.shape[1] + 1, device=text.device)
        tokens = self.word_embeddings(text) + self.position_embeddings(positions)
        if self.sizes.n_texts == 1:
            return tokens + self.token_type_embeddings.weight[0]
        closed = (text == self.sizes.sep_id).long()
        column = (closed.cumsum(1) - closed).clamp(max=N_TOKEN_TYPES - 1)
        return tokens + self.token_type_embeddings(column)


def _per_column(encoding: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear map of its own for every column. Shapes: [m, b, k], [m, k, d], [m, d] -> [b, m, d]."""
    return torch.bmm(encoding, weight).transpose(0, 1) + bias
