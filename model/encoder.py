"""The Transformer encoder, bottom-up: attention, block, stack. Names are BERT's where BERT has the part.

Shape legend: b rows, q queries, n tokens, h heads, d width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from model.settings import NetworkSettings


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

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """What every query gathers from the tokens.

        Shapes: queries [b, q, d]; tokens [b, n, d]; mask bool [b, 1, 1, n], True for real
        tokens; returns [b, q, d].
        """
        attended = F.scaled_dot_product_attention(
            self._heads(self.query(queries)),
            self._heads(self.key(tokens)),
            self._heads(self.value(tokens)),
            attn_mask=mask,
        )
        return self.output(attended.transpose(1, 2).flatten(2))

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.n_heads, self.d_head)).transpose(1, 2)


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
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, tokens: Tensor, mask: Tensor | None, n_queries: int | None = None) -> Tensor:
        """The first `n_queries` tokens (None: all) after reading all. Shapes: [b, n, d] -> [b, q, d]."""
        if self.norm_first:
            normed = self.attention_norm(tokens)
            read = self.dropout(self.attention(normed[:, :n_queries], normed, mask))
            tokens = tokens[:, :n_queries] + read
            return tokens + self.dropout(self._feedforward(self.output_norm(tokens)))
        read = self.dropout(self.attention(tokens[:, :n_queries], tokens, mask))
        tokens = self.attention_norm(tokens[:, :n_queries] + read)
        return self.output_norm(tokens + self.dropout(self._feedforward(tokens)))

    def _feedforward(self, tokens: Tensor) -> Tensor:
        return self.output(F.gelu(self.intermediate(tokens)))


class Encoder(nn.Module):
    """A stack of blocks."""

    def __init__(self, settings: NetworkSettings, norm_epsilon: float) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block(settings, norm_epsilon) for _ in range(settings.n_layers))
        last = nn.LayerNorm(settings.d_model, eps=norm_epsilon) if settings.norm_first else nn.Identity()
        self.final_norm = last

    def forward(self, tokens: Tensor, mask: Tensor | None, only_first: bool = False) -> Tensor:
        """Shapes: [b, n, d] -> [b, n, d], or [b, 1, d] when only the first token's outcome is wanted."""
        *body, last = self.layer
        for block in body:
            tokens = block(tokens, mask)
        return self.final_norm(last(tokens, mask, 1 if only_first else None))
