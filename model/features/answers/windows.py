"""A row's texts as windows in which an answer is looked for.

Every window holds all other texts of the row, such as a question, cut to half of it, and a part of the text in which
the answer lies. These parts overlap by a quarter of a window, so that an answer of up to so many subwords lies whole in
one of them. Beside each subword stands where in the text it is, in characters, and FACTS: what its letters, the other
texts and the rest of the text say of it, which subwords in lower case do not show.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding, Tokenizer

FACTS = (
    *("capital", "capitals", "digit", "after_sentence", "in_others", "count", "first", "is_first", "near_others"),
    *("after_capital", "before_capital", "after_others", "before_others", "pieces", "rank", "begins", "ends"),
)
"""What is known of a subword of the text in which the answer lies, or of its word; 0 of any other."""
NOWHERE = -1
"""The place of a subword that is of another text."""
MAX_CHARACTERS = 2**24
"""Of a text that are read: single precision holds so many places exactly."""
NEAR = 12
"""Words on each side in which those of the other texts are counted."""
WORD = re.compile(r"[^\W_]+(?:[.,'’&-][^\W_]+)*")
_JOINER, _SKIN_TONES = "\u200d", range(0x1F3FB, 0x1F400)


@dataclass(frozen=True)
class Windows:
    """The windows of rows as ragged arrays."""

    text: np.ndarray
    """int32 [sum of lengths], the subwords of all windows end to end."""
    facts: np.ndarray
    """float32 [sum of lengths, FACTS]."""
    places: np.ndarray
    """int32 [sum of lengths, 2]: the first character of each subword, and the one after its last."""
    offsets: np.ndarray
    """int64 [w + 1]: where each window begins."""
    window_offsets: np.ndarray
    """int64 [n + 1]: where the windows of each row begin."""


def overlap_of(max_tokens: int) -> int:
    """Return by how many subwords windows overlap, which is also how long an answer may be."""
    return max_tokens // 4


def cut_windows(
    tokenizer: Tokenizer,
    others: list[np.ndarray],
    texts: np.ndarray,
    max_tokens: int,
    max_windows: int,
    sep_id: int,
) -> Windows:
    """Return the windows of rows. Shapes: `others` object [n] each, texts object [n] (str or None)."""
    cells = [(text or "")[:MAX_CHARACTERS] for text in texts]
    encodings = tokenizer.encode_batch(cells, add_special_tokens=False)
    asked = [
        [each.ids for each in tokenizer.encode_batch_fast([cell or "" for cell in column], add_special_tokens=False)]
        for column in others
    ]
    ids, facts, places, lengths, counts = [], [], [], [], []
    for row, (cell, encoding) in enumerate(zip(cells, encodings, strict=True)):
        before = _joined([column[row] for column in asked], max_tokens // 2, sep_id)
        room = max_tokens - len(before) - 1
        step = max(1, room - overlap_of(max_tokens))
        starts = range(0, max(1, min(max_windows * step, len(encoding.ids) - overlap_of(max_tokens))), step)
        read = starts[-1] + room
        of_text = np.array(encoding.ids[:read], np.int32)
        where = np.array(list(_places(cell, encoding, read)), np.int32).reshape(-1, 2)
        known_of = _facts(cell, of_text, where, " ".join(str(column[row] or "") for column in others))
        for start in starts:
            part = slice(start, start + room)
            n_part = len(of_text[part])
            ids.append(np.r_[before, of_text[part], sep_id])
            facts.append(np.pad(known_of[part], ((len(before), 1), (0, 0))))
            places.append(np.pad(where[part], ((len(before), 1), (0, 0)), constant_values=NOWHERE))
            lengths.append(len(before) + n_part + 1)
        counts.append(len(starts))
    return Windows(
        text=np.concatenate([np.empty(0, np.int32), *ids]).astype(np.int32),
        facts=np.concatenate([np.empty((0, len(FACTS)), np.float32), *facts]).astype(np.float32),
        places=np.concatenate([np.empty((0, 2), np.int32), *places]).astype(np.int32),
        offsets=np.r_[0, np.cumsum(lengths)].astype(np.int64),
        window_offsets=np.r_[0, np.cumsum(counts)].astype(np.int64),
    )


def characters(numbers: np.ndarray, arrays: Mapping[str, np.ndarray], stride: int) -> np.ndarray:
    """Return where in their texts answers begin and end, by the numbers of their first and last subwords.

    A subword's number is its place in its window, and `stride` for each window of the row before that. 0 where there is
    no subword. `arrays` are `Windows` by name. Shapes: [n, 2] of all rows -> int64 [n, 2].
    """
    rows = np.arange(len(numbers))
    first = arrays["window_offsets"][rows] if "window_offsets" in arrays else rows
    window, place = np.divmod(numbers.astype(np.int64), stride)
    at = arrays["offsets"][first[:, None] + window] + place
    places = arrays["places"]
    return np.stack([places[at[:, 0], 0], places[at[:, 1], 1]], axis=1).clip(min=0).astype(np.int64)


def _joined(columns: list[list[int]], most: int, sep_id: int) -> np.ndarray:
    """Return the subwords of other texts, each closed by [SEP], cut where they are longest."""
    lengths = [len(column) for column in columns]
    while sum(lengths) + len(lengths) > most and any(lengths):
        longest = lengths.index(max(lengths))
        shorter = sorted(lengths)[-2] if len(lengths) > 1 else 0
        surplus = sum(lengths) + len(lengths) - most
        lengths[longest] -= max(1, min(surplus, lengths[longest] - shorter))
    kept = [[*column[:length], sep_id] for column, length in zip(columns, lengths, strict=True)]
    return np.array([each for column in kept for each in column], np.int32)


def _places(text: str, encoding: Encoding, most: int) -> Iterator[tuple[int, int]]:
    """Yield first and last character of subwords, without white space, and with the marks that a letter carries."""
    for start, end in encoding.offsets[:most]:
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        while end > start and end < len(text) and _continues(text, end):
            end += 1
        while 0 < start < end and _continues(text, start):
            start -= 1
        yield start, end


def _continues(text: str, at: int) -> bool:
    """Return whether a character is a part of what is seen as one sign with the character before it."""
    sign = text[at]
    is_mark = unicodedata.category(sign).startswith("M") or sign == _JOINER or ord(sign) in _SKIN_TONES
    return is_mark or text[at - 1] == _JOINER


def _facts(text: str, ids: np.ndarray, places: np.ndarray, others: str) -> np.ndarray:
    """Return FACTS of the subwords of one text; a subword has those of its word. Shapes: int [n, 2] -> float32."""
    found = list(WORD.finditer(text))
    if not len(ids) or not found:
        return np.zeros((len(ids), len(FACTS)), np.float32)
    words, asked = [word.group() for word in found], {word.lower() for word in WORD.findall(others)}
    starts = np.array([word.start() for word in found])
    lower, first, inverse, counts = np.unique(
        [word.lower() for word in words], return_index=True, return_inverse=True, return_counts=True
    )
    is_asked = np.isin(lower, list(asked))[inverse]
    capital = np.array([word[0].isupper() for word in words])
    ends = np.array(
        [text[max(0, start - 3) : start].strip(" \"'")[-1:] in ("", ".", "!", "?", "\n") for start in starts]
    )
    at, n = np.arange(len(words)), len(words)
    rare = np.r_[0, np.cumsum(is_asked / counts[inverse])]
    near = rare[(at + NEAR + 1).clip(max=n)] - rare[(at - NEAR).clip(min=0)]
    word_of = (np.searchsorted(starts, places[:, 0], side="right") - 1).clip(min=0)
    pieces = np.bincount(word_of, minlength=n)
    of_words = [
        capital,
        [word.isupper() and len(word) > 1 for word in words],
        [word[0].isdigit() for word in words],
        ends,
        is_asked,
        np.log1p(counts[inverse]) / 2,
        np.log1p(first[inverse]) / 5,
        at == first[inverse],
        near,
        np.r_[False, capital[:-1]],
        np.r_[capital[1:], False],
        np.r_[False, is_asked[:-1]],
        np.r_[is_asked[1:], False],
        np.log1p(pieces),
    ]
    rank = np.zeros(n)
    np.maximum.at(rank, word_of, np.log1p(ids) / 10)  # about the order of how frequent subwords are
    begins = np.r_[True, word_of[1:] != word_of[:-1]]
    facts = np.stack([*map(np.asarray, of_words), rank], axis=1).astype(np.float32)[word_of]
    return np.c_[facts, begins, np.r_[begins[1:], True]].astype(np.float32)
