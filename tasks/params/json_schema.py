"""The JSON Schema of params.yaml, by which editors complete and check the file as people type.

It holds what types hold; rules between the parts of a product are checked by `python -m tasks.params` alone.
"""

import json
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaValue

from model.settings import NetworkSettings
from tasks.params import schema, source
from tasks.params.defaults import FILLED, RENAMED
from tasks.params.expectations import Expectation
from tasks.params.messages import fields_of, text_of
from tasks.params.schema import Params
from tasks.params.yaml_file import NAME

SCHEMA_FILE = Path("params.schema.json")


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
    _describe(Params, content)
    for old, new in RENAMED.items():
        renamed = definitions["Product"]["properties"]
        renamed[old] = {**renamed[new], "deprecated": True, "description": f"The former name of {new}."}
    content["properties"]["products"] |= {"propertyNames": {"pattern": f"^{NAME.pattern}$"}, "minProperties": 1}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}


def text() -> str:
    """Return the schema as the file's text."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def _class(name: str) -> type:
    found = {"NetworkSettings": NetworkSettings, "Expectation": Expectation}.get(name)
    return found or getattr(schema, name, None) or getattr(source, name)


def _describe(cls: type, definition: JsonSchemaValue) -> None:
    """Give every key the text of its field, also where the field is inherited, and put them into the class's order."""
    definition["properties"] = {key: definition["properties"][key] for key in fields_of(cls)}
    for key, content in definition["properties"].items():
        content["description"] = text_of(cls, key)
        content.pop("title", None)
