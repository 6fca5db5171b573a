"""What is found about a day: figures beside their limits, and whether the day passes or is held."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a day, beside the limits."""

    name: str
    """Such as `depot: shift`."""
    seen: float
    """Of the day."""
    least: float
    """The least that may be."""
    most: float | None
    """The most that may be; None where there is no such limit."""
    unit: str = ""
    """What is counted, where the name does not say it."""

    @property
    def holds(self) -> bool:
        """Return whether the figure lies within its limits."""
        return self.least <= self.seen and (self.most is None or self.seen <= self.most)

    def __str__(self) -> str:
        limits = f"at least {self.least:g} must be" if self.most is None else f"{self.least:g} to {self.most:g} may be"
        return " ".join(filter(None, (f"{self.name}: {self.seen:g}", self.unit))) + f", and {limits}"


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How a day compares with the days before it that passed."""

    date: str
    """The day."""
    days_before: int
    """Days with rows that it was compared with."""
    accepted: str | None
    """The reason with which a person let the day pass."""
    newest_row: str | None = None
    """The newest day with rows, up to this one."""
    rows_held: int = 0
    """Rows that break no rule, and are kept back with the day."""
    figures: list[Figure] = field(default_factory=list)
    """Fewer where fewer than seven days of rows came before, or the day has none."""

    @property
    def beyond(self) -> list[Figure]:
        """Return the figures beyond their limits."""
        return [figure for figure in self.figures if not figure.holds]

    @property
    def is_held(self) -> bool:
        """Return whether the day differs in kind, and no person has accepted it."""
        return bool(self.beyond) and self.accepted is None
