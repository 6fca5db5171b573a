"""The target of a model, and the `network.json` that holds it. Needs no torch: scoring reads it too."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.heads import head_of
from model.heads.base import Head
from model.heads.item_lists import MANY_ITEMS, MOST_SHARES
from model.heads.label_scale import LINEAR_SCALE, LabelScale
from model.heads.next_item import TOP

FORMAT = 2
LANGUAGE = "language"
"""Where a network is described, the sizes of a language model, if it is one."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A task with the column and classes of a product, as fitted on its training rows."""

    task: str
    """A key of `model.heads`."""
    column: str | None = None
    """The column that holds its labels; None where it is not known."""
    classes: tuple[str, ...] = ()
    """Names in the order of the scores; of a yes or no (negative, positive); none for a number."""
    label_scale: LabelScale = LINEAR_SCALE
    """The scale on which labels that are numbers are learnt."""
    mean: float = 0.0
    """Mean of the training rows' labels on that scale, where these are numbers: the network works with standardised
    ones."""
    deviation: float = 1.0
    """Standard deviation of the same."""
    scale: tuple[float, ...] = ()
    """Factors of the logits before they become probabilities, one for each or one for all; () is 1."""
    offset: tuple[float, ...] = ()
    """Summands of the same, as many; of quantiles one, the level of later days. `model.training.calibration` fits both.
    """

    levels: tuple[float, ...] = ()
    """Levels of the quantiles that are predicted beside a number, ascending."""
    horizons: tuple[int, ...] = ()
    """For how many days ahead a row is predicted, which an input says; () where it is predicted for its own day."""
    widening: float = 1.0
    """Factor of the distances of quantiles from the mean, from `model.training.calibration`."""
    shifts: tuple[float, ...] = ()
    """What is added to each quantile then, in standard deviations; () is 0."""
    quantiles: tuple[float, ...] = ()
    """Surprise of training rows at even steps from the least to the most, where rows have no labels."""
    top: int = TOP
    """Items of a list, where scores are lists."""
    history: tuple[str, ...] = ()
    """Columns that hold items which a row had before, the last one first; where scores are lists."""
    exclude: tuple[str, ...] = ()
    """Columns that hold items which no list of the row may have."""
    max_tokens: int = 0
    """Subwords at most of a text that is written, or of an answer that lies in a text."""
    text: str = ""
    """The column of texts in which answers lie; empty where they lie in none."""

    def __post_init__(self) -> None:
        self.head.check_classes(self.classes)

    @classmethod
    def fit(
        cls,
        task: str,
        classes: Sequence[str],
        y: np.ndarray,
        column: str | None = None,
        label_scale: LabelScale | None = None,
    ) -> "Target":
        """Return the target of training rows with these labels; numbers are learnt as they are unless on another scale.

        Shapes: y [n] or [n, C], as `Head.label_array`.
        """
        head, label_scale = head_of(task), label_scale or LINEAR_SCALE
        mean, deviation = head.standardisation(label_scale.from_labels(y) if head.has_label_scale else y)
        named = tuple(classes) if head.has_classes else ()
        return cls(task=task, column=column, classes=named, label_scale=label_scale, mean=mean, deviation=deviation)

    @property
    def head(self) -> Head:
        """Return what its task decides."""
        return head_of(self.task).with_levels(self.levels)

    @property
    def unit(self) -> float:
        """Return what a score moves by at most with one unit of the network's output; 1 where it is no number."""
        return self.deviation * self.label_scale.steepness()

    @property
    def score_shape(self) -> tuple[int, ...]:
        """Return the shape of one row's scores."""
        n_classes = len(self.classes)
        return (min(self.top, n_classes), 2) if self.head.answers_lists else self.head.score_shape(n_classes)

    @property
    def has_many_items(self) -> bool:
        """Return whether scores are lists of so many items that a training step gives but a part of them a logit."""
        return self.head.answers_lists and len(self.classes) > MANY_ITEMS

    @property
    def most_rows(self) -> int | None:
        """Return the rows of a batch at most, where each has a share of every item; None for any number."""
        return max(1, MOST_SHARES // len(self.classes)) if self.head.answers_lists else None

    @property
    def n_outputs(self) -> int:
        """Return the width of the network's last layer."""
        return self.head.n_outputs(len(self.classes))


def read_description(folder: Path) -> dict:
    """Return the content of `network.json`.

    Raises: ValueError for another format.
    """
    described = json.loads((folder / "network.json").read_text("utf-8"))
    if described.get("format") != FORMAT:
        raise ValueError(
            f"{folder}/network.json must have format {FORMAT}, got {described.get('format')}; "
            "train the model again with this version"
        )
    return described


def read_target(folder: Path) -> Target:
    """Return the target of the trained model in `folder`.

    Raises: ValueError for one without a head.
    """
    target = described_target(read_description(folder))
    if target is None:
        raise ValueError(f"{folder} must hold a trained model, got one without a head; train it first")
    return target


def described_target(described: dict) -> Target | None:
    """Return the target in the content of `network.json`; None without a head."""
    target = described["target"] or {}
    fields: dict = {name: tuple(value) if isinstance(value, list) else value for name, value in target.items()}
    if "label_scale" in fields:
        fields["label_scale"] = LabelScale(**fields["label_scale"])
    return Target(**fields) if fields else None
