"""Write a trained model as ONNX, prove that it scores as torch does, and choose the engine that runs it."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.heads.generate import BITS_PER_BYTE
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, folder_sha256
from tasks.runtime.paths import Paths
from tasks.training.engine_choice import (
    FEW_TIMED_ROWS,
    N_TIMED_ROWS,
    QUICK_SECONDS,
    Choice,
    candidate_engines,
    choose_engine,
    rows_within,
    seconds_of_a_row,
)
from tasks.training.gate_metric import gate_metric
from tasks.training.held_out.exported import MeasuredFiles, measure_files
from tasks.training.predictions import measured_thresholds

if TYPE_CHECKING:
    from model.scoring.scorer import Scorer

TOLERANCE = 1e-4
"""Largest difference of a probability; of a regression, in standard deviations of the target (on its scale)."""
ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Of a regression's mean, which single precision holds no better, however little its targets deviate."""
LEAST_PROOF_ROWS, PROOF_SECONDS = 200, 20.0
"""Held-out rows that torch and ONNX both score: as many as one core scores in so many seconds."""
N_FORESEEN_ROWS = 16
"""Held-out and validation rows of an exported language model: what it is worth `evaluate` measures."""


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
    texts, row_seconds = None, 0.0
    with atomic_folder(paths.onnx) as folder:
        export_onnx(paths.trained, folder)
        if target.head.writes_texts:
            texts = _ExportedTexts.of(paths.trained, folder, compared)
            difference = texts.difference
        else:
            row_seconds = seconds_of_a_row(folder, rows)
            compared = rows.sample(rows_within(PROOF_SECONDS, row_seconds, LEAST_PROOF_ROWS, len(rows)))
            difference = parity(paths.trained, folder, compared) / target.unit
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
            choice = choose_engine(product, paths.splits, folder, engines, row_seconds)
    return Exported(
        model_sha256=folder_sha256(paths.onnx),
        max_difference=difference,
        tolerance=limit,
        rows=len(compared),
        bytes=(paths.onnx / NETWORK).stat().st_size,
        choice=choice,
        files=measure_files(product, paths.onnx, rows, choice),
        part_rows_per_cpu_second=_part_speeds(
            paths.trained, rows.sample(rows_within(QUICK_SECONDS, row_seconds, FEW_TIMED_ROWS, N_TIMED_ROWS))
        ),
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
        model.of_parts(name).score(table)
        speeds[name] = round(len(rows) / max(time.process_time() - began, 1e-6))
    return speeds


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
