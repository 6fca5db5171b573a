"""Measure every policy on every night that has been replayed, by the labels that came until the end.

Published nights are read from the store. What another model would have reached is measured on the same valid rows with
its exported file, and the baseline is fitted again to the rows that each training learnt from.
"""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.heads.prediction_rule import MeasuredThresholds
from model.target import read_target
from tasks.commands.simulation.contracts import Outcome, Plan, Replay
from tasks.commands.simulation.home import Home
from tasks.commands.simulation.replay import UNIQUE, logged
from tasks.monitoring.performance import measure_night
from tasks.params import LOWER_IS_BETTER, Product
from tasks.publication.manifests import NightPlace, current_manifest
from tasks.publication.object_store import Store
from tasks.rows import model_inputs
from tasks.rows.labels.horizons import by_horizon, label_names
from tasks.rows.labels.known import KnownLabels, known_labels
from tasks.rows.partitions import Partitions
from tasks.runs import remote
from tasks.runs.experiments import Run, head
from tasks.runs.steps import open_run, step
from tasks.runs.workspace import exclusive_workspace
from tasks.runtime.errors import UserError
from tasks.runtime.files import read_json, write_json
from tasks.runtime.paths import DATA, Paths
from tasks.training.gate_metric import gate_metric
from tasks.training.held_out.texts import fit_text_baseline, measured_labels
from tasks.training.measuring import fitted_baseline

if TYPE_CHECKING:
    import pandas as pd

    from model.scoring.scorer import Scorer

Score = Callable[["pd.DataFrame"], np.ndarray]
"""From rows with their labels to scores."""


def measured(home: Home, plan: Plan) -> Replay:
    """Return the replay with the metric of every policy on the nights that have been done."""
    product, outcomes = head()[1].product(plan.product), tuple(home.outcomes())
    nights = [each for each in outcomes if each.kind == "night"]
    trained = [each for each in outcomes if each.kind == "retrain" and each.commit]
    with logged(home):
        run = closing_run(product, nights)
        with exclusive_workspace(run, "monitor"):
            truth = Truth(
                product, Paths(product.name, root=run.workspace / DATA).valid, nights, date.fromisoformat(run.as_of)
            )
            published = truth.of_published()
            models, baselines = {}, {}
            for each in trained:
                later = [night for night in nights if night.as_of >= each.as_of]
                known = measured_once(home, product, each, truth, later)
                models[each.as_of.isoformat()], baselines[each.as_of.isoformat()] = known["model"], known["baseline"]
    metric = product.gates.metric
    return Replay(
        plan=plan,
        metric=metric,
        lower_is_better=metric in LOWER_IS_BETTER,
        outcomes=outcomes,
        published=published,
        models=models,
        baselines=baselines,
    )


def closing_run(product: Product, nights: list[Outcome]) -> Run:
    """Fetch and judge what came after the last night, so that its labels are known; return that run.

    Where the day is stopped, it is the newest run before that is not. Raises UserError where there is none.
    """
    last = max(each.as_of for each in nights)
    as_of = product.scored_day(last) + timedelta(days=product.labels_wait_days)
    as_of = min(as_of, product.last_as_of) if product.last_as_of else as_of
    while True:
        run = open_run(product.name, "predict", as_of.isoformat(), f"{UNIQUE}, closing")
        try:
            for stage in ("ingest", "validate"):
                step(run, stage)
            return run
        except UserError as error:
            if as_of <= min(each.as_of for each in nights):
                raise
            print(f"labels are those until the day before {as_of}, since that is stopped: {error}", flush=True)
        as_of -= timedelta(days=1)


class Truth:
    """The valid rows and labels of the scored days, to measure scores by."""

    def __init__(self, product: Product, valid: Path, nights: list[Outcome], as_of: date) -> None:
        """Read the labels below `valid` that became known up to `as_of`."""
        self.product, self.as_of, self.nights = product, as_of, nights
        self.rows, files = Partitions(valid / "rows"), Partitions(valid / "labels")
        oldest = min(each.as_of for each in nights) - timedelta(days=product.predict.lead_days)
        self.labels: KnownLabels = known_labels(files, files.days(as_of, oldest), product)

    def of_published(self) -> dict[str, float]:
        """Return the metric of each night as it was published, by its as_of."""
        found, store = {}, Store(self.product.publish.url)
        for each in self.nights:
            place = NightPlace(store=store, product=self.product.name, as_of=each.as_of)
            manifest = current_manifest(place) if each.state == "published" else None
            truth = manifest and measure_night(self.product, place, manifest, self.labels, self.as_of)
            if truth and truth.value is not None:
                found[each.as_of.isoformat()] = truth.value
        return found

    def labelled(self, day: date) -> "pd.DataFrame | None":
        """Return the valid rows of a day that have a label, with it; None where there are none."""
        if day not in self.rows:
            return None
        rows = by_horizon(self.rows.table(day).to_pandas(integer_object_nulls=True), self.product)
        place = self.labels.labelled_places(label_names(rows, self.product))
        known = np.flatnonzero(place >= 0)
        if not len(known):
            return None
        labels = self.labels.value.take(place[known]).to_numpy()
        return rows.iloc[known].assign(**{self.product.target.name: labels}).reset_index(drop=True)

    def measure(self, score: Score, folder: Path, nights: list[Outcome]) -> dict[str, float]:
        """Return the metric of scores on each night by its as_of; `folder` has the model whose answers they are."""
        found, product, own = {}, self.product, read_target(folder).classes
        for each in nights:
            table = self.labelled(product.scored_day(each.as_of))
            if table is None:
                continue
            classes = model_inputs.all_classes(table, product, own)
            y = model_inputs.targets(table, product, classes)
            scores = score(table)
            scores = model_inputs.scores_of_classes(scores, own, classes) if classes else scores
            rule = model_inputs.prediction_rule(product, MeasuredThresholds.load(folder), own, classes)
            value = gate_metric(product, y, scores, rule=rule)
            if value is not None:
                found[each.as_of.isoformat()] = round(value, 6)
        return found


def measured_once(
    home: Home, product: Product, trained: Outcome, truth: Truth, nights: list[Outcome]
) -> dict[str, dict[str, float]]:
    """Return the metric of a training's model, and of the baseline on its rows, on the nights; kept in a file."""
    from model.scoring.scorer import Scorer

    assert trained.commit
    file = home.folder / "models" / f"{trained.as_of}.json"
    wanted = {"commit": trained.commit, "nights": [each.as_of.isoformat() for each in nights]}
    if file.exists() and (known := read_json(file))["of"] == wanted:
        return {name: known[name] for name in ("model", "baseline")}
    paths = Paths(product.name)
    folders = {name: file.with_name(f"{trained.as_of}-{name}") for name in ("onnx", "splits")}
    for name, path in (("onnx", paths.onnx), ("splits", paths.splits)):
        if not folders[name].exists():
            meaning = f"{path} of the training of {trained.as_of}"
            remote.get(trained.commit, path, folders[name], meaning, "make the simulation anew")
    model, baseline = _scores(product, Scorer(folders["onnx"]), folders["splits"])
    found = {
        "model": truth.measure(model, folders["onnx"], nights),
        "baseline": truth.measure(baseline, folders["onnx"], nights),
    }
    write_json(file, {"of": wanted, **found})
    return found


def _scores(product: Product, scorer: "Scorer", splits: Path) -> tuple[Score, Score]:
    """Return how a model scores rows, and how the baseline does that is fitted to the same training rows."""
    if scorer.target.head.writes_texts:
        texts = fit_text_baseline(product, splits, scorer.writer)
        return (
            lambda rows: measured_labels(scorer.writer, rows, product),
            lambda rows: texts.scores(model_inputs.inputs(rows, product), model_inputs.targets(rows, product, ())),
        )
    fitted = fitted_baseline(product, splits, scorer.classes)
    return (
        lambda rows: scorer.score(model_inputs.inputs(rows, product)),
        lambda rows: fitted.score(model_inputs.inputs(rows, product)),
    )
