"""Change held-out rows as `behaviour` of a product declares, and see whether predictions move as they must."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic.dataclasses import dataclass

from model.heads import head_of
from tasks.params import BehaviourTest, Product
from tasks.rows.model_inputs import SplitPart
from tasks.runtime.errors import UserError
from tasks.runtime.records import RECORD, Record
from tasks.training.held_out.blocks import blocks_of
from tasks.training.held_out.slices import Interval, value_and_interval

if TYPE_CHECKING:
    from model.scoring.scorer import Scorer

MAX_ROWS = 2_000
"""Held-out rows that are changed; of more the same sample every time."""
ROUNDING = 1e-6
"""Scores are single precision: a difference that is less beyond a bound is none."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class MeasuredBehaviour(Record):
    """One test of `behaviour`, and what came of it."""

    test: str
    """The test in words."""
    rows: int
    """Held-out rows that the change changes."""
    share: float | None
    """The share of these whose prediction did what it must; None where there are none."""
    interval_95: Interval | None
    """With days or groups as observations."""
    wanted: float
    """The least share."""
    mean_change: float | None
    """By how much predictions moved on average, or without a class by how much the class that moved most did."""

    @property
    def passed(self) -> bool:
        """Return whether enough rows did; a test that no row could answer is not passed."""
        return self.share is not None and self.share >= self.wanted

    def __str__(self) -> str:
        return f"{'none' if self.share is None else f'{self.share:.4f}'} of {self.rows:,} rows: {self.test}"


def measure_behaviour(product: Product, scorer: "Scorer", rows: SplitPart) -> tuple[MeasuredBehaviour, ...]:
    """Measure every declared test with an exported model.

    Raises UserError for a test of a class that the model does not know.
    """
    if not product.behaviour:
        return ()
    rows = rows.sample(MAX_ROWS)
    table, block = rows.read_all(), blocks_of(rows, product)
    head = head_of(product.target.task)
    before = head.point(scorer.score(table))
    found = []
    for i, test in enumerate(product.behaviour):
        column = _column(test, scorer.classes, f"params.yaml: products.{product.name}.behaviour.{i}")
        changed, is_changed = change_rows(table, test)
        after = head.point(scorer.score({name: cells[is_changed] for name, cells in changed.items()}))
        moves = _moves(before[is_changed], after, column)
        found.append(_outcome(test, moves, block[is_changed]))
    return tuple(found)


def change_rows(table: Mapping[str, np.ndarray], test: BehaviourTest) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return a table with its cells changed, and which rows are others than before. Shapes: bool [n]."""
    changed, is_changed = dict(table), np.zeros(len(next(iter(table.values()))), bool)
    for name, value in test.change.items():
        cells = table[name]
        if isinstance(value, dict):
            added = value["add"]
            new = cells + (added if cells.dtype.kind == "f" else np.timedelta64(round(added * 86_400), "s"))
        else:
            new = np.full_like(cells, np.datetime64(str(value)) if cells.dtype.kind == "M" else value)
        changed[name] = new
        # A missing number or time is not equal to itself, and stays missing where something is added.
        is_changed |= (new != cells) & ~((new != new) & (cells != cells))
    return changed, is_changed


def _column(test: BehaviourTest, classes: tuple[str, ...], place: str) -> int | None:
    """Return the place of the class that a test looks at; None where scores have one column, or all are looked at."""
    if test.of is None:
        return None
    if test.of not in classes:
        raise UserError(f"{place}.of must be a class of the labels, got {test.of!r}; use one of {', '.join(classes)}")
    return classes.index(test.of)


def _moves(before: np.ndarray, after: np.ndarray, column: int | None) -> np.ndarray:
    """Return by how much the prediction of each row moved. Shapes: [n] or [n, C], twice -> float64 [n]."""
    moves = after.astype(float) - before
    if moves.ndim == 1:
        return moves
    if column is not None:
        return moves[:, column]
    most = np.abs(moves).argmax(axis=1)
    return np.take_along_axis(moves, most[:, None], axis=1)[:, 0]


def _outcome(test: BehaviourTest, moves: np.ndarray, block: np.ndarray) -> MeasuredBehaviour:
    """Return the share of rows that did what they must. Shapes: float [n], int [n]."""
    if test.must == "not_move":
        did = np.abs(moves) <= test.by + ROUNDING
    else:
        upward = moves if test.must == "increase" else -moves
        did = (upward > 0) & (upward >= test.by - ROUNDING)
    share, interval = None, None
    if len(did):
        everything = np.ones(len(did), bool)
        share, interval = value_and_interval(lambda kept: float(did[kept].mean()), block, everything)
    return MeasuredBehaviour(
        test=in_words(test),
        rows=len(did),
        share=share,
        interval_95=interval,
        wanted=test.share,
        mean_change=float(moves.mean()) if len(moves) else None,
    )


def in_words(test: BehaviourTest) -> str:
    """Return a test as a sentence.

    >>> in_words(BehaviourTest(change={"weight_kg": {"add": 10}}, must="increase"))
    'weight_kg + 10 must increase the prediction by 0.01 or more'
    """
    changes = [
        f"{name} {value['add']:+g}".replace("+", "+ ").replace(" -", " - ")
        if isinstance(value, dict)
        else f"{name} = {value}"
        for name, value in test.change.items()
    ]
    subject = "the prediction" if test.of is None else f"the probability of {test.of}"
    bound = f"not move {subject} by more than {test.by:g}"
    if test.must != "not_move":
        bound = f"{test.must} {subject} by {test.by:g} or more"
    return f"{' and '.join(changes)} must {bound}"
