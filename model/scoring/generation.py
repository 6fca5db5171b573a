"""Write texts from rows, subword by subword, with an exported network or with torch's.

A row's text depends on the row, its key and the settings alone. Draws follow from seed, key and place, so no row beside
it shifts them. And so that not even a bit of a probability depends on the rows beside it, every array has a shape that
the row decides by itself: rows of one length, rounded up to PREFIX_STEP subwords, are written BATCH_ROWS at once, the
first of them again where there are fewer.

A text is never run, and nothing believes it. It has max_tokens subwords at most, whatever a network says; where it must
match a pattern, subwords are drawn from those alone by which it still can (see `model.scoring.constraint`).
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from tokenizers import Tokenizer

from model.features.batches import Batch, collate
from model.features.encoded import Encoded
from model.features.fitted import Features
from model.features.kinds import TEXT, kind_class, sequence_kinds
from model.features.label_texts import UNWANTED, LabelTexts
from model.features.subwords import control_ids, special_ids, text_of
from model.scoring.constraint import Constraint, Constraints
from model.settings import GenerationSettings

BATCH_ROWS = 16
PREFIX_STEP = 32
LOG_SHARES, PAST, SOURCE = "log_shares", "past", "source"
"""Of a step: the logarithm of the share of each subword, and what is kept of the tokens that were read."""
PREFIX_OF, IDS, PLACES = "prefix_of", "ids", "places"
"""To a step: which tokens of the rows each text has as its prefix, and the new subwords with their places."""
STEP_INPUTS = (PREFIX_OF, IDS, PLACES, PAST, SOURCE)
STEP_OUTPUTS = (LOG_SHARES, f"new_{PAST}", f"new_{SOURCE}")

Step = Callable[[Batch], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Inputs of rows and STEP_INPUTS to STEP_OUTPUTS: float32 [b, t, v], what is kept of all tokens."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A text, and how it came about."""

    text: str
    """Without what ended it."""
    tokens: tuple[int, ...]
    """The subwords that were drawn, without the one that closes a text."""
    mean_log_probability: float
    """Of these and of the closing one, if it came, among all subwords; natural logarithm."""
    ended: bool
    """Whether it was closed or met a word that stops it; False where it was cut."""


@dataclass
class _Draft:
    """A text that is being written."""

    key: str
    tokens: list[int] = field(default_factory=list)
    log_shares: list[float] = field(default_factory=list)
    state: int = 0
    """Of the automaton of what it must match."""
    text: str | None = None
    """Once it has ended."""


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """What holds of all texts that are written at once."""

    settings: GenerationSettings
    constraint: Constraint | None
    end: int
    """The subword that closes a text."""
    never: list[int]
    """Those that are no text."""

    def allowed(self, draft: _Draft, log_shares: np.ndarray, place: int) -> np.ndarray:
        """Return the shares of the subwords that may come next, minus infinity for the others. Shapes: [v]."""
        if self.constraint is None:
            allowed = log_shares.copy()
            allowed[self.never] = -np.inf
            if place < self.settings.min_tokens:
                allowed[self.end] = -np.inf
            return allowed
        allowed, (tokens, _) = np.full_like(log_shares, -np.inf), self.constraint.following_at(draft.state, place)
        allowed[tokens] = log_shares[tokens]
        if self.constraint.may_close(draft.state, place):
            allowed[self.end] = log_shares[self.end]
        return allowed

    def text_at_stop(self, draft: _Draft, tokenizer: Tokenizer) -> str | None:
        """Return a text without the word that ends it, None where none does."""
        if not self.settings.stop or len(draft.tokens) < self.settings.min_tokens:
            return None
        text = text_of(tokenizer, draft.tokens)
        start = len(text_of(tokenizer, draft.tokens[: self.settings.min_tokens]))
        ends = [place for word in self.settings.stop if (place := text.find(word, start)) >= 0]
        return text[: min(ends)] if ends else None


@dataclass(frozen=True, kw_only=True)
class Writer:
    """What goes on after a row by a text."""

    step: Step
    features: Features
    past_shape: tuple[int, int, int]
    """Blocks, heads, width of a head."""
    max_tokens: int
    """The most that the network knows places for."""
    n_parallel: int = 1
    """Batches that are written at once, each by a thread."""
    constraints: Constraints
    """What has been worked out of patterns."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Return what spells texts."""
        return self.features.tokenizer

    def write(self, encoded: Encoded, keys: Sequence[str], settings: GenerationSettings) -> list[Written]:
        """Return a text for each row; `keys` are their keys as text.

        Raises: ValueError naming what `settings.pattern` must be, where no text can match it.
        """

        def work(batch: tuple[np.ndarray, int]) -> None:
            self._write(encoded, *batch, [drafts[row] for row in batch[0]], rules)

        rules = self._rules(settings)
        drafts = [_Draft(key, state=rules.constraint.start if rules.constraint else 0) for key in keys]
        self._in_parallel(work, encoded)
        return [self._written(draft) for draft in drafts]

    def _rules(self, settings: GenerationSettings) -> _Rules:
        ids = special_ids(self.tokenizer)
        return _Rules(
            settings=settings,
            constraint=self.constraints.of(settings, self._most(settings)),
            end=ids["sep"],
            never=[token_id for token_id in control_ids(self.tokenizer) if token_id != ids["sep"]],
        )

    def _most(self, settings: GenerationSettings) -> int:
        return min(settings.max_tokens, self.max_tokens)

    def nats(self, encoded: Encoded, labels: LabelTexts) -> np.ndarray:
        """Return the negative log-likelihood of each row's label. Shapes: float64 [n]."""
        found = np.zeros(len(encoded))

        def work(batch: tuple[np.ndarray, int]) -> None:
            rows, n_subwords = batch
            ids, wanted = labels.batch(rows)
            inputs = self._first(encoded, rows, n_subwords)
            inputs |= {IDS: ids, PLACES: np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()}
            log_shares, *_ = self.step(inputs)
            each = np.take_along_axis(log_shares, wanted.clip(min=0)[..., None], 2)[..., 0].astype(np.float64)
            found[rows] = -np.where(wanted == UNWANTED, 0.0, each).sum(axis=1)

        self._in_parallel(work, encoded)
        return found

    def _in_parallel(self, work: Callable[[tuple[np.ndarray, int]], None], encoded: Encoded) -> None:
        with ThreadPoolExecutor(self.n_parallel, "write") as workers:
            deque(workers.map(work, _batches(encoded)), maxlen=0)

    def _first(self, encoded: Encoded, rows: np.ndarray, n_subwords: int) -> Batch:
        """Return the inputs of rows, their texts padded to so many subwords, with nothing kept."""
        pad_id = self.features.sizes.pad_id
        batch, name = collate(encoded, rows, pad_id), kind_class(TEXT).input
        n_tokens = int(encoded.lengths[rows[0]])
        if name in batch:
            n_tokens += n_subwords - int(_n_subwords(encoded)[rows[0]])
            missing = n_subwords - batch[name].shape[1]
            batch[name] = np.pad(batch[name], ((0, 0), (0, missing)), constant_values=pad_id)
        blocks, heads, width = self.past_shape
        return {
            **batch,
            PREFIX_OF: np.arange(len(rows) * n_tokens).reshape(len(rows), n_tokens),
            PAST: np.zeros((blocks, 2, len(rows), heads, 0, width), np.float32),
            SOURCE: np.zeros((len(rows), 0), np.int64),
        }

    def _write(self, encoded: Encoded, rows: np.ndarray, n_subwords: int, drafts: list[_Draft], rules: _Rules) -> None:
        inputs = self._first(encoded, np.resize(rows, BATCH_ROWS), n_subwords)
        own = [name for name in inputs if name not in STEP_INPUTS]
        latest = np.full((BATCH_ROWS, 1), special_ids(self.tokenizer)["begin"])
        for place in range(self._most(rules.settings)):
            inputs |= {IDS: latest, PLACES: np.full_like(latest, place)}
            log_shares, past, source = self.step(inputs)
            latest = np.full_like(latest, rules.end)
            for number, draft in enumerate(drafts):
                if draft.text is None:
                    latest[number] = self._go_on(draft, log_shares[number, 0], place, rules)
            if all(draft.text is not None for draft in drafts):
                break
            # The rows themselves were read with the first step.
            inputs |= {name: inputs[name][:0] for name in own}
            inputs |= {PREFIX_OF: np.zeros((BATCH_ROWS, 0), np.int64), PAST: past, SOURCE: source}

    def _go_on(self, draft: _Draft, log_shares: np.ndarray, place: int, rules: _Rules) -> int:
        """Draw the next subword of a text, note it, and return it."""
        settings, allowed = rules.settings, rules.allowed(draft, log_shares, place)
        token = drawn(allowed, settings.temperature, noise(settings.seed, draft.key, place))
        draft.log_shares.append(float(log_shares[token]))
        if token == rules.end:
            draft.text = text_of(self.tokenizer, draft.tokens)
            return token
        draft.tokens.append(token)
        if rules.constraint:
            draft.state = rules.constraint.after(draft.state, token)
        draft.text = rules.text_at_stop(draft, self.tokenizer)
        return token

    def _written(self, draft: _Draft) -> Written:
        ended = draft.text is not None
        return Written(
            text=draft.text if draft.text is not None else text_of(self.tokenizer, draft.tokens),
            tokens=tuple(draft.tokens),
            mean_log_probability=float(np.mean(draft.log_shares)),
            ended=ended,
        )


def noise(seed: int, key: str, place: int) -> float:
    """Return a number from 0 to 1, never 1, that seed, key and place decide.

    >>> noise(0, "a", 1) == noise(0, "a", 1) != noise(0, "a", 2)
    True
    """
    digest = blake2b(f"{seed} {place} {key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def drawn(log_shares: np.ndarray, temperature: float, number: float) -> int:
    """Return the subword that a number from 0 to 1 stands for, or the likeliest one at temperature 0. Shapes: [v].

    >>> shares = np.log([0.25, 0.75])
    >>> drawn(shares, 0.0, 0.1), drawn(shares, 1.0, 0.1), drawn(shares, 1.0, 0.3)
    (1, 0, 1)
    """
    if not temperature:
        return int(log_shares.argmax())
    scaled = (log_shares.astype(np.float64) - log_shares.max()) / temperature
    ends = np.exp(scaled).cumsum()
    return int(np.searchsorted(ends, number * ends[-1], "right").clip(max=len(ends) - 1))


def _n_subwords(encoded: Encoded) -> np.ndarray:
    """Return the subwords of each row's texts. Shapes: int64 [n]."""
    return np.broadcast_to(kind_class(TEXT).n_tokens(encoded.arrays), len(encoded))


def _batches(encoded: Encoded) -> Iterator[tuple[np.ndarray, int]]:
    """Yield rows that have one shape, BATCH_ROWS at most, and the subwords to which their texts are padded."""
    others = [kind.n_tokens(encoded.arrays) for kind in sequence_kinds() if kind.name != TEXT]
    n_subwords = -(-_n_subwords(encoded) // PREFIX_STEP) * PREFIX_STEP
    shapes = np.stack([n_subwords, *(np.broadcast_to(each, len(encoded)) for each in others)], axis=1)
    kinds, group = np.unique(shapes, axis=0, return_inverse=True)
    for number, shape in enumerate(kinds):
        rows = np.flatnonzero(group.ravel() == number)
        for start in range(0, len(rows), BATCH_ROWS):
            yield rows[start : start + BATCH_ROWS], int(shape[0])
