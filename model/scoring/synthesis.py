"""Make rows that nobody has delivered: their cells are filled in random order, each drawn after those before it.

The network guesses a hidden cell from the cells that a row has so far; a choice is drawn by its probability, becomes a
cell as known rows have them, and is read by the network as such. What a row draws by follows from the seed and its
number alone, and rows are always made in the same blocks: so a row is the same, whichever others are asked for.
Images come last, block after block.

Shape legend: n rows of a block, m columns that are guessed.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from model.compute.device import deterministic
from model.features.encoded import Encoded
from model.features.fitted import Features
from model.features.fitting import Table
from model.features.kinds import kind_class
from model.features.kinds.base import missing_cells
from model.features.kinds.making import N_DRAWS, PatchMaker
from model.network.filling import Place
from model.network.network import Network

BLOCK_ROWS = 512
"""Rows that are made at once, always the same: a product of another shape may round another way."""
N_STEPS = 16
"""Steps at most in which the blocks of an image are filled."""
MAX_PARTS = 3
"""Parts of a cell that are drawn one by one."""


class RowMaker:
    """Makes rows with a network that has learnt to fill in what is hidden of rows."""

    def __init__(self, network: Network, features: Features, known: Table, seed: int) -> None:
        """Take the network on its device, and known rows, whose cells say what a choice becomes."""
        assert network.filling is not None
        self.network, self.filling, self.features, self.seed = network.eval(), network.filling, features, seed
        self.names = [list(features.fitted[place.kind].columns)[place.column] for place in self.filling.places]
        """Of the columns, in the order of their tokens."""
        self.makers = [
            kind_class(place.kind).maker(features.fitted[place.kind].columns[name], known[name])
            for name, place in zip(self.names, self.filling.places, strict=True)
        ]
        self.fillers = [
            BlockFiller(network, place, maker)
            for place, maker in zip(self.filling.places, self.makers, strict=True)
            if isinstance(maker, PatchMaker)
        ]

    def rows(self, first: int, end: int) -> Iterator[tuple[range, Table]]:
        """Yield the rows from number `first` to before `end`, block by block, with their numbers."""
        for number in range(first // BLOCK_ROWS, -(-end // BLOCK_ROWS)):
            start = number * BLOCK_ROWS
            wanted = range(max(first, start), min(end, start + BLOCK_ROWS))
            block = self._block(number)
            yield wanted, {name: cells[wanted.start - start : wanted.stop - start] for name, cells in block.items()}

    def _block(self, number: int) -> Table:
        n_columns = self.network.sizes.n_columns  # of one token each, which are the first ones
        random = np.random.default_rng([self.seed, number])
        order = random.random((BLOCK_ROWS, n_columns)).argsort(axis=1, kind="stable")
        draws = random.random((BLOCK_ROWS, n_columns, MAX_PARTS + N_DRAWS))
        table = {name: missing_cells(self.features.kinds[name], BLOCK_ROWS) for name in self.names}
        encoded = self.features.encode(table)
        hidden = torch.ones(BLOCK_ROWS, self.filling.n_tokens, dtype=torch.bool, device=self.network.device)
        every = np.arange(BLOCK_ROWS)
        with torch.inference_mode(), deterministic(self.seed):
            for asked in order.T:
                for column, rows, choices in self._choices(encoded, hidden, asked, draws):
                    place = self.filling.places[column]
                    cells = self.makers[column].cells(choices, draws[rows, column, MAX_PARTS:])
                    table[self.names[column]][rows] = cells
                    fitted = self.features.fitted[place.kind].columns[self.names[column]]
                    encoded.arrays[place.input][rows, place.column] = kind_class(place.kind).encode_column(
                        cells, fitted
                    )
                hidden[every, asked] = False
            for column, filler in enumerate(self.fillers, start=n_columns):
                table[self.names[column]] = filler.fill(encoded, hidden, random)
        return table

    def _choices(
        self, encoded: Encoded, hidden: torch.Tensor, asked: np.ndarray, draws: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield each column that rows ask for, with these rows and what is drawn of its parts there.

        Shapes: int64 [n] -> int, int64 [rows], int64 [rows, parts].
        """
        batch = self.network.batch_of(encoded, np.arange(BLOCK_ROWS))
        wanted = torch.zeros_like(hidden)
        wanted[np.arange(BLOCK_ROWS), asked] = True
        for column, at, _, logits in self.filling.guesses(self.network, batch, hidden, wanted):
            rows = at.cpu().numpy()
            drawn = [
                draw_choices(each.float().cpu().numpy(), seen, draws[rows, column, part])
                for part, (each, seen) in enumerate(zip(logits, self.makers[column].seen, strict=True))
            ]
            yield column, rows, np.stack(drawn, axis=1) if drawn else np.empty((len(rows), 0), np.int64)


class BlockFiller:
    """Fills what is hidden of the images of a column, block after block."""

    def __init__(self, network: Network, place: Place, maker: PatchMaker) -> None:
        assert network.filling is not None
        self.network, self.filling, self.place, self.maker = network, network.filling, place, maker
        start = place.first - min(each.first for each in self.filling.places if each.input == place.input)
        self.encoded = slice(start, start + place.n_tokens)
        """The blocks of the column in the array of its kind."""

    def fill(self, encoded: Encoded, hidden: torch.Tensor, random: np.random.Generator) -> np.ndarray:
        """Return the images of rows with what is hidden of them filled in random order, each block after those before.

        What is filled is written to `encoded`, and hidden no more. That an image is missing its first block says alone,
        and only where all of it is hidden. Several blocks are drawn at once, more and more: the later ones hardly
        change what others are.
        Source: Chang et al., "MaskGIT: Masked Generative Image Transformer" (2022), section 3.2; their order is by
        confidence, which makes images more alike than known ones are. Shapes: hidden bool [n, tokens] -> object [n].
        """
        n_rows, size = len(hidden), self.place.n_tokens
        keys, draws = random.random((n_rows, size)), random.random((n_rows, size))
        own: np.ndarray = hidden[:, self.place.tokens].cpu().numpy()
        ranks = np.where(own, keys, 2.0).argsort(axis=1).argsort(axis=1)
        seen = self.maker.seen[0]
        present = np.r_[False, seen[1:]]
        is_new = np.asarray(own.all(axis=1))
        blocks = encoded.arrays[self.place.input][:, self.encoded]
        for start, end in itertools.pairwise([0, *_ends(size)]):
            asked: np.ndarray = own & (ranks >= start) & (ranks < end)
            if not asked.any():
                continue
            rows, at, logits = self._guesses(encoded, hidden, asked)
            may_miss: np.ndarray = is_new[rows] & (start == 0)
            for chosen, allowed in ((may_miss, seen), (~may_miss, present)):
                if not chosen.any():
                    continue
                where = rows[chosen], at[chosen]
                numbers = draw_choices(logits[chosen], allowed, draws[where])
                blocks[where] = numbers.astype(np.uint8)[:, None]
                own[where[0][numbers == 0]] = False
            own &= ~asked
            hidden[:, self.place.tokens] = torch.from_numpy(own).to(hidden.device)
        return self.maker.cells(blocks[..., -1].astype(np.int64), draws)

    def expected(self, encoded: Encoded, hidden: torch.Tensor) -> np.ndarray:
        """Return what is expected of the pixels of each block: its patches, weighed by their probability.

        Shapes: bool [n, tokens] -> float64 [n, t, pixels of a block], 0 for blocks that are not hidden.
        """
        own = hidden[:, self.place.tokens].cpu().numpy()
        rows, at, logits = self._guesses(encoded, hidden, own)
        shares = np.exp(logits[:, 1:].astype(np.float64) - logits.max(axis=1, keepdims=True))
        pixels = np.zeros((*own.shape, self.maker.patches.shape[1]))
        pixels[rows, at] = shares / shares.sum(axis=1, keepdims=True) @ self.maker.patches[1:]
        return pixels

    def _guesses(
        self, encoded: Encoded, hidden: torch.Tensor, asked: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows, blocks and logits of the blocks asked for. Shapes: bool [n, t] -> int64 [k] twice, [k, c]."""
        batch = self.network.batch_of(encoded, np.arange(len(hidden)))
        wanted = torch.zeros_like(hidden)
        wanted[:, self.place.tokens] = torch.from_numpy(asked).to(hidden.device)
        ((_, rows, at, (logits,)),) = self.filling.guesses(self.network, batch, hidden, wanted)
        return rows.cpu().numpy(), at.cpu().numpy(), logits.float().cpu().numpy()


def _ends(size: int) -> list[int]:
    """Return after how many blocks each step ends: one at first, then more and more.

    >>> _ends(4), len(_ends(10_000)) == N_STEPS
    ([1, 2, 3, 4], True)
    """
    shares = 1 - np.cos(np.linspace(0, np.pi / 2, N_STEPS + 1)[1:])
    return np.unique((shares * size).round().clip(1).astype(int)).tolist()


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
