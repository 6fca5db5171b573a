"""Turn the errors of pydantic into the lines that a person reads: place, rule, value, remedy."""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tasks.params.fields import SQL_PASSWORD

WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "model_attributes_type": "a mapping",
}
UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
BOUNDS = {"ge": "be at least", "gt": "be above", "le": "be at most", "lt": "be below"}
RULES = {"finite_number": "be a finite number"}
_MOVED = "must have moved to decisions/, and has not; run python -m tasks.commands migrate-decisions, then delete it"
GONE = {
    ("drift", "accepted"): f"(or day.accepted) {_MOVED}",
    ("source", "retake"): _MOVED,
    (
        "train",
        "patience_epochs",
    ): "is gone; delete it: patience is counted in steps (patience_steps), which has a default",
}
"""What is said of keys of before that no other key takes the place of: see docs/upgrading.md."""
MEANT = {
    "random": "hash",
    "group": "hash",
    "date": "time",
    "datetime": "time",
    "timestamp": "time",
    "string": "text for sentences, category for one of a few values",
    "str": "text for sentences, category for one of a few values",
    "object": "text for sentences, category for one of a few values",
    "varchar": "text for sentences, category for one of a few values",
    "numeric": "number",
    "int": "number",
    "integer": "number",
    "float": "number",
    "double": "number",
    "decimal": "number",
    "bool": "category",
    "boolean": "category",
    "categorical": "category",
    "enum": "category",
    "classification": "binary for two classes, multiclass for more",
    "multi-class": "multiclass",
    "multi-label": "multilabel",
    "json": "jsonl",
    "tsv": 'csv, with delimiter: "\\t"',
    "xlsx": "excel",
    "xls": "excel",
    "ods": "excel",
    "postgres": "sql",
    "postgresql": "sql",
    "mysql": "sql",
    "sqlite": "sql",
    "database": "sql",
}
"""Words that people write, with what they may mean; proposed only where the place allows it."""


@dataclass(frozen=True)
class _Spot:
    """A place in the file, with what the schema says of it."""

    names: tuple[str, ...]
    owner: type | None
    """The class whose field it is."""
    field: FieldInfo | None
    kind: Any
    variant: str
    """Such as "kind: csv", where the key is one of another member of the union alone."""


def mistakes_of(error: ValidationError, kind: Any, place: tuple[str, ...]) -> list[str]:
    """Return one line per mistake of a value that should have been a `kind` at `place`."""
    return [
        line
        for each in sorted(error.errors(include_url=False), key=lambda each: _turn(kind, each["loc"]))
        for line in _lines(each, _spot(kind, each["loc"], place))
    ]


def _turn(kind: Any, loc: tuple[int | str, ...]) -> int:
    """Return a number that puts errors into the order of the class's fields."""
    order = list(fields_of(kind))
    return order.index(str(loc[0])) if loc and loc[0] in order else len(order)


def unknown_places(error: ValidationError, kind: Any) -> list[tuple[str, ...]]:
    """Return where keys lie that the schema does not know."""
    unknown = [each["loc"] for each in error.errors(include_url=False) if each["type"] in UNKNOWN]
    return [_spot(kind, loc, ()).names for loc in unknown]


def dotted(names: tuple[str, ...]) -> str:
    """Return a place such as products.tiny.columns.weight_kg, with a name of odd characters in quotes."""
    return ".".join(name if re.fullmatch(r"[\w-]+", name) else json.dumps(name, ensure_ascii=False) for name in names)


def unknown_key(place: str, key: str, known: list[str]) -> str:
    """Return the line about a key that nothing reads."""
    near = difflib.get_close_matches(key, known, 1)
    remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
    return f"{place} must be a key that is known here, and is not; {remedy}"


def shown(value: Any) -> str:
    """Return the value as a line shows it; a URL with a password is not repeated."""
    text = repr(value)
    return "a URL with a password" if SQL_PASSWORD.search(text) else text


def example_of(field: FieldInfo | None) -> Any:
    """Return a value that the field allows: its example or its default, None where there is neither."""
    if field is None:
        return None
    return field.examples[0] if field.examples else field.get_default(call_default_factory=False)


def fields_of(cls: type) -> dict[str, FieldInfo]:
    """Return the fields that a file may give, by the names that it uses, in the order of the class."""
    fields = cast(dict[str, FieldInfo], getattr(cls, "__pydantic_fields__", {}))
    given = [name for name in getattr(cls, "__dataclass_fields__", {}) if name in fields]
    return {fields[name].alias or name: fields[name] for name in given if (cls.__name__, name) != ("Product", "name")}


def _lines(error: ErrorDetails, spot: _Spot) -> Iterator[str]:
    place, kind, value, ctx = dotted(spot.names), error["type"], error["input"], error.get("ctx", {})
    if kind == "value_error":
        for line in str(ctx["error"]).splitlines():
            yield f"{place} {line}" if line.startswith("must ") else ".".join(filter(None, [place, line]))
    elif kind in ("missing", "missing_argument", "union_tag_not_found"):
        yield _missing(spot, ctx)
    elif kind in UNKNOWN:
        yield _unexpected(spot, value)
    elif kind == "literal_error":
        yield _one_of(place, _choices(ctx["expected"]), value)
    elif kind == "union_tag_invalid":
        yield _one_of(f"{place}.{ctx['discriminator'].strip(chr(39))}", _choices(ctx["expected_tags"]), ctx["tag"])
    elif kind in WANTED:
        wanted = WANTED[kind]
        remedy = "write its keys below it" if wanted == "a mapping" else f"write {wanted}"
        if spot.field and spot.field.examples:
            remedy = f"write for example {spot.names[-1]}: {_flow(example_of(spot.field))}"
        yield f"{place} must be {wanted}, got {shown(value)}; {remedy}"
    else:
        yield f"{place} must {_bound(kind, ctx, spot.field)}, got {shown(value)}; {_remedy(ctx, spot.field)}"


def _missing(spot: _Spot, ctx: dict[str, Any]) -> str:
    names, field = spot.names, spot.field
    if ctx.get("discriminator"):
        name = ctx["discriminator"].strip("'")
        names, example = (*names, name), tag_of(_members(spot.kind)[0])[1]
    else:
        name, example = names[-1], example_of(field)
    text = json.dumps(example, ensure_ascii=False) if isinstance(example, str) and " " in example else _flow(example)
    return f"{dotted(names)} must be given, and is missing; add it, for example {name}: {text}"


def _unexpected(spot: _Spot, value: Any) -> str:
    *_, part, key = ("", *spot.names)
    if (part, key) in GONE:
        return f"{dotted(spot.names)} {GONE[part, key]}"
    if spot.variant:
        return f"{dotted(spot.names)} must not be given for {spot.variant}, got {shown(value)}; delete it"
    return unknown_key(dotted(spot.names), key, list(fields_of(spot.owner)) if spot.owner else [])


def _one_of(place: str, allowed: list[str], value: Any) -> str:
    meant = MEANT.get(str(value).lower(), "")
    if not any(word in allowed for word in re.split(r"[ ,]+", meant)):
        meant = (difflib.get_close_matches(str(value), allowed, 1) or allowed)[0]
    return f"{place} must be one of {', '.join(allowed)}, got {shown(value)}; use {meant}"


def _bound(kind: str, ctx: dict[str, Any], field: FieldInfo | None) -> str:
    rules = field.metadata if field else []
    limits = {name: getattr(rule, name) for rule in rules for name in BOUNDS if hasattr(rule, name)}
    if {"gt", "lt"} <= limits.keys():
        return f"lie between {limits['gt']:g} and {limits['lt']:g}"
    if {"ge", "lt"} <= limits.keys():
        return f"lie in [{limits['ge']:g}, {limits['lt']:g})"
    single = (f"{rule} {ctx[name]:g}" for name, rule in BOUNDS.items() if name in ctx)
    return next(single, RULES.get(kind, f"fit the rule {kind}"))


def _remedy(ctx: dict[str, Any], field: FieldInfo | None) -> str:
    if "ge" in ctx:
        return f"use {ctx['ge']:g} or more"
    if "le" in ctx:
        return f"use {ctx['le']:g} or less"
    example = example_of(field)
    return "use a positive number" if example is None else f"use for example {example!r}"


def _spot(kind: Any, loc: tuple[int | str, ...], place: tuple[str, ...]) -> _Spot:
    """Follow an error's location through the schema: it names the members of unions, which the file does not."""
    names, owner, field, union, tag = list(place), None, None, (), ""
    for step in loc:
        members = _members(kind)
        if len(members) > 1:
            union, tag = members, str(step)
            kind = next(each for each in members if tag_of(each)[1] == tag)
            continue
        names.append(str(step))
        kind = members[0]
        if hasattr(kind, "__pydantic_fields__"):
            owner, field = kind, fields_of(kind).get(str(step))
            kind = Any if field is None else field.annotation
        else:
            kind = next(iter(reversed([each for each in get_args(kind) if each is not ...])), Any)
            owner, field, union = None, None, ()
    foreign: list[type] = [] if field or not union else [each for each in union if names[-1] in fields_of(each)]
    return _Spot(tuple(names), owner, field, kind, f"{tag_of(foreign[0])[0]}: {tag}" if foreign else "")


def tag_of(cls: type) -> tuple[str, str]:
    """Return the key by which a union tells its member `cls`, and that key's value; two empty texts elsewhere."""
    for name, field in fields_of(cls).items():
        if get_origin(field.annotation) is Literal and name in ("kind", "by"):
            return name, get_args(field.annotation)[0]
    return "", ""


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the classes that a value may have; None is left out."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) not in (Union, UnionType):
        return (kind,)
    return tuple(member for each in get_args(kind) if each is not type(None) for member in _members(each))


def _choices(expected: str) -> list[str]:
    """Return the choices of a message of pydantic such as "'a', 'b' or 'c'"."""
    return re.findall(r"'([^']*)'", expected)


def _flow(value: Any) -> str:
    """Return the value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return "..." if value is None else str(value)
