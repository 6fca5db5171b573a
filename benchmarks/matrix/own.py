"""Take a product through the project's own stages: `python -m benchmarks.matrix.own PHASE PRODUCT AS_OF`.

Works in the folder that it is started in, which has the code and params.yaml beside data/. A phase is a process of its
own, so that the memory of one is not counted with another's: `prepare` ends with the splits, `train` with the trained
model, `measure` with what is scored and with what the exported model takes. One thread; times are those of the
processor; `make` makes rows up. Prints its figures as JSON on the last line.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.breadth.own import speed
from tasks import params
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.partitions import read_table
from tasks.runtime.paths import Paths
from tasks.training.exporting import Exported, export_model
from tasks.training.held_out.blocks import blocks_of
from tasks.training.held_out.peak_memory import most_held, peak_memory_bytes

LEAST_DAYS = 5
"""With fewer held-out days, hashed keys are the blocks of rows that count as observations."""
PARTS = ("train", "val", "test")
N_MADE = 10_000
"""Rows that each maker of rows makes."""
MADE_FILE = "Lamplighter rows.parquet"


def main() -> None:
    """Run one phase."""
    phase, name, as_of = sys.argv[1:]
    product = params.load().product(name)
    work = {"prepare": prepare, "train": train, "measure": measured, "make": made}[phase]
    print(json.dumps(work(product, date.fromisoformat(as_of))))


def prepare(product: Product, as_of: date) -> dict[str, Any]:
    """Ingest, validate and split."""
    from tasks.ingest import ingest
    from tasks.split import split
    from tasks.validate import validate

    minutes = {}
    for stage in (ingest, validate, split):
        _, minutes[stage.__name__] = _timed(lambda stage=stage: print(stage(product, as_of), flush=True))
    return {"minutes": minutes}


def train(product: Product, as_of: date) -> dict[str, Any]:
    """Pretrain and train."""
    import torch

    from tasks.training.fine_tuning import fine_tune
    from tasks.training.pretraining import pretrain

    torch.set_num_threads(1)
    minutes = {}
    for name, stage in (("pretrain", pretrain), ("train", fine_tune)):
        _, minutes[name] = _timed(lambda stage=stage: stage(product, Paths(product.name)))
    return {"minutes": minutes, "training_bytes": most_held()}


def measured(product: Product, as_of: date) -> dict[str, Any]:
    """Measure beside the own baseline and export; write what the peers get into peers/."""
    import torch

    from tasks.training.measuring import measure

    torch.set_num_threads(1)
    paths, folder, minutes = Paths(product.name), Path("peers"), {}
    found, minutes["evaluate"] = _timed(lambda: measure(product, paths))
    print(found.summary, flush=True)
    exported, minutes["export"] = _timed(lambda: export_model(product, paths))
    print(exported.summary, flush=True)
    folder.mkdir(exist_ok=True)
    rows = model_inputs.split_part(paths.splits, "test", product)
    writes_texts = found.head.writes_texts
    np.save(folder / "y.npy", np.zeros(len(rows)) if writes_texts else found.y)
    np.save(folder / "block.npy", _blocks(rows, product))
    for name in ("model", "baseline"):
        np.save(folder / f"{name}.npy", found.scores[name])
    _hand_over(product, as_of, paths, found.classes, folder)
    return {
        "minutes": minutes,
        # What writes texts was timed while it was exported: it takes long.
        "rows_per_second": round(written_per_second(exported)) if writes_texts else speed(product, paths),
        "scoring_bytes": peak_memory_bytes(product, paths.onnx),
    }


def made(product: Product, as_of: date) -> dict[str, Any]:
    """Make rows up with the trained model, as `evaluate` does; write them where the peers write theirs."""
    import torch

    from tasks.training.held_out.made_rows import write_rows

    torch.set_num_threads(1)
    product = replace(product, predict=replace(product.predict, make_rows=N_MADE))
    paths = Paths(product.name)
    training = model_inputs.split_part(paths.splits, "train", product)
    _, minutes = _timed(lambda: write_rows(product, paths, training, Path("peers") / MADE_FILE))
    return {"rows_per_second": round(N_MADE / (60 * minutes)), "scoring_bytes": most_held()}


def written_per_second(exported: Exported) -> float:
    """Return how many texts the one engine for texts writes in a second of a core."""
    (measured,) = exported.choice.candidates
    return measured.rows_per_cpu_second


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what the work returns, and its minutes of the processor."""
    began = time.process_time()
    done = work()
    return done, round((time.process_time() - began) / 60, 3)


def _blocks(rows: model_inputs.SplitPart, product: Product) -> np.ndarray:
    """Return the block of each row: its day, or where there are few days the hash of its key."""
    from model.evaluation.paired import blocks_of_groups
    from tasks.rows.keys import digests, key_text

    block = blocks_of(rows, product)
    if len(np.unique(block)) >= LEAST_DAYS:
        return block
    # By the first column of the key, such as the customer: rows of one person have much in common.
    return blocks_of_groups(digests(key_text(rows.columns(list(product.key)), [product.key[0]]))[:, 0])


def _hand_over(product: Product, as_of: date, paths: Paths, classes: tuple[str, ...], folder: Path) -> None:
    """Write each part as it lies in the splits, with the label as a number `y`, and order.json."""
    for name in PARTS:
        table = read_table(paths.splits / f"{name}.parquet")
        if not model_inputs.product_head(product).writes_texts:
            table["y"] = model_inputs.targets(table, product, classes)
        table.to_parquet(folder / f"{name}.parquet")
    order = {"columns": product.inputs, "task": product.target.task, "label": product.target.name}
    order |= {"classes": classes, "history": product.target.history, "key": product.key, "time": product.time}
    (folder / "order.json").write_text(json.dumps(order), "utf-8")
    for name, source in product.sources.items():  # such as the log that events are joined from
        module, _, function = source.callable.partition(":")
        getattr(importlib.import_module(module), function)(None, as_of).to_parquet(folder / f"{name}.parquet")


if __name__ == "__main__":
    main()
