"""Evaluate a product's settings on several splits, each with a training of its own: k-fold evaluation.

With `split.by: hash` the circle of groups is cut into k test parts. With `by: time` the later folds are the splits
of earlier dates, test_days apart, each with nothing known that was not known then: no fold learns from its own future;
the first is the product's own split, which is measured already. Folds that are done lie in <LAMPLIGHTER_HOME>/folds
until the last one is, and are not trained again: outside the run's workspace, which is made anew after a kill. What
nobody took up again is removed by age.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tasks.params import Product
from tasks.runtime.errors import UserError
from tasks.runtime.files import code_sha256, folder_sha256, read_json, remove_older_than, write_json
from tasks.runtime.paths import Paths
from tasks.runtime.settings import KEPT_DAYS, settings
from tasks.training.scratch import movable, scratch

CONFIDENCE = 0.95

Fold = tuple[Product, date]
"""What the stages are called with to train and measure one fold."""


def folder() -> Path:
    """Return where folds lie until the last one is measured."""
    return settings().home / "folds"


def evaluate_folds(product: Product, as_of: date, present: dict[str, Any]) -> dict[str, Any]:
    """Train and measure every fold; the metric's mean over the folds and its interval, for model and baseline.

    `present` has the rows and metrics of the product's own split.
    Raises UserError where a fold has too few rows.
    """
    from tqdm import tqdm

    remove_older_than(folder(), KEPT_DAYS)
    home = folder() / f"{product.name}-{_inputs_sha256(product, as_of)[:16]}"
    each = [{"fold": 0, "as_of": as_of.isoformat(), **present}] if product.split.by == "time" else []
    for fold in tqdm(list(_folds(product, as_of))[len(each) :], desc="folds", unit="fold"):
        each.append(_measured(home, len(each), *fold))
    metric = product.gates.metric
    values = {name: [fold[name].get(metric) for fold in each] for name in ("model", "baseline")}
    if any(None in them for them in values.values()):
        raise UserError(
            f"params.yaml: products.{product.name}.split.folds must leave {metric} defined in every fold, got "
            f"{product.split.folds}; use fewer"
        )
    values["difference"] = [ours - theirs for ours, theirs in zip(*values.values(), strict=True)]
    share = float(np.mean([fold["rows"]["test"] / fold["rows"]["train"] for fold in each]))
    for report in home.glob("fold-*.json"):
        report.unlink(missing_ok=True)
    with suppress(OSError):  # another evaluation of the same trains there
        home.rmdir()
    return {"metric": metric, **{name: mean_and_interval(them, share) for name, them in values.items()}, "each": each}


def summarise_folds(folds: dict[str, Any]) -> str:
    """The folds in a line."""
    model, ahead = folds["model"], folds["difference"]
    within = "({:.4f} to {:.4f})".format(*model["interval_95"])
    beside = "{:+.4f} ({:+.4f} to {:+.4f})".format(ahead["mean"], *ahead["interval_95"])
    return f"{len(folds['each'])} folds: {folds['metric']} {model['mean']:.4f} {within}, {beside} beside the baseline"


def mean_and_interval(values: list[float], test_per_train: float) -> dict[str, Any]:
    """Mean of a metric over folds, and its 95 % interval widened for trainings that share rows.

    Source: Nadeau and Bengio 2003, "Inference for the Generalization Error", the corrected resampled t.
    """
    from scipy import stats

    error = np.std(values, ddof=1) * np.sqrt(1 / len(values) + test_per_train)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * error)
    mean = float(np.mean(values))
    return {"mean": mean, "interval_95": [mean - reach, mean + reach]}


def _folds(product: Product, as_of: date) -> Iterator[Fold]:
    rule, n = product.split, product.split.folds
    for i in range(n):
        if rule.by == "hash":
            yield replace(product, split=replace(rule, folds=0, test_fraction=1 / n, start=i / n)), as_of
        else:
            yield replace(product, split=replace(rule, folds=0)), as_of - timedelta(days=i * rule.test_days)


def _measured(home: Path, i: int, product: Product, as_of: date) -> dict[str, Any]:
    """Rows and metrics of one fold, trained unless it was before."""
    from tasks.evaluate import evaluate
    from tasks.pretrain import pretrain
    from tasks.split import split
    from tasks.train import train

    report = home / f"fold-{i}.json"
    if report.exists():
        return read_json(report)
    home.mkdir(parents=True, exist_ok=True)
    paths, product = Paths(product.name), movable(product)
    with tempfile.TemporaryDirectory(dir=home) as folder, scratch(Path(folder), [paths.valid]):
        try:
            for stage in (split, pretrain, train, evaluate):
                print(f"fold {i}: {stage(product, as_of)}", flush=True)
        except UserError as error:
            raise UserError(f"{error}\nfold {i} of split.folds, as_of {as_of}, stopped so; use fewer folds") from None
        rows, metrics = (read_json(paths.report(name)) for name in ("split.json", "metrics.json"))
    part = {"fold": i, "as_of": as_of.isoformat(), "rows": rows["rows"], **metrics}
    write_json(report, part)
    return part


def _inputs_sha256(product: Product, as_of: date) -> str:
    """What decides the folds: a fold that was measured with the same need not be measured again."""
    valid = folder_sha256(Paths(product.name).valid)
    inputs = [asdict(product), str(as_of), code_sha256("model", "tasks"), valid]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
