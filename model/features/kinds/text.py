"""Texts: subwords of all columns end to end, in windows where they are long, and a bag of them for a linear model."""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from tokenizers import Tokenizer

from model.features.answers.windows import cut_windows
from model.features.fitting import FittingRows, Table
from model.features.kinds import TEXT
from model.features.kinds.base import Arrays, Input, Json, Kind
from model.features.letters import N_SLOTS, N_SLOTS_BEFORE
from model.features.ragged import padded, taken_positions
from model.features.subwords import (
    bags,
    join,
    load_tokenizer,
    special_ids,
    tokenise,
    train_exact_tokenizer,
    train_tokenizer,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.features.encoded import Sizes
    from model.features.kinds.modules.columns import Reconstruction


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How much is read of a row's texts."""

    max_tokens: int
    """Tokens per window at most, separators included."""
    max_windows: int = 1
    """Windows per row at most."""
    wide_tokens: int = 0
    """Tokens of each text that go into a row's bag; 0 for no bags."""
    letters: int = 0
    """Numbers of groups of letters that go into it too; 0 for none."""
    answer_in: str | None = None
    """The column in which answers lie, which then comes last, in windows that overlap; None for none."""


@dataclass(frozen=True)
class Text(Kind[None]):
    """One tokenizer for all columns.

    Encoded as ragged arrays: text int32 [sum of lengths], subword ids of all rows end to end; offsets int64 [n + 1],
    where each row's subwords begin, or of rows in w windows [w + 1], where each window's do; window_offsets int64
    [n + 1], where each row's windows begin, with more than one window a row; and with bags, as `subwords.bags` numbers
    them, bag int32 and bag_weights float32 [sum of sizes], bag_offsets int64 [n + 1]. Where answers lie in a column,
    also facts and places, as of `model.features.answers.windows`.
    """

    reading: Reading
    tokenizer: Tokenizer | None = field(default=None, compare=False)
    """Subwords; None without columns."""

    name = TEXT
    key = ""
    input = "text"
    is_sequence = True
    is_sampled = False
    reads_as: ClassVar[Literal["labels", "numbers", "words"]] = "words"

    @classmethod
    def fit(cls, names: list[str], rows: FittingRows) -> Self:
        """Load the tokenizer that is given, or train one on the texts of all rows, and on labels that are texts."""
        if not names and rows.label_texts is None:
            return cls({}, Reading(max_tokens=rows.max_tokens))
        reading = Reading(
            max_tokens=rows.max_tokens,
            max_windows=rows.max_windows,
            wide_tokens=rows.wide_tokens,
            letters=N_SLOTS if rows.wide_tokens else 0,
            answer_in=rows.answer_in,
        )
        if rows.tokenizer is not None:
            return cls(dict.fromkeys(names), reading, load_tokenizer(rows.tokenizer))
        texts = (text for name in names for piece in rows for text in piece[name] if text)
        if rows.label_texts is not None:
            labels = (text for text in rows.label_texts if text)
            return cls(dict.fromkeys(names), reading, train_exact_tokenizer(chain(texts, labels)))
        return cls(dict.fromkeys(names), reading, train_tokenizer(texts))

    @classmethod
    def fit_column(cls, column: np.ndarray, rows: FittingRows) -> None:
        """Fit nothing: the tokenizer is of all columns."""

    @classmethod
    def encode_column(cls, column: np.ndarray, fitted: None) -> np.ndarray:
        """Raise: the columns of a row are cut together."""
        raise NotImplementedError

    def encode(self, table: Table) -> dict[str, np.ndarray]:
        """Return the ragged arrays of all columns."""
        if self.tokenizer is None or not self.columns:
            return {}
        if self.reading.answer_in is not None:
            return self._encode_windows(table)
        limits, columns = self.reading, [table[name] for name in self.columns]
        pieces = tokenise(self.tokenizer, columns, max(limits.max_windows * limits.max_tokens, limits.wide_tokens))
        sep_id = special_ids(self.tokenizer)["sep"]
        text, offsets, window_offsets = join(pieces, limits.max_tokens, sep_id, limits.max_windows)
        arrays = {"text": text, "offsets": offsets}
        if limits.max_windows > 1:
            arrays["window_offsets"] = window_offsets
        if limits.wide_tokens:
            bagged = [column.beginning(max(limits.max_tokens, limits.wide_tokens)) for column in pieces]
            texts = columns if limits.letters else []
            parts = bags(bagged, limits.max_tokens, self.tokenizer.get_vocab_size(), texts, limits.letters)
            arrays |= zip(("bag", "bag_weights", "bag_offsets"), parts, strict=True)
        return arrays

    def _encode_windows(self, table: Table) -> dict[str, np.ndarray]:
        """Return the ragged arrays of windows in which an answer is looked for."""
        assert self.tokenizer is not None
        answer_in, limits = str(self.reading.answer_in), self.reading
        others = [table[name] for name in self.columns if name != answer_in]
        sep_id = special_ids(self.tokenizer)["sep"]
        cut = cut_windows(self.tokenizer, others, table[answer_in], limits.max_tokens, limits.max_windows, sep_id)
        arrays = vars(cut)
        return arrays if limits.max_windows > 1 else {name: arrays[name] for name in arrays if name != "window_offsets"}

    def to_json(self) -> Json:
        """Return how much is read."""
        return {name: value for name, value in vars(self.reading).items() if value is not None}

    @classmethod
    def from_json(cls, names: list[str], content: Json, folder: Path) -> Self:
        """Read back limits and tokenizer."""
        # Older models have neither windows nor the linear model of subwords, or one that reads no letters, or fewer.
        letters = content.get("letters", 0)
        reading = Reading(
            max_tokens=content["max_tokens"],
            max_windows=content.get("max_windows", 1),
            wide_tokens=content.get("wide_tokens", 0),
            letters=N_SLOTS_BEFORE if letters is True else int(letters),
            answer_in=content.get("answer_in"),
        )
        file = folder / "tokenizer.json"  # also without columns, where labels are texts
        return cls(dict.fromkeys(names), reading, load_tokenizer(file) if names or file.exists() else None)

    def save_files(self, folder: Path) -> None:
        """Write `tokenizer.json`."""
        if self.tokenizer is not None:
            self.tokenizer.save(str(folder / "tokenizer.json"))

    @property
    def shared_sizes(self) -> dict[str, int]:
        """Return the sizes of the vocabulary, of which [CLS] is a part, and its special ids."""
        if self.tokenizer is None:
            return {"n_subwords": 1, "max_tokens": self.reading.max_tokens}
        ids = special_ids(self.tokenizer)
        return {
            "n_subwords": self.tokenizer.get_vocab_size(),
            "n_letter_groups": self.reading.letters,
            "max_tokens": self.reading.max_tokens,
            **{f"{name}_id": ids[name] for name in ("cls", "sep", "pad", "mask")},
        }

    @classmethod
    def n_tokens(cls, arrays: Arrays) -> int | np.ndarray:
        """Return the subwords of every window."""
        return np.diff(arrays["offsets"]) if "offsets" in arrays else 0

    @classmethod
    def token_batch(cls, arrays: Arrays, rows: np.ndarray, windows: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        """Return the subwords of the given windows. Shapes: int64 [w, longest]."""
        if "text" not in arrays:
            return {}
        batch = {"text": padded(arrays["text"], arrays["offsets"], windows, np.int64(pad_id))}
        if "facts" in arrays:
            batch["facts"] = padded(arrays["facts"], arrays["offsets"], windows, np.float32(0))
        return batch

    @classmethod
    def take(cls, arrays: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the ragged arrays of the given rows alone."""
        if "text" not in arrays:
            return {}
        windows, taken = rows, dict[str, np.ndarray]()
        if "window_offsets" in arrays:
            windows, taken["window_offsets"] = taken_positions(arrays["window_offsets"], rows)
        at, taken["offsets"] = taken_positions(arrays["offsets"], windows)
        taken |= {name: arrays[name][at] for name in ("text", "facts", "places") if name in arrays}
        if "bag" in arrays:
            at, taken["bag_offsets"] = taken_positions(arrays["bag_offsets"], rows)
            taken |= {name: arrays[name][at] for name in ("bag", "bag_weights")}
        return taken

    @classmethod
    def row_batch(cls, arrays: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the bags of the given rows.

        Shapes: bag int64 and bag_weights float32 [b, largest], weight 0 for padding.
        """
        if "bag" not in arrays:
            return {}
        return {
            "bag": padded(arrays["bag"], arrays["bag_offsets"], rows, np.int64(0)),
            "bag_weights": padded(arrays["bag_weights"], arrays["bag_offsets"], rows, np.float32(0)),
        }

    @classmethod
    def inputs(cls) -> tuple[Input, ...]:
        """Return subwords by window, with what is known of them, and a bag by row."""
        return (
            Input(name="text", ragged="subwords", has_most=True),
            Input(name="facts", ragged="subwords", has_most=True),
            Input(name="bag", of="rows", ragged="bag_subwords"),
            Input(name="bag_weights", of="rows", ragged="bag_subwords"),
        )

    @classmethod
    def token_module(cls, sizes: tuple[None, ...], d_model: int) -> "nn.Module | None":
        """Return None: the embeddings of a row hold the vocabulary themselves, since [CLS] is of it."""
        return None

    @classmethod
    def embed(cls, embeddings: "nn.Module", values: "Tensor") -> "Tensor":
        """Return the tokens of subwords. Shapes: [w, s] -> [w, s, d]."""
        from model.features.kinds.modules.text import SubwordEmbedding

        assert isinstance(embeddings, SubwordEmbedding)
        return embeddings.subwords(values)

    @classmethod
    def real(cls, values: "Tensor", sizes: "Sizes") -> "Tensor":
        """Return which subwords are no padding."""
        return values != sizes.pad_id

    @classmethod
    def hide(cls, values: "Tensor", sizes: "Sizes", fraction: float) -> "tuple[Tensor, Tensor]":
        """Return which subwords are hidden, and what is seen instead."""
        from model.features.kinds.modules.text import hide_subwords

        return hide_subwords(values, sizes, fraction)

    @classmethod
    def blank(cls, values: "Tensor", sizes: "Sizes") -> "Tensor":
        """Return [MASK] in place of every subword."""
        import torch

        is_mark = (values == sizes.sep_id) | (values == sizes.pad_id)
        return torch.where(is_mark, values, sizes.mask_id)

    @classmethod
    def reconstruction(cls, sizes: "Sizes", d_model: int) -> "Reconstruction | None":
        """Return what guesses subwords by the vectors of the vocabulary."""
        from model.features.kinds.modules.text import SubwordReconstruction

        return SubwordReconstruction(d_model) if sizes.of(cls.name) else None
