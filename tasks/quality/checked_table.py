"""Hold a table while it is checked: its rows as delivered and typed, and the reasons against each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import pandas as pd

HELD = "day held"
"""Where a reason names a column, that of a row on a held day says this: see `tasks.quality.judging`."""
Kwargs = dict[str, Any]
"""Arguments of an expectation, in the vocabulary of Great Expectations."""


@dataclass
class CheckedTable:
    """A typed table and, for each of its rows, the rules that it breaks."""

    delivered: pd.DataFrame
    """The rows as delivered, with their date as `dt`; a RangeIndex."""
    typed: pd.DataFrame
    """The same rows with declared types."""
    days: Sequence[date] = ()
    """The days whose rows they are, each whole and in order; one may have none."""
    reasons: pd.Series = field(init=False)
    """`column: rule` texts joined by `; `, empty for a valid row."""
    takes_key: pd.Series = field(init=False)
    """Whether a row takes its key: a later one with the same key is a duplicate."""

    def __post_init__(self) -> None:
        self.reasons = pd.Series("", index=self.delivered.index, dtype=object)
        self.takes_key = pd.Series(True, index=self.delivered.index)

    def add_violation(self, bad: "pd.Series | pd.Index", column: str, rule: str) -> None:
        """Add a reason to the rows of `bad` (a boolean mask, or index labels)."""
        index = bad[bad].index if isinstance(bad, pd.Series) else bad
        earlier = self.reasons[index]
        if len(index):
            self.reasons[index] = earlier.where(earlier == "", earlier + "; ") + f"{column}: {rule}"

    def add_violations(self, reasons: pd.Series) -> None:
        """Add the reasons found elsewhere for the same rows, in the same order."""
        found = reasons[reasons != ""]
        for reason, index in found.groupby(found).groups.items():
            column, _, rule = str(reason).partition(": ")
            self.add_violation(pd.Index(index), column, rule)

    @property
    def is_valid(self) -> pd.Series:
        """Return True for the rows without a reason."""
        return self.reasons == ""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Rows, or labels, by what became of them: in = valid + quarantined."""

    rows_in: int = 0
    """As delivered."""
    rows_valid: int = 0
    """Passed on."""
    rows_quarantined: int = 0
    """Kept back with the reasons."""

    def __add__(self, other: "Counts") -> "Counts":
        """Return the sums."""
        return Counts(
            rows_in=self.rows_in + other.rows_in,
            rows_valid=self.rows_valid + other.rows_valid,
            rows_quarantined=self.rows_quarantined + other.rows_quarantined,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one expectation, without any value of a row."""

    type: str
    """The expectation, such as expect_column_values_to_be_between."""
    columns: str
    """The columns that it names, joined by `+`, or `table`."""
    severity: str
    """critical, warning or info."""
    kwargs: Kwargs
    """The arguments as declared."""
    success: bool
    """Whether it holds."""
    rows_seen: int | None
    """Rows that were judged; None where the whole table is."""
    rows_missing: int
    """Rows without a cell to judge."""
    rows_unexpected: int | None
    """Rows that break it; None where the whole table is judged."""
    error: str | None
    """The reason why it could not be evaluated."""
    observed: int | float | str | None = None
    """The number or time observed of a whole table or column, such as its mean."""

    def to_json(self) -> dict[str, object]:
        """Return the entry of the report; `observed` only where there is one."""
        return {name: value for name, value in asdict(self).items() if name != "observed" or value is not None}
