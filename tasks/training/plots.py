"""Draw what a person would rather look at than read."""

from pathlib import Path
from typing import Any

import numpy as np

from tasks.params import Product
from tasks.runtime.files import atomic_file
from tasks.training.measuring import UNCALIBRATED, Scores, final_scores


def plot_evaluation(path: Path, product: Product, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> None:
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
    with atomic_file(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    pyplot.close(figure)


def _plot_binary(axes: Any, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    for name, values in final_scores(scores).items():
        false, true, _ = roc_curve(y, values)
        axes[0].plot(false, true, label=f"{name}, AUC {roc_auc_score(y, values):.3f}")
    axes[0].plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes[0].set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    axes[0].legend()
    _plot_reliability(axes[1], {name: (y, values) for name, values in scores.items()}, "share of positives")


def _plot_confusion(axes: Any, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> None:
    from sklearn.metrics import ConfusionMatrixDisplay

    from model.evaluation.metrics import confidence

    for axis, (name, values) in zip(axes, final_scores(scores).items(), strict=False):
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

    height, final = 0.8 / len(final_scores(scores)), final_scores(scores)
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


def _plot_reliability(axis: Any, by_scorer: dict[str, tuple[np.ndarray, np.ndarray]], truth: str) -> None:
    from model.evaluation.metrics import calibration_error, reliability

    for name, (y, shares) in by_scorer.items():
        mean, share, _ = reliability(y, shares)
        style = {"linestyle": ":", "linewidth": 1} if name == UNCALIBRATED else {}
        axis.plot(
            mean, share, marker=".", label=f"{name.replace('_', ' ')}, ECE {calibration_error(y, shares):.3f}", **style
        )
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.set(title="Reliability", xlabel="mean probability", ylabel=truth)
    axis.legend()
