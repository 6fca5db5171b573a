"""Blocks of images as patches, one of a few choices each: their tokens, and what guesses those that are hidden.

A convolution would learn as much of what a picture shows, but guesses blocks worse in the same time: the patches alone
say nearly all of a block, and nothing of its neighbours.

Shape legend: b rows, t blocks of an image, n those of all columns, k hidden blocks, d width.
"""

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from model.features.kinds.modules.columns import CellReconstruction, normalised_cross_entropy
from model.features.pixels import Picture

STEP = 2
"""Blocks of which, down and across, one is hidden at a time where surprise is told: so all its neighbours are seen."""


class PatchTokens(nn.Module):
    """A vector for each patch of a column, or for a hidden block, and one for its place."""

    starts: Tensor

    def __init__(self, pictures: Sequence[Picture], d_model: int) -> None:
        super().__init__()
        counts = [1 + each.n_patches for each in pictures]
        starts = [start for start, each in zip(_sums(counts), pictures, strict=False) for _ in range(each.n_blocks)]
        self.register_buffer("starts", torch.tensor(starts), persistent=False)
        self.patches = nn.Embedding(sum(counts), d_model)
        self.places = nn.Embedding(len(starts), d_model)
        self.hidden = nn.Embedding(1, d_model)

    def forward(self, numbers: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Shapes: uint8 [b, n, 1], bool [b, n] -> [b, n, d]."""
        tokens = self.patches(numbers[..., 0].long() + self.starts)
        if hidden is not None:
            tokens = torch.where(hidden[..., None], self.hidden.weight, tokens)
        return tokens + self.places.weight


class PatchReconstruction(CellReconstruction):
    """Guesses the number of each block's patch; 0 is that the image is missing."""

    def __init__(self, pictures: Sequence[Picture], d_model: int) -> None:
        super().__init__()
        self.pictures = tuple(pictures)
        self.heads = nn.ModuleList(nn.Linear(d_model, 1 + each.n_patches) for each in pictures)
        self.places = [slice(*each) for each in itertools.pairwise(_sums(each.n_blocks for each in pictures))]

    def n_tokens(self, column: int) -> int:
        """Return the blocks of an image."""
        return self.pictures[column].n_blocks

    def groups(self, column: int) -> list[list[int]]:
        """Return the blocks in groups that leave the neighbours of each seen."""
        side = self.pictures[column].side
        places = [(row, across) for row in range(side) for across in range(side)]
        groups = [
            [number for number, (row, across) in enumerate(places) if (row % STEP, across % STEP) == corner]
            for corner in ((i, j) for i in range(STEP) for j in range(STEP))
        ]
        return [group for group in groups if group]

    def cells(self, values: Tensor, column: int) -> Tensor:
        """Return the numbers of the patches. Shapes: uint8 [b, n, 1] -> int64 [b, t]."""
        return values[:, self.places[column], 0].long()

    def guesses(self, tokens: Tensor, column: int, embeddings: nn.Module) -> list[Tensor]:
        """Return the logits of each block's patches."""
        return [self.heads[column](tokens)]

    def nats(self, tokens: Tensor, cells: Tensor, column: int, embeddings: nn.Module) -> Tensor:
        """Return the negative log-likelihood of each block. Shapes: [k, d], int64 [k] -> [k]."""
        return -self.heads[column](tokens).float().log_softmax(-1).gather(1, cells[:, None])[:, 0]

    def entropy(self, tokens: Tensor, column: int, embeddings: nn.Module) -> Tensor:
        """Return the negative log-likelihood that is expected of each block."""
        parts = self.heads[column](tokens).float().log_softmax(-1)
        return -(parts.exp() * parts).sum(-1)

    def expectation(self, tokens: Tensor, cells: Tensor, beyond: Tensor, column: int, embeddings: nn.Module) -> Tensor:
        """Return the number of the block that surprises most beyond what was expected; t where an image is missing."""
        return torch.where(cells[:, 0] == 0, beyond.shape[1], beyond.argmax(1))

    def losses(self, tokens: Tensor, values: Tensor, hidden: Tensor, embeddings: nn.Module) -> list[Tensor]:
        """Return the cross-entropy of each column's hidden blocks over that of a uniform guess."""
        losses = []
        for column, place in enumerate(self.places):
            part = hidden[:, place]
            guesses = self.heads[column](tokens[:, place][part])
            losses.append(normalised_cross_entropy(guesses, self.cells(values, column)[part]))
        return losses


def _sums(sizes: Iterable[int]) -> list[int]:
    """Return where each of the sizes begins, end to end, and where the last ends."""
    return [0, *itertools.accumulate(sizes)]
