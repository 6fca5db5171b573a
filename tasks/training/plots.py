"""Draw what a person would rather look at than read: the plots that a head names."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from model.heads.base import Head
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.runtime.files import atomic_file
from tasks.training.measuring import UNCALIBRATED, Scores, final_scores
from tasks.training.predictions import Predictions

if TYPE_CHECKING:
    from model.evaluation.thresholds import Curve

LABELS_SHOWN = 10
"""Of more labels the curves by threshold cannot be told apart."""
CLASSES_SHOWN = 30
"""Of more classes a confusion matrix shows colours alone: nobody could read its numbers, and drawing takes minutes."""


class Draw(Protocol):
    """One panel, drawn on matplotlib's axes."""

    def __call__(self, axes: Any) -> None:
        """Draw it."""


def plot_evaluation(
    path: Path,
    product: Product,
    y: np.ndarray,
    scores: Scores,
    classes: tuple[str, ...],
    predictions: Predictions | None = None,
) -> None:
    """Write the picture of an evaluation: the panels of every plot of the task, side by side.

    With `predictions` it shows what they are worth by threshold.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    head = model_inputs.product_head(product)
    panels = [draw for name in head.plots for draw in PLOTS[name](head, y, scores, classes)]
    if predictions is not None and predictions.thresholds is not None:
        panels += list(_by_threshold(head, predictions, y, scores["model"], classes))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.5 * len(panels), 5), layout="constrained", squeeze=False)
    for draw, panel in zip(panels, axes[0], strict=True):
        draw(panel)
    figure.suptitle(f"{product.name}: {product.target.name} on {len(y):,} held-out rows")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    pyplot.close(figure)


def _roc(head: Head, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> Iterator[Draw]:
    def draw(axes: Any) -> None:
        from sklearn.metrics import roc_auc_score, roc_curve

        for name, values in final_scores(scores).items():
            false, true, _ = roc_curve(y, values)
            axes.plot(false, true, label=f"{name}, AUC {roc_auc_score(y, values):.3f}")
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        axes.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
        axes.legend()

    yield draw


def _surprise(head: Head, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> Iterator[Draw]:
    def draw(axes: Any) -> None:
        from model.heads.reconstruct import bits_of

        bits = bits_of(scores["model"]).sum(axis=1)
        edges = np.linspace(0, float(np.quantile(bits, 0.995)), 40) if len(bits) else np.arange(2)
        for name, rows in (("as they came", y < 0), ("one cell changed", y >= 0)):
            axes.hist(bits[rows], edges, density=True, alpha=0.6, label=f"{name}, {int(rows.sum()):,} rows")
        axes.set(title="Surprise", xlabel="bits of a row", ylabel="density")
        axes.legend()

    yield draw


def _confusion(head: Head, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> Iterator[Draw]:
    def draw(axes: Any, name: str, values: np.ndarray) -> None:
        from sklearn.metrics import ConfusionMatrixDisplay

        ConfusionMatrixDisplay.from_predictions(
            y,
            values.argmax(1),
            labels=range(len(classes)),
            display_labels=classes,
            ax=axes,
            colorbar=False,
            include_values=len(classes) <= CLASSES_SHOWN,
            xticks_rotation=45,
        )
        if len(classes) > CLASSES_SHOWN:
            axes.set(xticks=[], yticks=[])
        axes.set(title=name)

    for name, values in final_scores(scores).items():
        yield partial(draw, name=name, values=values)


def _average_precision(head: Head, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> Iterator[Draw]:
    def draw(axes: Any) -> None:
        from sklearn.metrics import average_precision_score

        final = final_scores(scores)
        height = 0.8 / len(final)
        for i, (name, values) in enumerate(final.items()):
            precisions = [average_precision_score(*column) for column in zip(y.T, values.T, strict=True)]
            axes.barh(np.arange(len(classes)) + i * height, precisions, height, label=name)
        axes.set(title="Average precision", yticks=np.arange(len(classes)), yticklabels=classes, xlim=(0, 1))
        axes.legend()

    yield draw


def _scatter(head: Head, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> Iterator[Draw]:
    def draw(axes: Any, name: str, values: np.ndarray) -> None:
        axes.scatter(head.point(values).ravel(), y.ravel(), s=4, alpha=0.4)
        axes.set(title=name, xlabel="predicted", ylabel="true")

    def draw_shares(axes: Any) -> None:
        from model.heads.measures import shares_below

        for name, values in scores.items():
            axes.plot(head.levels, shares_below(y, values[:, 1:]), marker=".", label=name)
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        axes.set(title="Quantiles", xlabel="level", ylabel="share of labels below")
        axes.legend()

    for name, values in scores.items():
        yield partial(draw, name=name, values=values)
    if head.levels:
        yield draw_shares


def _reliability(head: Head, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> Iterator[Draw]:
    def draw(axes: Any) -> None:
        from model.heads.measures import calibration_error, reliability

        for name, values in scores.items():
            events, probabilities = head.reliability(y, values)
            mean, share, _ = reliability(events, probabilities)
            style = {"linestyle": ":", "linewidth": 1} if name == UNCALIBRATED else {}
            label = f"{name.replace('_', ' ')}, ECE {calibration_error(events, probabilities):.3f}"
            axes.plot(mean, share, marker=".", label=label, **style)
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        axes.set(title="Reliability", xlabel="mean probability", ylabel=head.reliability_label)
        axes.legend()

    yield draw


def _hits_by_place(head: Head, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> Iterator[Draw]:
    def draw(axes: Any) -> None:
        from model.heads.item_lists import ranks

        for name, lists in final_scores(scores).items():
            n_places = lists.shape[1]
            hits = np.bincount(ranks(y, lists), minlength=n_places + 1)[:n_places].cumsum() / max(1, len(y))
            axes.plot(np.arange(1, n_places + 1), hits, marker=".", label=name)
        axes.set(title="Hit rate", xlabel="items of a list", ylabel="rows whose next item is among them", ylim=(0, 1))
        axes.legend()

    yield draw


def _bits_per_byte(head: Head, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> Iterator[Draw]:
    def draw(axes: Any) -> None:
        for name, values in final_scores(scores).items():
            each = np.sort(values[:, 0] / np.maximum(values[:, 1], 1))
            axes.plot(each, np.linspace(0, 1, len(each)), label=name)
        axes.set(title="Labels", xlabel="bits per byte of a label", ylabel="share of rows with less", xlim=(0, 8))
        axes.legend()

    yield draw


def _answers(head: Head, y: np.ndarray, scores: Scores, classes: tuple[str, ...]) -> Iterator[Draw]:
    def draw(axes: Any) -> None:
        final = final_scores(scores)
        height = 0.8 / len(final)
        for i, (name, values) in enumerate(final.items()):
            means = [metric(y, values) for metric in head.metrics(0.5).values()]
            axes.barh(np.arange(len(means)) + i * height, means, height, label=name)
        axes.set(title="Answers", yticks=np.arange(len(means)), yticklabels=head.metric_names, xlim=(0, 1))
        axes.legend()

    yield draw


def _by_threshold(
    head: Head, predictions: Predictions, y: np.ndarray, scores: np.ndarray, classes: tuple[str, ...]
) -> Iterator[Draw]:
    """Yield the curve of cost or F1 by threshold, of one yes or of each label, with the threshold that is used.

    Of answers in texts that of their metric.
    """

    def draw(axes: Any) -> None:
        metric = predictions.metric.removeprefix("macro_").removeprefix("micro_")
        for name, found, threshold in curves(metric):
            (line,) = axes.plot(found.thresholds, found.values, label=f"{name}from {threshold:.3f} on")
            axes.axvline(threshold, color=line.get_color(), linewidth=0.8, linestyle=":")
        axes.set(title="By threshold", xlabel="threshold", ylabel=metric.replace("_", " "), xlim=(0, 1))
        axes.legend()

    def curves(metric: str) -> "Iterator[tuple[str, Curve, float]]":
        from model.evaluation.thresholds import curve, curve_of_answers

        if head.answers_spans:
            yield "", curve_of_answers(scores, metric, has_prior=False), predictions.rule.thresholds[0]
            return
        thresholds = predictions.rule.thresholds_of(1 if scores.ndim == 1 else len(classes))
        columns = zip(y.reshape(len(y), -1).T, scores.reshape(len(y), -1).T, thresholds, strict=True)
        for number, (labels, shares, threshold) in enumerate(list(columns)[:LABELS_SHOWN]):
            name = f"{classes[number]}, " if scores.ndim > 1 else ""
            yield name, curve(labels, shares, metric, predictions.rule), threshold

    yield draw


PLOTS = {
    "roc": _roc,
    "confusion": _confusion,
    "average_precision": _average_precision,
    "scatter": _scatter,
    "reliability": _reliability,
    "surprise": _surprise,
    "hits_by_place": _hits_by_place,
    "bits_per_byte": _bits_per_byte,
    "answers": _answers,
}
"""Plots by the names that heads use; each gives its panels."""
