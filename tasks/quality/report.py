"""Put together what validate found: validation.json and the stage's line."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta

from tasks.params import Expectation
from tasks.quality.checked_table import Counts, Outcome
from tasks.quality.expectations import columns_of
from tasks.quality.ledger import DaysTogether, JudgedDay, JudgedDays, together
from tasks.quality.tallies import total
from tasks.quality.verdicts import Drift
from tasks.rows.losses import Losses
from tasks.rows.partitions import KEPT_AS_DAYS

DAYS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class ValidationSummary:
    """Counts, reasons and outcomes of all rows, or of all labels."""

    by_period: dict[str, Counts]
    """Rows in, valid and quarantined, by day and, of months that have ended long before the last day, by month."""
    outcomes: list[Outcome]
    """The outcome of each expectation, in the order declared."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many rows break each rule."""
    n_corrected: int = 0
    """Rows that hold a person's corrections."""
    n_judged: int = 0
    """Rows, without those of the days that the run goes on without."""
    by_column: Counter[str] = field(default_factory=Counter)
    """How many of these are in quarantine because of each column."""
    examples: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Day and place in it, from 0, of the first row that breaks each rule."""
    last: Counts = field(default_factory=Counts)
    """Rows in, valid and quarantined of the last day."""
    without_valid: list[str] = field(default_factory=list)
    """Days of which every row is in quarantine."""

    @classmethod
    def of(
        cls,
        days: JudgedDays,
        expectations: Sequence[Expectation],
        last: date,
        left_behind: Collection[str] = (),
    ) -> "ValidationSummary":
        """Sum up what was found of the days up to the last one, without reading any row.

        Outcomes are about the days that the run goes on with; those about a whole table are about the last day.
        """
        sums = days.sums()
        going_on = [_but(days, month, left_behind) or found for month, found in sums.items()]
        reasons, by_column, examples = Counter[str](), Counter[str](), dict[str, tuple[str, int]]()
        for found in sums.values():
            reasons.update(found.reasons)
            examples = {**found.examples, **examples}
        for found in going_on:
            by_column.update(found.columns)
        of_last = days.get(last.isoformat())
        return cls(
            by_period=_by_period(days, last),
            outcomes=list(_outcomes(going_on, expectations, of_last)),
            reasons=reasons,
            n_corrected=sum(found.corrected for found in sums.values()),
            n_judged=sum(found.rows_in for found in going_on),
            by_column=by_column,
            examples=examples,
            last=of_last.counts if of_last else Counts(),
            without_valid=[day for found in sums.values() for day in found.without_valid],
        )

    @property
    def totals(self) -> Counts:
        """Return the sums over the dates."""
        names = ("rows_in", "rows_valid", "rows_quarantined")
        return Counts(**{name: sum(getattr(each, name) for each in self.by_period.values()) for name in names})


def _but(days: JudgedDays, month: str, left_behind: Collection[str]) -> DaysTogether | None:
    """Return what was found of a month without some days; None where it has none of them."""
    if not any(day.startswith(month) for day in left_behind):
        return None
    return together({day: found for day, found in days.of_month(month).items() if day not in left_behind})


def _by_period(days: JudgedDays, last: date) -> dict[str, Counts]:
    """Return the counts by day and, of months that have ended long before the last day, by month."""
    oldest = (last - timedelta(days=KEPT_AS_DAYS)).isoformat()[:7]
    found: dict[str, Counts] = {}
    for month in days.months():
        if month < oldest:
            found[month] = days.sum_of(month).counts
        else:
            found |= {day: each.counts for day, each in sorted(days.of_month(month).items())}
    return found


def _outcomes(
    days: Sequence[DaysTogether], expectations: Sequence[Expectation], last: JudgedDay | None
) -> Iterator[Outcome]:
    n_by_row = n_whole = 0
    for each in expectations:
        if each.is_row_by_row:
            yield total(each, [found.by_row[n_by_row] for found in days if found.by_row])
            n_by_row += 1
        else:
            yield replace(last.whole[n_whole], kwargs=each.kwargs) if last and last.whole else _not_judged(each)
            n_whole += 1


def _not_judged(expectation: Expectation) -> Outcome:
    """Return the outcome of an expectation about a whole table on a day that has no row."""
    return Outcome(
        type=expectation.type,
        columns="+".join(columns_of(expectation.kwargs)) or "table",
        severity=expectation.severity,
        kwargs=expectation.kwargs,
        success=True,
        rows_seen=None,
        rows_missing=0,
        rows_unexpected=None,
        error=None,
    )


def losses_of(rows: ValidationSummary, labels: ValidationSummary, target: str) -> Losses:
    """Return what quarantine took, as the split wants to know it."""
    return Losses(
        labels_valid=labels.totals.rows_valid,
        labels=labels.totals.rows_quarantined,
        unreadable_labels=labels.by_column[target],
        rows=rows.totals.rows_quarantined,
        label_rules=dict(sorted(labels.reasons.items())),
        row_rules=dict(sorted(rows.reasons.items())),
    )


@dataclass(frozen=True, kw_only=True)
class ScoredDay(Counts):
    """The rows of the day that the night scores."""

    date: str
    """The day."""


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """How many rows and labels hold a person's corrections."""

    rows: int
    labels: int


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """The content of validation.json."""

    as_of: str
    """The run's as_of."""
    rows: Counts
    """Over all dates."""
    labels: Counts
    """Over all dates."""
    scored_day: ScoredDay
    """The rows that the night scores."""
    corrected: Corrected
    """Corrections that were applied."""
    drift: Drift
    """How far the scored day differs from the days before it."""
    held_days: list[Drift]
    """Days that differ in kind and that no person has accepted, with the figures beyond limits."""
    history_anew: str | None
    """The reason with which a person let history begin anew with this run, because it was lost."""
    reasons: dict[str, int]
    """How many rows and labels break each rule."""
    expectations: list[Outcome]
    """Outcomes about rows, then about labels, in the order declared."""
    rows_by_date: dict[str, Counts]
    """By event date; months that have ended more than KEPT_AS_DAYS days before by month."""
    labels_by_date: dict[str, Counts]
    """By the date on which they became known, likewise."""
    days_without_a_valid_row: list[str]
    """Days of which every row is in quarantine, but those that are held."""

    @classmethod
    def of(
        cls,
        as_of: date,
        rows: ValidationSummary,
        labels: ValidationSummary,
        drift: Drift,
        held: Sequence[Drift],
        history_anew: str | None,
    ) -> "ValidationReport":
        """Put the parts together."""
        return cls(
            as_of=as_of.isoformat(),
            rows=rows.totals,
            labels=labels.totals,
            scored_day=ScoredDay(date=drift.date, **asdict(rows.last)),
            corrected=Corrected(rows=rows.n_corrected, labels=labels.n_corrected),
            drift=drift,
            held_days=[replace(each, figures=each.beyond) for each in held],
            history_anew=history_anew,
            reasons=dict(sorted((rows.reasons + labels.reasons).items())),
            expectations=rows.outcomes + labels.outcomes,
            rows_by_date=rows.by_period,
            labels_by_date=labels.by_period,
            days_without_a_valid_row=sorted({*rows.without_valid} - {each.date for each in held}),
        )

    def to_json(self) -> dict[str, object]:
        """Return the file's content."""
        scored_day = {"date": self.scored_day.date} | asdict(self.scored_day)  # the date first
        outcomes = [outcome.to_json() for outcome in self.expectations]
        parts: dict[str, object] = {"scored_day": scored_day, "expectations": outcomes}
        for name in ("rows_by_date", "labels_by_date"):  # years of months: copied one by one they take a while
            parts[name] = {period: {**vars(counts)} for period, counts in getattr(self, name).items()}
        return asdict(replace(self, rows_by_date={}, labels_by_date={})) | parts

    @property
    def summary(self) -> str:
        """Return the stage's line."""
        n_failed = sum(not outcome.success for outcome in self.expectations)
        parts = [
            _counted(self.rows, "rows"),
            _counted(self.labels, "labels"),
            f"{n_failed} of {len(self.expectations)} expectations failed without stopping the run",
        ]
        if self.held_days:
            n_held = sum(each.rows_held for each in self.held_days)
            days = _days([each.date for each in self.held_days])
            parts.append(f"{days} HELD until a person answers, with {n_held:,} of the rows in quarantine")
        if self.days_without_a_valid_row:
            parts.append(f"{_days(self.days_without_a_valid_row)} without a valid row")
        return "; ".join(parts)


def _counted(counts: Counts, of: str) -> str:
    return f"{counts.rows_in:,} {of} in = {counts.rows_valid:,} valid + {counts.rows_quarantined:,} quarantined"


def _days(days: Sequence[str]) -> str:
    """Return how many days, and the newest ones."""
    more = "..., " if len(days) > DAYS_SHOWN else ""
    return f"{len(days)} day{'s' if len(days) > 1 else ''} ({more}{', '.join(days[-DAYS_SHOWN:])})"
