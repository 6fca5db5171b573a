"""Oracle: the properties that make batches right, checked on arbitrary lengths."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.batches import batches, collate
from model.encoded import Encoded

LENGTHS = st.lists(st.integers(1, 300), max_size=200).map(np.array)


@given(LENGTHS, st.integers(1, 1000), st.none() | st.integers(0, 99))
def test_batches_cover_every_row_once_within_the_budget(lengths, budget, seed):
    cut = batches(lengths, budget, seed)
    assert sorted(row for rows in cut for row in rows) == list(range(len(lengths)))
    for rows in cut:
        assert len(rows) == 1 or lengths[rows].max() * len(rows) <= budget


@given(LENGTHS, st.integers(0, 99))
def test_a_seed_fixes_the_batches_and_changes_no_count(lengths, seed):
    first, second = batches(lengths, 500, seed), batches(lengths, 500, seed)
    assert [rows.tolist() for rows in first] == [rows.tolist() for rows in second]
    assert len(first) == len(batches(lengths, 500, seed + 1))


def test_rows_of_one_length_are_mixed_anew_by_every_seed():
    lengths = np.full(1000, 10)
    assert sorted(batches(lengths, 100, 0)[0]) != sorted(batches(lengths, 100, 1)[0])


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=8), st.randoms())
def test_padding_changes_no_subword(texts, random):
    encoded = Encoded(
        categories=np.zeros((len(texts), 0), np.int64),
        numbers=np.zeros((len(texts), 0), np.float32),
        times=np.zeros((len(texts), 0, 3), np.float32),
        text=np.concatenate(texts).astype(np.int32),
        offsets=np.r_[0, np.cumsum([len(text) for text in texts])],
    )
    rows = np.array(random.sample(range(len(texts)), random.randint(1, len(texts))))
    padded = collate(encoded, rows, pad_id=0)["text"]
    assert padded.shape[1] == max(len(texts[row]) for row in rows)
    assert [[token for token in row if token] for row in padded.tolist()] == [texts[row] for row in rows]
