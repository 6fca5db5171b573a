"""Stop the run: an expectation does not hold, a rule takes most rows, or the scored day differs in kind."""

from pathlib import Path

from tasks.params import Product
from tasks.quality.checked_table import Outcome
from tasks.quality.report import ValidationSummary
from tasks.quality.verdicts import Drift
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Table

MIN_ROWS_TO_LOSE = 20
"""Of fewer rows or labels in all, those in quarantine may be chance."""
SHARE_TO_LOSE = {"rows": 0.5, "labels": 0.99}
"""A column because of which more than this share is in quarantine is declared or read wrongly: it is not the rows that
are wrong. Rows stop at half: what is left would be chosen by the mistake. Labels stop a night only where next to none
is left, since a night is scored without them; `split` wants more of them."""


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


def stop_on_loss(product: Product, of: Table, summary: ValidationSummary, raw: Path) -> None:
    """Raise UserError where most rows, or next to all labels, are in quarantine because of one column."""
    n = summary.n_judged
    lost = {name: count for name, count in summary.by_column.items() if count > SHARE_TO_LOSE[of] * n}
    if n < MIN_ROWS_TO_LOSE or not lost:
        return
    lines = []
    for name, count in sorted(lost.items()):
        rules = [rule for rule in summary.reasons if rule.startswith(f"{name}: ")]
        rule = max(rules, key=lambda each: (summary.reasons[each], each))
        day, place = summary.examples[rule]
        lines.append(
            f"  {count:,} of {n:,} ({count / n:.0%}) because of {rule}; "
            f"the first is row {place + 1} of {day} in {raw / of}"
        )
    raise UserError(
        f"products.{product.name}: most {of} must be right, and one column sends most of them to quarantine; nothing "
        "was passed on:\n"
        + "\n".join(lines)
        + "\nThen it is declared or read wrongly: compare that row with the column's kind, format and expectations in "
        "params.yaml, and mend the declaration or the source"
    )


def stop_on_drift(product: Product, drift: Drift, report: Path) -> None:
    """Raise UserError with the figures beyond their limits, unless the day has been accepted."""
    if not drift.is_held:
        return
    raise UserError(
        f"products.{product.name}: {_rule(drift)}, and nothing was passed on:\n"
        + "\n".join(f"  {figure}" for figure in drift.beyond)
        + f"\nThe day is held until a person answers. Look at {report}; let the day pass: "
        f'make accept PRODUCT={product.name} DT={drift.date} REASON="why it is right", '
        "or mend the source and have the day fetched anew: make refetch, likewise"
    )


def stop_on_surprise(product: Product, drift: Drift, folder: Path) -> None:
    """Raise UserError with the share of rows that surprise, unless it holds or the day has been accepted."""
    if not drift.is_held:
        return
    raise UserError(
        f"products.{product.name}: the rows of {drift.date} must be about as likely to the model as its training rows, "
        "and nothing was published:\n"
        + "\n".join(f"  {figure}" for figure in drift.beyond)
        + f"\nThe day is held until a person answers. Look at the rows of {folder} with most surprise_bits; let the "
        f'day pass: make accept PRODUCT={product.name} DT={drift.date} REASON="why it is right", '
        "or mend the source and have the day fetched anew: make refetch, likewise"
    )


def _rule(drift: Drift) -> str:
    """Return what must be of the day and is not."""
    is_empty = any(figure.name == "newest row" for figure in drift.figures)
    if is_empty and drift.newest_row is not None:
        return (
            f"the source must have rows of {drift.date}, and has none; its newest row up to then is of "
            f"{drift.newest_row} (give an as_of that fits, or see why the source has ended)"
        )
    if not drift.days_before:
        return f"the rows of {drift.date} must hold a valid one"
    return f"the rows of {drift.date} must be of the same kind as those of the {drift.days_before} days before"


def _failure(outcome: Outcome) -> str:
    if outcome.error:
        return f"could not be evaluated: {outcome.error}"
    if outcome.observed is not None:
        return f"observed {outcome.observed}, wanted {outcome.kwargs}"
    if outcome.rows_seen is not None:
        return f"{outcome.rows_unexpected} of {outcome.rows_seen} rows break it, wanted {outcome.kwargs}"
    return f"wanted {outcome.kwargs}"
