"""Oracle: tables whose copies, row numbers and leaks were put in by hand; tables of scikit-learn that have none."""

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
from builders import a_product

from model.evaluation.columns import look
from model.features.kinds.time import Time
from model.heads import head_of
from tasks.rows.partitions import write_table
from tasks.runtime.paths import Paths
from tasks.split import look_at_columns

N = 800
PATHS = Paths("tiny")


def customers(seed=0):
    """Customers who leave, more of them with a high price; columns that give it away can be added."""
    random = np.random.default_rng(seed)
    price, days = random.normal(50, 10, N), random.integers(1, 900, N).astype(float)
    leaves = (random.random(N) < 1 / (1 + np.exp(-(price - 55) / 8))).astype(int)
    region = random.choice(np.array(["north", "south", None], object), N)
    return {"price": price, "days": days, "region": region}, leaves, random


KINDS = {"price": "number", "days": "number", "region": "category"}


def found(kinds, table, y, task="binary"):
    return {each.column: each.hint for each in look(kinds, table, y, head_of(task), len(y))}


def test_honest_columns_raise_no_alarm():
    table, leaves, _ = customers()
    assert found(KINDS, table, leaves) == {}
    assert found(KINDS, {name: cells[:60] for name, cells in table.items()}, leaves[:60]) == {}


@pytest.mark.parametrize(
    ("load", "task"),
    [
        (sklearn.datasets.load_iris, "multiclass"),
        (sklearn.datasets.load_wine, "multiclass"),
        (sklearn.datasets.load_breast_cancer, "binary"),
        (sklearn.datasets.load_diabetes, "regression"),
    ],
)
def test_tables_of_scikit_learn_raise_no_alarm(load, task):
    bunch = load()
    table = {f"x{i}": column for i, column in enumerate(bunch.data.T.astype(float))}
    assert found(dict.fromkeys(table, "number"), table, bunch.target, task) == {}


def test_copies_are_pointed_out_in_another_unit_and_sign_too():
    table, leaves, _ = customers()
    table |= {"cents": table["price"] * 100 + 7, "discount": -table["price"], "area": table["region"].copy()}
    hints = found({**KINDS, "cents": "number", "discount": "number", "area": "category"}, table, leaves)
    assert set(hints) == {"cents", "discount", "area"}
    assert hints["cents"].startswith("columns.cents says the same as columns.price")
    assert hints["area"].endswith("delete one of the two")


def test_names_and_numbers_of_rows_are_pointed_out():
    table, leaves, random = customers()
    table |= {
        "customer": np.array([f"c{i}" for i in random.permutation(N)], object),
        "number": random.permutation(N).astype(float) + 1000,
        "meter": np.sort(random.exponential(1, N)).cumsum(),
    }
    hints = found({**KINDS, "customer": "category", "number": "number", "meter": "number"}, table, leaves)
    assert set(hints) == {"customer", "number", "meter"}
    assert "800 different values in 800 rows" in hints["customer"]
    assert "c1" not in " ".join(hints.values()).replace("columns", "")


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
def test_what_gives_the_answer_away_is_pointed_out(task):
    table, leaves, random = customers()
    y = leaves if task == "binary" else table["price"] * 2 + random.normal(0, 5, N)
    if task == "multiclass":
        y = random.integers(0, 3, N)
    leak = 3 * y + 7 + random.normal(0, 0.01, N)
    hints = found({**KINDS, "final_bill": "number"}, {**table, "final_bill": leak}, y, task)
    assert "final_bill" in hints
    assert "is it known when a row is scored" in hints["final_bill"]
    status = np.array(["open", "closed", "paid"], object)[np.clip(y, 0, 2).astype(int)]
    if task != "regression":
        assert set(found({**KINDS, "status": "category"}, {**table, "status": status}, y, task)) == {"status"}


def test_a_leak_that_is_not_perfect_stands_out_from_the_others():
    table, leaves, random = customers()
    wrong = random.random(N) < 0.04
    flagged = np.where(wrong, 1 - leaves, leaves).astype(float)
    assert set(found({**KINDS, "closed": "number"}, {**table, "closed": flagged}, leaves)) == {"closed"}


def test_split_says_it_in_a_line_and_in_its_report(workspace):
    product = a_product()
    n = 300
    late = np.arange(n) % 2
    rows = {"depot": [f"d{i}" for i in range(n)], "weight_kg": 1.0 + late, "handed_in": pd.Timestamp("2024-01-01")}
    write_table(PATHS.splits / "train.parquet", pd.DataFrame(rows).assign(late=late))
    hints = [each.column for each in look_at_columns(product, PATHS.splits)]
    assert hints == ["depot", "weight_kg"]


def test_times_beyond_the_training_rows_read_as_the_last_of_them():
    times = np.arange(np.datetime64("2021-01-01"), np.datetime64("2023-01-01")).astype("datetime64[s]")
    fitted = Time.fit_column(times, None)
    later = np.array(["2024-03-01", "2035-03-01", "1990-03-01"], "datetime64[s]")
    encoded = Time.encode_column(later, fitted)
    inside = Time.encode_column(times, fitted)
    assert (encoded >= inside.min(0)).all()
    assert (encoded <= np.array([0, 6, 365, 1])).all()
    assert encoded[:, 3].tolist() == [1, 1, 0]
