"""Write a tiny language model as GGUF, by what ggml's documents say of the format."""

import struct
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SIZES = {"embedding_length": 32, "block_count": 4, "attention.head_count": 4, "attention.head_count_kv": 2}
CODES = {bool: 7, int: 4, float: 6, str: 8}
F32, Q8_0 = 0, 8
WORDS = ["tea of York to Bath, red wine, books and a lamp: sent by Ann with care 10 9 8", "depot weight note title kg"]


def vocabulary(texts=WORDS, n_tokens=320):
    """Tokens and merges of a byte-level tokenizer that is trained on a few words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=n_tokens, special_tokens=CONTROL, initial_alphabet=alphabet)
    )
    import json

    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [" ".join(merge) for merge in model["merges"]]


def metadata(tokens, merges, **changes):
    """What the file says of itself; a change to None leaves a value out."""
    found = {
        "general.architecture": "llama",
        **{f"llama.{name}": value for name, value in SIZES.items()},
        "llama.feed_forward_length": 64,
        "llama.context_length": 512,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)),
        "tokenizer.ggml.merges": merges,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return {name: value for name, value in found.items() if value is not None}


def shapes(found, n_tokens):
    """The shape of each tensor, the last dimension that of numbers side by side."""
    d, wide = found["llama.embedding_length"], found["llama.feed_forward_length"]
    heads, shared = found["llama.attention.head_count"], found["llama.attention.head_count_kv"]
    keys = d // heads * shared
    block = {
        "attn_norm": (d,),
        "attn_q": (d, d),
        "attn_k": (keys, d),
        "attn_v": (keys, d),
        "attn_output": (d, d),
        "ffn_norm": (d,),
        "ffn_gate": (wide, d),
        "ffn_up": (wide, d),
        "ffn_down": (d, wide),
    }
    return {
        "token_embd.weight": (n_tokens, d),
        "output_norm.weight": (d,),
        **{f"blk.{b}.{name}.weight": shape for b in range(found["llama.block_count"]) for name, shape in block.items()},
    }


def tensors(found, n_tokens, seed=0):
    """Weights that are drawn, norms around 1."""
    random = np.random.default_rng(seed)
    return {
        name: (random.normal(size=shape) * 0.3 + (len(shape) == 1)).astype(np.float32)
        for name, shape in shapes(found, n_tokens).items()
    }


def _text(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value):
    if isinstance(value, list):
        inner = b"".join(_text(each) if isinstance(each, str) else struct.pack("<i", each) for each in value)
        return struct.pack("<IIQ", 9, 8 if value and isinstance(value[0], str) else 5, len(value)) + inner
    code = CODES[type(value)]
    return struct.pack("<I", code) + (
        _text(value) if code == 8 else struct.pack({7: "<?", 4: "<I", 6: "<f"}[code], value)
    )


def as_q8(array):
    """The array in blocks of 32 bytes with a scale each, and what they stand for."""
    parts = array.reshape(-1, 32)
    scale = (np.abs(parts).max(1) / 127).astype(np.float16)
    whole = np.round(parts / scale[:, None].astype(np.float32)).astype(np.int8)
    raw = b"".join(one.tobytes() + row.tobytes() for one, row in zip(scale, whole, strict=True))
    return raw, (whole * scale[:, None].astype(np.float32)).reshape(array.shape)


def write(path: Path, found, weights) -> dict[str, np.ndarray]:
    """Write the file, matrices in 8 bits; return the weights as it holds them."""
    described, data, held = b"", b"", {}
    for name, array in weights.items():
        code = Q8_0 if array.ndim > 1 else F32
        raw, held[name] = as_q8(array) if code == Q8_0 else (array.tobytes(), array)
        described += _text(name) + struct.pack("<I", array.ndim)
        described += struct.pack(f"<{array.ndim}Q", *array.shape[::-1]) + struct.pack("<IQ", code, len(data))
        data += raw + bytes(-len(raw) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(found))
    head += b"".join(_text(name) + _value(value) for name, value in found.items()) + described
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return held


def tiny(path: Path, seed=0, texts=WORDS, **changes) -> dict[str, np.ndarray]:
    """Write a whole tiny model; return its weights."""
    tokens, merges = vocabulary(texts)
    found = metadata(tokens, merges, **changes)
    return write(path, found, tensors(found, len(tokens), seed))
