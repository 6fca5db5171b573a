"""Oracle: pandas' own query on the same table, and scikit-learn on the rows of one slice alone."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import a_product, declared, mistakes, to_split
from sklearn.metrics import roc_auc_score

from model.heads.prediction_rule import PredictionRule
from tasks.params import slice_rule
from tasks.quality.trust import rules_of
from tasks.rows.model_inputs import split_part
from tasks.rows.partitions import read_tables, write_table
from tasks.rows.slices.declared import MAX_VALUES, declared_slices
from tasks.runtime.paths import Paths
from tasks.training.held_out.slices import MeasuredSlices, measure_slices

PATHS = Paths("tiny")


def a_table(n=400, seed=0):
    random = np.random.default_rng(seed)
    table = pd.DataFrame({"parcel_id": [f"{i:04d}" for i in range(n)]})
    table["depot"] = pd.array(random.choice(["D1", "D2", "D 3", None], n, p=[0.5, 0.3, 0.1, 0.1]), dtype="str")
    table["weight_kg"] = np.where(random.random(n) < 0.1, np.nan, random.integers(0, 40, n).astype(float))
    table["day"] = (pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n) % 40, "D")).astype("datetime64[s]")
    table["handed_in"] = table["day"].where(random.random(n) > 0.2)
    return table


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("weight_kg > 20", "weight_kg > 20"),
        ("weight_kg<=20.5", "weight_kg <= 20.5"),
        ("weight_kg == 7", "weight_kg == 7"),
        ("depot == D1", "depot == 'D1'"),
        ("depot != 'D 3'", "depot != 'D 3' and depot == depot"),
        ("day >= 2024-01-20", "day >= '2024-01-20'"),
        ("handed_in < 2024-01-20", "handed_in < '2024-01-20'"),
    ],
)
def test_rows_of_a_comparison_are_those_that_pandas_finds(text, query):
    table, column = a_table(), slice_rule(text).column
    is_so, is_not = declared_slices(table, a_product(slices={"some": text}))
    assert (is_so.name, is_not.name) == ("some", "not some")
    assert table[is_so.rows].equals(table.query(query))
    assert table[is_not.rows].equals(table.drop(table.query(query).index).dropna(subset=[column]))


def test_every_value_of_a_column_is_a_slice_with_a_name_of_its_own():
    table = a_table()
    found = {each.name: each.rows.sum() for each in declared_slices(table, a_product(slices={"at": "depot"}))}
    counts = table["depot"].value_counts()
    assert found == {
        "at=D 3": counts["D 3"],
        "at=D1": counts["D1"],
        "at=D2": counts["D2"],
        "at is missing": table["depot"].isna().sum(),
    }
    numbers = declared_slices(table, a_product(slices={"kg": "weight_kg"}))
    assert len(numbers) == MAX_VALUES + 1
    assert {each.name for each in numbers} < {f"kg={n}" for n in range(40)} | {"kg is missing"}
    frequent = table["weight_kg"].value_counts()
    assert min(each.rows.sum() for each in numbers if "missing" not in each.name) >= frequent.iloc[MAX_VALUES]


def test_names_do_not_depend_on_order_and_other_rows():
    table, product = a_table(), a_product(slices={"at": "depot", "heavy": "weight_kg > 20"})
    whole = {each.name: {*table["parcel_id"][each.rows]} for each in declared_slices(table, product)}
    turned = table[::-1].iloc[:300]
    part = {each.name: {*turned["parcel_id"][each.rows]} for each in declared_slices(turned, product)}
    assert part == {name: rows & {*turned["parcel_id"]} for name, rows in whole.items()}


@pytest.mark.parametrize(
    ("slices", "told"),
    [
        ({"a b": "depot"}, "slices must have names of letters, digits, _ and -, got 'a b'; rename it"),
        (
            {"some": "len(depot) > 2"},
            "slices.some must be a column, or a column, one of == != <= >= < >, and a value, got 'len(depot) > 2'; "
            'use for example "distance_miles > 1500"',
        ),
        (
            {"some": "weight_kg > heavy"},
            "slices.some must compare the number weight_kg with a number, got 'heavy'; correct it",
        ),
        (
            {"some": "weight_kg > nan"},
            "slices.some must compare the number weight_kg with a number, got 'nan'; correct it",
        ),
        ({"some": "depot > 3"}, "slices.some must compare the category depot by == or !=, got >; correct it"),
        (
            {"some": "handed_in > 3"},
            "slices.some must compare the time handed_in with a date, got '3'; use for example 2013-06-30",
        ),
        (
            {"some": "handed_in"},
            "slices.some must be of a column with values that come often, got the time handed_in; compare it with a "
            "date",
        ),
        ({"some": "late"}, "slices.some must not be of the target, got late; name a column that is known beforehand"),
        (
            {"some": "dt"},
            "slices must not be a name that the stages add themselves, got 'dt'; use another, and say under "
            "source.names which column of the source it is",
        ),
        ({f"s{i}": "depot" for i in range(21)}, "slices must have at most 20 entries, got 21; delete some"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_slices_that_no_row_could_be_in_are_refused(slices, told):
    assert mistakes(declared(slices=slices)) == [f"products.tiny.{told}"]


def test_personal_column_of_a_slice_is_hashed_and_never_dropped():
    slices = {"by_region": "region"}
    assert a_product(slices=slices, pii={"region": "hash"}).slice_columns == {"region": "category"}
    assert mistakes(declared(slices=slices, pii={"region": "drop"})) == [
        "products.tiny.pii.region must not be a column that is used, got drop; delete it there, or use hash"
    ]


def test_column_of_a_slice_alone_is_stored_and_no_input_of_the_model(workspace):
    slices = {"by_region": "region", "old": "age_days >= 30", "recent": "seen > 2024-01-01"}
    product = a_product(slices=slices, model__init="scratch", expectations=[])
    assert product.slice_columns == {"region": "category", "age_days": "number", "seen": "time"}
    table = pd.concat([a_table(10).assign(day=day) for day in pd.date_range("2024-01-01", periods=41)])
    table["parcel_id"] = [f"{i:04d}" for i in range(len(table))]
    table = table.assign(region="north", age_days=31, seen="2024-01-02", late=np.arange(len(table)) % 2)
    Path("source").mkdir()
    table.to_csv("source/parcels.csv", index=False)
    to_split(product, date(2024, 2, 9))
    stored = read_tables(PATHS.valid / "rows")
    assert (stored["region"] == "north").all()
    assert (stored["age_days"] == 31.0).all()
    test = split_part(PATHS.splits, "test", product)
    assert set(test.read_all()) == set(product.columns)
    names = [each.name for each in declared_slices(test.columns(["region", "age_days", "seen"]), product)]
    assert names == ["by_region=north", "old", "recent"]
    assert rules_of(product) != rules_of(a_product(model__init="scratch", expectations=[]))


def held_out(product, n=600):
    """Held-out rows with labels, and scores that know nothing of those at D2."""
    random = np.random.default_rng(3)
    table = a_table(n).assign(late=pd.Series(random.integers(0, 2, n)).astype("Int8"))
    write_table(PATHS.splits / "test.parquet", table)
    y = table["late"].to_numpy(int)
    knows = (table["depot"] != "D2").fillna(True).to_numpy(float)
    scores = 1 / (1 + np.exp(-(2 * y - 1) * knows - random.normal(size=n)))
    return table, y, scores.astype("float32"), split_part(PATHS.splits, "test", product)


def test_metric_of_a_slice_is_that_of_its_rows_alone(workspace):
    product = a_product(slices={"at": "depot", "heavy": "weight_kg > 20"}, gates__slices={"min_rows": 100})
    table, y, scores, rows = held_out(product)
    found = measure_slices(product, rows, y, scores, PredictionRule())
    of_depot = {each.name: each for each in found.slices}
    for name in ("D1", "D2"):
        at = (table["depot"] == name).fillna(False).to_numpy(bool)
        each = of_depot[f"at={name}"]
        assert each.rows == at.sum()
        assert each.value == pytest.approx(roc_auc_score(y[at], scores[at]))
        assert each.interval_95[0] < each.value < each.interval_95[1]
    few = of_depot["at=D 3"]
    assert (few.value, few.interval_95) == (None, None)
    assert few.rows == (table["depot"] == "D 3").sum() < 100
    gap = found.gaps[0]
    assert (gap.declaration, gap.highest, gap.lowest) == ("at", "at=D1", "at=D2")
    assert gap.value == pytest.approx(of_depot["at=D1"].value - of_depot["at=D2"].value)
    assert 0 < gap.interval_95[0] < gap.value < gap.interval_95[1]
    assert set(found.metrics()) == {"at=D1", "at=D2", "heavy", "not heavy"}
    assert "4 of 6 slices have 100 held-out rows or more, auc from" in found.summary
    assert "D1" not in found.summary, "a log holds no value of the data"
    assert MeasuredSlices.from_json(found.to_json()) == found


def test_metric_that_a_slice_does_not_define_is_said_to_be_none(workspace):
    product = a_product(slices={"at": "depot"}, gates__slices={"min_rows": 1})
    table, y, scores, rows = held_out(product)
    y = np.where((table["depot"] == "D1").fillna(False), 1, y)
    found = {each.name: each.value for each in measure_slices(product, rows, y, scores, PredictionRule()).slices}
    assert found["at=D1"] is None
    assert found["at=D2"] is not None
    assert measure_slices(a_product(), rows, y, scores, PredictionRule()) is None


@pytest.mark.long
@pytest.mark.slow
def test_interval_of_a_slice_covers_what_it_should(workspace):
    """Forty days with a noise of their own; the truth is the AUC of the law that the rows are drawn from."""
    from scipy.stats import norm

    random, truth, covered = np.random.default_rng(5), norm.cdf(1 / np.sqrt(2) * 1.0), 0
    product = a_product(slices={"at": "depot"}, gates__slices={"min_rows": 50})
    table = a_table(800).assign(late=0)
    write_table(PATHS.splits / "test.parquet", table)
    rows = split_part(PATHS.splits, "test", product)
    for _ in range(60):
        y = random.integers(0, 2, 800)
        scores = norm.cdf(y + random.normal(size=800))
        found = measure_slices(product, rows, y, scores, PredictionRule()).slices[1]
        covered += found.interval_95[0] <= truth <= found.interval_95[1]
    assert covered >= 52
