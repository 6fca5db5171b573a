"""What was measured, a line of JSON each: kept so that a run goes on where the last one stopped.

Lines are appended below .lamplighter/matrix; `keep` copies them into benchmarks/results, where others have them.
"""

import json
from dataclasses import asdict, dataclass, field

from benchmarks.peers import HOME
from benchmarks.report import RESULTS

FOLDER = HOME / "matrix"
KEPT = RESULTS / "matrix_runs.jsonl"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One competitor on one product. What is not measured of it is None."""

    product: str
    competitor: str
    revision: str
    """Of our code, and for a peer of its pins besides."""
    machine: str
    metric: str
    lower_is_better: bool
    rows: dict[str, int]
    """Of each part."""
    value: float
    """The metric on the held-out rows."""
    interval: tuple[float, float] | None
    """Of 95 %, rows drawn with replacement."""
    lead: tuple[float, float, float] | None = None
    """How much better ours is on the same rows, with the 95 % interval: below 0 where it is worse."""
    n_blocks: int = 0
    """Of rows: the observations of that interval."""
    seconds: float | None = None
    """Of the processor: to train, from the parts as files to a model that can score."""
    rows_per_second: int | None = None
    """Rows scored in a second of one core, from the rows as they come to their scores."""
    training_bytes: int | None = None
    """The most memory that the process which trains has held."""
    scoring_bytes: int | None = None
    """The most memory of a process while it scores."""
    minutes: dict[str, float] = field(default_factory=dict)
    """Of the processor, by stage; ours alone."""

    @property
    def key(self) -> tuple[str, ...]:
        """Return what a later line replaces."""
        return (self.product, self.competitor, self.machine)

    @property
    def summary(self) -> str:
        """Return it for a person to read."""
        lead = "" if self.lead is None else "; ours leads by {:+.4f} ({:+.4f} to {:+.4f})".format(*self.lead)
        took = "" if self.seconds is None else f", {self.seconds:.1f} s"
        return f"{self.competitor} {self.metric} {self.value:.4f}{lead}{took}"


def read() -> list[Line]:
    """Return the lines of all files, of those with one key the last."""
    found: dict[tuple[str, ...], Line] = {}
    for file in (KEPT, FOLDER / "runs.jsonl"):
        for text in file.read_text("utf-8").splitlines() if file.exists() else ():
            if text.endswith("}"):  # a run that was killed may have left half a line
                line = _line(text)
                found.pop(line.key, None)  # so that the order is that of time
                found[line.key] = line
    return list(found.values())


def append(line: Line) -> None:
    """Add a line in one write, which two runs at once may do."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(asdict(line))}\n")


def keep() -> None:
    """Write all lines into benchmarks/results."""
    KEPT.write_text("".join(f"{json.dumps(asdict(line))}\n" for line in read()), "utf-8")


def _line(text: str) -> Line:
    content = json.loads(text)
    for name in ("interval", "lead"):
        content[name] = content[name] and tuple(content[name])
    return Line(**content)
