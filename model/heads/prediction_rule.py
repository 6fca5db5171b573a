"""How scores become the column `prediction`: thresholds of probabilities, or the costs of errors.

Thresholds that were measured belong to a model: they lie beside the exported network, as `prediction.json`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FILE = "prediction.json"
ERRORS = ("false_positive", "false_negative")
"""The errors of a yes or no."""
HALF = 0.5
"""The threshold that nobody has chosen."""


@dataclass(frozen=True, kw_only=True)
class MeasuredThresholds:
    """Thresholds that were chosen on validation rows."""

    metric: str
    """The metric that they are best by."""
    thresholds: tuple[float, ...]
    """One of a yes or no; else one for each label, in the order of the model's classes."""
    rows: int
    """Validation rows."""

    def save(self, folder: Path) -> None:
        """Write them beside the exported network."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> "MeasuredThresholds | None":
        """Return those of the exported model in `folder`; None where it has none."""
        file = folder / FILE
        if not file.exists():
            return None
        content = json.loads(file.read_text("utf-8"))
        return cls(metric=content["metric"], thresholds=tuple(content["thresholds"]), rows=content["rows"])


@dataclass(frozen=True, kw_only=True)
class PredictionRule:
    """A prediction rule: the way from the scores of a row to its prediction."""

    thresholds: tuple[float, ...] = (HALF,)
    """The probability from which on a class is predicted: one for all, or one for each label."""
    costs: tuple[tuple[float, ...], ...] = ()
    """What it costs to predict the second class of a row of the first; of yes or no labels (no, yes). () where every
    error costs 1."""
    least_cost: bool = False
    """Whether of several classes that of least expected cost is predicted, and not the likeliest."""
    levels: tuple[float, ...] = ()
    """Of a number: the levels of the quantiles that stand beside it, ascending."""

    def thresholds_of(self, n_labels: int) -> "np.ndarray":
        """Return the threshold of each label. Shapes: float32 [n_labels]."""
        import numpy as np

        return np.resize(np.asarray(self.thresholds, np.float32), n_labels)

    def cost_matrix(self, n_classes: int) -> "np.ndarray":
        """Return the costs by true and predicted class. Shapes: float64 [n_classes, n_classes]."""
        import numpy as np

        return np.asarray(self.costs, float) if self.costs else 1.0 - np.eye(n_classes)


def as_rule(rule: "float | PredictionRule") -> PredictionRule:
    """Return the rule that a single threshold is."""
    return rule if isinstance(rule, PredictionRule) else PredictionRule(thresholds=(rule,))
