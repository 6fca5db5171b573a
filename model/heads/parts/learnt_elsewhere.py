"""What tasks have in common that learn by modules of their own, and those of them whose labels are texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from model.heads.base import Head
from model.heads.fitted import Fitted

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class LearntElsewhere(Head):
    """Labels that are no classes and no numbers: modules of the task learn from them, and have its baseline."""

    def activation(self, logits: Tensor, target: Fitted) -> Tensor:
        """Return scores as they are."""
        return logits

    def loss_labels(self, y: np.ndarray, target: Fitted) -> NoReturn:
        """Refuse: a module of the task learns."""
        raise self._refused()

    def loss(self, logits: Tensor, labels: Tensor, smoothing: float, class_weights: Tensor | None) -> NoReturn:
        """Refuse, as `loss_labels`."""
        raise self._refused()

    def score_and_information(self, logits: Tensor, outputs: Tensor, class_weights: Tensor | None) -> NoReturn:
        """Refuse, as `loss_labels`."""
        raise self._refused()

    def tree_estimator(self, is_category: Sequence[bool], y: np.ndarray, seed: int) -> NoReturn:
        """Refuse: the baseline is a module of the task."""
        raise self._refused()

    def linear_estimator(self) -> NoReturn:
        """Refuse, as `tree_estimator`."""
        raise self._refused()

    def estimator_scores(self, estimator: Any, rows: Any, n_classes: int) -> NoReturn:
        """Refuse, as `tree_estimator`."""
        raise self._refused()

    def _refused(self) -> NotImplementedError:
        return NotImplementedError(f"a target of the task {self.task} is learnt by modules of its own")


class TextLabels(LearntElsewhere):
    """A label is a text."""

    label_kind = "text"

    def label_array(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Return the texts, None where none is known. Shapes: object [n]."""
        import numpy as np

        texts = np.empty(len(labels), object)
        texts[:] = [label if isinstance(label, str) else None for label in labels]
        return texts

    def is_known(self, y: np.ndarray) -> np.ndarray:
        """Return which rows have a label. Shapes: bool [n]."""
        import numpy as np

        return np.array([text is not None for text in y], bool)
