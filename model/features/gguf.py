"""Weights and vocabulary of a language model from one GGUF file, the format of llama.cpp.

Reads version 3 of the format, numbers in full and half precision and the quantised blocks of 4, 5 and 8 bits; knows no
network. A file is not believed: what it claims is compared with the bytes that it has, before memory is taken for it.

Source: ggml's docs/gguf.md; its blocks: ggml-common.h, `block_q4_0` to `block_q8_0`.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from model.features.subwords import prepared, special_ids
from model.settings import LANGUAGE_FILE

MAGIC, VERSION = b"GGUF", 3
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""By the code of a value's type, its letter in `struct`."""
TEXT, LIST = 8, 9
BLOCK = 32
"""Numbers of a quantised block."""
MAX_DIMENSIONS = 4
CONTROL = 3
"""Type of a token that is no text."""
ALIGNMENT = "general.alignment"
TOKENS = "tokenizer.ggml"


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How numbers lie in the bytes of a tensor."""

    name: str
    block: np.dtype
    """Of one block, or number."""
    size: int
    """Numbers of a block."""
    read: Callable[[np.ndarray], np.ndarray]
    """From blocks [n] to float32 [n, size]."""


def _nibbles(blocks: np.ndarray) -> np.ndarray:
    """Return the lower halves of all bytes of a block, then the upper ones. Shapes: [n, 16] -> uint8 [n, 32]."""
    return np.concatenate([blocks["q"] & 15, blocks["q"] >> 4], axis=1)


def _fifth_bits(blocks: np.ndarray) -> np.ndarray:
    """Return the fifth bit of each number, as 16 or 0. Shapes: uint8 [n, 32]."""
    return np.unpackbits(blocks["h"], axis=1, bitorder="little") << 4


def _times(blocks: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return blocks["d"].astype(np.float32) * numbers.astype(np.float32)


def _plus(blocks: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return _times(blocks, numbers) + blocks["m"].astype(np.float32)


_SCALE, _LEAST, _HIGH, _HALVES = ("d", "<f2", (1,)), ("m", "<f2", (1,)), ("h", "u1", 4), ("q", "u1", 16)
CODINGS = {
    0: Coding(name="F32", block=np.dtype("<f4"), size=1, read=lambda each: each[:, None]),
    1: Coding(name="F16", block=np.dtype("<f2"), size=1, read=lambda each: each[:, None].astype(np.float32)),
    2: Coding(
        name="Q4_0",
        block=np.dtype([_SCALE, _HALVES]),
        size=BLOCK,
        read=lambda each: _times(each, _nibbles(each).astype(np.int8) - 8),
    ),
    3: Coding(
        name="Q4_1",
        block=np.dtype([_SCALE, _LEAST, _HALVES]),
        size=BLOCK,
        read=lambda each: _plus(each, _nibbles(each)),
    ),
    6: Coding(
        name="Q5_0",
        block=np.dtype([_SCALE, _HIGH, _HALVES]),
        size=BLOCK,
        read=lambda each: _times(each, (_nibbles(each) | _fifth_bits(each)).astype(np.int8) - 16),
    ),
    7: Coding(
        name="Q5_1",
        block=np.dtype([_SCALE, _LEAST, _HIGH, _HALVES]),
        size=BLOCK,
        read=lambda each: _plus(each, _nibbles(each) | _fifth_bits(each)),
    ),
    8: Coding(
        name="Q8_0",
        block=np.dtype([_SCALE, ("q", "i1", BLOCK)]),
        size=BLOCK,
        read=lambda each: _times(each, each["q"]),
    ),
    30: Coding(
        name="BF16",
        block=np.dtype("<u2"),
        size=1,
        read=lambda each: (each.astype("<u4") << 16).view("<f4")[:, None],
    ),
}
"""By the code of a tensor's type."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tensor lies."""

    shape: tuple[int, ...]
    """The last dimension is that whose numbers lie side by side."""
    coding: int
    offset: int
    """Bytes from the first tensor on."""


class Gguf:
    """A file that is open for reading: what it says of itself, and its tensors."""

    def __init__(self, path: Path) -> None:
        """Read all but the tensors.

        Raises: ValueError where it is not a whole GGUF file of VERSION.
        """
        self.path = path
        try:
            self._bytes = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise ValueError(
                f"{path} must be a {LANGUAGE_FILE} file, and cannot be read: {error}; use another file"
            ) from None
        try:
            self._read_header()
        except (struct.error, UnicodeDecodeError, OverflowError, MemoryError):
            raise self._odd("be whole, and ends or makes no sense before its tensors begin; fetch it again") from None

    def _odd(self, rule: str) -> ValueError:
        return ValueError(f"{self.path} must {rule}")

    def _read_header(self) -> None:
        self._at = 0
        magic, version = self._next("4s"), self._next("I")
        if magic != MAGIC:
            raise self._odd(f"begin with {MAGIC.decode()}, got {magic!r}; use a file of that format")
        if version != VERSION:
            raise self._odd(f"be of version {VERSION} of the format, got {version}; convert it with llama.cpp")
        n_tensors, n_values = self._next("Q"), self._next("Q")
        self.metadata: dict[str, object] = {}
        for _ in range(n_values):
            name, code = self._text(), self._next("I")
            self.metadata[name] = self._value(code)
        self.places: dict[str, Place] = {}
        for _ in range(n_tensors):
            name, n_dimensions = self._text(), self._next("I")
            if n_dimensions > MAX_DIMENSIONS:
                raise self._odd(f"hold tensors of {MAX_DIMENSIONS} dimensions, got {n_dimensions}; fetch it again")
            shape = tuple(self._next("Q") for _ in range(n_dimensions))[::-1]
            self.places[name] = Place(shape=shape, coding=self._next("I"), offset=self._next("Q"))
        alignment = self.metadata.get(ALIGNMENT, BLOCK)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._odd(f"have a {ALIGNMENT} above 0, got {alignment!r}; fetch it again")
        self._first = -(-self._at // alignment) * alignment

    def _next(self, letter: str) -> Any:
        (value,) = struct.unpack_from(f"<{letter}", self._bytes.data, self._at)
        self._at += struct.calcsize(f"<{letter}")
        return value

    def _take(self, n_bytes: int) -> np.ndarray:
        if n_bytes > len(self._bytes) - self._at:
            raise struct.error
        self._at += n_bytes
        return self._bytes[self._at - n_bytes : self._at]

    def _text(self) -> str:
        return self._take(self._next("Q")).tobytes().decode()

    def _value(self, code: int) -> Any:
        if code == TEXT:
            return self._text()
        if code == LIST:
            inner, length = self._next("I"), self._next("Q")
            if inner in NUMBERS:
                number = np.dtype(f"<{NUMBERS[inner]}")
                return self._take(length * number.itemsize).view(number).tolist()
            if inner == TEXT and length <= len(self._bytes):
                return [self._text() for _ in range(length)]
        if code not in NUMBERS:
            raise self._odd(f"hold values of types that version {VERSION} knows, got {code}; fetch it again")
        return self._next(NUMBERS[code])

    def value(self, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """Return what the file says under a name, or `default`.

        Raises: ValueError where it says nothing and there is no default, or something of another type.
        """
        found = self.metadata.get(name, default)
        if not isinstance(found, kind):
            wanted = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
            raise self._odd(f"give {name} as {wanted}, got {str(found)[:40]!r}; use another file")
        return found

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a tensor as float32.

        Raises: ValueError where it is absent, of another shape, coded otherwise or beyond the end of the file.
        """
        place = self.places.get(name)
        if place is None:
            raise self._odd(f"hold the tensor {name}, and lacks it; use a whole language model of the Llama family")
        if place.shape != shape:
            raise self._odd(f"hold {name} as {list(shape)}, got {list(place.shape)}; use the file as it was published")
        coding = CODINGS.get(place.coding)
        if coding is None or shape[-1] % coding.size:
            known = ", ".join(each.name for each in CODINGS.values())
            raise self._odd(f"code {name} as one of {known}, got type {place.coding}; convert it with llama.cpp")
        begin, n_blocks = self._first + place.offset, math.prod(shape) // coding.size
        end = begin + n_blocks * coding.block.itemsize
        if end > len(self._bytes):
            raise self._odd(f"be whole, and ends at byte {len(self._bytes):,} of {end:,}; fetch it again")
        numbers = coding.read(self._bytes[begin:end].view(coding.block)).reshape(shape)
        if not np.isfinite(numbers).all():
            raise self._odd(f"hold finite numbers, and {name} has others; fetch it again")
        return numbers

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of its vocabulary and merges.

        Raises: ValueError for one that splits texts in a way that is not known here.
        """
        kind, split = self.value(f"{TOKENS}.model", str), self.value(f"{TOKENS}.pre", str, "default")
        if kind != "gpt2" or split not in SPLITS:
            raise self._odd(
                f"spell texts as gpt2 does, split as one of {', '.join(SPLITS)}, got {kind} and {split}; use a file "
                "of that family, such as SmolLM2"
            )
        tokens, types = self.value(f"{TOKENS}.tokens", list), self.value(f"{TOKENS}.token_type", list)
        merges = [tuple(merge.split(" ")) for merge in self.value(f"{TOKENS}.merges", list)]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        try:
            tokenizer = Tokenizer(models.BPE(vocabulary, merges))
        except Exception as error:  # what the library raises has no class of its own
            raise self._odd(f"hold merges of its own tokens: {error}; use the file as it was published") from None
        tokenizer.pre_tokenizer = SPLITS[split]()
        tokenizer.decoder = decoders.ByteLevel()
        control = [token for token, kind in zip(tokens, types, strict=False) if kind == CONTROL]
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
        if not special_ids(prepared(tokenizer)):
            raise self._odd("have the tokens that begin and end a text in SmolLM2, and lacks one; use such a file")
        return tokenizer


def _bytes_of_words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


SPLITS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _bytes_of_words()]),
    "gpt-2": _bytes_of_words,
}
"""How a text is split before pairs are merged, by its name in the file; digits one by one in SmolLM's."""
