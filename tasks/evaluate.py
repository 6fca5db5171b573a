"""Measure the trained model on the held-out rows, beside a baseline that learns from training and validation rows.

The baseline is scikit-learn's: histogram gradient boosting on tables, TF-IDF with a linear model on text. What the
model's probabilities were before their calibration is measured as well. Writes metrics.json (for `dvc metrics`),
evaluation.json (with intervals and per class) and evaluation.png, with the reliability of probabilities. Whether
the model may predict is decided later, by `tasks.promote`. With `split.folds` the same is measured on as many splits,
each with a training of its own (see tasks/training/cross_validation.py).
"""

from datetime import date
from typing import Any

import numpy as np

from tasks import stage
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.partitions import n_rows
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths
from tasks.training.cross_validation import evaluate_folds, summarise_folds
from tasks.training.measuring import MAX_BASELINE_ROWS, SEED, UNCALIBRATED, format_metric, measured_scores
from tasks.training.plots import plot_evaluation


def evaluate(product: Product, as_of: date) -> str:
    """Write the metrics of model and baseline on data/splits/<product>/test.parquet."""
    from model.evaluation.baseline import fit_baseline
    from model.scoring.scorer import TorchScorer
    from model.training.calibration import uncalibrated

    paths, task = Paths(product.name), product.target.task
    model = TorchScorer(paths.trained)
    target = model.network.target
    assert target is not None
    parts = [
        model_inputs.split_part(paths.splits, name, product).sample(MAX_BASELINE_ROWS).answerable(model.classes)
        for name in ("train", "val")
    ]
    y_fitted = np.concatenate([y for _, y in parts])
    test_rows, y_test = model_inputs.split_part(paths.splits, "test", product).answerable(model.classes)
    print(f"fitting the baseline on {len(y_fitted):,} rows", flush=True)
    tables_fitted = [rows.whole() for rows, _ in parts]
    fitted = {name: np.concatenate([table[name] for table in tables_fitted]) for name in product.columns}
    baseline = fit_baseline(product.columns, fitted, y_fitted, task, len(model.classes), SEED)
    # scikit-learn takes no table without rows.
    by_baseline = [baseline.score(piece) for piece in test_rows if len(next(iter(piece.values())))]
    scores = {"model": model_inputs.scores(model, test_rows), "baseline": np.concatenate(by_baseline)}
    counts = {name: n_rows(paths.splits / f"{name}.parquet") for name in ("train", "test")}
    if target.scale:
        scores[UNCALIBRATED] = uncalibrated(target, scores["model"])
    full: dict[str, Any] = {
        "as_of": as_of.isoformat(),
        "rows_test": len(y_test),
        "rows_of_unknown_class": counts["test"] - len(y_test),
        "threshold": product.predict.threshold,
        "calibration": {"scale": target.scale, "offset": target.offset},
        **measured_scores(product, y_test, scores, model.classes),
    }
    metrics = {
        name: {key: round(value, 6) for key, value in full[name].items() if isinstance(value, float)} for name in scores
    }
    if product.split.folds:
        full["folds"] = evaluate_folds(product, as_of, {"rows": counts, **metrics})
        metrics["folds"] = {name: round(full["folds"][name]["mean"], 6) for name in ("model", "baseline", "difference")}
    write_json(paths.report("metrics.json"), metrics)
    write_json(paths.report("evaluation.json"), full)
    plot_evaluation(paths.report("evaluation.png"), product, y_test, scores, model.classes)
    return _summary(product, full)


def _summary(product: Product, full: dict[str, Any]) -> str:
    metric, model = product.gates.metric, full["model"]
    low, high = model[f"{metric}_interval_95"] or (float("nan"), float("nan"))
    ece = f", ece {model['ece']:.3f}" if "ece" in model else ""
    if UNCALIBRATED in full:
        ece += f" ({full[UNCALIBRATED]['ece']:.3f} before calibration)"
    folds = f"; {summarise_folds(full['folds'])}" if "folds" in full else ""
    return (
        f"{metric} {format_metric(model[metric])} (95% interval {low:.4f} to {high:.4f}), "
        f"baseline {format_metric(full['baseline'][metric])}{ece}, on {full['rows_test']:,} held-out rows{folds}"
    )


if __name__ == "__main__":
    stage.main(evaluate)
