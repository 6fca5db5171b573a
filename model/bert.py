"""Weights of the BERT family from a folder, in the same network that reads tables.

Reads `config.json`, `model.safetensors` and `tokenizer.json`; fetches nothing. Columns that are not text
and the head have no counterpart in BERT and start fresh.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from model.encoded import Sizes
from model.network import Network
from model.settings import NetworkSettings
from model.target import Target

FILES = ("config.json", "model.safetensors", "tokenizer.json")
RENAMED = (
    (r"^bert\.", ""),
    (r"attention\.self\.", "attention."),
    (r"attention\.output\.dense", "attention.output"),
    (r"attention\.output\.LayerNorm", "attention_norm"),
    (r"intermediate\.dense", "intermediate"),
    (r"(layer\.\d+)\.output\.dense", r"\1.output"),
    (r"(layer\.\d+)\.output\.LayerNorm", r"\1.output_norm"),
)
"""BERT's names that differ from ours, as patterns applied in order."""


def load_bert(
    folder: Path, sizes: Sizes, target: Target | None, settings: NetworkSettings, *, seed: int = 0
) -> Network:
    """A network whose text part computes what the BERT in `folder` computes.

    Of `settings` dropout and pooling count; sizes come from the folder. `sizes` are those of features
    that were fitted with the folder's `tokenizer.json`.
    Raises: ValueError naming the file, setting or weight that is missing or does not fit.
    """
    config = _config(folder)
    _check_sizes(folder, config, sizes)
    epsilon = float(config.get("layer_norm_eps", 1e-12))
    network = Network(bert_settings(folder, settings), sizes, target, seed=seed, norm_epsilon=epsilon)
    weights = _renamed(load_file(folder / "model.safetensors"))
    needed = {name: weight for name, weight in network.state_dict().items() if _is_bert(name)}
    absent = [name for name in needed if name not in weights]
    if absent:
        raise ValueError(
            f"{folder}/model.safetensors must hold BERT's weights, lacks {', '.join(absent)}; "
            "use an encoder of the BERT family"
        )
    taken = {name: weights[name][: len(weight)] for name, weight in needed.items()}
    network.load_state_dict(taken, strict=False)
    return network


def bert_settings(folder: Path, settings: NetworkSettings) -> NetworkSettings:
    """`settings` with the sizes of the BERT in `folder`."""
    config = _config(folder)
    return replace(
        settings,
        d_model=config["hidden_size"],
        n_layers=config["num_hidden_layers"],
        n_heads=config["num_attention_heads"],
        d_feedforward=config["intermediate_size"],
        norm_first=False,
    )


def _config(folder: Path) -> dict:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} must hold {', '.join(FILES)}, lacks {', '.join(missing)}; "
            "point to a folder with safetensors weights"
        )
    config = json.loads((folder / "config.json").read_text("utf-8"))
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    odd = [
        f"{key} must be {value!r}, got {config[key]!r}"
        for key, value in expected.items()
        if config.get(key, value) != value
    ]
    if odd:
        raise ValueError(f"{folder}/config.json: {'; '.join(odd)}; use an encoder of the BERT family")
    return config


def _check_sizes(folder: Path, config: dict, sizes: Sizes) -> None:
    if not sizes.n_texts:
        raise ValueError(f"columns must include text to start from {folder}, got none; use init: pretrain")
    if sizes.n_subwords > config["vocab_size"]:
        raise ValueError(
            f"the tokenizer must be that of {folder} ({config['vocab_size']} subwords), "
            f"got {sizes.n_subwords}; fit the features with its tokenizer.json"
        )
    if sizes.max_tokens >= config["max_position_embeddings"]:
        positions = config["max_position_embeddings"]
        raise ValueError(
            f"max_tokens must be below the {positions} positions of {folder}, "
            f"got {sizes.max_tokens}; use {positions - 1} or fewer"
        )


def _is_bert(name: str) -> bool:
    text_part = r"embeddings\.(word|position|token_type)_embeddings|embeddings\.LayerNorm|encoder\."
    return re.match(text_part, name) is not None


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, weight in weights.items():
        for pattern, ours in RENAMED:
            name = re.sub(pattern, ours, name)
        renamed[name] = weight.to(torch.float32)
    return renamed
