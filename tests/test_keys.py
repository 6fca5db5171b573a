"""Oracle: the keys themselves, compared as tuples; hashlib over one text at a time."""

import hashlib

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.rows.keys import digests, key_digests, key_text

PARTS = st.one_of(st.none(), st.text(alphabet="1:a\x1f", max_size=4))


@given(st.lists(st.tuples(PARTS, PARTS), max_size=30))
@settings(max_examples=50, deadline=None)
def test_keys_that_differ_have_texts_that_differ_and_incomplete_ones_have_none(keys):
    texts = key_text(pd.DataFrame(keys, columns=["a", "b"], dtype="str"), ["a", "b"])
    assert list(texts.isna()) == [None in key for key in keys]
    whole = [key for key in keys if None not in key]
    assert len(set(texts.dropna())) == len(set(whole))
    for digest in (digests, key_digests):
        assert len({*map(tuple, digest(texts.dropna()).tolist())}) == len(set(whole))


def test_digest_is_the_beginning_of_sha256():
    found = digests(pd.Series(["a", None, "é"], dtype="str"))
    for row, text in zip(found, ["a", "", "é"], strict=True):
        assert row.astype(">u8").tobytes() == hashlib.sha256(text.encode()).digest()[:16]
    assert digests(pd.Series(dtype="str")).shape == (0, 2)
