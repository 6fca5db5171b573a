"""What lies between a table and the network: rows as arrays, and the sizes both sides agree on."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

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
    """Text tokens per window at most."""
    n_context: int = 0
    """Context columns, which become no token."""
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
    """int64 [n + 1]: where each row's subwords begin; of rows in w windows, [w + 1]: where each window's do."""
    window_offsets: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """int64 [n + 1]: where each row's windows begin; empty where each row is one."""
    context: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """float32 [n, context columns]: in standard deviations from the mean, 0 for missing."""
    bag: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    """int32 [sum of sizes]: the different subwords of each row, end to end, as `subwords.bags` numbers them."""
    bag_weights: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """float32, as many: how much each of them says by its number."""
    bag_offsets: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """int64 [n + 1]: where each row's bag begins; empty without bags."""
    pooled: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """float32 [n, d]: what the encoder says of each row, where that is known already; else empty."""

    def __len__(self) -> int:
        return len(self.window_offsets if self.window_offsets.size else self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row's longest window as the network sees it, [CLS] included. Shapes: int64 [n]."""
        return self._of_windows(np.maximum)

    @property
    def n_tokens(self) -> np.ndarray:
        """Tokens of each row in all its windows. Shapes: int64 [n]."""
        return self._of_windows(np.add)

    def _of_windows(self, over: np.ufunc) -> np.ndarray:
        columns = self.categories.shape[1] + self.numbers.shape[1] + self.times.shape[1]
        lengths = 1 + columns + np.diff(self.offsets)
        return over.reduceat(lengths, self.window_offsets[:-1]) if self.window_offsets.size else lengths

    @property
    def n_windows(self) -> np.ndarray:
        """Windows of each row. Shapes: int64 [n]."""
        return np.diff(self.window_offsets) if self.window_offsets.size else np.ones(len(self), np.int64)


def on_disk(pieces: Iterable[Encoded], folder: Path) -> Encoded:
    """The pieces, of which there is at least one, end to end in memory-mapped files, for rows that memory cannot hold.

    The files lie on the disk of `folder`, have no name, and are gone with the arrays or with the process that made
    them, whatever ends it.
    """
    names = [each.name for each in fields(Encoded)]
    with ExitStack() as closing:
        files = {name: closing.enter_context(TemporaryFile(dir=folder)) for name in names}
        ends: dict[str, int] = {}
        for piece in pieces:
            for name, file in files.items():
                array = getattr(piece, name)
                if name.endswith("offsets") and array.size:
                    # Where a piece begins, the one before it has ended.
                    array = array[int(name in ends) :] + ends.get(name, 0)
                    ends[name] = int(array[-1]) if array.size else ends[name]
                # Not as bytes of its own: a piece may itself be larger than memory.
                file.write(np.ascontiguousarray(array).data)
        ends_of_rows = files["window_offsets" if piece.window_offsets.size else "offsets"]
        n_rows = ends_of_rows.tell() // piece.offsets.itemsize - 1
        return Encoded(**{name: _mapped(files[name], getattr(piece, name), n_rows) for name in names})


def _mapped(file: IO[bytes], like: np.ndarray, n_rows: int) -> np.ndarray:
    """The content of a file as an array like another one; without content, as many rows as wide as that."""
    file.flush()
    if not file.tell():
        return np.empty((n_rows if like.ndim > 1 else 0, *like.shape[1:]), like.dtype)
    return np.asarray(np.memmap(file, like.dtype, "r").reshape(-1, *like.shape[1:]))
