"""Measure a challenger and the champion on the same held-out rows, which neither has learnt from.

Both are measured by their exported files. The interval of the lead has days as observations where the product is split
by time, else groups of rows: see `model.evaluation.paired`.
"""

import math
import tempfile
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.heads import head_of
from model.heads.prediction_rule import MeasuredThresholds, PredictionRule
from tasks.params import LOWER_IS_BETTER, Product
from tasks.rows import model_inputs
from tasks.rows.slices.declared import Slice, declared_slices, slice_columns
from tasks.runs import remote
from tasks.runs.gates.unseen import learnt_by, unseen
from tasks.runs.registry.tags import Champion
from tasks.runtime.files import folder_sha256, read_json
from tasks.runtime.paths import Paths
from tasks.training.gate_metric import gate_metric
from tasks.training.held_out.blocks import blocks_of

if TYPE_CHECKING:
    from model.evaluation.paired import Difference

CALIBRATION, SQUARED_ERROR = "ece", "brier"
MIN_ROWS = 30
"""Held-out rows that neither has learnt from; with fewer, the two are not compared."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The gate metric of challenger, baseline and champion, and the lead of the challenger over the champion."""

    metric: str
    """The metric's name."""
    challenger: float
    """On all held-out rows; NaN where they do not define it."""
    baseline: float
    """On all held-out rows; NaN where they do not define it."""
    champion: float | None = None
    """On the rows that neither has learnt from; None where there is no champion to compare with."""
    champion_version: str | None = None
    """Its version; None where there is none to compare with."""
    challenger_beside: float = math.nan
    """The challenger's metric on the same rows as the champion's."""
    n_compared: int = 0
    """How many rows these are."""
    about_champion: str = "none yet"
    """The champion's version with its metric, or the reason why it has none."""
    lead: "Difference | None" = None
    """How much better the challenger is than the champion on those rows; None where they do not define it."""
    probabilities: "ProbabilityLeads | None" = None
    """How its probabilities compare; None where the task has none, or these rows do not define it."""
    slices: tuple["SliceLead", ...] = ()
    """The lead on each declared slice with enough of those rows."""
    n_positives: int | None = None
    """Rows of the rarer answer among those rows; None unless the target is binary."""
    days_since: int | None = None
    """Days from the champion's as_of to the challenger's."""

    def __str__(self) -> str:
        return (
            f"{self.metric}: challenger {self.challenger:.4f}, baseline {self.baseline:.4f}, "
            f"champion {self.about_champion}"
        )


@dataclass(frozen=True, kw_only=True)
class ProbabilityLeads:
    """How much nearer to the truth the probabilities of the challenger are than those of the champion."""

    brier: "Difference"
    """By how much its mean squared error is smaller: a proper score, which holds calibration and discrimination."""
    calibration: "Difference"
    """By how much its calibration error within a day, or group, is smaller on average."""
    champion_brier: float
    """The champion's mean squared error."""


@dataclass(frozen=True, kw_only=True)
class SliceLead:
    """The lead of the challenger over the champion on one declared slice."""

    name: str
    """The slice's name."""
    rows: int
    """Rows of it that neither has learnt from."""
    lead: "Difference"
    """Its interval holds together with those of the other slices in 95 of 100 cases (Bonferroni)."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The challenger's held-out rows, and what both models say of them."""

    product: Product
    y: np.ndarray
    """Labels, as `tasks.rows.model_inputs.targets` gives them."""
    challenger: np.ndarray
    """Scores [n, ...]."""
    champion: np.ndarray
    """Scores [n, ...]; of a class that it does not know 0."""
    block: np.ndarray
    """int [n]: day or group of each row."""
    slices: tuple[Slice, ...] = ()
    """The declared slices of the rows."""
    challenger_rule: PredictionRule | None = None
    """How its scores become predictions; None as where nothing is declared."""
    champion_rule: PredictionRule | None = None
    """The same of the champion: costs as declared now, thresholds that were measured its own."""

    def only(self, kept: np.ndarray) -> "HeldOut":
        """Return the rows that are chosen. Shapes: bool [n]."""
        _, block = np.unique(self.block[kept], return_inverse=True)
        scores = {"challenger": self.challenger[kept], "champion": self.champion[kept]}
        slices = tuple(replace(each, rows=each.rows[kept]) for each in self.slices)
        return replace(self, y=self.y[kept], block=block, slices=slices, **scores)

    def difference(self, metric: str, kept: np.ndarray) -> float | None:
        """Return how much better the challenger is on the chosen rows, such that more is better. Shapes: bool [n]."""
        challenger, champion = (
            gate_metric(self.product, self.y[kept], scores[kept], metric, rule=rule)
            for scores, rule in ((self.challenger, self.challenger_rule), (self.champion, self.champion_rule))
        )
        if challenger is None or champion is None:
            return None
        return champion - challenger if metric in LOWER_IS_BETTER else challenger - champion

    def lead(self, metric: str, confidence: float = 0.95) -> "Difference | None":
        """Return how much better the challenger is by a metric of the task, such that more is better."""
        from model.evaluation.paired import paired_difference

        return paired_difference(lambda kept: self.difference(metric, kept), self.block, confidence)

    def probability_leads(self) -> ProbabilityLeads | None:
        """Return how the probabilities compare; None where the task has none, or these rows do not define it.

        Calibration is measured within each day, and the days' differences are the observations. On all days together
        a challenger that says a little more than the champion looks surely worse after a week of little, however many
        days are left out: that the next week may be one of much shows only between days.
        """
        from model.evaluation.paired import paired_difference

        if CALIBRATION not in head_of(self.product.target.task).probability_metrics:
            return None
        blocks, sizes = np.unique(self.block, return_counts=True)
        within = [self.difference(CALIBRATION, self.block == each) for each in blocks]
        brier, champion = self.lead(SQUARED_ERROR), gate_metric(self.product, self.y, self.champion, SQUARED_ERROR)
        if brier is None or champion is None or any(each is None for each in within):
            return None
        of_block = np.array(within, float)
        calibration = paired_difference(lambda kept: float(np.average(of_block[kept], weights=sizes[kept])), blocks)
        assert calibration is not None  # as the Brier score has an interval, there are two blocks
        return ProbabilityLeads(brier=brier, calibration=calibration, champion_brier=champion)

    def slice_leads(self) -> tuple[SliceLead, ...]:
        """Return the lead on each declared slice with enough rows, where these define it."""
        least = self.product.gates.slices.min_rows
        slices = [each for each in self.slices if each.rows.sum() >= least]
        confidence = 1 - 0.05 / max(1, len(slices))
        leads = ((each, self.only(each.rows).lead(self.product.gates.metric, confidence)) for each in slices)
        return tuple(
            SliceLead(name=each.name, rows=int(each.rows.sum()), lead=lead) for each, lead in leads if lead is not None
        )

    @property
    def n_positives(self) -> int | None:
        """Return the number of rows of the rarer answer; None unless the target is binary."""
        head = head_of(self.product.target.task)
        return int(min(self.y.sum(), len(self.y) - self.y.sum())) if head.max_classes == 2 else None


def compare(product: Product, as_of: date, commit: str, champion: Champion | None) -> Comparison | None:
    """Measure the champion beside the challenger of an experiment; return None where they are the very same model."""
    measured, metric = read_json(Paths(product.name).report("metrics.json")), product.gates.metric
    challenger, baseline = (measured[name].get(metric, math.nan) for name in ("model", "baseline"))
    alone = Comparison(metric=metric, challenger=challenger, baseline=baseline)
    if champion is None:
        return alone
    if champion.commit == commit:
        return replace(alone, about_champion="the same")
    onnx = Paths(product.name).onnx
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "onnx"
        meaning = (
            f"products.{product.name}: the champion {champion.version} ({onnx}), which the new model is compared with,"
        )
        way_out = remote.way_out_of_lost_model(product.name, champion.version, champion.commit)
        remote.get(champion.commit, onnx, model, meaning, way_out)
        if folder_sha256(model) == folder_sha256(onnx):
            return None
        if reason := incompatibility(model, product):
            return replace(alone, about_champion=f"{champion.version} not comparable, since it {reason}")
        held_out = score_both(model, product)
    return measure_lead(alone, held_out, *unseen_rows(product, champion, len(held_out.y)), champion, as_of)


def measure_lead(
    alone: Comparison, held_out: HeldOut, kept: np.ndarray, note: str, champion: Champion, as_of: date
) -> Comparison:
    """Return the comparison on the rows that are kept; `note` says which these are. Shapes: bool [n]."""
    product, n = held_out.product, int(kept.sum())
    if n < min(MIN_ROWS, len(kept)):
        reason = f"has learnt from all but {n} of the {len(kept):,} held-out rows"
        return replace(alone, about_champion=f"{champion.version} not comparable, since it {reason}")
    common = held_out.only(kept)
    champion_metric, challenger_metric = (
        _metric_or_nan(product, common.y, scores, rule)
        for scores, rule in ((common.champion, common.champion_rule), (common.challenger, common.challenger_rule))
    )
    beside = "" if n == len(kept) else f" and challenger {challenger_metric:.4f}"
    return replace(
        alone,
        champion=champion_metric,
        champion_version=champion.version,
        challenger_beside=challenger_metric,
        n_compared=n,
        slices=common.slice_leads(),
        about_champion=f"{champion.version} {champion_metric:.4f}{beside}{note}",
        lead=common.lead(alone.metric),
        probabilities=common.probability_leads(),
        n_positives=common.n_positives,
        days_since=(as_of - date.fromisoformat(champion.as_of)).days if champion.as_of else None,
    )


def _metric_or_nan(product: Product, y: np.ndarray, scores: np.ndarray, rule: PredictionRule | None) -> float:
    value = gate_metric(product, y, scores, rule=rule)
    return math.nan if value is None else value


def unseen_rows(product: Product, champion: Champion, n: int) -> tuple[np.ndarray, str]:
    """Return which of the n held-out rows the champion has not learnt from, and what to say of them.

    Shapes: bool [n].
    """
    learnt = learnt_by(champion, product.name)
    if learnt is None:
        return np.ones(n, bool), " (what it has learnt from is not on record)"
    rows = model_inputs.split_part(Paths(product.name).splits, "test", product)
    names = [*product.key, product.time, *filter(None, [learnt.product.split.group]), *learnt.product.key]
    kept = unseen(rows.columns(list(dict.fromkeys(names))), product.time, learnt)
    note = "" if kept.all() else f" on the {int(kept.sum()):,} of {n:,} held-out rows that it has not learnt from"
    return kept, note


def incompatibility(champion: Path, product: Product) -> str:
    """Return why the champion cannot be measured beside the challenger; nothing where it can."""
    from model.features.fitted import Features
    from model.target import read_target

    target = read_target(champion)
    if mismatch := model_inputs.schema_mismatch(Features.load(champion).kinds, target, product):
        return mismatch
    known, wanted = target.classes, read_target(Paths(product.name).onnx).classes
    return f"answers with {', '.join(known)}" if wanted and not set(wanted) & set(known) else ""


def score_both(champion: Path, product: Product) -> HeldOut:
    """Return the challenger's held-out rows with the scores of both exported models.

    Classes are those of the challenger, of the held-out rows and of the champion itself: an answer counts as it was.
    """
    from model.scoring.scorer import Scorer

    paths = Paths(product.name)
    challenger, other = Scorer(paths.onnx), Scorer(champion)
    rows = model_inputs.split_part(paths.splits, "test", product)
    known = tuple(dict.fromkeys([*challenger.classes, *other.classes]))
    classes = model_inputs.all_classes(rows.labels, product, known)
    scores = {
        name: model_inputs.scores_of_classes(model_inputs.scores(scorer, rows), scorer.classes, classes)
        for name, scorer in (("challenger", challenger), ("champion", other))
    }
    y = model_inputs.targets(rows.labels, product, classes)
    challenger_rule, champion_rule = (
        model_inputs.prediction_rule(product, MeasuredThresholds.load(folder), scorer.classes, classes)
        for folder, scorer in ((paths.onnx, challenger), (champion, other))
    )
    return HeldOut(
        product=product,
        y=y,
        block=blocks_of(rows, product),
        slices=tuple(declared_slices(rows.columns(slice_columns(product)), product)) if product.slices else (),
        challenger_rule=challenger_rule,
        champion_rule=champion_rule,
        **scores,
    )
