"""Keep one small object per product from which a page shows it: its last nights, its trainings, its versions.

    <url>/<product>/_status.json

It is derived: nights and trainings from their records, versions from the registry. So a page needs neither git nor a
history, and one that lies damaged is written anew.
The object carries its checksum and is replaced by conditional PUTs, as the manifests are: `tasks.monitoring.showing`.
Decides nothing.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time

from pydantic.dataclasses import dataclass

from tasks.monitoring.contracts import NightRecord
from tasks.monitoring.gate import Gate
from tasks.publication.manifests import read_checked
from tasks.publication.object_store import Store
from tasks.runtime.records import RECORD, Record

STATUS = "_status.json"
LEAD = "max_behind_champion"
"""The gate on the lead over the champion."""
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ShownVerdict(Record):
    """What a page shows of a verdict."""

    decision: str
    """promoted, rejected, ..."""
    line: str
    """The verdict in a sentence."""
    gates: tuple[Gate, ...] = ()
    """Every gate that was looked at."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ShownTraining(Record):
    """What a page or a list shows of a training: its record, `tasks.reports.contracts.Training`, is read as this one.

    The record itself holds what was measured, whose types need the libraries of models.
    """

    run: str
    """The experiment's name."""
    as_of: date
    """The date up to which data was known."""
    decided_at: datetime | None = None
    """The time of the verdict, UTC; None of a training that an older version put on record."""
    verdict: ShownVerdict
    """What promote decided."""
    version: str | None = None
    """The registry's version of the model; None where it has none."""
    champion: str | None = None
    """The version that it was compared with; None without one."""
    metric: str
    """The gates' metric."""
    value: float | None
    """On all held-out rows."""
    interval_95: Interval | None
    """Of the value."""
    baseline: float | None
    """The baseline's, on the same rows."""
    rows: Mapping[str, int]
    """Rows by part of the split: train, val, test."""
    seconds: float | None = None
    """What its stages took."""
    report: str | None = None
    """The address of its page; None where it could not be made."""
    airflow_run: str | None = None
    """Airflow's name of the run; None outside of Airflow."""

    @property
    def page(self) -> str:
        """Return the name of its report."""
        return page_name(self.run, self.as_of)

    @property
    def lead(self) -> Gate | None:
        """Return the gate on the lead over the champion; None where it was compared with none."""
        return next((gate for gate in self.verdict.gates if gate.name == LEAD), None)

    @property
    def decided(self) -> datetime:
        """Return the time of the verdict, or the end of its as_of, by which trainings are put in order."""
        return self.decided_at or datetime.combine(self.as_of, time.max, UTC)


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
class LostMessage(Record):
    """A message that nobody is known to have had, and that is not sent again."""

    subject: str
    """What it was about, in one line."""
    tried: datetime
    """When it was last tried, UTC."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Status(Record):
    """All that a page shows of a product, newest last."""

    format: int = 1
    """The version of this record."""
    product: str
    """The product's name."""
    nights: tuple[NightRecord, ...] = ()
    """Of the last quarter, by date, withdrawn ones too; their columns are left out, and of all but the last one the
    models that scored beside the champion."""
    trainings: tuple[ShownTraining, ...] = ()
    """In the order of their verdicts."""
    versions: tuple[ShownVersion, ...] = ()
    """By their number."""
    held: str = ""
    """Who holds the champion, why, and what ends that; empty where nobody does."""
    lost: tuple[LostMessage, ...] = ()
    """Messages that may not have arrived, as the watcher saw them last; a page shows those of the last day."""

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


def page_name(run: str, as_of: date) -> str:
    """Return the name of the report of a training.

    >>> page_name("flight-delays-2013-06-30-train-6862ea31", date(2013, 6, 30))
    '2013-06-30-6862ea31.html'
    """
    return f"{as_of.isoformat()}-{run.rpartition('-')[2]}.html"


def key_of_status(product: str) -> str:
    """Return the key of a product's status."""
    return f"{product}/{STATUS}"
