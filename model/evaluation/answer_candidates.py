"""The baseline of answers that stand in a text: candidates, scored by their words, shape and place.

A candidate is a run of words whose shape, such as two capitalised words, the answers of the training rows have. Boosted
trees learn which candidate of a row is its answer: by how often it stands in the text and where first, how rare its
words are, whether the row's other texts have them, and how many rare words of these stand near it. The best one is the
answer, unless its probability is below that from which on most training rows are answered rightly.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_WORDS, MAX_SHAPES = 6, 40
"""Of a candidate, and of all candidates."""
NEAR = 12
"""Words on each side in which those of the other texts are counted."""
READ_CHARACTERS = 20_000
"""Of a text that candidates are taken from."""
MAX_REJECTED = 60
"""Candidates of a training row that are no answer and are learnt from."""
MAX_NEAR = 8
"""Places of a candidate that are looked at."""
_WORD = re.compile(r"[^\W_]+(?:[.,'’&-][^\W_]+)*")
_GAP = re.compile(r"[ \t]*[-/&]?[ \t]*")


@dataclass(frozen=True)
class Candidates:
    """What may be the answer of one row."""

    texts: list[str]
    features: np.ndarray
    """float32 [candidates, k]."""


@dataclass(frozen=True)
class AnswerCandidates:
    """A fitted baseline."""

    shapes: Mapping[str, int]
    """Shapes of answers, each with its number."""
    rarity: Mapping[str, float]
    """Of each word of the training texts."""
    unknown: float
    """The rarity of any other word."""
    estimator: Any
    """Trees that say how likely a candidate is the answer; None where no answer has ever stood in a text."""
    threshold: float
    """Below it there is no answer."""

    @classmethod
    def fit(
        cls, texts: Sequence[str | None], others: Sequence[str], answers: Sequence[str], seed: int
    ) -> "AnswerCandidates":
        """Fit shapes, rarities, trees and threshold to rows; `others` are the other texts of each."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        counts = Counter(_shape(words) for answer in answers if 0 < len(words := _WORD.findall(answer)) <= MAX_WORDS)
        shapes = {shape: number for number, (shape, _) in enumerate(counts.most_common(MAX_SHAPES))}
        known = Counter(word for text in texts for word in {each.lower() for each in _WORD.findall(text or "")})
        rarity = {word: math.log((1 + len(texts)) / (1 + n)) for word, n in known.items()}
        unfitted = cls(shapes, rarity, math.log(1 + len(texts)), None, 0.0)
        rows = [unfitted.of_row(text or "", other) for text, other in zip(texts, others, strict=True)]
        random, learnt = np.random.default_rng(seed), [(np.empty((0, 0)), np.empty(0, bool))]
        for row, answer in zip(rows, answers, strict=True):
            is_right = np.array([text == answer for text in row.texts], bool)
            order = random.permutation(len(is_right))
            chosen = order[is_right[order] | (np.cumsum(~is_right[order]) <= MAX_REJECTED)]
            if len(chosen):
                learnt.append((row.features[chosen], is_right[chosen]))
        y = np.concatenate([each for _, each in learnt])
        if not y.any() or y.all():
            return unfitted
        trees = HistGradientBoostingClassifier(
            random_state=seed, max_iter=150, learning_rate=0.08, early_stopping=False
        )
        fitted = cls(shapes, rarity, unfitted.unknown, trees.fit(np.concatenate([x for x, _ in learnt[1:]]), y), 0.0)
        best = fitted.best(rows)
        return cls(shapes, rarity, unfitted.unknown, trees, _threshold(best, answers))

    def answers(self, texts: Sequence[str | None], others: Sequence[str]) -> list[str]:
        """Return the answer of each row, an empty text for none."""
        rows = [self.of_row(text or "", other) for text, other in zip(texts, others, strict=True)]
        return [found if probability > self.threshold else "" for found, probability in self.best(rows)]

    def best(self, rows: Sequence[Candidates]) -> list[tuple[str, float]]:
        """Return each row's likeliest candidate and how likely it is; an empty text and 0 without one."""
        if self.estimator is None or not any(row.texts for row in rows):
            return [("", 0.0)] * len(rows)
        shares = self.estimator.predict_proba(np.concatenate([row.features for row in rows]))[:, 1]
        found, first = [], 0
        for row in rows:
            own = shares[first : (first := first + len(row.texts))]
            found.append((row.texts[int(own.argmax())], float(own.max())) if len(own) else ("", 0.0))
        return found

    def of_row(self, text: str, others: str) -> Candidates:
        """Return the candidates of a row; `others` are its other texts."""
        words = list(_WORD.finditer(text[:READ_CHARACTERS]))
        lower = [word.group().lower() for word in words]
        shapes = [_shape_of_word(word.group()) for word in words]
        asked = {word.lower() for word in _WORD.findall(others)}
        rare = np.r_[0.0, np.cumsum([self.rarity.get(word, self.unknown) * (word in asked) for word in lower])]
        places: dict[tuple[str, int, int], list[int]] = {}
        for first in range(len(words)):
            for n_words in range(1, min(MAX_WORDS, len(words) - first) + 1):
                start, end = words[first].start(), words[first + n_words - 1].end()
                run = words[first : first + n_words]
                if n_words > 1 and not _GAP.fullmatch(text, run[-2].end(), run[-1].start()):
                    break
                shape = self.shapes.get(" ".join(shapes[first : first + n_words]))
                if shape is not None:
                    places.setdefault((text[start:end], shape, n_words), []).append(first)
        features = np.empty((len(places), 9), np.float32)
        for number, ((_, shape, n_words), at) in enumerate(places.items()):
            own = lower[at[0] : at[0] + n_words]
            near = [rare[min(len(lower), i + n_words + NEAR)] - rare[max(0, i - NEAR)] for i in at[:MAX_NEAR]]
            before = text[max(0, words[at[0]].start() - 2) : words[at[0]].start()].strip(" \"'")
            features[number] = (
                shape,
                n_words,
                len(at),
                at[0],
                at[0] / len(lower),
                sum(word in asked for word in own) / n_words,
                sum(self.rarity.get(word, self.unknown) for word in own) / n_words,
                max(near),
                not before or before[-1:] in ".!?\n",
            )
        return Candidates([key[0] for key in places], features)


def _shape(words: Sequence[str]) -> str:
    """Return what words look like.

    >>> _shape(["Bank", "of", "ITV", "2,500"])
    'Xx x XX 9'
    """
    return " ".join(map(_shape_of_word, words))


def _shape_of_word(word: str) -> str:
    if any(map(str.isdigit, word)):
        return "9" if not any(map(str.isalpha, word)) else "9x"
    if not word[0].isupper():
        return "x"
    return "XX" if word.isupper() and len(word) > 1 else "Xx"


def _threshold(best: Sequence[tuple[str, float]], answers: Sequence[str]) -> float:
    """Return from which probability on most rows are answered rightly."""
    order = sorted(range(len(best)), key=lambda row: -best[row][1])
    gains = [int(best[row][0] == answers[row]) - int(not answers[row]) for row in order]
    n_answered = int(np.argmax(np.r_[0, np.cumsum(gains)]))
    return best[order[n_answered]][1] if n_answered < len(order) else -1.0
