"""Sum up a verdict for a page that has neither the run nor its files."""

from datetime import UTC, date, datetime

from tasks.monitoring.showing import airflow_run
from tasks.monitoring.status import ShownGate, ShownTraining
from tasks.runs.gates.verdict import Verdict


def shown(verdict: Verdict, run: str, as_of: date) -> ShownTraining:
    """Return what a page shows of the training that a verdict is on, decided at this moment."""
    figures = verdict.figures
    champion = figures.champion if figures else None
    return ShownTraining(
        name=run,
        as_of=as_of,
        decided_at=datetime.now(UTC),
        decision=verdict.decision,
        line=verdict.line,
        metric=figures.metric if figures else None,
        value=figures.value if figures else None,
        interval_95=figures.interval_95 if figures else None,
        baseline=figures.metrics.get("baseline", {}).get(figures.metric) if figures else None,
        rows=figures.rows if figures else None,
        compared_with=champion.version if champion else None,
        lead=champion.lead if champion else None,
        gates=tuple(
            ShownGate(
                name=each.name,
                about=each.about,
                passed=each.passed,
                value=each.value,
                threshold=each.threshold,
                interval_95=each.interval_95,
                wanted=each.wanted,
            )
            for each in verdict.gates
        ),
        airflow_run=airflow_run(),
    )
