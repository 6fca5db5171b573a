"""The processor at hand, as Linux describes it in /proc/cpuinfo."""

import os
import platform
from functools import cache
from pathlib import Path


def name() -> str:
    """Return the processor's model; another one may round otherwise."""
    return _described().get("model name", "") or platform.processor() or platform.machine()


def vendor() -> str:
    """Return the name by which an x86 processor says who made it; empty where Linux does not tell."""
    return _described().get("vendor_id", "")


def features() -> set[str]:
    """Return the instruction sets that it has, such as avx2; none where Linux does not list them."""
    described = _described()
    return set((described.get("flags") or described.get("Features") or "").split())


def n_cores() -> int:
    """Return the number of its cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _described() -> dict[str, str]:
    """Return the fields of the first core."""
    cpuinfo = Path("/proc/cpuinfo")
    first = cpuinfo.read_text().strip().partition("\n\n")[0] if cpuinfo.exists() else ""
    fields = (line.partition(":") for line in first.splitlines())
    return {field.strip(): value.strip() for field, _, value in fields}
