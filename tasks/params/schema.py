"""The only reader of `params.yaml`: what a product is, as frozen dataclasses that check themselves.

`load()` reports every mistake of the file at once, each with rule, value, place and remedy. It imports
neither pandas nor torch nor Great Expectations, because Airflow calls it at every parse.

Run `python -m tasks.params` to check the file.
"""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import importlib.util
import json
import math
import re
import types
import typing
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml

from model.heads import LOWER_IS_BETTER as LOWER_IS_BETTER
from model.heads import METRICS, TASKS, head_of
from model.settings import COLUMN_KINDS, PRESETS, NetworkSettings, PretrainingSettings, TrainingSettings
from tasks.runtime.errors import UserError

PARAMS_FILE = Path("params.yaml")
SOURCE_KINDS = ("csv", "parquet", "jsonl", "sql", "python")
SEVERITIES = ("critical", "warning", "info")
MEASURED = "measured"
ENGINES = (
    MEASURED,
    "onnxruntime-fp32",
    "onnxruntime-fp16",
    "onnxruntime-int8",
    "openvino-fp32",
    "openvino-bf16",
    "openvino-int8",
)
APPROVALS = ("none", "human")
MAX_SHARDS = 64
PII_WAYS = ("drop", "hash", "redact")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}[a-z0-9]")
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PASSWORD = {
    False: re.compile(r"://[^/@:]*:[^/@]+@"),
    # SQLAlchemy reads a password up to the @, whatever is in it, and drivers take one after the question mark.
    True: re.compile(r"://[^/@:]*:[^@]+@|[?&](password|passwd|pwd)=", re.IGNORECASE),
}
_PREDICTED = re.compile(r"prediction$|probability($|_)")
UNREADABLE_COLUMNS = ("unreadable", "unreadable_line", "unreadable_text")
"""What `tasks.sources.fetch` adds to rows that it cannot read: what is wrong, on which line, and its text."""
RAW_ROW = "raw_row"
"""What `tasks.rows.corrections` calls a row by."""
ROW_ID = "row_id"
"""The column that names the rows of a product without a key."""
ARRIVED = "arrived"
"""The column with the as_of on which a row was first seen, of a product without a time."""
_OURS = ("dt", "reasons", RAW_ROW, *UNREADABLE_COLUMNS)
"""Columns that the stages add to a product's own."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a product's rows come from; `tasks.ingest` says what is fetched when."""

    kind: str
    """csv, parquet, jsonl, sql or python."""
    url: str | None = None
    """A path, an s3:// or http(s):// address (files), or a SQLAlchemy URL without a password (sql)."""
    url_env: str | None = None
    """The environment variable that holds the URL, for one that holds a secret."""
    query: str | None = None
    """For sql: one SELECT; `:as_of` in it is bound to the run's date."""
    callable: str | None = None
    """For python: `package.module:function`, called with (start, end) dates, returning a DataFrame."""
    recheck_days: int = 7
    """For python: how many stored days are fetched once more, to see whether the past has changed."""
    delimiter: str = ","
    """For csv: the character between cells."""
    encoding: str = "utf-8"
    """For csv and jsonl: how text is written as bytes, by a name that Python knows."""
    retake: dict[str, str] = dataclasses.field(default_factory=dict)
    """Dates whose stored rows give way, once, to what the source tells now, each with the reason; `make retake` writes
    them."""

    def __post_init__(self) -> None:
        _complain(
            [
                *_one_of(SOURCE_KINDS, kind=self.kind),
                *self._url_mistakes(),
                *self._sql_mistakes(),
                *self._callable_mistakes(),
                *self._text_mistakes(),
                *_at_least(0, recheck_days=self.recheck_days),
                *_without_reason("retake", self.retake, "say what was wrong with the day, and who you are"),
            ]
        )

    def _text_mistakes(self) -> list[str]:
        mistakes = []
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0':
            mistakes.append(f'delimiter must be one character and no quote, got {self.delimiter!r}; use "," or "\\t"')
        try:
            is_text = codecs.lookup(self.encoding)._is_text_encoding
        except (LookupError, ValueError):
            is_text = False
        if not is_text:
            mistakes.append(f"encoding must be one that Python knows, got {self.encoding!r}; use utf-8 or cp1252")
        return mistakes

    def _url_mistakes(self) -> list[str]:
        if self.kind == "python":
            return [f"url must not be given for kind python, got {self.url!r}; delete it"] if self.url else []
        if self.kind in SOURCE_KINDS and (self.url is None) == (self.url_env is None):
            return [f"url must be given for kind {self.kind}, or url_env in its place; add one of the two"]
        if self.url and _PASSWORD[self.kind == "sql"].search(self.url):
            return [
                "url must not hold a password; put the URL into an environment variable and name it: "
                "url_env: WAREHOUSE_URL"
            ]
        return []

    def _sql_mistakes(self) -> list[str]:
        if (self.kind == "sql") != (self.query is not None):
            return [
                f"query must be given for kind sql and for no other, got kind={self.kind!r}, query={self.query!r}; "
                "add or delete it"
            ]
        return []

    def _callable_mistakes(self) -> list[str]:
        if (self.kind == "python") != (self.callable is not None):
            return [
                f"callable must be given for kind python and for no other, got kind={self.kind!r}, "
                f"callable={self.callable!r}; add or delete it"
            ]
        if self.callable is None:
            return []
        module, _, function = self.callable.partition(":")
        if not function or not _module_exists(module):
            return [
                f"callable must name an importable module and a function, got {self.callable!r}; "
                "use package.module:function"
            ]
        return []


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is predicted, and when its truth is known."""

    name: str
    """The column of the source that holds the truth; empty where it is not known yet."""
    task: str
    """binary, multiclass, multilabel (labels joined by `|`, or a list) or regression."""
    delay_days: int = 0
    """The truth about a row of day D is known on day D + delay_days."""

    def __post_init__(self) -> None:
        _complain([*_one_of(TASKS, task=self.task), *_at_least(0, delay_days=self.delay_days)])


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Which rows a night scores, and in how many pieces."""

    horizon_days: int = 0
    """A night of as_of scores the rows of day as_of + horizon_days; rows of day D are known horizon_days before."""
    shards: int = 8
    """Part files of a night; each is scored by a task of its own."""
    threshold: float = 0.5
    """binary, multilabel: the probability from which on a class is predicted."""

    def __post_init__(self) -> None:
        too_many = [f"shards must be at most {MAX_SHARDS}, got {self.shards}; use fewer, larger parts"]
        _complain(
            [
                *_at_least(0, horizon_days=self.horizon_days),
                *_at_least(1, shards=self.shards),
                *too_many * (self.shards > MAX_SHARDS),
                *[f"threshold must lie between 0 and 1, got {self.threshold}; use for example 0.5"]
                * (not 0 < self.threshold < 1),
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One expectation in the vocabulary of Great Expectations."""

    type: str
    """Its name in snake case, such as expect_column_values_to_be_between."""
    kwargs: dict[str, Any]
    """Its arguments, such as column, min_value and mostly."""
    severity: str = "critical"
    """critical: a failure stops the run. warning: bad rows go to quarantine. info: reported only."""

    def __post_init__(self) -> None:
        _complain(_one_of(SEVERITIES, severity=self.severity) or self._mistakes_by_schema())

    def _mistakes_by_schema(self) -> list[str]:
        known = _expectation_schemas()
        if self.type not in known:
            near = difflib.get_close_matches(self.type, known, 1)
            return [
                f"type must be an expectation of Great Expectations, got {self.type!r}; "
                f"use {near[0] if near else 'for example expect_column_values_to_be_between'}"
            ]
        import jsonschema

        schema = json.loads(known[self.type].read_text("utf-8"))
        schema["properties"].pop("metadata", None)
        errors = jsonschema.Draft7Validator(schema).iter_errors({**self.kwargs, "severity": self.severity})
        return [f"kwargs must fit {self.type}, got {self.kwargs!r}; {error.message}" for error in errors]


@dataclass(frozen=True, kw_only=True)
class Day:
    """How far a day may differ in kind from the 28 days before it until a person accepts it (`tasks.quality.drift`)."""

    max_volume_ratio: float = 3.0
    """Its rows: at most so many times the most, and at least one so-manieth of the least, of those days."""
    max_share_change: float = 0.2
    """The share of a column that is missing, and of rows in quarantine: so far beyond those days' own."""
    max_shift: float = 0.25
    """Population stability index of a category against those days together: so far beyond their own."""
    accepted: dict[str, str] = dataclasses.field(default_factory=dict)
    """Dates that pass all the same, each with the reason; `make accept` writes them."""

    def __post_init__(self) -> None:
        mistakes = []
        if not 1 <= self.max_volume_ratio < math.inf:
            mistakes.append(f"max_volume_ratio must be 1 or more, got {self.max_volume_ratio}; use for example 3")
        for name in ("max_share_change", "max_shift"):
            if not 0 <= getattr(self, name) < math.inf:
                mistakes.append(f"{name} must be 0 or more, got {getattr(self, name)}; use for example 0.25")
        mistakes += _without_reason("accepted", self.accepted, "say why the day is right, and who you are")
        _complain(mistakes)


@dataclass(frozen=True, kw_only=True)
class Split:
    """How labelled rows are parted into train, validation and test."""

    by: str
    """time: the newest days are held out. hash: a share of the groups is held out."""
    test_days: int | None = None
    """time: the last labelled days."""
    val_days: int | None = None
    """time: the days before them."""
    train_days: int | None = None
    """time: the days before those."""
    test_fraction: float | None = None
    """hash: share of the groups held out for the test."""
    val_fraction: float | None = None
    """hash: share of the groups held out for early stopping."""
    start: float = 0.0
    """hash: where on the circle of groups the test begins, from 0 to 1; another start holds out other groups."""
    folds: int = 0
    """Splits on which `evaluate` trains anew, for the metric's mean and interval; 0: none."""
    group: str | None = None
    """Rows with the same value of this column never straddle a split; the key if absent."""

    def __post_init__(self) -> None:
        days, fractions = ("test_days", "val_days", "train_days"), ("test_fraction", "val_fraction")
        needed, foreign = (days, fractions) if self.by == "time" else (fractions, days)
        mistakes = _one_of(("time", "hash"), by=self.by)
        if not mistakes:
            mistakes += [
                f"{name} must be given for by: {self.by}; add it" for name in needed if getattr(self, name) is None
            ]
            mistakes += [
                f"{name} must not be given for by: {self.by}, got {getattr(self, name)}; delete it"
                for name in foreign
                if getattr(self, name) is not None
            ]
            mistakes += _at_least(1, **{name: value for name in days if (value := getattr(self, name)) is not None})
            mistakes += [
                f"{name} must lie between 0 and 0.5, got {value}; use for example 0.1"
                for name in fractions
                if (value := getattr(self, name)) is not None and not 0 < value < 0.5
            ]
            mistakes += [f"start must lie in [0, 1), got {self.start}; use for example 0.5"] * (not 0 <= self.start < 1)
            mistakes += [f"start must not be given for by: time, got {self.start}; delete it"] * bool(
                self.start and self.by == "time"
            )
            mistakes += [f"folds must be 0 or 3 to 20, got {self.folds}; use for example 5"] * (
                self.folds not in (0, *range(3, 21))
            )
        _complain(mistakes)


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network, where its weights start, and its two trainings (see `model.settings`)."""

    preset: str
    """A size: a key of `model.settings.PRESETS`."""
    init: str
    """scratch, pretrain, or BERT-family weights: package:<package>/<folder> or dir:<path>."""
    network: dict[str, Any]
    """Fields of NetworkSettings that differ from the preset; {} for none."""
    pretrain: PretrainingSettings
    """Masked modelling; {} for the defaults. Used by init: pretrain only."""
    train: TrainingSettings
    """Supervised training; {} for the defaults."""
    engine: str = MEASURED
    """What scores: measured when the model is exported, or the one named, such as onnxruntime-fp32."""

    def __post_init__(self) -> None:
        mistakes = _one_of(tuple(PRESETS), preset=self.preset) + _one_of(ENGINES, engine=self.engine)
        if self.init not in ("scratch", "pretrain") and not re.fullmatch(r"(package|dir):.+", self.init):
            mistakes.append(
                "init must be scratch, pretrain, package:<package>/<folder> or dir:<path>, "
                f"got {self.init!r}; use pretrain"
            )
        known = [f.name for f in fields(NetworkSettings)]
        mistakes += _unknown_keys(self.network, known, "network.")
        try:
            self._settings({name: value for name, value in self.network.items() if name in known})
        except ValueError as error:
            mistakes += [f"network.{line}" for line in str(error).splitlines()]
        _complain(mistakes)

    def network_settings(self) -> NetworkSettings:
        """The preset with this product's changes."""
        return self._settings(self.network)

    def _settings(self, changes: dict[str, Any]) -> NetworkSettings:
        preset = PRESETS.get(self.preset, NetworkSettings())
        return NetworkSettings(**{f.name: getattr(preset, f.name) for f in fields(preset)} | changes)


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What a challenger must show on held-out rows before it may predict."""

    metric: str
    """The metric that decides; it is also the one `make run` prints first."""
    limit: float
    """At least this much (at most, for errors and losses)."""
    max_behind_baseline: float
    """How far it may fall behind the baseline."""
    max_behind_champion: float
    """How far it may fall behind the champion, scored on the same rows."""
    approval: str = "none"
    """none: passing the gates is enough. human: someone must approve as well, in Airflow; silence rejects."""

    def __post_init__(self) -> None:
        _complain(
            [
                *_one_of(APPROVALS, approval=self.approval),
                *[
                    f"{f.name} must be a finite number, got {value}; use for example 0.01"
                    for f in fields(self)
                    if isinstance(value := getattr(self, f.name), float) and not math.isfinite(value)
                ],
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When the two DAGs run: cron expressions in UTC, or null for by hand only."""

    retrain: str | None
    """When train__<product> runs."""
    predict: str | None
    """When predict__<product> runs."""

    def __post_init__(self) -> None:
        from croniter import croniter

        given = {f.name: getattr(self, f.name) for f in fields(self)}
        _complain(
            [
                f'{name} must be a cron expression or null, got {value!r}; use for example "0 3 * * 0"'
                for name, value in given.items()
                if value is not None and not croniter.is_valid(value)
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Where the nights go."""

    url: str
    """s3://bucket/prefix."""
    keep_days: int = 30
    """The parts of a night that another one replaced are kept this long, for those who are reading them."""

    def __post_init__(self) -> None:
        mistakes = _at_least(1, keep_days=self.keep_days)
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/[A-Za-z0-9._=/-]*)?", self.url):
            mistakes.append(
                f"url must be s3://bucket/prefix, got {self.url!r}; use for example s3://lamplighter/predictions"
            )
        _complain(mistakes)


@dataclass(frozen=True, kw_only=True)
class Product:
    """One entry under `products:`."""

    description: str
    """One sentence: what is predicted. Shown in the Airflow UI."""
    source: Source
    """Where the rows come from."""
    key: tuple[str, ...]
    """Columns that together name a row."""
    time: str
    """The event date: decides the dt= partition."""
    columns: dict[str, str]
    """The model's inputs, each a category, number, time, text or context (a number that many rows share, such as the
    weather of a day: read by a line of its own beside the encoder); nothing else reaches the model."""
    target: Target
    """What is predicted."""
    predict: Predict
    """Which rows a night scores."""
    expectations: tuple[Expectation, ...]
    """What must hold of the rows."""
    day: Day
    """How far a day may differ from those before it."""
    pii: dict[str, str]
    """Columns with personal data: drop, hash or redact, before anything is stored (`tasks.rows.personal_data`)."""
    split: Split
    """How labelled rows are parted."""
    model: Model
    """The network and its trainings."""
    gates: Gates
    """What a challenger must show."""
    schedule: Schedule
    """When the DAGs run."""
    publish: Publish
    """Where the nights go."""
    name: str = ""
    """The entry's key in params.yaml."""
    has_key: bool = True
    """Whether `key` is declared; without one it is ("row_id",), a column that `tasks.ingest` adds."""
    has_time: bool = True
    """Whether `time` is declared; without it, it is "arrived", a column that `tasks.ingest` adds."""

    def __post_init__(self) -> None:
        _complain(_mistakes_between(vars(self)))

    @property
    def input_columns(self) -> list[str]:
        """Key, time and inputs, each once: what a row is stored with."""
        return list(dict.fromkeys([*self.key, self.time, *self.columns]))

    @property
    def kinds(self) -> dict[str, str]:
        """What each column of a row is: a key is a category, where nothing else is declared of it."""
        return {**dict.fromkeys(self.key, "category"), self.time: "time", **self.columns}

    def scored_day(self, as_of: date) -> date:
        """The day whose rows the night of `as_of` scores."""
        return as_of + timedelta(days=self.predict.horizon_days)


def _mistakes_between(given: dict[str, Any]) -> list[str]:
    """What does not fit together among a product's fields; a field that is wrong by itself is None here."""
    key, time, columns = given["key"] or (), given["time"], given["columns"] or {}
    target, split, gates = given["target"], given["split"], given["gates"]
    known = list(dict.fromkeys([*key, *([time] if time else []), *columns]))
    places = {"key": key, "time": [time], "columns": columns, "target.name": [target.name] if target else []}
    named = [(place, str(name)) for place, names in places.items() for name in names if name is not None]
    mistakes = [
        f"columns.{name} must be one of {', '.join(COLUMN_KINDS)}, got {kind!r}; use category"
        for name, kind in columns.items()
        if kind is not None and kind not in COLUMN_KINDS
    ]
    mistakes += [
        f"{place} must be a name of letters, digits and _, got {name!r}; rename the column"
        for place, name in named
        if not _COLUMN.fullmatch(name)
    ]
    mistakes += [
        f"{place} must not be a name that the stages add themselves, got {name!r}; rename the column"
        for place, name in named
        if name in _OURS
    ]
    mistakes += [
        f"{place} must not be a name of the predictions' own columns, got {name!r}; rename the column"
        for place, name in named
        if place in ("key", "time") and _PREDICTED.match(name)
    ]
    if given["columns"] == {}:
        mistakes.append("columns must name at least one input, got {}; add one")
    if columns and time and columns.get(time, "time") != "time":
        mistakes.append(f"columns.{time} must be time, as it is the rows' own, got {columns[time]}; make it time")
    if columns and set(columns.values()) == {"context"}:
        mistakes.append(
            f"columns must name at least one that is no context, got {', '.join(columns)}; add what tells the rows of "
            "one context apart"
        )
    if given["key"] == ():
        mistakes.append("key must name at least one column, got []; add one")
    mistakes += [
        f"key must name a column once, got {name!r} twice; delete one"
        for name in dict.fromkeys(key)
        if key.count(name) > 1
    ]
    mistakes += _pii_mistakes(given["pii"] or {}, given["key"] or (), time, columns, target)
    if target and target.name in known:
        mistakes.append(
            f"target.name must not be an input, the key or the time, got {target.name!r}; "
            "delete it from columns: the model would be told the answer"
        )
    if split and split.group and known and split.group not in known:
        mistakes.append(
            f"split.group must be a column or part of the key, got {split.group!r}; use one of {', '.join(known)}"
        )
    if None not in (given["key"], time, given["columns"], target):
        mistakes += [
            f"expectations.{i}.kwargs.{argument} must be a declared column, got {column!r}; "
            f"use one of {', '.join(known)}"
            for i, e in enumerate(given["expectations"] or ())
            if e
            for argument, column in columns_named(e.kwargs)
            if column not in [*known, target.name]
        ]
    if target and gates:
        mistakes += [f"gates.{line}" for line in _one_of(METRICS[target.task], metric=gates.metric)]
    predict = given["predict"]
    head = head_of(target.task) if target else None
    if head and predict and predict.threshold != 0.5 and not head.has_threshold:
        mistakes.append(
            f"predict.threshold must not be given for a {head.task} target, got {predict.threshold}; delete it"
        )
    if head and not head.has_probabilities and given["model"] and given["model"].engine == "onnxruntime-fp16":
        mistakes.append(
            f"model.engine must not be onnxruntime-fp16 for a {head.task}, whose numbers it cannot hold; use {MEASURED}"
        )
    train = given["model"].train if given["model"] else None
    undone = train and train.class_weights == "balanced" and train.calibrate
    if undone and head and head.calibrates_offset:
        mistakes.append(
            f"model.train.calibrate must be false with class_weights: balanced for a {head.task} target, since "
            "probabilities fitted to the rows as they come undo the weights, got true; set it to false, or leave "
            "class_weights out and set predict.threshold"
        )
    network = given["model"].network_settings() if given["model"] else None
    n_texts = list(columns.values()).count("text")
    if network and n_texts >= network.max_tokens:
        mistakes.append(
            f"model.network.max_tokens must be above the number of text columns, got {network.max_tokens} for "
            f"{n_texts}; use {16 * n_texts} or more"
        )
    if network and columns and not n_texts:
        mistakes += [
            f"model.network.{name} must be {none} without a text column, got {got}; delete it"
            for name, got, none in (("wide_tokens", network.wide_tokens, 0), ("max_windows", network.max_windows, 1))
            if got != none
        ]
    return mistakes


def _pii_mistakes(
    pii: dict[str, str], key: tuple[str, ...], time: str | None, columns: dict[str, str], target: Target | None
) -> list[str]:
    used = [*key, *columns, *([time] if time else []), *([target.name] if target else [])]
    texts = [
        name for name in [*key, *columns] if columns.get(name, "category") in ("category", "text") and name != time
    ]
    mistakes = []
    for name, how in pii.items():
        if how not in PII_WAYS:
            mistakes += [f"pii.{line}" for line in _one_of(PII_WAYS, **{name: how})]
        elif how == "drop" and name in used:
            mistakes.append(f"pii.{name} must not be a column that is used, got drop; delete it there, or use hash")
        elif how != "drop" and name not in texts:
            mistakes.append(
                f"pii.{name} must be a category or text of key or columns, got {how}; use one of {', '.join(texts)}, "
                "or drop"
            )
    return mistakes


@dataclass(frozen=True, kw_only=True)
class Params:
    """The whole file."""

    as_of: date
    """The date up to which data is known, inclusive: the only clock the stages have."""
    products: dict[str, Product]
    """The products by name."""

    def product(self, name: str) -> Product:
        """The product called `name`. Raises UserError with the names there are."""
        if name not in self.products:
            near = difflib.get_close_matches(name, self.products, 1)
            hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(self.products)}"
            raise UserError(f"{PARAMS_FILE}: no product is called {name!r}; {hint}")
        return self.products[name]


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check the whole file. Raises UserError listing every mistake in it."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path}: the file must exist, and {path.resolve()} does not; run from the repository's root"
        ) from None
    except UnicodeDecodeError as error:
        raise _no_yaml(error, str(path)) from None
    return loads(text, str(path))


def loads(text: str, file: str = str(PARAMS_FILE)) -> Params:
    """As `load`, of a file's text."""
    return parse(raw(text, file), file)


def raw(text: str, file: str = str(PARAMS_FILE)) -> Any:
    """What a params file's text holds, unchecked. Raises UserError where it is no YAML."""
    try:
        return yaml.load(text, _UniqueKeys)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a bare date that no calendar has
        raise _no_yaml(error, file) from None


def parse(content: Any, file: str = str(PARAMS_FILE)) -> Params:
    """Check what a params file holds. Raises UserError listing every mistake in it."""
    mistakes: list[str] = []
    content = content if isinstance(content, dict) else {}
    mistakes += [f"{m}" for m in _unknown_keys(content, ["as_of", "products"], "")]
    as_of = _read_date(content.get("as_of"), mistakes)
    entries = content.get("products")
    if not isinstance(entries, dict) or not entries:
        mistakes.append(f"products must hold at least one product, got {entries!r}; add an entry")
        entries = {}
    products = {}
    for name, entry in entries.items():
        place = f"products.{name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            mistakes.append(
                "products: a name must be 2 to 64 lower-case letters, digits and hyphens, "
                f"starting with a letter, got {name!r}; rename it"
            )
        declared = {"has_key": True, "has_time": True}
        if isinstance(entry, dict):
            declared = {"has_key": "key" in entry, "has_time": "time" in entry}
            entry = {"key": [ROW_ID], "time": ARRIVED, **entry}
        product = _read(Product, entry, place, mistakes, fixed={"name": str(name), **declared})
        if product is not None:
            products[str(name)] = product
    if mistakes:
        raise UserError("\n".join(f"{file}: {mistake}" for mistake in mistakes))
    assert as_of is not None
    return Params(as_of=as_of, products=products)


def parse_date(text: str) -> date:
    """A date written as YYYY-MM-DD and nothing else. Raises ValueError."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise ValueError(f"must be a date written as YYYY-MM-DD, got {text!r}")
    return date.fromisoformat(text)


def _no_yaml(error: Exception, file: str) -> UserError:
    return UserError(f"{file}: must be YAML; {' '.join(str(error).split())}")


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for node_of_key, _ in node.value:
            if node_of_key.tag != "tag:yaml.org,2002:merge":
                key = repr(self.construct_object(node_of_key, deep=True))
                if key in seen:
                    line = node_of_key.start_mark.line + 1
                    raise yaml.YAMLError(f"the key {key} is given twice, the second time on line {line}")
                seen.add(key)
        return super().construct_mapping(node, deep)


def _read_date(value: Any, mistakes: list[str]) -> date | None:
    if isinstance(value, date):
        mistakes.append(f'as_of must be quoted, got a bare {value}; use "{value}"')
        return None
    try:
        return parse_date(value if isinstance(value, str) else repr(value))
    except ValueError:
        mistakes.append(f'as_of must be a date written as YYYY-MM-DD, got {value!r}; use for example "2013-06-30"')
        return None


def _read(cls: type, raw: Any, place: str, mistakes: list[str], fixed: dict[str, Any] | None = None) -> Any:
    """`raw` as a `cls`, or None with what is wrong appended to `mistakes`."""
    if not isinstance(raw, dict):
        mistakes.append(f"{place} must be a mapping, got {raw!r}; write its keys below it")
        return None
    before = len(mistakes)
    hints = typing.get_type_hints(cls)
    known = [f.name for f in fields(cls) if f.name not in (fixed or {})]
    unknown = _unknown_keys(raw, known, f"{place}.")
    values: dict[str, Any] = dict(fixed or {})
    for field in fields(cls):
        if field.name in raw and field.name in known:
            values[field.name] = _convert(hints[field.name], raw[field.name], f"{place}.{field.name}", mistakes)
        elif field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            mistakes.append(f"{place}.{field.name} must be given, and is missing; add it")
    broken = len(mistakes) > before
    mistakes += unknown
    if broken:
        if cls is Product:  # its parts may still contradict each other
            mistakes += [f"{place}.{line}" for line in _mistakes_between(dict.fromkeys(known) | values)]
        return None
    try:
        made = cls(**values)
    except ValueError as error:
        mistakes += [f"{place}.{line}" for line in str(error).splitlines()]
        return None
    return None if unknown else made


def _convert(kind: Any, value: Any, place: str, mistakes: list[str]) -> Any:
    """`value` as the annotated `kind`: a dataclass, tuple[X, ...], dict[str, X], X | None or a plain type."""
    if get_origin(kind) in (Union, types.UnionType):
        return None if value is None else _convert(get_args(kind)[0], value, place, mistakes)
    if is_dataclass(kind) and isinstance(kind, type):
        return _read(kind, value, place, mistakes)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_convert(get_args(kind)[0], item, f"{place}.{i}", mistakes) for i, item in enumerate(value))
    if get_origin(kind) is dict and isinstance(value, dict):
        return {str(key): _convert(get_args(kind)[1], item, f"{place}.{key}", mistakes) for key, item in value.items()}
    if kind is Any or type(value) is kind or (kind is float and type(value) is int):
        return value
    wanted = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(
        kind, "a list" if get_origin(kind) is tuple else "a mapping"
    )
    mistakes.append(f"{place} must be {wanted}, got {value!r}; write {wanted}")
    return None


def _unknown_keys(raw: dict[Any, Any], known: list[str], place: str) -> list[str]:
    mistakes = []
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
            mistakes.append(f"{place}{key} must be a key that is known here, and is not; {remedy}")
    return mistakes


def _one_of(allowed: tuple[str, ...], **values: str) -> list[str]:
    return [
        f"{name} must be one of {', '.join(allowed)}, got {value!r}; "
        f"use {(difflib.get_close_matches(str(value), allowed, 1) or allowed)[0]}"
        for name, value in values.items()
        if value not in allowed
    ]


def _at_least(least: int, **values: int) -> list[str]:
    return [
        f"{name} must be at least {least}, got {value}; use {least} or more"
        for name, value in values.items()
        if value < least
    ]


def _without_reason(name: str, days: dict[str, str], remedy: str) -> list[str]:
    """What is wrong with dates that a person gives, each with a reason."""
    mistakes = []
    for day, reason in days.items():
        try:
            parse_date(day)
        except ValueError as error:
            mistakes.append(f'{name}: a key {error}; use for example "2013-07-05"')
        if not reason or not reason.strip():
            mistakes.append(f"{name}.{day} must be a reason, got {reason!r}; {remedy}")
    return mistakes


def _complain(mistakes: list[str]) -> None:
    if mistakes:
        raise ValueError("\n".join(mistakes))


def columns_named(kwargs: dict[str, Any]) -> list[tuple[str, str]]:
    """The (argument, column) pairs among an expectation's arguments."""
    named = [(name, kwargs[name]) for name in ("column", "column_A", "column_B") if isinstance(kwargs.get(name), str)]
    return named + [("column_list", column) for column in kwargs.get("column_list") or []]


def _module_exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@cache
def _expectation_schemas() -> dict[str, Path]:
    """The JSON schemas that Great Expectations ships, by snake-case name; found without importing it."""
    spec = importlib.util.find_spec("great_expectations")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("great-expectations must be installed, and is not; run make setup")
    folder = Path(spec.submodule_search_locations[0]) / "expectations/core/schemas"
    return {_snake_case(path.stem): path for path in sorted(folder.glob("Expect*.json"))}


def _snake_case(camel: str) -> str:
    """ExpectColumnKLDivergenceToBeLessThan -> expect_column_kl_divergence_to_be_less_than, as GX does it."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", camel).lower()
