"""The records of a product's past: one for each night, in an object for each year beside the nights.

    <url>/<product>/_past/2013.json        {"nights": {"2013-06-30": {...}, ...}}

The object carries its checksum and is replaced by conditional PUTs, as the manifests are.
"""

from collections.abc import Mapping
from datetime import date

from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.runtime.records import RECORD, Record

PAST = "_past"


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


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Year(Record):
    """The nights of one year, by date."""

    format: int = 1
    """The version of this record."""
    nights: Mapping[str, NightRecord] = Field(default_factory=dict)
    """By as_of, YYYY-MM-DD."""
