"""Scores for tables: by an exported model's engine as nights are scored, or by torch as models are evaluated.

The exported side imports no torch. Scores come as float32 in the table's own row order: the positive class's
probability (a yes or no), one probability per class or label, or the predicted number.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.features.answers.windows import characters
from model.features.batches import Batch, batches, collate
from model.features.encoded import Encoded
from model.features.fitted import Features
from model.features.fitting import Table
from model.network.blend import DEEP
from model.scoring.constraint import Constraints
from model.scoring.engines import Engine, OnnxRuntime, load
from model.scoring.generation import Step, Writer
from model.target import LANGUAGE, Target, read_description, read_target

if TYPE_CHECKING:
    from torch import Tensor

WHOLE = "whole"
"""Among the parts of a blend, the blend itself."""
CHUNK_ROWS = 8192
"""Rows of a table that are encoded at once: enough of every length to pad little, few enough to hold two chunks."""


class _Scoring(ABC):
    """The way from tables to scores, which both scorers share, but for the network itself."""

    features: Features
    batch_tokens: int
    n_parallel: int = 1
    """Batches that run at once, each on a thread."""
    has_run: bool = False
    """Whether it has run a batch. The first one runs alone: an engine's bindings learn of numpy by it, and two threads
    that did so at once have waited for each other for ever, one with Python's lock, one with that of OpenVINO."""
    target: Target
    """What is answered."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        return self.target.classes

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one row's scores."""
        return self.target.score_shape

    @property
    @abstractmethod
    def step(self) -> Step:
        """Return what reads rows and subwords of texts, where the target is a text."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Return the sizes of the network, by their names in `NetworkSettings` or `LanguageSettings`."""

    @cached_property
    def writer(self) -> Writer:
        """What writes texts, where the target is a text."""
        sizes = self.settings
        heads = sizes.get("n_kv_heads", sizes["n_heads"])
        return Writer(
            step=self.step,
            features=self.features,
            past_shape=(sizes["n_layers"], heads, sizes.get("d_head", sizes["d_model"] // sizes["n_heads"])),
            max_tokens=self.target.max_tokens,
            n_parallel=self.n_parallel,
            constraints=Constraints(self.features.tokenizer),
        )

    @abstractmethod
    def run(self, batch: Batch) -> np.ndarray:
        """Return the scores of one padded batch."""

    def score(self, table: Table) -> np.ndarray:
        """Return the scores of rows, in their order. Shapes: float32 [n, *score_shape] of the task's head."""
        return np.concatenate(list(self.score_stream(_chunks(table))))

    def score_stream(self, tables: Iterable[Table]) -> Iterator[np.ndarray]:
        """Yield the scores of every table, in their order; the next table is fetched and encoded while one is scored.

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
        """Return the scores of rows that are encoded already, as `score` does."""
        scores = np.empty((len(encoded), *self.shape), np.float32)

        def work(rows: np.ndarray) -> None:
            scores[rows] = self.run(collate(encoded, rows, self.features.sizes.pad_id))

        waiting = batches(encoded, self.batch_tokens, most_rows=self.target.most_rows)
        if waiting and not self.has_run:
            work(waiting.pop(0))
            self.has_run = True
        with ThreadPoolExecutor(self.n_parallel, "score") as workers:
            deque(workers.map(work, waiting), maxlen=0)
        if self.target.head.answers_spans:
            scores[..., 0] = characters(scores[..., 0], encoded.arrays, self.features.sizes.max_tokens)
        return scores


class Scorer(_Scoring):
    """An exported model, run by the engine that was chosen for it."""

    def __init__(self, folder: Path, *, n_threads: int = 0, engine: Engine | None = None) -> None:
        """Load it; `n_threads` 0 takes all cores, `engine` None is the one chosen at the export.

        Raises: ValueError where the engine cannot run here.
        """
        self.target = read_target(folder)
        self.described = read_description(folder)
        self.features = Features.load(folder)
        self.runner = load(engine or Engine.load(folder), folder, n_threads)
        self.batch_tokens, self.n_parallel = self.runner.batch_tokens, self.runner.n_parallel
        self.engine = self.runner.described

    @property
    def step(self) -> Step:
        """Return the engine's."""
        assert isinstance(self.runner, OnnxRuntime), "texts are written by ONNX Runtime alone"
        return self.runner.step

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return what lies beside the exported network."""
        return self.described.get(LANGUAGE) or self.described["settings"]

    def run(self, batch: Batch) -> np.ndarray:
        """Return the scores of one padded batch, from the engine."""
        return self.runner.run(batch)


class TorchScorer(_Scoring):
    """A trained model before any export, with the interface of `Scorer`."""

    def __init__(self, folder: Path) -> None:
        import torch

        from model.compute.device import device
        from model.network.store import load_model

        network, self.features = load_model(folder)
        self.target = read_target(folder)
        self.device = device()
        self.network = network.to(self.device)
        self.parts: tuple[str, ...] = ()
        self.batch_tokens = 65_536 if self.device.type == "cuda" else 4096
        self.engine = {
            "engine": "torch",
            "version": str(torch.__version__),
            "provider": self.device.type,
            "precision": "fp32",
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one row's scores, of parts one after the other."""
        return (len(self.parts), *super().shape) if self.parts else super().shape

    @property
    def step(self) -> Step:
        """Return that of the network."""
        import torch

        decoder = self.network.decoder
        assert decoder is not None, "a network whose target is a text has a decoder"

        def step(inputs: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            with torch.inference_mode():
                tensors = {name: torch.from_numpy(array).to(self.device) for name, array in inputs.items()}
                shares, past, source = (part.cpu().numpy() for part in decoder.step(self.network, tensors))
            return shares, past, source

        return step

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return those of the network."""
        return asdict(getattr(self.network, LANGUAGE, self.network.settings))

    def run(self, batch: Batch) -> np.ndarray:
        """Return the scores of one padded batch, from torch."""
        import torch

        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(self.device) for name, array in batch.items()}
            if not self.parts:
                return self.network.scores(tensors).cpu().numpy()
            if DEEP in self.parts:
                tensors["pooled"] = self.network.pooled(tensors)  # once, for the blend too
            return torch.stack([self._of_part(tensors, name) for name in self.parts], 1).cpu().numpy()

    def _of_part(self, tensors: "dict[str, Tensor]", name: str) -> "Tensor":
        target = self.network.target
        if name == WHOLE:
            return self.network.scores(tensors)
        assert target is not None
        return target.head.scores(self.network.alone(tensors, name).float(), target)

    def of_parts(self, *names: str) -> "TorchScorer":
        """Return what scores with parts of the blend alone, calibrated as the blend is, or with all of it by WHOLE.

        A row is encoded once for all of them. Shapes of its scores: float32 [n, parts, *score_shape].
        """
        scorer = copy(self)
        scorer.parts = names
        return scorer


def _chunks(table: Table) -> Iterator[Table]:
    """Yield the table in pieces of CHUNK_ROWS; an empty table is one piece."""
    n_rows = len(next(iter(table.values())))
    for start in range(0, max(1, n_rows), CHUNK_ROWS):
        yield {name: column[start : start + CHUNK_ROWS] for name, column in table.items()}
