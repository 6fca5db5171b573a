"""Read and write records of JSON: frozen dataclasses whose fields are the keys, checked when they are read.

    @dataclass(frozen=True, kw_only=True, config=RECORD)        # pydantic.dataclasses.dataclass
    class Pointer(Record):
        dt: date

`Pointer.from_json(text)` refuses a missing key or a value of another type; `pointer.to_json()` has the keys in the
order of the fields. Keys that the reader does not know, as a newer writer adds them, are ignored.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Self

from pydantic import ConfigDict, JsonValue, TypeAdapter

RECORD = ConfigDict(
    extra="ignore",
    strict=True,
    validate_by_name=True,
    validate_by_alias=True,
    serialize_by_alias=True,
    use_attribute_docstrings=True,
)
"""The rules of every record."""
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


class Record:
    """A frozen dataclass of pydantic's that is kept as one JSON object."""

    @classmethod
    def from_json(cls, content: str | bytes | Mapping[str, object]) -> Self:
        """Return the record of a JSON text, or of one that has been parsed.

        Raises ValueError that names every key which is missing or has a value of another type.
        """
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        record: Self = adapter(cls).validate_json(text)
        return record

    def to_json(self) -> dict[str, JsonValue]:
        """Return the record as JSON that has been parsed: its keys in the order of the fields."""
        content: dict[str, JsonValue] = adapter(type(self)).dump_python(self, mode="json")
        return content


def adapter(record: type[Record]) -> TypeAdapter[Any]:
    """Return pydantic's reader and writer of a kind of record; made once, as that takes milliseconds."""
    if record not in _ADAPTERS:
        _ADAPTERS[record] = TypeAdapter(record)
    return _ADAPTERS[record]


def seal_of(content: Mapping[str, object]) -> str:
    """Return the SHA-256 of JSON that has been parsed: the `seal` that objects in the store carry of all the rest."""
    return seal_of_text(json.dumps(content, sort_keys=True, allow_nan=False))


def seal_of_text(text: str) -> str:
    """Return the seal of JSON whose names are sorted, as `json.dumps` writes it."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse_date(text: str) -> date:
    """Return the date written as YYYY-MM-DD and nothing else. Raises ValueError."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise ValueError(f"must be a date written as YYYY-MM-DD, got {text!r}")
    return date.fromisoformat(text)
