"""The rows that features are fitted on: read piece by piece, counted and checked on the way, and sampled once."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from model.features.kinds import KINDS, kind_class

Table = Mapping[str, np.ndarray]
"""Column name to an array [n] of its kind's type of cells: object (str or None), float64 (NaN for missing) or
datetime64[s] (NaT for missing)."""

MAX_FITTED_ROWS = 1_000_000
"""Rows that decide scales, bins and cycles; more would not move a quantile by what matters."""


MAX_FOLDED_ROWS = 5_000
"""Up to so many rows nothing is fitted to labels here: a model is then judged by folds, and what knows the labels
of all rows tells each fold those of its own."""


class FittingRows:
    """Pieces of a table that can be iterated several times and need not fit into memory."""

    def __init__(
        self,
        kinds: dict[str, str],
        pieces: Iterable[Table],
        target: np.ndarray | None,
        task: str,
        *,
        max_tokens: int,
        max_windows: int,
        wide_tokens: int,
        tokenizer: Path | None,
        label_texts: np.ndarray | None = None,
        answer_in: str | None = None,
        item_columns: Collection[str] = (),
        joining: Iterable[Table] = (),
    ) -> None:
        self.item_columns = item_columns
        """The columns of categories that hold items, of which there may be many."""
        self.answer_in = answer_in
        """The column of texts in which answers lie; None for none."""
        self.label_texts = label_texts
        """Labels that are texts, object [n]; None where labels are none."""
        self.joining = joining
        """Pieces of the rows that are learnt from too once all is chosen."""
        self.kinds, self.pieces, self.task = kinds, pieces, task
        self.max_tokens, self.max_windows, self.wide_tokens = max_tokens, max_windows, wide_tokens
        self.tokenizer = tokenizer
        self._target = target
        self._n_rows: int | None = None

    def __iter__(self) -> Iterator[Table]:
        """Yield the pieces, checked.

        Raises: ValueError for an unknown kind, a column that is not there, or none that becomes a token.
        """
        n_rows = 0
        for piece in self.pieces:
            check_columns(self.kinds, piece)
            n_rows += len(piece[next(iter(self.kinds))])
            yield piece
        self._n_rows = n_rows

    @property
    def n_rows(self) -> int:
        """Return the number of rows; reads them where they have not been read yet."""
        if self._n_rows is None:
            for _ in self:
                pass
        assert self._n_rows is not None
        return self._n_rows

    def newest_joining(self, names: Sequence[str]) -> np.ndarray:
        """Return the newest time in each column of the joining rows, NaT where none is known.

        Shapes: datetime64[s] [names].
        """
        newest = np.full(len(names), "NaT", "datetime64[s]")
        for piece in self.joining if names else ():
            for at, name in enumerate(names):
                newest[at] = np.fmax.reduce(piece[name].astype("datetime64[s]"), initial=newest[at])
        return newest

    @cached_property
    def chosen(self) -> np.ndarray:
        """Return the rows of the sample. Shapes: int64 [chosen]."""
        return chosen_rows(self.n_rows, MAX_FITTED_ROWS)

    @property
    def target(self) -> np.ndarray | None:
        """Return the target of the sample, of few rows None. Shapes: [chosen] or [chosen, C], NaN without a label."""
        if self._target is None or self.n_rows <= MAX_FOLDED_ROWS:
            return None
        return self._target[self.chosen]

    @cached_property
    def sample(self) -> dict[str, np.ndarray]:
        """Return the columns of the sample whose kinds are fitted on it. Shapes: [chosen] each."""
        chosen = self.chosen
        names = [name for name, kind in self.kinds.items() if kind_class(kind).is_sampled]
        found: dict[str, list[np.ndarray]] = {name: [] for name in names}
        first = 0
        for piece in self:
            n_rows = len(piece[names[0]])
            rows = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + n_rows)] - first
            for name, columns in found.items():
                columns.append(piece[name][rows])
            first += n_rows
        return {name: np.concatenate(columns) for name, columns in found.items()}


def chosen_rows(n_rows: int, most: int) -> np.ndarray:
    """Return the rows that are fitted on, ascending: all, or of more than `most` the same sample every time.

    >>> chosen_rows(3, most=5)
    array([0, 1, 2])
    """
    if n_rows <= most:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(0).choice(n_rows, most, replace=False, shuffle=False))


def check_columns(kinds: dict[str, str], table: Table) -> None:
    """Raise ValueError for an unknown kind, a column that is not there, or none that becomes a token."""
    mistakes = [
        f"column {name} must be of kind {', '.join(KINDS)}, got {kind!r}"
        for name, kind in kinds.items()
        if kind not in KINDS
    ]
    missing = [name for name in kinds if name not in table]
    if missing:
        mistakes.append(f"table must have the columns {', '.join(missing)}, got {', '.join(table) or 'none'}")
    if all(kind in KINDS and not KINDS[kind].is_token for kind in kinds.values()):
        mistakes.append("kinds must name at least one column that is no context, got none")
    if mistakes:
        raise ValueError("\n".join(mistakes))
