"""Keep a training's state while it runs, so that one that was killed resumes where it was.

A training's folder is <LAMPLIGHTER_HOME>/checkpoints/<product>-<stage>-<hash of all that decides its outcome>: outside
`data/`, so that DVC keeps none of it, and outside the run's workspace, which is made anew after a kill. It is removed
when the training has ended, and by age where no training resumed from it.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.params import Product
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, file_sha256, read_json, remove_older_than, write_json
from tasks.runtime.fingerprints import fingerprint
from tasks.runtime.settings import KEPT_DAYS, settings

if TYPE_CHECKING:
    from torch import Tensor

    from model.training.optimisation import Notes

EVERY_SECONDS = 60.0
KEPT = 2
"""Checkpoints of one training: should the newest be broken, there is another."""
STATE, NOTES = "state.safetensors", "notes.json"

PLAN = "training.json"
"""In the folder of trained weights: the settings of their training, with those that were left open as decided."""


class CheckpointFolder:
    """The checkpoints of one training: step-<n>/ with state.safetensors and notes.json, which holds its hash."""

    def __init__(self, folder: Path, every_seconds: float = EVERY_SECONDS) -> None:
        self.folder, self.every_seconds = folder, every_seconds

    def nested(self, name: str) -> "CheckpointFolder":
        """Return the folder of a second training that belongs to this one and is removed with it."""
        return CheckpointFolder(self.folder / f"{self.folder.name}-{name}", self.every_seconds)

    def load_newest(self) -> "tuple[dict[str, Tensor], Notes] | None":
        """Return the newest state of this training that is whole; print a line for each one that is not."""
        for checkpoint in self._oldest_first()[::-1]:
            try:
                return self._load(checkpoint)
            except (OSError, ValueError, KeyError, UserError) as error:
                print(f"checkpoint {checkpoint.name} is left out: {error}", flush=True)
        return None

    def save(self, step: int, tensors: "dict[str, Tensor]", notes: "Notes") -> None:
        """Write the state after `step`, and remove all but the newest KEPT."""
        from safetensors.torch import save_file

        with atomic_folder(self.folder / f"step-{step:09d}") as checkpoint:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, checkpoint / STATE)
            sha256 = file_sha256(checkpoint / STATE)
            write_json(checkpoint / NOTES, notes | {"training": self.folder.name, "sha256": sha256})
        for outdated in self._oldest_first()[:-KEPT]:
            shutil.rmtree(outdated, ignore_errors=True)

    def _oldest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _load(self, checkpoint: Path) -> "tuple[dict[str, Tensor], Notes]":
        from safetensors.torch import load_file

        notes = read_json(checkpoint / NOTES)
        if notes["training"] != self.folder.name:
            raise ValueError(f"it belongs to {notes['training']}")
        if notes["sha256"] != file_sha256(checkpoint / STATE):
            raise ValueError("its content is not what was written")
        return load_file(checkpoint / STATE), notes


@contextmanager
def checkpoints(stage: str, product: Product, data: Iterable[Path], code: Iterable[str]) -> Iterator[CheckpointFolder]:
    """Yield the folder of a stage's training; remove it unless the block ends by what another try may survive."""
    from model.compute.distributed import rank

    parent = settings().home / "checkpoints"
    remove_older_than(parent, KEPT_DAYS)
    identity = fingerprint(code=code, data=data, settings=[_settings(product), _machine()])
    folder = parent / f"{product.name}-{stage}-{identity[:16]}"
    try:
        yield CheckpointFolder(folder)
    except (OSError, RuntimeError, MemoryError, KeyboardInterrupt):
        raise
    except Exception:
        if rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)


def _settings(product: Product) -> list[object]:
    longest = product.predict.text.max_tokens
    return [product.inputs, asdict(product.target), asdict(product.model), longest]


def _machine() -> dict[str, object]:
    """Return the kind of machine and the libraries that a training's bytes depend on."""
    import torch

    from model.compute.distributed import n_ranks

    return {
        "torch": torch.__version__,
        "cpu": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), n_ranks()],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
