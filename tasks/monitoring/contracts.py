"""The records of a product's past: one for each night, in an object for each year beside the nights.

    <url>/<product>/_past/2013.json        {"nights": {"2013-06-30": {...}, ...}}

The object carries its checksum and is replaced by conditional PUTs, as the manifests are. What other models said of a
night's rows lies apart from what was published, under names that no glob for nights finds:

    <url>/<product>/_shadow/dt=D/run=<run>/<model>     Parquet: the key and the scores of every row; immutable
"""

from collections.abc import Mapping
from datetime import date

from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.publication.contracts import PublishedPart
from tasks.runtime.records import RECORD, Record

PAST, SHADOW = "_past", "_shadow"
PREVIOUS, CHALLENGER, ANCHOR = "previous", "challenger", "anchor"
"""The roles of a model that scores beside the champion: the champion before it; the model of the newest training, which
was refused or waits; the first champion that there ever was."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Predictions(Record):
    """What a night predicted, without any row."""

    mean: float | None
    """The mean score: of a yes, of the predicted class, of all labels, or the predicted number; null without rows."""
    deciles: tuple[float, ...]
    """Nine numbers below which tenths of the scores lie; none without rows."""
    shares: Mapping[str, float]
    """The share of rows by prediction, the 20 most frequent; none for numbers."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Shadow(Record):
    """A model that scored a night's rows beside the champion, and was not published."""

    roles: tuple[str, ...]
    """previous, challenger or anchor; one model may be several of them."""
    version: str | None
    """Its version in the registry; null for a challenger that has none."""
    commit: str
    """The commit of the experiment that made it."""
    model: str
    """The hash of its exported files, by which it is known under every version."""
    part: PublishedPart
    """Where its scores lie."""

    @property
    def name(self) -> str:
        """Return by what people know it: its version, or else the beginning of its commit."""
        return self.version or self.commit[:12]


@dataclass(frozen=True, kw_only=True, config=RECORD)
class SliceTruth(Record):
    """How a night did on some of its rows."""

    labelled: int
    """Rows of the slice with a label."""
    value: float | None
    """The metric on them; null where they do not define it."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Truth(Record):
    """How a night did, once its labels had come."""

    as_of: date
    """The date up to which labels were known."""
    labelled: int
    """Rows of the night with a label."""
    metric: str
    """The metric of the product's gates."""
    value: float | None
    """The metric on those rows; null where they do not define it."""
    slices: Mapping[str, SliceTruth] = Field(default_factory=dict)
    """The same by declared slice."""
    shadows: Mapping[str, float | None] = Field(default_factory=dict)
    """The metric of each model that scored beside the champion, on the same rows, by `Shadow.name`."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Distance(Record):
    """How far the cells of a column are from others: 0 where they are alike. Null where nothing is compared.

    Of classes it is half the sum of the differences of their shares, less what chance explains; of numbers the mean
    difference of their deciles, in units of the others' range from the first to the last decile; of texts that of their
    lengths. The difference of the shares of missing cells counts where it is larger.
    """

    training: float | None
    """From the rows of the days that the champion was trained and tested on."""
    weekdays: float | None
    """From the same weekdays before."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Decay(Record):
    """How the champion's nights stand to its first ones."""

    nights: int
    """Nights with a metric, the first ones included."""
    first_mean: float
    """The mean metric of its first nights."""
    first_deviation: float
    """Their standard deviation; at least half a percent of the mean."""
    recent_mean: float
    """The mean metric of the last seven."""
    evidence: float
    """How strongly later nights speak for a loss; from `wanted` on it is told, and a training begins."""
    wanted: float
    """The evidence from which on chance explains it in few cases."""

    @property
    def found(self) -> bool:
        """Return whether the champion has become worse."""
        return self.evidence >= self.wanted


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Lead(Record):
    """How much better another model was than the champion, over the nights that each of them scored."""

    nights: int
    """Nights with the metric of each."""
    mean: float
    """The mean difference, above 0 where the other one was better."""
    low: float | None
    """The lower end of its confidence sequence; null while nothing is known."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class BrokenRule(Record):
    """A rule that rows of a night's day break, without any value of theirs."""

    rows: int
    """How many break it; one row may break several."""
    first: int
    """The place of the first of them among the day's raw rows, from 1."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class NightRecord(Record):
    """A published night: what went in, what was predicted, and what came true."""

    as_of: date
    """The night's date."""
    scored_day: date
    """The day whose rows were scored."""
    run: str
    """The hash of the inputs, as in the manifest."""
    rows_in: int
    """Rows of the scored day."""
    quarantined: int
    """Rows that no model may see."""
    published: int
    """Predictions."""
    model_version: str | None
    """The version of the model that scored."""
    predictions: Predictions
    """What was predicted."""
    change: float | None = None
    """How far the deciles of the scores are from those of the same weekdays before, in units of their range from the
    first to the last decile; null where there are none."""
    truth: Truth | None = None
    """How it did; null until labels have come."""
    model_commit: str | None = None
    """The commit of the experiment that made the model."""
    change_from_training: float | None = None
    """As `change`, from what the model says of a sample of the rows that it was trained and tested on; null where it
    could not be asked."""
    columns: Mapping[str, Distance] = Field(default_factory=dict)
    """By column of the model's inputs, how far the night's rows are from others."""
    drifting: tuple[str, ...] = ()
    """Columns that have been far from the training rows in three of the last five nights: a warning, no more."""
    estimate: float | None = None
    """What the metric of the gates is expected to be if the published probabilities come true: an estimate, made before
    any label is known; null without probabilities."""
    shadows: tuple[Shadow, ...] = ()
    """The models that scored the same rows beside the champion."""
    not_scored: Mapping[str, str] = Field(default_factory=dict)
    """By version or commit, why another model has not."""
    seconds: Mapping[str, float] = Field(default_factory=dict)
    """How long the steps of the night took that ran on the machine which recorded it."""
    airflow_run: str | None = None
    """Airflow's name of the run that published it; null outside of Airflow."""
    broken: Mapping[str, BrokenRule] = Field(default_factory=dict)
    """By `column: rule`, why rows of the day are in quarantine; the 20 that most rows break. None where the rows that
    were judged are not on this disk."""
    withdrawn: bool = False
    """Whether a person has withdrawn the night: then it counts for nothing."""
    decay: Decay | None = None
    """How the champion stood to its first nights, as of this night; null while there are too few."""
    leads: Mapping[str, Lead] = Field(default_factory=dict)
    """How other models stood to the champion, as of this night, by `Shadow.name`."""
    retrain: str | None = None
    """Why a training was asked for; null where none was."""
    rollback: str | None = None
    """Why the champion before was asked back; null where it was not."""

    @property
    def models(self) -> tuple[str, ...]:
        """Return the commits of the experiments that made the models which scored its rows, where known."""
        return tuple(commit for commit in (self.model_commit, *(each.commit for each in self.shadows)) if commit)


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Year(Record):
    """The nights of one year, by date."""

    format: int = 1
    """The version of this record."""
    nights: Mapping[str, NightRecord] = Field(default_factory=dict)
    """By as_of, YYYY-MM-DD."""
