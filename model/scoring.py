"""Scores for tables: with ONNX Runtime as nights are scored, or with torch as models are evaluated.

The ONNX side imports no torch. Scores come as float32 in the table's own row order: the positive class's
probability (binary), one probability per class (multiclass, multilabel), the prediction (regression).
"""

import ctypes
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime

from model.batches import Batch, batches, collate
from model.features import Features, Table
from model.target import read_description, read_target

BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Small on a CPU, where a batch should stay in its caches."""


class _Model(Protocol):
    """What both scorers have."""

    features: Features
    batch_tokens: int
    shape: tuple[int, ...]

    def run(self, batch: Batch) -> np.ndarray: ...


class Scorer:
    """An exported model in ONNX Runtime, on a GPU when there is one."""

    def __init__(self, folder: Path, *, n_threads: int = 0) -> None:
        """`n_threads` 0 leaves their number to ONNX Runtime."""
        self.features = Features.load(folder)
        self.classes, self.shape = _answers(folder)
        cuda = n_cuda_devices() > 0
        self.batch_tokens = BATCH_TOKENS["cuda" if cuda else "cpu"]
        self.session = _session(folder / "network.onnx", cuda, n_threads)
        self.engine = {
            "engine": "onnxruntime",
            "version": onnxruntime.__version__,
            "provider": self.session.get_providers()[0],
            "precision": "fp32",
        }

    def score(self, table: Table) -> np.ndarray:
        """Shapes: float32 [n] for binary and regression, else [n, C]."""
        return _score(self, table)

    def run(self, batch: Batch) -> np.ndarray:
        """Scores of one padded batch."""
        return self.session.run(["scores"], batch)[0]


class TorchScorer:
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

    def score(self, table: Table) -> np.ndarray:
        """Shapes: float32 [n] for binary and regression, else [n, C]."""
        return _score(self, table)

    def run(self, batch: Batch) -> np.ndarray:
        """Scores of one padded batch."""
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


def _score(model: _Model, table: Table) -> np.ndarray:
    encoded = model.features.encode(table)
    scores = np.empty((len(encoded), *model.shape), np.float32)
    for rows in batches(encoded.lengths, model.batch_tokens):
        scores[rows] = model.run(collate(encoded, rows, model.features.sizes.pad_id))
    return scores
