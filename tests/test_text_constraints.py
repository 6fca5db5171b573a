"""Oracle: Python's own regular expressions on what was written by shares drawn at random; all short texts, by hand."""

import dataclasses
import re
from itertools import product as every

import numpy as np
import pandas as pd
import pytest
from builders import a_product, declared, mistakes
from tokenizers import pre_tokenizers

from model.features.fitted import Features
from model.features.subwords import special_ids, text_of, train_exact_tokenizer
from model.scoring import automaton
from model.scoring.automaton import automaton_of, refusal
from model.scoring.constraint import Constraint, Constraints, SubwordTree, bytes_of_subwords
from model.scoring.generation import IDS, PAST, PREFIX_OF, Writer
from model.settings import GenerationSettings
from tasks.rows import model_inputs
from tasks.runtime.errors import UserError

TEXTS = ["yes", "no", "maybe not", "Straße, 12 Häuser", "the vote 7,5 %", "naïve 日本", "late"] * 3
CHANGES = {
    "columns": {"depot": "category"},
    "target": {"name": "title", "task": "generate", "delay_days": 1},
    "gates": {"metric": "bits_per_byte", "limit": 8.0},
    "expectations": [],
    "model__init": "scratch",
    "model__train": {"epochs": 1},
}
HOSTILE = [r"(a|b)*a(a|b){25}", r"(.{1,99}){1,99}", "(" * 500 + "a" + ")" * 500, "[α-ω]{1,1000}{1,9}"]
NO_REGEX = ["[", "(a", "a)(b", r"(a)\1", r"\bword\b", "^yes$", "a{2,1}", "*"]


@pytest.fixture(scope="module")
def features():
    rows = {"depot": np.array(["A", "B"] * 9, object)}
    labels = np.array(TEXTS[:18], object)
    return Features.fit({"depot": "category"}, rows, None, "generate", max_tokens=8, label_texts=labels)


def random_step(features):
    """Shares that follow from the last subwords alone, with the closing one the likeliest: every text wants to end."""
    n = features.tokenizer.get_vocab_size()

    def step(inputs):
        ids = inputs[IDS]
        shares = np.stack([np.random.default_rng(int(row.sum())).normal(0, 3, (ids.shape[1], n)) for row in ids])
        shares[:, :, special_ids(features.tokenizer)["sep"]] = 9.0
        shares -= np.log(np.exp(shares).sum(-1, keepdims=True))
        kept = inputs[PAST].shape[4] + inputs[PREFIX_OF].shape[1] + ids.shape[1]
        past = np.zeros((1, 2, len(ids), 1, kept, 1), np.float32)
        return shares.astype(np.float32), past, np.zeros((len(ids), kept), np.int64)

    return step


@pytest.fixture(scope="module")
def writer(features):
    return Writer(
        step=random_step(features),
        features=features,
        past_shape=(1, 1, 1),
        max_tokens=64,
        constraints=Constraints(features.tokenizer),
    )


def written(writer, n=40, **settings):
    encoded = writer.features.encode({"depot": np.array(["A", None] * (n // 2), object)})
    return writer.write(encoded, [str(number) for number in range(n)], GenerationSettings(temperature=1.0, **settings))


@pytest.mark.long
@pytest.mark.parametrize(
    ("pattern", "most"),
    [
        ("yes|no|maybe not", 12),
        (r"[A-Z][^\n]{3,30}", 14),
        (r"\d{1,3}(,\d)? %", 9),
        (r"(a*)*b", 9),
        (r".{6}", 8),
        (r"[äöüß]{2,5}", 11),
        (r"日本?", 8),
        (r"(?i)straße( [a-z]+){1,3}", 40),
        (r"\{\"late\": (true|false)\}", 30),
        (r" ?x", 4),
        (r"(?!no)[a-z]{2,3}", 5),
        (r"[^a-zäα-ω一-二]{3}", 13),
        ("[\x01-\ud7ff\ue000-\uffff]{2}", 9),
        (r"(y|n)?", 3),
    ],
)
def test_every_text_matches_its_pattern_and_ends(writer, pattern, most):
    found = written(writer, pattern=pattern, max_tokens=most)
    for each in found:
        assert re.fullmatch(pattern, each.text), each.text
        assert each.ended
        assert len(each.tokens) < most
        assert text_of(writer.tokenizer, each.tokens) == each.text
        assert np.isfinite(each.mean_log_probability)


def test_texts_that_match_are_all_that_can_be_written_and_no_others(writer):
    """Every string of few subwords, against what the constraint lets through."""
    tokenizer, pattern = writer.tokenizer, r"(ye?s|no)( no)?"
    constraint = writer.constraints.of(GenerationSettings(pattern=pattern, min_tokens=2, max_tokens=5), 5)
    of_letters = {each: word for each, word in bytes_of_subwords(tokenizer).items() if set(word) <= set(b" yesno")}
    expected = set()
    for length in (2, 3, 4):
        for tokens in every(of_letters, repeat=length):
            spelt = b"".join(of_letters[each] for each in tokens).decode()
            if spelt.startswith(" ") and re.fullmatch(pattern, spelt[1:]):
                expected.add(tokens)

    def texts(state, tokens):
        if constraint.may_close(state, len(tokens)):
            yield tokens
        if len(tokens) < 4:
            for token, after in zip(*constraint.following_at(state, len(tokens)), strict=True):
                yield from texts(after, (*tokens, int(token)))

    assert set(texts(constraint.start, ())) == expected
    assert len(expected) == 19


def test_length_in_subwords_holds_with_and_without_a_pattern(writer):
    for settings in ({}, {"pattern": "[a-z ]*"}):
        found = written(writer, min_tokens=5, max_tokens=9, **settings)
        assert {len(each.tokens) for each in found} >= {5, 6}
        assert all(5 <= len(each.tokens) <= 9 for each in found)


def test_stop_words_among_the_least_subwords_end_no_text(writer):
    free = written(writer, min_tokens=6, max_tokens=12)
    stopped = written(writer, min_tokens=6, max_tokens=12, stop=("e",))
    for whole, cut in zip(free, stopped, strict=True):
        place = whole.text.find("e", len(text_of(writer.tokenizer, whole.tokens[:6])))
        assert cut.text == (whole.text if place < 0 else whole.text[:place])


def test_constrained_text_depends_on_no_row_beside_it(writer):
    settings = {"pattern": "[a-z]{2,9}( [a-z]+)*", "max_tokens": 10}
    together = written(writer, **settings)
    assert written(writer, n=2, **settings) == together[:2]
    another = dataclasses.replace(writer, constraints=Constraints(writer.tokenizer), n_parallel=3)
    assert written(another, **settings) == together


def test_pattern_is_worked_out_once_for_a_model(writer):
    settings = GenerationSettings(pattern="yes|no")
    assert writer.constraints.of(settings, 9) is writer.constraints.of(settings, 9)
    assert writer.constraints.of(settings, 9) is not writer.constraints.of(settings, 8)


@pytest.mark.parametrize("pattern", HOSTILE)
def test_pattern_that_asks_for_too_much_is_refused(pattern, monkeypatch):
    monkeypatch.setattr(automaton, "MAX_SECONDS", 1)
    assert refusal(pattern).startswith("must need 20,000 states at most")


@pytest.mark.parametrize("pattern", NO_REGEX)
def test_what_is_no_regular_expression_is_refused(pattern):
    assert "must be a regular expression without" in refusal(pattern)
    assert repr(pattern) in refusal(pattern)


def test_pattern_that_matches_nothing_is_refused():
    assert refusal("a(?!b)b").startswith("must match some text, got 'a(?!b)b'")


def test_process_that_was_killed_counts_as_a_pattern_too_dear(monkeypatch, tmp_path):
    program = tmp_path / "killed.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr(automaton, "__file__", str(program))
    with pytest.raises(ValueError, match="states at most"):
        automaton_of("never asked before")


def test_entry_refuses_patterns_with_place_value_and_remedy():
    def of(**text):
        return mistakes(declared(**{**CHANGES, "predict": {"text": text}}))

    assert any("predict.text.pattern must be a regular" in line and "'(a'" in line for line in of(pattern="(a"))
    assert any("min_tokens must be at most max_tokens, got 9 and 8" in line for line in of(min_tokens=9, max_tokens=8))
    assert any("stop must not be given beside pattern" in line for line in of(pattern="a|b", stop=["c"]))
    assert any("pattern" in line for line in of(pattern=""))
    assert any("pattern" in line for line in of(pattern="a" * 1001))
    assert a_product(**{**CHANGES, "predict": {"text": {"pattern": "yes|no"}}}).predict.text.pattern == "yes|no"


def test_scheduler_without_the_library_reads_the_entry(monkeypatch):
    monkeypatch.setattr(automaton, "find_spec", lambda name: None)
    assert refusal("(") is None


@pytest.mark.parametrize("text", [{"pattern": "x{60}"}, {"pattern": "yes|no", "min_tokens": 7}], ids=["long", "short"])
def test_pattern_that_no_text_of_the_model_matches_is_told_to_a_person(writer, text):
    product = a_product(**{**CHANGES, "predict": {"text": {"max_tokens": 8, **text}}})
    encoded = writer.features.encode({"depot": np.array(["A"], object)})
    keys = pd.DataFrame({name: ["1"] for name in product.key})
    with pytest.raises(UserError, match=r"products.*predict.text.pattern must match some text of \d to 7 subwords"):
        model_inputs.written(writer, encoded, keys, product)


def test_tokenizer_without_a_space_before_texts_writes_none():
    tokenizer = train_exact_tokenizer(TEXTS)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    constraint = Constraint("( |a)b", tokenizer, SubwordTree.of(bytes_of_subwords(tokenizer)), range(0, 9))
    spelt = bytes_of_subwords(tokenizer)
    assert {spelt[token][:1] for token in constraint.following_at(constraint.start, 0)[0].tolist()} == {b"a"}


def test_bytes_of_subwords_spell_what_the_tokenizer_decodes():
    tokenizer = train_exact_tokenizer(TEXTS)
    spelt = bytes_of_subwords(tokenizer)
    assert len(spelt) == tokenizer.get_vocab_size() - 5
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert b"".join(spelt[each] for each in ids).decode() == tokenizer.decode(ids)
