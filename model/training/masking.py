"""Masked modelling: hide some columns and subwords of a row, and let the network guess them.

What a kind guesses, and by what it is measured, is in `model.features.kinds`. The heads live only here; the encoder and
embeddings are what is kept.

Shape legend: b rows, s tokens of a sequence, d width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model.features.encoded import Sizes
from model.features.kinds import column_kinds, encoder_inputs, sequence_kinds, token_kinds
from model.features.kinds.modules.columns import Reconstruction
from model.network.network import Network, initialise


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """What a batch hides, and what the network sees instead."""

    columns: Tensor
    """bool [b, columns]."""
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    """By the input of a sequence, bool [b, s]."""
    seen: Mapping[str, Tensor] = field(default_factory=dict)
    """By the input of a sequence, what replaces it. Shapes: unchanged."""

    @property
    def count(self) -> Tensor:
        """Return the number of hidden columns and tokens, at least 1. Shapes: int64 []."""
        return (self.columns.sum() + sum(part.sum() for part in self.tokens.values())).clamp(min=1)

    def of(self, rows: slice) -> "Hidden":
        """Return what is hidden of some of the rows."""
        tokens, seen = ({name: part[rows] for name, part in parts.items()} for parts in (self.tokens, self.seen))
        return Hidden(columns=self.columns[rows], tokens=tokens, seen=seen)


class MaskedModel(nn.Module):
    """A network with the heads that guess what is hidden."""

    def __init__(self, network: Network, seed: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict()
        for kind in token_kinds():
            if (head := kind.reconstruction(network.sizes, network.settings.d_model)) is not None:
                self.heads[kind.name] = head
        initialise(self, seed)
        self.network = network

    def forward(self, batch: dict[str, Tensor], hidden: Hidden) -> Tensor:
        """Return the mean cross-entropy of the hidden parts, each in units of a blind guess among its choices."""
        tokens, _ = self.network.encode({**batch, **hidden.seen}, hidden_columns=hidden.columns)
        losses, first = [], 1  # after [CLS]
        for kind in token_kinds():
            if kind.input not in batch:
                continue
            values, head = batch[kind.input], self.heads[kind.name]
            assert isinstance(head, Reconstruction)
            end = first + values.shape[1]
            is_hidden = hidden.tokens.get(kind.input) if kind.is_sequence else hidden.columns[:, first - 1 : end - 1]
            if is_hidden is not None:
                losses += head.losses(tokens[:, first:end], values, is_hidden, self.network.embeddings)
            first = end
        return torch.stack(losses).sum() / hidden.count


def hide(batch: dict[str, Tensor], network: Network, fraction: float) -> Hidden:
    """Choose what to hide with torch's current random state; no missing number or time is hidden."""
    known = [kind.known(batch[kind.input]) for kind in column_kinds() if kind.input in batch]
    n_rows = len(next(iter(batch.values())))
    may_be_hidden = torch.cat(known, dim=1) if known else torch.zeros(n_rows, 0, dtype=torch.bool)
    columns = may_be_hidden & (torch.rand(may_be_hidden.shape) < fraction).to(may_be_hidden.device)
    tokens, seen = {}, {}
    for kind in sequence_kinds():
        if kind.input in batch:
            tokens[kind.input], seen[kind.input] = kind.hide(batch[kind.input], network.sizes, fraction)
    return Hidden(columns=columns, tokens=tokens, seen=seen)


def disturb(batch: dict[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """Return the batch as training shows it: a few categories, say, are unknown, and images moved."""
    disturbed = {kind.input: kind.disturb(batch[kind.input], sizes) for kind in token_kinds() if kind.input in batch}
    return {**batch, **disturbed}


def tokens_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what the encoder reads of the batch, each window as if it were a row."""
    return {name: batch[name] for name in encoder_inputs() if name in batch}
