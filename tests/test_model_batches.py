"""Oracle: the properties that make batches right, checked on arbitrary lengths."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.features.batches import batches, collate
from model.features.encoded import Encoded

LENGTHS = st.lists(st.integers(1, 300), max_size=200).map(np.array)
WINDOWS = st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=6), min_size=1, max_size=60)


def rows_of(lengths):
    """Rows of so many tokens, [CLS] included."""
    return encoded_text([np.ones(length - 1, int) for length in lengths])


def encoded_text(texts, **windows):
    n = len(windows["window_offsets"]) - 1 if windows else len(texts)
    return Encoded(
        n_rows=n,
        arrays={
            "text": np.concatenate([np.empty(0), *texts]).astype(np.int32),
            "offsets": np.r_[0, np.cumsum([len(text) for text in texts])].astype(np.int64),
            **windows,
        },
    )


@given(LENGTHS, st.integers(1, 1000), st.none() | st.integers(0, 99))
def test_batches_cover_every_row_once_within_the_budget(lengths, budget, seed):
    cut = batches(rows_of(lengths), budget, seed)
    assert sorted(row for rows in cut for row in rows) == list(range(len(lengths)))
    for rows in cut:
        assert len(rows) == 1 or lengths[rows].max() * len(rows) <= budget


@given(WINDOWS, st.integers(1, 1000), st.none() | st.integers(0, 99))
def test_batches_of_windows_keep_rows_whole_within_the_budget(rows, budget, seed):
    firsts = np.r_[0, np.cumsum([len(windows) for windows in rows])]
    encoded = encoded_text([np.ones(n - 1, int) for windows in rows for n in windows], window_offsets=firsts)
    assert encoded.lengths.tolist() == [max(windows) for windows in rows]
    assert encoded.n_tokens.tolist() == [sum(windows) for windows in rows]
    cut = batches(encoded, budget, seed)
    assert len(cut) == len(batches(encoded, budget)) == len(batches(encoded, budget, 100))
    assert sorted(row for some in cut for row in some) == list(range(len(rows)))
    for some in cut:
        longest, n_windows = max(max(rows[row]) for row in some), sum(len(rows[row]) for row in some)
        assert len(some) == 1 or longest * n_windows <= budget
        if encoded["text"].size:
            batch = collate(encoded, some, pad_id=0)
            assert batch["text"].shape == (n_windows, max(1, longest - 1))
            read = [
                [n for n, weight in zip(batch["text"].sum(1), its, strict=True) if weight] for its in batch["windows"]
            ]
            assert read == [[n - 1 for n in rows[row]] for row in some]
            assert (batch["windows"].sum(0) == 1).all()


@given(LENGTHS, st.integers(0, 99))
def test_some_rows_are_cut_as_if_they_were_all(lengths, seed):
    chosen = np.flatnonzero(np.random.default_rng(seed).random(len(lengths)) < 0.5)
    some, alone = batches(rows_of(lengths), 500, seed, chosen), batches(rows_of(lengths[chosen]), 500, seed)
    assert [rows.tolist() for rows in some] == [rows.tolist() for rows in alone]


@given(LENGTHS, st.integers(0, 99))
def test_a_seed_fixes_the_batches_and_changes_no_count(lengths, seed):
    first, second = batches(rows_of(lengths), 500, seed), batches(rows_of(lengths), 500, seed)
    assert [rows.tolist() for rows in first] == [rows.tolist() for rows in second]
    assert len(first) == len(batches(rows_of(lengths), 500, seed + 1))


def test_rows_of_one_length_are_mixed_anew_by_every_seed():
    rows = rows_of(np.full(1000, 10))
    assert sorted(batches(rows, 100, 0)[0]) != sorted(batches(rows, 100, 1)[0])


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=8), st.randoms())
def test_padding_changes_no_subword(texts, random):
    encoded = encoded_text(texts)
    rows = np.array(random.sample(range(len(texts)), random.randint(1, len(texts))))
    padded = collate(encoded, rows, pad_id=0)["text"]
    assert padded.shape[1] == max(len(texts[row]) for row in rows)
    assert [[token for token in row if token] for row in padded.tolist()] == [texts[row] for row in rows]


@given(WINDOWS, st.randoms(use_true_random=False))
def test_rows_taken_out_are_read_as_they_were(rows, random):
    cut, windows = [length for row in rows for length in row], [len(row) for row in rows]
    n, ids = len(rows), np.random.default_rng(0)
    encoded = encoded_text(
        [ids.integers(1, 99, length) for length in cut], window_offsets=np.r_[0, np.cumsum(windows)].astype(np.int64)
    )
    sizes = np.array([random.randrange(4) for _ in range(n)])
    bags = {"bag": np.arange(sizes.sum()), "bag_weights": ids.random(sizes.sum()).astype(np.float32)}
    numbers = {"numbers": ids.random((n, 2)), "bag_offsets": np.r_[0, np.cumsum(sizes)]}
    encoded = Encoded(n_rows=n, arrays={**encoded.arrays, **bags, **numbers})
    chosen = np.array(random.sample(range(n), random.randrange(1, n + 1)))
    taken, expected = collate(encoded.take(chosen), np.arange(len(chosen)), 0), collate(encoded, chosen, 0)
    assert taken.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(taken[name], array)
