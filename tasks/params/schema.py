"""What a product is, as frozen dataclasses whose types are their rules and whose field texts are the reference.

Rules between the parts of a product are in `tasks.params.rules`, defaults that depend on other keys in
`tasks.params.defaults`.
"""

import difflib
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from pydantic.json_schema import SkipJsonSchema

from model.features.kinds import CATEGORY, KINDS, NUMBER, TIME
from model.settings import STRICT
from tasks.params.answers.horizons import FOR_DAY, HORIZON, HORIZON_COLUMNS
from tasks.params.answers.predict import Predict
from tasks.params.expectations import Expectation
from tasks.params.fields import OneOf, TimeZone
from tasks.params.gates import BehaviourTest, Gates
from tasks.params.nights import Monitor, Publish
from tasks.params.sections import DriftLimits, Model, Retention, Schedule, Split, Target
from tasks.params.slices import checked_slices, columns_of_slices
from tasks.params.source import EventList, Source
from tasks.runtime.errors import UserError

PARAMS_FILE = Path("params.yaml")
ROW_ID = "row_id"
"""The column that names the rows of a product without a key."""
ARRIVED = "arrived"
"""The column with the as_of on which a row was first seen, of a product without a time."""
RAW_ROW = "raw_row"
"""The column by which `tasks.rows.corrections` names a row."""


@dataclass(frozen=True, kw_only=True, config={**STRICT, "validate_by_name": True})
class Product:
    """One entry under `products:`."""

    description: str
    """One sentence: what is predicted. Shown in the Airflow UI. Default: made from the product's name."""
    source: Annotated[Source, Field(examples=[{"kind": "csv", "url": "data.csv"}])]
    """Where the rows come from."""
    declared_key: tuple[str, ...] | None = Field(None, alias="key")
    """Columns that together name a row. Without a key a row is named by the hash of its cells and, among equal rows,
    its number, in a column `row_id`. That costs: a row that changes is another row, and the label or correction of the
    one before is not its own; where other columns are declared every row is another one."""
    declared_time: str | None = Field(None, alias="time")
    """The event date: decides the dt= partition. Without it a row's date is the as_of on which it was first seen, in a
    column `arrived`. That costs: no split by time, no horizon, and what was there on the first day counts as new."""
    time_zone: Annotated[TimeZone, Field(examples=["Europe/Berlin"])] = "UTC"
    """The product's time zone, in which its day begins: schedules are read in it, and a run that is given no as_of is
    of the last day that has ended in it. A time of the source with an offset, or counted since 1970, is read as what
    its clocks show, so that a row belongs to the day that it had there; a time without one is such a time already. A
    name of the IANA database."""
    columns: Annotated[
        dict[str, Annotated[str, OneOf(tuple(KINDS))]], Field(examples=[{"weight_kg": "number", "depot": "category"}])
    ]
    """The model's inputs, each a category, number, time, image (PNG, JPEG or WebP, as bytes or base64), events (a list
    of what happened before, such as purchases), text or context (a number that many rows share, such as the weather of
    a day: read by a line of its own beside the encoder); nothing else reaches the model."""
    events: dict[str, EventList] = Field(default_factory=dict)
    """What the events of each column of kind events are. `columns: {history: {kind: events, fields: {amount: number},
    max_events: 32}}` means the same; with `from: purchases, by: customer_id` they come from one of `sources`."""
    sources: dict[str, Annotated[Source, Field(examples=[{"kind": "csv", "url": "purchases.csv"}])]] = Field(
        default_factory=dict
    )
    """Other sources by name, whose rows are events of the rows above. Each is read whole every night, and held in
    memory; what its columns are called and how they are written is said there, as under `source`."""
    target: Annotated[Target, Field(examples=[{"name": "late", "task": "binary"}])]
    """What is predicted."""
    predict: Predict = Field(default_factory=Predict)
    """Which rows a night scores."""
    expectations: tuple[Expectation, ...] = ()
    """What must hold of the rows."""
    drift: DriftLimits = Field(default_factory=DriftLimits)
    """How far a day may differ from those before it."""
    pii: dict[str, Literal["drop", "hash", "salted", "redact"]] = Field(default_factory=dict)
    """Columns with personal data: drop, hash or redact, before anything is stored (`tasks.rows.personal_data`). salted
    is a hash whose salt, one for each value, can be deleted: `make forget`."""
    split: Split
    """How labelled rows are parted. Default: by time where there is a time, else by hash."""
    model: Model = Field(default_factory=Model)
    """The network and its trainings."""
    slices: Annotated[
        dict[str, str],
        AfterValidator(checked_slices),
        Field(examples=[{"by_depot": "depot", "heavy": "weight_kg > 20"}]),
    ] = Field(default_factory=dict)
    """Parts of the rows on which a model is measured by itself, by name: `by_depot: depot` is a slice for each of the
    column's 20 most frequent values, `heavy: "weight_kg > 20"` one for the rows of which that is true and one for the
    others. A column that is no input is read from the source and stored for this alone."""
    gates: Gates
    """What a challenger must show."""
    behaviour: tuple[BehaviourTest, ...] = ()
    """What a change of a row must do to its prediction; a challenger that does otherwise is stopped."""
    schedule: Schedule = Field(default_factory=Schedule)
    """When the DAGs run; by default by hand only."""
    publish: Publish = Field(default_factory=Publish)
    """Where the nights go."""
    monitor: Monitor = Field(default_factory=Monitor)
    """What follows from published nights."""
    retention: Retention = Field(default_factory=Retention)
    """How long `make gc` keeps runs and their data."""
    name: SkipJsonSchema[str] = ""
    """The entry's key in params.yaml."""

    @property
    def key(self) -> tuple[str, ...]:
        """Return the columns that together name a row: those declared, or the one that `tasks.ingest` adds."""
        return self.declared_key or (ROW_ID,)

    @property
    def time(self) -> str:
        """Return the column with a row's date: the one declared, or the one that `tasks.ingest` adds."""
        return self.declared_time or ARRIVED

    @property
    def has_key(self) -> bool:
        """Return whether the source names its rows."""
        return self.declared_key is not None

    @property
    def has_time(self) -> bool:
        """Return whether the source dates its rows."""
        return self.declared_time is not None

    @property
    def slice_columns(self) -> dict[str, str]:
        """Return the columns that nothing but `slices` names, with their kinds."""
        declared = {*self.key, self.time, *self.columns, *(HORIZON_COLUMNS if self.predict.horizons else ())}
        return {name: kind for name, kind in columns_of_slices(self.slices).items() if name not in declared}

    @property
    def stored_columns(self) -> list[str]:
        """Return key, time, inputs and what slices name besides, each once: what a row is stored with."""
        return list(dict.fromkeys([*self.key, self.time, *self.columns, *self.slice_columns]))

    @property
    def inputs(self) -> dict[str, str]:
        """Return what a model reads, with its kinds: the declared columns, and with several horizons these."""
        return {**self.columns, HORIZON: NUMBER, FOR_DAY: TIME} if self.predict.horizons else self.columns

    @property
    def joined_columns(self) -> dict[str, EventList]:
        """Return the columns that other sources make."""
        return {name: each for name, each in self.events.items() if each.source is not None}

    @property
    def kinds(self) -> dict[str, str]:
        """Return the kind of each column of a row: a key is a category, where nothing else is declared of it."""
        return {**dict.fromkeys(self.key, CATEGORY), self.time: TIME, **self.columns, **self.slice_columns}

    @property
    def labels_wait_days(self) -> int:
        """Return how many days after a row's own date the last of its labels should be known."""
        return self.target.delay_days + self.predict.longest_horizon

    @property
    def last_as_of(self) -> date | None:
        """Return the last as_of whose night has rows, of a product whose source ends; else None."""
        return self.source.ends and self.source.ends - timedelta(days=self.predict.lead_days)

    def events_end_days(self, listed: EventList) -> int:
        """Return how many days before a row's date its events end: where they hold labels these are known later."""
        waits_days = self.target.delay_days if self.target.name in listed.fields else 0
        return self.predict.lead_days + waits_days

    def scored_day(self, as_of: date) -> date:
        """Return the day whose rows the night of `as_of` scores."""
        return as_of + timedelta(days=self.predict.lead_days)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Params:
    """Everything that Lamplighter does."""

    as_of: date
    """The date up to which data is known, inclusive, written as "YYYY-MM-DD": the only clock the stages have."""
    products: dict[str, Product]
    """The products by name."""

    def product(self, name: str) -> Product:
        """Return the product called `name`. Raises UserError with the names there are."""
        if name not in self.products:
            near = difflib.get_close_matches(name, self.products, 1)
            hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(self.products)}"
            raise UserError(f"{PARAMS_FILE}: no product is called {name!r}; {hint}")
        return self.products[name]
