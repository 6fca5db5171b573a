"""One gate with its outcome, in verdicts, records and pages: the figure, what it is held against, and its interval."""

from pydantic.dataclasses import dataclass

from tasks.runtime.records import RECORD, Record

BEHAVIOUR = "behaviour"


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Gate(Record):
    """One gate, and how the challenger stands at it."""

    name: str
    """The key in params.yaml below `gates`: limit, slices.max_gap, ...; or behaviour.0, ..."""
    passed: bool
    """Whether the challenger passes."""
    value: float | None
    """What was measured; None where the held-out rows do not define it."""
    wanted: str
    """What the gate asks for, for a person to read."""
    interval_95: tuple[float, float] | None = None
    """Of the value, with days or groups as observations; None where none was measured."""
    threshold: float | None = None
    """The number that the value, or an end of its interval, is held against."""
    about: str | None = None
    """What the gate looks at, where that is not all rows: a slice, an entry of `slices`, or a test of behaviour."""

    def __str__(self) -> str:
        """Return the gate and what it wants."""
        place = self.name if self.name.startswith(BEHAVIOUR) else f"gates.{self.name}"
        return f"{place} wants {self.wanted}"
