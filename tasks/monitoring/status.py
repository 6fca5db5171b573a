"""Keep one small object per product from which a page shows it: its last nights, its trainings, its versions.

    <url>/<product>/_status.json

It is derived: nights from their records, versions from the registry, and a training from its verdict. So a page needs
neither git nor a history, and one that lies damaged is written anew, of which the trainings of before are then missing.
The object carries its checksum and is replaced by conditional PUTs, as the manifests are: `tasks.monitoring.showing`.
Decides nothing.
"""

from datetime import date, datetime

from pydantic.dataclasses import dataclass

from tasks.publication.manifests import read_checked
from tasks.publication.object_store import Store
from tasks.runtime.records import RECORD, Record

STATUS = "_status.json"
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ShownNight(Record):
    """What a page shows of a night."""

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
    mean: float | None
    """The mean score; None without rows."""
    change: float | None
    """How far the scores are from those of the same weekdays before; None where there are none."""
    metric: str | None = None
    """The metric of the gates; None until labels have come."""
    value: float | None = None
    """The metric on this night's labelled rows; None where they do not define it."""
    labelled: int | None = None
    """Rows with a label."""
    airflow_run: str | None = None
    """Airflow's name of the run that published it; None outside of Airflow."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ShownGate(Record):
    """What a page shows of a gate."""

    name: str
    """The key in params.yaml."""
    about: str | None
    """The slice that it looks at; None where it is all held-out rows."""
    passed: bool
    """Whether the challenger passes."""
    value: float | None
    """What was measured."""
    threshold: float | None
    """What the value, or an end of its interval, is held against."""
    interval_95: Interval | None
    """Of the value."""
    wanted: str
    """What the gate asks for, for a person to read."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ShownTraining(Record):
    """What a page shows of a training that has come to its gates."""

    name: str
    """The run's name."""
    as_of: date
    """The date up to which data was known."""
    decided_at: datetime
    """The time of the verdict, UTC."""
    decision: str
    """Of the verdict: promoted, rejected, ..."""
    line: str
    """The verdict in a sentence."""
    metric: str | None = None
    """The gates' metric."""
    value: float | None = None
    """The challenger's, on held-out rows."""
    interval_95: Interval | None = None
    """Of the value."""
    baseline: float | None = None
    """The baseline's, on the same rows."""
    rows: int | None = None
    """Held-out rows."""
    compared_with: str | None = None
    """The version of the champion that it was compared with."""
    lead: float | None = None
    """How much better than that champion it is."""
    gates: tuple[ShownGate, ...] = ()
    """Every gate that was looked at."""
    airflow_run: str | None = None
    """Airflow's name of the run; None outside of Airflow."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ShownVersion(Record):
    """What a page shows of a version of the model."""

    version: str
    """Such as v2.0.0."""
    trained_until: date | None
    """The date up to which it has learnt; None where its commit does not say it."""
    experiment: str | None
    """The run that made it; None where the origin lists it no more."""
    state: str
    """champion, earlier champion, withdrawn, banned or never champion."""
    decided_on: str | None = None
    """The day of the last decision about it, YYYY-MM-DD."""
    person: str | None = None
    """Who decided."""
    reason: str | None = None
    """On what grounds."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Status(Record):
    """All that a page shows of a product, newest last."""

    format: int = 1
    """The version of this record."""
    product: str
    """The product's name."""
    nights: tuple[ShownNight, ...] = ()
    """Of the last quarter, by date."""
    trainings: tuple[ShownTraining, ...] = ()
    """In the order of their verdicts."""
    versions: tuple[ShownVersion, ...] = ()
    """By their number."""
    held: str = ""
    """Who holds the champion, why, and what ends that; empty where nobody does."""

    @property
    def champion(self) -> ShownVersion | None:
        """Return the version that predicts now; None where none does."""
        return next((each for each in reversed(self.versions) if each.state == "champion"), None)


def read_status(store: Store, product: str) -> Status | None:
    """Return a product's status; None where nothing has been written yet.

    Raises UserError where it is damaged, TransientError where the store does not answer.
    """
    status, _ = read_checked(store, key_of_status(product), Status)
    return status


def key_of_status(product: str) -> str:
    """Return the key of a product's status."""
    return f"{product}/{STATUS}"
