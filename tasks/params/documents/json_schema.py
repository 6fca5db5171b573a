"""The JSON Schema of params.yaml, by which editors complete and check the file as people type.

It holds what types hold; rules between the parts of a product are checked by `python -m tasks.params` alone.
"""

import ast
import inspect
import json
import textwrap
from functools import cache
from itertools import pairwise
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaValue

from model.settings import NetworkSettings
from tasks.params import gates, nights, schema, sections, source
from tasks.params.answers import predict
from tasks.params.defaults import EVENT_LIST, FILLED, RENAMED
from tasks.params.expectations import Expectation
from tasks.params.messages import fields_of
from tasks.params.schema import Params
from tasks.params.yaml_file import NAME

SCHEMA_FILE = Path("params.schema.json")
_FROM = "The source's own name of the column, where it differs from the name here; beside `by` one of `sources`."


def json_schema() -> JsonSchemaValue:
    """Return the schema of the whole file."""
    content: JsonSchemaValue = TypeAdapter(Params).json_schema()
    definitions: JsonSchemaValue = content["$defs"]
    definitions["Model"]["properties"]["network"] = {"$ref": "#/$defs/NetworkSettings"}
    definitions["NetworkSettings"] = TypeAdapter(NetworkSettings).json_schema()
    for name, definition in definitions.items():
        _describe(_class(name), definition)
        if name in FILLED:
            definition["required"] = [key for key in definition["required"] if key not in FILLED[name]]
    kinds = definitions["Product"]["properties"]["columns"]
    kind = kinds["additionalProperties"]
    form = {"from": {"type": "string", "description": _FROM}, **definitions["ColumnForm"]["properties"]}
    listed = {key: content for key, content in definitions["EventList"]["properties"].items() if key in EVENT_LIST}
    long = {"type": "object", "properties": {"kind": kind, **form, **listed}, "required": ["kind"]}
    kinds["additionalProperties"] = {"anyOf": [kind, {**long, "additionalProperties": False}]}
    definitions["Target"]["properties"] |= form
    _describe(Params, content)
    for old, new in RENAMED.items():
        renamed = definitions["Product"]["properties"]
        renamed[old] = {**renamed[new], "deprecated": True, "description": f"The former name of {new}."}
    content["properties"]["products"] |= {"propertyNames": {"pattern": f"^{NAME.pattern}$"}, "minProperties": 1}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}


def text() -> str:
    """Return the schema as the file's text."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def text_of(cls: type, name: str) -> str:
    """Return what a field means: the text below it, or that of the class from which the field is inherited."""
    texts = (_texts(base).get(name, "") for base in cls.__mro__ if fields_of(base))
    return next((" ".join(text.split()) for text in texts if text), "")


@cache
def _texts(cls: type) -> dict[str, str]:
    """Return the text below each field, by the name that a file uses.

    Read from the source when asked for: pydantic's own use_attribute_docstrings reads it at every import, which
    costs each of a run's processes a sixth of a second.
    """
    (defined,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(defined, ast.ClassDef)
    aliases = {field.alias: name for name, field in getattr(cls, "__pydantic_fields__", {}).items() if field.alias}
    texts = {
        field.target.id: str(text.value.value)
        for field, text in pairwise(defined.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    return texts | {alias: texts[name] for alias, name in aliases.items() if name in texts}


def _class(name: str) -> type:
    found: type | None = {"NetworkSettings": NetworkSettings, "Expectation": Expectation}.get(name)
    modules = (schema, sections, predict, gates, nights, source)
    return found or next(vars(module)[name] for module in modules if name in vars(module))


def _describe(cls: type, definition: JsonSchemaValue) -> None:
    """Give every key the text of its field, also where the field is inherited, and put them into the class's order."""
    definition["properties"] = {key: definition["properties"][key] for key in fields_of(cls)}
    for key, content in definition["properties"].items():
        content["description"] = text_of(cls, key)
        content.pop("title", None)
