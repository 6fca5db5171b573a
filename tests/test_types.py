"""Oracle: Python's own float(), str() and date.fromisoformat(), cell by cell; hand-made tables of truths."""

import math
import re
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.features.kinds import KINDS
from tasks.params import Target
from tasks.rows.casting import as_text, cast_column, cast_target, event_day, parse_time

GARBAGE = st.one_of(
    st.none(),
    st.text(max_size=6),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    st.lists(st.integers(), max_size=2),
    st.just({"a": 1}),
    st.sampled_from(
        [
            "1",
            " 2.5 ",
            "1e3",
            "1e999",
            "1e-999",
            "9007199254740992",
            "9007199254740993",
            "today",
            "now",
            "2024",
            "2024-02",
            "-0001-01-01",
            "0000-01-01",
            "nan",
            "inf",
            "-0",
            "007",
            "2024-02-29",
            "2024-02-30",
            "20240229",
            "2024-02-29T12:30:00+02:00",
            "12/31/2024",
            "1,5",
            "0x10",
            "",
            "1_0",
        ]
    ),
)


def number_or_nothing(cell):
    """What Python makes of a cell; decimal digits alone, nothing infinite, no integer that float() changes."""
    if isinstance(cell, str):
        if not set(cell.strip()) <= set("0123456789+-.eE"):
            return None
    elif not isinstance(cell, int | float):
        return None
    try:
        value = float(cell)
    except (ValueError, OverflowError):
        return None
    if isinstance(cell, str) and "e" not in cell.lower() and "." not in cell:
        cell = int(cell)
    changed = isinstance(cell, int) and int(value) != cell if math.isfinite(value) else True
    return None if changed or (value == 0 and re.search("[1-9]", str(cell).lower().partition("e")[0])) else value


@given(st.lists(GARBAGE, max_size=8))
@settings(max_examples=150, deadline=None)
def test_cell_is_a_number_where_python_says_so_and_else_a_misfit(cells):
    numbers, misfit = cast_column(pd.Series(cells, dtype=object), "number")
    assert numbers.dtype == "float64"
    for cell, number, bad in zip(cells, numbers, misfit, strict=True):
        wanted = number_or_nothing(cell)
        assert math.isnan(number) if wanted is None else math.isclose(number, wanted, rel_tol=1e-15), cell
        missing = cell is None or (isinstance(cell, float) and math.isnan(cell))
        assert bad == (wanted is None and not missing), cell


@given(st.lists(GARBAGE, max_size=8), st.sampled_from(list(KINDS)))
@settings(max_examples=150, deadline=None)
def test_cell_is_missing_typed_or_a_misfit_and_never_two_of_them(cells, kind):
    values = pd.Series(cells, dtype=object)
    typed, misfit = cast_column(values, kind)
    assert list(typed.index) == list(misfit.index) == list(values.index)
    assert ((values.isna()).astype(int) + typed.notna().astype(int) + misfit.astype(int) == 1).all()


@given(st.lists(st.text(max_size=8), max_size=8))
@settings(deadline=None)
def test_text_stays_as_it_is(cells):
    for kind in ("category", "text"):
        texts, misfit = cast_column(pd.Series(cells, dtype="str"), kind)
        assert list(texts) == cells
        assert not misfit.any()


def test_containers_are_no_text():
    texts, misfit = cast_column(pd.Series([["a"], {"a": 1}, np.array([1]), "a", 3, None], dtype=object), "text")
    assert misfit.tolist() == [True, True, True, False, False, False]
    assert texts[4] == "3"


def test_bare_numbers_are_no_dates():
    for values in (pd.Series([20240101, 5]), pd.Series([20240101, 5.5, True], dtype=object), pd.Series([1.5, np.nan])):
        times, misfit = cast_column(values, "time")
        assert times.isna().all()
        assert (misfit == values.notna()).all()


@pytest.mark.parametrize("values", [pd.to_datetime(["2024-01-01", None]), pd.to_timedelta(["1s", None])])
def test_moment_and_duration_are_no_numbers(values):
    for cells in (pd.Series(values), pd.Series(values).astype(object)):
        numbers, misfit = cast_column(cells, "number")
        assert numbers.isna().all()
        assert misfit.tolist() == [True, False]


def test_integer_that_a_float_would_round_is_no_number_whatever_its_type():
    long = 2**53 + 1
    for cells in ([long], pd.array([long], "Int64"), pd.array([long], "UInt64"), [str(long)], [Decimal(long)]):
        numbers, misfit = cast_column(pd.Series(cells), "number")
        assert numbers.isna().all()
        assert misfit.all()
    assert cast_column(pd.Series([2**60, -(2**53)]), "number")[0].tolist() == [2.0**60, -(2.0**53)]


def test_year_that_no_calendar_has_is_no_time():
    far = pd.Series(pa.array([2**62, 0], pa.timestamp("us")).to_pandas())
    assert parse_time(far).isna().tolist() == [True, False]


def test_times_are_read_in_utc_and_nothing_but_iso_8601():
    told = [
        "2024-02-29",
        "2024-02-29T23:30:00-02:00",
        "2024-02-29 12:00",
        "2024-02-30",
        "29.02.2024",
        "today",
        "2024-02",
        "-0001-01-01",
        "0000-01-01",
        None,
        "9999-12-31",
        datetime(2024, 1, 1, 5),
        date(2024, 1, 2),
        "1500-01-01",
    ]
    times = parse_time(pd.Series(told, dtype=object))
    assert times.dtype == "datetime64[s]"
    assert times.astype(object).map(str).tolist() == [
        "2024-02-29 00:00:00",
        "2024-03-01 01:30:00",
        "2024-02-29 12:00:00",
        "NaT",
        "NaT",
        "NaT",
        "NaT",
        "NaT",
        "NaT",
        "NaT",
        "9999-12-31 00:00:00",
        "2024-01-01 05:00:00",
        "2024-01-02 00:00:00",
        "1500-01-01 00:00:00",
    ]
    assert event_day(pd.Series(told, dtype=object))[1] == "2024-03-01"


@pytest.mark.parametrize(
    "reader",
    [
        pd.Series([1, 2, 3]),
        pd.Series([1.0, 2.0, 3.0]),
        pd.Series(["1", "2", "3"]),
        pd.Series([1, 2, 3], dtype=object),
        pd.Series([1.0, 2, "3"], dtype=object),
        pd.Series([1, 2, 3], dtype="Int64"),
    ],
)
def test_text_of_a_cell_does_not_depend_on_the_type_a_reader_chose(reader):
    assert as_text(reader).tolist() == ["1", "2", "3"]


def test_text_of_a_cell_does_not_depend_on_its_neighbours():
    midnight, noon = pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-01 12:00")
    assert as_text(pd.Series([midnight]))[0] == as_text(pd.Series([midnight, noon]))[0] == "2024-01-01 00:00:00"
    assert as_text(pd.Series([3.0, 2.5, np.nan])).tolist()[:2] == ["3", "2.5"]
    assert as_text(pd.Series([Decimal("1.50"), None], dtype=object))[0] == "1.50"


def test_binary_truth_is_read_from_numbers_words_and_booleans():
    told = pd.Series([0, 1, 0.0, 1.0, "0", "1", "1.0", True, False, "true", "FALSE", "yes", 2, "", None], dtype=object)
    truth, misfit = cast_target(told, Target(name="y", task="binary"))
    assert truth.dtype == "Int8"
    assert truth[:11].tolist() == [0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0]
    assert misfit.tolist() == [False] * 11 + [True] * 3 + [False]


def test_labels_of_a_set_are_sorted_unique_and_joined():
    told = pd.Series(["b|a", "a| b |a", ["b", "a"], np.array(["a"]), "", [], None], dtype=object)
    truth, misfit = cast_target(told, Target(name="y", task="multilabel"))
    assert truth[:6].tolist() == ["a|b", "a|b", "a|b", "a", "", ""]
    assert truth.isna().tolist() == [False] * 6 + [True]
    assert not misfit.any()


def test_truths_of_regression_are_numbers_and_of_classes_are_text():
    truth, misfit = cast_target(pd.Series(["1.5", "much", None]), Target(name="y", task="regression"))
    assert (truth[0], misfit.tolist()) == (1.5, [False, True, False])
    truth, misfit = cast_target(pd.Series([1.0, 2.0, np.nan]), Target(name="y", task="multiclass"))
    assert truth[:2].tolist() == ["1", "2"]
    assert not misfit.any()


@pytest.mark.parametrize("as_object", [False, True])
def test_fraction_of_a_second_in_one_cell_does_not_lose_another_date(as_object):
    cells = pd.Series(
        ["9999-12-31", "2024-01-01T08:00:00.1234567", "0001-01-01T00:00:00,123456789+01:00", "2024-02-30"]
    )
    times = parse_time(cells.astype(object) if as_object else cells)
    assert times.dt.strftime("%Y-%m-%dT%H:%M:%S").tolist()[:2] == ["9999-12-31T00:00:00", "2024-01-01T08:00:00"]
    assert times.isna().tolist() == [False, False, True, True]


def test_dates_are_read_as_their_texts_are():
    days = [date(2024, 2, 29), None, date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29)]
    texts = pd.Series([day and day.isoformat() for day in days], index=[4, 3, 9, 8, 7], dtype="str")
    pd.testing.assert_series_equal(parse_time(pd.Series(days, texts.index, dtype=object)), parse_time(texts))
    assert parse_time(pd.Series([None, None], dtype=object)).isna().all()
    mixed = pd.Series([date(2024, 2, 29), "2024-03-01T05:00:00+05:00"], dtype=object)
    assert parse_time(mixed).dt.strftime("%m-%d").tolist() == ["02-29", "03-01"]
