"""The reference of params.yaml for people, docs/products.md, made from the same texts as the JSON Schema."""

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic.json_schema import JsonSchemaValue

from model.settings import PRESETS, NetworkSettings
from tasks.params.documents.json_schema import json_schema
from tasks.params.messages import fields_of

REFERENCE_FILE = Path("docs/products.md")
GUIDE_FILE = Path(__file__).with_name("guide.md")
"""What a person reads before the keys."""
PLACES = {
    "Product": "A product",
    "CsvSource": "`source` of kind csv",
    "ParquetSource": "`source` of kind parquet",
    "JsonlSource": "`source` of kind jsonl",
    "ExcelSource": "`source` of kind excel",
    "SqlSource": "`source` of kind sql",
    "PythonSource": "`source` of kind python",
    "ColumnForm": "`source.forms`, each",
    "EventList": "`events`, each",
    "Target": "`target`",
    "Predict": "`predict`",
    "GenerationSettings": "`predict.text`",
    "Expectation": "`expectations`, each",
    "DriftLimits": "`drift`",
    "TimeSplit": "`split` by time",
    "HashSplit": "`split` by hash",
    "Model": "`model`",
    "NetworkSettings": "`model.network`",
    "PretrainingSettings": "`model.pretrain`",
    "TrainingSettings": "`model.train`",
    "Gates": "`gates`",
    "SliceGates": "`gates.slices`",
    "ExportGates": "`gates.export`",
    "BehaviourTest": "`behaviour`, each",
    "Schedule": "`schedule`",
    "Ready": "`schedule.ready`",
    "Publish": "`publish`",
    "Webhook": "`publish.announce` of kind webhook",
    "SqsQueue": "`publish.announce` of kind sqs",
    "Monitor": "`monitor`",
    "Rollback": "`monitor.rollback`",
    "Retention": "`retention`",
}
"""Where the parts of a product are written, in the order of the reference."""


def text() -> str:
    """Return the reference as the file's text."""
    definitions = json_schema()["$defs"]
    assert definitions.keys() == PLACES.keys(), "every part of a product must have a place in the reference"
    sections = [line for name, place in PLACES.items() for line in _section(place, definitions[name])]
    return "\n".join([GUIDE_FILE.read_text("utf-8"), *sections, *_presets()]) + "\n"


def _section(place: str, definition: JsonSchemaValue) -> Iterator[str]:
    yield from (f"### {place}", "", " ".join(definition["description"].split()), "")
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    for key, content in definition["properties"].items():
        if not content.get("deprecated"):
            default = "**needed**" if key in definition.get("required", ()) else _default(content)
            yield f"| `{key}` | {_value(content)} | {default} | {_cell(content['description'])} |"
    yield ""


def _value(content: JsonSchemaValue) -> str:
    """Return what may be written: a type, its bounds, or its choices."""
    if "const" in content:
        return f"`{content['const']}`"
    if "enum" in content:
        return ", ".join(f"`{name}`" for name in content["enum"])
    if "anyOf" in content:
        first, *others = (each for each in content["anyOf"] if each.get("type") != "null")
        lists = [_value(each) for each in others if each.get("type") == "array" and first.get("type") == "integer"]
        return ", or ".join([_value(first), *lists])
    if "$ref" in content or "oneOf" in content:
        return "a mapping, see below"
    kind = content.get("type")
    if kind == "array":
        items = content["items"]
        if items.get("type") == "integer":
            return "a list of whole numbers"
        return "a list, see below" if "$ref" in items else f"a list of {_value(items)}s".replace("texts", "text")
    if kind == "object":
        values = content.get("additionalProperties")
        return f"names, each {_value(values)}" if isinstance(values, dict) and values else "a mapping"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    bounds = [f"{sign} {content[key]:g}" for key, sign in _BOUNDS.items() if key in content]
    return " ".join([words[str(kind)], ", ".join(bounds)]).strip()


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _default(content: JsonSchemaValue) -> str:
    default = content.get("default")
    return "" if default in (None, [], {}) else f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _presets() -> list[str]:
    fields = list(fields_of(NetworkSettings))
    sizes = {name: [str(getattr(preset, key)) for key in fields] for name, preset in PRESETS.items()}
    return [
        *("### Presets", "", "Sizes of the network, by the name in `model.preset`.", ""),
        f"| preset | {' | '.join(f'`{key}`' for key in fields)} |",
        "|---" * (len(fields) + 1) + "|",
        *(f"| `{name}` | {' | '.join(values)} |" for name, values in sizes.items()),
    ]
