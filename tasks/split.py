"""Join labels to rows by key and part them into train, validation and test; keep the rest for pretraining.

No leak: rows of one group never straddle a split, and what is held out is absent from pretraining too.
Within validation and test each group counts once, so that a text that came twice is not judged twice.
"""

import hashlib
from datetime import date

import numpy as np
import pandas as pd

from tasks import stage
from tasks.errors import UserError
from tasks.files import read_tables, whole_folder, write_json, write_table
from tasks.params import Product, Split
from tasks.paths import Paths
from tasks.types import as_text

PARTS = ("train", "val", "test")


def split(product: Product, as_of: date) -> str:
    """Write data/splits: train, val, test (labelled) and pretrain (every row that is not held out).

    Raises UserError when a part would be empty or hold only one class.
    """
    paths = Paths(product.name)
    rows = read_tables(paths.valid / "rows", until=as_of)
    labels = read_tables(paths.valid / "labels", until=as_of).drop(columns="dt")
    labelled = rows.merge(labels, on=list(product.key), how="inner", validate="one_to_one")
    group = _groups(labelled, product)
    part = _by_time(labelled, product.split) if product.split.by == "time" else _by_hash(group, product.split)
    part = _without_straddlers(part, group)
    _check(labelled, part, product)
    held_out = set(_groups(labelled, product)[part.isin(["val", "test"])])
    parts = {name: labelled[part == name] for name in PARTS}
    parts["pretrain"] = rows[~_groups(rows, product).isin(held_out)]
    with whole_folder(paths.splits) as folder:
        for name, table in parts.items():
            write_table(folder / f"{name}.parquet", table.sort_values(["dt", *product.key]).drop(columns="dt"))
    counts = {name: len(table) for name, table in parts.items()}
    write_json(
        paths.report("split.json"),
        {
            "as_of": as_of.isoformat(),
            "rows": counts,
            "rows_labelled": len(labelled),
            "rows_left_out": int((part == "none").sum()),
            "days": {name: _days(parts[name]) for name in PARTS},
        },
    )
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _groups(table: pd.DataFrame, product: Product) -> pd.Series:
    """One text per row that must not straddle a split: case and white space do not make two texts differ."""
    key = as_text(table[product.key[0]])
    for name in product.key[1:]:
        key = key + "\x1f" + as_text(table[name])
    if not product.split.group:
        return key
    group = as_text(table[product.split.group])
    if product.columns.get(product.split.group) == "text":
        group = group.str.lower().str.split().str.join(" ")
    return group.where(group.notna(), "\x1f" + key)  # a row without a group stands for itself


def _by_time(labelled: pd.DataFrame, rule: Split) -> pd.Series:
    """The newest labelled days are the test, those before them the validation, those before them the training."""
    assert rule.test_days is not None
    assert rule.val_days is not None
    assert rule.train_days is not None
    if labelled.empty:
        return pd.Series("none", index=labelled.index)
    day = pd.to_datetime(labelled["dt"])
    age_days = (day.max() - day).dt.days.to_numpy()
    first_of_none = rule.test_days + rule.val_days + rule.train_days
    part = np.select(
        [age_days < rule.test_days, age_days < rule.test_days + rule.val_days, age_days < first_of_none],
        ["test", "val", "train"],
        "none",
    )
    return pd.Series(part, index=labelled.index, dtype=object)


def _by_hash(group: pd.Series, rule: Split) -> pd.Series:
    """A share of the groups, told by a hash of the group alone: a row stays where it is as data grows."""
    assert rule.test_fraction is not None
    assert rule.val_fraction is not None
    share = group.map(lambda text: int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64)
    share = (share - rule.start) % 1
    part = np.select(
        [share < rule.test_fraction, share < rule.test_fraction + rule.val_fraction], ["test", "val"], "train"
    )
    return pd.Series(part, index=group.index, dtype=object)


def _without_straddlers(part: pd.Series, group: pd.Series) -> pd.Series:
    """Each group in one part only (the most held-out one), and once in validation and test; the rest is `none`."""
    rank = part.map({"test": 0, "val": 1, "train": 2, "none": 3})
    straddles = rank > rank.groupby(group).transform("min")
    again = pd.DataFrame({"part": part, "group": group}).duplicated() & part.isin(["val", "test"])
    return part.where(~(straddles | again), "none")


def _check(labelled: pd.DataFrame, part: pd.Series, product: Product) -> None:
    place = f"params.yaml: products.{product.name}.split"
    for name in PARTS:
        rows = int((part == name).sum())
        if rows == 0:
            raise UserError(
                f"{place}: every part must hold rows, and {name} has none of "
                f"{len(labelled):,} labelled rows; give it more days or a larger share, or a later as_of"
            )
        truths = labelled[product.target.name][part == name]
        if product.target.task in ("binary", "multiclass") and truths.nunique() < 2:
            raise UserError(
                f"{place}: every part must hold two classes of {product.target.name}, and {name} holds "
                f"{truths.nunique()} in {rows:,} rows; give it more days or a larger share"
            )


def _days(table: pd.DataFrame) -> list[str]:
    return [str(table["dt"].min()), str(table["dt"].max())]


if __name__ == "__main__":
    stage.main(split)
