"""Where answers stand in texts: in characters, and in the subwords of windows."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from model.features.encoded import Encoded

MAX_OCCURRENCES = 64
"""Places of an answer in its text that are learnt from, the first ones."""
PADDING, NO_ANSWER = -1, -2
"""In the place of a window: beyond the last occurrence; of a row whose text has no answer."""


def occurrences(text: str, answer: str) -> list[int]:
    """Return where an answer stands in a text, as a word of its own where it does so anywhere, at most the first ones.

    >>> occurrences("in 2005, 5 of 15", "5"), occurrences("a2005", "20"), occurrences("none", "x")
    ([9], [1], [])
    """
    if not answer:
        return []
    found = [each.start() for each in re.finditer(f"(?={re.escape(answer)})", text)]
    alone = [at for at in found if not _is_inside_word(text, at, at + len(answer))]
    return (alone or found)[:MAX_OCCURRENCES]


def _is_inside_word(text: str, start: int, end: int) -> bool:
    before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    return before or (end < len(text) and text[end].isalnum() and text[end - 1].isalnum())


@dataclass(frozen=True)
class SpanLabels:
    """The places of answers in the windows of rows."""

    places: np.ndarray
    """int32 [k, 3]: of each occurrence the window of its row, the first and the last subword in that window."""
    offsets: np.ndarray
    """int64 [n + 1]: where those of each row begin; a row without any has an answer that is not read."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, encoded: Encoded, texts: Iterable[str | None], answers: Iterable[str | None]) -> "SpanLabels":
        """Find the answers in the windows of encoded rows; an empty answer is none."""
        found = [
            [(NO_ANSWER, 0, 0)] if not answer else _places_in(encoded, row, text or "", answer)
            for row, (text, answer) in enumerate(zip(texts, answers, strict=True))
        ]
        places = np.array([each for row in found for each in row], np.int32).reshape(-1, 3)
        return cls(places, np.r_[0, np.cumsum([len(row) for row in found])].astype(np.int64))

    @classmethod
    def joined(cls, parts: Sequence["SpanLabels"]) -> "SpanLabels":
        """Return those of several pieces, one after the other."""
        lengths = np.concatenate([np.diff(each.offsets) for each in parts])
        return cls(np.concatenate([each.places for each in parts]), np.r_[0, np.cumsum(lengths)].astype(np.int64))

    @property
    def lengths(self) -> np.ndarray:
        """Return the subwords of each occurrence, 0 of none. Shapes: int64 [k]."""
        has_answer = self.places[:, 0] != NO_ANSWER
        return np.where(has_answer, self.places[:, 2] - self.places[:, 1] + 1, 0).astype(np.int64)

    def summary(self, answers: Iterable[str], longest: int) -> str:
        """Return how often answers of rows stand in what is read of their texts, in words."""
        n_places = np.diff(self.offsets)
        has_answer = np.array([bool(answer) for answer in answers], bool)
        is_short = np.bincount(np.repeat(np.arange(len(self)), n_places), self.lengths <= longest, len(self)) > 0
        return (
            f"of {len(self):,} rows {int((~has_answer).sum()):,} have no answer, in "
            f"{int((has_answer & (n_places > 1)).sum()):,} it is read more than once and each place counts, and "
            f"{int((has_answer & ~is_short).sum()):,} have one that is not read or longer than {longest} subwords"
        )

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """Return the occurrences of rows. Shapes: int64 [b] -> int64 [b, most, 3], PADDING beyond the last."""
        from model.features.ragged import padded

        return padded(self.places, self.offsets, rows, np.int64(PADDING))


def _places_in(encoded: Encoded, row: int, text: str, answer: str) -> list[tuple[int, int, int]]:
    """Return the occurrences of an answer that lie whole in a window of a row."""
    offsets, windows = encoded["offsets"], encoded.window_offsets
    first, end = (row, row + 1) if windows is None else (int(windows[row]), int(windows[row + 1]))
    found, starts = [], occurrences(text, answer)
    for window in range(first, end):
        places = encoded["places"][offsets[window] : offsets[window + 1]]
        at = np.flatnonzero(places[:, 1] > places[:, 0])
        if not len(at):
            continue
        begins, ends = places[at, 0], places[at, 1]
        for start in starts:
            low = int(np.searchsorted(ends, start, side="right"))
            high = int(np.searchsorted(begins, start + len(answer), side="left")) - 1
            if low <= high < len(at) and begins[low] <= start and ends[high] >= start + len(answer):
                found.append((window - first, int(at[low]), int(at[high])))
    return found
