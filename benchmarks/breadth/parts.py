"""One split of one set as files: the entry and the parts that our stages read, and the same rows for the peers."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.breadth.sets import Set, split
from model.evaluation.metrics import bootstrap_values
from model.features.kinds import KINDS
from model.heads import LOWER_IS_BETTER
from model.heads.prediction_rule import HALF, PredictionRule
from tasks import params
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.partitions import write_table
from tasks.runtime.paths import Paths

ROOT = Path(__file__).parent.parent.parent
N_RESAMPLES, SEED = 100, 0
LABEL = "_label"
"""The peers' column of labels; no set has a column of this name."""
CODE = ("model", "tasks/training", "tasks/params", "tasks/rows/model_inputs.py")
"""What our figures depend on."""


def entry(one: Set) -> dict[str, Any]:
    """Return what a newcomer writes for this set: columns and target, all else a default."""
    product = {
        "source": {"kind": "csv", "url": "rows.csv"},
        "key": ["row"],
        "columns": one.columns,
        "target": {"name": one.target, "task": one.task},
        "gates": {"metric": one.metric, "limit": 1e9 if one.metric in LOWER_IS_BETTER else 0.0},
        **({"time": one.days, "split": {"by": "time"}} if one.days else {"split": {"by": "hash"}}),
    }
    return {"as_of": "2020-01-01", "products": {one.name: product}}


def product_of(folder: Path) -> Product:
    """Return the product that was written there."""
    declared = json.loads((folder / "entry.json").read_text("utf-8"))
    return params.parse(declared).product(next(iter(declared["products"])))


@dataclass(frozen=True)
class Truth:
    """The labels of the test rows, as the metrics take them."""

    y: np.ndarray
    n_classes: int


def write_parts(one: Set, seed: int, rungs: list[int], folder: Path) -> Truth:
    """Write entry.json and the splits for our stages, order.json and the parts with LABEL for the peers."""
    (folder / "entry.json").write_text(json.dumps(entry(one)), "utf-8")
    product, paths = product_of(folder), Paths(one.name, root=folder)
    parts = {name: _typed(one, rows) for name, rows in split(one, seed).items()}
    for name, rows in parts.items():
        write_table(paths.splits / f"{name}.parquet", rows)
    write_table(paths.splits / "pretrain.parquet", parts["train"])
    classes = model_inputs.classes(parts["train"], product)
    for name in ("val", "test"):
        classes = model_inputs.all_classes(parts[name], product, classes)
    y = {name: model_inputs.targets(rows, product, classes) for name, rows in parts.items()}
    assert LABEL not in one.columns
    for name, rows in parts.items():
        rows[list(one.columns)].assign(**{LABEL: y[name]}).to_parquet(folder / f"{name}.parquet")
    order = {"columns": one.columns, "task": one.task, "metric": one.metric, "n_classes": len(classes)}
    order |= {"dated": one.days is not None, "rungs": rungs}
    (folder / "order.json").write_text(json.dumps(order), "utf-8")
    return Truth(y["test"], len(classes))


def shape(one: Set, scores: np.ndarray, truth: Truth) -> np.ndarray:
    """Return a peer's scores as the metrics take them."""
    shaped = scores.reshape(-1) if one.task != "multiclass" else scores.reshape(-1, truth.n_classes)
    assert len(shaped) == len(truth.y), f"{len(shaped)} scores of {len(truth.y)} rows"
    assert np.isfinite(shaped).all(), "scores must be numbers"
    return shaped.astype(np.float32)


def resampled(
    task: str, y: np.ndarray, scores: np.ndarray, metric: str, rule: float | PredictionRule = HALF
) -> list[float | None]:
    """Return the metric of each draw of the test rows, to five digits: pairs of one split with those of any other."""
    values = bootstrap_values(task, y, scores, metric, N_RESAMPLES, SEED, rule)
    return [value if value is None else float(f"{value:.5g}") for value in values]


def code_revision() -> str:
    """Return what tells whether our figures are of the code as it is."""
    digest = hashlib.sha256()
    for place in CODE:
        files = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
        for file in files:
            digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _typed(one: Set, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows as `validate` would leave them."""
    frame = pd.DataFrame({"row": np.arange(len(rows)).astype(str)})
    for name, kind in one.columns.items():
        cells, column = KINDS[kind].cells, rows[name]
        frame[name] = column.astype("str").where(column.notna(), None) if cells == "str" else column.astype(cells)
    frame[one.target] = rows[one.target]
    if one.days and one.days not in frame:
        frame[one.days] = rows[one.days].astype("datetime64[s]")
    return frame
