"""Write the report of a training as one page: no script, nothing from elsewhere, the same bytes for the same facts.

Every value is escaped. The page forbids by its own policy what it does not need, so that a browser loads nothing more.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from model.heads import head_of
from tasks.params import LOWER_IS_BETTER, effective
from tasks.reports.charts import calibration_chart, learning_chart, made_rows_chart, nights_chart
from tasks.reports.facts import Facts
from tasks.training.held_out.made_rows import MadeRows
from tasks.training.held_out.pictures import Pictures
from tasks.training.held_out.search import FoundSlice
from tasks.training.held_out.single_rows import SingleRow
from tasks.training.held_out.slices import MeasuredSlices, SliceMetric

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")
MAX_BYTES = 300_000
NIGHTS_LISTED = 30
CLASSES_LISTED = 30
SLICES_LISTED = 10
COLUMNS_OF_A_ROW = 5
NONE = "–"


def render(facts: Facts) -> str:
    """Return the page."""
    made = MadeRows.from_json(facts.evaluation["made_rows"]) if "made_rows" in facts.evaluation else None
    per_class = list(facts.evaluation.get("model", {}).get("per_class", {}).items())[:CLASSES_LISTED]
    curve, losses, training = facts.held_out.curve, facts.losses, facts.training
    head, worth = head_of(facts.product.target.task), [each.loss or 0.0 for each in facts.held_out.importances]
    return (
        _environment()
        .get_template("report.html")
        .render(
            facts=facts,
            product=facts.product,
            training=training,
            verdict=training.verdict,
            style=(TEMPLATES / "report.css").read_text("utf-8"),
            sign="less" if training.metric in LOWER_IS_BETTER else "more",
            calibration=curve and calibration_chart(curve, head.reliability_label),
            nights=nights_chart(facts.nights, training.metric, training.value),
            learning=learning_chart(*zip(*losses, strict=True)) if losses else None,
            made=made,
            made_columns=made and made_rows_chart(made.columns),
            pictures=[Pictures.from_json(each) for each in facts.evaluation.get("pictures", [])],
            most_worth=max([*worth, 0.0]),
            parts=facts.evaluation.get("parts", {}),
            look_here=[FoundSlice.from_json(each) for each in facts.evaluation.get("look_here", [])],
            slices=_worst_slices(facts),
            single_rows=[SingleRow.from_json(each) for each in facts.evaluation.get("single_rows", [])],
            logits="logits" if head.has_probabilities or head.answers_lists else "standard deviations of the target",
            metrics=_metrics(facts),
            per_class=per_class,
            per_class_names=[name for name in per_class[0][1] if name != "support"] if per_class else [],
            nights_listed=list(facts.nights)[: -NIGHTS_LISTED - 1 : -1],
            settings=effective.explained(facts.product),
        )
    )


def _worst_slices(facts: Facts) -> list[SliceMetric]:
    """Return the slices that are measured, the worst first."""
    known = MeasuredSlices.from_json(facts.evaluation["slices"]).slices if facts.evaluation.get("slices") else ()
    measured = [(each.value, each) for each in known if each.value is not None]
    falls = facts.training.metric in LOWER_IS_BETTER
    return [each for _, each in sorted(measured, key=lambda pair: -pair[0] if falls else pair[0])][:SLICES_LISTED]


def _metrics(facts: Facts) -> list[tuple[str, list[float | None]]]:
    """Return every metric with the values of model, baseline and, where there is one, model before calibration."""
    scorers = [facts.evaluation.get(name, {}) for name in ("model", "baseline", "model_before_calibration")]
    names = [name for name, value in scorers[0].items() if value is None or isinstance(value, float)]
    return [(name, [each.get(name) for each in scorers]) for name in names]


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"figure": figure, "signed": signed, "count": count, "percent": percent, "ends": span}
    environment.filters["strongest"] = strongest
    return environment


def figure(value: float | None) -> str:
    """Return a measured number.

    >>> figure(0.79358), figure(None)
    ('0.7936', '–')
    """
    return NONE if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def signed(value: float | None) -> str:
    """Return a difference, with a minus that is as wide as a plus.

    >>> signed(-0.002)
    '−0.0020'
    """
    return NONE if value is None else f"{value:+.4f}".replace("-", "−")


def count(value: int | None) -> str:
    """Return a number of rows.

    >>> count(6216)
    '6,216'
    """
    return NONE if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """Return a share.

    >>> percent(0.4677)
    '46.8 %'
    """
    return NONE if value is None else f"{100 * value:.1f} %"


def strongest(columns: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the columns that add or take most, those first; the rest together as the last.

    >>> strongest({"a": 0.1, "b": -0.5, "c": 0.2, "d": 0.3, "e": 0.0, "f": 0.125, "g": 0.0625})[-2:]
    [('a', 0.1), ('2 others', 0.0625)]
    """
    ordered = sorted(columns.items(), key=lambda each: (-abs(each[1]), each[0]))
    rest = ordered[COLUMNS_OF_A_ROW:]
    return ordered[:COLUMNS_OF_A_ROW] + ([(f"{len(rest)} others", sum(value for _, value in rest))] if rest else [])


def span(interval: tuple[float, float] | None) -> str:
    """Return the ends of an interval.

    >>> span((0.7818, 0.8049))
    '0.7818 to 0.8049'
    """
    return NONE if interval is None else f"{figure(interval[0])} to {figure(interval[1])}".replace("-", "−")
