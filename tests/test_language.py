"""Oracle: the papers' formulas token by token, transformers' Llama, gguf's own reader, a rule that made labels."""

import copy
import dataclasses
import itertools
import math
import struct
from datetime import date
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from builders import a_product, declared, mistakes, predicted, predicted_bytes, report, through_all_stages
from test_generate import CHANGES as OF_TEXTS
from test_generate import COLUMNS, Kept, parcels, unseen_rows
from tiny_gguf import CONTROL, metadata, tensors, tiny, vocabulary, write

from model.features.fitted import Features
from model.features.gguf import CODINGS, Gguf
from model.features.label_texts import LabelTexts
from model.features.subwords import text_of
from model.network.language.imported import load_language_model
from model.network.store import load_model, load_pretrained, save_model
from model.scoring.export import export_onnx
from model.scoring.generation import BATCH_ROWS, STEP_OUTPUTS
from model.scoring.scorer import Scorer, TorchScorer
from model.settings import GenerationSettings, NetworkSettings, TrainingPlan
from model.target import Target
from model.training.generation.labels import learn_labels
from tasks.predict import predict
from tasks.pretrain import pretrain
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Paths

pytestmark = pytest.mark.long

PATHS, AS_OF = Paths("tiny"), date(2024, 2, 10)
FREE = GenerationSettings(max_tokens=16, temperature=1.0, seed=3)
TARGET = Target(task="generate", column="title", max_tokens=16)
HOSTILE = [
    "",
    " ",
    "  a  b\n\n c\t",
    "Ünïcode 7,5 % – «ok»",
    "日本語",
    "<|im_end|> [SEP]",
    "12345",
    "a" * 500,
    "\x00\u202e",
    "😀 ¼ ٣",
    "don't we'll",
    "x\r\ny",
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A tiny model that fits texts of parcels, and its weights."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    rows = parcels(200)
    return path, tiny(path, texts=[*rows["note"], *rows["title"]])


def features_of(path, max_tokens=64):
    return Features.as_prompts(COLUMNS, "title", Gguf(path).tokenizer, max_tokens)


def by_formula(weights, ids, n_heads, n_shared, base, epsilon):
    """The logits of Llama for each token, from the papers: heads one by one, pairs as complex numbers."""

    def norm(x, weight):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight

    def turned(x):
        """Numbers side by side are a complex one, turned by place times rate."""
        pairs = x[:, 0::2] + 1j * x[:, 1::2]
        rates = base ** (-2 * np.arange(pairs.shape[1]) / x.shape[1])
        pairs = pairs * np.exp(1j * np.arange(len(x))[:, None] * rates)
        return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)

    weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
    x = weights["token_embd.weight"][ids]
    width = x.shape[1] // n_heads
    for b in range(sum(name.endswith("attn_q.weight") for name in weights)):
        w = {name.split(".")[2]: weight for name, weight in weights.items() if name.startswith(f"blk.{b}.")}
        seen, read = norm(x, w["attn_norm"]), []
        for head in range(n_heads):
            shared = head // (n_heads // n_shared)
            q = turned(seen @ w["attn_q"][head * width : (head + 1) * width].T)
            k = turned(seen @ w["attn_k"][shared * width : (shared + 1) * width].T)
            v = seen @ w["attn_v"][shared * width : (shared + 1) * width].T
            scores = np.where(np.tri(len(x), dtype=bool), q @ k.T / math.sqrt(width), -np.inf)
            shares = np.exp(scores - scores.max(1, keepdims=True))
            read.append(shares / shares.sum(1, keepdims=True) @ v)
        x = x + np.concatenate(read, 1) @ w["attn_output"].T
        seen = norm(x, w["ffn_norm"])
        gate = seen @ w["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (seen @ w["ffn_up"].T)) @ w["ffn_down"].T
    return norm(x, weights["output_norm.weight"]) @ weights["token_embd.weight"].T


def logits(network, ids):
    """What the network says after each token of one row, read at once."""
    with torch.inference_mode():
        batch = torch.tensor([ids])
        vectors, _ = network.decoder(network, batch, None, torch.zeros_like(batch))
        return network.decoder._logits(network, vectors)[0].numpy()


def test_imported_weights_compute_what_the_papers_say(file):
    path, weights = file
    network = load_language_model(path, features_of(path).sizes).eval()
    ids = np.random.default_rng(0).integers(0, 300, 23).tolist()
    expected = by_formula(weights, ids, 4, 2, 10_000.0, 1e-5)
    assert np.abs(expected).max() > 1
    # Weights are kept in half precision.
    assert np.abs(logits(network, ids) - expected).max() < 0.02 * np.abs(expected).max()
    exact = {name: torch.from_numpy(weight) for name, weight in _in_our_order(path, network, weights).items()}
    network.give(exact)
    assert np.abs(logits(network, ids) - expected).max() < 1e-4


def _in_our_order(path, network, weights):
    """Weights that are rounded nowhere, by our names."""
    from model.network.language.imported import _name, _ordered

    return {name: _ordered(weights[_name(name)], name, network.language) for name in network.given()}


def test_transformers_llama_says_the_same(file):
    transformers = pytest.importorskip("transformers")
    path, _ = file
    network = load_language_model(path, features_of(path).sizes).eval()
    sizes = network.language
    reference = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=network.sizes.n_subwords,
            hidden_size=sizes.d_model,
            intermediate_size=sizes.d_feedforward,
            num_hidden_layers=sizes.n_layers,
            num_attention_heads=sizes.n_heads,
            num_key_value_heads=sizes.n_kv_heads,
            rms_norm_eps=sizes.norm_epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": sizes.rotary_base},
            tie_word_embeddings=True,
        )
    ).eval()
    names = {
        "table": "embed_tokens",
        "blocks.layer": "layers",
        "blocks.final_norm": "norm",
        "attention_norm": "input_layernorm",
        "feedforward_norm": "post_attention_layernorm",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "inner": "mlp.up_proj",
        "outer": "mlp.down_proj",
    }
    state = {}
    for name, weight in network.given().items():
        for one, other in names.items():
            name = name.replace(one, other)
        state[f"model.{name}"] = weight
    missing = reference.load_state_dict(state, strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["lm_head.weight"], [])
    reference.tie_weights()
    ids = np.random.default_rng(1).integers(0, 300, 40).tolist()
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(logits(network, ids) - expected).max() < 1e-4


@pytest.mark.parametrize("code", [2, 3, 6, 7, 8])
def test_blocks_of_few_bits_are_read_number_by_number(code):
    """As ggml-quants.c has it, `dequantize_row_q4_0` to `dequantize_row_q8_0`: a loop over numbers."""
    coding, random = CODINGS[code], np.random.default_rng(code)
    raw = random.integers(0, 256, (3, coding.block.itemsize), np.uint8)
    raw[:, :4] = np.array([0.5, -0.25], "<f2").view(np.uint8)
    blocks = np.frombuffer(raw.tobytes(), coding.block)
    found = coding.read(blocks)
    for block, numbers in zip(blocks, found, strict=True):
        for place in range(32):
            if coding.name == "Q8_0":
                expected = block["d"].item() * int(block["q"][place])
            else:
                half = int(block["q"][place % 16])
                number = half & 15 if place < 16 else half >> 4
                if "h" in coding.block.names:
                    number |= (int.from_bytes(block["h"].tobytes(), "little") >> place & 1) << 4
                if "m" in coding.block.names:
                    expected = block["d"].item() * number + block["m"].item()
                else:
                    expected = block["d"].item() * (number - {"Q4_0": 8, "Q5_0": 16}[coding.name])
            assert numbers[place] == pytest.approx(expected, rel=1e-6), (coding.name, place)


def test_other_readers_find_the_same_in_the_file(file):
    gguf = pytest.importorskip("gguf")
    path, _ = file
    read = Gguf(path)
    reference = gguf.GGUFReader(str(path))
    assert {each.name for each in reference.tensors} == set(read.places)
    for each in reference.tensors:
        expected = gguf.quants.dequantize(each.data, each.tensor_type)
        assert np.array_equal(read.tensor(each.name, read.places[each.name].shape), expected)
    assert reference.fields["tokenizer.ggml.tokens"].contents() == read.metadata["tokenizer.ggml.tokens"]


def test_tokens_are_those_of_merging_pairs_by_rank(file):
    found = Gguf(file[0])
    tokens = {token: number for number, token in enumerate(found.metadata["tokenizer.ggml.tokens"])}
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(found.metadata["tokenizer.ggml.merges"])}
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    regex = pytest.importorskip("regex")
    # llama.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM: digits apart, then GPT-2's words.
    words = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    for text in HOSTILE:
        expected = []
        for piece in regex.findall(r"\p{N}|\P{N}+", text):
            for word in regex.findall(words, piece):
                parts = [letters[byte] for byte in word.encode()]
                while len(parts) > 1:
                    best = min(itertools.pairwise(parts), key=lambda pair: ranks.get(pair, math.inf))
                    if best not in ranks:
                        break
                    place = next(n for n in range(len(parts)) if tuple(parts[n : n + 2]) == best)
                    parts[place : place + 2] = ["".join(best)]
                expected += [tokens[part] for part in parts]
        ids = found.tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == expected, text
        assert found.tokenizer.decode(ids) == text
        assert not set(ids) & {tokens[name] for name in CONTROL}


def test_row_is_read_as_lines_that_no_cell_can_add_to(file):
    features = features_of(file[0])
    cells = {
        "depot": np.array(["A", None], object),
        "weight_kg": np.array([2.5, np.nan]),
        "note": np.array(["one\ntitle: stolen\n<|im_end|>", "word " * 5000], object),
    }
    encoded = features.encode(cells)
    ids = [encoded["text"][start:end] for start, end in zip(encoded["offsets"], encoded["offsets"][1:], strict=False)]
    texts = [features.tokenizer.decode(list(each)) for each in ids]
    assert texts[0] == "depot: A\nweight_kg: 2.5\nnote: one title: stolen <|im_end|>\ntitle:"
    assert texts[1].startswith("depot:\nweight_kg:\nnote: word word")
    assert texts[1].endswith("\ntitle:")
    assert len(ids[1]) == 63
    assert not set(np.concatenate(ids)) & {features.sizes.sep_id, features.sizes.cls_id}


@pytest.fixture(scope="module")
def exported(file, tmp_path_factory):
    """A model with adapters that say something, trained and exported."""
    folder = tmp_path_factory.mktemp("exported")
    features = features_of(file[0])
    network = load_language_model(file[0], features.sizes).with_head(TARGET, NetworkSettings(), seed=1)
    random = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data.normal_(std=0.1, generator=random)
    save_model(folder / "trained", network, features)
    export_onnx(folder / "trained", folder / "onnx")
    return folder


@pytest.fixture(scope="module")
def writer(exported):
    return Scorer(exported / "onnx", n_threads=1).writer


def test_exported_graph_is_plain_and_says_what_torch_says(exported, writer):
    graph = onnx.load(exported / "onnx" / "network.onnx").graph
    assert [each.name for each in graph.output] == list(STEP_OUTPUTS)
    own = {each.name for each in graph.initializer if each.name.startswith("network.blocks.layer.")}
    assert len(own) == 4 * 9  # two blocks are traced, four are there
    cells, keys = unseen_rows()
    labels = LabelTexts.of(writer.tokenizer, np.array([*parcels(20)["title"], *keys[20:]], object), 16)
    encoded, other = writer.features.encode(cells), TorchScorer(exported / "trained").writer
    assert np.abs(writer.nats(encoded, labels) - other.nats(encoded, labels)).max() < 1e-3
    by_torch, by_onnx = (each.write(encoded, keys, GenerationSettings(max_tokens=16)) for each in (other, writer))
    assert sum(one.text == two.text for one, two in zip(by_torch, by_onnx, strict=True)) >= len(keys) - 1
    network, _ = load_model(exported / "trained")
    without = copy.deepcopy(network)
    without.merge()
    assert not list(without.parameters())
    ids = list(range(3, 30))
    assert np.abs(logits(network, ids) - logits(without, ids)).max() < 1e-4
    for weight in network.parameters():
        weight.data.zero_()
    assert np.abs(logits(network, ids) - logits(without, ids)).max() > 0.1


@pytest.mark.parametrize("settings", [FREE, GenerationSettings(max_tokens=16)], ids=["drawn", "likeliest"])
def test_text_depends_on_no_row_beside_it(writer, settings):
    cells, keys = unseen_rows()
    together = writer.write(writer.features.encode(cells), keys, settings)
    for size in (1, BATCH_ROWS + 1):
        apart = []
        for start in range(0, len(keys), size):
            piece = {name: column[start : start + size] for name, column in cells.items()}
            apart += writer.write(writer.features.encode(piece), keys[start : start + size], settings)
        assert apart == together  # to the last bit of a probability


def test_step_by_step_with_what_is_kept_is_the_whole_read_at_once(exported, writer):
    cells, keys = unseen_rows()
    encoded = writer.features.encode(cells)
    written = writer.write(encoded, keys, FREE)
    network, _ = load_model(exported / "trained")
    end = network.sizes.sep_id
    for row in (7, 3, 20):
        tokens = list(written[row].tokens)
        wanted = [*tokens, end][:16] if written[row].ended else tokens
        prompt = encoded["text"][encoded["offsets"][row] : encoded["offsets"][row + 1]]
        begin = writer.tokenizer.token_to_id("Ċ")
        ids = [network.sizes.cls_id, *prompt.tolist(), begin, *wanted]
        found = torch.from_numpy(logits(network, ids)).log_softmax(-1)
        shares = [float(found[len(prompt) + 1 + place, token]) for place, token in enumerate(wanted)]
        assert written[row].mean_log_probability == pytest.approx(np.mean(shares), abs=1e-4)


def test_control_tokens_are_never_written(writer):
    def eager(inputs):
        shares, past, source = writer.step(inputs)
        shares[:, :, [writer.tokenizer.token_to_id(name) for name in CONTROL[:2]]] = 5.0
        return shares, past, source

    cells, keys = unseen_rows(9)
    found = dataclasses.replace(writer, step=eager).write(writer.features.encode(cells), keys, FREE)
    assert not {token for each in found for token in each.tokens} & {0, 1}


def test_training_moves_adapters_alone_and_goes_on_where_it_was_killed(file, tmp_path):
    features = features_of(file[0])
    start = load_language_model(file[0], features.sizes)
    save_model(tmp_path, start, features)
    given = (tmp_path / "language.safetensors").read_bytes()
    network, _ = load_pretrained(tmp_path, TARGET, NetworkSettings(), seed=1)
    cells, _ = unseen_rows(30)
    labels = LabelTexts.of(features.tokenizer, parcels(30, seed=9)["title"].to_numpy(object), 16)
    rows, plan = (features.encode(cells), labels), TrainingPlan(epochs=2, batch_tokens=512, keep="last")

    def stop(entry):
        raise KeyboardInterrupt

    straight, history = learn_labels(copy.deepcopy(network), rows, rows, plan)
    kept = Kept()
    with pytest.raises(KeyboardInterrupt):
        learn_labels(copy.deepcopy(network), rows, rows, plan, checkpoints=kept, on_epoch=stop)
    assert sum(tensor.numel() for tensor in kept.state[0].values()) < 20 * sum(w.numel() for w in network.parameters())
    assert not any("weight" in name for name in kept.state[0])
    resumed, _ = learn_labels(copy.deepcopy(network), rows, rows, plan, checkpoints=kept)
    moved = 0
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
        moved += not torch.equal(weight, network.state_dict()[name])
    assert moved == len(network.state_dict())
    assert history[1]["val_loss"] < history[0]["val_loss"]
    save_model(tmp_path, straight, features)
    assert (tmp_path / "language.safetensors").read_bytes() == given


def changes(file):
    return {
        **OF_TEXTS,
        "model__init": f"dir:{file}",
        "model__network": {"max_tokens": 64},
        "model__train": {"epochs": 6, "batch_tokens": 1024, "learning_rate": 0.02, "keep": "last"},
    }


@pytest.fixture(scope="module")
def made(file, tmp_path_factory):
    """The folder of a product of texts by a language model that went through all stages, and evaluate's line."""
    folder = tmp_path_factory.mktemp("language")
    with through_all_stages(folder, parcels(), changes(file[0]), AS_OF) as line:
        yield folder, line


@pytest.mark.long
def test_product_goes_through_all_stages_and_its_night_comes_again(made, file, monkeypatch):
    monkeypatch.chdir(made[0])
    product = a_product(**changes(file[0]))
    measured = report("evaluation.json")["model"]
    assert measured["bits_per_byte"] < 6
    assert report("export.json")["max_difference"] < 1e-4
    found = predicted()
    tokenizer = Features.load(PATHS.onnx).tokenizer
    for row in found.itertuples():
        assert text_of(tokenizer, row.tokens) == row.prediction
    before = predicted_bytes()
    predict(product, AS_OF)
    assert predicted_bytes() == before
    whole = dataclasses.replace(product, predict=dataclasses.replace(product.predict, shards=1))
    predict(whole, AS_OF)
    assert predicted().equals(found)


def test_entry_says_what_a_language_model_cannot_have(file):
    init = {**changes(file[0]), "model__init": "dir:none.gguf"}
    a_product(**init)
    found = mistakes(declared(**{**init, "columns": {**COLUMNS, "photo": "image"}}))
    assert any("columns must be words, numbers or times for a language model, got photo" in line for line in found)
    found = mistakes(declared(model__init="dir:none.gguf"))
    assert any("model.init must not be a language model for a binary target" in line for line in found)


def broken(path, fault):
    """Write a file that is wrong in one way."""
    tokens, merges = vocabulary()
    found = metadata(tokens, merges)
    weights = tensors(found, len(tokens))
    changed = {
        "architecture": {"general.architecture": "qwen2"},
        "rope": {"llama.rope.scaling.type": "yarn"},
        "split": {"tokenizer.ggml.pre": "llama-bpe"},
        "sizes": {"llama.block_count": 5},
        "heads": {"llama.attention.head_count_kv": 3},
        "width": {"llama.feed_forward_length": 96},
        "context": {"llama.context_length": 32},
        "type": {"llama.block_count": "two"},
        "merges": {"tokenizer.ggml.merges": ["no such"]},
        "control": {"tokenizer.ggml.tokens": ["<end>" if token == "<|im_end|>" else token for token in tokens]},
    }
    found |= changed.get(fault, {})
    if fault == "nan":
        weights["output_norm.weight"][0] = np.nan
    if fault == "large":
        weights["output_norm.weight"][0] = 1e6
    if fault == "head":
        weights["output.weight"] = weights["token_embd.weight"]
    write(path, found, weights)
    raw = path.read_bytes()
    path.write_bytes(
        {
            "truncated": raw[: len(raw) - 100],
            "cut in its header": raw[:3000],
            "empty": b"",
            "other": b"PK\x03\x04" + raw[4:],
            "version": raw[:4] + struct.pack("<I", 2) + raw[8:],
            "claims": raw[:8] + struct.pack("<QQ", 2**60, 2**62) + raw[24:],
            "long": raw[:24] + struct.pack("<Q", 2**62) + raw[32:],
        }.get(fault, raw)
    )


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("truncated", r"be whole, and ends at byte .* fetch it again"),
        ("cut in its header", "be whole, and ends or makes no sense"),
        ("empty", "cannot be read"),
        ("other", "begin with GGUF, got b'PK"),
        ("version", "be of version 3 of the format, got 2"),
        ("claims", "be whole, and ends or makes no sense"),
        ("long", "be whole, and ends or makes no sense"),
        ("architecture", "be of the architecture llama, got qwen2; use SmolLM2"),
        ("rope", "by unscaled rates"),
        ("split", "split as one of smollm, gpt-2, got gpt2 and llama-bpe"),
        ("sizes", "hold the tensor blk.4.attn_norm.weight, and lacks it"),
        ("heads", "heads of queries must be a multiple of those of keys"),
        ("width", r"hold blk.0.ffn_gate.weight as \[96, 32\], got \[64, 32\]"),
        ("context", "max_tokens must be below the 32"),
        ("type", "give llama.block_count as int, got 'two'"),
        ("merges", "hold merges of its own tokens"),
        ("control", "have the tokens that begin and end a text"),
        ("nan", "hold finite numbers, and output_norm.weight has others"),
        ("large", "hold numbers up to 65,504"),
        ("head", "have the same table before and after the blocks"),
    ],
)
def test_file_that_does_not_fit_is_refused_with_place_and_remedy(made, tmp_path, monkeypatch, fault, rule):
    monkeypatch.chdir(made[0])
    path = tmp_path / "wrong.gguf"
    broken(path, fault)
    product = a_product(**changes(path))
    with pytest.raises(UserError, match=rf"(?s)^params.yaml: products.tiny.model.init: .*{rule}.*"):
        pretrain(product, AS_OF)
    assert not Path("data/models/tiny/pretrained.tmp").exists()


def test_absent_file_is_named(tmp_path, made, monkeypatch):
    monkeypatch.chdir(made[0])
    with pytest.raises(UserError, match=r"model.init: must name a file that exists, and '.*none.gguf' does not"):
        pretrain(a_product(**changes(tmp_path / "none.gguf")), AS_OF)
