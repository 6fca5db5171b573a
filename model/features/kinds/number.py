"""Numbers: scaled by median and quartiles, then spread over bins by the network."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from model.features.bins import bin_edges, guessed_edges
from model.features.fitting import FittingRows
from model.features.kinds import NUMBER
from model.features.kinds.base import Json, Kind
from model.features.kinds.making import Maker, NumberMaker
from model.heads import head_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.features.encoded import Sizes
    from model.features.kinds.modules.columns import Reconstruction

MAX_MAGNITUDE = 1e30
"""A number beyond, raw or scaled, counts as this large: single precision holds it and its differences."""

Edges = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class NumberScale:
    """How one number column is brought to a common scale, and where its bins lie on that scale."""

    centre: float
    """Median of the fitted values."""
    scale: float
    """Their interquartile range, or their standard deviation where that is zero."""
    edges: Edges
    """Bin edges after scaling, strictly increasing."""
    is_exact: bool = False
    """Whether each bin is one value, its lower edge."""


class Number(Kind[NumberScale]):
    """Scale and bins per column; a number beyond the outermost bins reads as their ends.

    Encoded as float32 [n, columns], scaled, NaN for missing.
    """

    name = NUMBER
    key = "numbers"
    input = "numbers"
    module = "numbers"
    has_quantiles = True

    @classmethod
    def fit_column(cls, column: np.ndarray, rows: FittingRows) -> NumberScale:
        """Fit scale and bins to one column. Shapes: float64 [n]."""
        column = finite(column)
        known = column[~np.isnan(column)]
        low, centre, high = np.quantile(known, [0.25, 0.5, 0.75]) if known.size else (0.0, 0.0, 1.0)
        scale = (high - low) or (known.std() if known.size else 0.0) or 1.0
        scaled = ((column - centre) / scale).clip(-MAX_MAGNITUDE, MAX_MAGNITUDE)
        if rows.task and not head_of(rows.task).has_labels:
            edges, is_exact = guessed_edges(scaled)
        else:
            edges, is_exact = bin_edges(scaled, rows.target, rows.task), False
        return NumberScale(centre=float(centre), scale=float(scale), edges=tuple(map(float, edges)), is_exact=is_exact)

    @classmethod
    def encode_column(cls, column: np.ndarray, fitted: NumberScale) -> np.ndarray:
        """Return the scaled numbers. Shapes: float64 [n] -> float32 [n]."""
        scaled = (finite(column) - fitted.centre) / fitted.scale
        return scaled.clip(fitted.edges[0], fitted.edges[-1]).astype(np.float32)

    def to_json(self) -> Json:
        """Return the scales by column."""
        return {self.key: {name: asdict(scale) for name, scale in self.columns.items()}}

    @classmethod
    def column_from_json(cls, content: Any) -> NumberScale:
        """Read back the scale of one column."""
        return NumberScale(**{**content, "edges": tuple(content["edges"])})

    @property
    def sizes(self) -> tuple[Edges, ...]:
        """Return the bin edges of each column."""
        return tuple(scale.edges for scale in self.columns.values())

    @classmethod
    def token_module(cls, sizes: tuple[Edges, ...], d_model: int) -> "nn.Module | None":
        """Return a piecewise-linear encoding and a linear map for each column."""
        from model.features.kinds.modules.number import NumberTokens

        return NumberTokens(sizes, d_model) if sizes else None

    @classmethod
    def known(cls, values: "Tensor") -> "Tensor":
        """Return which numbers are not missing."""
        return ~values.isnan()

    @classmethod
    def reconstruction(cls, sizes: "Sizes", d_model: int) -> "Reconstruction | None":
        """Return what guesses the bin of a number."""
        from model.features.kinds.modules.number import NumberReconstruction

        return NumberReconstruction(sizes.of(cls.name), d_model) if sizes.of(cls.name) else None

    @classmethod
    def cell_name(cls, cell: Any) -> str | None:
        """Return the number, shortened."""
        return None if np.isnan(cell) else f"{cell:.6g}"

    @classmethod
    def choice_names(cls, fitted: NumberScale) -> np.ndarray:
        """Return the ends of the bins, or their values."""
        ends = [f"{edge * fitted.scale + fitted.centre:.6g}" for edge in fitted.edges]
        bins = ends[:-1] if fitted.is_exact else [f"{low} to {high}" for low, high in pairwise(ends)]
        return np.array([*bins, None], object)

    @classmethod
    def maker(cls, fitted: NumberScale, known: np.ndarray) -> Maker:
        """Return what makes numbers of bins."""
        known, scaled = finite(known), cls.encode_column(known, fitted)
        inner = np.array(fitted.edges[1:-1], np.float32)
        bins = np.where(np.isnan(scaled), len(fitted.edges) - 1, np.searchsorted(inner, scaled, "right"))
        return NumberMaker(known, bins, len(fitted.edges))

    @classmethod
    def plain_numbers(cls, column: np.ndarray) -> np.ndarray:
        """Return the numbers themselves."""
        return finite(column)[:, None]


def finite(column: np.ndarray) -> np.ndarray:
    """Return the numbers, at most MAX_MAGNITUDE; NaN for what is none. Shapes: float64 [n] -> the same.

    >>> finite(np.array([1.0, np.inf, -1e300]))
    array([ 1.e+00,     nan, -1.e+30])
    """
    return np.where(np.isfinite(column), column, np.nan).clip(-MAX_MAGNITUDE, MAX_MAGNITUDE)
