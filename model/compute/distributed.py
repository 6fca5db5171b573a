"""Several processes that train one network together, each on its share of every batch.

`torchrun --nproc-per-node N -m tasks.train <product>` starts them; without torchrun there is one process, and
everything here does nothing. All processes hold the same weights: gradients are summed before each step.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from model.features.kinds import encoder_inputs

Axis = Literal["rows", "windows"]
"""What a tensor's first dimension counts; the same where each row is one window."""


@contextmanager
def together() -> Iterator[None]:
    """Connect the processes that torchrun started with each other, inside of the context."""
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
    """Return this process's number; 0 writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_ranks() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One process's part of a batch."""

    batch: dict[str, Tensor]
    """As of `batches.collate`, of this process's rows alone."""
    rows: slice = field(default_factory=lambda: slice(None))
    """Which rows of the whole batch these are."""
    weight: float = 1.0
    """0 where the rows are mere filler, since a process with nothing to do still takes part in every sum; else 1."""
    windows: slice = field(default_factory=lambda: slice(None))
    """Which windows of the whole batch these are."""
    n_rows: int = 0
    """Rows of the whole batch."""
    n_windows: int = 0
    """Windows of the whole batch."""


_current_shard: ContextVar[Shard | None] = ContextVar("shard", default=None)


@contextmanager
def shard_batch(batch: dict[str, Tensor]) -> Iterator[Shard]:
    """Yield this process's part of a batch; inside, `local_slice` draws for the rows and windows of that part."""
    shard = Shard(batch=batch) if n_ranks() == 1 else _shard_of(batch)
    token = _current_shard.set(shard)
    try:
        yield shard
    finally:
        _current_shard.reset(token)


def _shard_of(batch: dict[str, Tensor]) -> Shard:
    owners = batch.get("windows")
    n_rows = n_windows = len(next(iter(batch.values())) if owners is None else owners)
    start, end = (n_rows * each // n_ranks() for each in (rank(), rank() + 1))
    rows, weight = (slice(start, end), 1.0) if start < end else (slice(0, 1), 0.0)
    windows = rows
    if owners is not None:
        ends = [0, *owners.sum(1).long().cumsum(0).tolist()]
        windows, n_windows = slice(ends[rows.start], ends[rows.stop]), ends[-1]
    by_window = encoder_inputs()
    part = {name: column[windows if name in by_window else rows] for name, column in batch.items()}
    if owners is not None:
        part["windows"] = part["windows"][:, windows]
    return Shard(batch=part, rows=rows, weight=weight, windows=windows, n_rows=n_rows, n_windows=n_windows)


def local_slice(draw: Callable[[torch.Size], Tensor], shape: torch.Size, of: Axis) -> Tensor:
    """Return this process's part of what is drawn for all: each row gets what it would get in one process.

    Shapes: `shape` [rows or windows of this process, ...], as is returned.
    """
    if n_ranks() == 1:
        return draw(shape)
    shard = _current_shard.get()
    assert shard is not None, "several processes draw together only for a batch that is sharded"
    part, n_of_all = (shard.rows, shard.n_rows) if of == "rows" else (shard.windows, shard.n_windows)
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
    """Return whether all processes hold the same number."""
    if n_ranks() == 1:
        return True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    least_and_most = torch.tensor([-number, number], device=device)
    dist.all_reduce(least_and_most, dist.ReduceOp.MAX)
    return int(-least_and_most[0]) == int(least_and_most[1])
