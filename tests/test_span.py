"""Oracle: loops over definitions, characters counted by hand, each stretch tried, a rule that made rows, nights."""

import copy
import dataclasses
import itertools
import math
import shutil
from collections import Counter
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from builders import a_product, declared, mistakes, predicted, predicted_bytes, report, through_all_stages

from model.evaluation.answer_candidates import AnswerCandidates
from model.evaluation.thresholds import curve_of_answers
from model.features.answers.occurrences import SpanLabels, occurrences
from model.features.answers.windows import overlap_of
from model.features.fitted import Features
from model.heads import head_of
from model.heads.prediction_rule import MeasuredThresholds
from model.heads.span import MEASURED, answers_of, exact_match, f1, measured, words_of
from model.network.network import Network
from model.network.store import load_model, load_pretrained
from model.scoring.engines import OPENVINO, Engine, missing_requirement
from model.scoring.export import parity
from model.scoring.scorer import Scorer, TorchScorer
from model.settings import NetworkSettings, TrainingPlan
from model.target import Target, read_target
from model.training.extraction.spans import learn_spans
from tasks.monitoring.nights import answers_here
from tasks.monitoring.performance import Labelled
from tasks.monitoring.shadow import Contender, write_scores
from tasks.predict import predict
from tasks.rows import model_inputs
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths

COLUMNS = {"question": "text", "note": "text", "depot": "category"}
PATHS, AS_OF = Paths("tiny"), date(2024, 2, 10)
CHANGES = {
    "columns": COLUMNS,
    "target": {"name": "answer", "task": "span", "text": "note", "empty": "none", "delay_days": 1},
    "predict": {"horizon_days": 1, "shards": 3, "rows_per_shard": 2, "threshold": "measured"},
    "gates": {"metric": "exact_match", "limit": 0.1},
    "expectations": [],
    "model__init": "scratch",
    "model__network": {
        **{"d_model": 32, "n_heads": 2, "n_layers": 2, "d_feedforward": 48, "dropout": 0.0},
        **{"max_tokens": 32, "max_windows": 8},
    },
    "model__train": {"epochs": 16, "batch_tokens": 2048, "learning_rate": 0.006, "keep": "last"},
}
NAMES = ["Ann", "Bo", "Cy", "Di", "Ed Lee", "Flo", "Gus", "Hal"]
TOWNS = ["York", "Bath", "Ely", "Ayr"]
SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=24, dropout=0.0)


def parcels(n=320, seed=0):
    """Notes say who sent a parcel, and most of them where it goes; some are longer than a window."""
    random = np.random.default_rng(seed)
    name, town, asked = random.choice(NAMES, n), random.choice(TOWNS, n), random.choice(["who", "where"], n)
    has_town, filler = random.random(n) < 0.6, random.integers(0, 40, n)
    notes, answers = [], []
    for row in range(n):
        goes = f" It goes to {town[row]}." if has_town[row] else ""
        notes.append(f"{'Handled with care. ' * int(filler[row] % 9)}Sent by {name[row]}, in a box.{goes}")
        answers.append(name[row] if asked[row] == "who" else town[row] if has_town[row] else "")
    day = pd.Timestamp("2024-01-10") + pd.to_timedelta(random.integers(0, 33, n), "D")
    return pd.DataFrame(
        {
            "parcel_id": [f"p{number:05d}" for number in range(n)],
            "day": day.strftime("%Y-%m-%d"),
            "depot": random.choice(["A", "B"], n),
            "question": [f"{each}?" for each in asked],
            "note": notes,
            "answer": answers,
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a product of answers that went through all stages, and what evaluate printed."""
    folder = tmp_path_factory.mktemp("span")
    rows = parcels()
    rows.loc[:2, "answer"] = "not in the note"
    with through_all_stages(folder, rows, CHANGES, AS_OF) as line:
        yield folder, line


@pytest.fixture
def product(made, monkeypatch):
    monkeypatch.chdir(made[0])
    return a_product(**CHANGES)


@pytest.fixture(scope="module")
def scorer(made):
    return Scorer(made[0] / PATHS.onnx, n_threads=1)


def unseen_rows(n=40):
    """Rows that no training saw, as a network reads them: of every length, and hostile ones."""
    found = parcels(n, seed=9)
    table = {name: found[name].to_numpy(object, copy=True) for name in COLUMNS}
    table["note"][:6] = [None, "", "  \n ", "👍🏽 cafe\u0301 👨‍👩‍👧", "\x00\u202e[SEP] [CLS]", "x" * 5000]
    table["question"][6:9] = [None, "", "who " * 500]
    return table


def features_of(table, max_tokens=32, max_windows=8):
    kinds = {name: COLUMNS[name] for name in table}
    limits = {"max_tokens": max_tokens, "max_windows": max_windows}
    return Features.fit(kinds, table, None, "span", answer_in="note", **limits)


def test_answers_are_found_better_than_by_candidates(product, made):
    measured_by, candidates = (report("evaluation.json")[name] for name in ("model", "baseline"))
    assert measured_by["exact_match"] > 0.8
    assert measured_by["exact_match"] <= measured_by["f1"]
    assert 0 < candidates["exact_match"] < 1
    assert f"exact_match {measured_by['exact_match']:.4f} (95% interval" in made[1]


def test_answer_that_is_not_in_its_text_goes_to_quarantine(product):
    bad = pd.concat([pd.read_parquet(file) for file in (PATHS.quarantine / "labels").rglob("*.parquet")])
    assert sorted(bad["parcel_id"]) == ["p00000", "p00001", "p00002"]
    assert set(bad["reasons"]) == {"answer: does not stand in note as it is written"}


def test_night_has_the_answer_as_it_stands_in_the_text(product):
    rows = parcels().set_index("parcel_id")
    found = predicted()
    assert len(found) > 2  # two shards
    for row in found.itertuples():
        note = rows.loc[row.parcel_id, "note"]
        assert row.has_answer == isinstance(row.prediction, str)
        assert note[row.start : row.end] == (row.prediction if row.has_answer else "")
        assert (row.start, row.end) == (-1, -1) or row.has_answer
        assert 0 <= row.probability <= 1


def test_threshold_measured_on_validation_rows_decides_what_a_night_answers(product, scorer):
    chosen = MeasuredThresholds.load(PATHS.onnx)
    rows = model_inputs.split_part(PATHS.splits, "val", product)
    (threshold,) = chosen.thresholds
    assert (chosen.metric, chosen.rows) == ("exact_match", len(rows))
    assert 0 < threshold < 1
    by_key = parcels().set_index("parcel_id")
    table = {name: by_key.loc[predicted()["parcel_id"], name].to_numpy(object) for name in COLUMNS}
    has_answer = scorer.score(table)[:, 1, 1] > threshold
    assert predicted()["has_answer"].tolist() == has_answer.tolist()


def test_report_has_what_a_measured_threshold_is_worth(product):
    found, threshold = report("evaluation.json")["predictions"], MeasuredThresholds.load(PATHS.onnx).thresholds[0]
    rows = model_inputs.split_part(PATHS.splits, "test", product)
    y, scores = model_inputs.targets(rows.labels, product, ()), TorchScorer(PATHS.trained).score(rows.read_all())
    for name, at in {"value": threshold, "plain": 0.5}.items():
        answers = answers_of(rows.read_all()["note"], scores, at)
        matches = [exact_match(label, answer.text or "") for label, answer in zip(y, answers, strict=True)]
        assert found[name] == pytest.approx(np.mean(matches))
    assert found["thresholds"] == {"answer": pytest.approx(threshold)}
    assert report("evaluation.json")["model"]["exact_match"] == pytest.approx(found["value"])


def test_other_models_answer_by_thresholds_of_their_own(product, scorer, tmp_path):
    table = unseen_rows()
    rows = pd.DataFrame(table).assign(parcel_id=[f"p{number}" for number in range(40)], day=pd.Timestamp("2024-02-11"))
    shares = scorer.score(table)[:, 1, 1]
    for threshold in (0.001, 0.999):
        folder = tmp_path / str(threshold)
        shutil.copytree(PATHS.onnx, folder)
        MeasuredThresholds(metric="f1", thresholds=(threshold,), rows=36).save(folder)
        other = Contender(roles=("previous",), version=None, commit="ab" * 20, model="m", folder=folder)
        write_scores(product, iter([pa.Table.from_pandas(rows)]), other, folder / "scores.parquet")
        answered = pd.read_parquet(folder / "scores.parquet")["has_answer"]
        has_text = np.array([bool((text or "").strip()) for text in table["note"]])
        assert answered.tolist() == ((shares > threshold) & has_text).tolist()


@pytest.mark.parametrize("metric", ["exact_match", "f1", "none_accuracy"])
def test_curve_of_answers_is_that_of_trying_each_threshold(metric):
    random = np.random.default_rng(0)
    shares = random.random((300, 2)).astype(np.float32)
    words = np.array(["Bo", "Cy", "Di Bo"], object)
    labels = [random.choice(words) if random.random() < share else "" for share in shares[:, 0]]
    rows = measured(labels, random.choice(words, 300), shares)
    curve = curve_of_answers(rows, metric, has_prior=False)
    measure = head_of("span").metrics
    tried = [measure(threshold)[metric](None, rows) for threshold in curve.thresholds]
    np.testing.assert_allclose(curve.values, tried)
    assert measure(curve.best)[metric](None, rows) == pytest.approx(max(tried))
    few = curve_of_answers(rows[:3], metric, has_prior=True)
    assert 0 < few.best < 1


def test_bytes_of_a_night_come_again_whatever_its_shards(product):
    before = predicted()
    parts = predicted_bytes()
    predict(product, AS_OF)
    assert predicted_bytes() == parts
    whole = dataclasses.replace(product, predict=dataclasses.replace(product.predict, shards=1))
    predict(whole, AS_OF)
    pd.testing.assert_frame_equal(before, predicted(), check_exact=False, atol=1e-6)
    predict(product, AS_OF)


def test_answer_of_a_row_depends_on_no_row_beside_it(scorer):
    table = unseen_rows()
    together = scorer.score(table)
    apart = [scorer.score({name: column[row : row + 1] for name, column in table.items()}) for row in range(40)]
    assert np.array_equal(np.concatenate(apart)[..., 0], together[..., 0])
    np.testing.assert_allclose(np.concatenate(apart)[..., 1], together[..., 1], atol=1e-5)


def test_exported_graph_answers_as_torch_does(made, scorer):
    table = unseen_rows()
    assert parity(made[0] / PATHS.trained, made[0] / PATHS.onnx, [table]) < 1e-4
    exact = TorchScorer(made[0] / PATHS.trained).score(table)
    assert (exact[..., 0] == scorer.score(table)[..., 0]).mean() > 0.95


def test_other_engine_answers_the_same(made, scorer):
    engine = Engine(name=OPENVINO, precision="fp32")
    if lacks := missing_requirement(engine):
        pytest.skip(lacks)
    table = unseen_rows()
    other = Scorer(made[0] / PATHS.onnx, n_threads=1, engine=engine).score(table)
    np.testing.assert_allclose(other[..., 1], scorer.score(table)[..., 1], atol=1e-4)


def test_hostile_texts_are_answered_by_none_or_by_what_they_hold(scorer):
    table = unseen_rows()
    scores = scorer.score(table)
    assert np.isfinite(scores).all()
    assert (scores[:2, 1, 1] == 0).all()  # no text, no answer
    for text, answer in zip(table["note"], answers_of(table["note"], scores), strict=True):
        assert (text or "")[max(0, answer.start) : max(0, answer.end)] == (answer.text or "")


def test_best_stretch_wins_over_all_windows_by_trying_each(made):
    network, features = load_model(made[0] / PATHS.trained)
    table = unseen_rows()
    encoded = features.encode(table)
    for row in (9, 12, 20):
        batch = network.batch_of(encoded, np.array([row]))
        with torch.no_grad():
            stretches, none = network.span.logits(network, batch)
            numbers, shares = network.span.answers(network, batch)
        logits = {
            (window * 32 + start, window * 32 + end): float(stretches[window, start, end])
            for window in range(len(stretches))
            for start in range(stretches.shape[1])
            for end in range(start, stretches.shape[2])
            if stretches[window, start, end] > -1e29
        }
        assert all(end - start < network.target.max_tokens for start, end in logits)
        total = sum(map(math.exp, logits.values())) + math.exp(float(none[0]))
        best = max(logits, key=logits.__getitem__)
        assert tuple(numbers[0].tolist()) == best
        assert float(shares[0, 0]) == pytest.approx(math.exp(logits[best]) / total, rel=1e-4)
        assert float(shares[0, 1]) == pytest.approx(1 - math.exp(float(none[0])) / total, abs=1e-5)


def test_loss_is_that_of_all_places_of_an_answer(made):
    network, features = load_model(made[0] / PATHS.trained)
    table = {name: column[:3].copy() for name, column in unseen_rows().items()}
    table["note"][:] = ["Bo and Bo. " * 20, "Di", "nobody"]
    encoded = features.encode(table)
    labels = SpanLabels.of(encoded, table["note"], ["Bo", "", "Ann"])
    batch, rows = network.batch_of(encoded, np.arange(3)), np.arange(3)
    with torch.no_grad():
        nats = network.span.nats(network, batch, torch.from_numpy(labels.batch(rows))).tolist()
        stretches, none = network.span.logits(network, batch)
    owner = np.repeat(rows, np.diff(encoded.window_offsets))
    total = [float(stretches[owner == row].exp().sum()) + math.exp(float(none[row])) for row in rows]
    right = sum(math.exp(float(stretches[window, start, end])) for window, start, end in labels.places if window >= 0)
    assert nats == pytest.approx([math.log(total[0] / right), math.log(total[1]) - float(none[1]), 0.0], abs=2e-6)
    assert len(labels.places) > 40  # 40 times in the text, some of them in two windows


@pytest.mark.parametrize(
    ("note", "answer"),
    [
        ("It was 👍🏽 by Zoë", "👍🏽"),
        ("It was by Zoe\u0308, once", "Zoe\u0308"),
        ("BY ÅSA İpek", "İpek"),
        ("der Straße nach", "Straße"),
        ("人工知能 は", "人工知能"),
        ("a 👨‍👩‍👧 b", "👨‍👩‍👧"),
        ("tab\tAnn\u00a0Lee ", "Ann\u00a0Lee"),
    ],
    ids=["emoji", "combining", "dotted", "sharp-s", "cjk", "family", "spaces"],
)
def test_offsets_are_those_of_the_original_text(note, answer):
    table = {"question": np.array(["who?"] * 3, object), "note": np.array([note] * 3, object)}
    encoded = features_of(table).encode(table)
    labels = SpanLabels.of(encoded, table["note"], [answer] * 3)
    _, first, last = labels.places[0].tolist()
    start, end = encoded["places"][first, 0], encoded["places"][last, 1]
    assert note[start:end] == answer


def test_windows_overlap_and_hold_the_question_and_all_of_the_text():
    words = [f"w{number}" for number in range(120)]
    table = {"question": np.array(["who is it"], object), "note": np.array([" ".join(words)], object)}
    features = features_of(table, max_windows=64)
    encoded = features.encode(table)
    lengths, read = np.diff(encoded["offsets"]), []
    assert lengths.max() == 32
    for window, start in enumerate(encoded["offsets"][:-1]):
        places = encoded["places"][start : start + lengths[window]]
        assert np.array_equal(encoded["text"][start : start + 4], encoded["text"][:4])
        read.append(set(map(tuple, places[places[:, 0] >= 0].tolist())))
    assert all(len(one & other) == overlap_of(32) for one, other in itertools.pairwise(read))
    assert max(end for _, end in set.union(*read)) == len(table["note"][0])
    alone = encoded.take(np.array([0]))
    assert all(np.array_equal(alone[name], encoded[name]) for name in encoded.arrays)


def test_giant_text_is_cut_into_so_many_windows_and_no_more():
    table = {"question": np.array(["who"], object), "note": np.array(["word " * 200_000], object)}
    encoded = features_of(table).encode(table)
    assert encoded.n_windows.tolist() == [8]


def test_place_of_an_answer_is_a_word_of_its_own_where_there_is_one():
    text = "5 of 15, and 5"
    assert occurrences(text, "5") == [0, 13]
    assert occurrences("of 15", "5") == [4]
    assert occurrences(text, "") == occurrences("", "5") == []


def by_loop(label, answer):
    """F1 of words, one by one."""
    wanted, found = words_of(label), words_of(answer)
    if not wanted or not found:
        return float(wanted == found)
    left, common = list(wanted), 0
    for word in found:
        if word in left:
            left.remove(word)
            common += 1
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def test_metrics_are_their_definitions():
    random = np.random.default_rng(0)
    words = ["the", "Bank", "of", "England", "7%", "-", "a"]
    texts = [" ".join(random.choice(words, random.integers(0, 4))) for _ in range(400)]
    labels, answers = np.array(texts[:200], object), np.array(texts[200:], object)
    found = {name: metric(labels, answers) for name, metric in head_of("span").metrics(0.5).items()}
    pairs = list(zip(labels, answers, strict=True))
    assert found["f1"] == pytest.approx(np.mean([by_loop(*pair) for pair in pairs]))
    assert found["exact_match"] == pytest.approx(np.mean([words_of(one) == words_of(other) for one, other in pairs]))
    assert found["none_accuracy"] == pytest.approx(np.mean([bool(one) == bool(other) for one, other in pairs]))
    of_rows = measured(labels, answers)
    assert {name: metric(labels, of_rows) for name, metric in head_of("span").metrics(0.5).items()} == pytest.approx(
        found
    )
    assert of_rows.shape == (200, len(MEASURED))


def test_answers_are_compared_without_case_punctuation_and_articles():
    assert exact_match("The «Bank» of England.", "bank of england")
    assert exact_match("Zoe\u0308", "zoë")
    assert not exact_match("2,500", "2,600")
    assert not exact_match("the", "")  # an answer of articles alone is an answer
    assert f1("7 May 2005", "May 7") == pytest.approx(0.8)


def test_training_that_was_killed_ends_with_the_same_weights(made):
    """Of the same rows, resumed from a state that was kept after an epoch."""

    class Kept:
        def __init__(self):
            self.state, self.fails, self.every_seconds = None, True, 0.0

        def load_newest(self):
            return self.state

        def save(self, step, tensors, notes):
            self.state = {name: each.clone() for name, each in tensors.items()}, copy.deepcopy(notes)
            if self.fails:
                raise InterruptedError

        def nested(self, name):
            return self

    found = parcels(60)
    table = {name: found[name].to_numpy(object) for name in COLUMNS}
    features = Features.load(made[0] / PATHS.pretrained)
    encoded = features.encode(table)
    rows = encoded, SpanLabels.of(encoded, table["note"], list(found["answer"]))
    target = dataclasses.replace(read_target(made[0] / PATHS.trained), max_tokens=4)
    plan = TrainingPlan(epochs=3.0, batch_tokens=1024, learning_rate=0.003, keep="last")

    def start():
        return Network(SMALL, features.sizes, target, seed=1)

    whole, _ = learn_spans(start(), rows, rows, plan)
    kept = Kept()
    with pytest.raises(InterruptedError):
        learn_spans(start(), rows, rows, plan, checkpoints=kept)
    kept.fails = False
    resumed, _ = learn_spans(start(), rows, rows, plan, checkpoints=kept)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_candidates_know_shapes_of_answers_and_when_there_is_none():
    rows = parcels(150)
    fitted = AnswerCandidates.fit(list(rows["note"]), list(rows["question"]), list(rows["answer"]), seed=0)
    assert Counter(fitted.shapes).keys() == {"Xx", "Xx Xx"}
    other = parcels(80, seed=3)
    found = fitted.answers(list(other["note"]), list(other["question"]))
    assert np.mean([one == label for one, label in zip(found, other["answer"], strict=True)]) > 0.3
    assert fitted.answers([None, ""], ["who?", ""]) == ["", ""]
    silent = AnswerCandidates.fit(["a text"], [""], [""], seed=0)
    assert silent.answers(["Ann"], [""]) == [""]


def test_published_night_is_measured_by_its_labels(product):
    rows, found = parcels().set_index("parcel_id"), predicted()
    labels = rows.loc[found["parcel_id"], "answer"].reset_index(drop=True)
    columns = {name: found[name].to_numpy() for name in found}
    scores, classes = head_of("span").scores_of_night(columns)
    labelled = Labelled(keys=found["parcel_id"], table=labels.to_frame(), scores=scores, classes=classes)
    expected = np.mean([exact_match(*pair) for pair in zip(labels, scores, strict=True)])
    assert labelled.metric(product) == pytest.approx(expected, abs=1e-6)
    model = type("Model", (), {"sha256": folder_sha256(PATHS.onnx)})
    answers = answers_here(product, type("Manifest", (), {"model": model}), PATHS, valid_rows_of_night())
    assert answers is not None
    assert answers.mean == pytest.approx(float(found["probability"].mean()), abs=1e-5)


def valid_rows_of_night():
    return pd.concat(
        [pd.read_parquet(file) for file in sorted((PATHS.valid / "rows").rglob("*.parquet"))], ignore_index=True
    ).pipe(lambda rows: rows[rows["parcel_id"].isin(predicted()["parcel_id"])])


def test_model_of_another_text_is_refused(product):
    trained = read_target(PATHS.onnx)
    assert model_inputs.schema_mismatch(dict(product.inputs), trained, product) == ""
    other = dataclasses.replace(trained, text="question")
    assert "answers from question" in model_inputs.schema_mismatch(dict(product.inputs), other, product)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"target": {"name": "answer", "task": "span"}}, "target.text must name the column of kind text"),
        ({"target": {"name": "answer", "task": "span", "text": "depot"}}, "got 'depot'; use question or note"),
        ({"columns": {"depot": "category"}}, "columns must name one of kind text"),
        ({"model__train": {"probe": True}}, "model.train.probe must not be given for a span target"),
        ({"predict": {"explain": 2}}, "predict.explain must not be given for a span target"),
        ({"key": ["start"]}, "key must not be a name of the predictions' own columns, got 'start'"),
    ],
    ids=["several-texts", "no-text", "none", "probe", "explain", "key"],
)
def test_declaration_that_cannot_be_answered_is_refused(changes, wanted):
    assert any(wanted in line for line in mistakes(declared(**{**CHANGES, **changes})))


def test_only_text_is_the_one_in_which_answers_stand():
    target = {"name": "answer", "task": "span"}
    assert a_product(**{**CHANGES, "columns": {"note": "text"}, "target": target}).target.text == "note"
    refused = mistakes(declared(target={"name": "late", "task": "binary", "text": "depot"}))
    assert any("target.text must not be given for a binary target" in line for line in refused)


def test_imported_start_and_longest_answer_are_those_of_the_training(made):
    target = read_target(made[0] / PATHS.trained)
    assert 1 <= target.max_tokens <= overlap_of(32)
    network, _ = load_pretrained(made[0] / PATHS.pretrained, target, SMALL, seed=0)
    assert network.span is not None
    assert Target(task="span", text="note").score_shape == (2, 2)
