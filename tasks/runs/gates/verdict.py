"""Judge a challenger by each gate of params.yaml, with the figure, what is wanted of it, and its interval."""

import re
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from tasks.monitoring.gate import Gate
from tasks.params import LOWER_IS_BETTER, Product
from tasks.runs.gates.comparison import Comparison, ProbabilityLeads, SliceLead
from tasks.runs.gates.figures import Figures, finite
from tasks.runs.gates.files import judge_behaviour, judge_files
from tasks.runtime.records import RECORD, Record
from tasks.training.held_out.slices import MeasuredSlices

if TYPE_CHECKING:
    from model.evaluation.paired import Difference

BRIER_ALLOWED = 0.005
"""How much larger the squared error of a challenger's probabilities may be: this share of the champion's."""
CALIBRATION_ALLOWED = 0.01
"""How much further its probabilities may lie from the shares that come true."""

Decision = Literal["promoted", "champion already", "rejected", "withdrawn", "held", "needs approval"]


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Verdict(Record):
    """The outcome of promote."""

    decision: Decision
    """`withdrawn` where a person has taken a model of the same content out; `held` where the gates are passed and a
    person holds the champion; `needs approval` where they are passed and gates.approval asks for a human that nobody
    has named."""
    line: str
    """The metrics, and the gates that the challenger does not pass."""
    gates: tuple[Gate, ...] = ()
    """Every gate that was looked at; none where the model was not compared."""
    figures: Figures | None = None
    """What was measured; None where that is not the run's own, since the champion is this very model."""
    version: str | None = None
    """The registry's version of the model; None where it has none."""

    def __str__(self) -> str:
        return self.line

    @property
    def page(self) -> str:
        """Return the verdict as Markdown, for the person who decides; no text of the data is read as Markdown."""
        rows = [
            f"| {_plain(each.name)} | {_plain(each.about or '')} | {_number(each.value)} | {_number(each.threshold)} "
            f"| {_interval(each.interval_95)} | {'passed' if each.passed else 'NOT PASSED'} |"
            for each in self.gates
        ]
        head = ["", "| gate | of | figure | threshold | 95% interval | |", "|---|---|---|---|---|---|"]
        called = ["", f"These figures are called {self.figures.called}."] if self.figures else []
        return "\n".join([_plain(self.line), *(head if rows else []), *rows, *called])


def _plain(text: str) -> str:
    """Return text in which Markdown finds nothing to read.

    >>> _plain("carrier=*A|B*")
    'carrier=\\\\*A\\\\|B\\\\*'
    """
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&-])", r"\\\1", " ".join(text.split()))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def judge(product: Product, comparison: Comparison, figures: Figures | None = None) -> tuple[Gate, ...]:
    """Return every gate of the product with its outcome; those about the champion only where there is one."""
    gates, challenger = product.gates, comparison.challenger
    found = [
        _distance(product, "limit", challenger, gates.limit, 0.0),
        _distance(product, "max_behind_baseline", challenger, comparison.baseline, gates.max_behind_baseline),
    ]
    if figures and figures.slices:
        found += _gaps(product, figures.slices)
    if figures:
        found += [*judge_files(product, figures.files), *judge_behaviour(product, figures.files)]
    if comparison.champion is None:
        return tuple(found)
    found.append(_lead(product, comparison))
    if comparison.probabilities is not None and gates.calibration == "not_worse":
        found += _calibration(comparison.probabilities)
    found += _slices(product, comparison.slices)
    if comparison.n_positives is not None:
        found.append(
            Gate(
                name="min_positives",
                passed=comparison.n_positives >= gates.min_positives,
                value=comparison.n_positives,
                threshold=gates.min_positives,
                wanted=f"at least {gates.min_positives} held-out rows of the rarer answer, and there are "
                f"{comparison.n_positives}: too few to decide anything, so the champion stays",
            )
        )
    if comparison.days_since is not None:
        found.append(
            Gate(
                name="min_days_between",
                passed=not 0 < comparison.days_since < gates.min_days_between,
                value=comparison.days_since,
                threshold=gates.min_days_between,
                wanted=f"{gates.min_days_between} days from one champion's as_of to the next one's, and there are "
                f"{comparison.days_since}",
            )
        )
    return tuple(found)


def _distance(product: Product, name: str, challenger: float, reference: float, slack: float) -> Gate:
    """Return a gate on the distance of the challenger's metric to a reference."""
    sign = -1 if product.gates.metric in LOWER_IS_BETTER else 1
    return Gate(
        name=name,
        passed=sign * (challenger - reference) >= -slack,  # NaN passes none
        value=finite(challenger),
        wanted=f"{'at most' if sign < 0 else 'at least'} {reference - sign * slack:.4f}",
        threshold=finite(reference - sign * slack),
    )


def _lead(product: Product, comparison: Comparison) -> Gate:
    """Return the gate on the lead over the champion: its value, or the lower end of its interval."""
    gates, lead, least = product.gates, comparison.lead, -product.gates.max_behind_champion
    if lead is None:
        return Gate(
            name="max_behind_champion",
            passed=False,
            value=None,
            wanted=f"a lead over the champion of at least {least:.4f}, which the held-out rows do not define",
            threshold=least,
        )
    significant = gates.wants_significant_lead
    surely = " with 95% confidence" if significant else ""
    return Gate(
        name="max_behind_champion",
        passed=lead.low > least if significant else lead.value >= least,
        value=lead.value,
        wanted=f"a lead over the champion of {'more than' if significant else 'at least'} {least + 0.0:.4f}{surely}, "
        f"and it is {lead}",
        threshold=least,
        interval_95=(lead.low, lead.high),
    )


def _calibration(leads: ProbabilityLeads) -> list[Gate]:
    """Return the gates on probabilities: neither score may surely be worse by more than what is allowed.

    A challenger whose squared error is not larger has no worse probabilities, even if it errs in another way: so the
    calibration error alone stops none.
    """
    brier, calibration, allowed = leads.brier, leads.calibration, BRIER_ALLOWED * leads.champion_brier
    return [
        Gate(
            name="calibration",
            passed=brier.high >= -allowed,
            value=brier.value,
            wanted="probabilities as near to the truth as the champion's, and their squared error is larger "
            f"by {_larger(brier)}, where {allowed:.4f} is allowed",
            threshold=-allowed,
            interval_95=(brier.low, brier.high),
            about="squared error",
        ),
        Gate(
            name="calibration",
            passed=calibration.high >= -CALIBRATION_ALLOWED or brier.value >= 0,
            value=calibration.value,
            wanted="probabilities that come true as the champion's do, and the calibration error within a day is "
            f"larger by {_larger(calibration)}, where {CALIBRATION_ALLOWED:.4f} is allowed, and so is the squared "
            "error",
            threshold=-CALIBRATION_ALLOWED,
            interval_95=(calibration.low, calibration.high),
            about="calibration error",
        ),
    ]


def _larger(lead: "Difference") -> str:
    """Return how much larger an error is than the champion's, with its interval."""
    return f"{-lead.value:.4f} (95% interval {-lead.high:.4f} to {-lead.low:.4f})"


def _slices(product: Product, leads: tuple[SliceLead, ...]) -> list[Gate]:
    """Return a gate for each slice: the champion must not be better there by more than chance explains."""
    allowed = product.gates.slices.max_behind_champion
    if allowed is None:
        return []
    return [
        Gate(
            name="slices.max_behind_champion",
            passed=each.lead.high >= -allowed,
            value=each.lead.value,
            wanted=f"a lead over the champion that may be {-allowed + 0.0:.4f} or more on {each.name} "
            f"({each.rows:,} rows), and it is {each.lead}",
            threshold=-allowed + 0.0,
            interval_95=(each.lead.low, each.lead.high),
            about=each.name,
        )
        for each in leads
    ]


def _gaps(product: Product, measured: MeasuredSlices) -> list[Gate]:
    """Return a gate for each entry of `slices`: how far apart its slices may lie."""
    most = product.gates.slices.max_gap
    if most is None:
        return []
    return [
        Gate(
            name="slices.max_gap",
            passed=gap.value <= most,
            value=gap.value,
            wanted=f"slices of {gap.declaration} at most {most:.4f} apart in {measured.metric}, and it is {gap}",
            threshold=most,
            interval_95=gap.interval_95,
            about=gap.declaration,
        )
        for gap in measured.gaps
    ]
