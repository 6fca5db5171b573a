"""Oracle: bags counted in loops, and ridge regression solved by its normal equations."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from model.features.batches import collate
from model.features.fitted import Features
from model.features.letters import N_LETTERS
from model.features.subwords import bags, join, tokenise, train_tokenizer
from model.network.network import Network
from model.network.store import load_model, save_model
from model.network.wide import Wide
from model.settings import NetworkSettings, TrainingSettings
from model.target import Target
from model.training.closed_forms.strengths import LETTER_SHARES, best_ridge
from model.training.closed_forms.wide import WideRidge, fit_mix, fit_wide
from model.training.fit import LabelledRows
from model.training.train import train

KINDS = {"title": "text", "body": "text"}
SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=16, max_tokens=8, wide_tokens=200)
FILLER = "said the man in town to the others on the day before it rained"


def a_table(n=120, seed=0):
    """Texts whose one telling word stands far behind the first eight tokens."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, n)
    telling = np.array([["goal", "match"], ["film", "star"], ["bank", "shares"]])[y, random.integers(0, 2, n)]
    order = [random.permutation(FILLER.split()) for _ in range(n)]
    body = np.array([" ".join([*words, word]) for words, word in zip(order, telling, strict=True)], object)
    return {"title": np.array(["news"] * n, object), "body": body}, y


def fitted(table, wide_tokens=200):
    return Features.fit(KINDS, table, None, "multiclass", max_tokens=8, wide_tokens=wide_tokens)


@given(st.lists(st.tuples(*[st.text("ab cd", max_size=30)] * 2), min_size=1, max_size=5), st.integers(8, 12))
@settings(max_examples=30, deadline=None)
def test_bags_count_every_subword_of_the_whole_and_of_what_the_encoder_reads(rows, max_tokens):
    tokenizer = train_tokenizer(["ab cd ab cd", "a b c d"])
    columns = [np.array(column, object) for column in zip(*rows, strict=True)]
    pieces = tokenise(tokenizer, columns, 20)
    n_subwords = tokenizer.get_vocab_size()
    ids, weights, starts = bags(pieces, max_tokens, n_subwords)
    separator = tokenizer.token_to_id("[SEP]")
    read, offsets, _ = join(pieces, max_tokens, separator)
    for row, texts in enumerate(rows):
        expected = Counter()
        for text in texts:
            expected.update(tokenizer.encode(text, add_special_tokens=False).ids[:20])
        for token in read[offsets[row] : offsets[row + 1]]:
            if token != separator:
                expected[token + n_subwords] += 1
        got = slice(starts[row], starts[row + 1])
        assert ids[got].tolist() == sorted(expected)
        np.testing.assert_allclose(weights[got], [1 + np.log(expected[token]) for token in ids[got]], rtol=1e-6)


@pytest.mark.parametrize(("weighted", "letters"), [(False, None), (True, None), (True, 0.8)])
def test_the_linear_model_is_ridge_regression_on_tf_idf(weighted, letters):
    table, y = a_table()
    weigh = np.random.default_rng(0).random(len(y)) * 2 if weighted else np.ones(len(y))
    features = fitted(table)
    encoded, n_subwords = features.encode(table), features.sizes.n_subwords
    n_groups = features.sizes.n_letter_groups
    wide, outputs = Wide(n_subwords, 3, n_groups), np.eye(3)[y]
    fit_wide(wide, [encoded], outputs, WideRidge(penalty=0.5, letters=letters), 8.0, weigh if weighted else None)
    counts = np.zeros((len(y), 2 * n_subwords + n_groups))
    for row in range(len(y)):
        at = slice(encoded["bag_offsets"][row], encoded["bag_offsets"][row + 1])
        counts[row, encoded["bag"][at]] = encoded["bag_weights"][at]
    rarity = np.log((1 + len(y)) / (1 + (counts > 0).sum(0))) + 1
    rows = counts * rarity
    fields = (rows[:, :n_subwords], rows[:, n_subwords : 2 * n_subwords], rows[:, 2 * n_subwords :])
    for field, share in zip(fields, [1 / 3] * 3 if letters is None else [0.1, 0.1, 0.8], strict=True):
        field *= share**0.5 / np.linalg.norm(field, axis=1, keepdims=True)
    rows = rows[:, rows.any(axis=0)]  # what no row has gets no weight
    centred, wanted = (part - np.average(part, axis=0, weights=weigh) for part in (rows, outputs))
    squares = centred.T @ (weigh[:, None] * centred) + 0.5 * np.eye(rows.shape[1])
    weights = np.linalg.solve(squares, centred.T @ (weigh[:, None] * wanted))
    batch = {name: torch.from_numpy(column) for name, column in collate(encoded, np.arange(len(y)), 0).items()}
    got = wide(batch["bag"], batch["bag_weights"]).numpy()
    np.testing.assert_allclose(got, centred @ weights * 8.0, atol=1e-3)


def test_the_mix_trusts_the_part_that_knows_and_is_no_worse_than_either():
    random = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (400,), generator=random)
    knows = F.one_hot(truth, 3) * 3 + torch.randn(400, 3, generator=random)
    noise = torch.randn(400, 3, generator=random) * 2

    def loss(logits):
        return F.cross_entropy(logits, truth, reduction="sum")

    for deep, flat, better in ((knows, noise, 0), (noise, knows, 1)):
        wide = Wide(5, 3)
        fit_mix(wide, deep, flat, loss)
        assert wide.mix[better] > 0.5
        assert wide.mix[1 - better] < 0.2
        assert loss(wide.mix[0] * deep + wide.mix[1] * flat) <= min(loss(deep), loss(flat)) + 0.5


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_what_stands_behind_the_encoders_cut_is_learnt_by_the_linear_part(task):
    (table, y), (held_out, y_held_out) = a_table(), a_table(60, seed=1)

    def truth(classes):
        return {"multiclass": classes, "multilabel": np.eye(3)[classes], "regression": classes * 10.0 + 100}.get(
            task, (classes > 0).astype(int)
        )

    names = {"binary": ("no", "yes"), "regression": ()}.get(task, ("a", "b", "c"))
    target = Target.fit(task, names, truth(y))
    features = fitted(table)
    network = Network(SMALL, features.sizes, target)
    encoded, other = features.encode(table), features.encode(held_out)
    short = TrainingSettings(epochs=1, calibrate=False)
    network, _ = train(
        network, features, LabelledRows(encoded, truth(y)), LabelledRows(other, truth(y_held_out)), short
    )
    batch = {name: torch.from_numpy(column) for name, column in collate(other, np.arange(60), 0).items()}
    with torch.no_grad():
        scores = network.scores(batch).numpy()
        network.wide.mix[1] = 0
        without = network.scores(batch).numpy()

    def hits(scores):
        answer = scores.argmax(1) if scores.ndim > 1 else scores.round() if task == "binary" else (scores - 100) / 10
        return np.mean(np.abs(answer - (y_held_out > 0 if task == "binary" else y_held_out)) < 0.5)

    assert hits(scores) == 1
    assert hits(without) < 0.9


def test_validation_rows_of_one_class_leave_the_mix_as_it_is_without_any():
    """Of one class alone any confidence would do: the surer, the better."""
    (table, y), (one, _) = a_table(), a_table(60, seed=1)
    features = fitted(table)
    network = Network(SMALL, features.sizes, Target(task="binary", classes=("no", "yes")))
    encoded, held_out = features.encode(table), features.encode(one)
    settings = TrainingSettings(epochs=1, calibrate=False)
    network, _ = train(
        network,
        features,
        LabelledRows(encoded, (y > 0).astype(int)),
        LabelledRows(held_out, np.zeros(60, int)),
        settings,
    )
    np.testing.assert_allclose(network.wide.mix, 1.0)


def test_without_rows_that_say_more_the_mix_is_what_it_is_drawn_to():
    wide, rows = Wide(5, 1), torch.randn(3, 1)
    fit_mix(wide, rows, rows.flip(0), lambda mixed: 0.0 * mixed.sum(), prior=0.5)
    np.testing.assert_allclose(wide.mix, 0.5)


def test_words_of_old_rows_fade_as_the_rows_do():
    (table, y), (held_out, y_held_out) = a_table(240), a_table(60, seed=1)
    old = np.arange(240) < 200
    y = np.where(old, 2 - y, y)  # since when the words mean the opposite
    features = fitted(table)
    encoded, other = features.encode(table), features.encode(held_out)
    target, hits = Target(task="multiclass", classes=("a", "b", "c")), {}
    for half_life_days in (0.0, 1.0):
        settings = TrainingSettings(epochs=1, calibrate=False, half_life_days=half_life_days)
        network, _ = train(
            Network(SMALL, features.sizes, target),
            features,
            LabelledRows(encoded, y, age_days=old * 9.0),
            LabelledRows(other, y_held_out),
            settings,
        )
        batch = {name: torch.from_numpy(column) for name, column in collate(other, np.arange(60), 0).items()}
        flat = network.wide(batch["bag"], batch["bag_weights"]).numpy()
        hits[half_life_days] = (flat.argmax(1) == y_held_out).mean()
    assert hits[0.0] < 0.6
    assert hits[1.0] > 0.9


def test_a_wide_network_read_back_scores_the_same(tmp_path):
    table, y = a_table(30)
    features = fitted(table)
    network = Network(SMALL, features.sizes, Target(task="multiclass", classes=("a", "b", "c"))).eval()
    fit_wide(network.wide, [features.encode(table)], np.eye(3)[y], WideRidge(), 8.0)
    network.wide.mix.fill_(1)
    save_model(tmp_path, network, features)
    loaded, its = load_model(tmp_path)
    assert its == features
    batch = {name: torch.from_numpy(c) for name, c in collate(its.encode(table), np.arange(30), 0).items()}
    assert torch.equal(network.scores(batch), loaded.scores(batch))


def test_without_text_or_tokens_to_read_there_is_no_linear_part():
    table, _ = a_table(10)
    target = Target(task="multiclass", classes=("a", "b", "c"))
    assert Network(replace(SMALL, wide_tokens=0), fitted(table, 0).sizes, target).wide is None
    assert "bag" not in fitted(table, 0).encode(table).arrays
    numbers = Features.fit({"x": "number"}, {"x": np.arange(9.0)}, None, "binary", max_tokens=8, wide_tokens=200)
    assert Network(SMALL, numbers.sizes, Target(task="regression")).wide is None
    assert "bag" not in numbers.encode({"x": np.arange(9.0)}).arrays


@pytest.mark.parametrize(("told_by", "share"), [("letters", max(LETTER_SHARES)), ("words", min(LETTER_SHARES))])
def test_letters_count_more_where_they_tell_more_than_words_do(told_by, share):
    """Names of which the end tells all; words that stand behind all letters that are read."""
    random = np.random.default_rng(3)
    y = random.integers(0, 3, 300)
    if told_by == "letters":
        ends = np.array(["ovich", "etti", "sson"])
        texts = ["".join(random.choice(list("abdegiklmn"), 6)) + ends[label] for label in y]
    else:
        telling = np.array([["goal", "match"], ["film", "star"], ["bank", "shares"]])[y, random.integers(0, 2, 300)]
        texts = [" ".join([*random.permutation(2 * FILLER.split()), word]) for word in telling]
        assert min(map(len, texts)) > N_LETTERS
    table = {"title": np.array([""] * 300, object), "body": np.array(texts, object)}
    encoded = (features := fitted(table)).encode(table)
    wide = Wide(features.sizes.n_subwords, 3, features.sizes.n_letter_groups)
    assert best_ridge(wide, [encoded], np.eye(3)[y], None, None).letters == share
    assert best_ridge(wide, [encoded], np.eye(3)[y], None, 7.0).penalty == 7.0
