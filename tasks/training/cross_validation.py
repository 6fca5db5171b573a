"""Evaluate a product's settings on several splits, each with a training of its own: k-fold evaluation.

With `split.by: hash` the circle of groups is cut into k test parts. With `by: time` the later folds are the splits
of earlier dates, test_days apart, each with nothing known that was not known then: no fold learns from its own future;
the first is the product's own split, which is measured already. Folds that are measured lie in <LAMPLIGHTER_HOME>/folds
until the last one is, and are not trained again: outside the run's workspace, which is made anew after a kill. Those
of an evaluation that never ended are removed by age.
"""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tasks.params import Product
from tasks.rows.labels.labelled import find_windows
from tasks.rows.splitting import split_rows
from tasks.runtime.errors import UserError
from tasks.runtime.files import read_json, remove_older_than, write_json
from tasks.runtime.fingerprints import fingerprint
from tasks.runtime.paths import Paths
from tasks.runtime.settings import KEPT_DAYS, settings
from tasks.training import code
from tasks.training.fine_tuning import fine_tune
from tasks.training.measuring import Measured, measure
from tasks.training.pretraining import pretrain

CONFIDENCE = 0.95
SCORERS = ("model", "baseline")

Json = dict[str, Any]
"""An object of evaluation.json."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One split of a product, by which its settings are tried."""

    number: int
    product: Product
    """The product with the fold's split."""
    as_of: date


@dataclass(frozen=True, kw_only=True)
class MeasuredFold:
    """What was measured on one fold."""

    fold: int
    as_of: str
    rows: dict[str, int]
    """Rows of each part."""
    metrics: dict[str, dict[str, float]]
    """As in metrics.json, by who gave the scores."""

    def to_json(self) -> Json:
        """Return its entry in evaluation.json."""
        return {"fold": self.fold, "as_of": self.as_of, "rows": self.rows, **self.metrics}

    @classmethod
    def from_json(cls, content: Json) -> "MeasuredFold":
        """Read what `to_json` returned."""
        fold, as_of, rows = (content.pop(name) for name in ("fold", "as_of", "rows"))
        return cls(fold=fold, as_of=as_of, rows=rows, metrics=content)


@dataclass(frozen=True, kw_only=True)
class MeanAndInterval:
    """The mean of a metric over folds."""

    mean: float
    interval_95: list[float]


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """The gates' metric over all folds."""

    metric: str
    model: MeanAndInterval
    baseline: MeanAndInterval
    difference: MeanAndInterval
    """Of the model from the baseline, fold by fold."""
    each: list[MeasuredFold]

    def report(self) -> Json:
        """Return its part of evaluation.json."""
        return {
            "metric": self.metric,
            "model": asdict(self.model),
            "baseline": asdict(self.baseline),
            "difference": asdict(self.difference),
            "each": [fold.to_json() for fold in self.each],
        }

    def metrics(self) -> dict[str, float]:
        """Return its part of metrics.json."""
        means = {"model": self.model.mean, "baseline": self.baseline.mean, "difference": self.difference.mean}
        return {name: round(mean, 6) for name, mean in means.items()}

    @property
    def summary(self) -> str:
        """Return the folds in a line."""
        within = "({:.4f} to {:.4f})".format(*self.model.interval_95)
        difference = "{:+.4f} ({:+.4f} to {:+.4f})".format(self.difference.mean, *self.difference.interval_95)
        return f"{len(self.each)} folds: {self.metric} {self.model.mean:.4f} {within}, {difference} beside the baseline"


def folder() -> Path:
    """Return where measured folds lie until the last one is."""
    return settings().home / "folds"


def cross_validate(product: Product, as_of: date, own: Measured) -> CrossValidation:
    """Train and measure every fold; `own` is what was measured on the product's own split.

    Raises UserError where a fold has too few rows.
    """
    from tqdm import tqdm

    remove_older_than(folder(), KEPT_DAYS)
    home = folder() / f"{product.name}-{folds_fingerprint(product, as_of)[:16]}"
    each = []
    if product.split.by == "time":
        each.append(MeasuredFold(fold=0, as_of=as_of.isoformat(), rows=own.n_rows, metrics=own.metrics()))
    for fold in tqdm(list(folds(product, as_of))[len(each) :], desc="folds", unit="fold"):
        each.append(measure_fold(fold, home))
    result = _summarise(product, each)
    for report in home.glob("fold-*.json"):
        report.unlink(missing_ok=True)
    with suppress(OSError):  # another evaluation of the same trains in it
        home.rmdir()
    return result


def folds(product: Product, as_of: date) -> Iterator[Fold]:
    """Return every fold, by time the product's own split first."""
    rule, minutes = product.split, product.model.minutes
    if minutes is not None:
        product = replace(product, model=replace(product.model, minutes=minutes / max(1, rule.folds)))
    n_folds, rule, test_days = rule.folds, replace(rule, folds=0), 0
    if rule.by == "time" and (found := find_windows(Paths(product.name).valid, product, as_of)):
        test_days = found[0].test_days
        rule = found[0].declared(rule)
    for i in range(n_folds):
        if rule.by == "hash":
            split = replace(rule, test_fraction=1 / n_folds, start=i / n_folds)
            yield Fold(number=i, product=replace(product, split=split), as_of=as_of)
        else:
            yield Fold(number=i, product=replace(product, split=rule), as_of=as_of - timedelta(days=i * test_days))


def measure_fold(fold: Fold, home: Path) -> MeasuredFold:
    """Split, train and measure one fold in a folder below `home`, unless its report lies there."""
    report, product = home / f"fold-{fold.number}.json", fold.product
    if report.exists():
        return MeasuredFold.from_json(read_json(report))
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as root:
        paths = Paths(product.name, root=Path(root))
        try:
            parts = split_rows(product, fold.as_of, Paths(product.name).valid, paths.splits)
            print(f"fold {fold.number}: {parts.summary}", flush=True)
            print(f"fold {fold.number}: {pretrain(product, paths).summary}", flush=True)
            print(f"fold {fold.number}: {fine_tune(product, paths).summary}", flush=True)
            measured = measure(product, paths)
            print(f"fold {fold.number}: {measured.summary}", flush=True)
        except UserError as error:
            raise UserError(
                f"{error}\nfold {fold.number} of split.folds, as_of {fold.as_of}, stopped so; use fewer folds"
            ) from None
    result = MeasuredFold(fold=fold.number, as_of=fold.as_of.isoformat(), rows=parts.rows, metrics=measured.metrics())
    write_json(report, result.to_json())
    return result


def mean_and_interval(values: list[float], test_per_train: float) -> MeanAndInterval:
    """Return the mean of a metric over folds, and its 95 % interval widened for trainings that share rows.

    Source: Nadeau and Bengio 2003, "Inference for the Generalization Error", the corrected resampled t.
    """
    from scipy import stats

    error = np.std(values, ddof=1) * np.sqrt(1 / len(values) + test_per_train)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * error)
    mean = float(np.mean(values))
    return MeanAndInterval(mean=mean, interval_95=[mean - reach, mean + reach])


def folds_fingerprint(product: Product, as_of: date) -> str:
    """Return the hash of all that decides the folds: one measured under the same need not be measured again."""
    return fingerprint(
        code=code.CROSS_VALIDATION, data=[Paths(product.name).valid], settings=[asdict(product), as_of.isoformat()]
    )


def _summarise(product: Product, each: list[MeasuredFold]) -> CrossValidation:
    metric = product.gates.metric
    values = {name: [fold.metrics[name][metric] for fold in each if metric in fold.metrics[name]] for name in SCORERS}
    if any(len(defined) < len(each) for defined in values.values()):
        raise UserError(
            f"params.yaml: products.{product.name}.split.folds must leave {metric} defined in every fold, got "
            f"{product.split.folds}; use fewer"
        )
    difference = [model - baseline for model, baseline in zip(*values.values(), strict=True)]
    test_per_train = float(np.mean([fold.rows["test"] / fold.rows["train"] for fold in each]))
    return CrossValidation(
        metric=metric,
        model=mean_and_interval(values["model"], test_per_train),
        baseline=mean_and_interval(values["baseline"], test_per_train),
        difference=mean_and_interval(difference, test_per_train),
        each=each,
    )
