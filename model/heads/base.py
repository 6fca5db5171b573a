"""The protocol of a head: everything that depends on the task of a product; the other packages call it.

Heads hold no state: what is fitted lies in a `model.target.Target`. Heavy libraries are imported inside methods.

Shape legend: b rows of a batch, n rows of a table, o outputs of the network, C classes or labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

from model.heads.fitted import Fitted
from model.heads.prediction_rule import PredictionRule

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Metric = Callable[["np.ndarray", "np.ndarray"], float]
"""Labels and scores to a number; NaN where these rows do not define it."""

CLASS_COLUMN = "probability_"
"""What begins the name of a night's column with the probability of a class or label."""
RIDGE_TO_LOGITS = 8.0
"""Factor that makes rough logits of the predictions of a ridge regression on 0 for no and 1 for yes."""


@dataclass(frozen=True)
class CalibrationPart:
    """One scale and one offset to be fitted."""

    logits: Tensor
    """float64, of the rows that it is fitted to."""
    loss: Callable[[Tensor], Tensor] | None
    """Moved logits to the loss, summed over the rows; None where the rows hold one class and say nothing."""
    has_offset: bool = True
    """Whether an offset is fitted beside the scale."""


class Head(ABC):
    """A task. The defaults are those of a prediction without classes and without probabilities."""

    task: ClassVar[str]
    """Its name in params.yaml and network.json."""

    # Labels in tables.
    own_label: ClassVar[str | None] = None
    """The label of every row, where rows are learnt from by themselves; None where a source delivers labels."""
    has_label_scale: ClassVar[bool] = False
    """Whether labels are numbers that are learnt on a scale of their own (`model.heads.label_scale`)."""
    label_kind: ClassVar[str] = "category"
    """Column kind that cells of the target are cast as."""
    label_values: ClassVar[Mapping[str, int]] = {}
    """Values of labels that are a closed set, by their text in lower case; empty if they are none."""
    largest_label: ClassVar[float] = inf
    """The magnitude beyond which a label that is a number does not fit."""
    normalises_labels: ClassVar[bool] = False
    """Whether cells pass through `normalise_label` before they are cast."""
    min_classes: ClassVar[int] = 0
    """Classes that a target must name at least."""
    max_classes: ClassVar[int | None] = None
    """Classes that it may name at most; None for any number."""
    one_class_per_row: ClassVar[bool] = False
    """Whether a label is exactly one of several classes: trees then split by class, and rows must hold two."""

    has_horizons: ClassVar[bool] = False
    """Whether a row's label may be that of a later day, of which several are predicted."""

    # Scores.
    answers_lists: ClassVar[bool] = False
    """Whether scores are lists of the likeliest of many classes (`model.heads.item_lists`), not one of each class."""
    list_columns: ClassVar[Mapping[str, str]] = {}
    """Columns of a night whose cells are lists, and the type of what these hold."""
    writes_texts: ClassVar[bool] = False
    """Whether what is predicted is a text, which `model.scoring.generation` writes, and labels are texts."""
    answers_spans: ClassVar[bool] = False
    """Whether what is predicted stands in a text of the row (`model.features.answers`), and labels are texts."""
    has_probabilities: ClassVar[bool] = False
    """Whether scores are probabilities, which can be calibrated, and lie within the range of half precision."""
    has_threshold: ClassVar[bool] = False
    """Whether a probability counts as predicted from a threshold on."""
    has_costs: ClassVar[bool] = False
    """Whether errors have costs: a prediction is one of several, or of a yes and a no."""
    calibrates_offset: ClassVar[bool] = False
    """Whether calibration moves the level of the probabilities, which undoes class weights."""
    ridge_scale: ClassVar[float] = RIDGE_TO_LOGITS
    """Factor from the predictions of a ridge regression on `outputs` to outputs of the network."""
    mix_prior: ClassVar[float] = 1.0
    """Weight of each of two models, encoder and linear model, before any row is seen: logits add up."""

    levels: Sequence[float] = ()
    """Shares of the labels that shall lie below each quantile, ascending, where quantiles are predicted."""
    has_companion: ClassVar[bool] = False
    """Whether `model.training.companion` can fit trees and a line to its labels: classes, or a number."""

    # Metrics.
    metric_names: ClassVar[tuple[str, ...]]
    """Keys of `metrics`, the most usual first."""
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    """Those of the metrics that are losses or errors."""
    median_metrics: ClassVar[tuple[str, ...]] = ()
    """Metrics that are best where medians are predicted."""
    quantile_metrics: ClassVar[tuple[str, ...]] = ()
    """Those of the metrics that measure quantiles, and are not defined without such."""
    probability_metrics: ClassVar[tuple[str, ...]] = ()
    """Those of the metrics that measure probabilities, which calibration improves."""
    plots: ClassVar[tuple[str, ...]] = ()
    """Names of the plots of an evaluation, as `tasks.training.plots` has them."""
    reliability_label: ClassVar[str] = "share of positives"
    """Name of the vertical axis of the reliability plot."""

    def with_levels(self, levels: Sequence[float]) -> Head:
        """Return the head that predicts these quantiles too, where labels are numbers."""
        return self

    @property
    def has_labels(self) -> bool:
        """Return whether a source delivers labels."""
        return self.own_label is None

    @property
    def has_classes(self) -> bool:
        """Return whether labels are classes that have names."""
        return self.min_classes > 0

    @property
    def default_metric(self) -> str:
        """Return the metric that decides unless another is asked for.

        It rises as scores get better, if there is such a one, so that a limit can be given without knowing the labels'
        units.
        """
        rising = (name for name in self.metric_names if name not in self.lower_is_better)
        return next(rising, self.metric_names[0])

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise ValueError unless a target may have these classes."""
        too_many = self.max_classes is not None and len(classes) > self.max_classes
        if len(classes) < self.min_classes or too_many:
            raise ValueError(
                f"classes must name {self.min_classes} for a {self.task} target, "
                f"got {list(classes)}; check the labels of the training rows"
            )

    def normalise_label(self, cell: object) -> object:
        """Return a cell such that two that mean the same are equal."""
        return cell

    def classes(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Return the names of the classes in the different labels of the training rows, in the order of the scores."""
        return ()

    @abstractmethod
    def label_array(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Return the labels of a table's column as the array `y` that training and metrics take.

        Shapes: labels [n]; returns [n] or [n, C].
        """

    def is_known(self, y: np.ndarray) -> np.ndarray:
        """Return which labels a model of the training rows' classes can predict. Shapes: bool [n]."""
        import numpy as np

        return np.ones(len(y), bool)

    def standardisation(self, y: np.ndarray) -> tuple[float, float]:
        """Return mean and standard deviation by which the network's labels are standardised."""
        return 0.0, 1.0

    def n_outputs(self, n_classes: int) -> int:
        """Return the width of the network's last layer."""
        return 1

    def score_shape(self, n_classes: int) -> tuple[int, ...]:
        """Return the shape of one row's scores."""
        return ()

    @abstractmethod
    def loss_labels(self, y: np.ndarray, target: Fitted) -> Tensor:
        """Return `y` as the loss takes it. Shapes: [n] or [n, C]."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor, smoothing: float, class_weights: Tensor | None) -> Tensor:
        """Return the loss of each row, the mean over its outputs.

        `smoothing` is the share of a label's mass that is spread over all classes; class_weights as `class_weights`
        gives them. Shapes: logits float32 [b, o]; labels as of `loss_labels`; returns [b].
        """

    def class_weights(self, labels: Tensor, n_outputs: int) -> Tensor | None:
        """Return weights under which all classes weigh alike, 1 in the mean over the rows; None without classes.

        Shapes: labels as of `loss_labels`.
        """
        return None

    def outputs(self, labels: Tensor, n_outputs: int) -> Tensor:
        """Return labels as a linear regression should predict them. Shapes: -> float64 [n, o]."""
        return labels.reshape(len(labels), n_outputs).double()

    @abstractmethod
    def score_and_information(
        self, logits: Tensor, outputs: Tensor, class_weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return first and second derivative of each row's log-likelihood in its logits, the second negated.

        Shapes: logits float64 [n, o]; outputs as of `outputs`; returns twice float64 [n, o].
        """

    def scores(self, logits: Tensor, target: Fitted) -> Tensor:
        """Return the scores of rows, calibrated as the target says. Shapes: [b, o] -> [b, *score_shape]."""
        if target.scale:
            logits = logits * logits.new_tensor(target.scale) + logits.new_tensor(target.offset)
        return self.activation(logits, target)

    def compared_scores(self, scores: np.ndarray) -> np.ndarray:
        """Return what an exported model must say as torch does, within a tolerance. Shapes: [n, ...] -> [n, ...]."""
        return scores

    @abstractmethod
    def activation(self, logits: Tensor, target: Fitted) -> Tensor:
        """Return the scores of calibrated logits. Shapes: as of `scores`."""

    def quantiles(self, logits: Tensor, widening: float, shifts: Sequence[float]) -> Tensor:
        """Return calibrated quantiles of logits, not sorted yet, where there are levels. Shapes: [b, o] -> [b, levels].

        `widening` and `shifts` as of `Fitted`.
        """
        raise NotImplementedError

    def point(self, scores: np.ndarray) -> np.ndarray:
        """Return scores without quantiles. Shapes: [n, *score_shape] -> the same, of a number [n]."""
        return scores

    def lists(self, logits: Tensor, target: Any) -> tuple[Tensor, Tensor]:
        """Return items and scores of lists, where the head answers these. Shapes: [b, C] -> int64, float32 [b, k]."""
        raise NotImplementedError

    def calibration_parts(self, logits: Tensor, labels: Tensor) -> list[CalibrationPart]:
        """Return the parts that are fitted so that probabilities come true on rows; none without probabilities.

        Shapes: logits float64 [n, o]; labels [n] or [n, C], as `label_array` gives them.
        """
        return []

    def uncalibrated(self, scores: np.ndarray, target: Fitted) -> np.ndarray:
        """Return the probabilities as they would be without the calibration of `target`."""
        return scores

    def label_losses(self, scores: np.ndarray, rule: float | PredictionRule) -> np.ndarray:
        """Return the loss of each row whose label is a text, by what was measured of it. Shapes: -> float64 [n]."""
        raise NotImplementedError

    @abstractmethod
    def metrics(self, rule: float | PredictionRule) -> dict[str, Metric]:
        """Return every metric of `metric_names`, of predictions by a rule or from a threshold on."""

    def per_class(
        self, y: np.ndarray, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, dict[str, float]] | None:
        """Return precision, recall, F1 and support by class; None where classes are no part of the report."""
        return None

    def reliability(self, y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the events that probabilities were given of, 0 or 1, and these. Shapes: [events] twice."""
        return y, scores

    @abstractmethod
    def tree_estimator(self, is_category: Sequence[bool], y: np.ndarray, seed: int) -> Any:
        """Return scikit-learn's boosted trees for these labels; `is_category` says which columns are categories."""

    @abstractmethod
    def linear_estimator(self) -> Any:
        """Return scikit-learn's linear model."""

    def of_output(self, estimator: Any, output: int) -> Any:
        """Return boosted trees that are not fitted yet, as one output of the network has them."""
        return estimator

    def spread(self, errors: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """Return what a linear model that predicts means adds to each output. Shapes: [n] of one output -> [o]."""
        import numpy as np

        return np.zeros(1)

    def fit_estimator(self, estimator: Any, rows: Any, y: np.ndarray, n_classes: int) -> Any:
        """Return the estimator fitted to the rows, of whose `n_classes` classes these need not hold all."""
        return estimator.fit(rows, y)

    @abstractmethod
    def estimator_scores(self, estimator: Any, rows: Any, n_classes: int) -> np.ndarray:
        """Return the scores of an estimator that `fit_estimator` gave. Shapes: float32 [n, *score_shape]."""

    @abstractmethod
    def night_columns(
        self, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, np.ndarray]:
        """Return the columns of a night: `prediction`, and the probabilities if there are any."""

    def scores_of_night(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the scores that a night's columns hold, and the classes that they are of: what `night_columns` took.

        Shapes: [n] or [n, C].
        """
        import numpy as np

        names = [name for name in columns if name.startswith(CLASS_COLUMN)]
        if not names:
            return columns["probability"] if self.has_probabilities else columns["prediction"], self.classes(())
        scores = np.stack([columns[name] for name in names], axis=1)
        return scores, tuple(name.removeprefix(CLASS_COLUMN) for name in names)

    def night_score(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return one number a row by which nights are compared: the probability, their mean, or the predicted number.

        Shapes: [n].
        """
        if "probability" in columns:
            return columns["probability"]
        scores, classes = self.scores_of_night(columns)
        return scores.mean(axis=1) if classes else scores
