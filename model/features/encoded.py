"""What lies between a table and the network: rows as arrays, and the sizes both sides agree on."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from model.features.kinds import CONTEXT, TEXT, column_kinds, kind_classes, token_kinds


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the network must know about its inputs."""

    columns: Mapping[str, tuple[Any, ...]]
    """By kind, what is to be known of each of its columns: see `sizes` of the kind."""
    n_subwords: int
    """Subword vocabulary; 1 (for [CLS] alone) without text."""
    max_tokens: int
    """Text tokens per window at most."""
    n_letter_groups: int = 0
    """Numbers of groups of letters; 0 where bags hold none."""
    cls_id: int = 0
    """Subword id of [CLS]."""
    sep_id: int = 0
    """Subword id of [SEP]."""
    pad_id: int = 0
    """Subword id of [PAD]."""
    mask_id: int = 0
    """Subword id of [MASK]."""

    def of(self, kind: str) -> tuple[Any, ...]:
        """Return what is to be known of each column of a kind."""
        return self.columns.get(kind, ())

    @property
    def n_texts(self) -> int:
        """Return the number of text columns."""
        return len(self.of(TEXT))

    @property
    def n_context(self) -> int:
        """Return the number of context columns, which become no token."""
        return len(self.of(CONTEXT))

    @property
    def n_columns(self) -> int:
        """Return the number of columns that become one token each."""
        return sum(len(self.of(kind.name)) for kind in column_kinds())


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A table as arrays."""

    n_rows: int
    """Rows of the table."""
    arrays: Mapping[str, np.ndarray]
    """What the kinds make of their columns, as each describes it; no entry for a kind without columns."""
    pooled: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """float32 [n, d]: the encoder's output for each row, where that is known already; else empty."""

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def take(self, rows: np.ndarray) -> "Encoded":
        """Return the given rows alone. Shapes: int64 [b]."""
        arrays: dict[str, np.ndarray] = {}
        for kind in kind_classes():
            arrays |= kind.take(self.arrays, rows)
        return Encoded(n_rows=len(rows), arrays=arrays, pooled=self.pooled[rows] if self.pooled.size else self.pooled)

    @property
    def window_offsets(self) -> np.ndarray | None:
        """Return where each row's windows begin, int64 [n + 1]; None where each row is one."""
        return self.arrays.get("window_offsets")

    @property
    def lengths(self) -> np.ndarray:
        """Return the tokens of each row's longest window as the network sees it, [CLS] included. Shapes: int64 [n]."""
        return self._of_windows(np.maximum)

    @property
    def n_tokens(self) -> np.ndarray:
        """Return the tokens of each row in all its windows. Shapes: int64 [n]."""
        return self._of_windows(np.add)

    def _of_windows(self, over: np.ufunc) -> np.ndarray:
        offsets = self.window_offsets
        lengths = np.ones(self.n_rows if offsets is None else offsets[-1], np.int64)
        for kind in token_kinds():
            lengths = lengths + kind.n_tokens(self.arrays)
        return lengths if offsets is None else over.reduceat(lengths, offsets[:-1])

    @property
    def n_windows(self) -> np.ndarray:
        """Return the windows of each row. Shapes: int64 [n]."""
        return np.ones(self.n_rows, np.int64) if self.window_offsets is None else np.diff(self.window_offsets)


def on_disk(pieces: Iterable[Encoded], folder: Path) -> Encoded:
    """Return the pieces, of which there is at least one, end to end in memory-mapped files.

    For rows that memory cannot hold. The files lie on the disk of `folder`, have no name, and are gone with the arrays
    or with the process that made them, whatever ends it.
    """
    n_rows, files, ends = 0, dict[str, IO[bytes]](), dict[str, int]()
    with ExitStack() as closing:
        for piece in pieces:
            n_rows += len(piece)
            for name, array in piece.arrays.items():
                if name not in files:
                    files[name] = closing.enter_context(TemporaryFile(dir=folder))
                if name.endswith("offsets"):
                    # Where a piece begins, the one before it has ended.
                    array = array[int(name in ends) :] + ends.get(name, 0)
                    ends[name] = int(array[-1]) if array.size else ends[name]
                # Not as bytes of its own: a piece may itself be larger than memory.
                files[name].write(np.ascontiguousarray(array).data)
        arrays = {name: _mapped(file, piece.arrays[name], n_rows) for name, file in files.items()}
    return Encoded(n_rows=n_rows, arrays=arrays)


def _mapped(file: IO[bytes], like: np.ndarray, n_rows: int) -> np.ndarray:
    """Return the content of a file as an array like another one; without content, as many rows as wide as that."""
    file.flush()
    if not file.tell():
        return np.empty((n_rows if like.ndim > 1 else 0, *like.shape[1:]), like.dtype)
    return np.asarray(np.memmap(file, like.dtype, "r").reshape(-1, *like.shape[1:]))
