"""Oracle: counts that follow from small tables in the shapes of real ones: few rows, odd types, overnight decimals."""

import uuid
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import a_product, report, to_split

from tasks.ingest import ingest
from tasks.rows.partitions import read_table
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Paths
from tasks.validate import validate

pytestmark = pytest.mark.usefixtures("workspace")
FIRST, AS_OF = date(2024, 3, 1), date(2024, 3, 30)
BY_HASH = {"by": "hash", "test_fraction": 0.2, "val_fraction": 0.2}
PARTS = ("train", "val", "test")


def table(n, **columns):
    """So many rows over thirty days, with a key, a day and a label that takes turns."""
    days = [(FIRST + timedelta(days=i * 30 // n)).isoformat() for i in range(n)]
    start = {"parcel_id": [f"k{i}" for i in range(n)], "day": days, "plan": [f"p{i % 3}" for i in range(n)]}
    return pd.DataFrame({**start, "late": [i % 2 for i in range(n)], **columns})


def shop(source="rows.csv", **changes):
    declared = {"source": {"kind": source.rpartition(".")[2], "url": source}, "columns": {"plan": "category"}}
    return a_product(**{**declared, "expectations": [], "split": BY_HASH, "predict__horizon_days": 0, **changes})


def of(frame, **changes):
    """The rows of each part, after the frame went through the stages."""
    frame.to_csv("rows.csv", index=False)
    to_split(shop(**changes), AS_OF)
    return split_parts()


def split_parts():
    return {part: read_table(Paths("tiny").splits / f"{part}.parquet") for part in PARTS}


@pytest.mark.parametrize(("n", "task", "metric"), [(10, "regression", "mae"), (50, "binary", "auc")])
def test_a_handful_of_rows_is_split_whole(n, task, metric):
    parts = of(table(n), target__delay_days=0, target__task=task, gates__metric=metric)
    assert sum(map(len, parts.values())) == n
    assert all(len(part) for part in parts.values())


def test_hundreds_of_classes_of_three_rows_each_are_all_kept():
    labels = [f"class {i % 200:03d}" for i in range(600)]
    many = {"target__task": "multiclass", "gates__metric": "macro_f1", "target__delay_days": 0}
    parts = of(table(600, late=labels), **many)
    assert sorted(pd.concat(part["late"] for part in parts.values())) == sorted(labels)


def test_columns_that_say_nothing_pass_through_as_they_are():
    frame = table(200, same="x", zero=0, empty="", large=[1e300, *[0.0] * 199])
    kinds = {"plan": "category", "same": "category", "zero": "number", "empty": "number", "large": "number"}
    rows = pd.concat(of(frame, columns=kinds, target__delay_days=0).values()).set_index("parcel_id")
    assert set(rows["same"]) == {"x"}
    assert set(rows["zero"]) == {0.0}
    assert rows["empty"].isna().all()
    assert rows.loc["k0", "large"] == 1e300


def test_constant_number_is_a_target_and_a_single_class_is_none():
    constant = {"target__task": "regression", "gates__metric": "mae"}
    assert sum(map(len, of(table(100, late=3), **constant).values())) == 100 - len(
        table(100).query("day == '2024-03-30'")
    )
    with pytest.raises(UserError, match=r"split: every part must hold two classes of late, and train holds 1 in \d+"):
        of(table(100, late=1))


def test_rare_label_that_a_part_lacks_is_told_with_part_and_rows():
    frame = table(1_000, late=[int(i == 7) for i in range(1_000)])
    with pytest.raises(
        UserError, match=r"every part must hold two classes of late, and \w+ holds 1 in [\d,]+ rows; give"
    ):
        of(frame, target__delay_days=0)


@pytest.mark.parametrize("type_", [pa.binary(16), pa.uuid()], ids=str)
def test_key_of_sixteen_bytes_is_a_key(type_):
    frame = table(60)
    ids = [uuid.UUID(int=i + 2**100) for i in range(60)]
    keys = pa.array([each.bytes for each in ids], pa.binary(16))
    keys = pa.ExtensionArray.from_storage(type_, keys) if isinstance(type_, pa.BaseExtensionType) else keys
    columns = pa.Table.from_pandas(frame, preserve_index=False).drop_columns("parcel_id")
    pq.write_table(columns.append_column("parcel_id", keys), "rows.parquet")
    to_split(shop("rows.parquet", target__delay_days=0), AS_OF)
    assert pd.concat(part["parcel_id"] for part in split_parts().values()).nunique() == 60


def test_undeclared_column_that_parquet_names_twice_is_nobodys_business():
    named = pa.Table.from_pandas(table(60), preserve_index=False)
    named = named.append_column("note", pa.array(np.arange(60))).append_column("note", pa.array(["x"] * 60))
    pq.write_table(named, "rows.parquet")
    to_split(shop("rows.parquet", target__delay_days=0), AS_OF)
    assert sum(map(len, split_parts().values())) == 60


def test_numbers_that_become_decimals_overnight_stop_the_night_and_change_no_key():
    """Where one empty cell comes into a column of integers, pandas writes the whole column as 1000.0, 7.0."""
    product = shop(columns={"store": "category"}, key=["customer"], split=BY_HASH)
    frame = table(420, customer=range(1_000, 1_420), store=[3 + i % 5 for i in range(420)])
    frame.to_csv("rows.csv", index=False)
    for as_of in (AS_OF - timedelta(days=1), AS_OF):
        if as_of == AS_OF:
            frame.astype({"customer": float, "store": float}).to_csv("rows.csv", index=False)
        ingest(product, as_of)
        if as_of < AS_OF:
            validate(product, as_of)
    assert report("ingest.json")["rows_new"] == 14
    assert report("ingest.json")["labels_new"] == 14
    with pytest.raises(UserError, match="store"):
        validate(product, AS_OF)
