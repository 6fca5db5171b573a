"""Search the held-out rows for slices that nobody declared and on which a model errs more than elsewhere: look here.

Looked at are the values of categories, the quarters of numbers, the weekdays of times, and all pairs of these. Half of
the days, every other one, proposes: the slice with the surest excess of the loss over that of all other rows, however
many were looked at (Bonferroni), then the next one among the rows that are left. The other half decides: what it does
not confirm is not told. A slice with a high loss need not be a fault of the model, since some rows are hard for all;
so the loss of the baseline there stands beside it. Nothing here is ever a gate.

Source: Chung et al. 2019, "Slice Finder: Automated Data Slicing for Model Validation"; that a half of the data confirms
what the other has proposed is ours, in place of its alpha-investing.
"""

from collections.abc import Iterator
from dataclasses import dataclass as plain_dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from model.features.kinds import KINDS, TEXT
from model.heads import head_of
from model.heads.item_lists import ranks
from model.heads.prediction_rule import HALF, PredictionRule
from tasks.params import Product
from tasks.rows.model_inputs import SplitPart
from tasks.runtime.records import RECORD, Record
from tasks.training.held_out.blocks import blocks_of
from tasks.training.held_out.slices import Interval

MAX_ROWS = 40_000
"""Held-out rows that are searched; of more the same sample every time."""
MAX_COLUMNS = 30
"""Columns whose pairs are looked at: those whose single slices stand out most."""
MAX_VALUES = 20
"""Slices of a category: its most frequent values."""
MAX_FOUND = 5
MIN_ROWS = 40
"""Rows of a slice in each half."""
MIN_EXCESS = 0.1
"""A loss that is less than a tenth above that of all other rows is not worth a look, however sure it is."""
ERROR_RATE = 0.05
MIN_DAYS = 5
"""Days of the confirming half that count as observations; of fewer, parts of the rows do."""
N_PARTS = 20


@dataclass(frozen=True, kw_only=True, config=RECORD)
class FoundSlice(Record):
    """A slice that nobody declared, on which the model errs more than elsewhere."""

    name: str
    """One condition, or two."""
    rows: int
    """Held-out rows of the slice, in both halves."""
    loss: float
    """The model's mean loss on them: squared error of the probabilities, or absolute error of a number."""
    loss_elsewhere: float
    """The same on all other held-out rows."""
    baseline_loss: float
    """The baseline's mean loss on the slice; where it is as high the rows are hard, not the model at fault."""
    excess: float
    """The loss less that elsewhere, on the confirming half of the days alone."""
    excess_interval: Interval
    """Of the excess; the intervals of all proposed slices hold together in 95 of 100 cases."""

    def __str__(self) -> str:
        return (
            f"{self.name}: loss {self.loss:.4f} on {self.rows:,} rows, {self.loss_elsewhere:.4f} elsewhere, "
            f"baseline {self.baseline_loss:.4f}"
        )


@plain_dataclass(frozen=True)
class Conditions:
    """What may be said of one column."""

    names: list[str]
    code: np.ndarray
    """int [n]: which of these is true of each row; -1 where none is."""


@plain_dataclass(frozen=True)
class Candidate:
    """A slice that was looked at, and how surely the loss is higher there."""

    name: str
    rows: np.ndarray
    """bool [n]."""
    score: float
    """The excess in its standard errors."""


def search_slices(
    product: Product,
    rows: SplitPart,
    y: np.ndarray,
    scores: np.ndarray,
    baseline: np.ndarray,
    rule: float | PredictionRule = HALF,
) -> tuple[FoundSlice, ...]:
    """Return the slices of held-out rows on which the model, which predicts by `rule`, errs more than elsewhere.

    The surest come first.

    Shapes: y, scores and baseline as `tasks.rows.model_inputs` gives them, of the same rows.
    """
    if not head_of(product.target.task).has_labels:
        return ()
    chosen = np.arange(len(rows))
    if len(chosen) > MAX_ROWS:
        chosen = np.sort(np.random.default_rng(0).choice(len(rows), MAX_ROWS, replace=False))
    head = head_of(product.target.task)
    points = [head.point(each[chosen]) for each in (scores, baseline)]
    if y.dtype == object:
        losses = [head.label_losses(each, rule) for each in points]
    else:
        losses = [row_losses(y[chosen], each, head.has_probabilities) for each in points]
    names = [name for name, kind in product.inputs.items() if kind != TEXT]
    if not names or not all(np.isfinite(loss).all() for loss in losses):
        return ()
    table = rows.columns(names).iloc[chosen].reset_index(drop=True)
    block = blocks_of(rows, product)[chosen]
    return find(table, product.inputs, losses[0], losses[1], block)


def find(
    table: pd.DataFrame, kinds: dict[str, str], loss: np.ndarray, baseline: np.ndarray, block: np.ndarray
) -> tuple[FoundSlice, ...]:
    """Return what both halves of the blocks agree on. Shapes: float [n], float [n], int [n]."""
    proposes = block % 2 == 0
    columns = [conditions_of(table[name], kinds[str(name)], proposes) for name in table]
    proposed: list[Candidate] = []
    left = proposes.copy()
    while len(proposed) < MAX_FOUND:
        best = _surest(columns, loss, left)
        if best is None:
            break
        proposed.append(best)
        left &= ~best.rows
    found = (_confirm(each, loss, baseline, block, ~proposes, len(proposed)) for each in proposed)
    return tuple(each for each in found if each is not None)


def row_losses(y: np.ndarray, scores: np.ndarray, has_probabilities: bool) -> np.ndarray:
    """Return the loss of each row: squared error of probabilities, summed over classes, or absolute error of a number.

    Shapes: y as of `Head.label_array`, scores [n] or [n, C] -> float64 [n].
    """
    if scores.ndim == 3:  # lists: by how far down the label stands
        return 1 - np.append(1 / (1 + np.arange(scores.shape[1])), 0.0)[ranks(y, scores)]
    scores = scores.astype(float)
    if scores.ndim == 1:
        return np.square(y - scores) if has_probabilities else np.abs(y - scores)
    truth = y if y.ndim > 1 else np.arange(scores.shape[1]) == y[:, None]
    return np.square(truth - scores).sum(axis=1)


def conditions_of(column: pd.Series, kind: str, proposes: np.ndarray) -> Conditions:
    """Return what may be said of a column; frequent values and quarters are those of the proposing half.

    Shapes: bool [n].
    """
    name = str(column.name)
    missing = column.isna().to_numpy()
    if KINDS[kind].cells == "float64":
        values = column.to_numpy(float)
        known = values[proposes & ~missing]
        edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75])) if len(known) else np.empty(0)
        code = np.searchsorted(edges, values, side="left")
        bounds = [f"{edge:.6g}" for edge in edges]
        names = [
            " < ".join(filter(None, [low, name])) + (f" <= {high}" if high else "")
            for low, high in zip(["", *bounds], [*bounds, ""], strict=True)
        ]
    elif KINDS[kind].cells == "datetime64[s]":
        names = [f"{name} is a {day}" for day in ("Monday", "Tuesday", "Wednesday", "Thursday")]
        names += [f"{name} is a {day}" for day in ("Friday", "Saturday", "Sunday")]
        code = column.dt.dayofweek.fillna(-1).to_numpy(int)
    else:
        frequent = sorted(column[proposes].value_counts().sort_index(kind="stable").nlargest(MAX_VALUES).index)
        names = [f"{name}={value}" for value in frequent]
        code = pd.Index(frequent).get_indexer(column)
    code = np.where(missing, len(names), code)
    return Conditions([*names, f"{name} is missing"], code)


def _surest(columns: list[Conditions], loss: np.ndarray, left: np.ndarray) -> Candidate | None:
    """Return the slice of the rows that are left whose loss is most surely higher; None where chance may explain it."""
    from scipy.special import ndtri

    best: tuple[float, str, np.ndarray] | None = None
    n_looked_at, single = 0, []
    for each in columns:
        scores, counted = _scored(each.code, len(each.names), loss, left)
        n_looked_at += counted
        single.append(scores.max(initial=-np.inf))
        best = _better(best, scores, each.names, each.code)
    strongest = [columns[i] for i in np.argsort(single)[::-1][:MAX_COLUMNS]]
    for ones, others, code in _pairs(strongest):
        scores, counted = _scored(code, len(ones) * len(others), loss, left)
        n_looked_at += counted
        if best is None or scores.max(initial=-np.inf) > best[0]:
            best = _better(best, scores, [f"{one} and {other}" for one in ones for other in others], code)
    if best is None or best[0] < -ndtri(ERROR_RATE / n_looked_at):
        return None
    return Candidate(name=best[1], rows=best[2], score=best[0])


def _pairs(columns: list[Conditions]) -> Iterator[tuple[list[str], list[str], np.ndarray]]:
    """Yield the conditions of each two columns, and the number of the pair of each row. Shapes: int [n]."""
    for one, other in combinations(columns, 2):
        code = np.where((one.code < 0) | (other.code < 0), -1, one.code * len(other.names) + other.code)
        yield one.names, other.names, code


def _better(
    best: tuple[float, str, np.ndarray] | None, scores: np.ndarray, names: list[str], code: np.ndarray
) -> tuple[float, str, np.ndarray] | None:
    at = int(scores.argmax())
    if not np.isfinite(scores[at]) or (best is not None and scores[at] <= best[0]):
        return best
    return float(scores[at]), names[at], code == at


def _scored(code: np.ndarray, n_codes: int, loss: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, int]:
    """Return by how many standard errors (Welch's) the loss of each code's rows is above that of all others.

    -inf where there are too few rows, or the excess is small. Also returned is how many codes have enough rows.
    Shapes: int [n], float [n], bool [n] -> float [n_codes].
    """
    used = left & (code >= 0)
    rows, total = code[used], loss[left]
    count = np.bincount(rows, minlength=n_codes).astype(float)
    sums = np.bincount(rows, loss[used], n_codes)
    squares = np.bincount(rows, np.square(loss[used]), n_codes)
    n_other = len(total) - count
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, other = sums / count, (total.sum() - sums) / n_other
        variance = squares / count - mean**2
        variance_of_others = (np.square(total).sum() - squares) / n_other - other**2
        error = np.sqrt(variance.clip(min=0) / count + variance_of_others.clip(min=0) / n_other)
        scores = (mean - other) / error
        has_rows = (count >= MIN_ROWS) & (n_other >= MIN_ROWS)
        is_worth_it = has_rows & (mean >= (1 + MIN_EXCESS) * other) & (error > 0)
    return np.where(is_worth_it, scores, -np.inf), int(has_rows.sum())


def _confirm(
    proposed: Candidate, loss: np.ndarray, baseline: np.ndarray, block: np.ndarray, decides: np.ndarray, n_proposed: int
) -> FoundSlice | None:
    """Return a proposed slice where the deciding half confirms it; its days count as observations."""
    from model.evaluation.paired import paired_difference

    inside = proposed.rows[decides]
    if inside.sum() < MIN_ROWS or (~inside).sum() < MIN_ROWS:
        return None
    own = loss[decides]

    def excess(kept: np.ndarray) -> float | None:
        of_slice, of_others = own[kept & inside], own[kept & ~inside]
        return float(of_slice.mean() - of_others.mean()) if len(of_slice) and len(of_others) else None

    _, day = np.unique(block[decides], return_inverse=True)
    if day.max() + 1 < MIN_DAYS:
        day = np.random.default_rng(0).integers(0, N_PARTS, len(own))
        _, day = np.unique(day, return_inverse=True)
    # One-sided: a lower loss than elsewhere confirms nothing.
    found = paired_difference(excess, day, 1 - 2 * ERROR_RATE / n_proposed)
    if found is None or found.low <= 0:
        return None
    rows = proposed.rows
    return FoundSlice(
        name=proposed.name,
        rows=int(rows.sum()),
        loss=float(loss[rows].mean()),
        loss_elsewhere=float(loss[~rows].mean()),
        baseline_loss=float(baseline[rows].mean()),
        excess=found.value,
        excess_interval=(found.low, found.high),
    )
