"""Choose the thresholds of a product's predictions, and measure what predictions made so are worth.

They are chosen on validation rows whose scores were kept from before anything learnt from them; so a change of
`predict.threshold` or `predict.costs` trains nothing anew.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from model.heads import head_of
from model.heads.prediction_rule import HALF, MeasuredThresholds, PredictionRule
from tasks.params import MEASURED, Product
from tasks.rows import model_inputs

N_RESAMPLES = 500
SEED = 0


def measured_thresholds(product: Product, trained: Path) -> MeasuredThresholds | None:
    """Return thresholds chosen on the validation rows of the model in `trained`; None where a number is declared."""
    from model.evaluation.thresholds import EXPECTED_COST, F1, WEIGHED, choose_threshold, curve_of_answers
    from model.network.store import load_validation
    from model.target import read_target

    found = load_validation(trained) if product.predict.threshold == MEASURED else None
    if found is None:
        return None
    scores, y = found
    if (head := head_of(product.target.task)).answers_spans:
        metric = product.gates.metric if product.gates.metric in head.metric_names else head.default_metric
        best = curve_of_answers(scores, metric, has_prior=True).best if len(scores) else HALF
        return MeasuredThresholds(metric=metric, thresholds=(best,), rows=len(scores))
    metric = product.gates.metric if product.gates.metric in WEIGHED else F1
    if product.predict.costs is not None:
        metric = EXPECTED_COST
    is_calibrated = product.model.train.class_weights == "none"
    rule, target = model_inputs.prediction_rule(product, None, ()), read_target(trained)
    columns = zip(y.reshape(len(y), -1).T, scores.reshape(len(y), -1).T, strict=True)
    thresholds = tuple(
        choose_threshold(labels, shares, metric, rule, is_calibrated=is_calibrated) for labels, shares in columns
    )
    assert len(thresholds) == head_of(target.task).n_outputs(len(target.classes))
    return MeasuredThresholds(metric=metric, thresholds=thresholds, rows=len(y))


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What predictions made by a measured threshold, or by costs, are worth on held-out rows."""

    rule: PredictionRule
    thresholds: dict[str, float] | None
    """By label, or of the positive; None where the class of least expected cost is predicted."""
    rows_validation: int | None
    """Rows on which thresholds were chosen; None where these are declared."""
    metric: str
    """The metric that says what predictions are worth."""
    value: float | None
    """On the held-out rows."""
    interval_95: tuple[float, float] | None
    plain: float | None
    """The same for predictions from 0.5 on, or of the likeliest class."""

    def report(self) -> dict[str, object]:
        """Return its part of evaluation.json."""
        return {name: value for name, value in asdict(self).items() if name != "rule"}

    @property
    def summary(self) -> str:
        """Return it for the line that the stage prints."""
        low, high = self.interval_95 or (np.nan, np.nan)
        value, plain = (np.nan if each is None else each for each in (self.value, self.plain))
        way, usual = "the class of least expected cost is predicted", "for the likeliest class"
        if self.thresholds is not None:
            found = sorted(set(self.thresholds.values()))
            span = f"{found[0]:.3f}" if len(found) == 1 else f"{found[0]:.3f} to {found[-1]:.3f}"
            chosen = "" if self.rows_validation is None else f", chosen on {self.rows_validation:,} validation rows"
            way, usual = f"predicted from {span} on{chosen}", f"from {HALF} on"
        return f"{way}: {self.metric} {value:.4f} (95% interval {low:.4f} to {high:.4f}), {plain:.4f} {usual}"


def measure_predictions(
    product: Product,
    measured: MeasuredThresholds | None,
    rule: PredictionRule,
    y: np.ndarray,
    scores: np.ndarray,
    classes: tuple[str, ...],
) -> Predictions | None:
    """Measure the model's predictions on held-out rows; None where all is as usual.

    Shapes: y and scores as `tasks.rows.model_inputs` gives them, of `classes`.
    """
    from model.evaluation.metrics import bootstrap_interval, evaluate_metric

    if measured is None and not rule.costs:
        return None
    head, metric = head_of(product.target.task), "expected_cost"
    if not rule.costs and measured is not None:
        metric = measured.metric if measured.metric in head.metric_names else f"macro_{measured.metric}"
    thresholds = None
    if head.has_threshold:
        names = classes if len(rule.thresholds) > 1 else classes[-1:] or ("answer",)
        thresholds = dict(zip(names, rule.thresholds, strict=True)) if names else None
    plain = evaluate_metric(head.task, y, scores, metric, PredictionRule(costs=rule.costs))
    return Predictions(
        rule=rule,
        thresholds=thresholds,
        rows_validation=None if measured is None else measured.rows,
        metric=metric,
        value=evaluate_metric(head.task, y, scores, metric, rule),
        interval_95=bootstrap_interval(head.task, y, scores, metric, N_RESAMPLES, SEED, rule),
        plain=plain,
    )
