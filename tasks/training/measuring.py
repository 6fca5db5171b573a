"""Measure scores on held-out rows, with intervals.

A row of a class that training never saw cannot be answered rightly, and counts as a wrong answer: the classes of the
measurement are the training rows' and the held-out rows' together, and the score of one that was never seen is 0.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.heads import head_of
from model.heads.base import Head
from model.heads.label_scale import LINEAR, MEDIAN
from model.heads.prediction_rule import PredictionRule
from model.target import Target
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.labels.horizons import has_naive
from tasks.rows.partitions import n_rows
from tasks.runtime.paths import Paths
from tasks.training.gate_metric import gate_metric
from tasks.training.held_out.seasonal_naive import naive_scores
from tasks.training.held_out.spans import span_baseline_scores
from tasks.training.held_out.texts import fit_text_baseline
from tasks.training.predictions import Predictions, measure_predictions, measured_thresholds

if TYPE_CHECKING:
    from model.evaluation.baseline import Baseline
    from model.evaluation.cooccurrence import Cooccurrence
    from model.evaluation.item_mixture import ItemMixture
    from model.evaluation.metrics import Metrics
    from model.heads.label_scale import LabelScale
    from model.scoring.scorer import TorchScorer

N_RESAMPLES = 500
SEED = 0
MAX_BASELINE_ROWS = 1_000_000
"""The baseline's libraries hold all rows in memory: of more it sees a sample."""
UNCALIBRATED = "model_before_calibration"

Scores = dict[str, np.ndarray]
"""By name: of the model, of the baseline, and of the model before its calibration."""


def measured_scores(
    product: Product, y: np.ndarray, scores: Scores, classes: tuple[str, ...], rule: PredictionRule
) -> "dict[str, Metrics]":
    """Return every metric by the scores' name, with the interval of the gates' metric."""
    from model.evaluation.metrics import bootstrap_interval, evaluate_scores

    task, metric = product.target.task, product.gates.metric
    measured = {name: evaluate_scores(task, y, values, classes, rule) for name, values in scores.items()}
    for name, values in final_scores(scores).items():
        interval = bootstrap_interval(task, y, values, metric, N_RESAMPLES, SEED, rule)
        measured[name][f"{metric}_interval_95"] = interval
    if UNCALIBRATED in scores:
        names = head_of(task).probability_metrics
        measured[UNCALIBRATED] = {name: measured[UNCALIBRATED][name] for name in names}
    return measured


def format_metric(value: float | None) -> str:
    """Return a metric for a person to read."""
    return "not defined" if value is None else f"{value:.4f}"


def final_scores(scores: Scores) -> Scores:
    """Return the scores without those before calibration."""
    return {name: values for name, values in scores.items() if name != UNCALIBRATED}


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one part of the blend is worth."""

    weight: float
    """In the blend."""
    metric: float | None
    """The gates' metric of its scores alone, on held-out rows."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Metrics of a trained model and of the baseline on held-out rows."""

    product: Product
    y: np.ndarray
    """The labels, as `tasks.rows.model_inputs.targets` gives them."""
    scores: Scores
    classes: tuple[str, ...]
    """Those of the training rows, then those that only the held-out rows have."""
    n_unseen_classes: int
    """How many classes only the held-out rows have."""
    n_rows: dict[str, int]
    """All rows of the parts train and test."""
    calibration: dict[str, tuple[float, ...]]
    """Scale and offset of the model."""
    rule: PredictionRule
    """How scores become predictions."""
    predictions: Predictions | None
    """What predictions by a measured threshold or by costs are worth; None where all is as usual."""
    label_scale: "LabelScale"
    """The scale on which numbers are learnt."""
    parts: dict[str, "Part"]
    """What each part of the blend is worth alone; none where the Transformer is all there is."""
    by_scorer: "dict[str, Metrics]"
    """Every metric by the scores' name, with the interval of the gates' metric."""

    @property
    def head(self) -> Head:
        """Return what the task decides."""
        return model_inputs.product_head(self.product)

    @property
    def n_rows_of_unseen_classes(self) -> int:
        """Return how many held-out rows have a class that training never saw."""
        n_seen = len(self.classes) - self.n_unseen_classes
        if not self.n_unseen_classes:
            return 0
        return int((self.y[:, n_seen:].any(axis=1) if self.y.ndim > 1 else self.y >= n_seen).sum())

    def report(self) -> dict[str, Any]:
        """Return the content of evaluation.json."""
        return {
            "rows_test": len(self.y),
            "rows_of_unknown_class": self.n_rows_of_unseen_classes,
            "classes_never_trained": self.n_unseen_classes,
            "threshold": self.rule.thresholds[0] if len(self.rule.thresholds) == 1 else list(self.rule.thresholds),
            **({"predictions": self.predictions.report()} if self.predictions else {}),
            "calibration": self.calibration,
            **({"target_scale": asdict(self.label_scale)} if self.head.has_label_scale else {}),
            "parts": {name: asdict(part) for name, part in self.parts.items()},
            **self.by_scorer,
        }

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return the content of metrics.json: the plain numbers, rounded."""
        return {
            scorer: {name: round(value, 6) for name, value in values.items() if isinstance(value, float)}
            for scorer, values in self.by_scorer.items()
        }

    @property
    def summary(self) -> str:
        """Return the line that the stage prints."""
        metric, model = self.product.gates.metric, self.by_scorer["model"]
        low, high = model[f"{metric}_interval_95"] or (float("nan"), float("nan"))
        ece = f", ece {model['ece']:.3f}" if "ece" in model else ""
        if UNCALIBRATED in self.by_scorer:
            ece += f" ({self.by_scorer[UNCALIBRATED]['ece']:.3f} before calibration)"
        if model.get("interval_coverage") is not None:
            levels = self.head.levels
            ece += f", {model['interval_coverage']:.1%} within quantiles that shall hold {levels[-1] - levels[0]:.1%}"
        unseen = ""
        if self.n_unseen_classes:
            unseen = (
                f", {self.n_rows_of_unseen_classes:,} of them of {self.n_unseen_classes:,} classes that training never "
                "saw, which count as wrong"
            )
        parts = [f"{name} {part.weight:.2f} ({format_metric(part.metric)})" for name, part in self.parts.items()]
        blend = f"; weight of each part, and what it reaches alone: {', '.join(parts)}" if parts else ""
        predictions = f"; {self.predictions.summary}" if self.predictions else ""
        scale = f", learnt on a {self.label_scale.name} scale" if self.label_scale.name != LINEAR else ""
        scale += ", medians" if self.label_scale.point == MEDIAN else ""
        return (
            f"{metric} {format_metric(model[metric])} (95% interval {low:.4f} to {high:.4f}), "
            f"baseline {format_metric(self.by_scorer['baseline'][metric])}{ece}, "
            f"on {len(self.y):,} held-out rows{unseen}{scale}{predictions}{blend}"
        )


def measure(product: Product, paths: Paths) -> Measured:
    """Score the held-out rows below `paths` with the trained model there and a baseline, and measure both."""
    from model.scoring.scorer import TorchScorer
    from model.training.calibration import uncalibrated

    model = TorchScorer(paths.trained)
    target = model.network.target
    assert target is not None
    test_rows = model_inputs.split_part(paths.splits, "test", product)
    classes = model_inputs.all_classes(test_rows.labels, product, model.classes)
    y = model_inputs.targets(test_rows.labels, product, classes)
    model_inputs.check_costs(product, classes)
    thresholds = measured_thresholds(product, paths.trained)
    rule = model_inputs.prediction_rule(product, thresholds, model.classes, classes)
    if target.head.writes_texts:
        by_baseline = fit_text_baseline(product, paths.splits, model.writer).scores(test_rows.read_all(), y)
    elif target.head.answers_spans:
        by_baseline = span_baseline_scores(product, paths.splits, test_rows)
    elif has_naive(product):
        by_baseline = naive_scores(product, paths.splits, test_rows)
    else:
        baseline = fitted_baseline(product, paths.splits, model.classes)
        # scikit-learn takes no table without rows.
        by_baseline = np.concatenate([baseline.score(part) for part in test_rows if len(next(iter(part.values())))])
    by_model, by_part = _scores_by_part(model, test_rows)
    scores = {"model": by_model, "baseline": by_baseline}
    if target.scale:
        scores[UNCALIBRATED] = uncalibrated(target, scores["model"])
    scores = {
        name: model_inputs.scores_of_classes(found, model.classes, classes) if target.head.has_classes else found
        for name, found in scores.items()
    }
    return Measured(
        product=product,
        y=y,
        scores=scores,
        classes=classes,
        n_unseen_classes=len(classes) - len(model.classes),
        n_rows={name: n_rows(paths.splits / f"{name}.parquet") for name in ("train", "test")},
        calibration={"scale": target.scale, "offset": target.offset},
        rule=rule,
        predictions=measure_predictions(product, thresholds, rule, y, scores["model"], classes),
        label_scale=target.label_scale,
        parts={
            name: Part(
                weight=model.network.blend[name],
                metric=gate_metric(product, y, model_inputs.scores_of_classes(each, model.classes, classes), rule=rule),
            )
            for name, each in by_part.items()
        },
        by_scorer=measured_scores(product, y, scores, classes, rule),
    )


def _scores_by_part(model: "TorchScorer", rows: model_inputs.SplitPart) -> tuple[np.ndarray, Scores]:
    """Return the scores of the rows, and those of every part of the blend alone; of one part alone, none."""
    from model.scoring.scorer import WHOLE

    blend = model.network.blend
    if len(blend) < 2 or not len(rows):
        return model_inputs.scores(model, rows), {}
    found = model_inputs.scores(model.of_parts(WHOLE, *blend), rows)
    return found[:, 0], {name: found[:, number] for number, name in enumerate(blend, start=1)}


def fitted_baseline(
    product: Product, splits: Path, classes: tuple[str, ...]
) -> "Baseline | Cooccurrence | ItemMixture":
    """Fit the baseline to training and validation rows."""
    from model.evaluation.baseline import fit_baseline
    from model.evaluation.item_mixture import fit_item_mixture

    parts = [
        model_inputs.split_part(splits, name, product).sample(MAX_BASELINE_ROWS).with_known_labels(classes)
        for name in ("train", "val")
    ]
    y = np.concatenate([y for _, y in parts])
    print(f"fitting the baseline on {len(y):,} rows", flush=True)
    tables = [rows.read_all() for rows, _ in parts]
    table = {name: np.concatenate([each[name] for each in tables]) for name in product.inputs}
    if head_of(product.target.task).answers_lists:
        target = model_inputs.as_declared(Target(task=product.target.task, classes=classes), product)
        return fit_item_mixture(product.inputs, table, y, target, n_counted=len(parts[0][1]), seed=SEED)
    levels = product.predict.quantiles
    return fit_baseline(product.inputs, table, y, product.target.task, len(classes), SEED, levels)
