"""What else scores the same network and rows: run by benchmarks/scoring.py under the peers' Python.

Every engine reads paragraphs from Parquet, tokenises, scores and writes Parquet; loading and warming up do not count.
The last line printed is {engine: {"seconds", "predictions"}}. Usage: peer_scoring.py FOLDER ENGINE...
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertForSequenceClassification, pipeline

MAX_TOKENS = 129
"""[CLS] and the 128 that our network reads."""
FOLDER = Path(sys.argv[1])


def network() -> BertForSequenceClassification:
    model = BertForSequenceClassification.from_pretrained(FOLDER / "bert", num_labels=5).eval()
    head = load_file(FOLDER / "head.safetensors")
    _missing, unexpected = model.load_state_dict(head, strict=False)
    assert not unexpected
    return model


def of_pipeline(dtype: torch.dtype) -> Callable[[list[str]], np.ndarray]:
    model = network().to(dtype)
    return _answers(pipeline("text-classification", model=model, tokenizer=tokenizer(), device="cpu"))


def of_optimum(int8: bool) -> Callable[[list[str]], np.ndarray]:
    from optimum.onnxruntime import ORTModelForSequenceClassification

    folder = FOLDER / "optimum"
    name = "model_quantized.onnx" if int8 else "model.onnx"
    if not (folder / name).exists():
        _export(folder)
    model = ORTModelForSequenceClassification.from_pretrained(folder, file_name=name)
    return _answers(pipeline("text-classification", model=model, tokenizer=tokenizer()))


def _export(folder: Path) -> None:
    from optimum.exporters.onnx import onnx_export_from_model
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    onnx_export_from_model(network(), folder, task="text-classification")
    quantizer = ORTQuantizer.from_pretrained(folder, file_name="model.onnx")
    quantizer.quantize(AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True), folder)


def _answers(classify: Callable) -> Callable[[list[str]], np.ndarray]:
    def run(texts: list[str]) -> np.ndarray:
        answers = classify(texts, batch_size=32, truncation=True, max_length=MAX_TOKENS, top_k=1)
        return np.array([int(answer[0]["label"].rpartition("_")[2]) for answer in answers])

    return run


def sorted_by_length(run: Callable[[dict[str, np.ndarray]], np.ndarray], batch_tokens: int) -> Callable:
    """Length-sorted batches under a budget of tokens, for engines that take arrays."""
    encode = tokenizer()

    def score(texts: list[str]) -> np.ndarray:
        ids = encode(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        lengths = np.array([len(row) for row in ids])
        order, answers, start = np.argsort(-lengths, kind="stable"), np.empty(len(ids), int), 0
        while start < len(order):
            rows = order[start : start + max(1, batch_tokens // lengths[order[start]])]
            padded = np.zeros((len(rows), lengths[rows[0]]), np.int64)
            for line, row in zip(padded, rows, strict=True):
                line[: lengths[row]] = ids[row]
            real = (np.arange(padded.shape[1]) < lengths[rows][:, None]).astype(np.int64)
            inputs = {"input_ids": padded, "attention_mask": real, "token_type_ids": np.zeros_like(padded)}
            answers[rows] = run(inputs).argmax(1)
            start += len(rows)
        return answers

    return score


def of_onnxruntime(int8: bool) -> Callable:
    import onnxruntime

    of_optimum(int8)
    name = "model_quantized.onnx" if int8 else "model.onnx"
    session = onnxruntime.InferenceSession(FOLDER / "optimum" / name, providers=["CPUExecutionProvider"])
    return sorted_by_length(lambda batch: session.run(["logits"], batch)[0], 1024)


def of_torch() -> Callable:
    model = network()

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return model(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits.float().numpy()

    return sorted_by_length(run, 4096)


def of_openvino() -> Callable:
    import openvino

    of_optimum(False)
    request = (
        openvino.Core()
        .compile_model(FOLDER / "optimum" / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
        .create_infer_request()
    )
    return sorted_by_length(lambda batch: request.infer(batch)["logits"], 1024)


def tokenizer() -> AutoTokenizer:
    return AutoTokenizer.from_pretrained(FOLDER / "bert")


ENGINES: dict[str, Callable[[], Callable[[list[str]], np.ndarray]]] = {
    "transformers pipeline, fp32, batch 32": lambda: of_pipeline(torch.float32),
    "transformers pipeline, bf16, batch 32": lambda: of_pipeline(torch.bfloat16),
    "optimum ONNX Runtime pipeline, fp32, batch 32": lambda: of_optimum(False),
    "optimum ONNX Runtime pipeline, int8 (dynamic), batch 32": lambda: of_optimum(True),
    "ONNX Runtime, fp32, length-sorted": lambda: of_onnxruntime(False),
    "ONNX Runtime, int8 (dynamic), length-sorted": lambda: of_onnxruntime(True),
    "torch, bf16 autocast, length-sorted": of_torch,
    "OpenVINO, bf16, length-sorted": of_openvino,
}


def main() -> None:
    found = {}
    for name in sys.argv[2:]:
        run = ENGINES[name]()
        texts = pd.read_parquet(FOLDER / "paragraphs.parquet")["text"].tolist()
        run(texts[:64])
        started = time.perf_counter()
        table = pd.read_parquet(FOLDER / "paragraphs.parquet")
        answers = run(table["text"].tolist())
        table.assign(prediction=answers).to_parquet(FOLDER / "peer.parquet")
        found[name] = {"seconds": time.perf_counter() - started, "predictions": answers.tolist()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
