"""The automaton of a regular expression, over the bytes of a text in UTF-8.

`interegular` makes one over letters, which is taken apart into the bytes of UTF-8. A process of its own does that:
thirty letters can ask for more states than a machine has room for, and the library has no bound. A pattern whose
automaton has more than MAX_STATES is refused; what would need far more is ended before by limits of memory and time.
Run as a program, this file reads a pattern and writes its automaton.
"""

import json
import subprocess
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from interegular import FSM

MAX_STATES, MAX_LETTER_STATES = 20_000, 3_000
"""Over bytes, and over letters."""
MAX_BYTES, MAX_SECONDS = 1 << 30, 20
"""Of the process, on its processor. An automaton of MAX_STATES takes a second of these."""
DEAD = 0
"""The state from which no text can match."""
_SYNTAX = "be a regular expression without references back, \\b, ^ and $"
_USE = "see predict.text in docs/products.md"
_SECOND = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}
"""The second bytes that may follow a first one, where they are fewer than all. Source: RFC 3629, section 4."""
_CONTINUED = (0x80, 0xBF)

_Node = tuple[int, bytes] | tuple[int, int, tuple[int, int]]
"""A state of letters and the bytes of a letter so far; or, where these no longer matter, the state after that letter,
how many bytes it still has, and from which to which the next one is."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """States of texts that are being written."""

    following: "np.ndarray"
    """int32 [states, 256]: the state after a state and a byte."""
    is_final: "np.ndarray"
    """bool [states]: whether what was written so far matches."""
    start: int


def refusal(pattern: str) -> str | None:
    """Return what a pattern must be and is not; None where it is fine, or where the library is not installed.

    A scheduler reads entries without that library; the stages have it.
    """
    if find_spec("interegular") is None:
        return None
    try:
        automaton_of(pattern)
    except ValueError as error:
        return str(error)
    return None


@lru_cache(maxsize=8)
def automaton_of(pattern: str) -> Automaton:
    """Return the automaton of the texts that a pattern matches from their first to their last letter.

    Raises: ValueError for a pattern that is none, matches nothing or takes too many states.
    """
    import numpy as np

    command = [sys.executable, "-I", __file__, str(MAX_SECONDS)]
    done = subprocess.run(command, input=pattern.encode(), capture_output=True, check=False)
    head, _, numbers = done.stdout.partition(b"\n")
    found = json.loads(head) if head and not done.returncode else {"n_states": MAX_STATES + 1}
    if rule := found.get("rule"):
        raise ValueError(f"must {rule}, got {pattern!r}; {_USE}")
    if found["n_states"] > MAX_STATES:
        raise ValueError(f"must need {MAX_STATES:,} states at most, and {pattern!r} needs more; repeat less in it")
    before, byte, after = np.frombuffer(numbers, np.int32).reshape(-1, 3).T
    following = np.full((found["n_states"] + 1, 256), DEAD, np.int32)
    following[before, byte] = after
    is_final = np.zeros(len(following), bool)
    is_final[found["final"]] = True
    return Automaton(following, is_final, found["start"])


class _Bytes:
    """The automaton over bytes of one over letters."""

    def __init__(self, letters: "FSM") -> None:
        from interegular.fsm import anything_else

        self.letters = letters
        self.ways = {int(state): dict[int | None, int](ways.items()) for state, ways in letters.map.items()}
        own = [each for each in letters.alphabet if isinstance(each, str) and len(each) == 1 and each > "\x7f"]
        spelt = [each.encode(errors="ignore") for each in own]
        self.beginnings = {each[:length] for each in spelt for length in range(1, len(each))}
        self.other = letters.alphabet.get(anything_else)
        self.number: dict[_Node, int] = {}
        self.transitions = array("i")

    def make(self) -> None:
        """Find all states and transitions, unless there are too many."""
        left = [self._numbered((self.letters.initial, b""))]
        while left and len(self.number) <= MAX_STATES:
            node, number = left.pop()
            for byte, after in self._ways(node):
                is_new = after not in self.number
                left += [self._numbered(after)] * is_new
                self.transitions.extend((number, byte, self.number[after]))

    def _numbered(self, node: _Node) -> tuple[_Node, int]:
        return node, self.number.setdefault(node, len(self.number) + 1)

    def _ways(self, node: _Node) -> Iterator[tuple[int, _Node]]:
        """Yield each byte that may follow, and where it leads."""
        if len(node) == 3:
            state, n_bytes, (first, last) = node
            after: _Node = (state, b"") if n_bytes == 1 else (state, n_bytes - 1, _CONTINUED)
            yield from ((byte, after) for byte in range(first, last + 1))
            return
        state, begun = node
        for byte in range(256):
            if (found := self._after(state, begun + bytes([byte]))) is not None:
                yield byte, found

    def _after(self, state: int, begun: bytes) -> _Node | None:
        """Return where bytes of one letter lead from a state; None where they are none, or nothing matches them."""
        first, ways = begun[0], self.ways.get(state, {})
        n_bytes = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
        if len(begun) == n_bytes:
            try:
                after = ways.get(self.letters.alphabet[begun.decode()])
            except UnicodeDecodeError:
                return None
            return None if after is None else (after, b"")
        if begun in self.beginnings:
            return state, begun
        after = ways.get(self.other)
        if after is None or not 0xC2 <= first <= 0xF4:
            return None
        if len(begun) == 1:
            return after, n_bytes - 1, _SECOND.get(first, _CONTINUED)
        low, high = _SECOND.get(first, _CONTINUED) if len(begun) == 2 else _CONTINUED
        return (after, n_bytes - len(begun), _CONTINUED) if low <= begun[-1] <= high else None


def _described(pattern: str) -> tuple[dict[str, object], bytes]:
    """Return what is to be known of an automaton, and its transitions: before, byte and after of each, as int32."""
    import interegular

    try:
        letters = interegular.parse_pattern(pattern).to_fsm()
    except (RecursionError, MemoryError):
        return {"n_states": MAX_STATES + 1}, b""
    except Exception:  # of many classes
        return {"rule": _SYNTAX}, b""
    if letters.empty():
        return {"rule": "match some text"}, b""
    if len(letters.states) > MAX_LETTER_STATES:
        return {"n_states": MAX_STATES + 1}, b""
    found = _Bytes(letters)
    found.make()
    final = [
        number for node, number in found.number.items() if len(node) == 2 and not node[1] and node[0] in letters.finals
    ]
    described = {"n_states": len(found.number), "start": found.number[letters.initial, b""], "final": final}
    return described, found.transitions.tobytes()


def _write_automaton() -> None:
    """Read a pattern, within limits of memory and time, and write what there is to say of it."""
    import resource

    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    described, numbers = _described(sys.stdin.buffer.read().decode())
    sys.stdout.buffer.write(json.dumps(described).encode() + b"\n" + numbers)


if __name__ == "__main__":
    _write_automaton()
