"""Hold a table while it is checked: its rows as delivered and typed, and the reasons against each."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.params import RAW_ROW


@dataclass
class CheckedTable:
    """A typed table and, for each of its rows, the rules that it breaks."""

    delivered: pd.DataFrame
    """As it came, with its date as `dt`; a RangeIndex."""
    typed: pd.DataFrame
    """The same rows with declared types."""
    reasons: pd.Series = field(init=False)
    """`column: rule` texts joined by `; `, empty for a valid row."""

    def __post_init__(self) -> None:
        self.reasons = pd.Series("", index=self.delivered.index, dtype=object)

    def blame(self, bad: "pd.Series | pd.Index", column: str, rule: str) -> None:
        """Add a reason to the rows of `bad` (a boolean mask, or index labels)."""
        index = bad[bad].index if isinstance(bad, pd.Series) else bad
        earlier = self.reasons[index]
        self.reasons[index] = earlier.where(earlier == "", earlier + "; ") + f"{column}: {rule}"

    def blame_also(self, reasons: pd.Series) -> None:
        """Add the reasons found elsewhere for the same rows, in the same order."""
        found = reasons[reasons != ""]
        for reason, index in found.groupby(found).groups.items():
            column, _, rule = str(reason).partition(": ")
            self.blame(pd.Index(index), column, rule)

    @property
    def is_valid(self) -> pd.Series:
        """True for the rows without a reason."""
        return self.reasons == ""


@dataclass
class ValidationSummary:
    """What was seen of all rows, or of all labels, without the rows themselves."""

    by_date: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows in, valid and quarantined."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many rows break each rule."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """The outcome of each expectation, in the order declared."""
    n_corrected: int = 0
    """Rows that hold what a person corrected."""

    def count(self, judged: "CheckedTable") -> None:
        """Add whole dates that have been judged."""
        self.n_corrected += int(judged.delivered[RAW_ROW].notna().sum())
        table = pd.DataFrame({"dt": judged.delivered["dt"], "valid": judged.is_valid})
        groups = table.groupby("dt", sort=True)["valid"].agg(["size", "sum"])
        for day, size, valid in groups.itertuples():
            counts = {"rows_in": int(size), "rows_valid": int(valid), "rows_quarantined": int(size - valid)}
            self.by_date[str(day)] = counts
        for reasons, n in judged.reasons[~judged.is_valid].value_counts().items():
            self.reasons.update(dict.fromkeys(str(reasons).split("; "), int(n)))

    @property
    def totals(self) -> dict[str, int]:
        """The sums over the dates."""
        return {kind: sum(day[kind] for day in self.by_date.values()) for kind in NOTHING}


Read = Callable[[list[Path], list[str]], pd.DataFrame]
"""Reads some columns of files of dates: `tasks.rows.corrections.read_corrected` with its corrections."""
NOTHING = {"rows_in": 0, "rows_valid": 0, "rows_quarantined": 0}
