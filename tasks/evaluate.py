"""Measure the trained model on the held-out rows, beside a baseline that learns from training and validation rows.

The baseline is scikit-learn's: histogram gradient boosting on tables, TF-IDF with a linear model on text. What the
model's probabilities were before their calibration is measured as well, and each slice that the product declares by
itself; slices that nobody declared are searched for, where the model errs more than elsewhere, and of three rows it is
told what moved their scores. Writes metrics.json (for
`dvc metrics`), evaluation.json (with intervals and per class) and evaluation.png, with the reliability of
probabilities; data/made_rows/<product> has the rows that a model without labels makes up, if `predict.make_rows` asks
for them. Whether the model may predict is decided later, by `tasks.promote`. With `split.folds` the same is
measured on as many splits, each with a training of its own (see tasks/training/cross_validation.py).
"""

from datetime import date

from tasks import stage
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths
from tasks.training.cross_validation import cross_validate
from tasks.training.held_out.made_rows import make_rows
from tasks.training.held_out.pictures import show_pictures
from tasks.training.held_out.search import search_slices
from tasks.training.held_out.single_rows import explain_single_rows
from tasks.training.held_out.slices import measure_slices
from tasks.training.measuring import measure
from tasks.training.plots import plot_evaluation


def evaluate(product: Product, as_of: date) -> str:
    """Write the metrics of model and baseline on data/splits/<product>/test.parquet, and on each fold."""
    paths = Paths(product.name)
    measured = measure(product, paths)
    report = {"as_of": as_of.isoformat(), **measured.report()}
    metrics, summary = measured.metrics(), measured.summary
    rows = model_inputs.split_part(paths.splits, "test", product)
    slices = measure_slices(product, rows, measured.y, measured.scores["model"], measured.rule)
    if slices:
        report["slices"], metrics["slices"] = slices.to_json(), slices.metrics()
        summary = f"{summary}; {slices.summary}"
    scores = measured.scores
    if look_here := search_slices(product, rows, measured.y, scores["model"], scores["baseline"], measured.rule):
        report["look_here"] = [each.to_json() for each in look_here]
        summary = f"{summary}; look here: it errs more on {len(look_here)} slices that nobody declared"
    report["single_rows"] = [each.to_json() for each in explain_single_rows(product, paths, rows, scores["model"])]
    if made := make_rows(product, paths):
        report["made_rows"], metrics["made_rows"] = made.to_json(), made.metrics()
        summary = f"{summary}; {made.summary}"
    if pictures := show_pictures(product, paths):
        report["pictures"] = [each.to_json() for each in pictures]
    if product.split.folds:
        folds = cross_validate(product, as_of, measured)
        report["folds"], metrics["folds"] = folds.report(), folds.metrics()
        summary = f"{summary}; {folds.summary}"
    write_json(paths.report("metrics.json"), metrics)
    write_json(paths.report("evaluation.json"), report)
    plot_evaluation(
        paths.report("evaluation.png"), product, measured.y, measured.scores, measured.classes, measured.predictions
    )
    return summary


if __name__ == "__main__":
    stage.main(evaluate)
