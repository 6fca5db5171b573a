"""Labels that are texts, as the subwords that a network learns to write."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from tokenizers import Tokenizer

from model.features.ragged import padded
from model.features.subwords import special_ids, text_of, tokenise

UNWANTED = -100
"""In the place of a subword that a shorter text does not have."""


@dataclass(frozen=True, kw_only=True)
class LabelTexts:
    """Texts as subwords, each closed by [SEP]; one that is cut is not closed, lest it teaches to end there."""

    ids: np.ndarray
    """int32 [sum of lengths], of all texts end to end."""
    offsets: np.ndarray
    """int64 [n + 1]: where each begins."""
    n_bytes: np.ndarray
    """int64 [n]: of what is kept of each text, in UTF-8."""
    begin_id: int
    """The subword after which a text begins."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, texts: np.ndarray, max_tokens: int) -> "LabelTexts":
        """Return the beginnings of texts, max_tokens subwords each at most. Shapes: object [n] (str or None)."""
        ids = special_ids(tokenizer)
        sep_id = ids["sep"]
        (pieces,) = tokenise(tokenizer, [texts], max_tokens)
        ends = np.cumsum(pieces.lengths)
        rows = [pieces.ids[end - length : end] for end, length in zip(ends, pieces.lengths, strict=True)]
        closed = [row if len(row) == max_tokens else np.r_[row, np.int32(sep_id)] for row in rows]
        return cls(
            ids=np.concatenate([np.empty(0, np.int32), *closed]).astype(np.int32),
            offsets=np.r_[0, np.cumsum([len(row) for row in closed])].astype(np.int64),
            n_bytes=np.array([len(text_of(tokenizer, row).encode()) for row in rows], np.int64),
            begin_id=ids["begin"],
        )

    def __len__(self) -> int:
        return len(self.n_bytes)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the subwords of each text."""
        return (self.ids[start:end] for start, end in pairwise(self.offsets))

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what a network reads of texts, and what it is to find next. Shapes: int64 [b, longest] twice."""
        wanted = padded(self.ids, self.offsets, rows, np.int64(UNWANTED))
        read = np.concatenate([np.full((len(rows), 1), self.begin_id), wanted[:, :-1]], axis=1)
        return np.where(read == UNWANTED, self.begin_id, read), wanted
