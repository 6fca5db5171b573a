"""Say which settings of a product a search may change and within which bounds, and change them in params.yaml."""

import difflib
from dataclasses import dataclass, replace
from typing import Any

from tasks.params import PARAMS_FILE, Model, Product
from tasks.params.edit import edited

Settings = dict[str, Any]
"""Numbers by place below `model`, such as train.learning_rate."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One setting below `model` and where to look for a better one; the range is widened to hold the current value."""

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
    Parameter(place="train.weight_decay", low=1e-3, high=0.3, log=True),
    Parameter(place="train.label_smoothing", low=0.0, high=0.1),
    Parameter(place="network.dropout", low=0.0, high=0.3),
)
FROM_SCRATCH = (
    *TRAINING,
    Parameter(place="train.learning_rate", low=3e-4, high=5e-3, log=True),
    Parameter(place="train.epochs", low=1, high=6),
    Parameter(place="network.n_layers", choices=(1, 2, 3, 4)),
    Parameter(place="network.d_model", choices=WIDTHS),
    Parameter(place="network.d_feedforward", choices=(64, 128, 256, 384)),
)
PRETRAINED = (
    *FROM_SCRATCH,
    Parameter(place="pretrain.learning_rate", low=3e-4, high=5e-3, log=True),
    Parameter(place="pretrain.epochs", low=0.25, high=3, log=True),
    Parameter(place="pretrain.mask_fraction", low=0.1, high=0.5),
)
IMPORTED = (
    *TRAINING,
    Parameter(place="train.learning_rate", low=2e-5, high=5e-4, log=True),
    Parameter(place="train.epochs", low=1, high=4),
)
"""Imported weights bring their sizes with them."""


def search_space(product: Product) -> list[Parameter]:
    """Return the parameters that the product's way to start leaves open, and sizes that its heads can share."""
    space = {"scratch": FROM_SCRATCH, "pretrain": PRETRAINED}.get(product.model.init, IMPORTED)
    n_heads = product.model.network_settings().n_heads
    widths = tuple(width for width in WIDTHS if width % n_heads == 0)
    return [replace(parameter, choices=widths) if parameter.choices == WIDTHS else parameter for parameter in space]


def with_values(model: Model, settings: Settings) -> Model:
    """Return `model` with the settings put in."""
    parts: dict[str, Settings] = {"network": {}, "pretrain": {}, "train": {}}
    for place, value in settings.items():
        part, _, name = place.partition(".")
        parts[part][name] = value
    return replace(
        model,
        network={**model.network, **parts["network"]},
        pretrain=replace(model.pretrain, **parts["pretrain"]),
        train=replace(model.train, **parts["train"]),
    )


def current_value(product: Product, place: str) -> Any:
    """Return the value of a setting in params.yaml, or its default."""
    part, _, name = place.partition(".")
    model = product.model
    return getattr({"network": model.network_settings(), "pretrain": model.pretrain, "train": model.train}[part], name)


def patch(text: str, product: str, changes: Settings) -> str:
    """Return a unified diff of params.yaml that makes the changes and touches nothing else."""
    wanted = edited(
        text,
        {
            ("products", product, "model", *place.split(".")): int(value) if float(value).is_integer() else value
            for place, value in changes.items()
        },
    )
    before, after = text.splitlines(keepends=True), wanted.splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, f"a/{PARAMS_FILE}", f"b/{PARAMS_FILE}"))
