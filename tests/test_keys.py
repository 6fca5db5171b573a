"""Oracle: the keys themselves, compared as tuples; hashlib over one text at a time."""

import hashlib

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.rows.keys import digests, key_text, seen_before

PARTS = st.one_of(st.none(), st.text(alphabet="1:a\x1f", max_size=4))


@given(st.lists(st.tuples(PARTS, PARTS), max_size=30))
@settings(max_examples=50, deadline=None)
def test_keys_that_differ_have_texts_that_differ_and_incomplete_ones_have_none(keys):
    texts = key_text(pd.DataFrame(keys, columns=["a", "b"], dtype="str"), ["a", "b"])
    assert list(texts.isna()) == [None in key for key in keys]
    whole = [key for key in keys if None not in key]
    assert len(set(texts.dropna())) == len(set(whole))
    again = seen_before(digests(texts))[texts.notna()]
    assert list(again) == [key in whole[:i] for i, key in enumerate(whole)]


def test_digest_is_the_beginning_of_sha256():
    found = digests(pd.Series(["a", None, "é"], dtype="str"))
    for row, text in zip(found, ["a", "", "é"], strict=True):
        assert row.astype(">u8").tobytes() == hashlib.sha256(text.encode()).digest()[:16]
    assert digests(pd.Series(dtype="str")).shape == (0, 2)


def test_rows_that_share_half_a_digest_are_two():
    found = np.array([[1, 2], [1, 3], [4, 2], [1, 2]], np.uint64)
    assert list(seen_before(found)) == [False, False, False, True]
