"""Make rows that nobody has delivered: their cells are filled in random order, each drawn after those before it.

The network guesses a hidden cell from the cells that a row has so far; a choice is drawn by its probability, becomes a
cell as known rows have them, and is read by the network as such. What a row draws by follows from the seed and its
number alone, and rows are always made in the same blocks: so a row is the same, whichever others are asked for.

Shape legend: n rows of a block, m columns that are guessed.
"""

from collections.abc import Iterator

import numpy as np
import torch

from model.compute.device import deterministic
from model.features.encoded import Encoded
from model.features.fitted import Features
from model.features.fitting import Table
from model.features.kinds import kind_class
from model.features.kinds.base import missing_cells
from model.features.kinds.making import N_DRAWS
from model.network.network import Network

BLOCK_ROWS = 512
"""Rows that are made at once, always the same: a product of another shape may round another way."""
MAX_PARTS = 3
"""Parts of a cell that are drawn one by one."""


class RowMaker:
    """Makes rows with a network that has learnt to fill in what is hidden of rows."""

    def __init__(self, network: Network, features: Features, known: Table, seed: int) -> None:
        """Take the network on its device, and known rows, whose cells say what a choice becomes."""
        assert network.filling is not None
        self.network, self.filling, self.features, self.seed = network.eval(), network.filling, features, seed
        self.names = [list(features.fitted[kind].columns)[column] for kind, _, column in self.filling.places]
        """Of the columns, in the order of their tokens."""
        self.makers = [
            kind_class(kind).maker(features.fitted[kind].columns[name], known[name])
            for name, (kind, _, _) in zip(self.names, self.filling.places, strict=True)
        ]

    def rows(self, first: int, end: int) -> Iterator[tuple[range, Table]]:
        """Yield the rows from number `first` to before `end`, block by block, with their numbers."""
        for number in range(first // BLOCK_ROWS, -(-end // BLOCK_ROWS)):
            start = number * BLOCK_ROWS
            wanted = range(max(first, start), min(end, start + BLOCK_ROWS))
            block = self._block(number)
            yield wanted, {name: cells[wanted.start - start : wanted.stop - start] for name, cells in block.items()}

    def _block(self, number: int) -> Table:
        n_columns = len(self.names)
        random = np.random.default_rng([self.seed, number])
        order = random.random((BLOCK_ROWS, n_columns)).argsort(axis=1, kind="stable")
        draws = random.random((BLOCK_ROWS, n_columns, MAX_PARTS + N_DRAWS))
        table = {name: missing_cells(self.features.kinds[name], BLOCK_ROWS) for name in self.names}
        encoded = self.features.encode(table)
        hidden = torch.ones(BLOCK_ROWS, n_columns, dtype=torch.bool, device=self.network.device)
        every = np.arange(BLOCK_ROWS)
        with torch.inference_mode(), deterministic(self.seed):
            for asked in order.T:
                for column, rows, choices in self._choices(encoded, hidden, asked, draws):
                    kind, array, place = self.filling.places[column]
                    cells = self.makers[column].cells(choices, draws[rows, column, MAX_PARTS:])
                    table[self.names[column]][rows] = cells
                    fitted = self.features.fitted[kind].columns[self.names[column]]
                    encoded.arrays[array][rows, place] = kind_class(kind).encode_column(cells, fitted)
                hidden[every, asked] = False
        return table

    def _choices(
        self, encoded: Encoded, hidden: torch.Tensor, asked: np.ndarray, draws: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield each column that rows ask for, with these rows and what is drawn of its parts there.

        Shapes: int64 [n] -> int, int64 [rows], int64 [rows, parts].
        """
        batch = self.network.batch_of(encoded, np.arange(BLOCK_ROWS))
        wanted = torch.from_numpy(asked).to(self.network.device)
        for column, at, logits in self.filling.guesses(self.network, batch, hidden, wanted):
            rows = at.cpu().numpy()
            drawn = [
                draw_choices(each.float().cpu().numpy(), seen, draws[rows, column, part])
                for part, (each, seen) in enumerate(zip(logits, self.makers[column].seen, strict=True))
            ]
            yield column, rows, np.stack(drawn, axis=1) if drawn else np.empty((len(rows), 0), np.int64)


def draw_choices(logits: np.ndarray, seen: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return a choice of each row, by the probabilities of those that may be.

    Shapes: [n, c], bool [c], float64 [n] from 0 to below 1 -> int64 [n].

    >>> draw_choices(np.zeros((3, 4)), np.array([True, False, True, False]), np.array([0.0, 0.6, 0.99])).tolist()
    [0, 2, 2]
    """
    may_be = np.flatnonzero(seen)
    kept = logits[:, may_be].astype(np.float64)
    shares = np.exp(kept - kept.max(axis=1, keepdims=True)).cumsum(axis=1)
    chosen = (shares <= draws[:, None] * shares[:, -1:]).sum(axis=1)
    return may_be[np.minimum(chosen, len(may_be) - 1)]
