"""Record how a command ended, for the program that started it: no program reads another's text or exit codes.

    .lamplighter/results/<product>/<command>.json      below the command's working directory; not in git

A command writes `started` when it begins and how it ended when it ends. The file is there whole or not at all; the
program that starts a command removes the file of an earlier one first. So no file means that nothing ran, and a file
that still says `started` means that the command was killed.
"""

import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue
from pydantic.dataclasses import dataclass

from tasks.runtime.files import write_json
from tasks.runtime.records import RECORD, Record

FOLDER = Path(".lamplighter") / "results"
_PRODUCT = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Result(Record):
    """How a command ended."""

    status: Literal["started", "done", "reused", "user error", "transient error", "bug"]
    """`started` where it was killed, `reused` where nothing had to be done."""
    message: str = ""
    """The line that the command printed when it was done, or the error's text."""
    fields: Mapping[str, JsonValue] = field(default_factory=dict)
    """Facts for the next task, by name: all that a program may branch on."""
    seconds: float | None = None
    """What a command took that is done, of wall time."""


def result_file(product: str, command: str, root: Path = Path()) -> Path | None:
    """Return the place of a command's result; None for a name that no product can have."""
    return root / FOLDER / product / f"{command}.json" if _PRODUCT.fullmatch(product) else None


def write_result(file: Path | None, result: Result) -> None:
    """Write a result; nothing where there is no place for it."""
    if file is not None:
        write_json(file, result.to_json())


def read_result(file: Path) -> Result | None:
    """Return the result that a command left; None where it left none."""
    return Result.from_json(file.read_bytes()) if file.exists() else None


def seconds_of_steps(product: str) -> dict[str, float]:
    """Return how long the commands took that have ended well in this working directory; shards together."""
    found: dict[str, float] = {}
    for file in sorted((FOLDER / product).glob("*.json")):
        result, name = read_result(file), file.stem.partition("-")[0]
        if result and result.seconds is not None:
            found[name] = round(found.get(name, 0.0) + result.seconds, 2)
    return found
