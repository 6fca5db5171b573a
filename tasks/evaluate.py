"""Measure the trained model on the held-out rows, beside a baseline that saw the same training rows.

The baseline is scikit-learn's: histogram gradient boosting on tables, TF-IDF with a linear model on text.
Writes metrics.json (for `dvc metrics`), evaluation.json (with intervals and per class) and evaluation.png.
Whether the model may predict is decided later, by `tasks.promote`.
"""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tasks import stage, tables
from tasks.files import whole_file, write_json
from tasks.params import Product
from tasks.paths import Paths

N_RESAMPLES = 500
SEED = 0


def evaluate(product: Product, as_of: date) -> str:
    """Write the metrics of model and baseline on data/splits/<product>/test.parquet."""
    from model.baseline import fit_baseline
    from model.metrics import bootstrap_interval, evaluate_scores
    from model.scoring import TorchScorer

    paths, task, metric = Paths(product.name), product.target.task, product.gates.metric
    threshold = product.predict.threshold
    model = TorchScorer(paths.trained)
    rows = {name: tables.read_split(paths.splits, name) for name in ("train", "test")}
    y_train = tables.targets(rows["train"], product, model.classes)
    table, y_test = tables.answerable(rows["test"], product, model.classes)
    print(f"fitting the baseline on {len(rows['train']):,} rows", flush=True)
    baseline = fit_baseline(product.columns, tables.inputs(rows["train"], product), y_train, task, SEED)
    scores = {"model": model.score(table), "baseline": baseline.score(table)}
    metrics: dict[str, dict[str, float]] = {}
    full: dict[str, Any] = {
        "as_of": as_of.isoformat(),
        "rows_test": len(y_test),
        "rows_of_unknown_class": len(rows["test"]) - len(y_test),
    }
    for name, values in scores.items():
        measured = evaluate_scores(task, y_test, values, model.classes, threshold)
        interval = bootstrap_interval(task, y_test, values, model.classes, metric, N_RESAMPLES, SEED, threshold)
        full[name] = {**measured, f"{metric}_interval_95": interval}
        metrics[name] = {key: round(value, 6) for key, value in measured.items() if isinstance(value, float)}
    write_json(paths.report("metrics.json"), metrics)
    write_json(paths.report("evaluation.json"), full)
    _plot(paths.report("evaluation.png"), product, y_test, scores, model.classes)
    low, high = full["model"][f"{metric}_interval_95"] or (float("nan"), float("nan"))
    return (
        f"{metric} {metrics['model'][metric]:.4f} (95% interval {low:.4f} to {high:.4f}), "
        f"baseline {metrics['baseline'][metric]:.4f}, on {len(y_test):,} held-out rows"
    )


def _plot(path: Path, product: Product, y: np.ndarray, scores: dict[str, np.ndarray], classes: tuple[str, ...]) -> None:
    """What a person would rather look at than read; one picture per task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    draw = {"binary": _plot_binary, "multiclass": _plot_confusion}.get(product.target.task, _plot_scatter)
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 5), layout="constrained")
    draw(axes, y, scores, classes)
    figure.suptitle(f"{product.name}: {product.target.name} on {len(y):,} held-out rows")
    with whole_file(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    pyplot.close(figure)


def _plot_binary(axes: Any, y: np.ndarray, scores: dict[str, np.ndarray], classes: tuple[str, ...]) -> None:
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import roc_auc_score, roc_curve

    for name, values in scores.items():
        false, true, _ = roc_curve(y, values)
        axes[0].plot(false, true, label=f"{name}, AUC {roc_auc_score(y, values):.3f}")
        share, mean = calibration_curve(y, values, n_bins=10, strategy="quantile")
        axes[1].plot(mean, share, marker="o", label=name)
    axes[0].set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    axes[1].set(title="Reliability", xlabel="mean probability", ylabel="share of positives")
    for axis in axes:
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        axis.legend()


def _plot_confusion(axes: Any, y: np.ndarray, scores: dict[str, np.ndarray], classes: tuple[str, ...]) -> None:
    from sklearn.metrics import ConfusionMatrixDisplay

    for axis, (name, values) in zip(axes, scores.items(), strict=True):
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


def _plot_scatter(axes: Any, y: np.ndarray, scores: dict[str, np.ndarray], classes: tuple[str, ...]) -> None:
    for axis, (name, values) in zip(axes, scores.items(), strict=True):
        axis.scatter(values.ravel(), y.ravel(), s=4, alpha=0.4)
        axis.set(title=name, xlabel="predicted", ylabel="true")


if __name__ == "__main__":
    stage.main(evaluate)
