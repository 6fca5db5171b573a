"""What guesses the cells of a row that are hidden, kept and exported with the network that it was trained with.

Shape legend: b rows, m columns that are guessed, n tokens, d width.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.features.encoded import Sizes
from model.features.kinds import KINDS, column_kinds
from model.features.kinds.modules.columns import ColumnReconstruction

if TYPE_CHECKING:
    from model.network.network import Network


class Filling(nn.Module):
    """A reconstruction for each kind whose cells are guessed, behind a layer that all columns share.

    Source of that layer: Devlin et al., "BERT" (2019), section 3.1, as its authors' code has it.
    """

    def __init__(self, sizes: Sizes, d_model: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.LayerNorm(d_model))
        self.heads = nn.ModuleDict()
        self.places: list[tuple[str, str, int]] = []
        """Kind, input and number within its kind of each column, in the order of the tokens."""
        for kind in column_kinds():
            if not KINDS[kind.name].is_guessed or not sizes.of(kind.name):
                continue
            head = kind.reconstruction(sizes, d_model)
            assert isinstance(head, ColumnReconstruction)
            self.heads[kind.name] = head
            self.places += [(kind.name, kind.input, column) for column in range(len(sizes.of(kind.name)))]

    def head(self, kind: str) -> ColumnReconstruction:
        """Return what guesses the cells of a kind."""
        head = self.heads[kind]
        assert isinstance(head, ColumnReconstruction)
        return head

    def columns(self) -> Iterator[tuple[int, str, ColumnReconstruction, int]]:
        """Yield token, input, reconstruction and number within its kind of each column."""
        for token, (kind, name, column) in enumerate(self.places, start=1):
            yield token, name, self.head(kind), column

    def loss(self, network: "Network", batch: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of each row's hidden cells, summed over the rows; in nats.

        Shapes: bool [b, m] -> [].
        """
        tokens, _ = network.encode(batch, hidden_columns=hidden)
        weights, total = 1 / hidden.sum(1), tokens.new_zeros(())
        for token, name, head, column in self.columns():
            rows = hidden[:, token - 1]
            own = self.transform(tokens[rows, token])
            total = total + head.nats(own, batch[name][rows], column, network.embeddings) @ weights[rows]
        return total

    def guesses(
        self, network: "Network", batch: Mapping[str, Tensor], hidden: Tensor, asked: Tensor
    ) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
        """Yield each column that rows ask for, by its number, with these rows and the logits of its parts there.

        Shapes: bool [b, m]; int64 [b], the number of a column -> int, int64 [rows], [rows, choices] each.
        """
        tokens, _ = network.encode(batch, hidden_columns=hidden)
        for token, _, head, column in self.columns():
            rows = (asked == token - 1).nonzero()[:, 0]
            if len(rows):
                own = self.transform(tokens[rows, token])
                yield token - 1, rows, head.guesses(own, column, network.embeddings)

    def surprises(self, network: "Network", batch: Mapping[str, Tensor]) -> Tensor:
        """Return the bits of each cell where it alone is hidden, those expected, and the likeliest choice's number.

        Shapes: -> float32 [b, 3 m], first the bits of all columns.
        """
        n_columns = len(self.places)
        inputs = {name for _, name, _ in self.places}
        # Every row as often as it has columns, each time another one hidden.
        n_rows = batch[next(iter(inputs))].shape[0]
        often = {name: batch[name].unsqueeze(0).expand(n_columns, *batch[name].shape).flatten(0, 1) for name in inputs}
        each = torch.eye(n_columns, dtype=torch.bool, device=network.device)
        hidden = each[:, None].expand(n_columns, n_rows, n_columns).flatten(0, 1)
        tokens, _ = network.encode(often, hidden_columns=hidden)
        tokens = tokens.unflatten(0, (n_columns, n_rows))
        bits, expected, likeliest = [], [], []
        for token, name, head, column in self.columns():
            own = self.transform(tokens[token - 1, :, token])
            bits.append(head.nats(own, batch[name], column, network.embeddings) / math.log(2))
            expected.append(head.entropy(own, column, network.embeddings) / math.log(2))
            likeliest.append(head.likeliest(own, column, network.embeddings).float())
        return torch.stack(bits + expected + likeliest, dim=1)
