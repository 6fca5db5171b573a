"""What was found of one day, and of the days of a month together."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import field

from pydantic.dataclasses import dataclass as checked_dataclass

from tasks.quality.checked_table import HELD, Counts, Outcome


@checked_dataclass(frozen=True, kw_only=True)
class Tally:
    """What one expectation says of the rows of one day."""

    seen: int = 0
    """Rows."""
    missing: int = 0
    """Of these, rows without a cell to judge."""
    unexpected: int = 0
    """Rows that break it."""
    error: str | None = None
    """The reason why it could not be evaluated."""


@checked_dataclass(frozen=True, kw_only=True)
class JudgedDay:
    """What was found of the rows of one day, or of the labels that became known on it."""

    input: str
    """What identifies the rows and what is known about them."""
    window: str | None = None
    """What identifies the rows of the days with which those expectations judged it that are about a whole table."""
    rows_in: int
    """Rows."""
    rows_fit: int
    """Of these, rows that break no rule."""
    corrected: int = 0
    """Rows that hold a person's corrections."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Rows by the rule that they break."""
    columns: dict[str, int] = field(default_factory=dict)
    """Rows by the column because of which they are in quarantine."""
    examples: dict[str, int] = field(default_factory=dict)
    """Place, from 0, of the first row that breaks each rule."""
    by_row: list[Tally] = field(default_factory=list)
    """Of the expectations that judge each row by itself, in the order declared."""
    whole: list[Outcome] = field(default_factory=list)
    """Of those about a whole column or table, likewise; empty where the day was not judged by them."""
    held: str | None = None
    """The figures because of which its rows are held back."""

    @property
    def counts(self) -> Counts:
        """Return what became of the rows."""
        n_valid = 0 if self.held is not None else self.rows_fit
        return Counts(rows_in=self.rows_in, rows_valid=n_valid, rows_quarantined=self.rows_in - n_valid)


@checked_dataclass(frozen=True, kw_only=True)
class DaysTogether:
    """What was found of several days, as the report wants it."""

    rows_in: int = 0
    """Rows."""
    rows_valid: int = 0
    """Of these, rows that are passed on."""
    corrected: int = 0
    """Rows that hold a person's corrections."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Rows by the rule that they break, or because of which their day is held."""
    columns: dict[str, int] = field(default_factory=dict)
    """Rows by the column because of which they are in quarantine."""
    examples: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Day and place in it, from 0, of the first row that breaks each rule."""
    by_row: list[Tally] = field(default_factory=list)
    """Of the expectations that judge each row by itself, in the order declared."""
    without_valid: list[str] = field(default_factory=list)
    """Days of which no row is passed on."""

    @property
    def counts(self) -> Counts:
        """Return what became of the rows."""
        return Counts(rows_in=self.rows_in, rows_valid=self.rows_valid, rows_quarantined=self.rows_in - self.rows_valid)


def together(days: Mapping[str, JudgedDay]) -> DaysTogether:
    """Sum up what was found of some days, by day."""
    reasons, columns, examples = Counter[str](), Counter[str](), dict[str, tuple[str, int]]()
    ordered = dict(sorted(days.items()))
    for day, found in ordered.items():
        reasons.update(found.reasons)
        columns.update(found.columns)
        if found.held is not None and found.rows_fit:
            reasons[f"{HELD}: {found.held}"] += found.rows_fit
        for rule, place in found.examples.items():
            examples.setdefault(rule, (day, place))
    return DaysTogether(
        rows_in=sum(found.rows_in for found in ordered.values()),
        rows_valid=sum(found.counts.rows_valid for found in ordered.values()),
        corrected=sum(found.corrected for found in ordered.values()),
        reasons=dict(reasons),
        columns=dict(columns),
        examples=examples,
        by_row=[_sum([*tallies]) for tallies in zip(*(found.by_row for found in ordered.values()), strict=True)],
        without_valid=[day for day, found in ordered.items() if not found.counts.rows_valid],
    )


def _sum(tallies: list[Tally]) -> Tally:
    return Tally(
        seen=sum(each.seen for each in tallies),
        missing=sum(each.missing for each in tallies),
        unexpected=sum(each.unexpected for each in tallies),
        error=next((each.error for each in tallies if each.error), None),
    )
