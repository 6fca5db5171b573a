"""Defaults of a product's entry that depend on its other keys; all others are in `tasks.params.sections`."""

from typing import Any

from model.features.kinds import EVENTS, TEXT
from model.heads import DEFAULT_METRICS, LOWER_IS_BETTER, head_of
from model.heads.base import Head
from model.heads.label_scale import MEDIAN
from tasks.params.answers.horizons import HORIZON, SLICE

FILLED = {"Product": ("description", "split", "gates"), "Gates": ("metric", "limit"), "Target": ("name",)}
"""Fields, by class, that an entry may leave out although the class has no default of its own."""
Entry = dict[str, object]
"""An entry of `products:` as JSON has it, unchecked."""
RENAMED = {"day": "drift"}
"""Keys of an entry that are read under another name until the next release."""
RECHECK_DAYS = "recheck_days"
"""The name that `late_days` of a Python source had before."""

OWN_NAME = "changed_column"
"""The name of a target whose labels no source delivers."""
FORMS = ("missing", "decimal", "thousands", "time_format", "pixels")
"""Keys of a column in `columns`, or of `target`, that are kept as those of the column in `source.forms`."""
EVENT_LIST = ("fields", "time", "max_events", "by")
"""Keys of a column of kind events that are kept as those of the column in `events`; so is `from` beside `by`."""


def complete(name: str, entry: Entry) -> Entry:
    """Return the entry with the defaults that depend on its other keys, and with keys under their present names.

    >>> complete("late-parcels", {"target": {"name": "late", "task": "binary"}, "time": "day"})["gates"]
    {'metric': 'auc', 'limit': 0.5}
    """
    for old, new in RENAMED.items():
        before, now = entry.get(old), entry.get(new, {})
        if isinstance(before, dict) and isinstance(now, dict):
            entry = {**{key: value for key, value in entry.items() if key != old}, new: {**before, **now}}
    entry = _with_late_days(_with_forms(entry))
    filled = {
        "description": name.replace("-", " ").capitalize(),
        "split": {"by": "hash" if entry.get("time") is None else "time"},
        "gates": {},
        **entry,
    }
    if "target" in filled:
        filled["target"] = _with_text(_with_name(filled["target"]), filled.get("columns"))
    if "predict" in filled:
        filled["predict"] = _with_measured_threshold(filled.get("target"), filled["predict"])
    filled = _with_median(filled)
    filled = _with_horizon_slice(filled)
    if isinstance(filled["gates"], dict):
        filled["gates"] = {**_gate(filled.get("target"), filled["gates"]), **filled["gates"]}
    return filled


def _head(target: Any) -> Head | None:
    """Return what the task of a target decides; None where no such task is given."""
    task = target.get("task") if isinstance(target, dict) else None
    return head_of(task) if isinstance(task, str) and task in DEFAULT_METRICS else None


def _with_name(target: Any) -> Any:
    """Return a target with a name, where its task has labels of its own and none is given."""
    head = _head(target)
    if head is None or head.has_labels:
        return target
    return {"name": OWN_NAME, **target}


def _with_text(target: Any, columns: Any) -> Any:
    """Return a target with the only column of text, where an answer lies in one and none is given."""
    head = _head(target)
    if head is None or not isinstance(columns, dict):
        return target
    texts = [name for name, kind in columns.items() if kind == TEXT]
    return {"text": texts[0], **target} if head.answers_spans and len(texts) == 1 else target


def _with_measured_threshold(target: Any, predict: Any) -> Any:
    """Return `predict` with a threshold that is measured, where errors have costs and none is given."""
    head = _head(target)
    if head is None or not (isinstance(predict, dict) and predict.get("costs")):
        return predict
    return {"threshold": "measured", **predict} if head.has_threshold else predict


def _with_median(entry: Entry) -> Entry:
    """Return the entry with medians as its predictions, where its metric is best of these and nothing is given."""
    head, predict, gates = _head(entry.get("target")), entry.get("predict", {}), entry.get("gates")
    if head is None or not (isinstance(predict, dict) and isinstance(gates, dict)):
        return entry
    if gates.get("metric") not in head.median_metrics:
        return entry
    return {**entry, "predict": {"point": MEDIAN, **predict}}


def _with_horizon_slice(entry: Entry) -> Entry:
    """Return the entry with a slice for each of several horizons, so that each is measured by itself."""
    predict, slices = entry.get("predict"), entry.get("slices", {})
    if not (isinstance(predict, dict) and isinstance(predict.get(HORIZON), list) and isinstance(slices, dict)):
        return entry
    return {**entry, "slices": {SLICE: HORIZON, **slices}}


def renamed(name: str, entry: Any) -> list[str]:
    """Return a note for each key of the entry that has another name now."""
    if not isinstance(entry, dict):
        return []
    keys = [(old, new) for old, new in RENAMED.items() if old in entry]
    if isinstance(entry.get("source"), dict) and RECHECK_DAYS in entry["source"]:
        keys.append((f"source.{RECHECK_DAYS}", "source.late_days"))
    return [
        f"products.{name}.{old} is called {new} now, and is read for one more release; rename it" for old, new in keys
    ]


def _with_late_days(entry: Entry) -> Entry:
    """Return the entry with `recheck_days` under its name of today."""
    source = entry.get("source")
    if not isinstance(source, dict) or RECHECK_DAYS not in source:
        return entry
    late_days = {"late_days": source[RECHECK_DAYS], **{key: source[key] for key in source if key != RECHECK_DAYS}}
    return {**entry, "source": late_days}


def _with_forms(entry: Entry) -> Entry:
    """Return the entry with what `columns` and `target` say of how a column is written under `source`."""
    columns, target = entry.get("columns"), entry.get("target")
    long = {}
    if isinstance(columns, dict):
        long = {name: each for name, each in columns.items() if isinstance(each, dict) and "kind" in each}
        kinds = {name: each["kind"] for name, each in long.items()}
        long = {name: {key: each[key] for key in each if key != "kind"} for name, each in long.items()}
        entry = {**entry, "columns": columns | kinds}
        entry, long = _with_events(entry, long, kinds)
    if "source" in entry:
        entry = {**entry, "source": _written_as(entry["source"], long)}
    if isinstance(target, dict) and (form := {key: target[key] for key in (*FORMS, "from") if key in target}):
        target = {key: value for key, value in target.items() if key not in form}
        name = str(target.get("name", ""))
        entry = {**entry, "target": target}
        place = target if "source" in target else entry
        place["source"] = _written_as(place.get("source"), {name: form})
    return entry


def _with_events(entry: Entry, long: dict[str, Entry], kinds: Entry) -> tuple[Entry, dict[str, Entry]]:
    """Return the entry with what `columns` says of events under `events`, and what is left to say of columns."""
    found, left = dict[str, Entry](), dict(long)
    for name in (name for name, kind in kinds.items() if kind == EVENTS):
        moved = (*EVENT_LIST, "from") if "by" in long[name] else EVENT_LIST
        found[name] = {"source" if key == "from" else key: long[name][key] for key in long[name] if key in moved}
        left[name] = {key: value for key, value in long[name].items() if key not in moved}
    found = {name: each for name, each in found.items() if each}
    given = entry.get("events", {})
    return ({**entry, "events": given | found} if found and isinstance(given, dict) else entry), left


def _written_as(source: Any, long: dict[str, Entry]) -> Any:
    """Return a source with the names and forms of columns in `source.names` and `source.forms`."""
    if not isinstance(source, dict):
        return source
    names = {name: each["from"] for name, each in long.items() if "from" in each}
    forms = {
        name: {key: each[key] for key in each if key != "from"} for name, each in long.items() if each.keys() - {"from"}
    }
    for key, found in (("names", names), ("forms", forms)):
        given = source.get(key, {})
        if found and isinstance(given, dict):
            source = {**source, key: given | found}
    return source


def _gate(target: Any, gates: Entry) -> Entry:
    """Return the metric of the task, and a limit for a metric whose scale is known."""
    head = _head(target)
    metric = gates.get("metric", head.default_metric if head else "")
    filled = {} if "metric" in gates else {"metric": metric}
    return filled if metric in LOWER_IS_BETTER else {**filled, "limit": 0.5 if metric == "auc" else 0.0}
