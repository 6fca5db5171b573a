"""What was measured of a set: a line counts where the set and what it was measured with are the same still."""

from dataclasses import dataclass, field

from benchmarks.breadth.sets import HOME
from benchmarks.lines import Lines
from benchmarks.report import RESULTS


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
    resampled: list[float | None] = field(default_factory=list)
    """The metric of test rows drawn with replacement; the same draws for all competitors of a split."""
    seconds: float
    """Of the processor: to search and fit, or to train."""
    rows_per_second: float | None = None
    """Rows scored in a second of one core, from the rows as they come to their scores."""
    trials: int | None = None
    minutes: dict[str, float] = field(default_factory=dict)
    """Of the processor, by stage; ours alone."""

    @property
    def key(self) -> tuple[str | int, ...]:
        """Return what a later line replaces: of ours, which has no rung, one of any code and machine."""
        measured_with = (self.rung, self.revision, self.machine) if self.rung else ()
        return (self.set, self.split, self.competitor, self.data, *measured_with)


LINES = Lines(
    kept=RESULTS / "breadth_runs.jsonl",
    file=HOME / "breadth" / "runs.jsonl",
    parse=lambda content: Line(**content),
)
