"""The plain recommender that a Transformer must beat: a mixture of popularity, the last item's next, and histories.

Each part is a distribution over the items: how often each is next at all; the shares of the row's own history; how
often each follows the row's last item (a Markov chain); and, for every other category column, how often each is next
where that column has the row's value, which for the column of a user is what this user had. The weights are those of
the highest likelihood on the validation rows, of which the parts know nothing; then the parts count these rows too.

Source: Dempster, Laird and Rubin 1977 (weights of a mixture by EM; with fixed parts its maximum is the only one).
"""

from collections.abc import Iterator, Mapping

import numpy as np
from scipy import sparse

from model.features.fitting import Table
from model.features.kinds import CATEGORY, columns_of
from model.heads.item_lists import best
from model.target import Target

N_STEPS = 200
LEAST_SHARE = 1e-9
CHUNK_NUMBERS = 20_000_000
"""Shares that lie in memory at once."""
POPULARITY, HISTORY = "popularity", "history"


class ItemMixture:
    """A fitted mixture with the `score` of `model.scoring.scorer.Scorer`."""

    def __init__(self, kinds: dict[str, str], table: Table, y: np.ndarray, target: Target, seed: int) -> None:
        """Count the rows. Shapes: y int64 [n], numbers of the target's classes."""
        self.target, self.seed = target, seed
        self.item = {name: number for number, name in enumerate(target.classes)}
        popular = np.bincount(y, minlength=len(self.item)).astype(np.float64)
        self.popularity = popular / popular.sum()
        # Of the history's columns the last item's alone: the others are in its shares.
        hidden = {*target.history[1:], *target.exclude} - set(target.history[:1])
        names = [name for name in columns_of(kinds, CATEGORY) if name not in hidden]
        self.following = {name: _Following(table[name], y, len(self.item)) for name in names}
        self.weights = dict.fromkeys((POPULARITY, HISTORY, *names), 1.0)

    def parts(self, table: Table) -> dict[str, np.ndarray]:
        """Return the distributions of rows, all 0 where a part knows nothing. Shapes: each float64 [n, C]."""
        n_rows = len(next(iter(table.values())))
        return {
            POPULARITY: np.broadcast_to(self.popularity, (n_rows, len(self.popularity))),
            HISTORY: self.named(table, self.target.history, by_place=True),
            **{name: each.shares(table[name]) for name, each in self.following.items()},
        }

    def named(self, table: Table, columns: tuple[str, ...], *, by_place: bool) -> np.ndarray:
        """Return the shares of the items that columns name, the first column's weighing most. Shapes: [n, C]."""
        n_rows = len(next(iter(table.values())))
        shares = np.zeros((n_rows, len(self.item) + 1))
        for place, name in enumerate(columns):
            numbers = np.array([self.item.get(cell, len(self.item)) for cell in table[name]], np.int64)
            shares[np.arange(n_rows), numbers] += 1 / (place + 1) if by_place else 1
        shares = shares[:, :-1]
        return shares / np.maximum(shares.sum(1, keepdims=True), LEAST_SHARE)

    def score(self, table: Table) -> np.ndarray:
        """Return the lists of rows, equal scores in random order. Shapes: float32 [n, k, 2]."""
        random = np.random.default_rng(self.seed)
        lists = []
        for piece in _pieces(table, self._chunk_rows):
            found = self.parts(piece)
            total = sum(self.weights[name] * _known(shares) for name, shares in found.items())
            mixed = sum(self.weights[name] * shares for name, shares in found.items()) / np.maximum(total, LEAST_SHARE)
            is_out = self.named(piece, self.target.exclude, by_place=False) > 0
            lists.append(best(np.where(is_out, -1.0, mixed), self.target.top, random))
        return np.concatenate(lists)

    @property
    def _chunk_rows(self) -> int:
        """Return the rows of which all parts have their shares in memory at once."""
        return max(1, CHUNK_NUMBERS // (len(self.weights) * len(self.item)))

    def shares_of_labels(self, table: Table, y: np.ndarray) -> dict[str, np.ndarray]:
        """Return what each part gives to the label of each row. Shapes: each float64 [n]."""
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.weights}
        first = 0
        for piece in _pieces(table, self._chunk_rows):
            for name, shares in self.parts(piece).items():
                found[name].append(shares[np.arange(len(shares)), y[first : first + len(shares)]])
            first += len(next(iter(piece.values())))
        return {name: np.concatenate(each) for name, each in found.items()}


class _Following:
    """How often each item is next by the value of a column."""

    def __init__(self, column: np.ndarray, y: np.ndarray, n_items: int) -> None:
        self.number: dict[object, int] = {}
        rows = np.array([self.number.setdefault(cell, len(self.number)) for cell in column], np.int64)
        shape = (len(self.number) + 1, n_items)
        counts = sparse.csr_matrix((np.ones(len(y)), (rows, y)), shape)
        totals = np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
        self.by_value = sparse.diags(1 / totals).dot(counts).tocsr()

    def shares(self, column: np.ndarray) -> np.ndarray:
        unknown = len(self.number)
        rows = np.array([unknown if cell is None else self.number.get(cell, unknown) for cell in column], np.int64)
        return self.by_value[rows].toarray()


def fit_item_mixture(
    kinds: dict[str, str], table: Table, y: np.ndarray, target: Target, n_counted: int, seed: int
) -> ItemMixture:
    """Fit to the rows of `table`: parts to the first `n_counted`, weights to the others, then parts to all."""
    counted = {name: column[:n_counted] for name, column in table.items()}
    unseen = {name: column[n_counted:] for name, column in table.items()}
    first = ItemMixture(kinds, counted, y[:n_counted], target, seed)
    mixture = ItemMixture(kinds, table, y, target, seed)
    if len(y) > n_counted:
        mixture.weights = _weights(first.shares_of_labels(unseen, y[n_counted:]))
    return mixture


def _weights(shares: Mapping[str, np.ndarray]) -> dict[str, float]:
    each = np.stack(list(shares.values()), axis=1) + LEAST_SHARE
    weights = np.full(each.shape[1], 1 / each.shape[1])
    for _ in range(N_STEPS):
        blame = each * weights
        weights = (blame / blame.sum(1, keepdims=True)).mean(0)
    return dict(zip(shares, weights.tolist(), strict=True))


def _known(shares: np.ndarray) -> np.ndarray:
    """Return 1 for the rows of which a part knows something, else 0. Shapes: [n, C] -> float64 [n, 1]."""
    return (shares.sum(1, keepdims=True) > 0).astype(np.float64)


def _pieces(table: Table, n_rows: int) -> Iterator[Table]:
    n = len(next(iter(table.values())))
    for first in range(0, max(1, n), n_rows):
        yield {name: column[first : first + n_rows] for name, column in table.items()}
