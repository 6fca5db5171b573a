"""What was measured, a line of JSON each: kept so that a run goes on where the last one stopped.

Lines are appended below .lamplighter/breadth; `keep` copies them into benchmarks/results, where others have them. A
line counts where the set and what it was measured with are the same still; a split is compared on one machine.
"""

import json
from dataclasses import asdict, dataclass, field

from benchmarks.breadth.sets import HOME
from benchmarks.report import RESULTS

FILE = HOME / "breadth" / "runs.jsonl"
KEPT = RESULTS / "breadth_runs.jsonl"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One competitor on one split of one set."""

    set: str
    split: int
    competitor: str
    rung: int
    """Seconds that it was allowed; 0 for what takes the time that it takes."""
    data: str
    """The digest of the set."""
    revision: str
    """Of the code that was measured, or of a peer's pins and script."""
    machine: str
    value: float
    """The set's metric on the test rows."""
    seconds: float
    """Of the processor: to search and fit, or to train."""
    rows_per_second: float | None = None
    """Rows scored in a second of one core, from the rows as they come to their scores."""
    trials: int | None = None
    minutes: dict[str, float] = field(default_factory=dict)
    """Of the processor, by stage; ours alone."""

    @property
    def key(self) -> tuple[str | int, ...]:
        """Return what a later line replaces."""
        return (self.set, self.split, self.competitor, self.rung, self.data, self.revision, self.machine)


def read() -> list[Line]:
    """Return the lines of both files, of those with one key the last."""
    found = {}
    for file in (KEPT, FILE):
        for line in file.read_text("utf-8").splitlines() if file.exists() else ():
            if line.endswith("}"):  # a run that was killed may have left half a line
                one = Line(**json.loads(line))
                found.pop(one.key, None)  # so that the order is that of time
                found[one.key] = one
    return list(found.values())


def append(lines: list[Line]) -> None:
    """Add lines in one write."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"\n{json.dumps(asdict(line))}" for line in lines)
    with FILE.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def keep() -> None:
    """Write all lines into benchmarks/results."""
    KEPT.write_text("".join(f"{json.dumps(asdict(line))}\n" for line in read()), "utf-8")
