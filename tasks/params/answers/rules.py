"""Rules of what is answered, and of what does not go with it; `parts` as of `tasks.params.rules`."""

from collections.abc import Iterator, Mapping
from typing import Any

from model.features.kinds import CATEGORY, IMAGE, KINDS, NUMBER, TEXT, TIME
from model.heads import head_of
from model.heads.next_item import IS_NEW, TOP
from model.heads.span import COLUMNS
from model.scoring.automaton import refusal
from model.settings import GenerationSettings
from tasks.params.fields import MEASURED, USE

WRITTEN = (CATEGORY, NUMBER, TEXT, TIME)
"""Kinds whose cells a language model reads as lines."""


def mistakes_of_costs(given: Mapping[str, float | dict[str, float]]) -> Iterator[str]:
    """Yield what is wrong with costs by true and then predicted class."""
    for name, row in given.items():
        if not isinstance(row, dict):
            use = "use for example {spam: {mail: 1}, mail: {spam: 10}}"
            yield f"predict.costs.{name} must give costs by predicted class, got {row}; {use}"
        elif row.get(name):
            yield f"predict.costs.{name}.{name} must be 0, since that is no error, got {row[name]}; delete it"
    if not any(cost for row in given.values() if isinstance(row, dict) for cost in row.values()):
        yield f"predict.costs must have one above 0, got {given}; add it, or leave costs out"


def mistakes_without_labels(parts: Any) -> Iterator[str]:
    """Refuse what needs labels where the task has none, and columns that are not guessed; `parts` as of the rules."""
    target, columns, made = parts.target, parts.columns, parts.predict and parts.predict.make_rows
    if target and head_of(target.task).has_labels and made:
        yield f"predict.make_rows must not be given for a {target.task} target, got {made}; delete it"
    most = parts.drift and parts.drift.max_surprising
    if target and head_of(target.task).has_labels and most is not None:
        yield f"drift.max_surprising must not be given for a {target.task} target, got {most}; delete it"
    if not target or columns is None or head_of(target.task).has_labels:
        return
    unread = [name for name, kind in columns.items() if kind in KINDS and not KINDS[kind].is_guessed]
    if unread:
        wanted = ", ".join(kind for kind in KINDS if KINDS[kind].is_guessed)
        yield f"columns must be each one of {wanted} for a {target.task} target, got {', '.join(unread)}; delete them"
    elif len(columns) < 2:
        yield f"columns must name two inputs for a {target.task} target, got {', '.join(columns)}; add another"
    given = {"target.source": target.source, "target.delay_days": target.delay_days, "behaviour": parts.behaviour}
    given |= {
        "predict.explain": parts.predict and parts.predict.explain,
        "model.train.refit": parts.model and parts.model.train.refit,
    }
    for place, value in given.items():
        if value:
            yield f"{place} must not be given for a {target.task} target, which has no labels, got {value!r}; delete it"


def mistakes_of_answers(parts: Any) -> Iterator[str]:
    """Refuse what does not go with lists of items, texts, spans or quantiles; `parts` as of the rules."""
    yield from mistakes_of_lists(parts)
    yield from mistakes_of_texts(parts)
    yield from mistakes_of_spans(parts)
    yield from mistakes_of_images(parts)
    yield from mistakes_of_quantiles(parts)


def mistakes_of_lists(parts: Any) -> Iterator[str]:
    """Refuse what is said of lists of items for a task without, and what lists cannot do; `parts` as of the rules."""
    target, columns = parts.target, parts.columns or {}
    if not target:
        return
    named, top = {"history": target.history, "exclude": target.exclude}, parts.predict and parts.predict.top
    if not head_of(target.task).answers_lists:
        given = {
            **{f"target.{name}": list(each) for name, each in named.items()},
            "predict.top": top if top != TOP else 0,
        }
        for place, value in given.items():
            if value:
                yield f"{place} must not be given for a {target.task} target, got {value!r}; delete it"
        return
    known = [column for column, kind in columns.items() if kind == CATEGORY]
    for name, each in named.items():
        for column in dict.fromkeys(each):
            if column not in known and columns.get(column, "") is not None:
                use = f"use one of {', '.join(known)}" if known else f"declare {column}: category there"
                yield f"target.{name} must name columns of kind category, got {column!r}; {use}"
            if each.count(column) > 1:
                yield f"target.{name} must name a column once, got {column!r} again; delete it"
    if parts.predict and parts.predict.explain:
        yield f"predict.explain must be 0 for a {target.task} target, got {parts.predict.explain}; delete it"
    if parts.model and parts.model.train.probe:
        yield f"model.train.probe must be false for a {target.task} target, got true; delete it"
    if parts.split and parts.split.by != "time":
        yield f"split.by must be time for a {target.task} target, got {parts.split.by}; use time"
    for column in parts.key or ():
        if column in (*head_of(target.task).list_columns, IS_NEW):
            yield f"key must not be a name of the predictions' own columns, got {column!r}; rename the column"


def mistakes_of_texts(parts: Any) -> Iterator[str]:
    """Refuse what is said of texts for a task without, and what these cannot have; `parts` as of the rules."""
    target, predict, model = parts.target, parts.predict, parts.model
    if not target:
        return
    language_model = model and model.init if model and model.is_language_model else None
    if not head_of(target.task).writes_texts:
        if language_model:
            yield f"model.init must not be a language model for a {target.task} target, got {language_model!r}; {USE}"
        if predict and predict.text != GenerationSettings():
            yield f"predict.text must not be given for a {target.task} target; delete it"
        return
    if predict and predict.text.pattern and (mistake := refusal(predict.text.pattern)):
        yield f"predict.text.pattern {mistake}"
    unread = [name for name, kind in (parts.columns or {}).items() if kind in KINDS and not KINDS[kind].is_token]
    if unread:
        yield f"columns must be no context for a {target.task} target, got {', '.join(unread)}; make them numbers"
    network = model and model.network_settings()
    refused = {
        "predict.explain": predict and predict.explain,
        "behaviour": parts.behaviour,
        "model.train.probe": model and model.train.probe,
        "model.train.refit": model and model.train.refit,
        "model.network.max_windows": network and network.max_windows > 1 and network.max_windows,
        "model.engine": model and model.engine not in (MEASURED, "onnxruntime-fp32") and model.engine,
        "model.init": model and model.is_imported and not language_model and model.init,
    }
    if language_model:
        known = {name: kind for name, kind in (parts.columns or {}).items() if kind in KINDS}
        if strange := [name for name, kind in known.items() if kind not in WRITTEN]:
            yield f"columns must be words, numbers or times for a language model, got {', '.join(strange)}; delete them"
    if model and model.init == "pretrain" and TEXT not in (parts.columns or {}).values():
        yield "model.init must not be pretrain without a text column, whose texts are gone on with; use scratch"
    for place, got in refused.items():
        if got:
            yield f"{place} must not be given for a {target.task} target, got {got!r}; delete it"
    for column in parts.key or ():
        if column in ("tokens", "mean_log_probability", "ended"):
            yield f"key must not be a name of the predictions' own columns, got {column!r}; rename the column"


def mistakes_of_spans(parts: Any) -> Iterator[str]:
    """Refuse a text for a task whose answers lie in none, and what these cannot have; `parts` as of the rules."""
    target, columns, model = parts.target, parts.columns or {}, parts.model
    if not target:
        return
    if not head_of(target.task).answers_spans:
        if target.text:
            yield f"target.text must not be given for a {target.task} target, got {target.text!r}; delete it"
        return
    texts = [name for name, kind in columns.items() if kind == TEXT]
    if columns and not texts and None not in columns.values():
        yield f"columns must name one of kind text, in which the answer of a {target.task} target stands; add it"
    elif texts and target.text not in texts:
        got = f"got {target.text!r}" if target.text else "which is not given"
        use = " or ".join(texts)
        yield f"target.text must name the column of kind text in which the answer stands, {got}; use {use}"
    unread = [name for name, kind in columns.items() if kind in KINDS and not KINDS[kind].is_token]
    if unread:
        yield f"columns must be no context for a {target.task} target, got {', '.join(unread)}; make them numbers"
    refused = {
        "predict.explain": parts.predict and parts.predict.explain,
        "behaviour": parts.behaviour,
        "model.train.probe": model and model.train.probe,
        "model.train.refit": model and model.train.refit,
        "model.train.half_life_days": model and model.train.half_life_days,
        "model.train.label_smoothing": model and model.train.label_smoothing,
    }
    for place, got in refused.items():
        if got:
            yield f"{place} must not be given for a {target.task} target, got {got!r}; delete it"
    for column in parts.key or ():
        if column in COLUMNS:
            yield f"key must not be a name of the predictions' own columns, got {column!r}; rename the column"


def mistakes_of_images(parts: Any) -> Iterator[str]:
    """Refuse to mirror images where there are none, or where what they show is guessed; `parts` as of the rules."""
    if not (parts.model and parts.columns and parts.target) or None in parts.columns.values():
        return
    reason = "" if IMAGE in parts.columns.values() else "without an image column"
    if not reason and not head_of(parts.target.task).has_labels:
        reason = f"for a {parts.target.task} target, since a mirrored image is as unusual as it looks"
    for part in (name for name in ("train", "pretrain") if reason and getattr(parts.model, name).mirror_images):
        yield f"model.{part}.mirror_images must be false {reason}, got true; delete it"


def mistakes_of_quantiles(parts: Any) -> Iterator[str]:
    """Refuse quantiles of what is no number, and a metric of quantiles that are not asked for; `parts` as above."""
    if not (parts.target and parts.predict):
        return
    head, levels = head_of(parts.target.task), parts.predict.quantiles
    if levels and not head.has_label_scale:
        yield f"predict.quantiles must not be given for a {head.task} target, got {list(levels)}; delete it"
    if parts.gates and parts.gates.metric in head.quantile_metrics and not levels:
        use = "give predict.quantiles, for example [0.1, 0.5, 0.9]"
        yield f"gates.metric must not be {parts.gates.metric} without quantiles; {use}, or use another metric"
