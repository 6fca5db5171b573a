"""The task span: an answer that stands in a text of the row, from a character to another, or that there is none.

While nights are made, scores are `Answer`s. Where labels are known, the scores of a row are what MEASURED names. What
an engine says of a row, and what both are made of, is float32 [2, 2]: where its likeliest answer begins and ends, in
characters of the text, and beside these how probable that answer is, and that there is one at all.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.heads.base import Metric
from model.heads.parts.learnt_elsewhere import TextLabels
from model.heads.prediction_rule import HALF, PredictionRule, as_rule

if TYPE_CHECKING:
    import numpy as np

METRICS = ("exact_match", "f1", "none_accuracy")
MEASURED = ("has_answer", "probability", "exact_match", "f1", "is_none")
"""What is measured of a row: how probable it is that there is an answer, and that it is the likeliest one; what that
one has in common with the label; whether the label says that there is none. A rule then says from which probability on
a row is answered."""
NONE = "|"
"""How a delivered cell that says "none" is stored, since an empty cell may also say that nothing is known yet."""
COLUMNS = ("start", "end", "probability", "has_answer")
"""Columns of a night beside the prediction."""
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True)
class Answer:
    """What is answered of one row."""

    text: str | None
    """The answer as it stands in the row's text; None where there is none."""
    start: int
    """The character of the text with which it begins; -1 where there is none."""
    end: int
    """The character after its last one; -1 where there is none."""
    probability: float
    """That it is this answer, at this place; where there is none, that there is none."""


class Span(TextLabels):
    """One distribution over all stretches of a text, and no answer."""

    task = "span"
    answers_spans = True
    normalises_labels = True
    has_threshold = True
    metric_names = METRICS
    plots = ("answers",)

    def normalise_label(self, cell: object) -> object:
        """Return an answer without the white space around it, an empty text where there is none.

        >>> Span().normalise_label(" 7 May "), Span().normalise_label("|")
        ('7 May', '')
        """
        if not isinstance(cell, str):
            return cell
        return "" if cell.strip() == NONE else cell.strip()

    def n_outputs(self, n_classes: int) -> int:
        """Return the number of what an engine says of a row's likeliest answer."""
        return 2

    def score_shape(self, n_classes: int) -> tuple[int, ...]:
        """Return place and probability, twice."""
        return (2, 2)

    def compared_scores(self, scores: np.ndarray) -> np.ndarray:
        """Return the probabilities: of two places that are as probable either may be named. Shapes: -> [n, 2]."""
        return scores[..., 1]

    def metrics(self, rule: float | PredictionRule) -> dict[str, Metric]:
        """Return how often answers are the labels, how much they have in common, and how often "none" is right.

        exact_match and f1 are those of `exact_match` and `f1`; none_accuracy is the share of rows that are answered if
        and only if they have an answer, whichever. A row is answered from the rule's threshold on.
        """
        return {name: _mean_of(name, as_rule(rule).thresholds[0]) for name in METRICS}

    def label_losses(self, scores: np.ndarray, rule: float | PredictionRule) -> np.ndarray:
        """Return what is lacking of F1. Shapes: float64 [n]."""
        return 1 - values_of("f1", scores, as_rule(rule).thresholds[0])

    def night_columns(
        self, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, np.ndarray]:
        """Return the answer, where it begins and ends in the text, its probability, and whether there is one."""
        import numpy as np

        prediction = np.empty(len(scores), object)
        prediction[:] = [each.text for each in scores]
        return {
            "prediction": prediction,
            "start": np.array([each.start for each in scores], np.int32),
            "end": np.array([each.end for each in scores], np.int32),
            "probability": np.array([each.probability for each in scores], np.float32),
            "has_answer": np.array([each.text is not None for each in scores], bool),
        }

    def scores_of_night(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the answers as texts, an empty one for none. Shapes: object [n]."""
        import numpy as np

        texts = np.empty(len(columns["prediction"]), object)
        texts[:] = [each if isinstance(each, str) else "" for each in columns["prediction"]]
        return texts, ()


def answers_of(texts: Iterable[str | None], scores: np.ndarray, threshold: float = HALF) -> list[Answer]:
    """Return the answers that an engine gives in texts, where one is more probable than `threshold`.

    Shapes: [n, 2, 2].
    """
    found = []
    for text, ((start, probability), (end, has_answer)) in zip(texts, scores.tolist(), strict=True):
        first, last = int(start), int(end)
        answer = (text or "")[first:last]
        first += len(answer) - len(answer.lstrip())
        answer = answer.strip()
        if has_answer > threshold and answer:
            found.append(Answer(answer, first, first + len(answer), probability))
        else:
            found.append(Answer(None, -1, -1, 1 - has_answer))
    return found


def words_of(text: str) -> list[str]:
    """Return the words by which answers are compared: in lower case, without punctuation and English articles.

    Of a text of nothing but these, all that it has.
    Source: Rajpurkar et al., "SQuAD" (2016), section 6.1; punctuation is that of Unicode here, not that of ASCII alone.

    >>> words_of("The U.S. team, 2-1"), words_of("A")
    (['us', 'team', '21'], ['a'])
    """
    lower = unicodedata.normalize("NFC", text).lower()
    plain = "".join(sign for sign in lower if not unicodedata.category(sign).startswith("P"))
    return _ARTICLES.sub(" ", plain).split() or lower.split()


def exact_match(label: str, answer: str) -> bool:
    """Return whether two answers have the same words in the same order; "none" is an empty text."""
    return words_of(label) == words_of(answer)


def f1(label: str, answer: str) -> float:
    """Return the F1 of the words of two answers, whatever their order; where one is none, whether both are.

    >>> f1("the Bank of England", "Bank"), f1("", ""), f1("7 May", "")
    (0.5, 1.0, 0.0)
    """
    wanted, found = words_of(label), words_of(answer)
    if not wanted or not found:
        return float(wanted == found)
    return 2 * sum((Counter(wanted) & Counter(found)).values()) / (len(wanted) + len(found))


def measured(labels: Iterable[str], answers: Iterable[str], shares: np.ndarray | None = None) -> np.ndarray:
    """Return what MEASURED names of labels and answers, empty texts where there is none.

    `shares` are the probabilities that there is an answer, and that it is this one; by default both are sure.
    Shapes: shares [n, 2] -> float32 [n, 5].
    """
    import numpy as np

    pairs = list(zip(labels, answers, strict=True))
    if shares is None:
        shares = np.ones((len(pairs), 2))
    rows = [
        (*share, exact_match(label, answer), f1(label, answer), not label) if answer else (0, 0, 0, 0, not label)
        for (label, answer), share in zip(pairs, shares, strict=True)
    ]
    return np.array(rows, np.float32).reshape(-1, len(MEASURED))


def values_of(name: str, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return a metric of each row, of answers from a threshold on. Shapes: [n, 5] -> float64 [n].

    >>> import numpy as np
    >>> rows = measured(["Bo", ""], ["Bo", "Bo"], np.array([[0.9, 0.8], [0.6, 0.5]]))
    >>> values_of("exact_match", rows, 0.5).tolist(), values_of("exact_match", rows, 0.7).tolist()
    ([1.0, 0.0], [1.0, 1.0])
    """
    import numpy as np

    share, is_none = scores[:, 0].astype(np.float64), scores[:, -1].astype(np.float64)
    of_answer = 1 - is_none if name == "none_accuracy" else scores[:, MEASURED.index(name)].astype(np.float64)
    return np.where(share > threshold, of_answer, is_none)


def _mean_of(name: str, threshold: float) -> Callable[[np.ndarray, np.ndarray], float]:
    def mean(y: np.ndarray, scores: np.ndarray) -> float:
        if scores.ndim == 1:  # answers of a night, from its threshold on
            return float(values_of(name, measured(y, scores), HALF).mean())
        return float(values_of(name, scores, threshold).mean())

    return mean
