"""The records of a simulation: what it was asked for, what each of its steps came to, and what a picture shows."""

from collections.abc import Mapping
from datetime import date
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.runtime.records import RECORD, Record

Kind = Literal["feed", "labels", "poison", "shift", "cut"]
"""feed: no row comes. labels: no label comes. poison: labels that a training reads are shuffled. shift: a column is
in another unit. cut: nothing that becomes known after the last day is there at all, to prove that there is no leak."""
State = Literal[
    "published", "stopped", "promoted", "rejected", "champion already", "withdrawn", "held", "needs approval"
]
"""What a step came to: of a night one of the first two, of a retrain any but `published`."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Fault(Record):
    """What is wrong with the source, and when."""

    kind: Kind
    """What happens."""
    first: date
    """The first as_of on which the source is wrong."""
    last: date
    """The last one; from the next day on the source delivers all that it should have."""
    column: str | None = None
    """The column that is in another unit; None unless the kind is shift."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Step(Record):
    """One thing that the schedules ask for."""

    kind: Literal["retrain", "night"]
    """Whether a model is trained, or a night made."""
    as_of: date
    """Of which date."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Plan(Record):
    """What a simulation does: decided once, so that one that goes on is the same."""

    product: str
    """The product's name."""
    first: date
    """The as_of of the first night."""
    last: date
    """The as_of of the last night."""
    revision: str
    """The commit of the origin whose code and params.yaml are simulated."""
    steps: tuple[Step, ...]
    """All steps in the order in which they are due; the first is the training of the first champion."""
    fault: Fault | None = None
    """What is wrong with the source; None where it delivers what it has."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Outcome(Record):
    """What a step came to."""

    kind: Literal["retrain", "night"]
    """As in the step."""
    as_of: date
    """As in the step."""
    state: State
    """What it came to."""
    seconds: float
    """How long it took, the last try alone where it was killed before."""
    reason: str = ""
    """Why a night was stopped, or what it said of a rollback; what the gates said of a model."""
    decay: str = ""
    """Why a night asks for a training out of turn, since labels show that the champion has become worse."""
    commit: str | None = None
    """Of a retrain the commit of its experiment; of a night that of the model that scored it."""
    scored_day: date | None = None
    """Of a night: the day whose rows were scored."""
    rows: int = 0
    """Of a night: its predictions."""
    quarantined: int = 0
    """Of a night: rows that no model may see."""
    parts: tuple[str, ...] = ()
    """Of a night: the SHA-256 of its parts."""
    champion: str | None = None
    """The version that is the champion after the step."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Replay(Record):
    """What a finished or unfinished simulation has come to: all that the table and the picture need."""

    plan: Plan
    """What was asked for."""
    metric: str
    """The metric of the product's gates."""
    lower_is_better: bool
    """Whether less of it is better."""
    outcomes: tuple[Outcome, ...]
    """One for each step that has been done, in order."""
    published: Mapping[str, float] = Field(default_factory=dict)
    """The metric of each published night by its as_of, by the labels that came until the end."""
    models: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)
    """By the as_of of each training: what its model would have reached, by the as_of of the night."""
    baselines: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)
    """The same of the baseline that was fitted to the same rows."""
    processor: str = ""
    """The processor that it ran on, for the times."""

    def of_kind(self, kind: str) -> list[Outcome]:
        """Return the outcomes of the nights, or of the retrains."""
        return [each for each in self.outcomes if each.kind == kind]
