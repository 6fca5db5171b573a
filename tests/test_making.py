"""Oracle: cells counted by hand, shares that a law gives, and two samples of one source that cannot be told apart."""

import numpy as np
import pandas as pd
import pytest

from model.evaluation.likeness import distinguishability, learnable_column, marginals, usefulness
from model.features.fitted import Features
from model.features.kinds import guessed_columns, kind_class
from model.network.network import Network
from model.scoring.synthesis import BLOCK_ROWS, RowMaker, draw_choices
from model.settings import NetworkSettings
from model.target import Target

SMALL = NetworkSettings(d_model=8, n_layers=1, n_heads=2, d_feedforward=8)


def maker(kind, cells):
    fitted = Features.fit({"cell": kind}, {"cell": cells}, None, "reconstruct", max_tokens=8).fitted[kind]
    return kind_class(kind).maker(fitted.columns["cell"], cells)


def drawn(made, n=4000, seed=0):
    """Cells whose choices are drawn evenly among those that are seen."""
    random = np.random.default_rng(seed)
    choices = np.stack([random.choice(np.flatnonzero(seen), n) for seen in made.seen], axis=1)
    return made.cells(choices, random.random((n, 2)))


def a_row_maker(kinds, table):
    """A maker of rows by a network that has learnt nothing."""
    features = Features.fit(kinds, table, None, "reconstruct", max_tokens=8)
    target = Target(task="reconstruct", classes=tuple(guessed_columns(kinds)))
    return RowMaker(Network(SMALL, features.sizes, target), features, table, seed=0)


def test_made_numbers_that_come_again_are_known_ones_and_others_lie_between():
    prices = np.random.default_rng(0).choice([1.5, 2.25, 9.0, np.nan], 500)
    found = drawn(maker("number", prices))
    assert set(found[~np.isnan(found)]) == {1.5, 2.25, 9.0}
    assert np.isnan(found).any()
    weights = np.round(np.random.default_rng(0).normal(size=2000), 3)
    found = drawn(maker("number", weights))
    assert not np.isnan(found).any()
    assert weights.min() <= found.min() < found.max() <= weights.max()
    assert not set(found) <= set(weights)
    assert (np.round(found, 3) == found).all()


def test_made_times_have_known_hours_and_dates_of_their_weekday():
    days = np.datetime64("2024-01-01") + np.arange(20)  # less than a year: the month is not read
    known = days + np.where(np.arange(20) % 2, 9 * 60 + 15, 17 * 60).astype("timedelta64[m]")
    made = maker("time", known.astype("datetime64[s]"))
    hours, weekdays = (np.flatnonzero(seen) for seen in made.seen)
    assert hours.tolist() == [9, 17]
    assert weekdays.tolist() == [*range(7)]
    choices = np.array([[9, 2], [17, 2], [9, 6]])
    found = pd.DatetimeIndex(made.cells(choices, np.full((3, 2), 0.5)))
    assert found.weekday.tolist() == [2, 2, 6]
    assert found.strftime("%H:%M").tolist() == ["09:15", "17:00", "09:15"]
    assert set(found.normalize()) <= set(pd.DatetimeIndex(days))


@pytest.mark.parametrize("kind", ["category", "number", "time"])
def test_made_cells_of_a_column_that_is_all_missing_are_missing(kind):
    cells = {
        "category": np.full(50, None, object),
        "number": np.full(50, np.nan),
        "time": np.full(50, "NaT", "datetime64[s]"),
    }[kind]
    made = a_row_maker({"cell": kind, "other": "category"}, {"cell": cells, "other": np.array(["a", "b"] * 25, object)})
    ((numbers, table),) = made.rows(0, 40)
    assert numbers == range(40)
    assert pd.isna(table["cell"]).all()
    assert set(table["other"]) == {"a", "b"}


def test_made_cells_of_a_constant_column_are_the_constant():
    n = 60
    table = {
        "word": np.full(n, "same", object),
        "number": np.full(n, 7.0),
        "time": np.full(n, "2024-02-29T12:30:05", "datetime64[s]"),
    }
    ((_, made),) = a_row_maker({"word": "category", "number": "number", "time": "time"}, table).rows(0, 30)
    assert all((made[name] == cells[0]).all() for name, cells in table.items())


def test_words_that_no_known_row_has_are_not_made():
    made = maker("category", np.array(["a", "b", None], object))
    assert made.seen[0].tolist() == [True, False, True, True]  # missing, another value, a, b
    assert set(drawn(made)) == {None, "a", "b"}
    fitted = Features.fit({"c": "category"}, {"c": np.array(["a", "b"], object)}, None, "", max_tokens=8)
    seen = kind_class("category").maker(fitted.fitted["category"].columns["c"], np.array(["new", "a"], object)).seen
    assert seen[0].tolist() == [False, False, True, False]


def test_rows_are_made_from_any_number_to_any_other():
    made = a_row_maker({"a": "category", "b": "number"}, {"a": np.array(["x", "y"], object), "b": np.arange(2.0)})
    blocks = list(made.rows(BLOCK_ROWS - 3, BLOCK_ROWS + 2))
    assert [list(numbers) for numbers, _ in blocks] == [[509, 510, 511], [512, 513]]
    assert [len(table["a"]) for _, table in blocks] == [3, 2]


def test_choices_are_drawn_by_their_probabilities():
    draws = np.random.default_rng(0).random(20_000)
    logits = np.log(np.array([[0.5, 0.2, 0.3]])).repeat(len(draws), 0)
    shares = np.bincount(draw_choices(logits, np.array([True, True, False]), draws), minlength=3) / len(draws)
    assert shares == pytest.approx([5 / 7, 2 / 7, 0], abs=0.02)
    extreme = draw_choices(np.array([[-1e30, 80.0], [0.0, 0.0]]), np.array([True, True]), np.array([0.999999, 0.0]))
    assert extreme.tolist() == [1, 0]


def a_table(n, seed, noise=0.1):
    random = np.random.default_rng(seed)
    color = random.choice(["red", "green", "blue"], n).astype(object)
    size = np.array([len(each) for each in color]) + random.normal(scale=noise, size=n)
    return {"color": color, "size": np.where(random.random(n) < 0.1, np.nan, size)}


KINDS = {"color": "category", "size": "number"}


def test_rows_of_one_source_are_not_told_apart_and_others_are():
    same = distinguishability(KINDS, a_table(600, 0), a_table(900, 1), seed=0)
    other = distinguishability(KINDS, a_table(600, 0), {**a_table(600, 1), "size": np.full(600, 4.0)}, seed=0)
    assert same.interval_95[0] < 0.5 < same.interval_95[1]
    assert other.auc > 0.95
    assert distinguishability(KINDS, a_table(600, 0), a_table(2, 1), seed=0) is None


def test_what_is_learnt_from_shuffled_rows_is_worth_nothing():
    held_out, real, made = a_table(500, 0), a_table(500, 1), a_table(500, 2)
    assert learnable_column(KINDS, real) == "color"
    same = usefulness(KINDS, real, made, held_out, seed=0)
    assert same.from_made == pytest.approx(same.from_real, abs=0.03)
    assert same.from_real > 0.9 > 0.5 > same.constant
    shuffled = usefulness(KINDS, real, {**made, "size": made["size"][::-1]}, held_out, seed=0)
    assert shuffled.from_made < 0.5
    assert shuffled.loss_interval_95[0] > 0.3
    number = usefulness({"size": "number", "color": "category"}, real, made, {**held_out}, seed=0)
    assert number.metric == "accuracy"
    constant = {**real, "color": np.full(500, "red", object)}
    assert usefulness(KINDS, constant, made, held_out, seed=0).column == "size"


def test_shares_of_values_are_as_counted():
    real = {"color": np.array(["a", "a", "b", None], object), "size": np.array([0.0, 0.0, 1.0, np.nan])}
    made = {"color": np.array(["a", "b", "b", "b"], object), "size": np.array([0.0, 0.0, 1.0, 1.0])}
    color, size = marginals(KINDS, real, made)
    assert [(each.value, each.real, each.made) for each in color.shares] == [
        ("b", 0.25, 0.75),
        ("a", 0.5, 0.25),
        ("missing", 0.25, 0.0),
    ]
    assert color.difference == 0.5
    assert size.difference == 0.25
    assert size.shares[-1].value == "missing"
