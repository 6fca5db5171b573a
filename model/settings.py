"""Settings of the network and of its two trainings, as frozen dataclasses whose types are their rules.

Imports neither torch nor numpy: a scheduler reads this file while it parses. Holds no defaults that
depend on the machine; what the hardware can do is found out in `model.compute.device`.
"""

from dataclasses import fields, replace
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", strict=True)
"""No unknown keys, no value of another type."""
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
LANGUAGE_FILE = ".gguf"
"""How the name of a language model's file ends."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NetworkSettings:
    """Sizes of the encoder. Imported weights bring sizes of their own (see `model.network.bert`)."""

    d_model: Count = 64
    """Width of a token."""
    n_layers: Count = 2
    """Encoder blocks."""
    n_heads: Count = 8
    """Attention heads; they share `d_model` equally."""
    d_feedforward: Count = 128
    """Width of the hidden layer in a block's feed-forward half."""
    dropout: Share = 0.05
    """Share of activations dropped while training."""
    norm_first: bool = True
    """Normalise before each half of a block (steadier from scratch); false is BERT's order."""
    pooling: Literal["cls", "mean"] = "cls"
    """Input of the head: the [CLS] token, or the mean of all tokens."""
    max_tokens: Annotated[int, Field(ge=8)] = 128
    """Text tokens that are read at once, separators included; longer texts are cut, or read in windows."""
    max_windows: Count = 1
    """Windows of `max_tokens` in which a longer text is read; the head gets their mean."""
    wide_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens of each text that a linear model of weighted subwords reads beside the encoder; 0 leaves it out. Every
    preset has 1024."""

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            below = self.d_model - self.d_model % self.n_heads
            use = " or ".join(str(width) for width in (below, below + self.n_heads) if width)
            got = f"d_model={self.d_model}, n_heads={self.n_heads}"
            raise ValueError(f"d_model must be a multiple of n_heads, got {got}; use {use}")

    @property
    def d_head(self) -> int:
        """Return the width of one attention head."""
        return self.d_model // self.n_heads


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LanguageSettings:
    """Sizes of a language model, which its file brings (see `model.network.language.imported`)."""

    d_model: Count
    """Width of a token."""
    n_layers: Count
    """Blocks."""
    n_heads: Count
    """Heads of queries."""
    n_kv_heads: Count
    """Heads of keys and values, each for as many heads of queries."""
    d_head: Count
    """Width of a head."""
    d_feedforward: Count
    """Width of the hidden layer in a block's feed-forward half."""
    rotary_base: Positive
    """Of the rates by which pairs of numbers turn from place to place."""
    norm_epsilon: Positive
    """Added to the mean square in a norm."""
    adapter_rank: Annotated[int, Field(ge=0)] = 0
    """Rank of the matrices that are learnt beside the given ones; 0 before a training, and once they are merged."""
    adapter_layers: Annotated[int, Field(ge=0)] = 10
    """Blocks with such matrices, the last ones: through those before no gradient runs, which halves a step."""
    adapter_strength: Positive = 2.0
    """Factor of their product."""

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads or self.d_head % 2:
            raise ValueError(
                f"heads of queries must be a multiple of those of keys, and of an even width, got {self.n_heads}, "
                f"{self.n_kv_heads} and {self.d_head}; use the file as it was published"
            )

    def is_adapted(self, number: int) -> bool:
        """Return whether the block of a number has adapters."""
        return number >= self.n_layers - self.adapter_layers


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerationSettings:
    """How texts are written."""

    max_tokens: Annotated[int, Field(ge=1, le=1024)] = 32
    """Subwords of a text at most, and of a label that is learnt from. A change needs another training; all else here
    applies from the next night on."""
    temperature: NotNegative = 0.0
    """0: the likeliest subword is always next. 1: one is drawn, as likely as the model finds it; less than 1: likely
    ones more often."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Which draws are made; they follow from this, a row's key and the place in its text, so that no row beside it
    changes a text."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Words or signs that end a text, which has them no more; such as "\\n"."""
    min_tokens: Annotated[int, Field(ge=0, le=1024)] = 0
    """Subwords of a text at least; no word of `stop` among them ends it."""
    pattern: Annotated[str | None, Field(min_length=1, max_length=1000, examples=["yes|no"])] = None
    """A regular expression that every text matches from its first to its last letter, such as "yes|no" or
    "[A-Z][^\\n]{10,60}": only subwords are drawn by which that can still come true within `max_tokens`. Python's
    syntax without references back, \\b, ^ and $; \\w, \\d and \\s are those of ASCII. Default: any text."""

    def __post_init__(self) -> None:
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens must be at most max_tokens, got {self.min_tokens} and {self.max_tokens}; lower it"
            )
        if self.pattern and self.stop:
            raise ValueError(f"stop must not be given beside pattern, got {self.stop}; delete it")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimisationSettings:
    """The steps of a training: what pretraining and training have in common."""

    epochs: NotNegative = 1.0
    """Passes over the rows; a fraction is allowed."""
    batch_tokens: Annotated[int, Field(ge=64)] = 16384
    """Tokens in one batch, padding included."""
    learning_rate: Positive = 1e-3
    """Peak of the schedule; about 1e-4, with batches of 2,048 tokens, suits imported weights."""
    weight_decay: NotNegative = 0.01
    """AdamW's decoupled decay, on matrices only."""
    warmup_fraction: Share = 0.1
    """Share of all steps during which the rate rises."""
    l1: ClassVar[float] = 0.0
    ema_decay: ClassVar[float] = 0.0
    keep: ClassVar[str] = "none"
    patience_steps: ClassVar[int] = 0
    has_smallest_batch: ClassVar[bool] = False
    mirror_images: bool = False
    """Show every second image mirrored, left for right: where that leaves unchanged what is asked, as of a shirt or a
    landscape, not of a digit or a sign."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the first weights, order, masks and dropout."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainingSettings(OptimisationSettings):
    """On labelled and unlabelled rows alike: masked modelling over subwords and columns, or for generate the next
    subword of the rows' texts, passage by passage, where the epoch that foresees the validation rows' best is kept."""

    epochs: Positive = 0.75
    """Passes over the rows; a fraction is allowed."""
    mask_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of columns and subwords that are hidden, in masked modelling."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingSettings(OptimisationSettings):
    """Supervised training with early stopping on the validation loss."""

    has_smallest_batch: ClassVar[bool] = True
    epochs: NotNegative | None = None  # type: ignore[assignment]  # `for_rows` gives all that is left open a value
    """Passes over the training rows at most; a fraction is allowed. 0, with `probe`, leaves the encoder as it is.
    Default: 2 of many rows, up to 30 of few, where with `keep: best` 2 and 8 are tried too, and
    the best is kept."""
    learning_rate: Positive | None = None  # type: ignore[assignment]
    """Peak of the schedule. Default: 0.001, of imported weights 0.0001."""
    batch_tokens: Annotated[int, Field(ge=64)] | None = None  # type: ignore[assignment]
    """Tokens in one batch, padding included. Default: 16384, of imported weights 2048."""
    probe: bool = False
    """Begin with a head fitted to the unchanged encoder (`model.training.closed_forms.probe`), not a random one."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: every class, or each label's yes and no, weighs as much in the loss; regression ignores it.
    A calibration would undo that for a yes or no (not for one of several classes): it needs `calibrate: false`."""
    half_life_days: NotNegative = 0.0
    """A training row this much older than the newest weighs half as much; 0 lets all weigh the same. The line through
    the context columns weighs all alike: its observations are days, of which there are few."""
    target_scale: Literal["measured", "linear", "log", "symlog"] = "measured"
    """regression: the scale on which the target is learnt. log: for prices, amounts and other numbers above 0, where an
    error counts by its share; symlog: the same for numbers of both signs; linear: as they are, without any limit.
    measured: of a target with a long tail the one whose errors, in the target's own units, are least on rows that were
    not fitted; and where no training label is below 0, no prediction is. What is predicted is a mean on every scale."""
    label_smoothing: Share = 0.0
    """Share of a label's mass spread over all classes; regression ignores it."""
    l1: NotNegative = 0.0  # type: ignore[misc]  # a constant of the base, which training lets a person choose
    """Decoupled L1 decay: every step moves each element of the matrices by rate times this towards zero."""
    ema_decay: Share = 0.0  # type: ignore[misc]
    """Weights are averaged over about 1 / (1 - this) steps, validated and kept so; 0 keeps the last ones."""
    keep: Literal["best", "last"] = "best"  # type: ignore[misc]
    """Which weights to keep: `best` validation loss (with early stopping) or `last` epoch (without).
    The last is better where the level of the labels drifts: a loss on few days depends above all on that level."""
    wide_penalty: Positive | None = None
    """Ridge penalty on the weights of the linear model beside the encoder (see `wide_tokens`). Default: the best on
    rows that it was not fitted to; of more than 20,000 rows 0.3."""
    patience_steps: Count | None = None  # type: ignore[misc, assignment]
    """Steps without a better validation loss before training stops, which is looked at after each epoch.
    Default: 400, or those of twelve epochs where these are fewer, or of two where these are more; of a long training a
    quarter, since much of the loss falls where the rate does, at the end."""
    calibrate: bool = True
    """Fit probabilities to the validation rows once training has ended; regression has none.
    With a split by time, the level that they have in common counts as many observations as they have days."""
    refit: bool | None = None
    """Train a second time, on the validation rows too, after they have served to calibrate: from the same start with
    `keep: last`; with `keep: best` the kept weights learn on, a few epochs at a tenth of the rate. The scale is kept,
    and with a split by hash the offset. For data that drifts, where the newest rows matter most. Closed forms and trees
    learn from them in any case. Default: with a split by time, of at most 20,000 training rows."""

    def __post_init__(self) -> None:
        mistakes = []
        if self.epochs == 0 and not self.probe:
            mistakes.append("epochs must be above 0 without probe, got 0; use a positive number, or set probe: true")
        if self.refit and self.epochs == 0:
            mistakes.append(
                "refit must be false with epochs 0, whose head learns from the validation rows anyway; leave it out"
            )
        if mistakes:
            raise ValueError("\n".join(mistakes))

    def with_refit(self, n_rows: int, *, by_time: bool) -> "TrainingSettings":
        """Return these settings with a value for `refit`, by the number of training rows and what splits them."""
        if self.refit is not None:
            return self
        return replace(self, refit=by_time and n_rows <= MOST_REFITTED_ROWS and self.epochs != 0)

    def for_rows(self, n_tokens: int, *, is_imported: bool = False, is_adapted: bool = False) -> "TrainingPlan":
        """Return these settings with a value for all that is left open, by the number of the training rows' tokens.

        Few rows are read often: a loss still falls after hundreds of steps, and those of small batches cost little.
        `is_imported` says whether the weights come from elsewhere: they are moved little, lest they forget;
        `is_adapted`, whether beside them adapters alone are learnt, which forget nothing.
        """
        plan = TrainingPlan(
            **{field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        )
        most, rate, batch = (FEWEST_EPOCHS, 1e-4, 2048) if is_imported else (MOST_EPOCHS, 1e-3, 16384)
        rate = ADAPTER_RATE if is_adapted else rate
        epochs = max(FEWEST_EPOCHS, min(most, round(TOKENS_READ / max(1, n_tokens), 1)))
        chooses = self.epochs is None and self.keep == "best"
        return replace(
            plan,
            epochs=epochs if self.epochs is None else self.epochs,
            lengths=tuple(length for length in SHORTER_EPOCHS if length < epochs) if chooses else plan.lengths,
            learning_rate=self.learning_rate or rate,
            batch_tokens=self.batch_tokens or batch,
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingPlan(TrainingSettings):
    """The settings of a training that leave nothing open."""

    epochs: NotNegative = 2.0
    """As of `TrainingSettings`, and so the rest."""
    learning_rate: Positive = 1e-3
    batch_tokens: Count = 16384
    refit: bool = False
    lengths: tuple[float, ...] = ()
    """Epochs of shorter trainings that are tried too; of all the best on the validation rows is kept."""


FEWEST_EPOCHS, MOST_EPOCHS = 2.0, 30.0
ADAPTER_RATE = 1e-3
SHORTER_EPOCHS = (2.0, 8.0)
"""A training that is stopped early never comes to the small steps of its end; a shorter one does."""
MOST_REFITTED_ROWS = 20_000
"""Of so few dated rows the newest, which only a second training reads, are a good part, and it takes little time."""
TOKENS_READ = 2_000_000
"""Tokens that a training on few rows reads: about a minute of one core."""
PATIENT_STEPS, PATIENT_EPOCHS = 400, 12
WIDE_TOKENS = 1024
PRESETS: dict[str, NetworkSettings] = {
    "small": NetworkSettings(wide_tokens=WIDE_TOKENS),
    "base": NetworkSettings(
        d_model=192, n_layers=4, n_heads=8, d_feedforward=512, dropout=0.1, wide_tokens=WIDE_TOKENS
    ),
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
        wide_tokens=WIDE_TOKENS,
    ),
}
