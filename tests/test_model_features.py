"""Oracle: brute-force versions in plain Python, and the rule that only rows of the fit teach."""

import datetime
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.features.bins import bin_edges, guessed_edges
from model.features.encoded import on_disk
from model.features.fitted import Features
from model.features.fitting import MAX_FOLDED_ROWS
from model.features.kinds.category import MISSING, UNKNOWN
from model.features.kinds.time import TimeReading
from model.features.letters import N_SLOTS, N_SLOTS_BEFORE
from model.features.subwords import join, tokenise, train_tokenizer

KINDS = {"colour": "category", "size": "number", "when": "time", "title": "text", "body": "text"}


def a_table(n=40, seed=0):
    random = np.random.default_rng(seed)
    words = np.array(["red", "green", "blue", "sky", "sea"], object)
    return {
        "colour": random.choice(np.array(["red", "green", None], object), n),
        "size": np.where(random.random(n) < 0.2, np.nan, random.normal(50, 10, n)),
        "when": np.datetime64("2013-01-01T00:00:00") + random.integers(0, 10**7, n).astype("timedelta64[s]"),
        "title": np.array([" ".join(random.choice(words, 2)) for _ in range(n)], object),
        "body": np.array([None if i % 5 == 0 else " ".join(random.choice(words, i)) for i in range(n)], object),
    }


def test_vocabulary_is_fitted_on_the_given_rows_only():
    fitted = Features.fit({"colour": "category"}, a_table(), None, "binary", max_tokens=8)
    other = {"colour": np.array(["violet", None, "red"], object)}
    slots = fitted.encode(other)["categories"][:, 0]
    assert slots[0] == UNKNOWN
    assert slots[1] == MISSING
    assert fitted.fitted["category"].columns["colour"][slots[2] - 2] == "red"


def test_scale_and_bins_ignore_rows_outside_the_fit():
    table = a_table()
    fitted = Features.fit({"size": "number"}, table, None, "binary", max_tokens=8)
    fitted.encode({"size": np.array([1e9, -1e9])})
    assert fitted == Features.fit({"size": "number"}, table, None, "binary", max_tokens=8)


def test_number_beyond_the_bins_is_their_end_and_one_beyond_single_precision_spoils_nothing():
    size = np.arange(100.0)
    fitted = Features.fit({"size": "number"}, {"size": size}, size > 50, "binary", max_tokens=8)
    freaks = np.array([-np.inf, -1.7e308, -5, 0, 50, 99, 200, 1e300, np.inf, np.nan])
    scaled = fitted.encode({"size": freaks})["numbers"][:, 0]
    edges = fitted.fitted["number"].columns["size"].edges
    low, high = np.float32(edges[0]), np.float32(edges[-1])
    assert scaled.tolist()[1:4] == [low] * 3
    assert low < scaled[4] < high
    assert scaled.tolist()[5:8] == [high] * 3
    assert np.isnan(scaled[[0, 8, 9]]).all()
    table = {"size": freaks, "damp": freaks}
    kinds = {"size": "number", "damp": "context"}
    both = Features.fit(kinds, table, np.arange(10) > 4, "binary", max_tokens=8)
    encoded = both.encode(table)
    assert np.isfinite(encoded["numbers"][1:8]).all()
    assert np.isfinite(encoded["context"]).all()
    assert np.isfinite(np.diff(np.array(both.fitted["number"].columns["size"].edges, np.float32))).all()


def test_vocabulary_does_not_depend_on_row_order():
    table = a_table()
    backwards = {name: column[::-1] for name, column in table.items()}
    kinds = {"colour": "category", "size": "number"}
    assert Features.fit(kinds, table, None, "binary", max_tokens=8) == Features.fit(
        kinds, backwards, None, "binary", max_tokens=8
    )


def test_fitting_on_pieces_is_fitting_on_the_whole(tmp_path):
    table = a_table(n=90)
    y = (table["size"] > 50).astype(int)
    pieces = [{name: column[start : start + 17] for name, column in table.items()} for start in range(0, 102, 17)]
    for name, rows in (("whole", table), ("pieces", pieces)):
        Features.fit(KINDS, rows, y, "binary", max_tokens=16).save(tmp_path / name)
    for file in ("features.json", "tokenizer.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "pieces" / file).read_bytes()


def test_of_too_many_rows_the_same_sample_decides_bins_and_all_decide_the_vocabulary(monkeypatch):
    monkeypatch.setattr("model.features.fitting.MAX_FITTED_ROWS", 500)
    random = np.random.default_rng(1)
    size = random.normal(size=3000)
    table = {"size": size, "colour": np.array([f"c{i % 300}" for i in range(3000)], object)}
    kinds = {"size": "number", "colour": "category"}
    pieces = [{name: column[start : start + 700] for name, column in table.items()} for start in range(0, 3000, 700)]
    fitted = Features.fit(kinds, pieces, (size > 0.3).astype(int), "binary", max_tokens=8)
    assert fitted == Features.fit(kinds, table, (size > 0.3).astype(int), "binary", max_tokens=8)
    assert len(fitted.fitted["category"].columns["colour"]) == 300
    assert fitted.fitted["number"].columns["size"].centre != np.median(size)
    assert abs(fitted.fitted["number"].columns["size"].centre - np.median(size)) < 0.2
    scale = fitted.fitted["number"].columns["size"]
    cut = np.array(scale.edges) * scale.scale + scale.centre
    assert np.abs(cut - 0.3).min() < 0.02


@pytest.mark.parametrize(("n", "knows_labels"), [(MAX_FOLDED_ROWS, False), (MAX_FOLDED_ROWS + 1, True)])
def test_bins_of_few_rows_that_folds_judge_know_no_labels(n, knows_labels):
    table = {"size": np.random.default_rng(0).normal(size=n)}
    first, second = (
        Features.fit({"size": "number"}, table, (table["size"] > cut).astype(int), "binary", max_tokens=8)
        for cut in (0.0, 1.0)
    )
    assert (first != second) == knows_labels


def test_of_too_many_values_the_rarest_are_forgotten_while_they_are_counted(monkeypatch):
    monkeypatch.setattr("model.features.kinds.category.MAX_COUNTED", 200)
    pieces = [
        {"who": np.array([f"{i % 20}" if i % 2 else f"{part}-{i}" for i in range(300)], object)} for part in range(9)
    ]
    (who,) = Features.fit({"who": "category"}, pieces, None, "binary", max_tokens=8).fitted["category"].columns.values()
    assert set(who[:10]) == {str(i) for i in range(1, 20, 2)}
    assert len(who) <= 200 + 300


def test_pieces_on_disk_are_the_encoded_whole_and_leave_no_file(tmp_path):
    table = a_table(n=50)
    for kinds, max_windows in ((KINDS, 1), ({"size": "number"}, 1), ({"body": "text"}, 1), (KINDS, 3)):
        features = Features.fit(kinds, table, None, "binary", max_tokens=8, max_windows=max_windows, wide_tokens=9)
        pieces = ({name: column[a:b] for name, column in table.items()} for a, b in ((0, 0), (0, 7), (7, 7), (7, 50)))
        stored, whole = on_disk(map(features.encode, pieces), tmp_path), features.encode(table)
        assert len(stored) == len(whole)
        assert stored.arrays.keys() == whole.arrays.keys()
        for name, other in whole.arrays.items():
            one = stored[name]
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
            assert one.shape == other.shape
        np.testing.assert_array_equal(stored.lengths, whole.lengths)
        assert len(stored) == 50
    assert isinstance(stored["text"].base, np.memmap)
    assert not list(tmp_path.iterdir())


def test_time_is_split_as_the_calendar_splits_it():
    when = np.array(["2012-12-31T23:59:00", "1969-03-02T06:30:00", "2013-06-30T00:00:00", "NaT"], "datetime64[s]")
    features = Features.fit({"when": "time"}, {"when": when}, None, "binary", max_tokens=8)
    parts = features.encode({"when": when})["times"][:, 0]
    for moment, (minute, weekday, day, _) in zip(when[:3].astype(datetime.datetime), parts[:3], strict=True):
        assert (minute, weekday, day) == (
            moment.hour * 60 + moment.minute,
            moment.weekday(),
            moment.timetuple().tm_yday - 1,
        )
    assert np.isnan(parts[3]).all()


@pytest.mark.parametrize(("n_days", "read"), [(1, (0,)), (6, (0,)), (7, (0, 1)), (364, (0, 1)), (365, (0, 1, 2))])
def test_a_cycle_is_read_only_where_the_rows_have_been_through_it(n_days, read):
    when = np.datetime64("2013-03-05T23:00:00") + 86400 * np.arange(n_days).astype("timedelta64[s]")
    table = {"when": np.r_[when, np.datetime64("NaT")]}
    assert Features.fit({"when": "time"}, table, None, "binary", max_tokens=8).sizes.of("time")[0].cycles == read


def test_times_of_which_none_is_known_have_no_cycle():
    table = {"when": np.array(["NaT", "NaT"], "datetime64[s]")}
    assert Features.fit({"when": "time"}, table, None, "binary", max_tokens=8).sizes.of("time") == (
        TimeReading(cycles=(), first=0, last=0),
    )


def test_trend_ends_with_the_fitted_rows():
    days = np.datetime64("2024-01-01", "s") + 86400 * np.arange(5).astype("timedelta64[s]")
    features = Features.fit({"when": "time"}, {"when": days}, None, "binary", max_tokens=8)
    later = np.array(["2023-06-01", "2024-01-01", "2024-01-03", "2024-01-05", "2031-01-01", "NaT"], "datetime64[s]")
    trend = features.encode({"when": later})["times"][:, 0, 3]
    assert trend[:5].tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert np.isnan(trend[5])


def test_trend_goes_on_to_the_newest_of_the_rows_that_join(tmp_path):
    year = np.timedelta64(365 * 86_400, "s")
    years = np.datetime64("2020-01-01", "s") + year * np.arange(5)
    joining = [{"when": years[:0]}, {"when": np.r_[years[4:] + 2 * year, np.datetime64("NaT")]}]
    features = Features.fit({"when": "time"}, {"when": years}, None, "binary", max_tokens=8, joining=joining)
    later = years[[0, 4, 4, 4, 4]] + year * np.array([0, 0, 1, 2, 7])
    assert features.encode({"when": later})["times"][:, 0, 3].tolist() == [0.0, 1.0, 1.25, 1.5, 1.5]
    features.save(tmp_path)
    assert Features.load(tmp_path) == features


@pytest.mark.parametrize(("n_days", "goes_on"), [(-5, False), (364, False), (365, True)])
def test_trend_goes_on_only_where_a_year_of_rows_joins(n_days, goes_on):
    when = np.datetime64("2020-01-01", "s") + 86400 * np.arange(800).astype("timedelta64[s]")
    joining = [{"when": when[-1:] + n_days * np.timedelta64(86_400, "s")}]
    features = Features.fit({"when": "time"}, {"when": when}, None, "binary", max_tokens=8, joining=joining)
    assert (features.sizes.of("time")[0].end > 1) == goes_on
    assert (features == Features.fit({"when": "time"}, {"when": when}, None, "binary", max_tokens=8)) != goes_on


def test_times_of_a_model_older_than_the_trend_are_encoded_as_it_was_exported(tmp_path):
    when = np.datetime64("2024-01-01", "s") + 86400 * np.arange(8).astype("timedelta64[s]")
    Features.fit({"when": "time"}, {"when": when}, None, "binary", max_tokens=8).save(tmp_path)
    file = tmp_path / "features.json"
    content = json.loads(file.read_text())
    content["cycles"] = {"when": [0, 1]}
    file.write_text(json.dumps(content))
    features = Features.load(tmp_path)
    assert features.encode({"when": when})["times"].shape == (8, 1, 3)
    assert features.sizes.of("time") == (TimeReading(cycles=(0, 1)),)


def test_tree_bins_cut_where_the_target_changes():
    values = np.linspace(0, 100, 1001)
    edges = bin_edges(values, (values > 37.25).astype(int), "binary")
    assert np.abs(edges - 37.25).min() < 0.11
    assert len(edges) == 3


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_rows_without_a_label_shape_no_bins(task):
    values = np.linspace(0, 1, 400)
    target = np.where(values < 0.5, np.round(values * 7) % 2, np.nan)
    if task == "multilabel":
        target = np.stack([target, target], axis=1)
    inner = bin_edges(values, target, task)[1:-1]
    assert inner.size
    assert inner.max() < 0.5


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [3.0, 3.0], [3.0, np.nan, np.inf]])
def test_bins_exist_for_columns_that_say_nothing(values):
    edges = bin_edges(np.array(values, float), np.zeros(len(values)), "binary")
    assert (np.diff(edges) > 0).all()
    assert np.isfinite(edges).all()


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [3.0, 3.0], [1e30] * 20, [3.0, np.nan, np.inf]])
def test_bins_to_guess_exist_for_columns_that_say_nothing(values):
    edges, _ = guessed_edges(np.array(values, float))
    assert (np.diff(edges) > 0).all()
    assert np.isfinite(edges).all()


@pytest.mark.parametrize(("n", "n_values", "n_bins"), [(400, 50, 50), (400, 51, 32), (20_000, 20_000, 256), (9, 1, 1)])
def test_value_that_occurs_again_is_a_bin_to_guess_of_its_own(n, n_values, n_bins):
    values = np.random.default_rng(0).permutation(np.arange(n) % n_values) / 4
    edges, is_exact = guessed_edges(values)
    assert is_exact == (n_bins == n_values)
    assert len(edges) - 1 == n_bins
    if is_exact:
        assert (edges[:-1] == np.unique(values)).all()


TEXTS = st.lists(st.tuples(*[st.text("ab cd[SEP]", max_size=40)] * 3), min_size=1, max_size=6)


@given(TEXTS, st.integers(8, 30))
@settings(max_examples=40, deadline=None)
def test_every_text_is_closed_by_one_separator_and_short_ones_are_kept_whole(rows, max_tokens):
    tokenizer = train_tokenizer(["ab cd ab cd", "a b c d"])
    columns = [np.array(column, object) for column in zip(*rows, strict=True)]
    separator = tokenizer.token_to_id("[SEP]")
    ids, offsets, windows = join(tokenise(tokenizer, columns, max_tokens), max_tokens, separator)
    assert windows.tolist() == list(range(len(rows) + 1))
    for row, texts in enumerate(rows):
        pieces = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        got = ids[offsets[row] : offsets[row + 1]].tolist()
        assert len(got) <= max_tokens
        assert got.count(separator) == len(texts)
        assert got[-1] == separator
        if sum(map(len, pieces)) + len(texts) <= max_tokens:
            assert got == [token for piece in pieces for token in [*piece, separator]]
        else:
            assert len(got) >= max_tokens - len(texts) + 1


def test_linear_model_reads_its_tokens_however_many_windows_there_are():
    table = {"body": np.array([f"{'sky ' * 20}sea", "sky sea"], object)}
    sizes = {"max_tokens": 8, "max_windows": 5, "wide_tokens": 10}
    features = Features.fit({"body": "text"}, table, None, "binary", **sizes)
    encoded, n_subwords = features.encode(table), features.sizes.n_subwords
    assert encoded.n_windows.tolist() == [3, 1]
    first = slice(encoded["bag_offsets"][1])
    whole = encoded["bag_weights"][first][encoded["bag"][first] < n_subwords].max()
    assert whole == pytest.approx(1 + math.log(10))


@given(TEXTS, st.integers(8, 30), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_windows_hold_a_row_once_in_order_few_and_equal(rows, max_tokens, max_windows):
    tokenizer = train_tokenizer(["ab cd ab cd", "a b c d"])
    columns = [np.array(column, object) for column in zip(*rows, strict=True)]
    separator = tokenizer.token_to_id("[SEP]")
    pieces = tokenise(tokenizer, columns, max_tokens * max_windows)
    ids, offsets, firsts = join(pieces, max_tokens, separator, max_windows)
    room = max_tokens - len(columns)
    for row, texts in enumerate(rows):
        windows = [ids[offsets[at] : offsets[at + 1]].tolist() for at in range(firsts[row], firsts[row + 1])]
        sizes = [len(window) for window in windows]
        assert max(sizes) <= max_tokens
        assert max(sizes) - min(sizes) <= 1
        read = [[] for _ in texts]
        for window in windows:
            assert window.count(separator) == len(texts)
            ends = [-1, *(at for at, token in enumerate(window) if token == separator)]
            for part, (start, end) in zip(read, itertools.pairwise(ends), strict=True):
                part += window[start + 1 : end]
        whole = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        n_subwords = sum(map(len, whole))
        assert len(windows) == min(max_windows, max(1, math.ceil(n_subwords / room)))
        assert all(part == its[: len(part)] for part, its in zip(read, whole, strict=True))
        assert sum(map(len, read)) >= min(n_subwords, room * max_windows - len(texts) + 1)


def test_features_read_back_are_the_features_saved(tmp_path):
    table = a_table()
    fitted = Features.fit(KINDS, table, (table["size"] > 50).astype(int), "binary", max_tokens=16)
    fitted.save(tmp_path)
    loaded = Features.load(tmp_path)
    assert loaded == fitted
    assert loaded.sizes == fitted.sizes
    arrays = fitted.encode(table).arrays
    assert {"categories", "numbers", "times", "text", "offsets"} <= arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded.encode(table)[name], array)


def test_a_model_of_before_the_linear_model_of_subwords_is_read_as_one_without(tmp_path):
    Features.fit(KINDS, a_table(), None, "binary", max_tokens=8).save(tmp_path)
    file = tmp_path / "features.json"
    content = json.loads(file.read_text())
    del content["wide_tokens"]
    file.write_text(json.dumps(content))
    assert Features.load(tmp_path).fitted["text"].reading.wide_tokens == 0


def test_a_model_whose_letters_shared_fewer_numbers_is_read_as_it_was(tmp_path):
    features = Features.fit(KINDS, a_table(), None, "binary", max_tokens=8, wide_tokens=8)
    assert features.sizes.n_letter_groups == N_SLOTS
    features.save(tmp_path)
    file = tmp_path / "features.json"
    content = json.loads(file.read_text())
    (place,) = [each for each in (content, *content.values()) if isinstance(each, dict) and "letters" in each]
    place["letters"] = True  # as it was written
    file.write_text(json.dumps(content))
    before = Features.load(tmp_path)
    assert before.sizes.n_letter_groups == N_SLOTS_BEFORE
    groups = [each.encode(a_table())["bag"] - 2 * each.sizes.n_subwords for each in (features, before)]
    now, then = ({int(slot) for slot in each if slot >= 0} for each in groups)
    # The numbers are the highest bits of a hash: of before those of now without the last.
    assert {slot // (N_SLOTS // N_SLOTS_BEFORE) for slot in now} == then


def test_fitting_twice_saves_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        Features.fit(KINDS, a_table(), None, "binary", max_tokens=16).save(tmp_path / name)
    for file in ("features.json", "tokenizer.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_columns_that_are_not_there_are_all_named():
    with pytest.raises(ValueError, match="table must have the columns size, when, got colour"):
        Features.fit(
            {"colour": "category", "size": "number", "when": "time"},
            {"colour": a_table()["colour"]},
            None,
            "binary",
            max_tokens=8,
        )


def test_unknown_kind_is_refused():
    kinds = "category, number, context, time, image, events, text"
    with pytest.raises(ValueError, match=f"size must be of kind {kinds}, got 'integer'"):
        Features.fit({"size": "integer"}, a_table(), None, "binary", max_tokens=8)
