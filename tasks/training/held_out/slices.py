"""Measure a model on each declared slice of the held-out rows, and how far the slices of one entry lie apart."""

from collections.abc import Callable

import numpy as np
from pydantic.dataclasses import dataclass

from model.heads.prediction_rule import PredictionRule
from tasks.params import SLICE, Product
from tasks.rows.model_inputs import SplitPart
from tasks.rows.slices.declared import Slice, declared_slices, slice_columns
from tasks.runtime.records import RECORD, Record
from tasks.training.gate_metric import gate_metric
from tasks.training.held_out.blocks import blocks_of

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, config=RECORD)
class SliceMetric(Record):
    """The gates' metric on one slice."""

    declaration: str
    """The entry of `slices`."""
    name: str
    """The slice's name, as `tasks.rows.slices.declared` gives it."""
    rows: int
    """Held-out rows of the slice."""
    value: float | None = None
    """None where these are fewer than `gates.slices.min_rows`, or do not define the metric."""
    interval_95: Interval | None = None
    """With days or groups as observations; None where there are too few."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Gap(Record):
    """The largest difference of the metric between two slices of one entry."""

    declaration: str
    """The entry of `slices`."""
    value: float
    """The difference, 0 or more."""
    interval_95: Interval | None = None
    """Of the difference of these two slices."""
    highest: str
    """The slice with the highest metric."""
    lowest: str
    """The slice with the lowest one."""

    def __str__(self) -> str:
        return f"{self.value:.4f} between {self.highest} and {self.lowest}"


@dataclass(frozen=True, kw_only=True, config=RECORD)
class MeasuredSlices(Record):
    """What was measured of a model on the declared slices."""

    metric: str
    """The gates' metric."""
    min_rows: int
    """Slices of fewer rows are counted and not measured."""
    slices: tuple[SliceMetric, ...]
    """In the order in which they are declared."""
    gaps: tuple[Gap, ...]
    """Of each entry with two slices that are measured."""

    def metrics(self) -> dict[str, float]:
        """Return its part of metrics.json: the metric by the slice's name."""
        return {each.name: round(each.value, 6) for each in self.slices if each.value is not None}

    @property
    def summary(self) -> str:
        """Return it for the line that the stage prints; it names no value of the data."""
        measured = [each.value for each in self.slices if each.value is not None]
        span = f", {self.metric} from {min(measured):.4f} to {max(measured):.4f}" if measured else ""
        return f"{len(measured)} of {len(self.slices)} slices have {self.min_rows:,} held-out rows or more{span}"


def measure_slices(
    product: Product, rows: SplitPart, y: np.ndarray, scores: np.ndarray, rule: PredictionRule
) -> MeasuredSlices | None:
    """Measure scores of held-out rows on each declared slice of them; None where none is declared.

    Shapes: y and scores as `tasks.rows.model_inputs` gives them.
    """
    if not product.slices:
        return None
    block, least = blocks_of(rows, product), product.gates.slices.min_rows
    slices = declared_slices(rows.columns(slice_columns(product)), product)

    def metric(kept: np.ndarray) -> float | None:
        return gate_metric(product, y[kept], scores[kept], rule=rule)

    measured = [measure_slice(each, metric, block, 1 if each.declaration == SLICE else least) for each in slices]
    return MeasuredSlices(
        metric=product.gates.metric,
        min_rows=least,
        slices=tuple(measured),
        gaps=tuple(_gaps(slices, measured, metric, block)),
    )


def measure_slice(
    each: Slice, metric: Callable[[np.ndarray], float | None], block: np.ndarray, min_rows: int
) -> SliceMetric:
    """Return the metric on one slice, unless it has too few rows. Shapes: block int [n]."""
    n = int(each.rows.sum())
    if n < min_rows:
        return SliceMetric(declaration=each.declaration, name=each.name, rows=n)
    value, interval = value_and_interval(lambda kept: metric(each.rows & kept), block, each.rows)
    return SliceMetric(declaration=each.declaration, name=each.name, rows=n, value=value, interval_95=interval)


def value_and_interval(
    measure: Callable[[np.ndarray], float | None], block: np.ndarray, within: np.ndarray
) -> tuple[float | None, Interval | None]:
    """Return a value on all rows, and its interval over the blocks in which rows of `within` lie.

    Shapes: block int [n]; within bool [n].
    """
    from model.evaluation.paired import paired_difference

    _, number = np.unique(block[within], return_inverse=True)
    of_block = np.full(len(block), -1)
    of_block[within] = number
    found = paired_difference(measure, of_block)
    if found is None:
        return measure(np.ones(len(block), bool)), None
    return found.value, (found.low, found.high)


def _gaps(
    slices: list[Slice], measured: list[SliceMetric], metric: Callable[[np.ndarray], float | None], block: np.ndarray
) -> list[Gap]:
    """Return the largest difference within each entry that has two measured slices."""
    gaps, by_name = [], {each.name: each.rows for each in slices}
    for declaration in dict.fromkeys(each.declaration for each in measured):
        known = [
            (each.value, each.name) for each in measured if each.declaration == declaration and each.value is not None
        ]
        if len(known) < 2 or declaration == SLICE:  # what lies further ahead is harder to predict
            continue
        (low, lowest), (high, highest) = min(known), max(known)
        upper, lower = by_name[highest], by_name[lowest]

        def difference(kept: np.ndarray, upper: np.ndarray = upper, lower: np.ndarray = lower) -> float | None:
            values = metric(upper & kept), metric(lower & kept)
            return None if values[0] is None or values[1] is None else values[0] - values[1]

        _, interval = value_and_interval(difference, block, upper | lower)
        gaps.append(
            Gap(declaration=declaration, value=high - low, interval_95=interval, highest=highest, lowest=lowest)
        )
    return gaps
