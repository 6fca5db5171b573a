"""Masked modelling: hide some columns and subwords of a row, and let the network guess them.

What a kind guesses, and by what it is measured, is in `model.features.kinds`. The heads live only here; the encoder and
embeddings are what is kept.

Shape legend: b rows, s tokens of a sequence, d width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn

from model.compute import distributed
from model.compute.device import autocast, device
from model.features.encoded import Encoded, Sizes
from model.features.fitting import chosen_rows
from model.features.kinds import column_kinds, encoder_inputs, sequence_kinds, token_kinds
from model.features.kinds.modules.columns import Reconstruction
from model.heads.reconstruct import bits_of
from model.network.network import Network, initialise
from model.settings import OptimisationSettings, TrainingPlan
from model.training.inference import predict_in_batches
from model.training.optimisation import Course, History, optimised

MAX_RANKED_ROWS, N_QUANTILES = 10_000, 1001
"""Training rows among which others get their percentile, and how finely."""
MAX_VALIDATED_ROWS = 2_000
"""Rows whose surprise decides when to stop; each costs as many passes as it has columns."""
WHOLE = 0.05
"""Share of the hidden cells of several tokens that are hidden whole."""


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


def disturb(batch: dict[str, Tensor], sizes: Sizes, settings: OptimisationSettings) -> dict[str, Tensor]:
    """Return the batch as training shows it: a few categories, say, are unknown, and images moved."""
    kinds = (kind for kind in token_kinds() if kind.input in batch)
    disturbed = {kind.input: kind.disturb(batch[kind.input], sizes, settings) for kind in kinds}
    return {**batch, **disturbed}


def tokens_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what the encoder reads of the batch, each window as if it were a row."""
    return {name: batch[name] for name in encoder_inputs() if name in batch}


def fill(
    network: Network,
    encoded: Encoded,
    validation: Encoded,
    plan: TrainingPlan,
    **course: Unpack[Course],
) -> tuple[Network, History]:
    """Return the network that has learnt to fill in what is hidden of rows, with what guesses it, and the losses.

    Of each row another share of the cells is hidden, drawn evenly from 0 to 1: so it can tell how likely one cell is
    beside all others, and make up a row from nothing. The validation loss is the surprise of rows, in bits.
    """
    filling = network.to(device()).filling
    assert filling is not None
    sizes = [place.n_tokens for place in filling.places]

    def loss(rows: np.ndarray) -> Tensor:
        batch = disturb(network.batch_of(encoded, rows), network.sizes, plan)
        hidden = hide_tokens(hide_shares(len(rows), len(sizes)), sizes).to(network.device)
        with distributed.shard_batch(batch) as shard:
            value = filling.loss(network, shard.batch, hidden[shard.rows])
        return value * (shard.weight / len(rows))

    def validate() -> float:
        return float(surprises(network, validation, plan.batch_tokens, MAX_VALIDATED_ROWS).mean())

    return optimised(network, encoded, plan, loss, validate, **course)


def surprises(network: Network, encoded: Encoded, batch_tokens: int, most: int) -> np.ndarray:
    """Return the bits of the rows, of more than `most` of the same sample every time. Shapes: float64 [n]."""
    network.eval()
    chosen = chosen_rows(len(encoded), most)
    with autocast(network.device):
        scores = predict_in_batches(network, network, encoded, batch_tokens, chosen)
    return bits_of(scores.double().numpy()).sum(axis=1)


def surprise_quantiles(network: Network, encoded: Encoded, batch_tokens: int) -> tuple[float, ...]:
    """Return the surprise of the rows at even steps from the least to the most, in bits."""
    found = surprises(network, encoded, batch_tokens, MAX_RANKED_ROWS)
    return tuple(np.quantile(found, np.linspace(0, 1, N_QUANTILES)).tolist())


def hide_shares(n_rows: int, n_columns: int) -> Tensor:
    """Return what is hidden: of each row a share that is drawn evenly from 0 to 1, and at least one cell.

    Shapes: -> bool [n_rows, n_columns].
    """
    n_hidden = (torch.rand(n_rows, 1) * n_columns).ceil().clamp(min=1)
    return torch.rand(n_rows, n_columns).argsort(1).argsort(1) < n_hidden


def hide_tokens(cells: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return which tokens are hidden of cells that are: of one of several a share drawn evenly, or often all.

    Shapes: bool [b, m] -> bool [b, sum of the columns' `sizes`].
    """
    parts = []
    for number, size in enumerate(sizes):
        own = cells[:, number : number + 1]
        if size > 1:
            shares, whole = hide_shares(len(cells), size), torch.rand(len(cells), 1) < WHOLE
            own = own & (shares | whole)
        parts.append(own)
    return torch.cat(parts, dim=1)
