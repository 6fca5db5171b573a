"""Oracle: the benchmark's own targets. No GPU was to be had for it yet, and nobody else would notice that it breaks."""

import os
import subprocess
import sys

from conftest import ROOT


def test_benchmark_of_a_gpu_goes_through_all_its_parts():
    code = "from benchmarks.gpu import run\nfor target in run().targets: print(f'{target.name}: {target.met}')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "LAMPLIGHTER_BENCH_TINY": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-4:] == [
        "model-FLOP utilisation of training: False",  # which a CPU does not have
        "packed rows are read as padded ones, bf16: True",
        "ONNX Runtime scores as torch does: True",
        "tests that concern a GPU: True",
    ]
