"""Categories: words of which a column has few, each with a slot and a vector of its own."""

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from model.features.fitting import FittingRows
from model.features.kinds import CATEGORY
from model.features.kinds.base import Kind
from model.features.kinds.making import Maker, WordMaker

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.features.encoded import Sizes
    from model.features.kinds.modules.columns import Reconstruction
    from model.settings import OptimisationSettings

MISSING, UNKNOWN, FIRST_KNOWN = 0, 1, 2
MAX_CATEGORIES = 50_000
MAX_COUNTED = 20 * MAX_CATEGORIES
"""Values of one column that are counted at once: where most rows have one of their own, memory must not grow."""


class Category(Kind[tuple[str, ...]]):
    """Known values per column; the first has slot FIRST_KNOWN.

    Encoded as int64 [n, columns], slots.
    """

    name = CATEGORY
    key = "vocabularies"
    input = "categories"
    module = "category_embeddings"
    is_sampled = False
    reads_as: ClassVar[Literal["labels", "numbers", "words"]] = "labels"

    @classmethod
    def fit(cls, names: list[str], rows: FittingRows) -> Self:
        """Count the words of all rows and keep the most frequent of each column."""
        counts: dict[str, Counter[str | None]] = {name: Counter() for name in names}
        for piece in rows if names else ():
            for name, count in counts.items():
                count.update(piece[name].tolist())
                if len(count) > MAX_COUNTED:  # the rarest of so many would not be kept anyway
                    counts[name] = Counter(dict(count.most_common(MAX_COUNTED // 2)))
        return cls({name: _vocabulary(count, name in rows.item_columns) for name, count in counts.items()})

    @classmethod
    def fit_column(cls, column: np.ndarray, rows: FittingRows) -> tuple[str, ...]:
        """Return the known values of one column."""
        return _vocabulary(Counter(column.tolist()))

    @classmethod
    def encode_column(cls, column: np.ndarray, fitted: tuple[str, ...]) -> np.ndarray:
        """Return the slot of every cell. Shapes: object [n] -> int64 [n]."""
        slots = _Slots(zip(fitted, range(FIRST_KNOWN, FIRST_KNOWN + len(fitted)), strict=True))
        slots[None] = MISSING
        return np.fromiter(map(slots.__getitem__, column.tolist()), np.int64, len(column))

    @classmethod
    def column_from_json(cls, content: Any) -> tuple[str, ...]:
        """Read back the known values of one column."""
        return tuple(content)

    @classmethod
    def cell_name(cls, cell: Any) -> str | None:
        """Return the cell itself."""
        return cell

    @classmethod
    def choice_names(cls, fitted: tuple[str, ...]) -> np.ndarray:
        """Return the known values, after missing and unknown."""
        return np.array([None, "another value", *fitted], object)

    @classmethod
    def maker(cls, fitted: tuple[str, ...], known: np.ndarray) -> Maker:
        """Return what makes known values; what is none of them is never made."""
        slots = cls.encode_column(known, fitted)
        return WordMaker(cls.choice_names(fitted), slots[slots != UNKNOWN])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the slots of each column, the missing and the unknown one included."""
        return tuple(FIRST_KNOWN + len(known) for known in self.columns.values())

    @classmethod
    def token_module(cls, sizes: tuple[int, ...], d_model: int) -> "nn.Module":
        """Return one table for all columns, which is there without columns too."""
        from model.features.kinds.modules.category import CategoryTokens

        return CategoryTokens(sizes, d_model)

    @classmethod
    def disturb(cls, values: "Tensor", sizes: "Sizes", settings: "OptimisationSettings") -> "Tensor":
        """Return the slots with a few made unknown, so that the unknown slot has a meaning."""
        from model.features.kinds.modules.category import forget

        return forget(values, UNKNOWN)

    @classmethod
    def known(cls, values: "Tensor") -> "Tensor":
        """Return True for every slot: that a value is missing can be guessed, too."""
        import torch

        return torch.ones_like(values, dtype=torch.bool)

    @classmethod
    def reconstruction(cls, sizes: "Sizes", d_model: int) -> "Reconstruction | None":
        """Return what guesses slots by the vectors of a column's table."""
        from model.features.kinds.modules.category import CategoryReconstruction

        return CategoryReconstruction(sizes.of(cls.name)) if sizes.of(cls.name) else None


class _Slots(dict[str | None, int]):
    def __missing__(self, value: str | None) -> int:
        return UNKNOWN


def _vocabulary(counts: Counter[str | None], has_many: bool = False) -> tuple[str, ...]:
    """Return the known values, the most frequent first; ties by name, so that row order does not matter.

    They are MAX_CATEGORIES at most, unless there may be many: then all that occur twice.
    """
    known = {value: count for value, count in counts.items() if value is not None}
    by_frequency = sorted(known, key=lambda value: (-known[value], value))
    most = max(MAX_CATEGORIES, sum(known[value] > 1 for value in known)) if has_many else MAX_CATEGORIES
    return tuple(by_frequency[:most])
