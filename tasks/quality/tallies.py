"""Count, day by day, what is found of a table of several days: rows, reasons, and what each expectation says.

Great Expectations is asked once for all days of the table, as a question costs it a tenth of a second, and the rows
that it names are counted by day. Where the counts of the days are not together what it counted, as with an expectation
that looks at some rows only, each day is judged by itself.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from itertools import pairwise

import numpy as np
import pandas as pd

from tasks.params import RAW_ROW, Expectation
from tasks.quality.checked_table import CheckedTable, Outcome
from tasks.quality.expectations import Finding, columns_of, evaluate_expectations
from tasks.quality.ledger import JudgedDay, Tally

_NEVER = ("neither", "never")
_ANY = ("either_value_is_missing", "any_value_is_missing")


class Days:
    """The days of a table, whose rows lie in order of day."""

    def __init__(self, dt: pd.Series, days: Sequence[date]) -> None:
        """Take the date of each row, and the days, in order; one may have no row."""
        self.days = days
        counts = dt.value_counts(sort=False)
        n_rows = [int(counts.get(day.isoformat(), 0)) for day in days]
        ends = np.cumsum([0, *n_rows])
        self.slices = [slice(int(start), int(end)) for start, end in pairwise(ends)]
        """The rows of each day."""
        self.number = np.repeat(np.arange(len(days)), n_rows)
        """The place of each row's day among the days. Shapes: int64 [n]."""

    def count(self, rows: np.ndarray | None = None) -> list[int]:
        """Return how many rows, or how many of some, each day has. Shapes: bool [n]."""
        numbers = self.number if rows is None else self.number[rows]
        return [int(n) for n in np.bincount(numbers, minlength=len(self.days))]

    @property
    def places(self) -> np.ndarray:
        """Return the place of each row in its day, from 0. Shapes: int64 [n]."""
        return np.arange(len(self.number)) - np.array([rows.start for rows in self.slices])[self.number]


def evaluate_by_day(
    typed: pd.DataFrame, expectations: Sequence[Expectation], days: Days
) -> tuple[list[Finding], list[list[Tally]]]:
    """Return what expectations that judge each row by itself say of a table, and of each of its days."""
    if not len(typed):
        return [], [[Tally() for _ in expectations] for _ in days.days]
    findings = evaluate_expectations(typed, expectations)
    tallies = [_tallies(typed, each, finding, days) for each, finding in zip(expectations, findings, strict=True)]
    if all(_add_up(each, finding.outcome) for each, finding in zip(tallies, findings, strict=True)):
        return findings, [[each[number] for each in tallies] for number in range(len(days.days))]
    if len(days.days) == 1:
        return findings, [[_tally_of(finding.outcome) for finding in findings]]
    by_day = []
    for rows in days.slices:
        found = evaluate_expectations(typed[rows].reset_index(drop=True), expectations)
        by_day.append([Finding(each.outcome, each.bad + rows.start) for each in found])
    together = [
        Finding(each[0].outcome, pd.Index(np.concatenate([one.bad for one in each]).astype(int)))
        for each in zip(*by_day, strict=True)
    ]
    return together, [[_tally_of(each.outcome) for each in day] for day in by_day]


def _tallies(typed: pd.DataFrame, expectation: Expectation, finding: Finding, days: Days) -> list[Tally]:
    """Return what Great Expectations would say of each day, by the rows that it named."""
    bad = np.zeros(len(typed), bool)
    bad[finding.bad] = True
    counts = days.count(), days.count(_missing(typed, expectation)), days.count(bad)
    return [Tally(seen=n, missing=missing, unexpected=n_bad) for n, missing, n_bad in zip(*counts, strict=True)]


def _missing(typed: pd.DataFrame, expectation: Expectation) -> np.ndarray:
    """Return the rows that are not judged, as their cells are missing. Shapes: bool [n]."""
    cells = typed[[name for name in columns_of(expectation.kwargs) if name in typed]].isna()
    ignored = expectation.kwargs.get("ignore_row_if")
    if expectation.type.endswith("_null") or ignored in _NEVER:
        return np.zeros(len(typed), bool)
    return (cells.any(axis=1) if ignored in _ANY else cells.all(axis=1)).to_numpy()


def _add_up(tallies: list[Tally], outcome: Outcome) -> bool:
    if outcome.error:
        return False
    counted = [sum(getattr(day, name) for day in tallies) for name in ("seen", "missing", "unexpected")]
    return counted == [outcome.rows_seen, outcome.rows_missing, outcome.rows_unexpected]


def _tally_of(outcome: Outcome) -> Tally:
    return Tally(
        seen=outcome.rows_seen or 0,
        missing=outcome.rows_missing,
        unexpected=outcome.rows_unexpected or 0,
        error=outcome.error,
    )


def total(expectation: Expectation, tallies: Sequence[Tally]) -> Outcome:
    """Return one expectation's outcome on days together, by Great Expectations' own rule."""
    errors = [each.error for each in tallies if each.error]
    n_missing, n_bad = sum(each.missing for each in tallies), sum(each.unexpected for each in tallies)
    n_seen = sum(each.seen for each in tallies)
    n_judged = n_seen - n_missing
    least = expectation.kwargs.get("mostly", 1)
    return Outcome(
        type=expectation.type,
        columns="+".join(columns_of(expectation.kwargs)) or "table",
        severity=expectation.severity,
        kwargs=expectation.kwargs,
        success=not errors and (n_judged == 0 or (n_judged - n_bad) / n_judged >= least),
        rows_seen=n_seen,
        rows_missing=n_missing,
        rows_unexpected=n_bad,
        error=errors[0] if errors else None,
    )


def sum_up(table: CheckedTable, days: Days, tallies: list[list[Tally]], inputs: Sequence[str]) -> list[JudgedDay]:
    """Return what was found of each day of a table, but for whether it is held."""
    n_rows, n_fit = days.count(), days.count(table.is_valid.to_numpy())
    n_corrected = days.count(table.delivered[RAW_ROW].notna().to_numpy())
    broken = [_Broken() for _ in days.days]
    is_bad = ~table.is_valid.to_numpy()
    bad = pd.DataFrame({"day": days.number[is_bad], "place": days.places[is_bad]})
    bad["reasons"] = table.reasons.to_numpy()[is_bad]
    for (number, reasons), size, first in bad.groupby(["day", "reasons"])["place"].agg(["size", "min"]).itertuples():
        broken[number].add(str(reasons).split("; "), int(size), int(first))
    return [
        JudgedDay(
            input=inputs[number],
            rows_in=n_rows[number],
            rows_fit=n_fit[number],
            corrected=n_corrected[number],
            reasons=broken[number].reasons,
            columns=broken[number].columns,
            examples=broken[number].examples,
            by_row=tallies[number],
        )
        for number in range(len(days.days))
    ]


class _Broken:
    """The rules that rows of one day break."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.columns: Counter[str] = Counter()
        self.examples: dict[str, int] = {}

    def add(self, rules: Sequence[str], n: int, first: int) -> None:
        """Add rows that break the same rules."""
        self.reasons.update(dict.fromkeys(rules, n))
        self.columns.update(dict.fromkeys({rule.partition(": ")[0] for rule in rules}, n))
        for rule in rules:
            self.examples[rule] = min(self.examples.get(rule, first), first)
