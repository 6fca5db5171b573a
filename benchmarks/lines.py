"""Keep what was measured as a line of JSON each, so that a run goes on where the last one stopped.

Lines are appended below .lamplighter; `keep` copies them into benchmarks/results, where others have them.
"""

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar


class Keyed(Protocol):
    """What is kept as a line: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> Hashable:
        """Return what a later line replaces."""


AnyLine = TypeVar("AnyLine", bound=Keyed)


@dataclass(frozen=True, kw_only=True)
class Lines(Generic[AnyLine]):
    """The lines of one benchmark."""

    kept: Path
    """In benchmarks/results."""
    file: Path
    """What this machine has added."""
    parse: Callable[[dict[str, Any]], AnyLine]

    def read(self) -> list[AnyLine]:
        """Return the lines of both files, of those with one key the last."""
        found: dict[Hashable, AnyLine] = {}
        for file in (self.kept, self.file):
            for text in file.read_text("utf-8").splitlines() if file.exists() else ():
                if text.endswith("}"):  # a run that was killed may have left half a line
                    line = self.parse(json.loads(text))
                    found.pop(line.key, None)  # so that the order is that of time
                    found[line.key] = line
        return list(found.values())

    def append(self, lines: Sequence[AnyLine]) -> None:
        """Add lines in one write, which two runs at once may do."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write("".join(f"\n{json.dumps(asdict(line))}" for line in lines) + "\n")

    def keep(self) -> None:
        """Write all lines into benchmarks/results, without spaces: they are many."""
        texts = (json.dumps(asdict(line), separators=(",", ":")) for line in self.read())
        self.kept.write_text("".join(f"{text}\n" for text in texts), "utf-8")
