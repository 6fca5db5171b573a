"""Scores for tables: by an exported model's engine as nights are scored, or by torch as models are evaluated.

The exported side imports no torch. Scores come as float32 in the table's own row order: the positive class's
probability (binary), one probability per class (multiclass, multilabel), the prediction (regression).
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from model.features.batches import Batch, batches, collate
from model.features.encoded import Encoded
from model.features.fitted import Features, Table
from model.scoring.engines import Engine, load
from model.target import read_target

CHUNK_ROWS = 8192
"""Rows of a table that are encoded at once: enough of every length to pad little, few enough to hold two of."""


class _Scoring(ABC):
    """What both scorers share: the way from tables to scores, but for the network itself."""

    features: Features
    batch_tokens: int
    n_parallel: int = 1
    """Batches that run at once, each on a thread."""
    shape: tuple[int, ...]
    """Of one row's scores."""

    @abstractmethod
    def run(self, batch: Batch) -> np.ndarray:
        """Scores of one padded batch."""

    def score(self, table: Table) -> np.ndarray:
        """Return the scores of rows, in their order. Shapes: float32 [n, *score_shape] of the task's head."""
        return np.concatenate(list(self.score_stream(_chunks(table))))

    def score_stream(self, tables: Iterable[Table]) -> Iterator[np.ndarray]:
        """Scores of every table, in their order; the next table is fetched and encoded while one is scored.

        Holds two tables at most, however many there are. `tables` is iterated in another thread.
        Shapes: as of `score`, for each table.
        """
        encoded = map(self.features.encode, tables)
        with ThreadPoolExecutor(1, "encode") as ahead:
            future = ahead.submit(next, encoded, None)
            while (chunk := future.result()) is not None:
                future = ahead.submit(next, encoded, None)
                yield self.score_encoded(chunk)

    def score_encoded(self, encoded: Encoded) -> np.ndarray:
        """As `score`, of rows that are encoded already."""
        scores = np.empty((len(encoded), *self.shape), np.float32)

        def work(rows: np.ndarray) -> None:
            scores[rows] = self.run(collate(encoded, rows, self.features.sizes.pad_id))

        with ThreadPoolExecutor(self.n_parallel, "score") as workers:
            deque(workers.map(work, batches(encoded, self.batch_tokens)), maxlen=0)
        return scores


class Scorer(_Scoring):
    """An exported model, run by the engine that was chosen for it."""

    def __init__(self, folder: Path, *, n_threads: int = 0, engine: Engine | None = None) -> None:
        """`n_threads` 0 takes all cores; `engine` None is the one chosen at the export.

        Raises: ValueError where the engine cannot run here.
        """
        self.classes, self.shape = _answers(folder)
        self.features = Features.load(folder)
        self.runner = load(engine or Engine.load(folder), folder, n_threads)
        self.batch_tokens, self.n_parallel = self.runner.batch_tokens, self.runner.n_parallel
        self.engine = self.runner.described

    def run(self, batch: Batch) -> np.ndarray:
        """Scores of one padded batch, from the engine."""
        return self.runner.run(batch)


class TorchScorer(_Scoring):
    """A trained model as it lies, before any export; the same interface as `Scorer`."""

    def __init__(self, folder: Path) -> None:
        import torch

        from model.compute.device import device
        from model.network.store import load_model

        network, self.features = load_model(folder)
        self.classes, self.shape = _answers(folder)
        self.where = device()
        self.network = network.to(self.where)
        self.batch_tokens = 65_536 if self.where.type == "cuda" else 4096
        self.engine = {
            "engine": "torch",
            "version": str(torch.__version__),
            "provider": self.where.type,
            "precision": "fp32",
        }

    def run(self, batch: Batch) -> np.ndarray:
        """Scores of one padded batch, from torch."""
        import torch

        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(self.where) for name, array in batch.items()}
            return self.network.scores(tensors).cpu().numpy()


def _answers(folder: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names, and the shape of one row's scores."""
    target = read_target(folder)
    return target.classes, target.head.score_shape(len(target.classes))


def _chunks(table: Table) -> Iterator[Table]:
    """The table in pieces of CHUNK_ROWS; an empty one is a piece of its own."""
    n_rows = len(next(iter(table.values())))
    for start in range(0, max(1, n_rows), CHUNK_ROWS):
        yield {name: column[start : start + CHUNK_ROWS] for name, column in table.items()}
