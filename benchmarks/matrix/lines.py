"""What was measured of each competitor on each product."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.lines import Lines
from benchmarks.peers import HOME
from benchmarks.report import RESULTS

FOLDER = HOME / "matrix"


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
    worth: dict[str, float] = field(default_factory=dict)
    """Of rows that are made up: what else was measured of them."""

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


def _line(content: dict[str, Any]) -> Line:
    for name in ("interval", "lead"):
        content[name] = content[name] and tuple(content[name])
    return Line(**content)


LINES = Lines(kept=RESULTS / "matrix_runs.jsonl", file=FOLDER / "runs.jsonl", parse=_line)
