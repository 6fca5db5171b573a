"""What guesses the cells of a row that are hidden, kept and exported with the network that it was trained with.

A cell is one token, or, of an image, one for each block; what is hidden is told token by token.

Shape legend: b rows, m columns that are guessed, n tokens of theirs, k hidden ones of a column, d width.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.features.encoded import Sizes
from model.features.kinds import KINDS, token_kinds
from model.features.kinds.modules.columns import CellReconstruction

if TYPE_CHECKING:
    from model.network.network import Network


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the tokens of a column lie."""

    kind: str
    input: str
    """Of a batch."""
    column: int
    """Its number within its kind."""
    first: int
    """Its first token, without [CLS]."""
    n_tokens: int
    """Of each cell."""

    @property
    def tokens(self) -> slice:
        """Return its tokens among those that may be hidden."""
        return slice(self.first, self.first + self.n_tokens)

    @property
    def encoded(self) -> slice:
        """Return its tokens among those of the encoder."""
        return slice(1 + self.first, 1 + self.first + self.n_tokens)


class Filling(nn.Module):
    """A reconstruction for each kind whose cells are guessed, behind a layer that all columns share.

    Source of that layer: Devlin et al., "BERT" (2019), section 3.1, as its authors' code has it.
    """

    hidden: Tensor
    """bool [passes, n]: what is hidden each time to tell the surprise of all cells."""

    def __init__(self, sizes: Sizes, d_model: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.LayerNorm(d_model))
        self.heads = nn.ModuleDict()
        self.places: list[Place] = []
        """Of each column, in the order of the tokens."""
        for kind in token_kinds():
            if not KINDS[kind.name].is_guessed or not sizes.of(kind.name):
                continue
            head = kind.reconstruction(sizes, d_model)
            assert isinstance(head, CellReconstruction)
            self.heads[kind.name] = head
            for column in range(len(sizes.of(kind.name))):
                n_tokens = head.n_tokens(column)
                place = Place(kind=kind.name, input=kind.input, column=column, first=self.n_tokens, n_tokens=n_tokens)
                self.places.append(place)
        passes = [group for _, group in self._passes()]
        hidden = torch.tensor([[token in group for token in range(self.n_tokens)] for group in passes])
        self.register_buffer("hidden", hidden, persistent=False)

    @property
    def n_tokens(self) -> int:
        """Return the tokens of a row that may be hidden."""
        return sum(place.n_tokens for place in self.places)

    def head(self, kind: str) -> CellReconstruction:
        """Return what guesses the cells of a kind."""
        head = self.heads[kind]
        assert isinstance(head, CellReconstruction)
        return head

    def loss(self, network: "Network", batch: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of each row's hidden cells, summed over the rows; in nats.

        Of a cell of several tokens it is the mean of those that are hidden. Shapes: bool [b, n] -> [].
        """
        tokens, _ = network.encode(batch, hidden_columns=hidden)
        parts = [hidden[:, place.tokens] for place in self.places]
        weights, total = 1 / torch.stack([part.any(1) for part in parts], 1).sum(1), tokens.new_zeros(())
        for place, part in zip(self.places, parts, strict=True):
            head = self.head(place.kind)
            own = self.transform(tokens[:, place.encoded][part])
            cells = head.cells(batch[place.input], place.column)[part]
            shares = (weights / part.sum(1))[:, None].expand_as(part)[part]
            total = total + head.nats(own, cells, place.column, network.embeddings) @ shares
        return total

    def guesses(
        self, network: "Network", batch: Mapping[str, Tensor], hidden: Tensor, asked: Tensor
    ) -> Iterator[tuple[int, Tensor, Tensor, list[Tensor]]]:
        """Yield each column of which tokens are asked for, by its number, with their rows, their numbers within a cell
        and the logits of what each of them holds.

        Shapes: bool [b, n] twice -> int, int64 [k], int64 [k], [k, choices] each.
        """
        tokens, _ = network.encode(batch, hidden_columns=hidden)
        for number, place in enumerate(self.places):
            part = asked[:, place.tokens]
            rows, at = part.nonzero().unbind(1)
            if len(rows):
                own = self.transform(tokens[:, place.encoded][part])
                yield number, rows, at, self.head(place.kind).guesses(own, place.column, network.embeddings)

    def surprises(self, network: "Network", batch: Mapping[str, Tensor]) -> Tensor:
        """Return the bits of each cell where it alone is hidden, those expected, and the number of what was expected.

        A cell of several tokens is hidden group by group, and has the mean bits of them: it counts as one cell, lest
        the many blocks of an image drown all else of its row.
        Shapes: -> float32 [b, 3 m], first the bits of all columns.
        """
        inputs = {place.input for place in self.places}
        n_rows, n_passes = batch[next(iter(inputs))].shape[0], len(self.hidden)
        # Every row as often as something of it is hidden.
        often = {name: batch[name].unsqueeze(0).expand(n_passes, *batch[name].shape).flatten(0, 1) for name in inputs}
        hidden = self.hidden[:, None].expand(n_passes, n_rows, self.n_tokens).flatten(0, 1)
        tokens, _ = network.encode(often, hidden_columns=hidden)
        tokens = tokens.unflatten(0, (n_passes, n_rows))
        scores = [self._column_scores(network, batch, place, tokens) for place in self.places]
        return torch.stack([column for columns in zip(*scores, strict=True) for column in columns], dim=1)

    def _passes(self) -> list[tuple[Place, list[int]]]:
        """Return what is hidden in each pass: tokens of a column."""
        return [
            (place, [place.first + token for token in group])
            for place in self.places
            for group in self.head(place.kind).groups(place.column)
        ]

    def _column_scores(
        self, network: "Network", batch: Mapping[str, Tensor], place: Place, tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return bits, expected bits and what was expected of a column's cells.

        Shapes: tokens of each pass [passes, b, 1 + n, d] -> [b] three times.
        """
        head, column, embeddings = self.head(place.kind), place.column, network.embeddings
        own = self.transform(self._hidden_tokens(tokens, place))
        cells = head.cells(batch[place.input], column)
        nats = head.nats(own.flatten(0, 1), cells.flatten(0, 1), column, embeddings).unflatten(0, (-1, place.n_tokens))
        expected = head.entropy(own.flatten(0, 1), column, embeddings).unflatten(0, (-1, place.n_tokens))
        number = head.expectation(own, cells, nats - expected, column, embeddings).float()
        return nats.mean(1) / math.log(2), expected.mean(1) / math.log(2), number

    def _hidden_tokens(self, tokens: Tensor, place: Place) -> Tensor:
        """Return each token of a column as it is in the pass that hides it.

        Shapes: as of `_column_scores` -> [b, t, d].
        """
        passes = [number for number, (other, _) in enumerate(self._passes()) if other is place]
        own = tokens[passes[0] : passes[-1] + 1, :, place.encoded]
        if len(passes) == 1:
            return own[0]
        # Each token is hidden in one of them.
        return (own * self.hidden[passes[0] : passes[-1] + 1, None, place.tokens, None]).sum(0)
