"""The baseline of rows without labels: how often the values of two columns occur together.

A value's bits are the mean, over all other columns, of what it has beside the value there. Numbers and times count by
bins of equally many rows.

Shape legend: n rows, m columns that are guessed, p parts of columns: a time has several.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Self

import numpy as np

from model.features.fitting import Table
from model.features.kinds import guessed_columns, kind_class

N_BINS = 32
PRIOR = 4.0
"""Rows that the share of a value among all rows weighs beside those with the other value."""
UNSEEN = -1
"""The number of a value that no fitted row has."""


@dataclass(frozen=True)
class Counted:
    """How often each number occurs."""

    numbers: np.ndarray
    """int64, ascending."""
    counts: np.ndarray
    """int64, of each."""

    @classmethod
    def of(cls, numbers: np.ndarray) -> Self:
        """Count the numbers."""
        return cls(*np.unique(numbers, return_counts=True))

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        """Return how often each of the numbers was counted. Shapes: int64 [n] -> int64 [n]."""
        at = np.searchsorted(self.numbers, numbers).clip(max=len(self.numbers) - 1)
        return np.where(self.numbers[at] == numbers, self.counts[at], 0)


class Part:
    """One part of a column, whose values have numbers."""

    def __init__(self, column: int, values: np.ndarray) -> None:
        self.column, self.is_number = column, values.dtype != object
        if self.is_number:
            known = values[~np.isnan(values)]
            inner = np.quantile(known, np.linspace(0, 1, N_BINS + 1)[1:-1]) if len(known) else np.empty(0)
            self.edges = np.unique(inner)
            self.n_values = len(self.edges) + 2
        else:
            self.known = {value: number for number, value in enumerate(dict.fromkeys(values.tolist()))}
            self.n_values = len(self.known)

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Return the number of each value. Shapes: [n] -> int64 [n]."""
        if self.is_number:
            return np.where(np.isnan(values), len(self.edges) + 1, np.searchsorted(self.edges, values, "right"))
        return np.fromiter((self.known.get(value, UNSEEN) for value in values.tolist()), np.int64, len(values))


class Cooccurrence:
    """Counts of values and of pairs of them, with the `score` of `model.scoring.scorer.Scorer`."""

    def __init__(self, kinds: dict[str, str], parts: list[Part], n_rows: int) -> None:
        self.kinds, self.parts, self.n_rows = kinds, parts, n_rows
        self.alone: list[Counted] = []
        self.expected = np.empty(0)
        """float64 [m]: the mean bits of each column's cells in the fitted rows."""
        self.pairs: Mapping[tuple[int, int], Counted] = {}

    @classmethod
    def fit(cls, kinds: dict[str, str], table: Table) -> Self:
        """Count the values of the rows."""
        values = _values(kinds, table)
        parts = [Part(column, each) for column, each in values]
        codes = [part.codes(each) for part, (_, each) in zip(parts, values, strict=True)]
        fitted = cls(kinds, parts, len(codes[0]))
        fitted.alone = [Counted.of(each) for each in codes]
        fitted.pairs = {
            (one, other): Counted.of(codes[one] * parts[other].n_values + codes[other])
            for one, other in permutations(range(len(parts)), 2)
            if parts[one].column != parts[other].column
        }
        fitted.expected = fitted.bits(codes).mean(axis=0)
        return fitted

    def score(self, table: Table) -> np.ndarray:
        """Return the bits of each cell, those expected, and no likeliest choice. Shapes: float32 [n, 3 m]."""
        codes = [part.codes(each) for part, (_, each) in zip(self.parts, _values(self.kinds, table), strict=True)]
        bits = self.bits(codes)
        return np.c_[bits, np.broadcast_to(self.expected, bits.shape), np.zeros_like(bits)].astype(np.float32)

    def bits(self, codes: list[np.ndarray]) -> np.ndarray:
        """Return the bits of each cell. Shapes: int64 [n] of each part -> float64 [n, m]."""
        scores = np.zeros((len(codes[0]), len(guessed_columns(self.kinds))))
        for own, part in enumerate(self.parts):
            share = (self.alone[own][codes[own]] + 1) / (self.n_rows + part.n_values)
            beside = [
                -np.log2(
                    (self._together(other, own, codes) + PRIOR * share) / (self.alone[other][codes[other]] + PRIOR)
                )
                for other in range(len(self.parts))
                if (other, own) in self.pairs
            ]
            scores[:, part.column] += np.mean(beside, axis=0)
        return scores

    def _together(self, other: int, own: int, codes: list[np.ndarray]) -> np.ndarray:
        seen = (codes[other] != UNSEEN) & (codes[own] != UNSEEN)
        counts = self.pairs[other, own][codes[other] * self.parts[own].n_values + codes[own]]
        return np.where(seen, counts, 0)


def _values(kinds: dict[str, str], table: Table) -> list[tuple[int, np.ndarray]]:
    """Return the number of the column, and the values, of each part. Shapes: [n] each."""
    parts: list[tuple[int, np.ndarray]] = []
    for number, name in enumerate(guessed_columns(kinds)):
        kind = kind_class(kinds[name])
        if kind.reads_as == "labels":
            parts.append((number, table[name]))
        else:
            parts += [(number, each) for each in kind.counted_numbers(table[name]).astype(np.float64).T]
    return parts
