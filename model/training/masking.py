"""Masked modelling: hide some columns and subwords of a row, and let the network say what they were.

A category answers with its slot, a number with its bin, a time with its hour, weekday and month where those
are read, a subword with its id. The heads live only here; the encoder and embeddings are what is kept.
Source: Devlin et al., "BERT" (2019), section 3.1, for subwords.

Shape legend: b rows, n tokens, s subwords, d width.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.network import Network, initialise

TIME_UNITS = ((60.0, 24), (1.0, 7), (30.5, 13))
"""Bin width and number of bins of minute of day, day of week and day of year."""


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """What a batch hides, and the subwords the network sees instead."""

    columns: Tensor
    """bool [b, columns]."""
    subwords: Tensor | None
    """bool [b, s]."""
    text: Tensor | None
    """int64 [b, s]: hidden subwords replaced."""

    @property
    def count(self) -> Tensor:
        """Hidden columns and subwords, at least 1. Shapes: int64 []."""
        return (self.columns.sum() + (0 if self.subwords is None else self.subwords.sum())).clamp(min=1)

    def of(self, rows: slice) -> "Hidden":
        """What is hidden of some of the rows."""
        subwords, text = (None if part is None else part[rows] for part in (self.subwords, self.text))
        return Hidden(columns=self.columns[rows], subwords=subwords, text=text)


class MaskedModel(nn.Module):
    """A network with the heads that guess what is hidden."""

    def __init__(self, network: Network, seed: int) -> None:
        super().__init__()
        sizes, d = network.sizes, network.settings.d_model
        self.number_heads = nn.ModuleList(nn.Linear(d, len(edges) - 1) for edges in sizes.edges)
        self.time_parts = [(column, part) for column, its in enumerate(sizes.cycles) for part in its]
        self.time_heads = nn.ModuleList(nn.Linear(d, TIME_UNITS[part][1]) for _, part in self.time_parts)
        subwords = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.LayerNorm(d))
        self.subword_head = subwords if sizes.n_texts else None
        initialise(self, seed)
        self.network = network

    def forward(self, batch: dict[str, Tensor], hidden: Hidden) -> Tensor:
        """Mean cross-entropy of the hidden parts, each in units of a blind guess among its choices."""
        seen = batch if hidden.text is None else {**batch, "text": hidden.text}
        tokens, _ = self.network.encode(seen, hidden_columns=hidden.columns)
        losses = [
            *self._categories(tokens, batch, hidden),
            *self._numbers(tokens, batch, hidden),
            *self._times(tokens, batch, hidden),
            *self._subwords(tokens, batch, hidden),
        ]
        return torch.stack(losses).sum() / hidden.count

    def _categories(self, tokens: Tensor, batch: dict[str, Tensor], hidden: Hidden) -> list[Tensor]:
        embeddings = self.network.embeddings
        tables = embeddings.category_embeddings.weight.split(list(self.network.sizes.n_categories))
        losses = []
        for column, table in enumerate(tables):
            rows = hidden.columns[:, column]
            losses.append(
                normalised_cross_entropy(tokens[rows, 1 + column] @ table.T, batch["categories"][rows, column])
            )
        return losses

    def _numbers(self, tokens: Tensor, batch: dict[str, Tensor], hidden: Hidden) -> list[Tensor]:
        numbers = self.network.embeddings.numbers
        if numbers is None:
            return []
        bins, first = numbers.encode.bins(batch["numbers"]), len(self.network.sizes.n_categories)
        losses = []
        for column, head in enumerate(self.number_heads):
            rows = hidden.columns[:, first + column]
            losses.append(normalised_cross_entropy(head(tokens[rows, 1 + first + column]), bins[rows, column]))
        return losses

    def _times(self, tokens: Tensor, batch: dict[str, Tensor], hidden: Hidden) -> list[Tensor]:
        sizes, losses = self.network.sizes, []
        first = len(sizes.n_categories) + len(sizes.edges)
        for (column, part), head in zip(self.time_parts, self.time_heads, strict=True):
            rows = hidden.columns[:, first + column]
            truth = (batch["times"][rows, column, part] / TIME_UNITS[part][0]).long()
            # A time has up to three answers and counts once.
            losses.append(
                normalised_cross_entropy(head(tokens[rows, 1 + first + column]), truth) / len(sizes.cycles[column])
            )
        return losses

    def _subwords(self, tokens: Tensor, batch: dict[str, Tensor], hidden: Hidden) -> list[Tensor]:
        if self.subword_head is None or hidden.subwords is None:
            return []
        at = tokens[:, -hidden.subwords.shape[1] :][hidden.subwords]
        logits = self.subword_head(at) @ self.network.embeddings.word_embeddings.weight.T
        return [normalised_cross_entropy(logits, batch["text"][hidden.subwords])]


def hide(batch: dict[str, Tensor], network: Network, fraction: float) -> Hidden:
    """Choose what to hide with torch's current random state; missing numbers and times are never chosen.

    Of the hidden subwords 80 % read [MASK], 10 % any other subword, 10 % stay.
    """
    known = [torch.ones_like(batch["categories"], dtype=torch.bool)] if "categories" in batch else []
    known += [~batch["numbers"].isnan()] if "numbers" in batch else []
    known += [~batch["times"][..., 0].isnan()] if "times" in batch else []
    rows = len(next(iter(batch.values())))
    there = torch.cat(known, dim=1) if known else torch.zeros(rows, 0, dtype=torch.bool)
    columns = there & (torch.rand(there.shape) < fraction).to(there.device)
    if "text" not in batch:
        return Hidden(columns=columns, subwords=None, text=None)
    return Hidden(columns=columns, **_hide_subwords(batch["text"], network, fraction))


def _hide_subwords(text: Tensor, network: Network, fraction: float) -> dict[str, Tensor]:
    sizes, where = network.sizes, text.device
    chosen = (torch.rand(text.shape) < fraction).to(where) & (text != sizes.pad_id) & (text != sizes.sep_id)
    fate = torch.rand(text.shape).to(where)
    random = torch.randint(sizes.n_subwords, text.shape).to(where)
    seen = torch.where(chosen & (fate < 0.8), sizes.mask_id, text)
    seen = torch.where(chosen & (fate >= 0.9), random, seen)
    # A random [PAD] would be taken for padding.
    seen = torch.where(chosen & (seen == sizes.pad_id), sizes.mask_id, seen)
    return {"subwords": chosen, "text": seen}


def normalised_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Summed cross-entropy over that of a uniform guess. Shapes: [rows, choices], int64 [rows] -> []."""
    return F.cross_entropy(logits.float(), truth, reduction="sum") / math.log(max(2, logits.shape[1]))
