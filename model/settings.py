"""Every knob of the network and of its two trainings, as frozen dataclasses that check themselves.

Imports neither torch nor numpy: a scheduler reads this file while it parses. Holds no defaults that
depend on the machine; what the hardware can do is found out in `model.compute.device`.
"""

from dataclasses import dataclass, fields
from typing import Any

COLUMN_KINDS = ("category", "number", "time", "text", "context")
NUMERIC_KINDS = ("number", "context")
"""Kinds whose values are numbers."""
POOLINGS = ("cls", "mean")
KEPT = ("best", "last")
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Sizes of the encoder. Imported weights bring sizes of their own (see `model.network.bert`)."""

    d_model: int = 64
    """Width of a token."""
    n_layers: int = 2
    """Encoder blocks."""
    n_heads: int = 8
    """Attention heads; they share `d_model` equally."""
    d_feedforward: int = 128
    """Width of the hidden layer in a block's feed-forward half."""
    dropout: float = 0.05
    """Share of activations dropped while training."""
    norm_first: bool = True
    """Normalise before each half of a block (steadier from scratch); False is BERT's order."""
    pooling: str = "cls"
    """What the head reads: the [CLS] token, or the mean of all tokens."""
    max_tokens: int = 128
    """Text tokens that are read at once, separators included; longer texts are cut, or read in windows."""
    max_windows: int = 1
    """Windows of `max_tokens` in which a longer text is read; the head gets their mean."""
    wide_tokens: int = 0
    """Tokens of each text that a linear model of weighted subwords reads beside the encoder; 0 leaves it out."""

    def __post_init__(self) -> None:
        _complain(
            _wrong_types(self)
            or _at_least(
                1, d_model=self.d_model, n_layers=self.n_layers, n_heads=self.n_heads, d_feedforward=self.d_feedforward
            )
            + _at_least(8, max_tokens=self.max_tokens)
            + _at_least(1, max_windows=self.max_windows)
            + _at_least(0, wide_tokens=self.wide_tokens)
            + _share(dropout=self.dropout)
            + _one_of(POOLINGS, pooling=self.pooling)
            + self._heads_that_do_not_fit()
        )

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    def _heads_that_do_not_fit(self) -> list[str]:
        if self.n_heads < 1 or self.d_model < 1 or self.d_model % self.n_heads == 0:
            return []
        below = self.d_model - self.d_model % self.n_heads
        use = " or ".join(str(width) for width in (below, below + self.n_heads) if width)
        got = f"d_model={self.d_model}, n_heads={self.n_heads}"
        return [f"d_model must be a multiple of n_heads, got {got}; use {use}"]


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """Masked modelling over subwords and columns, on labelled and unlabelled rows alike."""

    epochs: float = 0.75
    """Passes over the rows; a fraction is allowed."""
    batch_tokens: int = 16384
    """Tokens in one batch, padding included."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay, on matrices only."""
    warmup_fraction: float = 0.1
    """Share of all steps during which the rate rises."""
    mask_fraction: float = 0.3
    """Share of columns and subwords that are hidden."""
    seed: int = 0
    """Fixes the weights that training starts from, order, masks and dropout."""

    def __post_init__(self) -> None:
        _complain(
            _wrong_types(self)
            or _optimisation_mistakes(self) + _share(mask_fraction=self.mask_fraction, above_zero=True)
        )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Supervised training with early stopping on the validation loss."""

    probe: bool = False
    """Begin with a head fitted to the unchanged encoder (see `model.training.closed_forms`), not with a random one."""
    epochs: float = 2.0
    """Passes over the training rows at most; a fraction is allowed. 0, with `probe`, leaves the encoder as it is."""
    batch_tokens: int = 16384
    """Tokens in one batch, padding included."""
    learning_rate: float = 1e-3
    """Peak of the schedule; about 1e-4, with batches of 2,048 tokens, suits imported weights."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay, on matrices only."""
    warmup_fraction: float = 0.1
    """Share of all steps during which the rate rises."""
    l1: float = 0.0
    """Decoupled L1 decay: every step moves each element of the matrices by rate times this towards zero."""
    ema_decay: float = 0.0
    """Weights are averaged over about 1 / (1 - this) steps, validated and kept so; 0 keeps the last ones."""
    class_weights: str = "none"
    """balanced: every class, or each label's yes and no, weighs as much in the loss; regression ignores it.
    A calibration would undo that for a yes or no (not for one of several classes): it needs `calibrate: false`."""
    half_life_days: float = 0.0
    """A training row this much older than the newest weighs half as much; 0 lets all weigh the same. The line through
    the context columns weighs all alike: its observations are days, of which there are few."""
    label_smoothing: float = 0.0
    """Share of a target's mass spread over all classes; regression ignores it."""
    keep: str = "best"
    """Whose weights: those of the epoch with the lowest validation loss, or the last's, without stopping early.
    The last is better where the level of the target drifts, and a loss on few days tells that level above all."""
    wide_penalty: float = 0.3
    """Ridge penalty on the weights of the linear model beside the encoder (see `wide_tokens`)."""
    patience_epochs: int = 2
    """Epochs without a better validation loss before training stops."""
    calibrate: bool = True
    """Fit probabilities to the validation rows once training has ended; regression has none.
    With a split by time, the level that they have in common counts as many observations as they have days."""
    refit: bool = False
    """Train a second time from the same start, on the validation rows too, once these have served to calibrate: the
    scale is kept, and with a split by hash the offset. For data that drifts, where the newest rows say most; with
    `keep: last` only, because which epoch is best cannot be seen again. Closed forms learn from them in any case."""
    seed: int = 0
    """Fixes the weights of the head, order and dropout."""

    def __post_init__(self) -> None:
        _complain(
            _wrong_types(self)
            or _optimisation_mistakes(self, may_rest=self.probe)
            + _share(label_smoothing=self.label_smoothing, ema_decay=self.ema_decay)
            + _at_least(0, l1=self.l1, half_life_days=self.half_life_days)
            + _one_of(CLASS_WEIGHTS, class_weights=self.class_weights)
            + _above_zero(wide_penalty=self.wide_penalty)
            + _at_least(1, patience_epochs=self.patience_epochs)
            + _one_of(KEPT, keep=self.keep)
            + self._refit_mistakes()
        )

    def _refit_mistakes(self) -> list[str]:
        if not self.refit or (self.keep == "last" and self.epochs):
            return []
        if not self.epochs:
            return [
                "refit must be false with epochs 0, whose head learns from the validation rows anyway; leave it out"
            ]
        return [f"refit must go with keep last, got keep {self.keep}, which needs unseen rows; set keep: last"]


def _optimisation_mistakes(settings: PretrainingSettings | TrainingSettings, may_rest: bool = False) -> list[str]:
    return (
        (_at_least(0, epochs=settings.epochs) if may_rest else _above_zero(epochs=settings.epochs))
        + _above_zero(learning_rate=settings.learning_rate)
        + _at_least(64, batch_tokens=settings.batch_tokens)
        + _at_least(0, weight_decay=settings.weight_decay, seed=settings.seed)
        + _share(warmup_fraction=settings.warmup_fraction)
    )


def _wrong_types(settings: Any) -> list[str]:
    """Mistakes of type; looked for first, because every other rule compares."""
    wanted: dict[Any, str] = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}
    mistakes = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        allowed = (int, float) if field.type is float else (field.type,)
        if type(value) not in allowed:
            remedy = f"use for example {field.default!r}"
            mistakes.append(f"{field.name} must be {wanted[field.type]}, got {value!r}; {remedy}")
    return mistakes


def _at_least(least: int, **fields: float) -> list[str]:
    return [
        f"{name} must be at least {least}, got {value}; use {least} or more"
        for name, value in fields.items()
        if not value >= least
    ]


def _above_zero(**fields: float) -> list[str]:
    return [
        f"{name} must be above 0, got {value}; use a positive number" for name, value in fields.items() if not value > 0
    ]


def _share(above_zero: bool = False, **fields: float) -> list[str]:
    return [
        f"{name} must be a share of {'(' if above_zero else '['}0, 1), got {value}; use for example 0.1"
        for name, value in fields.items()
        if not 0 <= value < 1 or (above_zero and value == 0)
    ]


def _one_of(allowed: tuple[str, ...], **fields: str) -> list[str]:
    return [
        f"{name} must be one of {', '.join(allowed)}, got {value!r}; use {allowed[0]}"
        for name, value in fields.items()
        if value not in allowed
    ]


def _complain(mistakes: list[str]) -> None:
    if mistakes:
        raise ValueError("\n".join(mistakes))


PRESETS: dict[str, NetworkSettings] = {
    "small": NetworkSettings(),
    "base": NetworkSettings(d_model=192, n_layers=4, n_heads=8, d_feedforward=512, dropout=0.1),
    # The shape of the MiniLM-L6 family; weights that are imported overrule every size but max_tokens.
    "minilm": NetworkSettings(
        d_model=384,
        n_layers=6,
        n_heads=12,
        d_feedforward=1536,
        dropout=0.1,
        norm_first=False,
        pooling="mean",
        max_tokens=128,
    ),
}
