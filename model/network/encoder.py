"""The Transformer encoder, bottom-up: attention, block, stack. Names are BERT's where BERT has the part.

On a GPU rows of different lengths are trained packed, end to end without padding (see `Packed`).

Shape legend: b rows, q queries, n tokens, h heads, d width, t tokens of all rows together.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.dropout import Dropout
from model.settings import NetworkSettings

PLAIN_ATTENTION_TOKENS = 64
"""Rows at least this long are trained on a CPU with plain matrix products."""
HIDDEN = -1e4
"""Added to the attention weights of what is not read: their exponential is 0, and it is finite in every precision."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Where the rows lie whose tokens are given end to end."""

    offsets: Tensor
    """int32 [b + 1]: where each begins."""
    longest: int
    """Tokens of the longest, or more."""

    @property
    def firsts(self) -> "Packed":
        """The same rows where each is its first token alone."""
        offsets = torch.arange(len(self.offsets), dtype=torch.int32, device=self.offsets.device)
        return Packed(offsets=offsets, longest=1)


class Attention(nn.Module):
    """Multi-head attention with biases.

    NOTE[DIFF]: nothing is dropped from the attention weights: that would cost a CPU its fused kernel, and
    held-out AUC was the same with and without.
    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        d = settings.d_model
        self.n_heads, self.d_head = settings.n_heads, settings.d_head
        self.query, self.key, self.value = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        self.output = nn.Linear(d, d)

    def forward(self, tokens: Tensor, mask: Tensor | None, n_queries: int | None = None) -> Tensor:
        """Return what the first `n_queries` tokens (None: all) gather from all.

        Shapes: tokens [b, n, d]; mask bool [b, 1, 1, n], True for real tokens; returns [b, q, d].
        """
        q, k, v = self._projected(tokens, n_queries)
        attend = _plain_attention if self._plainly(tokens) else F.scaled_dot_product_attention
        return self.output(attend(q, k, v, mask).transpose(1, 2).flatten(2))

    def packed(self, tokens: Tensor, rows: Packed, only_first: bool) -> Tensor:
        """Return what all tokens, or the first of each row, gather from it. Shapes: [t, d] -> [t, d] or [b, d]."""
        queries = rows.firsts if only_first else rows
        asked = tokens[rows.offsets[:-1]] if only_first else tokens
        q, k, v = (
            each(given).unflatten(-1, (self.n_heads, self.d_head))
            for each, given in ((self.query, asked), (self.key, tokens), (self.value, tokens))
        )
        return self.output(_packed_attention(q, k, v, queries, rows).flatten(1))

    def continued(self, tokens: Tensor, mask: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return what new tokens gather from those before them and from one another, and keys and values of all.

        Shapes: tokens [b, q, d]; mask bool [b, 1, q, p + q], True for what is read; past [2, b, h, p, d / h]; returns
        [b, q, d] and [2, b, h, p + q, d / h].
        """
        q, k, v = self._projected(tokens, None)
        present = torch.cat([past, torch.stack([k, v])], dim=3)
        weights = (q * self.d_head**-0.5) @ present[0].transpose(-1, -2) + torch.where(mask, 0.0, HIDDEN)
        return self.output((weights.softmax(-1) @ present[1]).transpose(1, 2).flatten(2)), present

    def _projected(self, tokens: Tensor, n_queries: int | None) -> list[Tensor]:
        """Return queries, keys and values of every head. Shapes: [b, n, d] -> three of [b, h, q or n, d / h]."""
        if self.training and n_queries is None:  # one product of three times the width is faster than three
            maps = (self.query, self.key, self.value)
            weight, bias = torch.cat([each.weight for each in maps]), torch.cat([each.bias for each in maps])
            parts = list(F.linear(tokens, weight, bias).chunk(3, dim=-1))
        else:
            parts = [self.query(tokens[:, :n_queries]), self.key(tokens), self.value(tokens)]
        return [part.unflatten(-1, (self.n_heads, self.d_head)).transpose(1, 2) for part in parts]

    def _plainly(self, tokens: Tensor) -> bool:
        """Whether a CPU's fused kernel would be slower, as its backward pass is for long rows."""
        return self.training and tokens.device.type == "cpu" and tokens.shape[1] >= PLAIN_ATTENTION_TOKENS


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Compute `scaled_dot_product_attention` product by product. Shapes: as of that function."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None and not mask.all():
        # In place, and without a gradient of its own: filling what is masked took twice a pass over all scores.
        scores += torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -torch.inf)
    return scores.softmax(-1) @ v


def _packed_attention(q: Tensor, k: Tensor, v: Tensor, queries: Packed, rows: Packed) -> Tensor:
    """Attention within each row. Shapes: q [t or b, h, d / h]; k, v [t, h, d / h] -> as q."""
    return (_by_kernel if q.is_cuda else _row_by_row)(q, k, v, queries, rows)


def _by_kernel(q: Tensor, k: Tensor, v: Tensor, queries: Packed, rows: Packed) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    read = varlen_attn(q, k, v, queries.offsets, rows.offsets, queries.longest, rows.longest)
    assert isinstance(read, Tensor)
    return read


def _row_by_row(q: Tensor, k: Tensor, v: Tensor, queries: Packed, rows: Packed) -> Tensor:
    parts = []
    for asking, asked in zip(_slices(queries), _slices(rows), strict=True):
        row_q, row_k, row_v = (part.transpose(0, 1)[None] for part in (q[asking], k[asked], v[asked]))
        parts.append(F.scaled_dot_product_attention(row_q, row_k, row_v)[0].transpose(0, 1))
    return torch.cat(parts)


def _slices(rows: Packed) -> list[slice]:
    at = rows.offsets.tolist()
    return [slice(start, end) for start, end in itertools.pairwise(at)]


class Block(nn.Module):
    """Attention, then a feed-forward network, each added to what it read; normalised before or after."""

    def __init__(self, settings: NetworkSettings, norm_epsilon: float) -> None:
        super().__init__()
        d = settings.d_model
        self.norm_first = settings.norm_first
        self.attention = Attention(settings)
        self.attention_norm = nn.LayerNorm(d, eps=norm_epsilon)
        self.intermediate = nn.Linear(d, settings.d_feedforward)
        self.output = nn.Linear(settings.d_feedforward, d)
        self.output_norm = nn.LayerNorm(d, eps=norm_epsilon)
        self.dropout = Dropout(settings.dropout)

    def forward(self, tokens: Tensor, rows: Tensor | Packed | None, only_first: bool = False) -> Tensor:
        """All tokens, or the first of each row, after reading their rows.

        Shapes: tokens [b, n, d] with rows bool [b, 1, 1, n] (None: all tokens are real) -> [b, n, d] or [b, 1, d];
        or packed, [t, d] -> [t, d] or [b, d].
        """
        asked = self._first(tokens, rows) if only_first else tokens
        if self.norm_first:
            asked = asked + self.dropout(self._read(self.attention_norm(tokens), rows, only_first))
            return asked + self.dropout(self._feedforward(self.output_norm(asked)))
        asked = self.attention_norm(asked + self.dropout(self._read(tokens, rows, only_first)))
        return self.output_norm(asked + self.dropout(self._feedforward(asked)))

    def continued(self, tokens: Tensor, mask: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return new tokens after reading those before them, and the keys and values of all; as of `Attention`."""
        read, present = self.attention.continued(self.attention_norm(tokens) if self.norm_first else tokens, mask, past)
        tokens = tokens + self.dropout(read)
        if self.norm_first:
            return tokens + self.dropout(self._feedforward(self.output_norm(tokens))), present
        tokens = self.attention_norm(tokens)
        return self.output_norm(tokens + self.dropout(self._feedforward(tokens))), present

    def _read(self, tokens: Tensor, rows: Tensor | Packed | None, only_first: bool) -> Tensor:
        if isinstance(rows, Packed):
            return self.attention.packed(tokens, rows, only_first)
        return self.attention(tokens, rows, 1 if only_first else None)

    def _first(self, tokens: Tensor, rows: Tensor | Packed | None) -> Tensor:
        return tokens[rows.offsets[:-1]] if isinstance(rows, Packed) else tokens[:, :1]

    def _feedforward(self, tokens: Tensor) -> Tensor:
        return self.output(F.gelu(self.intermediate(tokens)))


class Encoder(nn.Module):
    """A stack of blocks."""

    def __init__(self, settings: NetworkSettings, norm_epsilon: float) -> None:
        super().__init__()
        self.d_head = settings.d_head
        self.layer = nn.ModuleList(Block(settings, norm_epsilon) for _ in range(settings.n_layers))
        last = nn.LayerNorm(settings.d_model, eps=norm_epsilon) if settings.norm_first else nn.Identity()
        self.final_norm = last

    def forward(self, tokens: Tensor, mask: Tensor | None, only_first: bool = False) -> Tensor:
        """Shapes: [b, n, d] -> [b, n, d], or [b, 1, d] when only the first token's outcome is wanted."""
        if mask is not None and self._packs(tokens):
            return self.packed(tokens, mask[:, 0, 0], only_first)
        return self._blocks(tokens, mask, only_first)

    def continued(self, tokens: Tensor, mask: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return new tokens after all blocks, and the keys and values of all tokens in each.

        Shapes: tokens [b, q, d]; mask bool [b, 1, q, p + q]; past [blocks, 2, b, h, p, d / h]; returns [b, q, d] and
        [blocks, 2, b, h, p + q, d / h].
        """
        present = []
        for block, before in zip(self.layer, past.unbind(0), strict=True):
            assert isinstance(block, Block)
            tokens, kept = block.continued(tokens, mask, before)
            present.append(kept)
        return self.final_norm(tokens), torch.stack(present)

    def _packs(self, tokens: Tensor) -> bool:
        """Whether the GPU's kernel for packed rows fits: it takes half precision and heads of a multiple of 8."""
        return self.training and tokens.is_cuda and torch.is_autocast_enabled("cuda") and self.d_head % 8 == 0

    def packed(self, tokens: Tensor, real: Tensor, only_first: bool = False) -> Tensor:
        """Encode the real tokens alone; padding comes out as zeros.

        Shapes: [b, n, d], real bool [b, n] -> as `forward`.
        """
        offsets = F.pad(real.sum(1).cumsum(0), (1, 0)).int()
        at = real.flatten().nonzero()[:, 0]
        rows = Packed(offsets=offsets, longest=real.shape[1])
        read = self._blocks(tokens.flatten(0, 1).index_select(0, at), rows, only_first)
        if only_first:
            return read[:, None]
        return read.new_zeros(real.numel(), read.shape[1]).index_copy(0, at, read).view(*real.shape, -1)

    def _blocks(self, tokens: Tensor, rows: Tensor | Packed | None, only_first: bool) -> Tensor:
        *body, last = self.layer
        for block in body:
            tokens = block(tokens, rows)
        return self.final_norm(last(tokens, rows, only_first))
