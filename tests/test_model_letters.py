"""Oracle: scikit-learn's groups of letters within words, and the hash computed with whole numbers one by one."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from model.features.letters import FACTOR, MIXER, N_LETTERS, N_SLOTS, SIZES, letter_groups

groups_in = CountVectorizer(analyzer="char_wb", ngram_range=(min(SIZES), max(SIZES))).build_analyzer()


def slot_of(group):
    """The number of one group, in Python's whole numbers."""
    number = 0
    for letter in group:
        number = (number * int(FACTOR) + ord(letter)) % 2**64
    return (number * int(MIXER)) % 2**64 >> 64 - N_SLOTS.bit_length() + 1


@given(st.lists(st.none() | st.text("aB é\n\u3000", max_size=12), max_size=6))
@settings(max_examples=60, deadline=None)
def test_groups_are_the_librarys_and_hang_on_their_own_text_alone(texts):
    rows, slots = letter_groups(np.array([*texts, "end"], object)[:-1])
    for row, text in enumerate(texts):
        expected = {slot_of(group) for group in groups_in(text or "")}
        assert set(slots[rows == row].tolist()) == expected
    assert ((slots >= 0) & (slots < N_SLOTS)).all()


def test_only_the_beginning_of_a_long_text_is_read():
    _, slots = letter_groups(np.array(["a" * N_LETTERS, "a" * N_LETTERS + "bcd"], object))
    assert slots.tolist().count(slot_of("ab")) == 0


def test_groups_share_slots_no_more_than_by_chance():
    names = [f"{number:06d}" for number in range(0, 999_999, 37)]
    groups = {group for name in names for group in groups_in(name)}
    _, slots = letter_groups(np.array(names, object))
    by_chance = N_SLOTS * (1 - np.exp(-len(groups) / N_SLOTS))
    assert len(np.unique(slots)) > 0.97 * by_chance
