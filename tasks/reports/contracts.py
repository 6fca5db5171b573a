"""The records of a product's trainings: one for each run, in an object for each year beside the nights.

    <url>/<product>/_trainings/2013.json               {"trainings": {"<run>": {...}, ...}}
    <url>/<product>/_reports/2013-06-30-6862ea31.html   the page of each

The object carries its checksum and is replaced by conditional PUTs, as the manifests are. A training whose model is not
promoted is on record too: the files of its run may be removed one day. Report, `make runs` and the page of the products
show this one record; the page a part of it, `tasks.monitoring.status.ShownTraining`.
"""

from collections.abc import Mapping
from datetime import date, datetime

from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.runs.gates.verdict import Verdict
from tasks.runtime.records import RECORD, Record


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Training(Record):
    """A training: what it learnt from, how its model did, and what was decided."""

    run: str
    """The experiment's name."""
    as_of: date
    """The date up to which data was known."""
    revision: str
    """The commit of the code and the settings."""
    verdict: Verdict
    """What promote decided, gate by gate."""
    version: str | None = None
    """The registry's version of the model; null where it has none."""
    champion: str | None = None
    """The version that it was compared with; null without one."""
    metric: str
    """The metric of the product's gates."""
    value: float | None
    """On all held-out rows; null where they do not define it."""
    interval_95: tuple[float, float] | None
    """Of the value."""
    baseline: float | None
    """The baseline's, on the same rows."""
    rows: Mapping[str, int]
    """Rows by part of the split: train, val, test."""
    days: Mapping[str, tuple[str, str]]
    """First and last day by part; none of an empty one."""
    parts: Mapping[str, float] = Field(default_factory=dict)
    """Weights of the parts of the blend; none where there is one alone."""
    decided_at: datetime | None = None
    """The time of the verdict, UTC; null of a training that an older version put on record."""
    airflow_run: str | None = None
    """Airflow's name of the run; null outside of Airflow."""
    seconds: float | None = None
    """What its stages took; null where they ran on several machines, or were reused."""
    report: str | None = None
    """The address of its page; null where it could not be made."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Trainings(Record):
    """The trainings of one year of as_of, by run."""

    format: int = 1
    """The version of this record."""
    trainings: Mapping[str, Training] = Field(default_factory=dict)
