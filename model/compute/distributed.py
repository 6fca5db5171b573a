"""Several processes that train one network together, each on its share of every batch.

`torchrun --nproc-per-node N -m tasks.train <product>` starts them; without torchrun there is one process, and
everything here does nothing. All processes hold the same weights: gradients are summed before each step.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from model.features.batches import INPUTS

Axis = Literal["rows", "windows"]
"""What a tensor's first dimension counts; the same where each row is one window."""

_newest_share: dict[str, tuple[slice, int]] = {}
"""This process's rows and windows of the batch that all work on, and how many of them that has."""


@contextmanager
def together() -> Iterator[None]:
    """Inside, the processes that torchrun started know of each other."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def shard_batch(batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], slice, float]:
    """This process's part of a batch, which rows that are, and 1; with fewer rows than processes, some row and 0.

    A process with nothing to do still takes part in every sum. `mine` goes by the newest call.
    Shapes: as of `batches.collate`.
    """
    if n_ranks() == 1:
        return batch, slice(None), 1.0
    whose = batch.get("windows")
    n_rows = n_windows = len(next(iter(batch.values())) if whose is None else whose)
    start, end = (n_rows * each // n_ranks() for each in (rank(), rank() + 1))
    rows, weight = (slice(start, end), 1.0) if start < end else (slice(0, 1), 0.0)
    windows = rows
    if whose is not None:
        ends = [0, *whose.sum(1).long().cumsum(0).tolist()]
        windows, n_windows = slice(ends[rows.start], ends[rows.stop]), ends[-1]
    _newest_share.update(rows=(rows, n_rows), windows=(windows, n_windows))
    part = {name: column[windows if name in INPUTS else rows] for name, column in batch.items()}
    if whose is not None:
        part["windows"] = part["windows"][:, windows]
    return part, rows, weight


def local_slice(draw: Callable[[torch.Size], Tensor], shape: torch.Size, of: Axis) -> Tensor:
    """This process's part of what is drawn for all: each row gets what it would get in one process.

    Shapes: `shape` [rows or windows of this process, ...], as is returned.
    """
    if n_ranks() == 1:
        return draw(shape)
    part, n_of_all = _newest_share[of]
    return draw(torch.Size([n_of_all, *shape[1:]]))[part]


def all_reduce_sum(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in one exchange."""
    if n_ranks() == 1:
        return
    parts = list(tensors)
    flat = torch.cat([part.detach().float().flatten() for part in parts])
    dist.all_reduce(flat)
    for part, total in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
        part.copy_(total.view_as(part))


def all_equal(number: int) -> bool:
    """Whether all processes hold the same number."""
    if n_ranks() == 1:
        return True
    where = "cuda" if torch.cuda.is_available() else "cpu"
    least_and_most = torch.tensor([-number, number], device=where)
    dist.all_reduce(least_and_most, dist.ReduceOp.MAX)
    return int(-least_and_most[0]) == int(least_and_most[1])
