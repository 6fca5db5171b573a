"""The settings of a product that `tasks.tune` may turn, and the patch of params.yaml that turns them."""

import difflib
import io
from dataclasses import dataclass, replace
from typing import Any

from tasks.params import PARAMS_FILE, Model, Product


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One setting below `model` and where to look for a better one; the range is widened to hold the present value."""

    place: str
    """Such as train.learning_rate."""
    low: float = 0
    """The least value."""
    high: float = 0
    """The greatest."""
    log: bool = False
    """Search by factors rather than by differences."""
    choices: tuple[int, ...] = ()
    """In place of a range: the values to choose from."""


WIDTHS = (32, 64, 96, 128, 192)
TRAINING = (
    Knob(place="train.weight_decay", low=1e-3, high=0.3, log=True),
    Knob(place="train.label_smoothing", low=0.0, high=0.1),
    Knob(place="network.dropout", low=0.0, high=0.3),
)
FROM_SCRATCH = (
    *TRAINING,
    Knob(place="train.learning_rate", low=3e-4, high=5e-3, log=True),
    Knob(place="train.epochs", low=1, high=6),
    Knob(place="network.n_layers", choices=(1, 2, 3, 4)),
    Knob(place="network.d_model", choices=WIDTHS),
    Knob(place="network.d_feedforward", choices=(64, 128, 256, 384)),
)
PRETRAINED = (
    *FROM_SCRATCH,
    Knob(place="pretrain.learning_rate", low=3e-4, high=5e-3, log=True),
    Knob(place="pretrain.epochs", low=0.25, high=3, log=True),
    Knob(place="pretrain.mask_fraction", low=0.1, high=0.5),
)
IMPORTED = (
    *TRAINING,
    Knob(place="train.learning_rate", low=2e-5, high=5e-4, log=True),
    Knob(place="train.epochs", low=1, high=4),
)
"""Imported weights bring their sizes with them."""


def space(product: Product) -> list[Knob]:
    """The knobs that the way the weights start leaves open, sizes only where the heads can share them."""
    knobs = {"scratch": FROM_SCRATCH, "pretrain": PRETRAINED}.get(product.model.init, IMPORTED)
    n_heads = product.model.network_settings().n_heads
    widths = tuple(width for width in WIDTHS if width % n_heads == 0)
    return [replace(knob, choices=widths) if knob.choices == WIDTHS else knob for knob in knobs]


def changed(model: Model, settings: dict[str, Any]) -> Model:
    """`model` with the settings, by place, put in."""
    parts: dict[str, dict[str, Any]] = {"network": {}, "pretrain": {}, "train": {}}
    for place, value in settings.items():
        part, _, name = place.partition(".")
        parts[part][name] = value
    return replace(
        model,
        network={**model.network, **parts["network"]},
        pretrain=replace(model.pretrain, **parts["pretrain"]),
        train=replace(model.train, **parts["train"]),
    )


def present(product: Product, knob: Knob) -> Any:
    """The knob's value in params.yaml, or its default."""
    part, _, name = knob.place.partition(".")
    model = product.model
    return getattr({"network": model.network_settings(), "pretrain": model.pretrain, "train": model.train}[part], name)


def proposal(text: str, product: str, changes: dict[str, Any]) -> str:
    """A unified diff of params.yaml that makes the changes, by place below `model`, and touches nothing else."""
    import ruamel.yaml

    editor, layouts = ruamel.yaml.YAML(), [io.StringIO(), io.StringIO()]
    editor.preserve_quotes, editor.width = True, 4096
    editor.indent(mapping=2, sequence=4, offset=2)
    content = editor.load(text)
    editor.dump(content, layouts[0])
    for place, value in changes.items():
        part, _, name = place.partition(".")
        content["products"][product]["model"][part][name] = int(value) if float(value).is_integer() else value
    editor.dump(content, layouts[1])
    present = text.splitlines(keepends=True)
    wanted = _merged(present, *(layout.getvalue().splitlines(keepends=True) for layout in layouts))
    return "".join(difflib.unified_diff(present, wanted, f"a/{PARAMS_FILE}", f"b/{PARAMS_FILE}"))


def _merged(text: list[str], before: list[str], after: list[str]) -> list[str]:
    """`text` with the lines in which `after` differs from `before`, so that the editor's own layout is left out."""
    blank = next((i for i, line in enumerate(text) if line.strip()), 0)  # the editor drops blank lines at the start
    if len(text) - blank != len(before):
        return after
    changes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    parts = [text[blank + i : blank + j] if kind == "equal" else after[k:m] for kind, i, j, k, m in changes]
    return [*text[:blank], *(line for part in parts for line in part)]
