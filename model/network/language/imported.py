"""A language model of the Llama family from a GGUF file, in the room where networks of tables stand.

Fetches nothing.
"""

from pathlib import Path

import numpy as np
import torch

from model.features.encoded import Sizes
from model.features.gguf import Gguf
from model.network.language.model import GIVEN_TYPE, LanguageModel
from model.settings import LanguageSettings

ARCHITECTURE = "llama"
TABLE, FINAL_NORM, HEAD = "token_embd.weight", "output_norm.weight", "output.weight"
BLOCK_NAMES = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "feedforward_norm": "ffn_norm",
    "gate": "ffn_gate",
    "inner": "ffn_up",
    "outer": "ffn_down",
}
"""Our names of a block's parts to those in the file."""
NO_SCALING = "none"


def load_language_model(path: Path, sizes: Sizes) -> LanguageModel:
    """Return the network in a GGUF file. `sizes` are those of features that were fitted with its tokenizer.

    Raises: ValueError naming the file, value or tensor that is missing or does not fit.
    """
    file = Gguf(path)
    settings, n_tokens = language_settings(file), len(file.value("tokenizer.ggml.tokens", list))
    longest = file.value(f"{ARCHITECTURE}.context_length", int)
    if sizes.max_tokens >= longest:
        raise ValueError(
            f"max_tokens must be below the {longest} that {path} knows, got {sizes.max_tokens}; use {longest // 2}"
        )
    if sizes.n_subwords != n_tokens:
        raise ValueError(
            f"the tokenizer must be that of {path} ({n_tokens} tokens), got {sizes.n_subwords}; fit the features anew"
        )
    if HEAD in file.places:
        raise ValueError(f"{path} must have the same table before and after the blocks, and has {HEAD} besides")
    network = LanguageModel(settings, sizes)
    for name, weight in network.given().items():
        tensor = _ordered(file.tensor(_name(name), tuple(weight.shape)), name, settings)
        weight.copy_(torch.from_numpy(tensor).to(GIVEN_TYPE))
        if not weight.isfinite().all():
            raise ValueError(f"{path} must hold numbers up to 65,504, and {_name(name)} has larger ones; use another")
    return network


def language_settings(file: Gguf) -> LanguageSettings:
    """Return the sizes that a file names.

    Raises: ValueError for another architecture, or one that our blocks do not compute.
    """
    architecture = file.value("general.architecture", str)
    if architecture != ARCHITECTURE:
        raise ValueError(f"{file.path} must be of the architecture {ARCHITECTURE}, got {architecture}; use SmolLM2")

    def number(name: str, default: int | None = None) -> int:
        return file.value(f"{ARCHITECTURE}.{name}", int, default)

    n_heads, d_model = number("attention.head_count"), number("embedding_length")
    d_head = number("attention.key_length", d_model // max(1, n_heads))
    turned, scaling = number("rope.dimension_count", d_head), file.metadata.get(f"{ARCHITECTURE}.rope.scaling.type")
    if turned != d_head or scaling not in (None, NO_SCALING) or number("expert_count", 0):
        raise ValueError(
            f"{file.path} must turn all {d_head} numbers of a head, by unscaled rates, and have no experts, got "
            f"{turned}, {scaling} and {number('expert_count', 0)}; use a plain model such as SmolLM2"
        )
    return LanguageSettings(
        d_model=d_model,
        n_layers=number("block_count"),
        n_heads=n_heads,
        n_kv_heads=number("attention.head_count_kv", n_heads),
        d_head=d_head,
        d_feedforward=number("feed_forward_length"),
        rotary_base=file.value(f"{ARCHITECTURE}.rope.freq_base", float, 10_000.0),
        norm_epsilon=file.value(f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon", float),
    )


def _name(own: str) -> str:
    """Return a tensor's name in the file.

    >>> _name("blocks.layer.3.attention.query.weight")
    'blk.3.attn_q.weight'
    """
    if not own.startswith("blocks.layer."):
        return {"table.weight": TABLE, "blocks.final_norm.weight": FINAL_NORM}[own]
    number, _, part = own.removeprefix("blocks.layer.").partition(".")
    return f"blk.{number}.{BLOCK_NAMES[part.removesuffix('.weight')]}.weight"


def _ordered(tensor: np.ndarray, name: str, settings: LanguageSettings) -> np.ndarray:
    """Return queries and keys with numbers that turn together half a head apart; the file has them side by side.

    Shapes: unchanged.
    """
    if not name.endswith(("query.weight", "key.weight")):
        return np.array(tensor)
    pairs = tensor.reshape(-1, settings.d_head // 2, 2, tensor.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(tensor.shape)
