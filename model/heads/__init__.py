"""Tasks, one file each: its labels, loss, scores, calibration, metrics, baseline and columns of a night.

A new task is a subclass of `model.heads.base.Head` in a file of its own and one entry of HEADS. Nothing else names a
task: features, network, training, evaluation, scoring and the stages ask its head. Importing this package imports
neither numpy nor torch nor scikit-learn, since a scheduler reads it while it parses.
"""

from model.heads.base import Head
from model.heads.binary import Binary
from model.heads.generate import Generate
from model.heads.multiclass import Multiclass
from model.heads.multilabel import Multilabel
from model.heads.next_item import NextItem
from model.heads.reconstruct import Reconstruct
from model.heads.regression import Regression
from model.heads.span import Span

HEADS: tuple[Head, ...] = (
    Binary(),
    Generate(),
    Multiclass(),
    Multilabel(),
    NextItem(),
    Reconstruct(),
    Regression(),
    Span(),
)

TASKS = tuple(head.task for head in HEADS)
METRICS = {head.task: head.metric_names for head in HEADS}
"""Names of each task's metrics, the most usual first."""
DEFAULT_METRICS = {head.task: head.default_metric for head in HEADS}
"""The metric that decides unless another is asked for, by task."""
LOWER_IS_BETTER = tuple(dict.fromkeys(name for head in HEADS for name in head.lower_is_better))


def head_of(task: str) -> Head:
    """Return the head of a task.

    >>> head_of("multiclass").n_outputs(n_classes=3)
    3

    Raises: ValueError for a task that no head has.
    """
    for head in HEADS:
        if head.task == task:
            return head
    names = [head.task for head in HEADS]
    raise ValueError(f"task must be one of {', '.join(names)}, got {task!r}; use {names[0]}")
