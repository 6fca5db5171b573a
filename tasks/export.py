"""Write the trained model as ONNX, fail unless it scores held-out rows as torch does, and choose what runs it.

Reads data/models/<product>/trained, writes data/models/<product>/onnx: what `predict` runs. The engine (ONNX
Runtime, or OpenVINO where it is installed) and its precision are measured on validation rows and recorded in
`engine.json`; export.json has every candidate's speed and metric, and the chosen one's on held-out rows.
`model.engine` of params.yaml names one engine in place of the measurement.
"""

from dataclasses import asdict
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.heads import LOWER_IS_BETTER, head_of
from tasks import stage
from tasks.params import MEASURED, Product
from tasks.rows import model_inputs
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, folder_sha256, write_json
from tasks.runtime.paths import Paths
from tasks.training.gate_metric import gate_metric

if TYPE_CHECKING:
    from model.scoring.engines import Engine

TOLERANCE = 1e-4
"""Largest difference of a probability; of a regression, in standard deviations of the target."""
ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Of a regression's mean, which single precision holds no better, however little its targets deviate."""
N_CALIBRATION_ROWS = 128
CALIBRATION_TOKENS = 1024
N_MEASURED_ROWS = 20_000
"""Of the validation rows, on which the engine is chosen, and of the held-out rows, on which that is confirmed."""


def export(product: Product, as_of: date) -> str:
    """Write the model, the proof and the choice.

    Raises: UserError when ONNX and torch differ by more than TOLERANCE, or the engine that params.yaml names cannot
    be used.
    """
    from model.scoring.export import export_onnx, parity
    from model.target import read_target

    paths, engines = Paths(product.name), _engines(product)
    rows = model_inputs.split_part(paths.splits, "test", product)
    target = read_target(paths.trained)
    with atomic_folder(paths.onnx) as folder:
        export_onnx(paths.trained, folder)
        difference = parity(paths.trained, folder, rows) / target.deviation
        limit = TOLERANCE + ROUNDING * abs(target.mean) / target.deviation
        if not difference <= limit:
            raise UserError(
                f"products.{product.name}: ONNX must score as torch does, and differs by {difference:.2e} on "
                f"held-out rows, more than {limit:g}; nothing was exported"
            )
        choice = _choose_engine(product, paths, folder, engines)
    write_json(
        paths.report("export.json"),
        {
            "model_sha256": folder_sha256(paths.onnx),
            "max_difference": difference,
            "tolerance": limit,
            "rows": len(rows),
            "bytes": (paths.onnx / "network.onnx").stat().st_size,
            **choice,
        },
    )
    return f"ONNX differs from torch by at most {difference:.1e} on {len(rows):,} held-out rows; " + _reason(choice)


def _choose_engine(product: Product, paths: Paths, folder: Path, engines: "list[Engine]") -> dict[str, Any]:
    """Record in `folder` what scores with it; returns what was measured and why it was chosen."""
    from model.scoring.choice import MAX_LOSS, MIN_GAIN, choose, measure
    from model.scoring.engines import FP16_NETWORK, INT8_NETWORK, NETWORK, SIMPLEST, Engine
    from model.scoring.quantise import convert_to_fp16
    from model.scoring.scorer import Scorer

    metric = product.gates.metric
    exact = Scorer(folder, engine=SIMPLEST)
    (val, y_val), (test, y_test) = (
        model_inputs.split_part(paths.splits, part, product).sample(N_MEASURED_ROWS).with_known_labels(exact.classes)
        for part in ("val", "test")
    )

    @cache
    def held_out(engine: Engine) -> float | None:
        scores = model_inputs.scores(Scorer(folder, engine=engine), test)
        return gate_metric(product, y_test, scores)

    if any(engine.network == INT8_NETWORK for engine in engines):
        _quantise(product, paths, folder)
    if any(engine.network == FP16_NETWORK for engine in engines):
        convert_to_fp16(folder / NETWORK, folder / FP16_NETWORK)
    measured = partial(gate_metric, product, y_val)
    findings = measure(folder, engines, val.read_all(), measured)
    gain = MIN_GAIN if product.model.engine == MEASURED else 0.0
    chosen = choose(findings, held_out, metric in LOWER_IS_BETTER, gain)
    if product.model.engine not in (MEASURED, str(chosen)):
        raise UserError(
            f"params.yaml: products.{product.name}.model.engine must keep {metric} within {MAX_LOSS:g} of fp32, and "
            f"{product.model.engine} does not; use {MEASURED} or {SIMPLEST}; nothing was exported"
        )
    chosen.save(folder)
    for unused in {INT8_NETWORK, FP16_NETWORK} - {chosen.network}:
        (folder / unused).unlink(missing_ok=True)
    return {
        "engine": str(chosen),
        "metric": metric,
        "candidates": [{**asdict(found), "engine": str(found.engine)} for found in findings],
        "held_out": {str(engine): held_out(engine) for engine in dict.fromkeys([SIMPLEST, chosen])},
    }


def _engines(product: Product) -> "list[Engine]":
    """The engines to measure, the simplest first."""
    from model.scoring.choice import candidates
    from model.scoring.engines import SIMPLEST, Engine, missing_requirement

    if product.model.engine == MEASURED:
        # In fp16 a number such as a price of 100,000 is infinite.
        holds_scores = head_of(product.target.task).has_probabilities
        return [engine for engine in candidates() if holds_scores or engine.precision != "fp16"]
    named = Engine.parse(product.model.engine)
    if lacks := missing_requirement(named):
        raise UserError(
            f"params.yaml: products.{product.name}.model.engine must be one that this machine can run, got {named}, "
            f"and {lacks} here; use {MEASURED} or {SIMPLEST}"
        )
    return list(dict.fromkeys([SIMPLEST, named]))


def _quantise(product: Product, paths: Paths, folder: Path) -> None:
    """The int8 network, calibrated on training rows."""
    from model.features.batches import batches, collate
    from model.features.fitted import Features
    from model.scoring.engines import INT8_NETWORK, NETWORK
    from model.scoring.quantise import quantise

    features = Features.load(folder)
    rows = model_inputs.split_part(paths.splits, "train", product).sample(N_CALIBRATION_ROWS)
    encoded = features.encode(rows.read_all())
    cut = batches(encoded, CALIBRATION_TOKENS)
    quantise(folder / NETWORK, folder / INT8_NETWORK, (collate(encoded, its, features.sizes.pad_id) for its in cut))


def _reason(choice: dict[str, Any]) -> str:
    """The choice in one line."""
    speeds = ", ".join(f"{found['engine']} {found['rows_per_cpu_second']:,.0f}" for found in choice["candidates"])
    lost = ", ".join(f"{engine} {value:.4f}" for engine, value in choice["held_out"].items() if value is not None)
    return f"{choice['engine']} will score (rows per CPU second: {speeds}; held-out {choice['metric']}: {lost})"


if __name__ == "__main__":
    stage.main(export)
