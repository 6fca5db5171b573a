"""Oracle: the benchmark's own targets. No GPU was to be had for it yet, and nobody else would notice that it breaks."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from benchmarks.breadth.parts import write_parts
from benchmarks.breadth.sets import Set


@pytest.mark.long
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


@pytest.mark.long
def test_set_of_breadth_goes_through_the_stages_of_the_project(tmp_path):
    size = np.arange(80, dtype=float)
    table = pd.DataFrame({"size": size, "price": 3 * size + 1})
    one = Set(name="small", table=table, columns={"size": "number"}, target="price", task="regression", metric="r2")
    write_parts(one, 0, [], tmp_path)
    entry = json.loads((tmp_path / "entry.json").read_text())
    entry["products"]["small"]["model"] = {"train": {"epochs": 1}}  # a default takes a minute
    (tmp_path / "entry.json").write_text(json.dumps(entry))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.breadth.own", str(tmp_path), "--without-export"],
        cwd=ROOT,
        env={**os.environ, "LAMPLIGHTER_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["model"] <= 1
    assert figures["baseline"] <= 1
    assert set(figures["minutes"]) == {"pretrain", "train", "evaluate"}
    assert figures["rows_per_second"] is None
