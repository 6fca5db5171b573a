"""What the machine at hand can do: where it computes, how precisely, and how to repeat it exactly."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from model.compute import processor

INTEL = "GenuineIntel"
# cuBLAS reads this once, when it starts; without it some of its sums come in any order.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def device() -> torch.device:
    """Return a GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bfloat16(where: torch.device) -> bool:
    """Return whether the hardware multiplies bfloat16 matrices, rather than emulating them more slowly than fp32."""
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return multiplies_bfloat16_fast(
        torch.backends.cpu.get_cpu_capability(),
        has_vectors=torch.cpu._is_avx512_bf16_supported(),
        has_tiles=torch.cpu._is_amx_tile_supported(),
        vendor=processor.vendor(),
    )


def multiplies_bfloat16_fast(capability: str, *, has_vectors: bool, has_tiles: bool, vendor: str) -> bool:
    """Return whether a CPU of these instructions multiplies bfloat16 matrices faster than fp32.

    Without tiles Intel's cores do not: 80 GFLOP/s a core were measured, where fp32 has 140, and a step of convolutions
    took 2.7 times as long. AMD's multiply twice as many.

    >>> multiplies_bfloat16_fast("AVX512", has_vectors=True, has_tiles=False, vendor="GenuineIntel")
    False
    """
    return capability.startswith("AVX512") and (has_tiles or (has_vectors and vendor != INTEL))


def autocast(where: torch.device) -> torch.autocast:
    """Return mixed precision where the hardware has it; elsewhere a context that changes nothing."""
    return torch.autocast(where.type, torch.bfloat16, enabled=has_fast_bfloat16(where))


def eager(where: torch.device) -> AbstractContextManager[object]:
    """Return a context for reading rows between a GPU's trainings, in which compiled blocks run uncompiled.

    Without gradients and with padding each block would be compiled anew, several times; and torch, which keeps eight
    graphs of a function, would compile none of what training meets after that.
    """
    return torch.compiler.set_stance("force_eager") if where.type == "cuda" else nullcontext()


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Make torch draw from `seed` and give the same bits on every run, inside of the context."""
    memory: Any = torch.utils.deterministic
    was, filled = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Not to warn only: attention on a GPU then keeps the kernel whose sums come in any order.
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory before it is written; filling it cost 5 % of a training.
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was)
            memory.fill_uninitialized_memory = filled
