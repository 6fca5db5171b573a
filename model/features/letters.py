"""The beginnings of texts as letter groups: 2 to 5 letters within a word, its ends included.

Names, models and single words repeat in parts, and few rows hold no word twice. Groups are numbered by a hash of their
letters, the same on every machine; nothing is fitted.

Source: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning".
"""

import numpy as np

N_SLOTS = 131_072
"""Numbers that groups share, a power of 2: of the groups in six thousand words a fifth shares one."""
N_SLOTS_BEFORE = 32_768
"""The same in models of before."""
N_LETTERS = 128
"""Letters of each text that are read: names and titles whole, of long texts the beginning."""
SIZES = (2, 3, 4, 5)
SPACE = 32
FACTOR, MIXER = np.uint64(1_000_003), np.uint64(0x9E3779B97F4A7C15)


def letter_groups(column: np.ndarray, n_slots: int = N_SLOTS) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of all groups of letters of a column, and their numbers; small and capital letters are one.

    `n_slots`: how many numbers there are, a power of 2.
    Shapes: object [n] (str or None) -> int64 [groups], int64 [groups].

    >>> rows, slots = letter_groups(np.array(["Ab", None, "ab"], object))  # " a", "ab", "b ", " ab", "ab ", " ab "
    >>> rows[np.argsort(rows, kind="stable")].tolist(), set(slots[rows == 0]) == set(slots[rows == 2])
    ([0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2], True)
    """
    texts = [" ".join(["", *(text or "")[:N_LETTERS].lower().split(), ""]) for text in column]
    row = np.repeat(np.arange(len(texts)), np.fromiter(map(len, texts), np.int64, len(texts)))
    letters = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    n_spaces = np.r_[0, np.cumsum(letters == SPACE)]
    unused = np.uint64(64 - n_slots.bit_length() + 1)
    rows, slots, groups = [np.empty(0, np.int64)], [np.empty(0, np.int64)], letters
    for size in SIZES:
        groups = groups[:-1] * FACTOR + letters[size - 1 :]
        starts = np.arange(len(groups))
        # Of one row, and without a space between its ends.
        is_one = (row[starts] == row[starts + size - 1]) & (n_spaces[starts + size - 1] == n_spaces[starts + 1])
        rows.append(row[starts[is_one]])
        slots.append(((groups[is_one] * MIXER) >> unused).astype(np.int64))
    return np.concatenate(rows), np.concatenate(slots)
