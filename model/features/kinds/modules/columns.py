"""What the token modules and reconstructions of several kinds are made of.

Shape legend: b rows, m columns, k numbers that encode a cell, d width.
"""

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ColumnTokens(nn.Module):
    """One token per column: the numbers that encode its cell through a linear map of its own, or one for missing.

    Its weights are initialised by `model.network.network.initialise`.
    """

    def __init__(self, n_columns: int, n_numbers: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_columns, n_numbers, d_model))
        self.bias = nn.Parameter(torch.empty(n_columns, d_model))
        self.missing = nn.Parameter(torch.empty(n_columns, d_model))

    def tokens(self, missing: Tensor, encoding: Tensor) -> Tensor:
        """Return the tokens of encoded cells. Shapes: bool [b, m, 1], [m, b, k] -> [b, m, d]."""
        tokens = torch.bmm(encoding, self.weight).transpose(0, 1) + self.bias
        return torch.where(missing, self.missing, tokens)


class Reconstruction(nn.Module):
    """What guesses the hidden values of one kind from their tokens. Its weights are kept for pretraining alone."""

    @abstractmethod
    def losses(self, tokens: Tensor, values: Tensor, hidden: Tensor, embeddings: nn.Module) -> list[Tensor]:
        """Return the summed losses of what is hidden, a value counting 1 if it is guessed blindly.

        Shapes: of this kind's columns or sequence, tokens [b, m, d], values [b, m, ...], hidden bool [b, m]; returns
        scalars.
        """


def normalised_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the summed cross-entropy over that of a uniform guess. Shapes: [rows, choices], int64 [rows] -> []."""
    return F.cross_entropy(logits.float(), truth, reduction="sum") / math.log(max(2, logits.shape[1]))
