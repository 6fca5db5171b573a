"""Oracle: the whole part read at once, and its rows filtered by hand."""

import numpy as np
import pandas as pd
import pytest
from builders import a_product

from tasks.rows import model_inputs
from tasks.rows.partitions import write_table
from tasks.runtime.errors import UserError

KINDS = {"colour": "category", "size": "number", "when": "time", "note": "text"}
N = 25


@pytest.fixture
def part(tmp_path, monkeypatch):
    """A product, and one part of its split in row groups of four rows."""
    monkeypatch.setattr("tasks.rows.partitions.ROWS_AT_ONCE", 4)
    product = a_product(
        columns=KINDS, expectations=[], target__task="multiclass", gates__metric="macro_f1", split__group=None
    )
    rows = model_inputs.no_rows(product).reindex(range(N))
    rows["parcel_id"] = [f"{i:02d}" for i in range(N)]
    rows["colour"] = pd.Series([None if i % 5 == 0 else f"c{i % 3}" for i in range(N)], dtype="str")
    rows["size"] = [np.nan if i % 7 == 0 else i / 3 for i in range(N)]
    rows["note"] = pd.Series([None if i % 4 == 0 else f"a note {i}" for i in range(N)], dtype="str")
    rows["when"] = pd.Series([None if i % 6 == 0 else f"2024-01-{i + 1:02d}" for i in range(N)]).astype("datetime64[s]")
    rows["late"] = pd.Series([f"class {i % 4}" for i in range(N)], dtype="str")
    write_table(tmp_path / "test.parquet", rows)
    return product, tmp_path


def joined(pieces):
    pieces = list(pieces)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in KINDS}


def same(one, other):
    for name in KINDS:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


def test_pieces_of_a_part_are_the_part_and_can_be_read_again(part):
    product, folder = part
    pieces = model_inputs.split_part(folder, "test", product)
    whole = model_inputs.inputs(pd.read_parquet(folder / "test.parquet"), product)
    for _ in range(2):
        same(joined(pieces), whole)
    assert max(len(piece["size"]) for piece in pieces) == 4
    assert whole["note"][0] is None
    assert list(pieces.labels["late"]) == list(pd.read_parquet(folder / "test.parquet")["late"])


def test_dates_of_a_part_are_counted_once_each(part):
    product, folder = part
    rows = pd.read_parquet(folder / "test.parquet")
    rows[product.time] = pd.date_range("2024-01-01T00:00", periods=N, freq="6h").astype("datetime64[s]")
    write_table(folder / "test.parquet", rows)
    assert model_inputs.split_part(folder, "test", product).n_days == 7


def test_answerable_rows_of_the_pieces_are_those_of_the_whole(part):
    product, folder = part
    known = ("class 1", "class 3")
    pieces, y = model_inputs.split_part(folder, "test", product).with_known_labels(known)
    rows = pd.read_parquet(folder / "test.parquet")
    same(joined(pieces), model_inputs.inputs(rows[rows["late"].isin(known)], product))
    assert y.tolist() == [i % 4 // 2 for i in range(N) if i % 2]
    assert len(pieces) == len(pieces.labels) == len(y)
    some, y_some = model_inputs.split_part(folder, "test", product).sample(10).with_known_labels(known)
    assert list(some.labels["late"]) == [known[its] for its in y_some]
    with pytest.raises(UserError, match=r"must hold a row whose label is one of the training rows, and holds none"):
        model_inputs.split_part(folder, "test", product).with_known_labels(("class 9",))
    fewer = pieces.sample(4)
    assert len(fewer) == 4
    assert set(fewer.labels["late"]) <= set(known)


def test_rows_without_a_row_have_columns_with_their_types(part):
    product, _ = part
    nothing = model_inputs.inputs(model_inputs.no_rows(product), product)
    assert {name: column.dtype.kind for name, column in nothing.items()} == {
        "colour": "O",
        "size": "f",
        "when": "M",
        "note": "O",
    }


def test_sample_is_some_rows_with_their_truths_and_always_the_same(part):
    product, folder = part
    everything = model_inputs.split_part(folder, "test", product)
    some = everything.sample(10)
    places = np.flatnonzero(some.keep)
    assert len(places) == 10
    whole = everything.read_all()
    same(some.read_all(), {name: column[places] for name, column in whole.items()})
    assert list(some.labels["late"]) == [f"class {i % 4}" for i in places]
    same(everything.sample(10).read_all(), some.read_all())
    assert everything.sample(N) == everything


def test_age_is_told_of_the_rows_that_are_meant(part):
    product, folder = part
    rows = pd.read_parquet(folder / "test.parquet")
    days = pd.Series(pd.date_range("2024-01-01", periods=N).to_numpy("datetime64[s]"))
    write_table(folder / "test.parquet", rows.assign(day=days.sample(frac=1, random_state=0).to_numpy()))
    everything = model_inputs.split_part(folder, "test", product)
    days = pd.read_parquet(folder / "test.parquet")["day"]
    assert model_inputs.age_days(everything.times).tolist() == [(days.max() - day).days for day in days]
    some = everything.sample(10)
    assert model_inputs.age_days(some.times).tolist() == [(days[some.keep].max() - day).days for day in days[some.keep]]
