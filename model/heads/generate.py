"""The task generate: a text, written from what a row holds.

While nights are made, scores are not numbers but `model.scoring.generation.Written`. Where labels are known, the scores
of a row are what MEASURED names: the bits that its label had by the model, the bytes of that label, how much the text
that the model writes has in common with it, and whether that has a name or number which the row does not have. What the
rows do not say, such as the text of a model that writes none, is NaN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from model.heads.base import Metric
from model.heads.parts.learnt_elsewhere import TextLabels
from model.heads.prediction_rule import PredictionRule

if TYPE_CHECKING:
    import numpy as np

BITS_PER_BYTE = "bits_per_byte"
MEASURED = ("bits", "bytes", "rouge_l", "unsupported")
"""What is measured of a row."""
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Generate(TextLabels):
    """Texts of any length; a label is one, as it is."""

    task = "generate"
    writes_texts = True
    metric_names = ("rouge_l", "bits_per_byte", "unsupported")
    lower_is_better = ("bits_per_byte", "unsupported")
    plots = ("bits_per_byte",)
    list_columns: ClassVar[Mapping[str, str]] = {"tokens": "int32"}

    def n_outputs(self, n_classes: int) -> int:
        """Return the number of what is measured."""
        return len(MEASURED)

    def score_shape(self, n_classes: int) -> tuple[int, ...]:
        """Return the same."""
        return (len(MEASURED),)

    def metrics(self, rule: float | PredictionRule) -> dict[str, Metric]:
        """Return how much texts have in common with the labels, how well these are foreseen, and what texts make up.

        rouge_l: the F1 of the longest common subsequence of words. bits_per_byte: of all labels together, where that
        of a byte drawn blindly is 8. unsupported: the share of texts with a name or number that their row does not
        have.
        """
        return {"rouge_l": _rouge_l, "bits_per_byte": _bits_per_byte, "unsupported": _mean_of("unsupported")}

    def label_losses(self, scores: np.ndarray, rule: float | PredictionRule) -> np.ndarray:
        """Return the bits of each byte of the labels. Shapes: float64 [n]."""
        import numpy as np

        return scores[:, 0].astype(float) / np.maximum(scores[:, 1], 1)

    def night_columns(
        self, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, np.ndarray]:
        """Return the text, the subwords that it was written as, their mean log-probability, and whether it ended."""
        import numpy as np

        prediction, tokens = np.empty(len(scores), object), np.empty(len(scores), object)
        prediction[:] = [each.text for each in scores]
        tokens[:] = [list(each.tokens) for each in scores]
        return {
            "prediction": prediction,
            "tokens": tokens,
            "mean_log_probability": np.array([each.mean_log_probability for each in scores], np.float32),
            "ended": np.array([each.ended for each in scores], bool),
        }

    def scores_of_night(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the texts; what labels cost in bits a night does not hold. Shapes: object [n]."""
        return columns["prediction"], ()

    def night_score(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the mean log-probability. Shapes: [n]."""
        return columns["mean_log_probability"]


def rouge_l(label: str, text: str) -> float:
    """Return the F1 of the longest common subsequence of words, in lower case; 0 where one has no word.

    Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), section 3.1, with beta 1.

    >>> round(rouge_l("Blair wins the vote", "The vote: Blair wins"), 2)
    0.5
    """
    wanted, found = (_WORD.findall(each.lower()) for each in (label, text))
    lengths = [0] * (len(found) + 1)
    for word in wanted:
        before = 0
        for place, other in enumerate(found, start=1):
            longest = before + 1 if word == other else max(lengths[place], lengths[place - 1])
            before, lengths[place] = lengths[place], longest
    return 2 * lengths[-1] / (len(wanted) + len(found)) if lengths[-1] else 0.0


def is_unsupported(text: str, source: str) -> bool:
    """Return whether a text has a number, or a capitalised word beyond its first, that the source does not have.

    >>> is_unsupported("Profits of Acme rise 7%", "The company ACME earned 5%"), is_unsupported("Up 5%", "a 5% rise")
    (True, False)
    """
    known = source.casefold()
    numbers = set(_NUMBER.findall(known))
    if any(number not in numbers for number in _NUMBER.findall(text)):
        return True
    words = set(_WORD.findall(known))
    return any(word[0].isupper() and word.casefold() not in words for word in _WORD.findall(text)[1:])


def measured(
    labels: np.ndarray,
    nats: np.ndarray,
    n_bytes: np.ndarray,
    texts: Sequence[str | None] | np.ndarray,
    table: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Return what MEASURED names of labels and texts of the table's rows; of a text that was not written, NaN.

    Shapes: each [n] -> float32 [n, 4].
    """
    import numpy as np

    found = np.empty((len(labels), len(MEASURED)), np.float32)
    found[:, 0], found[:, 1] = nats / np.log(2), n_bytes
    for row, (label, text) in enumerate(zip(labels, texts, strict=True)):
        if text is None:
            found[row, 2:] = np.nan
            continue
        cells = [column[row] for column in table.values()]
        source = " ".join(f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in cells if cell is not None)
        found[row, 2:] = rouge_l(label or "", text), is_unsupported(text, source)
    return found


def _rouge_l(y: np.ndarray, scores: np.ndarray) -> float:
    if scores.ndim == 1:  # texts of a night
        import numpy as np

        return float(np.mean([rouge_l(label, text or "") for label, text in zip(y, scores, strict=True)]))
    return _mean_of("rouge_l")(y, scores)


def _bits_per_byte(y: np.ndarray, scores: np.ndarray) -> float:
    import numpy as np

    if scores.ndim == 1:
        return float("nan")
    bits, n_bytes = scores[:, :2].astype(np.float64).sum(axis=0)
    return float(bits / n_bytes) if n_bytes else float("nan")


def _mean_of(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    def mean(y: np.ndarray, scores: np.ndarray) -> float:
        import numpy as np

        values = scores[:, MEASURED.index(name)] if scores.ndim == 2 else scores[:0].astype(float)
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")

    return mean
