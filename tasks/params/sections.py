"""The parts of a product's entry, as frozen dataclasses whose types are their rules; field texts are the reference.

`tasks.params.schema` puts them together, `tasks.params.source` has the kinds of sources.
"""

import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic.dataclasses import dataclass

from model.heads import TASKS, head_of
from model.settings import (
    LANGUAGE_FILE,
    PRESETS,
    STRICT,
    Count,
    NetworkSettings,
    Positive,
    PretrainingSettings,
    TrainingSettings,
)
from tasks.params.fields import MEASURED, Cron, Hour, OneOf
from tasks.params.messages import fields_of, mistakes_of, unknown_key
from tasks.params.source import Source

ENGINES = (
    MEASURED,
    "onnxruntime-fp32",
    "onnxruntime-fp16",
    "onnxruntime-int8",
    "openvino-fp32",
    "openvino-bf16",
    "openvino-int8",
)


def _to_label(value: Any) -> str:
    """Return a label as text; of `yes` without quotes YAML makes true, and nobody knows what was written."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f'must be one value of the target, as text, got {value!r}; write it in quotes, such as "yes"')


Label = Annotated[str, BeforeValidator(_to_label, json_schema_input_type=str | int)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Target:
    """What is predicted, and when its label is known."""

    name: Annotated[str, Field(examples=["late"])]
    """The column of the source that holds the label; empty where it is not known yet. reconstruct needs none."""
    task: Annotated[str, OneOf(TASKS), Field(examples=["binary"])]
    """binary (two classes), multiclass (one of several), multilabel (labels joined by `|`, or a list), regression
    (a number), generate (a text, written from the row), span (an answer that stands in a text of the row, or that there
    is none), next_item (which of many items comes next: a list of the
    likeliest) or reconstruct (how unusual each row
    is: no label, so no `name` either)."""
    delay_days: Annotated[int, Field(ge=0)] = 0
    """The label of a row of day D is known on day D + delay_days."""
    late_days: Annotated[int, Field(ge=0)] = 30
    """So many days after it should have been known a label is still taken when it comes late, is corrected or is
    withdrawn, as known from then on; what is older is told once and left. Without a `time` it is taken at any time."""
    positive: Annotated[Label | None, Field(examples=["churned"])] = None
    """binary: the value that means yes, in any case of letters. All others must be of one value, which means no.
    Default: 1 and true mean yes, 0 and false no; of labels that are none of these the run stops and asks."""
    negative: Annotated[Label | None, Field(examples=["stayed"])] = None
    """binary: the value that means no, beside `positive`; a third one goes to quarantine. Default: the only other
    value; where there are more the run stops and asks."""
    empty: Literal["none", "unknown"] | None = None
    """multilabel, span: what an empty cell of text says: none, that no label is true or that the text has no answer, or
    unknown, that it is not known yet.
    Default: where there are such cells the run stops and asks. In JSON and in a list [] is none, and null not known."""
    text: Annotated[str, Field(examples=["article"])] = ""
    """span: the column of kind text in which the answer stands, as it is written there; of several places each counts
    as right. Default: the only column of kind text."""
    history: Annotated[tuple[str, ...], Field(examples=[["last_item", "item_before"]])] = ()
    """next_item: the columns of kind category that hold the items which a row had before, the last one first. A missing
    cell is no item; a row in which all are missing is new."""
    exclude: Annotated[tuple[str, ...], Field(examples=[["forbidden_item"]])] = ()
    """next_item: the columns of kind category that hold items which no list of the row may have. Those of `history`
    among them leave out what was seen."""
    source: Source | None = None
    """Where the labels come from, where the rows' source has none: it delivers the key and the target, and each row
    gets the label of its key; of several the last that is delivered. Default: the rows' own source."""

    @property
    def is_in_rows(self) -> bool:
        """Return whether the rows' own source delivers the labels."""
        return self.source is None and head_of(self.task).has_labels


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DriftLimits:
    """How far a day may differ in kind from the 28 days before it until a person accepts it (`tasks.quality.drift`)."""

    max_volume_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 3.0
    """The day's row count must lie within [min / r, max * r] of those days, where r is this ratio."""
    max_share_change: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.2
    """How far the share of missing cells of a column, and of rows in quarantine, may lie beyond those days' own."""
    max_shift: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.25
    """How far the population stability index of a category against those days together may lie beyond their own."""
    max_number_shift: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """How far a quantile of a number may lie beyond the smallest and the largest of those days, as a multiple of the
    distance between these two and of a tenth of the interquartile range. A column that comes in another unit is seen
    where days resemble each other more than the units do."""
    max_surprising: Annotated[float | None, Field(ge=0, le=1, examples=[0.05])] = None
    """reconstruct: the largest share of a night's rows that may have more surprise than 99 of 100 training rows; chance
    in few rows is allowed for. The champion says so when the night is scored, and publish stops. Default: none."""


def _is_n_folds(n: int) -> int:
    if n not in (0, *range(3, 21)):
        raise ValueError(f"must be 0 or 3 to 20, got {n}; use for example 5")
    return n


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _AnySplit:
    by: str
    """How rows are parted."""
    folds: Annotated[int, AfterValidator(_is_n_folds)] = 0
    """Splits on which `evaluate` trains anew, for the metric's mean and interval; 0: none."""
    group: Annotated[str | None, Field(examples=["customer_id"])] = None
    """Rows with the same value of this column never straddle a split; the key if absent."""
    per_group: Annotated[Literal["one", "all"] | None, Field(examples=["all"])] = None
    """How many labelled rows of a held-out group are judged. one: the first, as of copies of a text; all: every row, as
    of a customer's. Default: one where `group` is a column of text, else all."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TimeSplit(_AnySplit):
    """The newest labelled days are held out."""

    by: Literal["time"]
    """time: the newest labelled days are held out."""
    test_days: Count | None = None
    """The last labelled days, for the test. Default: 7, or as many more as hold 300 labelled rows, of all days at most
    a tenth; of few days a fifth."""
    val_days: Count | None = None
    """The days before them, for early stopping and calibration. Default: as for the test."""
    train_days: Count | None = None
    """The days before those, to learn from. Default: 90, or as many more as hold 20,000 labelled rows."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HashSplit(_AnySplit):
    """A share of the groups is held out, chosen by a hash."""

    by: Literal["hash"]
    """hash: a share of the groups is held out."""
    test_fraction: Annotated[float, Field(gt=0, lt=0.5, examples=[0.1])] = 0.2
    """Share of the groups held out for the test."""
    val_fraction: Annotated[float, Field(gt=0, lt=0.5, examples=[0.1])] = 0.1
    """Share of the groups held out for early stopping and calibration."""
    start: Annotated[float, Field(ge=0, lt=1, examples=[0.5])] = 0.0
    """Where on the circle of groups the test begins, from 0 to 1; another start holds out other groups."""


Split = Annotated[TimeSplit | HashSplit, Field(discriminator="by")]
"""How labelled rows are parted into train, validation and test."""


def _is_init(init: str) -> str:
    if init not in ("scratch", "pretrain") and not re.fullmatch(r"(package|dir):.+", init):
        raise ValueError(
            f"must be scratch, pretrain, package:<package>/<folder> or dir:<path>, got {init!r}; use pretrain"
        )
    return init


def _fits_preset(changes: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Check the changes together with the preset that they change."""
    known = list(fields_of(NetworkSettings))
    mistakes = [unknown_key(name, name, known) for name in changes if name not in known]
    try:
        _with_changes(info.data.get("preset", "small"), {name: changes[name] for name in changes if name in known})
    except ValidationError as error:
        mistakes += mistakes_of(error, NetworkSettings, ())
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return changes


def _with_changes(preset: str, changes: dict[str, Any]) -> NetworkSettings:
    return replace(PRESETS[preset], **changes)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Model:
    """The network, where its weights start, and its two trainings (see `model.settings`)."""

    preset: Annotated[str, OneOf(tuple(PRESETS))] = "small"
    """A size: a key of `model.settings.PRESETS`."""
    init: Annotated[str, AfterValidator(_is_init)] = "scratch"
    """Where the weights start: scratch, pretrain (all rows first, without labels: masked modelling, or for generate the
    next subword of their texts), or BERT-family weights, which texts with few labels gain most from:
    package:<package>/<folder> or dir:<path>. For the task generate, a language model: package:<package>/<file>.gguf or
    dir:<path>.gguf. What each was worth where it was measured: docs/pretraining.md."""
    network: Annotated[dict[str, Any], AfterValidator(_fits_preset)] = Field(default_factory=dict)
    """Fields of NetworkSettings that differ from the preset."""
    pretrain: PretrainingSettings = Field(default_factory=PretrainingSettings)
    """What is learnt before any label. Used by init: pretrain only."""
    train: TrainingSettings = Field(default_factory=TrainingSettings)
    """Supervised training."""
    companion: Literal["measured", "none"] = "measured"
    """measured: boosted trees and a linear model of the columns are fitted too, and what scores is the blend of all
    that is best on the validation rows, where a part may weigh nothing. none: the Transformer alone, with what reads
    texts and contexts."""
    minutes: Positive | None = None
    """How long pretraining and training together may take on the machine that does it, folds together as long again;
    companion, baseline and the measurement of engines come on top. Fewer steps are taken then, decided by
    a clock before the first: the stage prints how many, and `training.json` beside the weights says with which
    `train.epochs` the same bytes come again. Default: no limit, and no clock has a part in the weights."""
    engine: Annotated[str, OneOf(ENGINES)] = MEASURED
    """The engine that scores: measured when the model is exported (unless the simplest scores all rows of the splits
    within two seconds of one core), or the one named, such as onnxruntime-fp32."""

    @property
    def is_imported(self) -> bool:
        """Return whether the weights start as somebody else's."""
        return self.init not in ("scratch", "pretrain")

    @property
    def is_language_model(self) -> bool:
        """Return whether they are those of a language model."""
        return self.is_imported and self.init.endswith(LANGUAGE_FILE)

    @property
    def pretraining_seconds(self) -> float | None:
        """Return what pretraining may take: half of all; None where there is no limit."""
        return None if self.minutes is None else 30 * self.minutes

    def training_seconds(self, n_trainings: int) -> float | None:
        """Return what each of `n_trainings` may take; None where there is no limit."""
        if self.minutes is None:
            return None
        return (30 if self.init == "pretrain" else 60) * self.minutes / n_trainings

    def network_settings(self) -> NetworkSettings:
        """Return the preset with this product's changes."""
        return _with_changes(self.preset, self.network)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Ready:
    """What a night waits for, where rows may come late; it holds no worker meanwhile, and changes nothing of a night
    but its hour."""

    rows_at_least: Annotated[Count, Field(examples=[1000])]
    """The night begins once the scored day has so many rows at the source, which is looked at every five minutes."""
    until: Annotated[Hour, Field(examples=["05:00"])]
    """HH:MM in the product's time zone, on the day after as_of: from then on the night is judged with what has come.
    Older nights, such as those of a backfill, wait for nothing."""


def _has_nights(hour: str | None, info: ValidationInfo) -> str | None:
    """Check that what must be ready by an hour is made by a schedule."""
    if hour is not None and "predict" in info.data and info.data["predict"] is None:
        raise ValueError(
            'must have nights that are due by a schedule, and schedule.predict is null; add predict: "0 2 * * *", or '
            "delete ready_by"
        )
    return hour


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schedule:
    """When the two DAGs run: cron expressions, read in the product's time zone, or null for by hand only."""

    retrain: Cron | None = None
    """When train__<product> runs."""
    predict: Cron | None = None
    """When predict__<product> runs."""
    ready: Ready | None = None
    """What predict__<product> waits for before it fetches; null: for nothing."""
    ready_by: Annotated[Hour | None, AfterValidator(_has_nights), Field(examples=["06:30"])] = None
    """HH:MM in the product's time zone: a night that its schedule makes and that is not published by the next such hour
    is told, once, also where its run never began (`make watch`). null: nobody is told."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Retention:
    """How long `make gc` keeps the runs of a product, with their data in the DVC remote and the cache. What a
    registered version or a standing night needs stays for good, and so does the newest history."""

    experiments_days: Count = 30
    """Runs that no night and no registered version needs, such as rejected trainings, are kept this long; at least 3
    days."""
    nights_days: Count | None = None
    """Nights this much older than the newest one may be traced and re-created no more; their manifests and published
    parts stay. null: for good."""
