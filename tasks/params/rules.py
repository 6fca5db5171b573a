"""Rules between the parts of a product, each about one thing.

A rule sees what could be read of an entry, so that it speaks even where another part is wrong: a part that could not
be read is None, and so is a wrong kind of a column, an expectation or a way with personal data.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from model.features.kinds import CATEGORY, EVENTS, KINDS, TEXT, TIME
from model.heads import METRICS, head_of
from model.heads.label_scale import MEAN
from model.heads.prediction_rule import ERRORS, HALF
from tasks.params.answers.horizons import HORIZON_COLUMNS, mistakes_of_horizons
from tasks.params.answers.predict import Predict
from tasks.params.answers.rules import mistakes_of_answers, mistakes_of_costs, mistakes_without_labels
from tasks.params.expectations import Expectation, columns_named
from tasks.params.gates import BehaviourTest, Gates, mistakes_of_behaviour
from tasks.params.schema import ARRIVED, RAW_ROW, ROW_ID, Product
from tasks.params.sections import MEASURED, DriftLimits, Model, Split, Target
from tasks.params.slices import columns_of_slices, mistakes_of_slices
from tasks.params.source import UNREADABLE_COLUMNS, EventList, Source, mistakes_of_events

STAGE_COLUMNS = ("dt", "reasons", RAW_ROW, *UNREADABLE_COLUMNS)
"""Columns that the stages add to a product's own."""
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAP = "use another, and say under source.names which column of the source it is"
_PREDICTED = re.compile(r"prediction$|quantile_|probability($|_)|reason_\d+$|surprise_")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of an entry that could be read."""

    key: tuple[str, ...] | None
    """None also where it could not be read; () where it is empty."""
    has_key: bool
    """False where the entry leaves it out."""
    time: str | None
    """None also where it could not be read."""
    has_time: bool
    """False where the entry leaves it out."""
    columns: dict[str, str | None] | None
    """Kind by name."""
    target: Target | None
    predict: Predict | None
    expectations: tuple[Expectation | None, ...] | None
    pii: dict[str, str | None] | None
    split: Split | None
    model: Model | None
    slices: dict[str, str] | None
    drift: DriftLimits | None
    gates: Gates | None
    behaviour: tuple[BehaviourTest, ...] | None
    source: Source | None
    sources: dict[str, Source] | None
    events: dict[str, EventList] | None

    @property
    def named(self) -> list[str]:
        """Return the declared columns of a row, each once."""
        time = [self.time] if self.time else []
        return list(dict.fromkeys([*(self.key or ()), *time, *(self.columns or {}), *self.of_slices]))

    @property
    def of_slices(self) -> list[str]:
        """Return the columns that `slices` names, without the target."""
        added = HORIZON_COLUMNS if self.predict and self.predict.horizons else ()
        names = [name for name in columns_of_slices(self.slices or {}) if name not in added]
        return [name for name in names if self.target is None or name != self.target.name]

    @property
    def places(self) -> list[tuple[str, str]]:
        """Return every declared column with the place where it is declared."""
        places = [("key", name) for name in self.key or ()] + [("columns", name) for name in self.columns or {}]
        places += [("time", self.time)] if self.time else []
        places += [("slices", name) for name in self.of_slices if name not in {name for _, name in places}]
        return places + ([("target.name", self.target.name)] if self.target else [])


def parts_of(product: Product) -> Parts:
    """Return the parts of a product all of which could be read."""
    same = {field.name: getattr(product, field.name) for field in fields(Parts) if field.name not in ("key", "time")}
    return Parts(key=product.declared_key, time=product.declared_time, **same)


def column_names(parts: Parts) -> Iterator[str]:
    """Refuse names that Parquet readers or the stages stumble over."""
    added = (*STAGE_COLUMNS, *([] if parts.has_key else [ROW_ID]), *([] if parts.has_time else [ARRIVED]))
    for place, name in parts.places:
        if not _COLUMN.fullmatch(name):
            yield f"{place} must be a name of letters, digits and _, got {name!r}; {_MAP}"
        elif name in added:
            yield f"{place} must not be a name that the stages add themselves, got {name!r}; {_MAP}"
        elif place in ("key", "time") and _PREDICTED.match(name):
            yield f"{place} must not be a name of the predictions' own columns, got {name!r}; rename the column"


def inputs(parts: Parts) -> Iterator[str]:
    """Refuse columns from which nothing can be learnt."""
    columns = parts.columns
    if columns == {}:
        yield "columns must name at least one input, got {}; add one"
    elif columns and all(kind in KINDS and not KINDS[kind].is_token for kind in columns.values()):
        yield (
            f"columns must name at least one that is no context, got {', '.join(columns)}; add what tells the rows of "
            "one context apart"
        )


def key(parts: Parts) -> Iterator[str]:
    """Refuse a key that names nothing, or a column twice."""
    if parts.key == ():
        yield "key must name at least one column, got []; add one, or leave key out"
    for name in dict.fromkeys(parts.key or ()):
        if (parts.key or ()).count(name) > 1:
            yield f"key must name a column once, got {name!r} twice; delete one"


def time(parts: Parts) -> Iterator[str]:
    """Refuse what goes against a row's date, or needs one that is not declared."""
    kind = (parts.columns or {}).get(parts.time or "")
    if kind and kind != TIME:
        yield f"columns.{parts.time} must be time, as it is the rows' own, got {kind}; make it time"
    if parts.has_time:
        return
    if parts.split and parts.split.by == "time":
        yield "split.by must be hash for a product without time, got time; use hash, or add time: <the date's column>"
    if parts.predict and parts.predict.horizon_days:
        yield (
            f"predict.horizon_days must be 0 for a product without time, got {parts.predict.horizon_days}; delete it, "
            "or add time: <the date's column>"
        )


def target(parts: Parts) -> Iterator[str]:
    """Refuse a target that the model would see."""
    if parts.target and parts.target.name in parts.named:
        yield (
            f"target.name must not be an input, the key or the time, got {parts.target.name!r}; "
            "delete it from columns: the model would be told the answer"
        )


def labels(parts: Parts) -> Iterator[str]:
    """Refuse what is said of labels that another task has, or another source."""
    target = parts.target
    if not target:
        return
    head = head_of(target.task)
    if not head.label_values and (target.positive or target.negative):
        yield f"target.positive must not be given for a {target.task} target, got {target.positive!r}; delete it"
    elif target.negative and not target.positive:
        yield f"target.positive must be given beside target.negative, got {target.negative!r} alone; add it"
    elif target.positive and (target.negative or "").lower() == target.positive.lower():
        yield f"target.negative must be another value than target.positive, got {target.negative!r} twice; correct it"
    if target.empty and not head.normalises_labels:
        yield f"target.empty must not be given for a {target.task} target, got {target.empty!r}; delete it"
    if getattr(target.source, "latest_by", None):
        yield "target.source.latest_by must not be given, since of several labels of a key the last stands; delete it"
    if target.source and not parts.has_key:
        yield "target.source must have a key by which labels find their rows, and there is no key; add key"


def forms(parts: Parts) -> Iterator[str]:
    """Refuse forms of columns that are not declared."""
    if parts.columns is None or not parts.target:
        return
    sources = (("source", parts.source), ("target.source", parts.target.source))
    for place, name in ((place, name) for place, source in sources if source for name in source.forms):
        known = list(dict.fromkeys([*parts.named, parts.target.name]))
        if name not in known:
            yield f"{place}.forms must name declared columns, got {name!r}; use one of {', '.join(known)}"


def events(parts: Parts) -> Iterator[str]:
    """Refuse events without a time to which they are past, and those that find no rows."""
    columns = parts.columns or {}
    if EVENTS in columns.values() and not parts.has_time:
        yield "time must be given where a column is of kind events, which lie before it, and is not; add time"
    if parts.events is not None and parts.sources is not None:
        yield from mistakes_of_events(parts.events, columns, parts.sources, parts.named)


def group(parts: Parts) -> Iterator[str]:
    """Refuse a group that no row has."""
    if parts.split and parts.split.group and parts.named and parts.split.group not in parts.named:
        yield (
            f"split.group must be a column or part of the key, got {parts.split.group!r}; "
            f"use one of {', '.join(parts.named)}"
        )


def expectations(parts: Parts) -> Iterator[str]:
    """Refuse expectations on columns that are not declared."""
    unread = (parts.key is None and parts.has_key, parts.time is None and parts.has_time, parts.columns is None)
    if any(unread) or not parts.target:
        return
    for i, each in enumerate(parts.expectations or ()):
        for argument, column in columns_named(each.kwargs) if each else ():
            if column not in [*parts.named, parts.target.name]:
                yield (
                    f"expectations.{i}.kwargs.{argument} must be a declared column, got {column!r}; "
                    f"use one of {', '.join(parts.named)}"
                )


def personal_data(parts: Parts) -> Iterator[str]:
    """Refuse to drop what is used, and to hash or redact what is no text."""
    columns, texts = parts.columns or {}, [name for name, kind in KINDS.items() if kind.cells == "str"]
    used = [*parts.named, *([parts.target.name] if parts.target else [])]
    columns = {**columns_of_slices(parts.slices or {}), **columns}
    named = [name for name in [*(parts.key or ()), *columns] if name in parts.named and name != parts.time]
    hashable = [name for name in named if columns.get(name, CATEGORY) in texts]
    for name, way in (parts.pii or {}).items():
        if way == "drop" and name in used:
            yield f"pii.{name} must not be a column that is used, got drop; delete it there, or use hash"
        elif way in ("hash", "salted", "redact") and name not in hashable:
            use = f"use one of {', '.join(hashable)}, or drop" if hashable else "use drop"
            yield f"pii.{name} must be a category or text of key or columns, got {way}; {use}"


def slices(parts: Parts) -> Iterator[str]:
    """Refuse slices of the target, and those that the kind of their column does not fit."""
    if parts.slices and parts.target and parts.columns is not None:
        kinds = {**dict.fromkeys(parts.key or (), CATEGORY), **parts.columns}
        kinds |= {parts.time: TIME} if parts.time else {}
        yield from mistakes_of_slices(parts.slices, kinds, parts.target.name)


def behaviour(parts: Parts) -> Iterator[str]:
    """Refuse changes of what is no input, and those that the kind of an input does not fit."""
    if parts.behaviour and parts.target and parts.columns:
        yield from mistakes_of_behaviour(parts.behaviour, parts.columns, parts.target.task)


def gate_metric(parts: Parts) -> Iterator[str]:
    """Refuse a metric that the task does not have."""
    if parts.target and parts.gates and parts.gates.metric not in METRICS[parts.target.task]:
        known = METRICS[parts.target.task]
        yield f"gates.metric must be one of {', '.join(known)}, got {parts.gates.metric!r}; use {known[0]}"


def threshold(parts: Parts) -> Iterator[str]:
    """Refuse a threshold for a task that has no yes and no."""
    if not (parts.target and parts.predict) or head_of(parts.target.task).has_threshold:
        return
    if (got := parts.predict.threshold) != HALF:
        yield f"predict.threshold must not be given for a {parts.target.task} target, got {got}; delete it"


def costs(parts: Parts) -> Iterator[str]:
    """Refuse costs that decide nothing, or that name no error of the task."""
    if not (parts.target and parts.predict) or parts.predict.costs is None:
        return
    head, given = head_of(parts.target.task), parts.predict.costs
    if not head.has_costs:
        yield f"predict.costs must not be given for a {parts.target.task} target, got {given}; delete it"
    elif head.has_threshold:
        if sorted(given) != sorted(ERRORS) or any(isinstance(cost, dict) for cost in given.values()):
            use = "use for example {false_positive: 1, false_negative: 5}"
            yield f"predict.costs must give {' and '.join(ERRORS)} a number each, got {given}; {use}"
        elif not all(given.values()):
            yield f"predict.costs must be above 0, got {given}, by which all rows would get one answer; correct them"
    else:
        yield from mistakes_of_costs(given)


def engine(parts: Parts) -> Iterator[str]:
    """Refuse an engine that cannot hold the numbers of a regression."""
    if not (parts.target and parts.model) or head_of(parts.target.task).has_probabilities:
        return
    if parts.model.engine == "onnxruntime-fp16":
        yield (
            f"model.engine must not be onnxruntime-fp16 for a {parts.target.task}, whose numbers it cannot hold; "
            f"use {MEASURED}"
        )


def class_weights(parts: Parts) -> Iterator[str]:
    """Refuse a calibration that undoes the weights of the classes."""
    train = parts.model.train if parts.model else None
    if not (train and train.class_weights == "balanced" and train.calibrate and parts.target):
        return
    if head_of(parts.target.task).calibrates_offset:
        yield (
            f"model.train.calibrate must be false with class_weights: balanced for a {parts.target.task} target, since "
            "probabilities fitted to the rows as they come undo the weights, got true; set it to false, or leave "
            "class_weights out and set predict.threshold"
        )


def target_scale(parts: Parts) -> Iterator[str]:
    """Refuse a scale, or a median, for a target that is no number."""
    if not (parts.target and parts.model) or head_of(parts.target.task).has_label_scale:
        return
    if parts.predict and parts.predict.point != MEAN:
        yield f"predict.point must not be given for a {parts.target.task} target, got {parts.predict.point}; delete it"
    if (got := parts.model.train.target_scale) != MEASURED:
        yield f"model.train.target_scale must not be given for a {parts.target.task} target, got {got}; delete it"


def texts(parts: Parts) -> Iterator[str]:
    """Refuse sizes for text that do not fit the number of text columns."""
    if not (parts.model and parts.columns):
        return
    network, n_texts = parts.model.network_settings(), list(parts.columns.values()).count(TEXT)
    if n_texts >= network.max_tokens:
        yield (
            f"model.network.max_tokens must be above the number of text columns, got {network.max_tokens} for "
            f"{n_texts}; use {16 * n_texts} or more"
        )
    if not n_texts and None not in parts.columns.values():
        given = (("wide_tokens", network.wide_tokens, 0), ("max_windows", network.max_windows, 1))
        for name, got, none in given:
            if got != none and name in parts.model.network:
                yield f"model.network.{name} must be {none} without a text column, got {got}; delete it"


RULES: tuple[Callable[[Parts], Iterator[str]], ...] = (
    column_names,
    inputs,
    key,
    time,
    target,
    labels,
    mistakes_without_labels,
    forms,
    events,
    group,
    expectations,
    personal_data,
    slices,
    behaviour,
    gate_metric,
    threshold,
    costs,
    engine,
    class_weights,
    target_scale,
    mistakes_of_answers,
    mistakes_of_horizons,
    texts,
)


def mistakes_between(parts: Parts) -> list[str]:
    """Return what does not fit together, one line per mistake."""
    return [line for rule in RULES for line in rule(parts)]
