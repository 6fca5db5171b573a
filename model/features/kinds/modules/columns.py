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


class CellReconstruction(Reconstruction):
    """Guesses what hidden tokens of a cell hold as one of a few choices, or as several such parts.

    Shapes of its methods: k hidden tokens of a column, t tokens of a cell.
    """

    @abstractmethod
    def n_tokens(self, column: int) -> int:
        """Return the tokens of each cell of a column."""

    @abstractmethod
    def groups(self, column: int) -> list[list[int]]:
        """Return the tokens of a cell in groups: of each its surprise is told where that alone is hidden."""

    @abstractmethod
    def cells(self, values: Tensor, column: int) -> Tensor:
        """Return what each token of a column holds. Shapes: [b, m, ...] -> [b, t, ...]."""

    @abstractmethod
    def guesses(self, tokens: Tensor, column: int, embeddings: nn.Module) -> list[Tensor]:
        """Return the logits of each part of what tokens hold. Shapes: [k, d] -> [k, choices] each."""

    @abstractmethod
    def nats(self, tokens: Tensor, cells: Tensor, column: int, embeddings: nn.Module) -> Tensor:
        """Return the negative log-likelihood of what tokens hold. Shapes: [k, d], [k, ...] -> [k]."""

    @abstractmethod
    def entropy(self, tokens: Tensor, column: int, embeddings: nn.Module) -> Tensor:
        """Return the negative log-likelihood that is expected of tokens. Shapes: [k, d] -> [k]."""

    @abstractmethod
    def expectation(self, tokens: Tensor, cells: Tensor, beyond: Tensor, column: int, embeddings: nn.Module) -> Tensor:
        """Return by number, one of the kind's `choice_names`, what was expected of each cell.

        `beyond` is what each token has beyond what was expected. Shapes: [b, t, d], [b, t, ...], [b, t] -> [b].
        """


class ColumnReconstruction(CellReconstruction):
    """Guesses a cell of one token as one of a few choices, or as several such parts; a missing cell is a choice too."""

    n_choices: tuple[tuple[int, ...], ...]
    """Of each column, the choices of each part."""

    def n_tokens(self, column: int) -> int:
        """Return that a cell is one token."""
        return 1

    def groups(self, column: int) -> list[list[int]]:
        """Return that token."""
        return [[0]]

    def cells(self, values: Tensor, column: int) -> Tensor:
        """Return the cells of all columns, as `truths` takes them. Shapes: [b, m, ...] -> [b, 1, m, ...]."""
        return values[:, None]

    def expectation(self, tokens: Tensor, cells: Tensor, beyond: Tensor, column: int, embeddings: nn.Module) -> Tensor:
        """Return the likeliest choices."""
        return self.likeliest(tokens[:, 0], column, embeddings)

    @abstractmethod
    def truths(self, values: Tensor, column: int, embeddings: nn.Module) -> list[Tensor]:
        """Return the true choice of each part of a column. Shapes: [b, m, ...] -> int64 [b] each."""

    def losses(self, tokens: Tensor, values: Tensor, hidden: Tensor, embeddings: nn.Module) -> list[Tensor]:
        """Return one loss for each part; a cell of several counts once."""
        losses = []
        for column in range(values.shape[1]):
            rows = hidden[:, column]
            guesses = self.guesses(tokens[rows, column], column, embeddings)
            truths = self.truths(values[rows], column, embeddings)
            losses += [
                normalised_cross_entropy(logits, truth) / len(guesses)
                for logits, truth in zip(guesses, truths, strict=True)
            ]
        return losses

    def nats(self, tokens: Tensor, values: Tensor, column: int, embeddings: nn.Module) -> Tensor:
        """Return the negative log-likelihood of each row's cell of a column. Shapes: [b, d], [b, m, ...] -> [b]."""
        guesses, truths = self.guesses(tokens, column, embeddings), self.truths(values, column, embeddings)
        parts = [
            -logits.float().log_softmax(-1).gather(1, truth[:, None])[:, 0]
            for logits, truth in zip(guesses, truths, strict=True)
        ]
        return torch.stack(parts).sum(0) if parts else tokens.new_zeros(len(tokens))

    def entropy(self, tokens: Tensor, column: int, embeddings: nn.Module) -> Tensor:
        """Return the negative log-likelihood that is expected of a column's cell in each row. Shapes: [b, d] -> [b]."""
        parts = [logits.float().log_softmax(-1) for logits in self.guesses(tokens, column, embeddings)]
        nats = [-(part.exp() * part).sum(-1) for part in parts]
        return torch.stack(nats).sum(0) if nats else tokens.new_zeros(len(tokens))

    def likeliest(self, tokens: Tensor, column: int, embeddings: nn.Module) -> Tensor:
        """Return the likeliest choices of a column as one number, as `number_of` makes it. Shapes: [b, d] -> [b]."""
        parts = [logits.argmax(-1) for logits in self.guesses(tokens, column, embeddings)]
        return self.number_of(parts, column) if parts else torch.zeros_like(tokens[:, 0], dtype=torch.int64)

    def number_of(self, parts: list[Tensor], column: int) -> Tensor:
        """Return the choices of all parts of a column as one number, the first part's the least. Shapes: [b] each."""
        number, unit = torch.zeros_like(parts[0]), 1
        for part, n in zip(parts, self.n_choices[column], strict=True):
            number, unit = number + part * unit, unit * n
        return number


def normalised_cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the summed cross-entropy over that of a uniform guess. Shapes: [rows, choices], int64 [rows] -> []."""
    return F.cross_entropy(logits.float(), truth, reduction="sum") / math.log(max(2, logits.shape[1]))
