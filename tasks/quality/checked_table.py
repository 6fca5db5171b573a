"""Hold a table while it is checked: its rows as delivered and typed, and the reasons against each."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from tasks.params import RAW_ROW

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
    reasons: pd.Series = field(init=False)
    """`column: rule` texts joined by `; `, empty for a valid row."""
    unexpected: list[pd.Index] = field(default_factory=list)
    """The rows that break each expectation, as they were evaluated last."""

    def __post_init__(self) -> None:
        self.reasons = pd.Series("", index=self.delivered.index, dtype=object)

    def add_violation(self, bad: "pd.Series | pd.Index", column: str, rule: str) -> None:
        """Add a reason to the rows of `bad` (a boolean mask, or index labels)."""
        index = bad[bad].index if isinstance(bad, pd.Series) else bad
        earlier = self.reasons[index]
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


@dataclass
class ValidationSummary:
    """Counts, reasons and outcomes of all rows, or of all labels, without the rows themselves."""

    by_date: dict[str, Counts] = field(default_factory=dict)
    """Rows in, valid and quarantined."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many rows break each rule."""
    outcomes: list[Outcome] = field(default_factory=list)
    """The outcome of each expectation, in the order declared."""
    n_corrected: int = 0
    """Rows that hold a person's corrections."""
    n_judged: int = 0
    """Rows, without those of the days that the run goes on without."""
    by_column: Counter[str] = field(default_factory=Counter)
    """How many of these are in quarantine because of each column."""
    examples: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Date and place in its file, from 0, of the first row that breaks each rule."""

    def add(self, table: CheckedTable, held: Iterable[str] = ()) -> None:
        """Add whole dates that have been checked; those in `held` count for no column."""
        self.n_corrected += int(table.delivered[RAW_ROW].notna().sum())
        valid = pd.DataFrame({"dt": table.delivered["dt"], "valid": table.is_valid})
        for day, size, n_valid in valid.groupby("dt", sort=True)["valid"].agg(["size", "sum"]).itertuples():
            counts = Counts(rows_in=int(size), rows_valid=int(n_valid), rows_quarantined=int(size - n_valid))
            self.by_date[str(day)] = counts
        days = table.delivered["dt"]
        bad = pd.DataFrame({"dt": days, "place": table.delivered.groupby("dt").cumcount()})[~table.is_valid]
        is_judged = ~days.isin([*held])
        bad["is_judged"] = is_judged
        self.n_judged += int(is_judged.sum())
        for reasons, rows in bad.groupby(table.reasons[~table.is_valid], sort=True):
            rules = str(reasons).split("; ")
            self.reasons.update(dict.fromkeys(rules, len(rows)))
            columns = {rule.partition(": ")[0] for rule in rules}
            self.by_column.update(dict.fromkeys(columns - {HELD}, int(rows["is_judged"].sum())))
            for rule in rules:
                first = str(rows["dt"].iloc[0]), int(rows["place"].iloc[0])
                self.examples[rule] = min(self.examples.get(rule, first), first)

    @property
    def totals(self) -> Counts:
        """Return the sums over the dates."""
        return sum(self.by_date.values(), Counts())
