"""What lies between a table and the network: rows as arrays, and the sizes both sides agree on."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the network must know about its inputs."""

    n_categories: tuple[int, ...]
    """Slots per category column, the missing and the unknown slot included."""
    edges: tuple[tuple[float, ...], ...]
    """Bin edges per number column."""
    cycles: tuple[tuple[int, ...], ...]
    """Per time column, which of its parts are read: those whose period the fitted rows span."""
    n_texts: int
    """Text columns."""
    n_subwords: int
    """Subword vocabulary; 1 (for [CLS] alone) without text."""
    max_tokens: int
    """Text tokens per row at most."""
    cls_id: int = 0
    """Subword id of [CLS]."""
    sep_id: int = 0
    """Subword id of [SEP]."""
    pad_id: int = 0
    """Subword id of [PAD]."""
    mask_id: int = 0
    """Subword id of [MASK]."""

    @property
    def n_times(self) -> int:
        """Time columns."""
        return len(self.cycles)

    @property
    def n_columns(self) -> int:
        """Columns that become one token each."""
        return len(self.n_categories) + len(self.edges) + self.n_times


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A table as arrays; a column kind that is absent has width 0."""

    categories: np.ndarray
    """int64 [n, category columns]: slots."""
    numbers: np.ndarray
    """float32 [n, number columns]: scaled, NaN for missing."""
    times: np.ndarray
    """float32 [n, time columns, 3]: minute of day, day of week (Monday 0), day of year (from 0), or NaN."""
    text: np.ndarray
    """int32 [sum of lengths]: subword ids of all rows, end to end."""
    offsets: np.ndarray
    """int64 [n + 1]: where each row's subwords begin."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row as the network sees it, [CLS] included. Shapes: int64 [n]."""
        columns = self.categories.shape[1] + self.numbers.shape[1] + self.times.shape[1]
        return 1 + columns + np.diff(self.offsets)
