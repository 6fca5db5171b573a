"""Where a training's state is kept while it runs, so that one that was killed goes on where it was.

A training's folder is <LAMPLIGHTER_HOME>/checkpoints/<product>-<stage>-<hash of all that decides its outcome>: outside
`data/`, so that DVC keeps none of it, and outside the run's workspace, which is made anew after a kill. It is removed
when the training has ended, and by age where nobody took it up again.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.params import Product
from tasks.runtime.files import (
    atomic_folder,
    code_sha256,
    file_sha256,
    folder_sha256,
    read_json,
    remove_older_than,
    write_json,
)
from tasks.runtime.settings import KEPT_DAYS, settings

if TYPE_CHECKING:
    from torch import Tensor

EVERY_SECONDS = 60.0
KEPT = 2
"""Checkpoints of one training: should the newest be broken, there is another."""


class CheckpointFolder:
    """The checkpoints of one training: step-<n>/ with state.safetensors and notes.json, which holds its hash."""

    def __init__(self, folder: Path, every_seconds: float = EVERY_SECONDS) -> None:
        self.folder, self.every_seconds = folder, every_seconds

    def of(self, part: str) -> "CheckpointFolder":
        """Those of a second training that belongs to this one; they go when these go."""
        return CheckpointFolder(self.folder / f"{self.folder.name}-{part}", self.every_seconds)

    def newest(self) -> "tuple[dict[str, Tensor], dict[str, Any]] | None":
        """The last state that is whole and of this training; what is not is named and left out."""
        for path in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                return self._read(path)
            except (OSError, ValueError, KeyError) as error:
                print(f"checkpoint {path.name} is left out: {error}", flush=True)
        return None

    def save(self, step: int, tensors: "dict[str, Tensor]", notes: dict[str, Any]) -> None:
        """Keep a state, and the one before it."""
        from safetensors.torch import save_file

        with atomic_folder(self.folder / f"step-{step:09d}") as aside:
            state = aside / "state.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, state)
            write_json(aside / "notes.json", notes | {"training": self.folder.name, "sha256": file_sha256(state)})
        for path in sorted(self.folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(path, ignore_errors=True)

    def _read(self, path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
        from safetensors.torch import load_file

        notes = read_json(path / "notes.json")
        if notes["training"] != self.folder.name:
            raise ValueError(f"it is of {notes['training']}")
        if notes["sha256"] != file_sha256(path / "state.safetensors"):
            raise ValueError("its content is not what was written")
        return load_file(path / "state.safetensors"), notes


@contextmanager
def checkpoints(stage: str, product: Product, inputs: Iterable[Path]) -> Iterator[CheckpointFolder]:
    """The checkpoints of a stage's training on these files; removed when the block ends as it would end again."""
    remove_older_than(settings().home / "checkpoints", KEPT_DAYS)
    folder = settings().home / "checkpoints" / f"{product.name}-{stage}-{_identity(stage, product, inputs)[:16]}"
    try:
        yield CheckpointFolder(folder)
    except (OSError, RuntimeError, MemoryError, KeyboardInterrupt):  # it may go better another time, with peers alive
        raise
    except Exception:
        _remove(folder)
        raise
    _remove(folder)


def _remove(folder: Path) -> None:
    from model.compute.distributed import rank

    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)


def _identity(stage: str, product: Product, inputs: Iterable[Path]) -> str:
    """The hash of all that decides what the training gives: data, params, code, libraries and machine kind."""
    import torch

    from model.compute.distributed import n_ranks

    content = {
        "inputs": [folder_sha256(path) if path.is_dir() else file_sha256(path) for path in inputs],
        "code": code_sha256("model", "tasks/rows", "tasks/training", f"tasks/{stage}.py"),
        "params": [product.columns, asdict(product.target), asdict(product.model)],
        "torch": torch.__version__,
        "machine": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), n_ranks()],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
