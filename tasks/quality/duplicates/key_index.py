"""Keep which keys each day takes, so that a night's keys are looked up and no history is read.

    data/valid/<product>/keys/2013-06.keys      of one month, in order of key and day

A file holds three arrays one after the other: the two halves of each key's digest (uint64 each) and the day (int32, as
days since 1970). It follows from the keys of its days alone. The arrays are mapped, not read: of two thousand keys only
the places where they would be are looked at. Whether a row repeats a key follows from the days before its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from tasks.runtime.files import atomic_file

Keys = np.ndarray
"""Digests of keys. Shapes: uint64 [n, 2]."""
KEYS_AT_ONCE = 2_000_000
"""Keys that are compared in one piece, by the first bits of their digests: memory does not grow with a history."""
NO_KEYS = np.empty((0, 2), np.uint64)
_EPOCH = date(1970, 1, 1)
_BYTES = 20


def distinct(keys: Keys) -> Keys:
    """Return each key once, in order. Shapes: uint64 [n, 2] -> uint64 [m, 2]."""
    ordered = keys[np.lexsort((keys[:, 1], keys[:, 0]))]
    return ordered[~_as_before(ordered)]


@dataclass(frozen=True)
class Taken:
    """Keys and the days that take them, in order of key and day."""

    high: np.ndarray
    """uint64 [n]."""
    low: np.ndarray
    """uint64 [n]."""
    day: np.ndarray
    """int32 [n]: days since 1970."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.high)

    def __getitem__(self, wanted: slice | np.ndarray) -> "Taken":
        """Return some of them."""
        return Taken(self.high[wanted], self.low[wanted], self.day[wanted])

    @property
    def keys(self) -> Keys:
        """Return the digests. Shapes: uint64 [n, 2]."""
        return np.stack([self.high, self.low], axis=1)

    @property
    def ordered(self) -> "Taken":
        """Return them in order of key and day."""
        return self[np.lexsort((self.day, self.low, self.high))]

    @classmethod
    def joined(cls, parts: Iterable["Taken"]) -> "Taken":
        """Return all of them."""
        found = [*parts, cls.on(NO_KEYS, _EPOCH)]
        return cls(*(np.concatenate([getattr(part, name) for part in found]) for name in ("high", "low", "day")))

    @classmethod
    def on(cls, keys: Keys, day: date) -> "Taken":
        """Return the keys of one day."""
        return cls(keys[:, 0], keys[:, 1], np.full(len(keys), day_number(day), np.int32))

    @classmethod
    def read(cls, file: Path) -> "Taken":
        """Map a file. Raises ValueError where it is none."""
        n, rest = divmod(file.stat().st_size, _BYTES)
        if rest or not n:
            raise ValueError("its length is none that an index of keys has")
        mapped = np.asarray(np.memmap(file, np.uint8, mode="r"))
        return cls(mapped[: 8 * n].view("<u8"), mapped[8 * n : 16 * n].view("<u8"), mapped[16 * n :].view("<i4"))

    def write(self, file: Path) -> None:
        """Write a file, whole or not at all."""
        with atomic_file(file) as temporary, temporary.open("wb") as handle:
            for part, dtype in ((self.high, "<u8"), (self.low, "<u8"), (self.day, "<i4")):
                handle.write(np.ascontiguousarray(part, dtype).tobytes())


def day_number(day: date) -> int:
    """Return the days since 1970."""
    return (day - _EPOCH).days


def day_of(number: int) -> date:
    """Return the date of so many days since 1970."""
    return _EPOCH + timedelta(days=int(number))


class KeyIndex:
    """The keys of all days of one product, by month, in a folder that may be changed."""

    def __init__(self, folder: Path) -> None:
        """Take a folder, which may not be there yet."""
        self.folder = folder
        self._read: dict[Path, Taken] = {}

    @property
    def is_empty(self) -> bool:
        """Return whether no day takes a key."""
        return not self._files()

    def keys_of(self, day: date) -> Keys:
        """Return the keys that a day takes, each once, in order. Shapes: uint64 [n, 2]."""
        file = self._file(f"{day:%Y-%m}")
        if not file.exists():
            return NO_KEYS
        month = self._month(file)
        return month[month.day == day_number(day)].keys

    def replace(self, month: str, taken: Mapping[date, Keys]) -> None:
        """Let days of one month take these keys, each given once, and no others."""
        file = self._file(month)
        numbers = np.array([day_number(day) for day in taken], np.int32)
        before = [self._month(file)] if file.exists() else []
        self._read.pop(file, None)
        kept = [each[~np.isin(each.day, numbers)] for each in before]
        found = Taken.joined([*kept, *(Taken.on(keys, day) for day, keys in taken.items())]).ordered
        if len(found):
            found.write(file)
        else:
            file.unlink(missing_ok=True)

    def days_that_take(self, keys: Keys) -> Taken:
        """Return the days that take some of these keys, with the keys."""
        return Taken.joined(self._matching(keys))

    def repeated(self) -> Taken:
        """Return all keys that an earlier day takes too, with the later days."""
        ordered = (piece.ordered for piece in self._pieces())
        return Taken.joined(piece[_as_before(piece.keys)] for piece in ordered)

    def _pieces(self) -> Iterator[Taken]:
        """Yield what all days take, in pieces of near keys."""
        months = [self._month(file) for file in self._files()]
        n_pieces = 1 + sum(map(len, months)) // KEYS_AT_ONCE
        limits = np.array([(i << 64) // n_pieces for i in range(1, n_pieces)], np.uint64)
        ends = [[0, *np.searchsorted(month.high, limits).tolist(), len(month)] for month in months]
        for i in range(n_pieces):
            yield Taken.joined(month[end[i] : end[i + 1]] for month, end in zip(months, ends, strict=True))

    def _matching(self, keys: Keys) -> Iterator[Taken]:
        """Yield, month by month, what is taken of some keys."""
        high = np.unique(keys[:, 0])
        for file in self._files() if len(high) else ():
            month = self._month(file)
            first = np.searchsorted(month.high, high)
            is_there = month.high[np.minimum(first, len(month) - 1)] == high
            first = first[is_there]
            n = np.searchsorted(month.high, high[is_there], "right") - first
            if len(n):
                at = np.repeat(first - np.concatenate([[0], n.cumsum()[:-1]]), n) + np.arange(n.sum())
                found = month[at]
                yield found[is_among(found.keys, keys)]

    def _month(self, file: Path) -> Taken:
        """Return what is taken in a month; each file is mapped once."""
        if file not in self._read:
            self._read[file] = Taken.read(file)
        return self._read[file]

    def _file(self, month: str) -> Path:
        return self.folder / f"{month}.keys"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.keys"))


def is_among(keys: Keys, known: Keys) -> np.ndarray:
    """Return which keys are among others. Shapes: uint64 [n, 2], [m, 2] -> bool [n]."""
    if not len(known):
        return np.zeros(len(keys), bool)
    together = np.concatenate([distinct(known), keys])
    order = np.lexsort((np.arange(len(together)), together[:, 1], together[:, 0]))
    ordered = together[order]
    starts = np.flatnonzero(~_as_before(ordered))
    is_known = order < len(together) - len(keys)  # a known key is the first of its group
    group = np.cumsum(~_as_before(ordered)) - 1
    found = np.zeros(len(together), bool)
    found[order] = is_known[starts][group]
    return found[len(together) - len(keys) :]


def is_repeated(keys: Keys) -> np.ndarray:
    """Return whether an earlier row has the same key. Shapes: uint64 [n, 2] -> bool [n]."""
    order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))
    found = np.zeros(len(keys), bool)
    found[order] = _as_before(keys[order])
    return found


def _as_before(ordered: Keys) -> np.ndarray:
    """Return which keys are equal to the one before them. Shapes: uint64 [n, 2] -> bool [n]."""
    found = np.zeros(len(ordered), bool)
    found[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return found
