"""What a column kind says of itself, from the cells of a column to the baseline that reads it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np

from model.features.fitting import FittingRows, Table
from model.features.histories import EventForm
from model.features.kinds import KINDS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.features.encoded import Sizes
    from model.features.kinds.making import Maker
    from model.features.kinds.modules.columns import Reconstruction
    from model.settings import OptimisationSettings

Fitted = TypeVar("Fitted")
Arrays = Mapping[str, np.ndarray]
Json = dict[str, Any]
"""A part of features.json, whose keys are the kinds' own."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of an exported network."""

    name: str
    """Its name in a batch."""
    of: Literal["windows", "rows"] = "windows"
    """What its first dimension counts."""
    ragged: str = ""
    """Name of its second dimension where that differs from batch to batch."""
    has_most: bool = False
    """Whether that dimension is at most `max_tokens` of the network."""


@dataclass(frozen=True, kw_only=True)
class CellForm:
    """How the delivered cells of a column whose kind converts them are stored."""

    pixels: int = 32
    """Pixels of a side of an image."""
    events: EventForm = field(default_factory=EventForm)
    """How events are read."""


@dataclass(frozen=True)
class Kind(ABC, Generic[Fitted]):
    """All columns of one kind, fitted. What needs no fitted columns are class methods.

    The defaults suit a kind that makes one array of all its columns and one token of each.
    """

    columns: dict[str, Fitted]
    """What was fitted, by the names of the columns, in the order in which these are read."""

    name: ClassVar[str]
    """As params.yaml has it."""
    key: ClassVar[str]
    """Of what was fitted, in features.json."""
    input: ClassVar[str]
    """Name of the array of its columns, in `Encoded` and in a batch."""
    module: ClassVar[str] = ""
    """Name of its token module in the network's embeddings, where it has one."""
    is_sequence: ClassVar[bool] = False
    """Whether a column is as many tokens as it holds, rather than one."""
    is_sampled: ClassVar[bool] = True
    """Whether it is fitted on a sample of the rows, which is held in memory."""
    reads_as: ClassVar[Literal["labels", "numbers", "words"]] = "numbers"
    """How the baseline reads a column: by its different values, as numbers, or by its words."""

    has_quantiles: ClassVar[bool] = False
    """Whether days are compared by the quantiles of a column: its cells are numbers that differ within a day."""
    is_converted: ClassVar[bool] = False
    """Whether a delivered cell is stored in a form of the kind's own, which `stored` makes."""
    names_files: ClassVar[bool] = False
    """Whether a cell may be the path of a file, whose bytes are stored in its place."""

    # Cells

    @classmethod
    def misfits(cls, cells: np.ndarray) -> np.ndarray:
        """Return which cells do not fit, though they are of the type that `KINDS` names.

        Shapes: [n] without missing cells -> bool [n].
        """
        return np.zeros(len(cells), bool)

    @classmethod
    def stored(cls, cell: object, form: CellForm, at: datetime) -> str:
        """Return what is stored of a delivered cell of a row of the time `at`."""
        raise NotImplementedError

    @classmethod
    def misfit_reason(cls, cell: object) -> str:
        """Return why a cell that does not fit does not, without any of its values; empty where nothing more is known.

        It ends the sentence "is no <kind>: ".
        """
        return ""

    # Fitting and encoding

    @classmethod
    def fit(cls, names: list[str], rows: FittingRows) -> Self:
        """Fit the columns `names` to the rows."""
        return cls({name: cls.fit_column(rows.sample[name], rows) for name in names})

    @classmethod
    @abstractmethod
    def fit_column(cls, column: np.ndarray, rows: FittingRows) -> Fitted:
        """Fit one column to the sample of the rows. Shapes: column [n]."""

    def encode(self, table: Table) -> dict[str, np.ndarray]:
        """Return the arrays of the columns by name; none without columns. Shapes: [n, columns, ...]."""
        if not self.columns:
            return {}
        encoded = [self.encode_column(table[name], fitted) for name, fitted in self.columns.items()]
        return {self.input: np.stack(encoded, axis=1)}

    @classmethod
    @abstractmethod
    def encode_column(cls, column: np.ndarray, fitted: Fitted) -> np.ndarray:
        """Return the array of one column. Shapes: [n] -> [n, ...]."""

    def to_json(self) -> Json:
        """Return what features.json keeps."""
        return {self.key: self.columns}

    @classmethod
    def from_json(cls, names: list[str], content: Json, folder: Path) -> Self:
        """Read back the columns `names` from what `to_json` returned and `save_files` wrote."""
        found = content.get(cls.key, {})
        return cls({name: cls.column_from_json(found[name]) for name in names})

    @classmethod
    def column_from_json(cls, content: Any) -> Fitted:
        """Read back what was fitted of one column."""
        return content

    def save_files(self, folder: Path) -> None:
        """Write what does not fit into features.json."""

    # Batches

    @property
    def sizes(self) -> tuple[Any, ...]:
        """Return for each column what the network must know of it."""
        return tuple(self.columns.values())

    @property
    def shared_sizes(self) -> dict[str, int]:
        """Return the fields of `Sizes` beside those of each column."""
        return {}

    @classmethod
    def n_tokens(cls, arrays: Arrays) -> int | np.ndarray:
        """Return the tokens of every window. Shapes: int64 [w], or one number for all."""
        return arrays[cls.input].shape[1] if cls.input in arrays else 0

    @classmethod
    def token_batch(cls, arrays: Arrays, rows: np.ndarray, windows: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        """Return what the encoder reads of the given windows.

        Shapes: rows int64 [w], the row of each window; windows int64 [w].
        """
        return {cls.input: arrays[cls.input][rows]} if cls.input in arrays else {}

    @classmethod
    def row_batch(cls, arrays: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is read of the given rows beside the encoder. Shapes: int64 [b]."""
        return {}

    @classmethod
    def take(cls, arrays: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of the given rows alone. Shapes: int64 [b]."""
        return {cls.input: arrays[cls.input][rows]} if cls.input in arrays else {}

    @classmethod
    def inputs(cls) -> tuple[Input, ...]:
        """Return the inputs that the columns may have in a batch."""
        return (Input(name=cls.input),)

    # Network and masked pretraining (imports torch)

    @classmethod
    def token_module(cls, sizes: tuple[Any, ...], d_model: int) -> "nn.Module | None":
        """Return what makes tokens of the columns, whose weights `network.initialise` knows; None without columns."""
        raise NotImplementedError

    @classmethod
    def embed(cls, embeddings: "nn.Module", values: "Tensor") -> "Tensor":
        """Return the tokens of a batch's input. Shapes: [w, columns, ...] -> [w, columns, d]."""
        return getattr(embeddings, cls.module)(values)

    @classmethod
    def embed_hidden(cls, embeddings: "nn.Module", values: "Tensor", hidden: "Tensor") -> "Tensor":
        """Return the tokens of a sequence whose tokens are guessed, where some are hidden.

        Shapes: as of `embed`, bool [w, s] -> [w, s, d].
        """
        raise NotImplementedError

    @classmethod
    def real(cls, values: "Tensor", sizes: "Sizes") -> "Tensor":
        """Return which tokens of a sequence are no padding. Shapes: [w, s] -> bool [w, s]."""
        raise NotImplementedError

    @classmethod
    def disturb(cls, values: "Tensor", sizes: "Sizes", settings: "OptimisationSettings") -> "Tensor":
        """Return the input as training shows it. Shapes: unchanged."""
        return values

    @classmethod
    def known(cls, values: "Tensor") -> "Tensor":
        """Return which columns have a value that pretraining may hide.

        Shapes: [w, columns, ...] -> bool [w, columns].
        """
        raise NotImplementedError

    @classmethod
    def hide(cls, values: "Tensor", sizes: "Sizes", fraction: float) -> "tuple[Tensor, Tensor]":
        """Return which tokens of a sequence are hidden, and what is seen instead.

        Shapes: [w, s] -> bool [w, s], [w, s].
        """
        raise NotImplementedError

    @classmethod
    def blank(cls, values: "Tensor", sizes: "Sizes") -> "Tensor":
        """Return a sequence of the same length that says nothing. Shapes: unchanged."""
        return cls.hide(values, sizes, 1.0)[1]

    @classmethod
    def reconstruction(cls, sizes: "Sizes", d_model: int) -> "Reconstruction | None":
        """Return what guesses hidden values from their tokens; None without columns."""
        raise NotImplementedError

    # Surprise, and rows that are made up: of kinds whose cells are guessed

    @classmethod
    def cell_name(cls, cell: Any) -> str | None:
        """Return a cell as a person reads it; None for a missing one."""
        raise NotImplementedError

    @classmethod
    def choice_names(cls, fitted: Fitted) -> np.ndarray:
        """Return what each choice of a column is called, in the order of their numbers; None for missing.

        Shapes: object [choices].
        """
        raise NotImplementedError

    @classmethod
    def maker(cls, fitted: Fitted, known: np.ndarray) -> "Maker":
        """Return what makes cells of a column, after the cells of known rows. Shapes: [c]."""
        raise NotImplementedError

    # Baseline

    @classmethod
    def plain_numbers(cls, column: np.ndarray) -> np.ndarray:
        """Return a column as the baseline's numbers, NaN for missing. Shapes: [n] -> float [n, numbers]."""
        raise NotImplementedError

    @classmethod
    def counted_numbers(cls, column: np.ndarray) -> np.ndarray:
        """Return a column as numbers of which the baseline of surprise counts what occurs together: not too many."""
        return cls.plain_numbers(column)

    @classmethod
    def plain_reader(cls, column: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return `plain_numbers` with as many numbers for every column as for this fitted one."""
        return cls.plain_numbers


def missing_cells(kind: str, n: int) -> np.ndarray:
    """Return a column of a kind in which every cell is missing. Shapes: [n].

    >>> missing_cells("number", 2)
    array([nan, nan])
    """
    cells = KINDS[kind].cells
    if cells == "str":
        return np.full(n, None, object)
    return np.full(n, "NaT" if cells.startswith("datetime") else np.nan, cells)
