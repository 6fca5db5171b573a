"""What may come next in a text that must match a pattern and have so many subwords.

Every subword of the vocabulary is walked through the pattern's automaton, byte by byte, along the tree of all subwords
as bytes. From that follows, for each place and state, whether the text can still be closed in time: where it cannot, no
text is led. So a text that has a pattern always matches it, however few places are left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from tokenizers import Tokenizer

from model.features.subwords import control_ids, text_of
from model.scoring.automaton import DEAD, Automaton, automaton_of
from model.settings import GenerationSettings

MAX_STEPS = 60_000_000
"""Subwords, counted once for each state after which they may follow, that a constraint looks at: a few seconds."""
AT_ONCE = 16
"""States from which the tree is walked at once, which bounds memory."""
KEPT_STATES = 128
"""States whose subwords are kept."""
SPACE = 0x20


@dataclass(frozen=True, eq=False)
class SubwordTree:
    """All subwords as bytes: a node is a beginning of some of them, the first node the empty one."""

    children: np.ndarray
    """int64 [nodes + 1]: the number of a node's first child; those of the next node follow."""
    byte: np.ndarray
    """uint8 [nodes]: the last byte of each beginning."""
    token: np.ndarray
    """int32 [nodes]: the subword that it is, or -1."""

    @classmethod
    def of(cls, subwords: Mapping[int, bytes]) -> "SubwordTree":
        """Return the tree of subwords by their number; of several with the same bytes it has the first."""
        beginnings = {word[:length] for word in subwords.values() for length in range(len(word) + 1)} | {b""}
        nodes = sorted(beginnings, key=lambda each: (len(each), each))
        number = {beginning: place for place, beginning in enumerate(nodes)}
        parent = np.array([-1, *(number[each[:-1]] for each in nodes[1:])])
        token = np.full(len(nodes), -1, np.int32)
        for token_id, word in sorted(subwords.items(), reverse=True):
            token[number[word]] = token_id
        token[0] = -1
        byte = np.array([each[-1] if each else 0 for each in nodes], np.uint8)
        return cls(np.searchsorted(parent, np.arange(len(nodes) + 1)), byte, token)

    def walk(self, following: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return each subword that may follow a state: the place of that state, the subword, and the state after it.

        Shapes: int32 [states, 256], int [n] -> int [steps] three times.
        """
        origin, at, node = np.arange(len(states)), states, np.zeros(len(states), np.int64)
        found = [(origin[:0], self.token[:0], at[:0])]
        while len(node):
            first, n_children = self.children[node], np.diff(self.children)[node]
            before = np.repeat(n_children.cumsum() - n_children, n_children)
            node = np.repeat(first, n_children) + np.arange(n_children.sum()) - before
            at = following[np.repeat(at, n_children), self.byte[node]]
            alive = at != DEAD
            origin, at, node = np.repeat(origin, n_children)[alive], at[alive], node[alive]
            is_whole = self.token[node] >= 0
            found.append((origin[is_whole], self.token[node][is_whole], at[is_whole]))
        origin, token, at = (np.concatenate(part) for part in zip(*found, strict=True))
        return origin, token, at


class Constraint:
    """Which subwords may come next."""

    def __init__(self, pattern: str, tokenizer: Tokenizer, tree: SubwordTree, places: range) -> None:
        """Find out from where a text can be closed; `places` are those at which it may be.

        Raises: ValueError naming what the pattern must be, where no text of so many subwords matches, or too many
        steps lead there.
        """
        automaton = _of_whole_text(automaton_of(pattern), tokenizer)
        self.tree, self.following = tree, automaton.following
        self.is_final, self.start, self.places = automaton.is_final, automaton.start, places
        before, after = self._edges(pattern)
        self.can_close = np.zeros((places.stop + 1, len(self.is_final)), bool)
        for place in reversed(range(places.stop)):
            can_close, later = self.can_close[place], self.can_close[place + 1]
            can_close[before[later[after]]] = True
            if place in places:
                can_close |= self.is_final
        if not self.can_close[0, self.start]:
            raise ValueError(
                f"must match some text of {places.start} to {places.stop - 1} subwords, and {pattern!r} matches none; "
                "raise predict.text.max_tokens, lower min_tokens, or use letters that the model's subwords spell"
            )
        self._next = lru_cache(maxsize=KEPT_STATES)(self._next_of)

    def _edges(self, pattern: str) -> tuple[np.ndarray, np.ndarray]:
        """Return all pairs of states between which a subword leads, of those that texts reach in time."""
        left, reached = [self.start], np.zeros(len(self.is_final), bool)
        reached[self.start] = True
        pairs, n_steps = [np.empty((2, 0), np.int32)], 0
        for _ in self.places_before_the_last:
            further: list[int] = []
            for first in range(0, len(left), AT_ONCE):
                states = np.array(left[first : first + AT_ONCE])
                origin, _, after = self.tree.walk(self.following, states)
                n_steps += len(after)
                if n_steps > MAX_STEPS:
                    raise ValueError(
                        f"must let {MAX_STEPS:,} subwords follow at most, over all its states, and {pattern!r} lets "
                        "more; repeat less"
                    )
                keys = np.unique(origin * len(reached) + after)
                origin, after = keys // len(reached), keys % len(reached)
                pairs.append(np.stack([states[origin], after]))
                new = np.unique(after[~reached[after]])
                reached[new] = True
                further += new.tolist()
            if not further:
                break
            left = further
        before, after = np.concatenate(pairs, axis=1)
        return before, after

    @property
    def places_before_the_last(self) -> range:
        """Return the places at which a subword may be drawn: the last one is for what closes a text."""
        return range(self.places.stop - 1)

    def following_at(self, state: int, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the subwords that may stand at a place after a state, and the states after them. Shapes: [n] twice."""
        tokens, after = self._next(state)
        allowed = self.can_close[place + 1, after]
        return tokens[allowed], after[allowed]

    def after(self, state: int, token: int) -> int:
        """Return the state after a subword that may follow one."""
        tokens, after = self._next(state)
        return int(after[np.searchsorted(tokens, token)])

    def may_close(self, state: int, place: int) -> bool:
        """Return whether a text may end before a place."""
        return bool(self.is_final[state]) and place in self.places

    def _next_of(self, state: int) -> tuple[np.ndarray, np.ndarray]:
        _, tokens, after = self.tree.walk(self.following, np.array([state]))
        order = np.argsort(tokens, kind="stable")
        return tokens[order], after[order]


class Constraints:
    """What texts of a model must be, by their settings; each is worked out once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.of = lru_cache(maxsize=4)(self._of)

    def _of(self, settings: GenerationSettings, most: int) -> Constraint | None:
        """Return the constraint of texts of `most` subwords, None where nothing is asked of them.

        Raises: ValueError, as of `Constraint`.
        """
        if settings.pattern is None:
            return None
        tree = SubwordTree.of(bytes_of_subwords(self.tokenizer))
        return Constraint(settings.pattern, self.tokenizer, tree, range(settings.min_tokens, most))


def _of_whole_text(automaton: Automaton, tokenizer: Tokenizer) -> Automaton:
    """Return the automaton of what subwords spell: with a space before a text, where the tokenizer puts one.

    A space at the beginning is no part of a text, see `text_of`: where none is put, none may be written.
    """
    ids = tokenizer.encode("a", add_special_tokens=False).ids
    row = automaton.following[automaton.start].copy()
    row[SPACE] = DEAD
    if tokenizer.decode(ids) != text_of(tokenizer, ids):
        row[:] = DEAD
        row[SPACE] = automaton.start
    is_final = np.append(automaton.is_final, automaton.is_final[automaton.start])
    return Automaton(np.vstack([automaton.following, row]), is_final, len(automaton.following))


def bytes_of_subwords(tokenizer: Tokenizer) -> dict[int, bytes]:
    """Return the bytes of each subword of a tokenizer of bytes; what is no text has none.

    Source: Radford et al. 2019 (GPT-2), encoder.py: printable bytes stand for themselves, the others are moved.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(moved)}
    no_text = set(control_ids(tokenizer))
    return {
        token_id: bytes(byte_of[letter] for letter in token)
        for token, token_id in tokenizer.get_vocab().items()
        if token_id not in no_text and all(letter in byte_of for letter in token)
    }
