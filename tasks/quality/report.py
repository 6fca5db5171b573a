"""Put together what validate found: validation.json and the stage's line."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from tasks.quality.checked_table import Counts, Outcome, ValidationSummary
from tasks.quality.verdicts import Drift

DAYS_SHOWN = 3


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
    """By event date."""
    labels_by_date: dict[str, Counts]
    """By the date on which they became known."""

    @classmethod
    def of(
        cls,
        as_of: str,
        rows: ValidationSummary,
        labels: ValidationSummary,
        drift: Drift,
        held: Sequence[Drift],
        history_anew: str | None,
    ) -> "ValidationReport":
        """Put the parts together."""
        return cls(
            as_of=as_of,
            rows=rows.totals,
            labels=labels.totals,
            scored_day=ScoredDay(date=drift.date, **asdict(rows.by_date.get(drift.date, Counts()))),
            corrected=Corrected(rows=rows.n_corrected, labels=labels.n_corrected),
            drift=drift,
            held_days=[replace(each, figures=each.beyond) for each in held],
            history_anew=history_anew,
            reasons=dict(sorted((rows.reasons + labels.reasons).items())),
            expectations=rows.outcomes + labels.outcomes,
            rows_by_date=rows.by_date,
            labels_by_date=labels.by_date,
        )

    def to_json(self) -> dict[str, object]:
        """Return the file's content."""
        scored_day = {"date": self.scored_day.date} | asdict(self.scored_day)  # the date first
        outcomes = [outcome.to_json() for outcome in self.expectations]
        return asdict(self) | {"scored_day": scored_day, "expectations": outcomes}

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
        emptied = [day for day, counts in self.rows_by_date.items() if not counts.rows_valid]
        if emptied := sorted({*emptied} - {each.date for each in self.held_days}):
            parts.append(f"{_days(emptied)} without a valid row")
        return "; ".join(parts)


def _counted(counts: Counts, of: str) -> str:
    return f"{counts.rows_in:,} {of} in = {counts.rows_valid:,} valid + {counts.rows_quarantined:,} quarantined"


def _days(days: Sequence[str]) -> str:
    """Return how many days, and the newest ones."""
    more = "..., " if len(days) > DAYS_SHOWN else ""
    return f"{len(days)} day{'s' if len(days) > 1 else ''} ({more}{', '.join(days[-DAYS_SHOWN:])})"
