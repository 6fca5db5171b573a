"""The blocks of Llama, bottom-up: norm, rotary positions, adapted maps, attention, block, stack.

Weights that come from elsewhere are no parameters: a training moves low-rank adapters beside them alone, and neither a
checkpoint nor `state_dict` holds what never changes.

Source: Touvron et al. 2023, "LLaMA", section 2.2; Zhang and Sennrich 2019 (RMSNorm); Su et al. 2021, "RoFormer" (rotary
positions); Shazeer 2020, "GLU Variants" (SwiGLU); Ainslie et al. 2023, "GQA" (queries that share keys and values);
Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.

Shape legend: b rows, n new tokens, p tokens that are kept from before, d width, k heads of keys and values, g heads of
queries for each of these, e width of a head, r rank.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.encoder import HIDDEN
from model.settings import LanguageSettings


class Frozen(nn.Module):
    """A module whose given weight never changes; `state_dict` does not hold it."""

    weight: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(shape), persistent=False)


class RmsNorm(Frozen):
    """Tokens over the root of their mean square, and weighted; computed in single precision."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__(width)
        self.epsilon = epsilon

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: [..., d] -> float32 [..., d]."""
        tokens = tokens.float()
        return tokens * torch.rsqrt(tokens.square().mean(-1, keepdim=True) + self.epsilon) * self.weight.float()


class AdaptedLinear(Frozen):
    """A given map without bias; with a rank, plus a product of two narrow matrices that are learnt."""

    def __init__(self, n_in: int, n_out: int, rank: int, strength: float) -> None:
        super().__init__(n_out, n_in)
        self.strength = strength
        self._rounded: Tensor | None = None
        self.down = nn.Parameter(torch.zeros(rank, n_in)) if rank else None
        self.up = nn.Parameter(torch.zeros(n_out, rank)) if rank else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: [..., in] -> [..., out]."""
        mapped = F.linear(tokens, self._cast(tokens))
        if self.down is None or self.up is None:
            return mapped
        return mapped + self.strength * F.linear(F.linear(tokens, self.down), self.up)

    def _cast(self, tokens: Tensor) -> Tensor:
        """Return the given weight; in mixed precision rounded, once for all steps."""
        kind = tokens.device.type
        if not torch.is_autocast_enabled(kind):
            return self.weight.to(tokens.dtype)
        if self._rounded is None or self._rounded.device != self.weight.device:
            # Rows may first be read to validate: a tensor of that mode could be read by no step.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._rounded = self.weight.to(torch.get_autocast_dtype(kind))
        return self._rounded

    @torch.no_grad()
    def merge(self) -> None:
        """Add what was learnt to what was given, and hold it apart no more."""
        if self.down is not None and self.up is not None:
            self.weight = self.weight.float() + self.strength * self.up @ self.down
            self.down = self.up = None


class Attention(nn.Module):
    """Causal attention with rotary positions, where several heads of queries share keys and values."""

    def __init__(self, settings: LanguageSettings, rank: int) -> None:
        super().__init__()
        d, e = settings.d_model, settings.d_head
        self.n_heads, self.n_kv_heads, self.d_head = settings.n_heads, settings.n_kv_heads, e
        strength = settings.adapter_strength
        self.query = AdaptedLinear(d, settings.n_heads * e, rank, strength)
        self.key = AdaptedLinear(d, settings.n_kv_heads * e, rank, strength)
        self.value = AdaptedLinear(d, settings.n_kv_heads * e, rank, strength)
        self.output = AdaptedLinear(settings.n_heads * e, d, rank, strength)

    def forward(self, tokens: Tensor, turns: tuple[Tensor, Tensor], hidden: Tensor, past: Tensor | None) -> tuple:
        """Return what new tokens gather from those before and from one another, and keys and values of all.

        Shapes: tokens [b, n, d]; turns, `rotations` of the new tokens; hidden [b, 1, n, p + n], 0 or HIDDEN; past
        [2, b, k, p, e] (None: p is 0); returns [b, n, d] and [2, b, k, p + n, e].
        """
        query, key, value = (
            each(tokens).unflatten(-1, (-1, self.d_head)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        present = torch.stack([rotated(key, turns), value.to(turns[0].dtype)])
        if past is not None:
            present = torch.cat([past, present], dim=3)
        keys, values = present.to(query.dtype).unbind(0)
        n_new, share = tokens.shape[1], self.n_heads // self.n_kv_heads
        # All heads of queries that share keys ask them in one product.
        query = rotated(query, turns).to(keys.dtype) * self.d_head**-0.5
        asked = query.unflatten(1, (self.n_kv_heads, share)).flatten(2, 3)
        weights = (asked @ keys.transpose(-1, -2)).unflatten(2, (share, n_new)) + hidden[:, None]
        weights = weights.float().softmax(-1).to(values.dtype).flatten(2, 3)
        read = (weights @ values).unflatten(2, (share, n_new)).permute(0, 3, 1, 2, 4).flatten(2)
        return self.output(read), present


class Block(nn.Module):
    """Attention, then a gated feed-forward network, each added to what it read."""

    def __init__(self, settings: LanguageSettings, rank: int) -> None:
        super().__init__()
        d, wide, strength = settings.d_model, settings.d_feedforward, settings.adapter_strength
        self.attention_norm = RmsNorm(d, settings.norm_epsilon)
        self.attention = Attention(settings, rank)
        self.feedforward_norm = RmsNorm(d, settings.norm_epsilon)
        self.gate = AdaptedLinear(d, wide, rank, strength)
        self.inner = AdaptedLinear(d, wide, rank, strength)
        self.outer = AdaptedLinear(wide, d, rank, strength)

    def forward(self, tokens: Tensor, turns: tuple[Tensor, Tensor], hidden: Tensor, past: Tensor | None) -> tuple:
        """Shapes: as of `Attention`."""
        read, present = self.attention(self.attention_norm(tokens), turns, hidden, past)
        tokens = tokens + read
        seen = self.feedforward_norm(tokens)
        return tokens + self.outer(F.silu(self.gate(seen)) * self.inner(seen)), present


class Blocks(nn.Module):
    """A stack of blocks; the last ones have adapters."""

    def __init__(self, settings: LanguageSettings) -> None:
        super().__init__()
        self.settings = settings
        ranks = [settings.adapter_rank if settings.is_adapted(number) else 0 for number in range(settings.n_layers)]
        self.layer = nn.ModuleList(Block(settings, rank) for rank in ranks)
        self.final_norm = RmsNorm(settings.d_model, settings.norm_epsilon)

    def forward(self, tokens: Tensor, places: Tensor, mask: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return new tokens after all blocks, and the keys and values of all tokens in each.

        Shapes: tokens [b, n, d]; places int64 [b, n], of each token among its row's; mask bool [b, 1, n, p + n], True
        for what is read; past [blocks, 2, b, k, p, e] (None: p is 0); returns [b, n, d] and past with p + n tokens.
        """
        turns = rotations(places, self.settings.d_head, self.settings.rotary_base)
        hidden, present = torch.where(mask, 0.0, HIDDEN), []
        for number, block in enumerate(self.layer):
            tokens, kept = block(tokens, turns, hidden, None if past is None else past[number])
            present.append(kept)
        return self.final_norm(tokens), torch.stack(present)

    @torch.no_grad()
    def initialise_adapters(self, seed: int) -> None:
        """Draw the first of the narrow matrices; the second is 0, so that nothing changes before the first step."""
        random = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, AdaptedLinear) and module.down is not None:
                bound = math.sqrt(3 / module.down.shape[1])
                module.down.uniform_(-bound, bound, generator=random)


def rotations(places: Tensor, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of what each pair of numbers is turned by. Shapes: int64 [b, n] -> [b, 1, n, e / 2]."""
    rates = base ** (-torch.arange(0, width, 2, dtype=torch.float32, device=places.device) / width)
    angles = places[:, None, :, None].float() * rates
    return angles.cos(), angles.sin()


def rotated(heads: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turn number i of a head with number e / 2 + i, in single precision. Shapes: [b, k, n, e] -> the same."""
    one, other = heads.float().chunk(2, dim=-1)
    cosine, sine = turns
    return torch.cat([one * cosine - other * sine, other * cosine + one * sine], dim=-1)
