"""What a GPU does: training's model-FLOP utilisation, scoring, parity with ONNX Runtime, and the tests that concern it.

`python -m benchmarks gpu`: one command, about 7 minutes on an H200 (2 of them measure, 5 test), no internet. With
LAMPLIGHTER_BENCH_TINY=1 it goes through all its parts on a CPU in a minute, with figures that mean nothing.

Utilisation counts the work that the model needs and no other: 6 FLOPs a weight of the encoder and token, and 12 a
token, its row's token, and width in attention, over the chip's dense bf16 peak by its maker.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.report import Result, Target
from benchmarks.training import matrix_bound, minilm, texts, tokens_per_second
from model.compute import device
from model.features.fitted import Features
from model.network.encoder import Encoder
from model.network.network import Network
from model.network.store import save_model
from model.scoring.choice import candidates
from model.scoring.engines import FP16_NETWORK, NETWORK, SIMPLEST
from model.scoring.export import export_onnx
from model.scoring.quantise import convert_to_fp16
from model.scoring.scorer import Scorer, TorchScorer
from model.settings import NetworkSettings
from model.target import Target as Answer

TINY = os.environ.get("LAMPLIGHTER_BENCH_TINY") == "1"
PEAK_BF16_TFLOPS = {"H100": 989, "H200": 989, "A100": 312, "L4": 121}
ENCODERS = {
    # With the mean pooled, every layer works on every token, as is counted.
    name: NetworkSettings(
        d_model=d, n_layers=n, n_heads=d // 64, d_feedforward=4 * d, dropout=0.1, max_tokens=256, pooling="mean"
    )
    for name, d, n in (("85M", 768, 12), ("51M", 640, 10))
}
BATCH_TOKENS, SECONDS = 65536, 8.0
WANTED_UTILISATION, WANTED_PARITY = 0.45, 1e-3
TEST_PROCESSES, TEST_OUTPUT = 4, 8000
"""Processes that share the GPU in the tests, and the characters of a failure's output that are shown."""
TESTS = (
    "model_training",
    "model_context",
    "model_probe",
    "model_network",
    "model_export",
    "model_engines",
    "model_bert",
    "checkpoints",
)
if TINY:
    ENCODERS = {"tiny": NetworkSettings(d_model=64, n_layers=2, n_heads=2, d_feedforward=128, max_tokens=64)}
    BATCH_TOKENS, SECONDS, TESTS, TEST_PROCESSES = 256, 0.1, ("model_batches",), 0


def run() -> Result:
    """Measure everything, in this order: training, packed attention, scoring and parity, tests."""
    if not torch.cuda.is_available() and not TINY:
        sys.exit("benchmarks gpu: a GPU must be there, and torch sees none; run it on a machine that has one")
    frame = texts("articles").head(400 if TINY else None)
    with tempfile.TemporaryDirectory() as folder:
        training = [_training(name, settings, frame) for name, settings in ENCODERS.items()]
        packed = _packed_difference()
        scoring = _scoring(frame, Path(folder))
    failed = _tests()
    best = max(row["utilisation"] or 0.0 for row in training)
    return Result(
        name="gpu",
        tables={"Training": training, "Scoring": scoring},
        targets=[
            Target(
                name="model-FLOP utilisation of training",
                wanted=f"{WANTED_UTILISATION:.0%}",
                measured=f"{best:.0%}",
                met=best >= WANTED_UTILISATION,
            ),
            Target(
                name="packed rows are read as padded ones, bf16",
                wanted="difference below 0.02",
                measured=f"{packed:.1e}",
                met=packed < 0.02,
            ),
            Target(
                name="ONNX Runtime scores as torch does",
                wanted=f"difference below {WANTED_PARITY:g}",
                measured=f"{scoring[0]['max_difference']:.1e}",
                met=scoring[0]["max_difference"] < WANTED_PARITY,
            ),
            Target(name="tests that concern a GPU", wanted="0 failed", measured=failed or "0 failed", met=not failed),
        ],
        notes=["tiny, on a CPU: these figures mean nothing"] if TINY else [],
    )


def _features(frame: pd.DataFrame, max_tokens: int) -> Features:
    return Features.fit(
        {"text": "text"},
        {"text": frame["text"].to_numpy(object)},
        None,
        "multiclass",
        max_tokens=max_tokens,
        tokenizer=minilm() / "tokenizer.json",
    )


def _answer() -> Answer:
    return Answer(task="multiclass", classes=tuple("abcde"))


def _training(name: str, settings: NetworkSettings, frame: pd.DataFrame) -> dict:
    """Measure fine-tuning, every article several times so that an epoch has enough steps."""
    features = _features(frame, settings.max_tokens)
    many = pd.concat([frame] * (4 if TINY else 40), ignore_index=True)
    encoded = features.encode({"text": many["text"].to_numpy(object)})
    network = Network(settings, features.sizes, _answer())
    n_weights = sum(weight.numel() for weight in network.encoder.parameters())
    rate = tokens_per_second(network, features, encoded, many["label"].to_numpy(), BATCH_TOKENS, SECONDS)
    mean_length = float((encoded.lengths.astype(np.float64) ** 2).sum() / encoded.lengths.sum())
    flops = 6 * n_weights + 12 * settings.n_layers * settings.d_model * mean_length
    chip = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    peak = next((tera * 1e12 for key, tera in PEAK_BF16_TFLOPS.items() if key in chip), None)
    return {
        "encoder": name,
        "weights": n_weights,
        "mean_tokens": float(encoded.lengths.mean()),
        "tokens_per_second": rate,
        "tflops": rate * flops / 1e12,
        "utilisation": rate * flops / peak if peak else None,
        "share_of_matrix_bound": rate / matrix_bound(BATCH_TOKENS, settings, SECONDS / 2),
        "chip": chip,
    }


def _packed_difference() -> float:
    """Return the largest difference between packed and padded rows, of outcomes of about unit size."""
    where = device.device()
    torch.manual_seed(0)
    encoder = Encoder(replace(next(iter(ENCODERS.values())), dropout=0.0), 1e-12).to(where)
    tokens = torch.randn(8, 64, encoder.layer[0].attention.output.in_features, device=where)
    real = torch.arange(64, device=where) < torch.tensor([[64], [50], [33], [20], [9], [3], [2], [1]], device=where)
    with torch.no_grad(), device.autocast(where):
        packed = encoder.packed(tokens, real)
        padded = encoder.eval()(tokens, real[:, None, None])
    return float(((packed - padded) * real[..., None]).abs().max())


def _scoring(frame: pd.DataFrame, folder: Path) -> list[dict]:
    """Return the articles a second of the exported model in fp32 and, on a GPU, fp16, and their distance from torch."""
    settings = next(iter(ENCODERS.values()))
    features = _features(frame, settings.max_tokens)
    save_model(folder / "trained", Network(settings, features.sizes, _answer()), features)
    export_onnx(folder / "trained", folder / "onnx")
    convert_to_fp16(folder / "onnx" / NETWORK, folder / "onnx" / FP16_NETWORK)
    table = {"text": frame["text"].to_numpy(object)}
    exact = TorchScorer(folder / "trained").score({"text": table["text"][:100]})
    found = []
    for engine in candidates() if torch.cuda.is_available() else [SIMPLEST]:
        scorer = Scorer(folder / "onnx", engine=engine)
        scorer.score(table)
        started = time.perf_counter()
        scores = scorer.score(table)
        seconds = time.perf_counter() - started
        difference = float(np.abs(scores[:100] - exact).max())
        found.append({**scorer.engine, "rows_per_second": len(scores) / seconds, "max_difference": difference})
    return found


def _tests() -> str:
    """Return the last line of pytest where something failed, else nothing."""
    files = [f"tests/test_{name}.py" for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "--numprocesses", str(TEST_PROCESSES), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    if done.returncode == 0:
        return ""
    print(done.stdout[-TEST_OUTPUT:], done.stderr[-TEST_OUTPUT:], sep="\n", flush=True)
    return done.stdout.strip().splitlines()[-1]
