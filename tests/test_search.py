"""Oracle: losses drawn by a law in which one slice, or none, is worse than the others; pandas' own means."""

import numpy as np
import pandas as pd
import pytest
from builders import a_product

from tasks.rows.model_inputs import split_part
from tasks.rows.partitions import write_table
from tasks.runtime.paths import Paths
from tasks.training.held_out.search import FoundSlice, conditions_of, find, row_losses, search_slices

KINDS = {**{f"c{i}": "category" for i in range(4)}, **{f"x{i}": "number" for i in range(4)}, "w": "time"}


def a_table(random, n=5000):
    table = pd.DataFrame({f"c{i}": random.choice([f"v{j}" for j in range(8)], n) for i in range(4)})
    for i in range(4):
        table[f"x{i}"] = np.where(random.random(n) < 0.1, np.nan, random.normal(size=n))
    table["w"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 100, n), "D")
    return table


def noise(random, day):
    """Losses of which those of a day have something in common."""
    return np.abs(random.normal(scale=0.2, size=len(day))) + random.normal(scale=0.02, size=day.max() + 1)[day]


@pytest.mark.parametrize("n_days", [4, 7, 14])
def test_where_no_slice_is_worse_hardly_one_is_told(n_days):
    random, told = np.random.default_rng(n_days), 0
    for _ in range(20):
        table = a_table(random, 3000)
        day = random.integers(0, n_days, len(table))
        loss = noise(random, day)
        told += bool(find(table, KINDS, loss, loss, day))
    assert told <= 2


WORSE = {
    "a value": (["c1=v3"], lambda table: table["c1"] == "v3"),
    "two conditions": (["c0=v3", "< x1"], lambda table: (table["c0"] == "v3") & (table["x1"] > 0)),
    "missing": (["x2 is missing"], lambda table: table["x2"].isna()),
    "a weekday": (["w is a Sunday"], lambda table: table["w"].dt.dayofweek == 6),
}


@pytest.mark.parametrize("name", WORSE)
def test_slice_that_is_worse_is_found_with_its_losses(name):
    words, rule = WORSE[name]
    random = np.random.default_rng(2)
    table = a_table(random)
    day, inside = random.integers(0, 7, len(table)), rule(table).to_numpy()
    baseline = noise(random, day)
    loss = noise(random, day) + 0.15 * inside
    found = find(table, KINDS, loss, baseline, day)[0]
    assert all(word in found.name for word in words), found.name
    assert found.excess_interval[0] > 0
    assert found.baseline_loss == pytest.approx(baseline[inside].mean(), abs=0.02)
    if name != "two conditions":  # of a number the bounds are quarters, not 0
        assert found.rows == inside.sum()
        assert found.loss == pytest.approx(loss[inside].mean())
        assert found.loss_elsewhere == pytest.approx(loss[~inside].mean())
    assert FoundSlice.from_json(found.to_json()) == found


def test_what_the_other_days_do_not_confirm_is_not_told():
    random = np.random.default_rng(4)
    table = a_table(random)
    day = random.integers(0, 10, len(table))
    worse = (table["c1"] == "v3").to_numpy() & (day % 2 == 0)
    assert find(table, KINDS, noise(random, day) + 0.3 * worse, noise(random, day), day) == ()
    assert find(table, KINDS, np.zeros(len(table)), np.zeros(len(table)), day) == ()


def test_quarters_of_a_number_part_all_rows_that_have_it():
    column = pd.Series([3.0, 1.0, np.nan, 2.0, 4.0, 2.0], name="x")
    quarters = conditions_of(column, "number", np.ones(6, bool))
    assert quarters.names == ["x <= 2", "2 < x <= 3", "3 < x", "x is missing"]
    for name, code in zip(quarters.names[:-1], range(len(quarters.names)), strict=False):
        query = name if name.count("<") < 2 else name.replace(" < x <= ", " < x and x <= ")
        assert column[quarters.code == code].index.equals(column.to_frame().query(query).index)
    assert column[quarters.code == len(quarters.names) - 1].isna().all()


def test_loss_of_a_row_is_that_of_its_task():
    y, p = np.array([1, 0]), np.array([0.75, 0.5])
    assert row_losses(y, p, True).tolist() == [0.0625, 0.25]
    assert row_losses(np.array([1.0, 5.0]), np.array([3.0, 4.0]), False).tolist() == [2.0, 1.0]
    shares = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    assert row_losses(np.array([0, 2]), shares, True).tolist() == [0.375, 0.0]
    assert row_losses(np.array([[1, 0, 0], [0, 0, 0]]), shares, True).tolist() == [0.375, 1.0]


def test_search_of_many_columns_leaves_texts_out(workspace):
    random, n = np.random.default_rng(6), 20_000
    table = pd.DataFrame({f"n{i}": random.normal(size=n) for i in range(40)})
    table["words"] = "rain and hail"
    table["day"] = (pd.Timestamp("2024-02-01") + pd.to_timedelta(random.integers(0, 7, n), "D")).astype("datetime64[s]")
    write_table(Paths("tiny").splits / "test.parquet", table.assign(late=0))
    columns = {**{f"n{i}": "number" for i in range(40)}, "words": "text"}
    product = a_product(columns=columns, expectations=[])
    y = random.integers(0, 2, n)
    p = np.where(table["n7"] > 1, 0.5, 0.9 * y + 0.05)
    found = search_slices(product, split_part(Paths("tiny").splits, "test", product), y, p, p)
    assert "n7" in found[0].name
    none = search_slices(product, split_part(Paths("tiny").splits, "test", product), y, np.full(n, np.nan), p)
    assert none == ()
