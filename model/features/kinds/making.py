"""Make cells of columns: what a network guesses as one of a few choices becomes a value, as known rows have them.

A choice is often coarser than a cell, as a bin is than a number. Which value it becomes is drawn from the cells of
known rows that lie in it, each as often as it occurs there; what no known cell lies in is never chosen.

Shape legend: n cells, c known cells, p parts of a column's guess.
"""

from abc import ABC, abstractmethod

import numpy as np

from model.features.kinds.patches import image_of, patches_of
from model.features.pixels import Picture

N_DRAWS = 2
"""Numbers that each cell is drawn by, beside those of its choices."""
REPEATED = 0.5
"""Share of different values among a bin's cells up to which they are values that occur again, such as a price."""
MAX_DECIMALS = 12


class Maker(ABC):
    """Makes cells of one column."""

    seen: tuple[np.ndarray, ...]
    """bool [choices] of each part: which the known cells have."""

    @abstractmethod
    def cells(self, choices: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Return a cell for each row's choices. Shapes: int64 [n, p], float64 [n, N_DRAWS] from 0 to below 1 -> [n]."""


class Grouped:
    """Values in groups, from which one is drawn."""

    def __init__(self, values: np.ndarray, groups: np.ndarray, n_groups: int) -> None:
        """Take the values, each in the group of the same place. Shapes: [c], int64 [c]."""
        order = np.lexsort((values, groups))
        self.values = values[order]
        self.starts = np.searchsorted(groups[order], np.arange(n_groups + 1))

    @property
    def sizes(self) -> np.ndarray:
        """Return how many values each group has. Shapes: int64 [groups]."""
        return np.diff(self.starts)

    def draw(self, groups: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Return one of the values of each group, none of which is empty. Shapes: int64 [n], float64 [n] -> [n].

        >>> Grouped(np.array([7, 5, 9]), np.array([0, 0, 1]), 2).draw(np.array([0, 0, 1]), np.array([0.1, 0.9, 0.5]))
        array([5, 7, 9])
        """
        sizes = self.sizes[groups]
        return self.values[self.starts[groups] + np.minimum((draws * sizes).astype(np.int64), sizes - 1)]


class WordMaker(Maker):
    """Makes words, of which each choice is one."""

    def __init__(self, names: np.ndarray, slots: np.ndarray) -> None:
        """Take what each choice is called and those of the known cells. Shapes: object [choices], int64 [c]."""
        self.names = names
        self.seen = (np.bincount(slots, minlength=len(names)) > 0,)

    def cells(self, choices: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Return the words themselves; None for missing."""
        return self.names[choices[:, 0]]


class NumberMaker(Maker):
    """Makes numbers of bins: one that known cells have, or where hardly two of a bin are the same one between two."""

    def __init__(self, known: np.ndarray, bins: np.ndarray, n_choices: int) -> None:
        """Take known cells and their bins, of which the last are missing cells. Shapes: float64 [c], int64 [c]."""
        present = bins < n_choices - 1
        self.grouped = Grouped(known[present], bins[present], n_choices - 1)
        self.seen = (np.append(self.grouped.sizes > 0, not present.all()),)
        self.decimals = _decimals(known[present])
        begins = np.r_[True, np.diff(self.grouped.values) != 0] if present.any() else np.empty(0, bool)
        of_value = np.repeat(np.arange(n_choices - 1), self.grouped.sizes)
        n_different = np.bincount(of_value, weights=begins, minlength=n_choices - 1)
        self.is_smooth = n_different > REPEATED * self.grouped.sizes

    def cells(self, choices: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Return numbers with as many decimals as known ones have; NaN for missing."""
        made = np.full(len(choices), np.nan)
        rows = np.flatnonzero(choices[:, 0] < len(self.is_smooth))
        bins, draw = choices[rows, 0], draws[rows, 0]
        made[rows] = self.grouped.draw(bins, draw)
        smooth = self.is_smooth[bins]
        rows, bins, draw = rows[smooth], bins[smooth], draw[smooth]
        place = draw * (self.grouped.sizes[bins] - 1)
        low = self.grouped.starts[bins] + place.astype(np.int64)
        high = np.minimum(low + 1, self.grouped.starts[bins + 1] - 1)
        values, share = self.grouped.values, place % 1
        made[rows] = np.round(values[low] * (1 - share) + values[high] * share, self.decimals)
        return made


class TimeMaker(Maker):
    """Makes times of hour, weekday and month: a known date that fits the latter, with a known second of that hour."""

    def __init__(self, known: np.ndarray, parts: np.ndarray, n_choices: tuple[int, ...], hour: int | None) -> None:
        """Take known times, their choices and of which part the hour is, if it is guessed.

        Shapes: datetime64[s] [c], int64 [c, p].
        """
        present = ~np.isnat(known)
        counts = [np.bincount(parts[:, part], minlength=n) > 0 for part, n in enumerate(n_choices)]
        # Whether a time is missing the first part says alone.
        self.seen = tuple(np.append(each[:-1], each[-1] and not part) for part, each in enumerate(counts))
        self.n_choices, self.hour = n_choices, hour
        days = known[present].astype("datetime64[D]")
        seconds = (known[present] - days).astype(np.int64)
        kept = parts[present]
        hours = kept[:, hour] if hour is not None else np.zeros(len(kept), np.int64)
        self.seconds = Grouped(seconds, hours, 1 if hour is None else n_choices[hour])
        self.day_parts = [part for part in range(len(n_choices)) if part != hour]
        # Dates by all of their parts, by all but the last, and so on: a date for choices that no known one has.
        self.dates = [
            Grouped(days, self._number(kept, n_parts), self._n_groups(n_parts))
            for n_parts in range(len(self.day_parts), -1, -1)
        ]

    def cells(self, choices: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Return times to the second; NaT for missing."""
        made = np.full(len(choices), "NaT", "datetime64[s]")
        is_there = choices[:, 0] < self.n_choices[0] - 1 if self.n_choices else np.zeros(len(choices), bool)
        rows = np.flatnonzero(is_there)
        if not len(rows):
            return made
        hours = choices[rows, self.hour] if self.hour is not None else np.zeros(len(rows), np.int64)
        days, left = np.full(len(rows), "NaT", "datetime64[D]"), np.ones(len(rows), bool)
        for dates, n_parts in zip(self.dates, range(len(self.day_parts), -1, -1), strict=True):
            groups = self._number(choices[rows], n_parts)
            fits = left & (dates.sizes[groups] > 0)
            days[fits] = dates.draw(groups[fits], draws[rows[fits], 0])
            left &= ~fits
        made[rows] = days.astype("datetime64[s]") + self.seconds.draw(hours, draws[rows, 1]).astype("timedelta64[s]")
        return made

    def _number(self, parts: np.ndarray, n_parts: int) -> np.ndarray:
        """Return the first parts of dates as one number. Shapes: int64 [n, p] -> int64 [n]."""
        number = np.zeros(len(parts), np.int64)
        for part in self.day_parts[:n_parts]:
            number = number * self.n_choices[part] + parts[:, part]
        return number

    def _n_groups(self, n_parts: int) -> int:
        return int(np.prod([self.n_choices[part] for part in self.day_parts[:n_parts]], dtype=np.int64))


class PatchMaker(Maker):
    """Makes images of patches, one for each block; that an image is missing is number 0 of all its blocks."""

    def __init__(self, picture: Picture, known: np.ndarray) -> None:
        """Take what blocks are read by, and the numbers of known images' patches. Shapes: uint8 [c, blocks]."""
        self.picture = picture
        self.patches = np.concatenate([np.zeros_like(patches_of(picture)[:1]), patches_of(picture)])
        """uint8 [1 + patches, pixels of a block]: those of each number."""
        self.seen = (np.bincount(known.ravel(), minlength=len(self.patches)) > 0,)

    def cells(self, choices: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Return images as they are stored; None for missing. Shapes: int64 [n, blocks] -> object [n]."""
        made = np.full(len(choices), None, object)
        for row in np.flatnonzero(choices.all(axis=1)):
            side = self.picture.side
            made[row] = image_of(self.patches[choices[row]], side, side, self.picture.channels)
        return made


def _decimals(values: np.ndarray) -> int:
    """Return how many decimals suffice for numbers, MAX_DECIMALS at most.

    >>> _decimals(np.array([2.5, 3.0, -0.25]))
    2
    """
    for decimals in range(MAX_DECIMALS):
        if (np.round(values, decimals) == values).all():
            return decimals
    return MAX_DECIMALS
