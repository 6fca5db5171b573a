"""Column kinds: all that depends on the kind of a column, one file for each kind.

To add a kind, write a file here with a subclass of `base.Kind`, add one line to KINDS and run `make schema`. Fitting,
encoding, batches, the network, masked pretraining, the export and the baseline go through that list and the methods of
`Kind`. A type of cell that no kind has yet also needs a cast in `tasks.rows.casting` and a missing value in
`base.missing_cells`; a module class with weights of its own needs a case in `model.network.network.initialise`.

Imports neither numpy nor torch: a scheduler reads the list while it parses. The class of a kind is imported when it is
first asked for, and its torch half, a file of `modules`, when a network is built.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.features.kinds.base import Kind

CATEGORY, NUMBER, CONTEXT, TIME, IMAGE = "category", "number", "context", "time", "image"
EVENTS, TEXT = "events", "text"


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What is known of a kind before its class is imported."""

    path: str
    """Module and name of its class."""
    cells: str
    """Type of a valid cell: str, float64 or datetime64[s]."""
    is_token: bool = True
    """Whether the encoder reads its columns as tokens; False for what is read beside the encoder."""
    is_guessed: bool = False
    """Whether a hidden cell, or each of its parts, is guessed as one of a few choices: so its surprise is known, and it
    can be made up."""


KINDS = {
    CATEGORY: Declaration(path="model.features.kinds.category:Category", cells="str", is_guessed=True),
    NUMBER: Declaration(path="model.features.kinds.number:Number", cells="float64", is_guessed=True),
    CONTEXT: Declaration(path="model.features.kinds.context:Context", cells="float64", is_token=False),
    TIME: Declaration(path="model.features.kinds.time:Time", cells="datetime64[s]", is_guessed=True),
    IMAGE: Declaration(path="model.features.kinds.image:Image", cells="str", is_guessed=True),
    EVENTS: Declaration(path="model.features.kinds.events:Events", cells="str"),
    TEXT: Declaration(path="model.features.kinds.text:Text", cells="str"),
}
"""Every kind by its name. A row's tokens lie in this order, those of sequences last."""


def kind_class(name: str) -> "type[Kind]":
    """Return the class of the kind called `name`."""
    return _class_at(KINDS[name].path)


def kind_classes() -> "list[type[Kind]]":
    """Return the classes of all kinds, in the order of KINDS."""
    return [kind_class(name) for name in KINDS]


def column_kinds() -> "list[type[Kind]]":
    """Return the kinds whose columns are one token each."""
    return [kind for kind in kind_classes() if KINDS[kind.name].is_token and not kind.is_sequence]


def sequence_kinds() -> "list[type[Kind]]":
    """Return the kinds whose columns are as many tokens as they hold."""
    return [kind for kind in kind_classes() if KINDS[kind.name].is_token and kind.is_sequence]


def token_kinds() -> "list[type[Kind]]":
    """Return the kinds that the encoder reads, in the order in which their tokens lie."""
    return [*column_kinds(), *sequence_kinds()]


def encoder_inputs() -> list[str]:
    """Return the inputs of a batch that the encoder reads, window by window, in the order of their tokens."""
    return [each.name for kind in token_kinds() for each in kind.inputs() if each.of == "windows"]


def columns_of(kinds: dict[str, str], kind: str) -> list[str]:
    """Return the columns of one kind, in their order.

    >>> columns_of({"age": "number", "city": "category", "income": "number"}, "number")
    ['age', 'income']
    """
    return [column for column, name in kinds.items() if name == kind]


def guessed_columns(kinds: dict[str, str]) -> list[str]:
    """Return the columns whose cells are guessed, in the order of their tokens.

    >>> guessed_columns({"age": "number", "city": "category", "story": "text"})
    ['city', 'age']
    """
    return [column for kind in KINDS if KINDS[kind].is_guessed for column in columns_of(kinds, kind)]


@cache
def _class_at(path: str) -> "type[Kind]":
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
