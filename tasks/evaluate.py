"""Measure the trained model on the held-out rows, beside a baseline that learns from training and validation rows.

The baseline is scikit-learn's: histogram gradient boosting on tables, TF-IDF with a linear model on text. What the
model's probabilities were before their calibration is measured as well. Writes metrics.json (for `dvc metrics`),
evaluation.json (with intervals and per class) and evaluation.png, with the reliability of probabilities. Whether
the model may predict is decided later, by `tasks.promote`. With `split.folds` the same is measured on as many splits,
each with a training of its own (see tasks/folds.py).
"""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tasks import stage, tables
from tasks.files import n_rows, whole_file, write_json
from tasks.folds import evaluate_folds, told
from tasks.params import Product
from tasks.paths import Paths

N_RESAMPLES = 500
SEED = 0
MAX_BASELINE_ROWS = 1_000_000
"""The baseline's libraries hold all rows in memory: of more it sees a sample."""
OF_PROBABILITIES = ("log_loss", "brier", "ece")
UNCALIBRATED = "model_before_calibration"

Scores = dict[str, np.ndarray]
"""By the name of who gave them: model, baseline, and the model before its calibration."""


def evaluate(product: Product, as_of: date) -> str:
    """Write the metrics of model and baseline on data/splits/<product>/test.parquet."""
    from model.baseline import fit_baseline
    from model.calibration import uncalibrated
    from model.scoring import TorchScorer

    paths, task = Paths(product.name), product.target.task
    model = TorchScorer(paths.trained)
    target = model.network.target
    assert target is not None
    parts = [
        tables.split_part(paths.splits, name, product).sample(MAX_BASELINE_ROWS).answerable(model.classes)
        for name in ("train", "val")
    ]
    y_fitted = np.concatenate([y for _, y in parts])
    test_rows, y_test = tables.split_part(paths.splits, "test", product).answerable(model.classes)
    print(f"fitting the baseline on {len(y_fitted):,} rows", flush=True)
    tables_fitted = [rows.whole() for rows, _ in parts]
    fitted = {name: np.concatenate([table[name] for table in tables_fitted]) for name in product.columns}
    baseline = fit_baseline(product.columns, fitted, y_fitted, task, len(model.classes), SEED)
    # scikit-learn takes no table without rows.
    by_baseline = [baseline.score(piece) for piece in test_rows if len(next(iter(piece.values())))]
    scores = {"model": tables.scores(model, test_rows), "baseline": np.concatenate(by_baseline)}
    counts = {name: n_rows(paths.splits / f"{name}.parquet") for name in ("train", "test")}
    if target.scale:
        scores[UNCALIBRATED] = uncalibrated(target, scores["model"])
    full: dict[str, Any] = {
        "as_of": as_of.isoformat(),
        "rows_test": len(y_test),
        "rows_of_unknown_class": counts["test"] - len(y_test),
        "threshold": product.predict.threshold,
        "calibration": {"scale": target.scale, "offset": target.offset},
        **_measured(product, y_test, scores, model.classes),
    }
    metrics = {
        name: {key: round(value, 6) for key, value in full[name].items() if isinstance(value, float)} for name in scores
    }
    if product.split.folds:
        full["folds"] = evaluate_folds(product, as_of, {"rows": counts, **metrics})
        metrics["folds"] = {name: round(full["folds"][name]["mean"], 6) for name in ("model", "baseline", "difference")}
    write_json(paths.report("metrics.json"), metrics)
    write_json(paths.report("evaluation.json"), full)
    _plot(paths.report("evaluation.png"), product, y_test, scores, model.classes)
    return _summary(product, full)


def _measured(product: Product, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Every metric by who gave the scores, with the interval of the gates' metric."""
    from model.metrics import bootstrap_interval, evaluate_scores

    task, metric, threshold = product.target.task, product.gates.metric, product.predict.threshold
    measured = {name: evaluate_scores(task, y, values, classes, threshold) for name, values in scores.items()}
    for name, values in _final(scores).items():
        interval = bootstrap_interval(task, y, values, classes, metric, N_RESAMPLES, SEED, threshold)
        measured[name][f"{metric}_interval_95"] = interval
    if UNCALIBRATED in scores:
        measured[UNCALIBRATED] = {name: measured[UNCALIBRATED][name] for name in OF_PROBABILITIES}
    return measured


def _summary(product: Product, full: dict[str, Any]) -> str:
    metric, model = product.gates.metric, full["model"]
    low, high = model[f"{metric}_interval_95"] or (float("nan"), float("nan"))
    ece = f", ece {model['ece']:.3f}" if "ece" in model else ""
    if UNCALIBRATED in full:
        ece += f" ({full[UNCALIBRATED]['ece']:.3f} before calibration)"
    folds = f"; {told(full['folds'])}" if "folds" in full else ""
    return (
        f"{metric} {figure(model[metric])} (95% interval {low:.4f} to {high:.4f}), "
        f"baseline {figure(full['baseline'][metric])}{ece}, on {full['rows_test']:,} held-out rows{folds}"
    )


def figure(value: float | None) -> str:
    """A metric for a person to read."""
    return "not defined" if value is None else f"{value:.4f}"


def _plot(path: Path, product: Product, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> None:
    """What a person would rather look at than read; one picture per task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    task = product.target.task
    draw = {"binary": _plot_binary, "multiclass": _plot_confusion, "multilabel": _plot_labels}.get(task, _plot_scatter)
    n_axes = 3 if task == "multiclass" else 2
    figure, axes = pyplot.subplots(1, n_axes, figsize=(5.5 * n_axes, 5), layout="constrained")
    draw(axes, y, scores, classes)
    figure.suptitle(f"{product.name}: {product.target.name} on {len(y):,} held-out rows")
    with whole_file(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    pyplot.close(figure)


def _plot_binary(axes: Any, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    for name, values in _final(scores).items():
        false, true, _ = roc_curve(y, values)
        axes[0].plot(false, true, label=f"{name}, AUC {roc_auc_score(y, values):.3f}")
    axes[0].plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes[0].set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    axes[0].legend()
    _plot_reliability(axes[1], {name: (y, values) for name, values in scores.items()}, "share of positives")


def _plot_confusion(axes: Any, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> None:
    from sklearn.metrics import ConfusionMatrixDisplay

    from model.metrics import confidence

    for axis, (name, values) in zip(axes, _final(scores).items(), strict=False):
        ConfusionMatrixDisplay.from_predictions(
            y,
            values.argmax(1),
            labels=range(len(classes)),
            display_labels=classes,
            ax=axis,
            colorbar=False,
            xticks_rotation=45,
        )
        axis.set(title=name)
    _plot_reliability(axes[2], {name: confidence(y, values) for name, values in scores.items()}, "share that is right")


def _plot_labels(axes: Any, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> None:
    from sklearn.metrics import average_precision_score

    height, final = 0.8 / len(_final(scores)), _final(scores)
    for i, (name, values) in enumerate(final.items()):
        precisions = [average_precision_score(*both) for both in zip(y.T, values.T, strict=True)]
        axes[0].barh(np.arange(len(classes)) + i * height, precisions, height, label=name)
    axes[0].set(title="Average precision", yticks=np.arange(len(classes)), yticklabels=classes, xlim=(0, 1))
    axes[0].legend()
    pooled = {name: (y.ravel(), values.ravel()) for name, values in scores.items()}
    _plot_reliability(axes[1], pooled, "share of positives")


def _plot_scatter(axes: Any, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> None:
    for axis, (name, values) in zip(axes, scores.items(), strict=True):
        axis.scatter(values.ravel(), y.ravel(), s=4, alpha=0.4)
        axis.set(title=name, xlabel="predicted", ylabel="true")


def _plot_reliability(axis: Any, told: dict[str, tuple[np.ndarray, np.ndarray]], truth: str) -> None:
    from model.metrics import calibration_error, reliability

    for name, (y, shares) in told.items():
        mean, share, _ = reliability(y, shares)
        style = {"linestyle": ":", "linewidth": 1} if name == UNCALIBRATED else {}
        axis.plot(
            mean, share, marker=".", label=f"{name.replace('_', ' ')}, ECE {calibration_error(y, shares):.3f}", **style
        )
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.set(title="Reliability", xlabel="mean probability", ylabel=truth)
    axis.legend()


def _final(scores: Scores) -> Scores:
    return {name: values for name, values in scores.items() if name != UNCALIBRATED}


if __name__ == "__main__":
    stage.main(evaluate)
