"""Settings of a product in full: for DVC, which reruns what a changed one decides, and for people.

`data/settings/<product>.json` is what dvc.yaml's `params:` name: a default that is written out changes nothing in it,
and a key that an entry leaves out is not missing.
"""

import json
import os
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import JsonValue, TypeAdapter

from tasks.params.documents.json_schema import text_of
from tasks.params.schema import Product

Settings = dict[str, JsonValue]
FOLDER = Path("data/settings")
WIDTH = 110


def effective(product: Product) -> Settings:
    """Return the product's entry with every default, as params.yaml would have it; null where nothing is declared."""
    settings: Settings = _adapter().dump_python(product, mode="json", by_alias=True, exclude={"name"})
    return settings


def write(product: Product, root: Path = Path()) -> Path:
    """Write the effective settings where DVC reads them; return the file, which appears in one step."""
    file = root / FOLDER / f"{product.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp-{os.getpid()}")
    temporary.write_text(json.dumps(effective(product), indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(file)
    return file


def explained(product: Product) -> str:
    """Return the effective entry as YAML, each key below what it means."""
    return "\n".join([f"{product.name}:", *_lines(product, effective(product), "  ")]) + "\n"


@cache
def _adapter() -> TypeAdapter[Product]:
    return TypeAdapter(Product)


def _lines(part: Any, settings: Settings, indent: str) -> Iterator[str]:
    for name, value in settings.items():
        for line in textwrap.wrap(text_of(type(part), name), WIDTH - len(indent)):
            yield f"{indent}# {line}"
        own = getattr(part, name, None)
        if is_dataclass(own) and isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _lines(own, value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{indent}{name}:"
            yield from (f"{indent}  - {_flow(each)}" for each in value)
        else:
            yield f"{indent}{name}: {_flow(value)}"


def _flow(value: Any) -> str:
    """Return the value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
