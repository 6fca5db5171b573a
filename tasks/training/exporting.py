"""Write a trained model as ONNX, prove that it scores as torch does, and choose the engine that runs it."""

import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.heads import LOWER_IS_BETTER, head_of
from model.heads.generate import BITS_PER_BYTE
from model.heads.prediction_rule import MeasuredThresholds
from tasks.params import MEASURED, Product
from tasks.rows import model_inputs
from tasks.rows.partitions import n_rows
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, folder_sha256
from tasks.runtime.paths import Paths
from tasks.training.gate_metric import gate_metric
from tasks.training.held_out.exported import MeasuredFiles, measure_files
from tasks.training.predictions import measured_thresholds

if TYPE_CHECKING:
    from model.scoring.choice import Measurement
    from model.scoring.engines import Engine
    from model.scoring.scorer import Scorer

TOLERANCE = 1e-4
"""Largest difference of a probability; of a regression, in standard deviations of the target (on its scale)."""
ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Of a regression's mean, which single precision holds no better, however little its targets deviate."""
N_CALIBRATION_ROWS = 128
CALIBRATION_TOKENS = 1024
N_TIMED_ROWS = 2_000
"""Held-out rows on which the cost of each part of the blend is measured."""
QUICK_SECONDS = 2.0
"""Where one core scores all rows of the splits within this by the simplest engine, another one would save nothing."""
N_FORESEEN_ROWS = 32
"""Held-out and validation rows of an exported language model: what it is worth `evaluate` measures."""
N_MEASURED_ROWS = 20_000
"""Of the validation rows, on which the engine is chosen, and of the held-out rows, on which that is confirmed."""


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


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported model: the proof that it scores as torch does, and what will run it."""

    model_sha256: str
    max_difference: float
    """Between scores of ONNX and of torch, in the unit of TOLERANCE."""
    tolerance: float
    rows: int
    """Held-out rows that were compared."""
    bytes: int
    """Of the network in fp32."""
    choice: Choice
    files: MeasuredFiles
    """What the exported files showed, as they will score."""
    part_rows_per_cpu_second: dict[str, int]
    """By the parts of the blend: the held-out rows that torch scores with that part alone, on one core."""

    def report(self) -> dict[str, Any]:
        """Return the content of export.json."""
        return {
            "model_sha256": self.model_sha256,
            "max_difference": self.max_difference,
            "tolerance": self.tolerance,
            "rows": self.rows,
            "bytes": self.bytes,
            "part_rows_per_cpu_second": self.part_rows_per_cpu_second,
            **self.choice.report(),
            "files": self.files.to_json(),
        }

    @property
    def summary(self) -> str:
        """Return the line that the stage prints."""
        difference = f"ONNX differs from torch by at most {self.max_difference:.1e} on {self.rows:,} held-out rows"
        did = [each.passed for each in self.files.behaviour]
        behaviour = f"; {sum(did)} of {len(did)} tests of behaviour are passed" if did else ""
        return f"{difference}; {self.choice.summary}{behaviour}"


def export_model(product: Product, paths: Paths) -> Exported:
    """Read the trained model and the splits below `paths`, write the exported model there.

    Raises: UserError when ONNX and torch differ by more than TOLERANCE, or the engine that params.yaml names cannot
    be used.
    """
    from model.scoring.engines import NETWORK
    from model.scoring.export import export_onnx, parity
    from model.target import read_target

    engines = candidate_engines(product)
    rows = model_inputs.split_part(paths.splits, "test", product)
    target = read_target(paths.trained)
    compared = rows.sample(N_FORESEEN_ROWS) if product.model.is_language_model else rows
    texts: _ExportedTexts | None = None
    with atomic_folder(paths.onnx) as folder:
        export_onnx(paths.trained, folder)
        if target.head.writes_texts:
            texts = _ExportedTexts.of(paths.trained, folder, compared)
            difference = texts.difference
        else:
            difference = parity(paths.trained, folder, rows) / target.unit
        limit = TOLERANCE + ROUNDING * abs(target.mean) / target.deviation
        if not difference <= limit:
            raise UserError(
                f"products.{product.name}: ONNX must score as torch does, and differs by {difference:.2e} on "
                f"held-out rows, more than {limit:g}; nothing was exported"
            )
        thresholds = measured_thresholds(product, paths.trained)
        if thresholds is not None:
            thresholds.save(folder)
        if texts is not None:
            choice = _one_engine(product, paths.splits, folder, texts)
        else:
            choice = _choose_engine(product, paths.splits, folder, engines)
    return Exported(
        model_sha256=folder_sha256(paths.onnx),
        max_difference=difference,
        tolerance=limit,
        rows=len(compared),
        bytes=(paths.onnx / NETWORK).stat().st_size,
        choice=choice,
        files=measure_files(product, paths.onnx, rows, choice),
        part_rows_per_cpu_second=_part_speeds(paths.trained, rows.sample(N_TIMED_ROWS)),
    )


def _part_speeds(trained: Path, rows: model_inputs.SplitPart) -> dict[str, int]:
    """Return how many rows each part of the blend scores alone in a second of one core; nothing where one does all."""
    from model.scoring.scorer import TorchScorer
    from model.target import read_target

    if read_target(trained).head.writes_texts:  # by one part, which may take seconds to load
        return {}
    model, table, speeds = TorchScorer(trained), rows.read_all(), dict[str, int]()
    blend = model.network.blend if len(model.network.blend) > 1 and len(rows) else {}
    for name in blend:
        began = time.process_time()
        model.of_part(name).score(table)
        speeds[name] = round(len(rows) / max(time.process_time() - began, 1e-6))
    return speeds


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


@dataclass(frozen=True, kw_only=True)
class _ExportedTexts:
    """An exported network that writes texts, and what it says of labels that torch was asked about too."""

    scorer: "Scorer"
    rows: model_inputs.SplitPart
    """Held-out rows."""
    nats: np.ndarray
    """What the labels of these cost by ONNX, float64 [n]."""
    difference: float
    """The largest between that and what they cost by torch, in nats per subword."""

    @classmethod
    def of(cls, trained: Path, folder: Path, rows: model_inputs.SplitPart) -> "_ExportedTexts":
        """Read labels by torch, then by ONNX; a network of torch is let go before the other one is loaded."""
        from model.scoring.engines import SIMPLEST
        from model.scoring.scorer import Scorer, TorchScorer

        writer = TorchScorer(trained).writer
        encoded, labels = writer.features.encode(rows.read_all()), model_inputs.label_texts(writer, rows)
        one = writer.nats(encoded, labels)
        del writer
        scorer = Scorer(folder, engine=SIMPLEST)
        other = scorer.writer.nats(encoded, labels)
        difference = float(np.max(np.abs(one - other) / np.diff(labels.offsets), initial=0.0))
        return cls(scorer=scorer, rows=rows, nats=other, difference=difference)


def _one_engine(product: Product, splits: Path, folder: Path, exported: _ExportedTexts) -> Choice:
    """Record the one engine that writes texts, and measure what it writes of the validation and held-out rows.

    Of held-out rows it is known what labels cost; texts are written where the gates' metric asks for them alone.
    """
    from model.scoring.choice import Measurement
    from model.scoring.engines import SIMPLEST

    SIMPLEST.save(folder)
    metric, most = product.gates.metric, N_FORESEEN_ROWS if product.model.is_language_model else N_TIMED_ROWS
    val = model_inputs.split_part(splits, "val", product).sample(most)
    began = time.process_time()
    of_val = model_inputs.scores(exported.scorer, val)
    speed = len(val) / max(time.process_time() - began, 1e-6)
    test = exported.rows.sample(most)
    known = exported.nats[test.places_in(exported.rows)]
    of_test = model_inputs.measured_texts(exported.scorer.writer, test, known, writes=metric != BITS_PER_BYTE)
    by_val, by_test = (
        gate_metric(product, model_inputs.targets(rows.labels, product, ()), scores)
        for rows, scores in ((val, of_val), (test, of_test))
    )
    measured = Measurement(engine=SIMPLEST, rows_per_cpu_second=speed, metric=by_val, max_difference=0.0)
    return Choice(engine=SIMPLEST, metric=metric, candidates=[measured], held_out={SIMPLEST: by_test})


def _choose_engine(product: Product, splits: Path, folder: Path, engines: "list[Engine]") -> Choice:
    """Measure the engines on the exported model in `folder`, and record there the one that will score."""
    from model.scoring.choice import MAX_LOSS, MIN_GAIN, choose, measure
    from model.scoring.engines import FP16_NETWORK, INT8_NETWORK, SIMPLEST, Engine
    from model.scoring.scorer import Scorer

    exact: Scorer = Scorer(folder, engine=SIMPLEST)
    if product.model.engine == MEASURED and seconds_of_all_rows(exact, product, splits) < QUICK_SECONDS:
        engines = [SIMPLEST]
    _write_networks(product, splits, folder, engines)
    val, test = (model_inputs.split_part(splits, part, product).sample(N_MEASURED_ROWS) for part in ("val", "test"))
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


def seconds_of_all_rows(scorer: "Scorer", product: Product, splits: Path) -> float:
    """Return about how long one core would score all rows of the splits, by a sample of the held-out ones."""
    sample = model_inputs.split_part(splits, "test", product).sample(N_TIMED_ROWS)
    encoded = scorer.features.encode(sample.read_all())
    scorer.score_encoded(encoded)  # what is loaded at first is no part of a row's cost
    began = time.process_time()
    scorer.score_encoded(encoded)
    n_known = sum(n_rows(splits / f"{part}.parquet") for part in ("train", "val", "test"))
    return (time.process_time() - began) * n_known / max(1, len(sample))


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
