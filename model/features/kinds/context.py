"""Contexts: numbers that many rows share, such as a day's weather; read by `model.network.context`, not the encoder."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model.features.fitting import FittingRows
from model.features.kinds import CONTEXT
from model.features.kinds.base import Arrays, Input, Json, Kind
from model.features.kinds.number import finite

MAX_Z = 3.0
"""A context further from the mean counts as this far, so that a freak cannot drive a score anywhere."""


@dataclass(frozen=True, kw_only=True)
class ContextScale:
    """How one context column is brought to a common scale."""

    centre: float
    """Mean of the fitted values."""
    deviation: float
    """Their standard deviation, or 1 where that is zero."""


class Context(Kind[ContextScale]):
    """Scale per column.

    Encoded as float32 [n, columns], in standard deviations from the mean, 0 for missing.
    """

    name = CONTEXT
    key = "contexts"
    input = "context"

    @classmethod
    def fit_column(cls, column: np.ndarray, rows: FittingRows) -> ContextScale:
        """Fit mean and deviation to one column. Shapes: float64 [n]."""
        known = finite(column)[np.isfinite(column)]
        centre, deviation = (float(known.mean()), float(known.std())) if known.size else (0.0, 0.0)
        return ContextScale(centre=centre, deviation=deviation or 1.0)

    @classmethod
    def encode_column(cls, column: np.ndarray, fitted: ContextScale) -> np.ndarray:
        """Return deviations, at most MAX_Z of them; a missing value lies at the mean.

        Shapes: float64 [n] -> float32 [n].
        """
        deviations = (finite(column) - fitted.centre) / fitted.deviation
        return np.nan_to_num(deviations).clip(-MAX_Z, MAX_Z).astype(np.float32)

    def to_json(self) -> Json:
        """Return the scales by column."""
        return {self.key: {name: asdict(scale) for name, scale in self.columns.items()}}

    @classmethod
    def column_from_json(cls, content: Any) -> ContextScale:
        """Read back the scale of one column."""
        return ContextScale(**content)

    @property
    def sizes(self) -> tuple[None, ...]:
        """Return nothing but the number of columns."""
        return (None,) * len(self.columns)

    @classmethod
    def row_batch(cls, arrays: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns of the given rows."""
        return {cls.input: arrays[cls.input][rows]} if cls.input in arrays else {}

    @classmethod
    def inputs(cls) -> tuple[Input, ...]:
        """Return one input, by row."""
        return (Input(name=cls.input, of="rows"),)

    @classmethod
    def plain_numbers(cls, column: np.ndarray) -> np.ndarray:
        """Return the numbers themselves."""
        return finite(column)[:, None]
