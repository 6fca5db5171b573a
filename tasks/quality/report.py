"""Write validation.json, and stop the run where an expectation does not hold."""

from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.params import Product
from tasks.quality.checked_table import Counts, Outcome, ValidationSummary
from tasks.quality.drift import Drift
from tasks.runtime.errors import UserError


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
        cls, as_of: str, scored_day: str, rows: ValidationSummary, labels: ValidationSummary, drift: Drift
    ) -> "ValidationReport":
        """Put the parts together."""
        return cls(
            as_of=as_of,
            rows=rows.totals,
            labels=labels.totals,
            scored_day=ScoredDay(date=scored_day, **asdict(rows.by_date.get(scored_day, Counts()))),
            corrected=Corrected(rows=rows.n_corrected, labels=labels.n_corrected),
            drift=drift,
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
        return (
            f"{self.rows.rows_in:,} rows in = {self.rows.rows_valid:,} valid + "
            f"{self.rows.rows_quarantined:,} quarantined; {n_failed} of "
            f"{len(self.expectations)} expectations failed without stopping the run"
        )


def stop_on_failure(product: Product, outcomes: list[Outcome], report: Path) -> None:
    """Raise UserError where a critical expectation does not hold, or one could not be evaluated."""
    failures = [each for each in outcomes if each.error or (each.severity == "critical" and not each.success)]
    if failures:
        raise UserError(
            f"products.{product.name}: {len(failures)} expectations do not hold, and nothing was passed on:\n"
            + "\n".join(f"  {each.type} on {each.columns} ({each.severity}): {_failure(each)}" for each in failures)
            + f"\nLook at {report}; mend the expectation in params.yaml, or mend the source "
            f'and have the day fetched anew: make refetch PRODUCT={product.name} DT=... REASON="what was wrong"'
        )


def _failure(outcome: Outcome) -> str:
    if outcome.error:
        return f"could not be evaluated: {outcome.error}"
    if outcome.observed is not None:
        return f"observed {outcome.observed}, wanted {outcome.kwargs}"
    if outcome.rows_seen is not None:
        return f"{outcome.rows_unexpected} of {outcome.rows_seen} rows break it, wanted {outcome.kwargs}"
    return f"wanted {outcome.kwargs}"
