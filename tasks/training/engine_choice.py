"""Choose the engine that runs an exported model: by its speed, where the metric stays within what chance moves."""

import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.heads import LOWER_IS_BETTER, head_of
from model.heads.prediction_rule import MeasuredThresholds
from tasks.params import MEASURED, Product
from tasks.rows import model_inputs
from tasks.rows.partitions import n_rows
from tasks.runtime.errors import UserError
from tasks.training.gate_metric import gate_metric

if TYPE_CHECKING:
    from model.scoring.choice import Measurement
    from model.scoring.engines import Engine

N_CALIBRATION_ROWS = 128
CALIBRATION_TOKENS = 1024
FEW_TIMED_ROWS, N_TIMED_ROWS = 16, 2_000
"""Held-out rows on which the cost of scoring is measured: a few, and where these are quick more."""
QUICK_SECONDS = 2.0
"""Where one core scores all rows of the splits within this by the simplest engine, another one would save nothing."""
MOST_MEASURED_ROWS, LEAST_MEASURED_ROWS, MEASURED_SECONDS = 20_000, 500, 60.0
"""Of the validation rows, on which the engine is chosen, and of the held-out rows, on which that is confirmed: as many
as one core scores in so many seconds."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The engine that will score, and what was measured of all candidates."""

    engine: "Engine"
    metric: str
    candidates: "list[Measurement]"
    held_out: "dict[Engine, float | None]"
    """The metric on held-out rows, of the simplest engine and of the chosen one."""

    def report(self) -> dict[str, Any]:
        """Return its part of export.json."""
        return {
            "engine": str(self.engine),
            "metric": self.metric,
            "candidates": [{**asdict(each), "engine": str(each.engine)} for each in self.candidates],
            "held_out": {str(engine): value for engine, value in self.held_out.items()},
        }

    @property
    def summary(self) -> str:
        """Return the choice in a line."""
        speeds = ", ".join(f"{each.engine} {each.rows_per_cpu_second:,.0f}" for each in self.candidates)
        held_out = ", ".join(f"{engine} {value:.4f}" for engine, value in self.held_out.items() if value is not None)
        return f"{self.engine} will score (rows per CPU second: {speeds}; held-out {self.metric}: {held_out})"


def candidate_engines(product: Product) -> "list[Engine]":
    """Return the engines to measure, the simplest first.

    Raises: UserError where params.yaml names one that this machine cannot run.
    """
    from model.scoring.choice import candidates
    from model.scoring.engines import SIMPLEST, Engine, missing_requirement

    if head_of(product.target.task).writes_texts:
        return [SIMPLEST]
    if product.model.engine == MEASURED:
        # In fp16 a number such as a price of 100,000 is infinite.
        fits_fp16 = head_of(product.target.task).has_probabilities
        return [engine for engine in candidates() if fits_fp16 or engine.precision != "fp16"]
    named = Engine.parse(product.model.engine)
    if lacks := missing_requirement(named):
        raise UserError(
            f"params.yaml: products.{product.name}.model.engine must be one that this machine can run, got {named}, "
            f"and {lacks} here; use {MEASURED} or {SIMPLEST}"
        )
    return list(dict.fromkeys([SIMPLEST, named]))


def choose_engine(product: Product, splits: Path, folder: Path, engines: "list[Engine]", row_seconds: float) -> Choice:
    """Measure the engines on the exported model in `folder`, and record there the one that will score.

    `row_seconds` is as of `seconds_of_a_row`.
    """
    from model.scoring.choice import MAX_LOSS, MIN_GAIN, choose, measure
    from model.scoring.engines import FP16_NETWORK, INT8_NETWORK, SIMPLEST, Engine
    from model.scoring.scorer import Scorer

    exact: Scorer = Scorer(folder, engine=SIMPLEST)
    n_known = sum(n_rows(splits / f"{part}.parquet") for part in ("train", "val", "test"))
    if product.model.engine == MEASURED and row_seconds * n_known < QUICK_SECONDS:
        engines = [SIMPLEST]
    _write_networks(product, splits, folder, engines)
    most = rows_within(MEASURED_SECONDS, row_seconds, LEAST_MEASURED_ROWS, MOST_MEASURED_ROWS)
    val, test = (model_inputs.split_part(splits, part, product).sample(most) for part in ("val", "test"))
    if head_of(product.target.task).has_labels:
        val, y_val = val.with_known_labels(exact.classes)
    else:
        y_val = model_inputs.targets(val.labels, product, exact.classes)
    classes = model_inputs.all_classes(test.labels, product, exact.classes)
    measured = MeasuredThresholds.load(folder)
    rule, rule_of_test = (
        model_inputs.prediction_rule(product, measured, exact.classes, wanted) for wanted in (exact.classes, classes)
    )
    y_test = model_inputs.targets(test.labels, product, classes)

    @cache
    def held_out(engine: Engine) -> float | None:
        scores = model_inputs.scores(Scorer(folder, engine=engine), test)
        scores = model_inputs.scores_of_classes(scores, exact.classes, classes)
        return gate_metric(product, y_test, scores, rule=rule_of_test)

    metric = product.gates.metric
    gain = MIN_GAIN if product.model.engine == MEASURED else 0.0
    table = val.read_all()

    def of_val(scores: np.ndarray) -> float | None:
        return gate_metric(product, y_val, model_inputs.metric_scores(product, y_val, table, scores), rule=rule)

    measurements = measure(folder, engines, table, of_val, gain)
    chosen = choose(measurements, held_out, metric in LOWER_IS_BETTER, gain)
    if product.model.engine not in (MEASURED, str(chosen)):
        raise UserError(
            f"params.yaml: products.{product.name}.model.engine must keep {metric} within {MAX_LOSS:g} of fp32, and "
            f"{product.model.engine} does not; use {MEASURED} or {SIMPLEST}; nothing was exported"
        )
    chosen.save(folder)
    for unused in {INT8_NETWORK, FP16_NETWORK} - {chosen.network}:
        (folder / unused).unlink(missing_ok=True)
    confirmed = {engine: held_out(engine) for engine in dict.fromkeys([SIMPLEST, chosen])}
    return Choice(engine=chosen, metric=metric, candidates=measurements, held_out=confirmed)


def seconds_of_a_row(folder: Path, held_out: model_inputs.SplitPart) -> float:
    """Return about how long one core takes to score a row by the simplest engine, by a sample of the held-out ones."""
    from model.scoring.engines import SIMPLEST
    from model.scoring.scorer import Scorer

    scorer: Scorer = Scorer(folder, engine=SIMPLEST)
    seconds = 0.0
    for most in (FEW_TIMED_ROWS, N_TIMED_ROWS):
        sample = held_out.sample(most)
        encoded = scorer.features.encode(sample.read_all())
        scorer.score_encoded(encoded)  # what is loaded at first is no part of a row's cost
        began = time.process_time()
        scorer.score_encoded(encoded)
        seconds = (time.process_time() - began) / max(1, len(sample))
        if seconds * N_TIMED_ROWS > QUICK_SECONDS:
            break
    return seconds


def rows_within(seconds: float, row_seconds: float, least: int, most: int) -> int:
    """Return how many rows are scored in so many seconds, at least and at most so many.

    >>> rows_within(60, 0.5, 100, 20_000), rows_within(60, 0.001, 100, 20_000), rows_within(60, 0.0, 100, 20_000)
    (120, 20000, 20000)
    """
    return int(np.clip(seconds / max(row_seconds, 1e-9), least, most))


def _write_networks(product: Product, splits: Path, folder: Path, engines: "list[Engine]") -> None:
    """Write the networks of lower precision that the engines read; int8 is calibrated on training rows."""
    from model.features.batches import batches, collate
    from model.features.fitted import Features
    from model.scoring.engines import FP16_NETWORK, INT8_NETWORK, NETWORK
    from model.scoring.quantise import convert_to_fp16, quantise

    networks = {engine.network for engine in engines}
    if INT8_NETWORK in networks:
        features = Features.load(folder)
        rows = model_inputs.split_part(splits, "train", product).sample(N_CALIBRATION_ROWS)
        encoded = features.encode(rows.read_all())
        cut = batches(encoded, CALIBRATION_TOKENS)
        padded = (collate(encoded, batch, features.sizes.pad_id) for batch in cut)
        quantise(folder / NETWORK, folder / INT8_NETWORK, padded)
    if FP16_NETWORK in networks:
        convert_to_fp16(folder / NETWORK, folder / FP16_NETWORK)
