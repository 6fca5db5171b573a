"""The task reconstruct: how much each cell of a row surprises where all others are seen. It needs no labels.

The scores of a row are, for each column that is guessed, the bits of its cell (the base-2 logarithm of one over the
probability that it had), then the bits that were expected (the entropy of the guess), then the number of the choice
that was likeliest. The surprise of a row is the sum of the bits. Its most surprising column is the one with most beyond
what was expected: a time of day always has many bits, and says nothing by that.

Rows are learnt from as they come. What is held out, `tasks.split` adds once more with one cell of another row in each;
the label is the column of that cell, and CHANGED_NOTHING of a row as it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from model.heads.base import Metric
from model.heads.parts.learnt_elsewhere import LearntElsewhere
from model.heads.prediction_rule import PredictionRule

if TYPE_CHECKING:
    import numpy as np

CHANGED_NOTHING = "-"
"""The label of a row as it came; no column can be called so."""
SURPRISE = "surprise_bits"
"""The column of a night with the surprise of a row."""
SURPRISE_PERCENTILE = "surprise_percentile"
"""The column with how many of 100 training rows have less."""


class Reconstruct(LearntElsewhere):
    """The surprise of rows. The classes of a target are the columns that are guessed, in the order of their tokens."""

    task = "reconstruct"
    own_label = CHANGED_NOTHING
    min_classes = 2
    plots = ("surprise",)
    metric_names = ("auc", "column_named", "bits_per_row")
    lower_is_better = ("bits_per_row",)

    def label_array(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Return the number of the column that was changed, -1 for a row as it came. Shapes: int64 [n]."""
        import numpy as np

        numbers = {name: number for number, name in enumerate(classes)}
        return np.fromiter((numbers.get(label, -1) for label in labels), np.int64, len(labels))

    def is_known(self, y: np.ndarray) -> np.ndarray:
        """Return which rows can be learnt from: those as they came. Shapes: bool [n]."""
        return y < 0

    def n_outputs(self, n_classes: int) -> int:
        """Return bits, expected bits and likeliest choice for each column."""
        return 3 * n_classes

    def score_shape(self, n_classes: int) -> tuple[int, ...]:
        """Return the same."""
        return (3 * n_classes,)

    def compared_scores(self, scores: np.ndarray) -> np.ndarray:
        """Return the bits: of two choices that are as likely an engine may take the other one. Shapes: [n, 2 m]."""
        return scores[:, : 2 * scores.shape[1] // 3]

    def metrics(self, rule: float | PredictionRule) -> dict[str, Metric]:
        """Return how well changed rows are told from others, their column is named, and rows as they came are known."""
        return {"auc": _auc, "column_named": _column_named, "bits_per_row": _bits_per_row}

    def per_class(
        self, y: np.ndarray, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, dict[str, float]] | None:
        """Return by column the bits of its cells as they came, and how its changed cells were found."""
        bits, whole = bits_of(scores), y < 0
        found = {}
        for number, name in enumerate(classes):
            rows = whole | (y == number)
            changed = int((y == number).sum())
            found[name] = {
                "bits": float(bits[whole, number].mean()) if whole.any() else 0.0,
                "auc": _auc(y[rows], scores[rows]) if changed and whole.any() else 0.0,
                "named": _column_named(y[rows], scores[rows]) if changed else 0.0,
                "support": changed,
            }
        return found

    def night_columns(
        self, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, np.ndarray]:
        """Return the column that surprises most as the prediction, and the surprise of the whole row."""
        import numpy as np

        most = most_surprising(scores)
        return {"prediction": np.array(classes, object)[most], SURPRISE: bits_of(scores).sum(axis=1)}

    def scores_of_night(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the surprise of each row; that of its cells a night does not hold. Shapes: [n]."""
        return columns[SURPRISE], ()

    def night_score(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the surprise. Shapes: [n]."""
        return columns[SURPRISE]


def bits_of(scores: np.ndarray) -> np.ndarray:
    """Return the bits of each cell, of the scores of rows. Shapes: [n, 3 m] -> [n, m]; [n] -> [n, 1], their sum."""
    return scores[:, : scores.shape[1] // 3] if scores.ndim > 1 else scores[:, None]


def likeliest_of(scores: np.ndarray) -> np.ndarray:
    """Return the number of the likeliest choice of each cell. Shapes: [n, 3 m] -> int64 [n, m]."""
    return scores[:, 2 * scores.shape[1] // 3 :].astype("int64")


def most_surprising(scores: np.ndarray) -> np.ndarray:
    """Return the number of the column with most bits beyond what was expected. Shapes: [n, 3 m] -> int64 [n]."""
    n_columns = scores.shape[1] // 3
    return (scores[:, :n_columns] - scores[:, n_columns : 2 * n_columns]).argmax(axis=1)


def _auc(y: np.ndarray, scores: np.ndarray) -> float:
    from model.heads.measures import auc

    return auc((y >= 0).astype(int), bits_of(scores).sum(axis=1))


def _column_named(y: np.ndarray, scores: np.ndarray) -> float:
    changed = y >= 0
    if scores.ndim == 1 or not changed.any():
        return float("nan")
    return float((most_surprising(scores[changed]) == y[changed]).mean())


def _bits_per_row(y: np.ndarray, scores: np.ndarray) -> float:
    whole = y < 0
    return float(bits_of(scores)[whole].sum(axis=1).mean()) if whole.any() else float("nan")
