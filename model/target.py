"""What a model answers, and the `network.json` that says so. Needs no torch: scoring reads it too."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.settings import TASKS

FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the head answers."""

    task: str
    """binary, multiclass, multilabel or regression."""
    column: str | None = None
    """Where its truth stands; None where nobody said."""
    classes: tuple[str, ...] = ()
    """Names in the order of the scores; of a binary target (negative, positive); none for regression."""
    mean: float = 0.0
    """Of a regression's training targets: the network works with standardised ones."""
    deviation: float = 1.0
    """Standard deviation of the same."""
    scale: tuple[float, ...] = ()
    """What the logits are multiplied by before they become probabilities, one for each or one for all; () is 1."""
    offset: tuple[float, ...] = ()
    """What is added to them then, as many; `model.training.calibration` fits both."""

    def __post_init__(self) -> None:
        least = {"binary": 2, "multiclass": 2, "multilabel": 1, "regression": 0}
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}; use binary")
        if len(self.classes) < least[self.task] or (self.task == "binary" and len(self.classes) != 2):
            raise ValueError(
                f"classes must name {least[self.task]} for a {self.task} target, "
                f"got {list(self.classes)}; check the labels of the training rows"
            )

    @classmethod
    def fit(cls, task: str, classes: Sequence[str], target: np.ndarray, column: str | None = None) -> "Target":
        """The target of the given training rows. Shapes: target [n] or [n, C]."""
        if task != "regression":
            return cls(task=task, column=column, classes=tuple(classes))
        return cls(task=task, column=column, mean=float(target.mean()), deviation=float(target.std()) or 1.0)

    @property
    def n_outputs(self) -> int:
        """Width of the head."""
        return len(self.classes) if self.task in ("multiclass", "multilabel") else 1


def read_description(folder: Path) -> dict:
    """The content of `network.json`."""
    described = json.loads((folder / "network.json").read_text("utf-8"))
    if described.get("format") != FORMAT:
        raise ValueError(
            f"{folder}/network.json must have format {FORMAT}, got {described.get('format')}; "
            "train the model again with this version"
        )
    return described


def read_target(folder: Path) -> Target:
    """What the trained model of `folder` answers. Raises: ValueError for one without a head."""
    target = described_target(read_description(folder))
    if target is None:
        raise ValueError(f"{folder} must hold a trained model, got one without a head; train it first")
    return target


def described_target(described: dict) -> Target | None:
    """The target in the content of `network.json`; None without a head."""
    target = described["target"]
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in (target or {}).items()
    }
    return Target(**given) if given else None
