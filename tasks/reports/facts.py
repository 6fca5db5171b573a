"""Gather what the report of a training shows, from the files that its stages left below `data/`."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from tasks.monitoring.contracts import NightRecord
from tasks.params import Product
from tasks.reports.changes import Change
from tasks.reports.contracts import Training
from tasks.reports.held_out import HeldOutLook, look_at_held_out
from tasks.runs.gates.verdict import Verdict
from tasks.runtime.files import read_json
from tasks.runtime.paths import Paths

Report = Mapping[str, Any]
"""A report of a stage, as it is written; empty where the stage left none."""
STATES = {
    "promoted": "Promoted: it predicts the nights from its as_of on, until another one passes.",
    "champion already": "The champion already: this very model predicts.",
    "rejected": "Not promoted: {failed}. The champion goes on.",
    "withdrawn": "Not promoted: a person keeps this model out.",
    "held": "Passes every gate, and is not promoted: a person holds the champion.",
    "needs approval": "Passes every gate, and waits for a person's approval.",
}
UNJUDGED = "Not judged: made outside of a run, where nothing is promoted."
LARGE_ERROR = 0.05
"""Calibration error from which on it is named among the limits."""
FEW_DAYS = 14


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the page shows."""

    product: Product
    """As declared."""
    training: Training
    """The training's record."""
    is_judged: bool
    """Whether promote has judged the model."""
    evaluation: Report
    """evaluation.json."""
    export: Report
    """export.json."""
    split: Report
    """split.json."""
    validation: Report
    """validation.json."""
    losses: tuple[tuple[float, float, float], ...]
    """Epoch, loss on training and on validation rows."""
    held_out: HeldOutLook
    """What the exported file says of held-out rows."""
    nights: tuple[NightRecord, ...]
    """The nights before, by date."""
    changes: tuple[Change, ...]
    """What differs from the champion; none without one."""

    @property
    def sentence(self) -> str:
        """Return the verdict in a sentence."""
        if not self.is_judged:
            return UNJUDGED
        failed = [gate.name for gate in self.training.verdict.gates if not gate.passed]
        gates = f"{', '.join(failed)} {'is' if len(failed) == 1 else 'are'} not passed"
        return STATES[self.training.verdict.decision].format(failed=gates)

    @property
    def limits(self) -> list[str]:
        """Return what these figures do not say."""
        return list(_limits(self))


def gather(
    product: Product,
    paths: Paths,
    training: Training,
    nights: tuple[NightRecord, ...],
    changes: tuple[Change, ...],
    *,
    is_judged: bool,
) -> Facts:
    """Return the facts of the training whose files lie below `paths`; score held-out rows with its exported model."""
    return Facts(
        product=product,
        training=training,
        is_judged=is_judged,
        evaluation=_report(paths, "evaluation.json"),
        export=_report(paths, "export.json"),
        split=_report(paths, "split.json"),
        validation=_report(paths, "validation.json"),
        losses=tuple(_losses(paths)),
        held_out=look_at_held_out(product, paths),
        nights=nights,
        changes=changes,
    )


def trained(
    product: Product, paths: Paths, as_of: date, run: str, revision: str, verdict: Verdict, **known: Any
) -> Training:
    """Return the record of the training whose files lie below `paths`."""
    evaluation, split, metric = _report(paths, "evaluation.json"), _report(paths, "split.json"), product.gates.metric
    model, baseline = evaluation.get("model", {}), evaluation.get("baseline", {})
    interval = model.get(f"{metric}_interval_95")
    return Training(
        run=run,
        as_of=as_of,
        revision=revision,
        verdict=verdict,
        metric=metric,
        value=model.get(metric),
        interval_95=tuple(interval) if interval else None,
        baseline=baseline.get(metric),
        rows=split.get("rows", {}),
        days={part: (ends[0], ends[1]) for part, ends in split.get("days", {}).items() if ends},
        parts={name: round(part["weight"], 4) for name, part in evaluation.get("parts", {}).items()},
        **known,
    )


def _report(paths: Paths, name: str) -> Report:
    file = paths.report(name)
    found: Report = read_json(file) if file.exists() else {}
    return found


def _losses(paths: Paths) -> Iterator[tuple[float, float, float]]:
    """Yield the lines of training.csv; none where only a head was fitted, or the stage left none."""
    file = paths.report("training.csv")
    if file.exists():
        with file.open(newline="", encoding="utf-8") as lines:
            for line in csv.DictReader(lines):
                if line["train_loss"] and line["val_loss"]:
                    yield float(line["epoch"]), float(line["train_loss"]), float(line["val_loss"])


def _limits(facts: Facts) -> Iterator[str]:
    training, evaluation, split = facts.training, facts.evaluation, facts.split
    if "test" in training.days:
        first, last = training.days["test"]
        n_days = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
        yield (
            f"Held-out rows: {training.rows.get('test', 0):,} of {n_days} day{'s' * (n_days > 1)}, {first} to {last}"
            + ("; other seasons and holidays were not measured." if n_days <= FEW_DAYS else ".")
        )
    yield (
        "The interval of the metric draws rows, as if each were independent; rows of one day have much in common, so "
        "it is rather too narrow. Intervals of gates about the champion have days or groups as observations."
    )
    curve = facts.held_out.curve
    if curve and curve.error >= LARGE_ERROR:
        yield (
            f"Probabilities were {curve.error:.2f} off in the mean on these rows: use their order rather than their "
            "level, or choose the threshold by later nights."
        )
    if n_unseen := evaluation.get("classes_never_trained"):
        yield (
            f"{evaluation['rows_of_unknown_class']:,} held-out rows are of {n_unseen:,} classes that training never "
            "saw; each counts as a wrong answer."
        )
    rows = facts.validation.get("rows", {})
    if rows.get("rows_quarantined"):
        yield (
            f"{rows['rows_quarantined']:,} of {rows['rows_in']:,} rows are in quarantine, and were neither learnt from "
            "nor measured."
        )
    if held := facts.validation.get("held_days"):
        yield f"{len(held)} days that differ in kind are held until a person answers."
    yield from (f"{each['hint']}." for each in split.get("columns", []))
    if not any(night.truth for night in facts.nights):
        yield "No night of the time shown has been measured yet: labels have not come, or no night was published."
