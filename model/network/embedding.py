"""A row's raw inputs to token vectors: [CLS], one token per column, then the tokens of sequences such as text.

Shape legend: b rows, n tokens, d width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model.features.encoded import Sizes
from model.features.kinds import column_kinds, sequence_kinds, token_kinds
from model.features.kinds.modules.text import SubwordEmbedding
from model.network.dropout import Dropout


class RowEmbedding(SubwordEmbedding):
    """All tokens of a row, by a module for each kind beside the vocabulary, which [CLS] is part of."""

    def __init__(self, sizes: Sizes, d_model: int, dropout: float, norm_epsilon: float) -> None:
        super().__init__(sizes, d_model)
        for kind in token_kinds():
            if (module := kind.token_module(sizes.of(kind.name), d_model)) is not None:
                self.add_module(kind.module, module)
        self.column_masks = nn.Parameter(torch.empty(sizes.n_columns, d_model))
        self.LayerNorm = nn.LayerNorm(d_model, eps=norm_epsilon)
        self.dropout = Dropout(dropout)

    def forward(self, inputs: Mapping[str, Tensor], hidden: Tensor | None = None) -> Tensor:
        """Return the tokens in the order [CLS], columns, sequences, each in the order of `KINDS`.

        Shapes: inputs as of `batches.collate`; hidden bool [b, columns], True where masked modelling hides a column, or
        [b, n - 1], where tokens of sequences are guessed too; returns [b, n, d].
        """
        columns = [kind.embed(self, inputs[kind.input]) for kind in column_kinds() if kind.input in inputs]
        n_columns = sum(each.shape[1] for each in columns)
        if hidden is not None and columns:
            columns = [torch.where(hidden[:, :n_columns, None], self.column_masks, torch.cat(columns, dim=1))]
        sequences = self._sequences(
            inputs, None if hidden is None or hidden.shape[1] == n_columns else hidden, n_columns
        )
        n_rows = (columns + sequences)[0].shape[0]
        cls = self.cls().expand(n_rows, 1, -1)
        return self.dropout(self.LayerNorm(torch.cat([cls, *columns, *sequences], dim=1)))

    def _sequences(self, inputs: Mapping[str, Tensor], hidden: Tensor | None, first: int) -> list[Tensor]:
        """Return the tokens of each kind of sequences, the first of which is number `first` of what may be hidden."""
        sequences = []
        for kind in sequence_kinds():
            if kind.input not in inputs:
                continue
            values = inputs[kind.input]
            if hidden is None:
                sequences.append(kind.embed(self, values))
            else:
                sequences.append(kind.embed_hidden(self, values, hidden[:, first : first + values.shape[1]]))
            first += values.shape[1]
        return sequences
