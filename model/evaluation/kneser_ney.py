"""A language model that counts: which subword follows which three, by interpolated Kneser-Ney smoothing.

Source: Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (1999), section 2.7 and
equation 2.12, with the discount of each order from its counts of one and two (Ney, Essen and Kneser 1994).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

ORDER = 4
BITS_PER_SUBWORD = 16
"""ORDER subwords are one number of 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What follows which contexts of one length."""

    grams: np.ndarray
    """uint64, ascending: contexts with what follows."""
    counts: np.ndarray
    """float64: how often each was seen; of shorter ones than the longest, after how many different subwords."""
    contexts: np.ndarray
    """uint64, ascending."""
    totals: np.ndarray
    """float64: the sum of the counts after each context."""
    n_different: np.ndarray
    """float64: how many different subwords came after each."""
    discount: float
    """Taken from each count."""

    @classmethod
    def of(cls, grams: np.ndarray, counts: np.ndarray) -> "Counts":
        """Sum up what was counted. Shapes: uint64 [g], ascending, and float64 [g]."""
        contexts, place = np.unique(grams >> np.uint64(BITS_PER_SUBWORD), return_inverse=True)
        ones, twos = (counts == 1).sum(), (counts == 2).sum()
        return cls(
            grams=grams,
            counts=counts,
            contexts=contexts,
            totals=np.bincount(place, counts, len(contexts)),
            n_different=np.bincount(place, minlength=len(contexts)).astype(float),
            discount=float(ones / (ones + 2 * twos)) if ones and twos else 0.5,
        )

    def shares(self, grams: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """Return the share of each last subword after the others, given that by shorter contexts. Shapes: [n]."""
        count = _looked_up(self.grams, self.counts, grams)
        contexts = grams >> np.uint64(BITS_PER_SUBWORD)
        total, different = (_looked_up(self.contexts, each, contexts) for each in (self.totals, self.n_different))
        known = np.maximum(total, 1)
        return np.where(
            total > 0,
            np.maximum(count - self.discount, 0) / known + self.discount * different / known * shorter,
            shorter,
        )


@dataclass(frozen=True, kw_only=True)
class KneserNey:
    """The counts of all lengths, the shortest first."""

    orders: tuple[Counts, ...]
    n_subwords: int
    """Subwords of the vocabulary, alike where nothing was counted."""
    start_id: int
    """Stands before every text."""

    @classmethod
    def fit(cls, texts: Iterable[Sequence[int] | np.ndarray], n_subwords: int, start_id: int) -> "KneserNey":
        """Count texts, each with what closes it.

        >>> model = KneserNey.fit([[1, 2, 0]] * 3, n_subwords=3, start_id=0)
        >>> round(sum(float(np.exp(-model.nats([1, word])[1])) for word in range(3)), 6)
        1.0

        Raises: ValueError for a vocabulary that does not fit into the numbers.
        """
        if n_subwords > 1 << BITS_PER_SUBWORD:
            raise ValueError(f"n_subwords must be at most {1 << BITS_PER_SUBWORD}, got {n_subwords}; use fewer")
        grams = [_grams(text, start_id) for text in texts]
        longest, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *grams]), return_counts=True)
        orders = [Counts.of(longest, counts.astype(float))]
        for length in range(ORDER - 1, 0, -1):
            # How often each shorter one ends a longer one that was seen: after how many different subwords.
            mask = np.uint64((1 << BITS_PER_SUBWORD * length) - 1)
            shorter, after = np.unique(orders[0].grams & mask, return_counts=True)
            orders.insert(0, Counts.of(shorter, after.astype(float)))
        return cls(orders=tuple(orders), n_subwords=n_subwords, start_id=start_id)

    def nats(self, text: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the negative log-likelihood of each subword of a text. Shapes: -> float64 [n]."""
        grams = _grams(text, self.start_id)
        shares = np.full(len(grams), 1 / self.n_subwords)
        for length, counts in enumerate(self.orders, start=1):
            shares = counts.shares(grams & np.uint64((1 << BITS_PER_SUBWORD * length) - 1), shares)
        return -np.log(shares)


def _grams(text: Sequence[int] | np.ndarray, start_id: int) -> np.ndarray:
    """Return each subword with the three before it as one number. Shapes: [n] -> uint64 [n]."""
    padded = np.concatenate([np.full(ORDER - 1, start_id), np.asarray(text, np.int64)]).astype(np.uint64)
    grams = np.zeros(len(text), np.uint64)
    for place in range(ORDER):
        grams = (grams << np.uint64(BITS_PER_SUBWORD)) | padded[place : place + len(text)]
    return grams


def _looked_up(names: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value of each wanted name, 0 for one that is not there."""
    place = np.searchsorted(names, wanted).clip(max=max(0, len(names) - 1))
    if not len(names):
        return np.zeros(len(wanted))
    return np.where(names[place] == wanted, values[place], 0.0)
