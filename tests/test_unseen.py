"""Oracle: the champion's own training and validation rows, by key: whatever is not in them it has not learnt from."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from builders import a_product, valid_rows

from tasks.rows.partitions import read_table
from tasks.rows.splitting import GROUPS, split_rows
from tasks.runs.gates.unseen import Learnt, unseen
from tasks.runtime.paths import Paths

pytestmark = pytest.mark.usefixtures("workspace")

PATHS = Paths("tiny")
FIRST = date(2024, 1, 1)
BY_TIME = {"by": "time", "test_days": 5, "val_days": 2, "train_days": 10}
BY_HASH = {"by": "hash", "test_fraction": 0.3, "val_fraction": 0.2}


@pytest.fixture
def delivered():
    """Forty days of ten parcels, of a hundred and fifty depots."""
    random = np.random.default_rng(0)
    days = np.repeat(np.arange(40), 10)
    table = pd.DataFrame({"parcel_id": [f"{i:04d}" for i in range(len(days))]})
    table["day"] = (pd.Timestamp(FIRST) + pd.to_timedelta(days, "D")).astype("datetime64[s]")
    table["depot"] = [f"D{number}" for number in random.integers(0, 150, len(days))]
    table["weight_kg"] = 1.0
    table["handed_in"] = pd.Series(pd.NaT, index=table.index, dtype="datetime64[s]")
    table["late"] = random.integers(0, 2, len(days))
    valid_rows(table)


def parted(rule, day, folder):
    """The parts of a split at the end of a day."""
    product, as_of = a_product(split=rule, expectations=[], model__init="scratch"), FIRST + timedelta(days=day)
    report = split_rows(product, as_of, PATHS.valid, folder)
    parts = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "val", "test")}
    groups = folder / GROUPS
    learnt = Learnt(
        as_of=as_of,
        product=product,
        first=date.fromisoformat(report.days["train"][0]),
        last=date.fromisoformat(report.days["val"][1]),
        groups=read_table(groups)["group"].to_numpy(np.uint64) if groups.exists() else None,
    )
    return learnt, parts


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (BY_TIME, BY_TIME),
        (BY_HASH, BY_HASH),
        (BY_HASH, {**BY_HASH, "start": 0.4}),
        (BY_TIME, BY_HASH),
        (BY_HASH, BY_TIME),
        ({**BY_TIME, "test_days": 1}, BY_TIME),
        ({**BY_TIME, "group": "depot"}, {**BY_TIME, "group": "depot"}),
        ({**BY_HASH, "group": "depot"}, BY_TIME),
    ],
)
def test_rows_that_a_champion_has_learnt_from_are_found(before, now, tmp_path, delivered):
    champion, learnt_rows = parted(before, 33, tmp_path / "before")
    _, challenger = parted(now, 36, tmp_path / "now")
    kept = unseen(challenger["test"], "day", champion)
    learnt = pd.concat([learnt_rows["train"], learnt_rows["val"]])
    assert not set(challenger["test"][kept]["parcel_id"]) & set(learnt["parcel_id"])
    if group := before.get("group"):
        assert not set(challenger["test"][kept][group]) & set(learnt[group])
    assert set(challenger["test"][~kept]["parcel_id"]) & set(learnt["parcel_id"]) or kept.all() or group


def test_same_rule_keeps_every_held_out_row(tmp_path, delivered):
    for rule in (BY_HASH, BY_TIME):
        champion, _ = parted(rule, 30, tmp_path / "before")
        _, challenger = parted(rule, 37, tmp_path / "now")
        assert unseen(challenger["test"], "day", champion).all()
