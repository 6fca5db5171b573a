"""Text to subword ids: a tokenizer that is given, or one trained on the texts of the fit.

Holds rows as ragged arrays (ids end to end, plus offsets), so that nothing is padded before a batch is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from model.features.letters import letter_groups

BERT = {"pad": "[PAD]", "unknown": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {"pad": "<pad>", "unknown": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
SMOLLM = {
    "pad": "<|im_end|>",
    "unknown": "<|endoftext|>",
    "cls": "<|endoftext|>",
    "sep": "<|im_end|>",
    "mask": "<|endoftext|>",
    "begin": "Ċ",
}
"""Of a language model: <|endoftext|> stands before a text, <|im_end|> after it; a line's end, spelt so, begins one."""
VOCABULARY_SIZE = 8192
EXACT_VOCABULARY_SIZE = 4096
"""Of what texts are written with: few labels teach few subwords, and the rest is copied piece by piece."""


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Train a lower-casing byte-pair tokenizer; the same texts in the same order give the same one.

    >>> train_tokenizer(["late", "later", "late"]).encode("Late").tokens
    ['▁late']
    """
    # Not WordPiece: its trainer numbers the "##" letters in the order of a hash map, anew on every call.
    tokenizer = Tokenizer(models.BPE(unk_token=BERT["unknown"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    words = [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, min_frequency=2, special_tokens=list(BERT.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return prepared(tokenizer)


def train_exact_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Train a byte-pair tokenizer of bytes, from whose subwords every text comes back as it was.

    >>> tokenizer = train_exact_tokenizer(["Late again", "Late"])
    >>> text_of(tokenizer, tokenizer.encode("Läte").ids)
    'Läte'
    """
    tokenizer = Tokenizer(models.BPE())
    # Every text begins with a space: a word is the same subword wherever it stands.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=EXACT_VOCABULARY_SIZE,
        min_frequency=2,
        special_tokens=list(BERT.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return prepared(tokenizer)


def text_of(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> str:
    """Return the text that subwords spell, without the space that a tokenizer puts before it."""
    return tokenizer.decode(list(ids)).removeprefix(" ")


def load_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer in a `tokenizer.json`.

    Raises: ValueError when a special token that a row needs is not in its vocabulary.
    """
    tokenizer = prepared(Tokenizer.from_file(str(path)))
    if not special_ids(tokenizer):
        raise ValueError(
            f"{path} must know {', '.join(BERT.values())}, lacks {', '.join(_unknown(tokenizer, BERT))}, and knows "
            f"{', '.join(ROBERTA.values())} no better; use a BERT-family tokenizer"
        )
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of pad, unknown, cls, sep and mask, spelt as one of three families does; none if one is not known.

    And of begin, after which a text is written: sep, unless the family has another.
    """
    for spelling in (BERT, ROBERTA, SMOLLM):
        known = {name: tokenizer.token_to_id(token) for name, token in spelling.items()}
        ids = {name: token_id for name, token_id in known.items() if token_id is not None}
        if len(ids) == len(spelling):
            return {"begin": ids["sep"], **ids}
    return {}


def control_ids(tokenizer: Tokenizer) -> list[int]:
    """Return the ids of all tokens that are no text."""
    return sorted(token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special)


def _unknown(tokenizer: Tokenizer, spelling: dict[str, str]) -> list[str]:
    return [token for token in spelling.values() if tokenizer.token_to_id(token) is None]


def prepared(tokenizer: Tokenizer) -> Tokenizer:
    """Return the same tokenizer without the padding and truncation its file may ask for."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # A row that spells out "[SEP]" must not be able to end its own text.
    tokenizer.encode_special_tokens = True
    return tokenizer


@dataclass(frozen=True)
class Pieces:
    """One text column in subwords."""

    ids: np.ndarray
    """int32 [sum of lengths], of all rows end to end."""
    lengths: np.ndarray
    """int64 [n]."""

    @property
    def positions(self) -> np.ndarray:
        """Return the position of each subword in its own text. Shapes: int64 [sum of lengths]."""
        return np.arange(self.ids.size) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)

    def beginning(self, most: int) -> "Pieces":
        """Return the first `most` subwords of every text.

        >>> Pieces(np.array([7, 8, 9, 7]), np.array([3, 1])).beginning(2).ids
        array([7, 8, 7])
        """
        return Pieces(self.ids[self.positions < most], self.lengths.clip(max=most))


def tokenise(tokenizer: Tokenizer, columns: list[np.ndarray], max_tokens: int) -> list[Pieces]:
    """Return the first `max_tokens` subwords of every text. Shapes: columns of object [n] (str or None)."""
    return [_pieces(tokenizer, column, max_tokens) for column in columns]


def join(
    columns: list[Pieces], max_tokens: int, sep_id: int, max_windows: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the subwords of every window of every row, column after column, each column closed by [SEP].

    A row has as few windows as its subwords need at `max_tokens` each, and every window its part of every column, so
    that all are about as long. A row over `max_windows` is cut where it is longest: short columns keep all they have.
    Shapes: w windows of n rows; returns ids int32 [sum of lengths], where each window begins int64 [w + 1], and where
    each row's windows do, int64 [n + 1].
    """
    kept = _kept(columns, max_tokens, max_windows)
    n_windows = (-(-kept.sum(1) // max(1, max_tokens - len(columns)))).clip(min=1)
    firsts = np.r_[0, np.cumsum(n_windows)].astype(np.int64)
    sizes = _dealt(kept, n_windows, firsts)
    ends = np.cumsum((sizes + 1).ravel()).reshape(sizes.shape)
    ids = np.full(ends[-1, -1] if ends.size else 0, sep_id, np.int32)
    for column, keep, size, end in zip(columns, kept.T, sizes.T, ends.T, strict=True):
        # What is kept of a column lies in its windows one after the other.
        inside = column.positions < np.repeat(keep, column.lengths)
        ids[np.arange(keep.sum()) + np.repeat(end - size - 1 - (np.cumsum(size) - size), size)] = column.ids[inside]
    return ids, np.r_[0, ends[:, -1]].astype(np.int64), firsts


def _dealt(kept: np.ndarray, n_windows: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Return how much of each column each window gets: its share, and what is left over dealt out one by one.

    A column goes on dealing where the one before it ended, so that no window gets more than one beyond another.
    Shapes: kept [n, columns], n_windows [n], firsts [n + 1] -> int64 [w, columns].
    """
    row = np.repeat(np.arange(len(n_windows)), n_windows)
    number, of = np.arange(len(row)) - firsts[row], n_windows[row]
    left_over = kept % n_windows[:, None]
    dealt_before = np.cumsum(left_over, axis=1) - left_over
    turn = (number[:, None] - dealt_before[row]) % of[:, None]
    return kept[row] // of[:, None] + (turn < left_over[row])


def bags(
    columns: list[Pieces], max_tokens: int, n_subwords: int, texts: Sequence[np.ndarray] = (), n_slots: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the different subwords of every row with 1 + log of their number, and where each row's begin.

    The beginnings, what `join` keeps for one window, are a field of their own beside the whole: that is where a text
    says what it is about. Its subwords have their id + n_subwords. The groups of letters of `texts` are a third, from
    2 * n_subwords on, in `n_slots` numbers.
    Shapes: texts object [n] each; returns ids int32 and weights float32 [sum of sizes], offsets int64 [n + 1].
    """
    n, n_ids = len(columns[0].lengths), 2 * n_subwords + n_slots
    row = np.concatenate([np.repeat(np.arange(n), column.lengths) for column in columns])
    whole = row * n_ids + np.concatenate([column.ids for column in columns])
    kept = _kept(columns, max_tokens)
    leads = [column.positions < np.repeat(keep, column.lengths) for column, keep in zip(columns, kept.T, strict=True)]
    parts = [whole, whole[np.concatenate(leads)] + n_subwords]
    for text in texts:
        rows, groups = letter_groups(text, n_slots)
        parts.append(rows * n_ids + 2 * n_subwords + groups)
    slots, counts = np.unique(np.concatenate(parts), return_counts=True)
    offsets = np.searchsorted(slots, np.arange(n + 1) * n_ids)
    return (slots % n_ids).astype(np.int32), (1 + np.log(counts)).astype(np.float32), offsets.astype(np.int64)


def _pieces(tokenizer: Tokenizer, column: np.ndarray, max_tokens: int) -> Pieces:
    texts = [text or "" for text in column]
    rows = [row.ids[:max_tokens] for row in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return Pieces(np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths)


def _kept(columns: list[Pieces], max_tokens: int, max_windows: int = 1) -> np.ndarray:
    """Return how much of each text is read by the encoder. Shapes: int64 [n, columns]."""
    lengths = np.stack([column.lengths.clip(max=max_windows * max_tokens) for column in columns], axis=1)
    return _fair_cut(lengths, max_windows * (max_tokens - len(columns)))


def _fair_cut(lengths: np.ndarray, budget: int) -> np.ndarray:
    """Cut lengths so that each row's sum fits the budget, the longest first.

    Shapes: int64 [n, columns] -> the same.

    >>> _fair_cut(np.array([[2, 9, 9]]), budget=10)
    array([[2, 4, 4]])
    """
    order = np.argsort(lengths, axis=1, kind="stable")
    ascending = np.take_along_axis(lengths, order, axis=1)
    left = np.full(len(lengths), budget)
    for column in range(lengths.shape[1]):
        ascending[:, column] = np.minimum(ascending[:, column], left // (lengths.shape[1] - column))
        left -= ascending[:, column]
    kept = np.empty_like(lengths)
    np.put_along_axis(kept, order, ascending, axis=1)
    return kept
