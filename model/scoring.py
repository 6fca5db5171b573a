"""Scores for tables: with ONNX Runtime as nights are scored, or with torch as models are evaluated.

The ONNX side imports no torch. Scores come as float32 in the table's own row order: the positive class's
probability (binary), one probability per class (multiclass, multilabel), the prediction (regression).
"""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime

from model.batches import Batch, batches, collate
from model.encoded import Encoded
from model.features import Features, Table
from model.target import read_description, read_target

BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Small on a CPU, where a batch should stay in its caches."""


CHUNK_ROWS = 8192
"""Rows of a table that are encoded at once: enough of every length to pad little, few enough to hold two of."""


class _Scoring(ABC):
    """What both scorers share: the way from tables to scores, but for the network itself."""

    features: Features
    batch_tokens: int
    shape: tuple[int, ...]
    """Of one row's scores."""

    @abstractmethod
    def run(self, batch: Batch) -> np.ndarray:
        """Scores of one padded batch."""

    def score(self, table: Table) -> np.ndarray:
        """Shapes: float32 [n] for binary and regression, else [n, C]."""
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
                yield self._score_encoded(chunk)

    def _score_encoded(self, encoded: Encoded) -> np.ndarray:
        scores = np.empty((len(encoded), *self.shape), np.float32)
        for rows in batches(encoded.lengths, self.batch_tokens):
            scores[rows] = self.run(collate(encoded, rows, self.features.sizes.pad_id))
        return scores


class Scorer(_Scoring):
    """An exported model in ONNX Runtime, on a GPU when there is one."""

    def __init__(self, folder: Path, *, n_threads: int = 0) -> None:
        """`n_threads` 0 leaves their number to ONNX Runtime."""
        self.classes, self.shape = _answers(folder)
        self.features = Features.load(folder)
        cuda = n_cuda_devices() > 0
        self.batch_tokens = BATCH_TOKENS["cuda" if cuda else "cpu"]
        self.session = _session(folder / "network.onnx", cuda, n_threads)
        self.engine = {
            "engine": "onnxruntime",
            "version": onnxruntime.__version__,
            "provider": self.session.get_providers()[0],
            "precision": "fp32",
        }

    def run(self, batch: Batch) -> np.ndarray:
        """Scores of one padded batch, from ONNX Runtime."""
        return self.session.run(["scores"], batch)[0]


class TorchScorer(_Scoring):
    """A trained model as it lies, before any export; the same interface as `Scorer`."""

    def __init__(self, folder: Path) -> None:
        import torch

        from model.device import device
        from model.store import load_model

        network, self.features = load_model(folder)
        self.classes, self.shape = _answers(folder)
        self.where = device()
        self.network = network.to(self.where)
        self.batch_tokens = BATCH_TOKENS[self.where.type]
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


def n_cuda_devices() -> int:
    """GPUs that the CUDA driver sees; 0 without a driver.

    ONNX Runtime's list of providers says what it was built with, not what the machine has.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _session(path: Path, cuda: bool, n_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    providers = ["CPUExecutionProvider"]
    if cuda and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls()
        providers.insert(0, "CUDAExecutionProvider")
    return onnxruntime.InferenceSession(path, options, providers=providers)


def _answers(folder: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names, and the shape of one row's scores."""
    target = read_target(read_description(folder))
    if target is None:
        raise ValueError(f"{folder} must hold a trained model, got one without a head; train it first")
    return target.classes, (target.n_outputs,) if target.task in ("multiclass", "multilabel") else ()


def _chunks(table: Table) -> Iterator[Table]:
    """The table in pieces of CHUNK_ROWS; an empty one is a piece of its own."""
    n_rows = len(next(iter(table.values())))
    for start in range(0, max(1, n_rows), CHUNK_ROWS):
        yield {name: column[start : start + CHUNK_ROWS] for name, column in table.items()}
