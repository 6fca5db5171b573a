"""Define the records that publication is made of: night.json, the manifest, and what lies beside it in the store.

Their keys and the order of the keys are format 1, which readers elsewhere rely on: docs/manifest.schema.json describes
the manifest to them, written from these classes by `python -m tasks.commands manifest-schema`.
"""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.runtime.records import RECORD, Record, adapter

FORMAT = 1
MIRROR = "_champion.json"
SCHEMA_FILE = Path("docs") / "manifest.schema.json"
SCHEMA_URI = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Part(Record):
    """One part file of a night."""

    name: str
    """Its file name, such as part-00000.parquet."""
    rows: int
    """Its predictions."""
    bytes: int
    """Its size."""
    sha256: str
    """The SHA-256 of its content, in hex."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class PublishedPart(Part):
    """A part file in the store."""

    key: str
    """Its key within the bucket."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Rows(Record):
    """The rows of the scored day: rows in = published + quarantined + erased, where each row is predicted once."""

    rows_in: int = Field(validation_alias="in", serialization_alias="in")
    """Rows that arrived."""
    published: int
    """Predictions."""
    quarantined: int
    """Rows that failed validation and have none."""
    erased: int = Field(default=0, exclude_if=lambda n_rows: n_rows == 0)
    """Rows that were taken out after they were published or quarantined, as a person asked for; absent where none
    were."""
    horizons: int = Field(1, exclude_if=lambda n: n == 1)
    """Predictions that each row has, one for every horizon; absent where it is one."""

    @property
    def add_up(self) -> bool:
        """Return whether every row is published, for every horizon, quarantined or erased."""
        lacking = (self.rows_in - self.quarantined) * self.horizons - self.published
        return self.erased <= lacking <= self.erased * self.horizons


@dataclass(frozen=True, kw_only=True, config=RECORD)
class SchemaField(Record):
    """A column of the parts."""

    name: str
    """The column's name."""
    type: str
    """Its Arrow type."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ModelHash(Record):
    """The model that scored, as the stage `predict` knows it."""

    sha256: str
    """The SHA-256 of the exported model's folder."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ModelRef(ModelHash):
    """The model that scored, as the registry knows it; all but the hash is null for a night published by hand."""

    version: str | None
    """Its version, such as v2.0.0."""
    commit: str | None
    """The commit of the experiment that made it."""
    approval: str | None = None
    """The lines of the registry that say who let it predict, when and on what grounds."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class RecordedEngine(Record):
    """The engine that scored; re-creation uses the same one."""

    engine: str
    """onnxruntime or openvino."""
    version: str
    """The engine's version."""
    provider: str
    """The engine's name for the kind of processor."""
    precision: str
    """fp32, bf16, int8 or fp16."""
    processor: str
    """The processor's name."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class RecordedText(Record):
    """How texts were written: `predict.text` of the product."""

    max_tokens: int
    """Subwords of a text at most."""
    temperature: float
    """0 where the likeliest subword was always next."""
    seed: int
    """Which draws were made."""
    stop: tuple[str, ...]
    """Words or signs that ended a text."""
    min_tokens: int = 0
    """Subwords of a text at least."""
    pattern: str | None = None
    """The regular expression that every text matches, if one was declared."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class NightInputs(Record):
    """All that decides the bytes of a night; its hash is the night's `run`."""

    product: str
    """The product's name."""
    as_of: date
    """The date up to which data was known, inclusive."""
    scored_day: date
    """The day whose rows are scored."""
    shards: int
    """The number of part files."""
    threshold: float | Mapping[str, float]
    """The probability from which on a label is predicted; where it was measured for each label, by its name."""
    costs: Mapping[str, float | Mapping[str, float]] | None = Field(None, exclude_if=lambda costs: costs is None)
    """What an error costs, by true and predicted class, where the class of least expected cost is predicted; else it is
    absent."""
    explain: int = Field(0, exclude_if=lambda n_reasons: n_reasons == 0)
    """How many reasons each row has; absent where it has none."""
    horizon_days: tuple[int, ...] = Field((), exclude_if=lambda horizons: not horizons)
    """For how many days ahead each row is predicted; absent where it is predicted once, for its own day."""
    text: RecordedText | None = Field(None, exclude_if=lambda text: text is None)
    """How texts are written; absent where none are."""
    rows_sha256: str | None
    """The SHA-256 of the file of valid rows; null where the day has none."""
    model_sha256: str
    """The SHA-256 of the exported model's folder."""
    engine: RecordedEngine
    """The engine and the processor that score."""
    code_sha256: str
    """The SHA-256 of the code that scores."""
    environment_sha256: str
    """The SHA-256 of constraints.txt, which pins every package."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ScoredPart(Part):
    """A part as the task that scored it hands it on, with the inputs that all parts of a night must share."""

    run: str
    """The hash of the inputs."""
    inputs: NightInputs
    """All that decided the part's bytes."""

    def __str__(self) -> str:
        return f"{self.rows:,} rows scored in {self.name}"


@dataclass(frozen=True, kw_only=True, config=RECORD)
class UploadedPart(ScoredPart):
    """A scored part and its place in the store."""

    key: str
    """Its key, relative to the product's `publish.url`."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Night(Record):
    """night.json: a scored night on disk, beside its parts."""

    run: str
    """The hash of the inputs: the same inputs make the same night."""
    as_of: date
    """The date up to which data was known, inclusive."""
    scored_day: date
    """The day whose rows are scored."""
    rows: Rows
    """The rows of the scored day."""
    accepted: str | None
    """The reason for which a person let the day pass although it differs from the days before, or let its history be
    fetched anew because it was lost."""
    held: tuple[date, ...] = ()
    """Earlier days that differ in kind and that no person has accepted: nothing was made of their rows."""
    schema: tuple[SchemaField, ...]
    """The columns of every part."""
    parts: tuple[Part, ...]
    """The part files."""
    model: ModelHash
    """The model that scored."""
    inputs: NightInputs
    """All that decided the night's bytes."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class NightFile(Record):
    """The night file: all predictions of a night in one Parquet file, for readers that go by a glob."""

    key: str
    """Its key within the bucket."""
    version: str
    """The run and the generation that wrote it; the file and its metadata in the store name them too."""
    rows: int
    """Its predictions: those of all parts; none where the night was withdrawn."""
    bytes: int
    """Its size."""
    sha256: str
    """The SHA-256 of its content, in hex."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Withdrawal(Record):
    """A person's decision that a published night must not be used."""

    person: str
    """Who decided."""
    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Manifest(Record):
    """The commit point of a night: the one object from which a reader knows a complete night."""

    format: int
    """The version of this record: 1."""
    product: str
    """The product's name."""
    dt: date
    """The night's date: its as_of."""
    run: str
    """The hash of the inputs."""
    as_of: date
    """The date up to which data was known, inclusive."""
    scored_day: date
    """The day whose rows are scored."""
    rows: Rows
    """The rows of the scored day."""
    accepted: str | None
    """The reason for which a person let the day pass although it differs from the days before, or let its history be
    fetched anew because it was lost."""
    held: tuple[date, ...] = ()
    """Earlier days that differ in kind and that no person has accepted: nothing was made of their rows."""
    schema: tuple[SchemaField, ...]
    """The columns of every part."""
    parts: tuple[PublishedPart, ...]
    """The part files in the store."""
    file: NightFile | None = None
    """The night file; null in a manifest of before there was one."""
    model: ModelRef
    """The model that scored."""
    inputs: NightInputs
    """All that decided the night's bytes."""
    generation: int
    """The fencing token of the run that published: a manifest gives way to higher ones only."""
    supersedes: str | None
    """The `run` of the night that this one replaced."""
    experiment: str | None
    """The name of the run's experiment; null for a night published by hand."""
    experiment_commit: str | None
    """The experiment's commit when the night was published."""
    git_revision: str
    """The commit of the code that published."""
    writer: str
    """A random name of the process that wrote the manifest."""
    withdrawn: Withdrawal | None = None
    """A person's decision that the night must not be used; null otherwise."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Claims(Record):
    """The generations of one night that were given out."""

    last: int = 0
    """The highest one."""
    open: Mapping[str, str] = Field(default_factory=dict)
    """The generations whose runs may still publish, each with its run's name."""

    def generations(self) -> list[int]:
        """Return the open generations."""
        return [int(each) for each in self.open]


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Pointer(Record):
    """_latest.json: the newest night of a product."""

    format: int
    """The version of this record: 1."""
    product: str
    """The product's name."""
    dt: date
    """The newest night's date."""
    manifest: str
    """The address of its manifest."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ChampionMirror(Record):
    """_champion.json: the model that predicts now, for readers without git; all null where none does."""

    product: str
    """The product's name."""
    version: str | None
    """The model's version."""
    commit: str | None
    """The commit of the experiment that made it."""
    experiment: str | None
    """The name of that experiment; null where the origin lists it no more."""


def manifest_schema() -> dict[str, object]:
    """Return the JSON Schema of the manifest as it lies in the store, its checksum included."""
    described = adapter(Manifest).json_schema(by_alias=True)
    for record, base in ((PublishedPart, Part), (ModelRef, ModelHash)):  # pydantic describes no inherited field
        described["$defs"][record.__name__]["properties"] |= adapter(base).json_schema()["properties"]
    seal = {"description": "The SHA-256 of all the rest, in hex.", "title": "Seal", "type": "string"}
    return {
        "$schema": SCHEMA_URI,
        **described,
        "properties": {**described["properties"], "seal": seal},
        "required": [*described["required"], "seal"],
    }


def schema_text() -> str:
    """Return the text of the file that publishes the schema."""
    return json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"
