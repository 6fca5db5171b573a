"""Weights of the BERT family from a folder, in the same network that reads tables.

Reads `config.json`, `model.safetensors` and `tokenizer.json` of BERT, RoBERTa (XLM-R too) and DistilBERT, with or
without the prefix a task's model gives its encoder; fetches nothing. Columns that are not text and the head have no
counterpart in them and start fresh.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from model.features.encoded import Sizes
from model.network.network import Network
from model.network.safety import load_weights
from model.settings import NetworkSettings
from model.target import Target

FILES = ("config.json", "model.safetensors", "tokenizer.json")
EPSILON = 1e-12
"""Of the norms, where the configuration leaves it out: DistilBERT's never says it."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family of encoders spells what it shares with ours."""

    sizes: dict[str, str]
    """Our setting to the name in its config.json."""
    fixed: dict[str, object]
    """What config.json must say, where it says anything, for the network to be ours."""
    renamed: tuple[tuple[str, str], ...]
    """Its weights' names that differ from ours, as patterns applied in order."""
    positions_after_pad: bool = False
    """Whether position 0 is the one after the padding's id, as in RoBERTa."""


BERT = Family(
    sizes={
        "d_model": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "d_feedforward": "intermediate_size",
    },
    fixed={"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False},
    renamed=(
        (r"^(bert|roberta)\.", ""),
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
        (r"attention\.self\.", "attention."),
        (r"attention\.output\.dense", "attention.output"),
        (r"attention\.output\.LayerNorm", "attention_norm"),
        (r"intermediate\.dense", "intermediate"),
        (r"(layer\.\d+)\.output\.dense", r"\1.output"),
        (r"(layer\.\d+)\.output\.LayerNorm", r"\1.output_norm"),
    ),
)
ROBERTA = replace(BERT, positions_after_pad=True)
DISTILBERT = Family(
    sizes={"d_model": "dim", "n_layers": "n_layers", "n_heads": "n_heads", "d_feedforward": "hidden_dim"},
    fixed={"activation": "gelu"},
    renamed=(
        (r"^distilbert\.", ""),
        (r"^transformer\.", "encoder."),
        (r"attention\.q_lin", "attention.query"),
        (r"attention\.k_lin", "attention.key"),
        (r"attention\.v_lin", "attention.value"),
        (r"attention\.out_lin", "attention.output"),
        (r"sa_layer_norm", "attention_norm"),
        (r"ffn\.lin1", "intermediate"),
        (r"ffn\.lin2", "output"),
        (r"output_layer_norm", "output_norm"),
    ),
)
FAMILIES = {"bert": BERT, "roberta": ROBERTA, "xlm-roberta": ROBERTA, "distilbert": DISTILBERT}
"""By config.json's model_type."""


def load_bert(
    folder: Path, sizes: Sizes, target: Target | None, settings: NetworkSettings, *, seed: int = 0
) -> Network:
    """Return a network whose text part computes the same as the encoder in `folder`.

    Of `settings` dropout and pooling count; sizes come from the folder. `sizes` are those of features
    that were fitted with the folder's `tokenizer.json`.
    Raises: ValueError naming the file, setting or weight that is missing or does not fit.
    """
    config = _config(folder)
    family = FAMILIES[config["model_type"]]
    first_position = config.get("pad_token_id", 1) + 1 if family.positions_after_pad else 0
    _check_sizes(folder, config, sizes, first_position)
    epsilon = float(config.get("layer_norm_eps", EPSILON))
    network = Network(bert_settings(folder, settings), sizes, target, seed=seed, norm_epsilon=epsilon)
    weights = _renamed(load_weights(folder / "model.safetensors"), family)
    needed = {name: weight for name, weight in network.state_dict().items() if _is_bert(name)}
    _fit_embeddings(weights, needed, first_position)
    _check_weights(folder, weights, needed)
    network.load_state_dict({name: weights[name] for name in needed}, strict=False)
    return network


def bert_settings(folder: Path, settings: NetworkSettings) -> NetworkSettings:
    """Return `settings` with the sizes of the encoder in `folder`."""
    config = _config(folder)
    sizes = {name: config[key] for name, key in FAMILIES[config["model_type"]].sizes.items()}
    return replace(settings, **sizes, norm_first=False)


def _config(folder: Path) -> dict:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} must hold {', '.join(FILES)}, lacks {', '.join(missing)}; "
            "point to a folder with safetensors weights"
        )
    config = {"model_type": "bert"} | json.loads((folder / "config.json").read_text("utf-8"))
    family = FAMILIES.get(config["model_type"])
    if family is None:
        odd = [f"model_type must be one of {', '.join(FAMILIES)}, got {config['model_type']!r}"]
    else:
        odd = [
            f"{key} must be {value!r}, got {config[key]!r}"
            for key, value in family.fixed.items()
            if config.get(key, value) != value
        ] + [f"{key} must be given, and is not" for key in family.sizes.values() if key not in config]
    if odd:
        raise ValueError(f"{folder}/config.json: {'; '.join(odd)}; use an encoder of the BERT family")
    return config


def _check_sizes(folder: Path, config: dict, sizes: Sizes, first_position: int) -> None:
    if not sizes.n_texts:
        raise ValueError(f"columns must include text to start from {folder}, got none; use init: pretrain")
    if sizes.n_subwords > config["vocab_size"]:
        raise ValueError(
            f"the tokenizer must be that of {folder} ({config['vocab_size']} subwords), "
            f"got {sizes.n_subwords}; fit the features with its tokenizer.json"
        )
    positions = config["max_position_embeddings"] - first_position
    if sizes.max_tokens >= positions:
        raise ValueError(
            f"max_tokens must be below the {positions} positions of {folder}, "
            f"got {sizes.max_tokens}; use {positions - 1} or fewer"
        )


def _is_bert(name: str) -> bool:
    text_part = r"embeddings\.(word|position|token_type)_embeddings|embeddings\.LayerNorm|encoder\."
    return re.match(text_part, name) is not None


def _renamed(weights: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    renamed = {}
    for name, weight in weights.items():
        for pattern, replacement in family.renamed:
            name = re.sub(pattern, replacement, name)
        renamed[name] = weight.to(torch.float32)
    return renamed


def _fit_embeddings(weights: dict[str, Tensor], needed: dict[str, Tensor], first_position: int) -> None:
    """Bring the tables to our number of rows: no more words and positions than are read, two types of token.

    Where the family knows no types, ours add nothing; where it knows one, all our tokens are of that one.
    """
    types, words, positions = (f"embeddings.{part}_embeddings.weight" for part in ("token_type", "word", "position"))
    weights.setdefault(types, torch.zeros_like(needed[types]))
    weights[types] = weights[types].expand(max(len(weights[types]), len(needed[types])), -1)
    for table, first in ((types, 0), (words, 0), (positions, first_position)):
        if table in weights:
            weights[table] = weights[table][first : first + len(needed[table])]


def _check_weights(folder: Path, weights: dict[str, Tensor], needed: dict[str, Tensor]) -> None:
    absent = [name for name in needed if name not in weights]
    if absent:
        raise ValueError(
            f"{folder}/model.safetensors must hold BERT's weights, lacks {', '.join(absent)}; "
            "use an encoder of the BERT family"
        )
    odd = [
        f"{name} {list(weights[name].shape)} for {list(weight.shape)}"
        for name, weight in needed.items()
        if weights[name].shape != weight.shape
    ]
    if odd:
        raise ValueError(
            f"{folder}/model.safetensors must have the sizes of its config.json, got {', '.join(odd)}; "
            "use the configuration the weights were saved with"
        )
