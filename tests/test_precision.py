"""Oracle: the clock of this machine's processor, and what processors of others say of themselves."""

import time

import pytest
import torch
import torch.nn.functional as F

from model.compute.device import has_fast_bfloat16, multiplies_bfloat16_fast

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "has_vectors", "has_tiles", "vendor", "expected"),
    [
        ("AVX512", True, False, "AuthenticAMD", True),
        ("AVX512", True, True, "GenuineIntel", True),
        ("AVX512", True, False, "GenuineIntel", False),  # a virtual machine that hides the tiles
        ("AVX512", False, False, "GenuineIntel", False),
        ("AVX2", True, False, "AuthenticAMD", False),  # as ATEN_CPU_CAPABILITY asks
    ],
)
def test_bfloat16_is_fast_by_tiles_or_by_vectors_of_amd(capability, has_vectors, has_tiles, vendor, expected):
    found = multiplies_bfloat16_fast(capability, has_vectors=has_vectors, has_tiles=has_tiles, vendor=vendor)
    assert found is expected


def test_what_is_said_of_this_processor_is_what_it_takes():
    if not torch.cpu._is_avx512_bf16_supported():
        assert not has_fast_bfloat16(CPU)
        return
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        tokens, weight = torch.ones(1024, 512, dtype=dtype), torch.ones(1024, 512, dtype=dtype)
        taken = []
        for _ in range(20):
            began = time.process_time()
            F.linear(tokens, weight)
            taken.append(time.process_time() - began)
        seconds[dtype] = min(taken)
    quicker = seconds[torch.float32] / seconds[torch.bfloat16]
    assert quicker > 0.9 if has_fast_bfloat16(CPU) else quicker < 1.2
