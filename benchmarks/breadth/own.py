"""Train, evaluate and export one split by the project's own stages: `python -m benchmarks.breadth.own FOLDER`.

FOLDER is written by benchmarks.breadth.parts; what is exported is timed as well, unless --without-export is given. One
thread; times are those of the processor. Prints its figures as JSON on the last line.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.breadth.parts import product_of, resampled
from model.scoring.scorer import Scorer
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.runtime.paths import Paths
from tasks.training.exporting import export_model
from tasks.training.fine_tuning import fine_tune
from tasks.training.measuring import Measured, measure
from tasks.training.pretraining import pretrain

LEAST_TIMED = 2_000
"""With fewer rows a call's own cost would be timed."""


def main() -> None:
    """Run the stages and print what they reached."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    product = product_of(folder)
    paths, minutes = Paths(product.name, root=folder), dict[str, float]()

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        done = work()
        minutes[stage] = round((time.process_time() - began) / 60, 3)
        return done

    timed("pretrain", lambda: pretrain(product, paths))
    print(timed("train", lambda: fine_tune(product, paths)).summary, flush=True)
    measured = timed("evaluate", lambda: measure(product, paths))
    print(measured.summary, flush=True)
    rows_per_second = None
    if "--without-export" not in sys.argv:
        print(timed("export", lambda: export_model(product, paths)).summary, flush=True)
        rows_per_second = speed(product, paths)
    metric = product.gates.metric
    print(
        json.dumps(
            {
                "model": measured.by_scorer["model"][metric],
                "baseline": measured.by_scorer["baseline"][metric],
                "resampled": {name: resample(product, measured, name) for name in ("model", "baseline")},
                "parts": {name: part.weight for name, part in measured.parts.items()},
                "minutes": minutes,
                "rows_per_second": rows_per_second,
            }
        )
    )


def resample(product: Product, measured: Measured, name: str) -> list[float | None]:
    """Return the metric of the model or the baseline on each draw of the test rows."""
    task, metric = product.target.task, product.gates.metric
    return resampled(task, measured.y, measured.scores[name], metric, measured.rule)


def speed(product: Any, paths: Paths) -> int:
    """Return how many test rows the exported model scores in a second of one core."""
    scorer = Scorer(paths.onnx, n_threads=1)
    rows = model_inputs.split_part(paths.splits, "test", product).sample(20_000).read_all()
    n_rows = len(next(iter(rows.values())))
    repeated = max(1, -(-LEAST_TIMED // n_rows))
    rows, n_rows = {name: np.tile(column, repeated) for name, column in rows.items()}, repeated * n_rows
    began, repeats = time.process_time(), 0
    while not repeats or time.process_time() - began < 0.3:
        scorer.score(rows)
        repeats += 1
    return round(repeats * n_rows / (time.process_time() - began))


if __name__ == "__main__":
    main()
