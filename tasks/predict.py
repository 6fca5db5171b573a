"""Score the rows of the night with the exported model, in shards, without ever holding a night in memory.

The night of as_of scores the valid rows of day as_of + horizon_days, which `validate` left in order of key. A
shard is an equal share of them, one after the other, and becomes one part file; scoring it reads nothing else.
`night.json` says what went in and what came out; `run` in it is the hash of all that went in. `--shard` scores
one shard alone: Airflow runs them as separate tasks.
"""

import json
import sys
from collections import deque
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from model.compute import processor
from model.heads import head_of
from tasks import stage
from tasks.params import Product
from tasks.publication.night import part_name, run_of, write_night
from tasks.rows import model_inputs
from tasks.rows.partitions import n_rows, partition, read_pieces, table_writer
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, file_sha256, folder_sha256
from tasks.runtime.fingerprints import code_sha256
from tasks.runtime.paths import Paths

CODE = (
    "tasks/predict.py",
    "tasks/publication/night.py",
    "tasks/rows/casting.py",
    "tasks/rows/model_inputs.py",
    "tasks/rows/partitions.py",
    "tasks/runtime/files.py",
    "tasks/runtime/fingerprints.py",
    "model/compute",
    "model/features",
    "model/heads",
    "model/network",
    "model/scoring/engines.py",
    "model/scoring/scorer.py",
    "model/settings.py",
    "model/target.py",
)
"""All code that decides the bytes of a night."""


def predict(product: Product, as_of: date) -> str:
    """Score every shard and write the night."""
    from tqdm import tqdm

    scorer = _scorer(product)
    run = night_inputs(product, as_of, scorer.engine)
    with atomic_folder(Paths(product.name).predictions) as folder:
        shards = tqdm(range(product.predict.shards), desc="predict", unit="shard")
        parts = [_score_shard(product, as_of, scorer, shard, folder) for shard in shards]
        write_night(product, as_of, run, parts, folder)
    n_scored = sum(part["rows"] for part in parts)
    return (
        f"{n_scored:,} rows of {product.scored_day(as_of)} scored in {len(parts)} shards by {scorer.engine['engine']}"
    )


def predict_shard(product: Product, as_of: date, shard: int) -> dict[str, Any]:
    """Score one shard into data/predictions and return its part: name, rows, bytes, sha256, run and inputs."""
    if not 0 <= shard < product.predict.shards:
        raise UserError(f"shard must lie between 0 and {product.predict.shards - 1}, got {shard}; choose another")
    scorer = _scorer(product)
    folder = Paths(product.name).predictions
    folder.mkdir(parents=True, exist_ok=True)
    part = _score_shard(product, as_of, scorer, shard, folder)
    inputs = night_inputs(product, as_of, scorer.engine)
    return {**part, "run": run_of(inputs), "inputs": inputs}


def night_inputs(product: Product, as_of: date, engine: dict[str, str]) -> dict[str, Any]:
    """Everything that decides the bytes of a night."""
    paths = Paths(product.name)
    rows = _rows_file(product, as_of)
    return {
        "product": product.name,
        "as_of": as_of.isoformat(),
        "scored_day": product.scored_day(as_of).isoformat(),
        "shards": product.predict.shards,
        "threshold": product.predict.threshold,
        "rows_sha256": file_sha256(rows) if rows.exists() else None,
        "model_sha256": folder_sha256(paths.onnx),
        "engine": {**engine, "processor": processor.name()},
        "code_sha256": code_sha256(*CODE),
        "environment_sha256": file_sha256(Path("constraints.txt")),
    }


def _rows_file(product: Product, as_of: date) -> Path:
    return partition(Paths(product.name).valid / "rows", product.scored_day(as_of))


def _pieces(product: Product, as_of: date, shard: int) -> Iterator[pd.DataFrame]:
    """Yield the rows of one shard, piece by piece; at first no row, so that an empty part has its columns too."""
    yield model_inputs.no_rows(product)
    file = _rows_file(product, as_of)
    if file.exists():  # a day without rows is a night without predictions, not a failure
        n, shards = n_rows(file), product.predict.shards
        for piece in read_pieces(file, range(n * shard // shards, n * (shard + 1) // shards)):
            yield piece.to_pandas()


def _score_shard(product: Product, as_of: date, scorer: Any, shard: int, folder: Path) -> dict[str, Any]:
    """Write one part file and describe it."""
    unanswered: deque[pd.DataFrame] = deque()

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        for rows in _pieces(product, as_of, shard):
            unanswered.append(rows[list(dict.fromkeys([*product.key, product.time]))])
            yield model_inputs.inputs(rows, product)

    file, n_scored = folder / part_name(shard), 0
    with table_writer(file) as write:
        for scores in scorer.score_stream(inputs()):
            if not np.isfinite(scores).all():
                raise UserError(
                    f"products.{product.name}: scores must be finite, and {(~np.isfinite(scores)).sum():,} of "
                    f"{scores.size:,} are not; export with model.engine: onnxruntime-fp32 or train again"
                )
            write(unanswered.popleft().assign(**prediction_columns(product, scores, scorer.classes)))
            n_scored += len(scores)
    return {"name": file.name, "rows": n_scored, "bytes": file.stat().st_size, "sha256": file_sha256(file)}


def prediction_columns(product: Product, scores: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the columns of a prediction, as the task has them."""
    columns = head_of(product.target.task).night_columns(scores, classes, product.predict.threshold)
    return {name: pd.array(cells, dtype="str") if cells.dtype == object else cells for name, cells in columns.items()}


def _scorer(product: Product) -> Any:
    from model.scoring.scorer import Scorer
    from model.target import read_target

    folder = Paths(product.name).onnx
    if not (folder / "network.onnx").exists():
        raise UserError(f"{folder} must hold an exported model, and does not; run dvc repro export@{product.name}")
    try:
        scorer = Scorer(folder)
    except ValueError as error:
        raise UserError(f"products.{product.name}: {error}") from None
    if outdated := model_inputs.schema_mismatch(scorer.features.kinds, read_target(folder), product):
        raise UserError(
            f"params.yaml: products.{product.name} must declare what the model reads and answers, and the model "
            f"{outdated}; let train__{product.name} promote a model of what is declared now, or put that back"
        )
    return scorer


def main() -> None:
    """Run the command line: score the whole night, or one shard of it."""
    parser = stage.parser(predict)
    parser.add_argument("--shard", type=int, help="score this shard alone and print its part as JSON")
    given = parser.parse_args()
    if given.shard is None:
        stage.run(predict, given.product)
    sys.exit(
        stage.exit_code_of(
            "predict", lambda: print(json.dumps(predict_shard(*stage.load_product(given.product), given.shard)))
        )
    )


if __name__ == "__main__":
    main()
