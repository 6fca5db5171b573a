"""Tokens of categories: one table with a vector for each slot of each column.

Shape legend: b rows, c category columns, d width.
"""

import torch
from torch import Tensor, nn

from model.features.kinds.modules.columns import ColumnReconstruction

UNKNOWN_FRACTION = 0.01
"""Share of categories shown as unknown while training."""


class CategoryTokens(nn.Embedding):
    """The tables of all columns end to end."""

    starts: Tensor

    def __init__(self, n_slots: tuple[int, ...], d_model: int) -> None:
        starts = torch.tensor([0, *n_slots]).cumsum(0)
        super().__init__(int(starts[-1]), d_model)
        self.register_buffer("starts", starts[:-1], persistent=False)

    def forward(self, categories: Tensor) -> Tensor:
        """Shapes: int64 [b, c] -> [b, c, d]."""
        return super().forward(categories + self.starts)


class CategoryReconstruction(ColumnReconstruction):
    """Scores each slot of a column by its vector; has no weights of its own."""

    def __init__(self, n_slots: tuple[int, ...]) -> None:
        super().__init__()
        self.n_slots = n_slots
        self.n_choices = tuple((n,) for n in n_slots)

    def guesses(self, tokens: Tensor, column: int, embeddings: nn.Module) -> list[Tensor]:
        """Return the logits of the slots."""
        assert isinstance(embeddings.category_embeddings, CategoryTokens)
        first = sum(self.n_slots[:column])
        return [tokens @ embeddings.category_embeddings.weight[first : first + self.n_slots[column]].T]

    def truths(self, values: Tensor, column: int, embeddings: nn.Module) -> list[Tensor]:
        """Return the slots themselves."""
        return [values[:, column]]


def forget(categories: Tensor, unknown: int) -> Tensor:
    """Return the categories with a few, drawn by torch's random state, made unknown. Shapes: unchanged."""
    forgotten = (torch.rand(categories.shape) < UNKNOWN_FRACTION).to(categories.device)
    return torch.where(forgotten, unknown, categories)
