"""Read params.yaml: its text, what it holds, and the products that it declares.

Every mistake of the file is reported at once, each with rule, value, place and remedy.
"""

import json
import re
from contextlib import suppress
from dataclasses import fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from tasks.params.defaults import Entry, complete
from tasks.params.messages import dotted, fields_of, mistakes_of, shown, unknown_key, unknown_places
from tasks.params.rules import Parts, mistakes_between, parts_of
from tasks.params.schema import PARAMS_FILE, Params, Product
from tasks.runtime.errors import UserError
from tasks.runtime.records import parse_date

NAME = re.compile(r"[a-z][a-z0-9-]{0,62}[a-z0-9]")


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check the whole file. Raises UserError listing every mistake in it."""
    return loads(read_text(path), str(path))


def read_text(path: Path = PARAMS_FILE) -> str:
    """Return the file's text. Raises UserError where there is none."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path}: the file must exist, and {path.resolve()} does not; run from the repository's root"
        ) from None
    except UnicodeDecodeError as error:
        raise _no_yaml(error, str(path)) from None


def loads(text: str, file: str = str(PARAMS_FILE)) -> Params:
    """Read and check the text of a params file. Raises UserError listing every mistake in it."""
    return parse(raw(text, file), file)


def raw(text: str, file: str = str(PARAMS_FILE)) -> Any:
    """Return what a params file's text holds, unchecked. Raises UserError where it is no YAML."""
    with suppress(yaml.YAMLError, ValueError):
        return yaml.load(text, _FastLoader)  # noqa: S506 (a SafeLoader)
    try:  # the other parser shows the place in the text
        return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a bare date that no calendar has
        raise _no_yaml(error, file) from None


def parse(content: Any, file: str = str(PARAMS_FILE)) -> Params:
    """Check what a params file holds. Raises UserError listing every mistake in it."""
    mistakes: list[str] = []
    content = content if isinstance(content, dict) else {}
    known = ["as_of", "products"]
    mistakes += [unknown_key(dotted((str(key),)), str(key), known) for key in content if key not in known]
    as_of = _read_as_of(content.get("as_of"), mistakes)
    entries = content.get("products")
    if not isinstance(entries, dict) or not entries:
        mistakes.append(f"products must hold at least one product, got {entries!r}; add an entry")
        entries = {}
    products = {str(name): _read_product(name, entry, mistakes) for name, entry in entries.items()}
    if mistakes:
        raise UserError("\n".join(f"{file}: {mistake}" for mistake in mistakes))
    assert as_of is not None
    return Params(as_of=as_of, products={name: product for name, product in products.items() if product})


def _read_as_of(value: Any, mistakes: list[str]) -> date | None:
    if isinstance(value, date):
        mistakes.append(f'as_of must be quoted, got a bare {value}; use "{value}"')
        return None
    try:
        return parse_date(value if isinstance(value, str) else repr(value))
    except ValueError:
        mistakes.append(f'as_of must be a date written as YYYY-MM-DD, got {value!r}; use for example "2013-06-30"')
        return None


def _read_product(name: Any, entry: Any, mistakes: list[str]) -> Product | None:
    """Return the product, or None with what is wrong appended to `mistakes`."""
    place = ("products", str(name))
    if not isinstance(name, str) or not NAME.fullmatch(name):
        mistakes.append(
            "products: a name must be 2 to 64 lower-case letters, digits and hyphens, "
            f"starting with a letter, got {name!r}; rename it"
        )
    if not isinstance(entry, dict):
        mistakes.append(f"{dotted(place)} must be a mapping, got {shown(entry)}; write its keys below it")
        return None
    entry = {str(key): _plain(value, (*place, str(key)), mistakes) for key, value in entry.items()}
    if "name" in entry:
        mistakes.append(unknown_key(dotted((*place, "name")), "name", list(fields_of(Product))))
    entry = {**complete(str(name), entry), "name": str(name)}
    product = _validated(entry)
    if isinstance(product, Product):
        lines, parts = [], parts_of(product)
    else:
        lines = mistakes_of(product, Product, place)
        # Without its unknown keys a part may break further rules, which are reported at once.
        entry = _without(entry, unknown_places(product, Product))
        retried = _validated(entry)
        if isinstance(retried, Product):
            parts = parts_of(retried)
        else:
            lines += [line for line in mistakes_of(retried, Product, place) if line not in lines]
            parts = _readable_parts(entry, {each["loc"] for each in retried.errors(include_url=False)})
    mistakes += lines + [f"{dotted(place)}.{line}" for line in mistakes_between(parts)]
    return product if isinstance(product, Product) else None


def _validated(entry: Entry) -> Product | ValidationError:
    try:
        return _adapter(Product).validate_json(json.dumps(entry))
    except ValidationError as error:
        return error


def _without(content: Any, places: list[tuple[str, ...]]) -> Any:
    """Return nested mappings and lists without the keys at these places."""
    if isinstance(content, list):
        return [_without(each, _below(places, str(i))) for i, each in enumerate(content)]
    if not isinstance(content, dict):
        return content
    return {key: _without(each, _below(places, key)) for key, each in content.items() if (key,) not in places}


def _below(places: list[tuple[str, ...]], key: str) -> list[tuple[str, ...]]:
    return [place[1:] for place in places if place[:1] == (key,)]


def _readable_parts(entry: Entry, wrong: set[tuple[int | str, ...]]) -> Parts:
    """Return the parts of an entry without those that hold the places of errors."""
    parts: dict[str, Any] = {"has_key": entry.get("key") is not None, "has_time": entry.get("time") is not None}
    names = {loc[0] for loc in wrong}
    for field in fields(Parts):
        if field.name in parts:
            continue
        value = entry.get(field.name)
        if field.name not in names:
            parts[field.name] = _read_part(field.name, value) if field.name in entry else None
        elif field.name in ("columns", "pii") and isinstance(value, dict):
            parts[field.name] = {key: None if (field.name, key) in wrong else each for key, each in value.items()}
        elif field.name == "expectations" and isinstance(value, list):
            bad = {loc[1] for loc in wrong if loc[0] == field.name}
            parts[field.name] = tuple(
                None if i in bad else _read_part("expectations", [each])[0] for i, each in enumerate(value)
            )
        else:
            parts[field.name] = None
    return Parts(**parts)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _read_part(name: str, value: Any) -> Any:
    """Return the value of one key of an entry, of which no error is known."""
    field = fields_of(Product)[name]
    kind: Any = field.annotation
    if field.discriminator is not None:
        kind = Annotated[kind, Field(discriminator=field.discriminator)]
    return _adapter(kind).validate_json(json.dumps(value))


def _plain(value: Any, place: tuple[str, ...], mistakes: list[str]) -> Any:
    """Return a value of YAML as JSON has it: text as keys, and no bare dates, which are appended to `mistakes`."""
    if isinstance(value, dict):
        return {str(key): _plain(each, (*place, str(key)), mistakes) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, (*place, str(i)), mistakes) for i, each in enumerate(value)]
    if isinstance(value, date):
        mistakes.append(f'{dotted(place)} must be quoted, got a bare {value}; use "{value}"')
        return str(value)
    if isinstance(value, bytes | set):
        mistakes.append(f"{dotted(place)} must be text, a number, a list or a mapping, got {value!r}; write it so")
        return str(value)
    return value


def _no_yaml(error: Exception, file: str) -> UserError:
    return UserError(f"{file}: must be YAML; {' '.join(str(error).split())}")


class _Rules(yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """What YAML is here: a key given twice, of which YAML would keep the last, is refused, and 1e-3 is a number."""

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


# As in YAML 1.2: PyYAML's 1.1 takes a number without a point for text.
_Rules.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _Loader(_Rules, yaml.SafeLoader):
    """The safe loader whose messages show the place in the text."""


class _FastLoader(_Rules, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader of libyaml, where PyYAML was built with it, which takes a tenth of the time."""
