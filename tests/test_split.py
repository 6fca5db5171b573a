"""Oracle: a brute-force split row by row, and the laws that nothing leaks and nothing is lost."""

import json
import shutil
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from builders import a_product, valid_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.rows import splitting
from tasks.rows.labels import windows
from tasks.rows.labels.known import KnownLabels
from tasks.rows.losses import Losses
from tasks.rows.partitions import Partitions, write_table
from tasks.rows.splitting import PARTS, split_rows
from tasks.runtime.errors import UserError
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths
from tasks.split import split

pytestmark = pytest.mark.usefixtures("workspace")

PATHS = Paths("tiny")
FIRST = date(2024, 1, 1)
AS_OF = date(2024, 1, 31)
BY_TIME = {"by": "time", "test_days": 3, "val_days": 2, "train_days": 5}
BY_HASH = {"by": "hash", "test_fraction": 0.25, "val_fraction": 0.2}


def tiny(rule, **changes):
    return a_product(split=rule, expectations=[], **changes)


def rows(n_days=20, per_day=4, groups=5):
    """Parcels of some days; the depot repeats, and every fourth parcel has no truth."""
    return pd.DataFrame(
        [
            {
                "parcel_id": f"{day:02d}-{i}",
                "dt": (FIRST + timedelta(days=day)).isoformat(),
                "depot": f"D{(day * per_day + i) % groups}",
                "late": None if i == 3 else (day + i) % 2,
            }
            for day in range(n_days)
            for i in range(per_day)
        ]
    )


def deliver(table):
    """Valid files as `validate` writes them."""
    typed = table.assign(
        day=pd.to_datetime(table["dt"]).astype("datetime64[s]"),
        weight_kg=1.0,
        handed_in=pd.Series(pd.NaT, index=table.index, dtype="datetime64[s]"),
    )
    valid_rows(typed, not_stored=["dt"])


def made(rule, **changes):
    split(tiny(rule, **changes), AS_OF)
    return {file.stem: pd.read_parquet(file) for file in PATHS.splits.iterdir() if file.name != splitting.GROUPS}


def test_boundaries_of_a_split_by_time_are_exact():
    table = rows()
    deliver(table)
    parts = made(BY_TIME)
    last = max(date.fromisoformat(day) for day in table[table["late"].notna()]["dt"])
    wanted = {name: [] for name in PARTS}
    for number, day, late in zip(table["parcel_id"], table["dt"], table["late"], strict=True):
        age = (last - date.fromisoformat(day)).days
        name = "test" if age < 3 else "val" if age < 5 else "train" if age < 10 else None
        if name and not pd.isna(late):
            wanted[name].append(number)
    assert {name: list(parts[name]["parcel_id"]) for name in PARTS} == wanted
    told = json.loads(PATHS.report("split.json").read_text())
    assert told["rows"] == {name: len(part) for name, part in parts.items()}
    assert told["days"] == {
        "train": ["2024-01-11", "2024-01-15"],
        "val": ["2024-01-16", "2024-01-17"],
        "test": ["2024-01-18", "2024-01-20"],
    }
    assert told["rows_left_out"] == told["rows_labelled"] - sum(len(parts[name]) for name in PARTS) == 0


@pytest.mark.parametrize(("rule", "is_told"), [(BY_TIME, True), (BY_HASH, False)])
def test_line_of_the_stage_tells_the_days_of_parts_that_follow_each_other(rule, is_told):
    deliver(rows())
    assert ("test 9 (2024-01-18 to 2024-01-20)" in split(tiny(rule), AS_OF)) == is_told


def test_newest_labelled_day_is_the_last_even_when_rows_go_on():
    table = rows()
    table.loc[table["dt"] > "2024-01-15", "late"] = None
    deliver(table)
    assert made(BY_TIME)["test"]["day"].max() == pd.Timestamp("2024-01-15")


def test_rows_and_labels_after_as_of_are_not_looked_at():
    deliver(rows())
    split(tiny(BY_TIME), date(2024, 1, 12))
    assert pd.read_parquet(PATHS.splits / "test.parquet")["day"].max() == pd.Timestamp("2024-01-12")
    assert pd.read_parquet(PATHS.splits / "pretrain.parquet")["day"].max() <= pd.Timestamp("2024-01-12")


@pytest.mark.parametrize(("rule", "first"), [(BY_TIME, "2024-01-11"), (BY_HASH, "2024-01-01")])
def test_every_row_of_its_days_that_is_not_held_out_is_there_for_pretraining(rule, first):
    table = rows()
    deliver(table)
    parts = made(rule)
    held_out = set(parts["val"]["parcel_id"]) | set(parts["test"]["parcel_id"])
    read = table[table["dt"] >= first]
    assert set(parts["pretrain"]["parcel_id"]) == set(read["parcel_id"]) - held_out
    assert set(parts["pretrain"]["parcel_id"]) >= set(read[read["late"].isna()]["parcel_id"])
    without = made(rule, model__init="scratch")
    assert sorted(without) == ["test", "train", "val"]
    assert json.loads(PATHS.report("split.json").read_text())["rows"] == {name: len(without[name]) for name in PARTS}


GROUPS = st.sampled_from(["a", "A ", "b", "c", "d d", "D  d", "e", "f", "g", None])


@given(
    st.lists(st.tuples(GROUPS, st.integers(0, 19), st.sampled_from([0, 1, None])), min_size=30, max_size=60),
    st.sampled_from([BY_TIME, BY_HASH]),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_group_straddles_and_none_counts_twice_where_it_is_judged(workspace, drawn, rule):
    shutil.rmtree(workspace / "data", ignore_errors=True)
    table = pd.DataFrame(
        [
            {"parcel_id": f"{i:03d}", "dt": (FIRST + timedelta(days=day)).isoformat(), "depot": text, "late": late}
            for i, (text, day, late) in enumerate(drawn)
        ]
    )
    deliver(table)
    try:
        parts = made({**rule, "group": "depot"}, columns={"depot": "text", "weight_kg": "number", "handed_in": "time"})
    except UserError:
        return  # too few groups for three parts: told, not split wrongly
    seen = {
        name: [
            " ".join(text.lower().split()) if isinstance(text, str) else number
            for text, number in zip(part["depot"], part["parcel_id"], strict=True)
        ]
        for name, part in parts.items()
    }
    for one in PARTS:
        for other in PARTS:
            assert one == other or not set(seen[one]) & set(seen[other])
    for name in ("val", "test"):
        assert not set(seen[name]) & set(seen["pretrain"])
        assert len(seen[name]) == len(set(seen[name]))
    assert all(part["parcel_id"].is_unique for part in parts.values())


def test_date_on_which_no_row_has_a_group_is_split_like_the_others():
    table = rows(groups=40)
    table.loc[table["dt"] == "2024-01-04", "depot"] = None
    deliver(table)
    wanted = {"depot": "text", "weight_kg": "number", "handed_in": "time"}
    assert sum(map(len, made({**BY_HASH, "group": "depot"}, columns=wanted).values())) > 60


def test_rows_without_a_group_stand_for_themselves():
    table = rows(groups=40)
    table.loc[table.index % 2 == 0, "depot"] = None
    deliver(table)
    parts = made({**BY_HASH, "group": "depot"})
    alone = {name: int(part["depot"].isna().sum()) for name, part in parts.items()}
    assert min(alone.values()) > 1


def test_key_that_is_a_time_is_held_out_at_midnight_and_noon():
    """The text of a moment must not depend on the other moments of its table."""
    table = rows()
    deliver(table)
    for file in sorted((PATHS.valid / "rows").glob("*.parquet")):
        part = pd.read_parquet(file)
        unlabelled = part["parcel_id"].str.endswith("3")
        part["handed_in"] = part["day"].where(~unlabelled, part["day"] + pd.Timedelta(hours=12))
        write_table(file, part)
    parts = made(BY_TIME, key=["parcel_id"])
    grouped = made({**BY_TIME, "group": "handed_in", "per_group": "one"})
    for name in ("val", "test"):
        assert not set(grouped[name]["handed_in"]) & set(grouped["pretrain"]["handed_in"])
    assert len(grouped["test"]) < len(parts["test"])


def test_row_stays_where_a_hash_put_it_as_data_grows():
    deliver(rows(n_days=10))
    before = made(BY_HASH)
    deliver(rows(n_days=20))
    after = made(BY_HASH)
    for name in PARTS:
        assert set(before[name]["parcel_id"]) <= set(after[name]["parcel_id"])
    share = {name: len(after[name]) / 60 for name in PARTS}
    assert 0.1 < share["test"] < 0.4
    assert 0.08 < share["val"] < 0.35


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table: table.assign(late=None), "every part must hold rows, and train has none of 0 labelled rows"),
        (lambda table: table[table["dt"] >= "2024-01-17"], "every part must hold rows, and train has none"),
        (
            lambda table: table.assign(late=table["late"].where(table["dt"] < "2024-01-18", table["late"] * 0)),
            "every part must hold two classes of late, and test holds 1 in 9 rows",
        ),
    ],
)
def test_too_little_data_is_told_and_nothing_is_written(change, told):
    table = rows()
    table["late"] = table["late"].astype(object)
    deliver(change(table))
    with pytest.raises(UserError, match=rf"params.yaml: products.tiny.split: {told}.*; give it more days or a larger"):
        made(BY_TIME)
    assert not PATHS.splits.exists()


@pytest.mark.parametrize("rule", [BY_TIME, BY_HASH])
def test_same_rows_give_the_same_bytes(rule):
    deliver(rows())
    hashes = []
    for _ in range(2):
        made(rule)
        hashes.append((folder_sha256(PATHS.splits), PATHS.report("split.json").read_bytes()))
    assert hashes[0] == hashes[1]


def test_labels_are_joined_by_key_and_not_by_place():
    table = rows(per_day=3)
    deliver(table)
    for file in sorted((PATHS.valid / "labels").glob("*.parquet")):
        write_table(file, pd.read_parquet(file).iloc[::-1])
    truth = table.set_index("parcel_id")["late"]
    for part in (part for name, part in made(BY_TIME).items() if name in PARTS):
        np.testing.assert_array_equal(part["late"].astype(float), truth[part["parcel_id"]].astype(float))


def test_rows_pass_by_in_pieces_and_the_parts_are_the_same_bytes(monkeypatch):
    """What is decided for a row must not depend on the file or the row group that it lies in."""
    deliver(rows(per_day=9))
    whole = made(BY_HASH)
    read = []
    batches = Partitions.batches
    monkeypatch.setattr(Partitions, "batches", lambda *of: (read.append(len(b[1])) or b for b in batches(*of)))
    monkeypatch.setattr("tasks.rows.partitions.ROWS_AT_ONCE", 2)
    deliver(rows(per_day=9))
    for name, part in made(BY_HASH).items():
        pd.testing.assert_frame_equal(part, whole[name])
    assert max(read) == 3  # a row that was left, and a row group


def test_last_label_of_a_key_is_found_by_its_whole_digest():
    first, second = np.array([3, 5, 7, 7], np.uint64), np.array([2, 9, 1, 1], np.uint64)
    wanted = np.array([[5, 9], [7, 2], [8, 8], [7, 1]], np.uint64)
    labels = pd.Series(["a", "b", "c", "d"])
    assert KnownLabels(first, second, labels).places(wanted).tolist() == [1, -1, -1, 3]
    assert KnownLabels(first[:0], second[:0], labels[:0]).places(wanted).tolist() == [-1] * 4
    assert KnownLabels(first, second, labels).places(wanted[:0]).tolist() == []


def relabel(day, labels):
    table = pd.DataFrame({"parcel_id": [*labels], "late": pd.array([*labels.values()], "Int8")})
    Partitions(PATHS.valid / "labels").write(date.fromisoformat(day), table)


@pytest.mark.parametrize("rule", [BY_TIME, BY_HASH])
def test_newest_version_of_a_label_counts_and_one_that_was_withdrawn_is_none(rule):
    deliver(rows())
    before = pd.concat(made(rule)[name] for name in PARTS).set_index("parcel_id")["late"]
    withdrawn, twice, once = before.index[[0, 5, 9]]
    relabel("2024-01-27", {withdrawn: 1 - before[withdrawn], twice: 1 - before[twice]})
    relabel("2024-01-28", {withdrawn: None, twice: before[twice], once: 1 - before[once]})
    relabel("2024-02-01", {once: before[once]})  # after as_of
    after = pd.concat(made(rule)[name] for name in PARTS).set_index("parcel_id")["late"]
    assert set(before.index) - set(after.index) == {withdrawn}
    assert after[once] == 1 - before[once]
    assert after.drop(once).to_dict() == before.drop([withdrawn, once]).to_dict()


def test_split_by_time_reads_no_rows_before_its_days():
    deliver(rows(n_days=30))
    whole, report = made(BY_TIME), json.loads(PATHS.report("split.json").read_text())
    for kind, n_days in (("rows", 20), ("labels", 19)):
        for file in sorted((PATHS.valid / kind).iterdir())[:n_days]:
            file.write_bytes(b"destroyed")
    report_of_days = split_rows(tiny(BY_TIME), AS_OF, PATHS.valid, PATHS.splits)
    assert {**report_of_days.to_json(), "columns": []} == report
    for name, part in whole.items():
        pd.testing.assert_frame_equal(pd.read_parquet(PATHS.splits / f"{name}.parquet"), part)


@pytest.mark.parametrize("unlabelled_days", [0, 1, 6, 15])
def test_days_of_a_split_by_time_are_found_from_the_newest_label(unlabelled_days):
    table = rows(n_days=28)
    table.loc[table["parcel_id"] >= f"{28 - unlabelled_days:02d}", "late"] = None
    deliver(table)
    parts = made(BY_TIME)
    last = pd.Timestamp(FIRST) + pd.Timedelta(days=27 - unlabelled_days)
    assert parts["test"]["day"].max() == last
    assert parts["train"]["day"].min() == last - pd.Timedelta(days=9)


@pytest.mark.parametrize(
    ("rows_a_day", "n_days", "wanted"),
    [
        ([100], 400, (7, 7, 200)),  # 20,000 rows to learn from
        ([1000], 400, (7, 7, 90)),
        ([20], 400, (15, 15, 370)),  # 300 held-out rows
        ([1], 1461, (146, 146, 1169)),  # a tenth of the days at most
        ([0, 0, 0, 0, 0, 0, 9], 16_802, (232, 238, 15_561)),  # matches, once a week: the weeks of 300 and 20,000 rows
        ([20], 45, (7, 7, 90)),
        ([20], 20, (4, 4, 90)),
        ([20], 4, (1, 1, 90)),
    ],
)
def test_days_that_are_not_declared_hold_enough_rows(rows_a_day, n_days, wanted):
    counts = np.resize(rows_a_day, n_days)
    age = np.repeat(np.arange(n_days), counts) - int(np.flatnonzero(counts)[0])
    n_days -= int(np.flatnonzero(counts)[0])
    rule = {"by": "time"}
    found, may_change = windows.fit_windows(tiny(rule), age, n_days, n_days)
    assert (found.test_days, found.val_days, found.train_days) == wanted
    assert not may_change
    for name, days in zip(("test_days", "val_days", "train_days"), (3, 2, 5), strict=True):
        rule |= {name: days}
        assert getattr(windows.fit_windows(tiny(rule), age, n_days, n_days)[0], name) == days


def test_only_days_that_can_be_in_a_part_are_read_where_none_are_declared(monkeypatch):
    monkeypatch.setattr(windows, "LEAST_TRAIN_DAYS", 3)
    monkeypatch.setattr(windows, "LEAST_TRAIN_ROWS", 20)
    monkeypatch.setattr(windows, "LEAST_HELD_OUT_DAYS", 2)
    monkeypatch.setattr(windows, "LEAST_HELD_OUT_ROWS", 6)
    deliver(rows(n_days=31))
    wanted = split_rows(tiny({"by": "time"}), AS_OF, PATHS.valid, PATHS.splits).to_json()
    assert wanted["rows"]["train"] >= 20
    for kind in ("rows", "labels"):
        for file in sorted((PATHS.valid / kind).iterdir())[:14]:
            file.write_bytes(b"destroyed")
    assert split_rows(tiny({"by": "time"}), AS_OF, PATHS.valid, PATHS.splits).to_json() == wanted


@pytest.mark.parametrize("rule", [BY_TIME, BY_HASH])
def test_old_months_are_split_as_their_days_were(rule):
    deliver(rows(n_days=60))
    made(rule)
    before = folder_sha256(PATHS.splits)
    for kind in ("rows", "labels"):
        Partitions(PATHS.valid / kind).compact(date(2024, 4, 15))
        assert len([*(PATHS.valid / kind).iterdir()]) == 30
    made(rule)
    assert folder_sha256(PATHS.splits) == before


def customers(n=40, n_days=30):
    """A row a day of each customer, and a number that differs from row to row."""
    return pd.DataFrame(
        [
            {
                "parcel_id": f"{day:02d}-{i:02d}",
                "dt": (FIRST + timedelta(days=day)).isoformat(),
                "depot": f"C{i}",
                "late": (day + i) % 2,
            }
            for day in range(n_days)
            for i in range(n)
        ]
    )


def test_every_row_of_a_held_out_customer_is_judged():
    deliver(customers())
    parts = made({**BY_HASH, "group": "depot"})
    for name in ("val", "test"):
        held_out = parts[name]["depot"].unique()
        assert len(parts[name]) == 30 * len(held_out)
        assert 3 <= len(held_out) <= 20
        assert not set(held_out) & set(parts["pretrain"]["depot"])
    report = json.loads(PATHS.report("split.json").read_text())
    assert report["rows_left_out"] == report["rows_repeating_a_group"] == 0


def test_one_row_of_a_held_out_group_is_judged_where_declared_so():
    deliver(customers())
    split_line = split(tiny({**BY_HASH, "group": "depot", "per_group": "one"}), AS_OF)
    test = pd.read_parquet(PATHS.splits / "test.parquet")
    assert test["depot"].is_unique
    report = json.loads(PATHS.report("split.json").read_text())
    n_repeats = 29 * (report["rows"]["test"] + report["rows"]["val"])
    assert report["rows_left_out"] == report["rows_repeating_a_group"] == n_repeats
    assert f"{n_repeats:,} further rows of held-out groups left out (split.per_group)" in split_line


def test_split_by_time_leaves_held_out_groups_out_of_training_and_counts_them():
    table = customers()
    customer, day = table["depot"].str[1:].astype(int), table["parcel_id"].str[:2].astype(int)
    deliver(table[(day >= customer) & (day < customer + 4)])  # each is a customer for four days
    rule = {"by": "time", "test_days": 3, "val_days": 2, "train_days": 20, "group": "depot"}
    line = split(tiny(rule), AS_OF)
    parts = {name: pd.read_parquet(PATHS.splits / f"{name}.parquet") for name in PARTS}
    groups = [set(part["depot"]) for part in parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    report = json.loads(PATHS.report("split.json").read_text())
    # The test is day 27 on, validation day 25 and 26. Before their first day of test the customers of day 24, 25 and 26
    # have 3, 2 and 1 rows; before their first day of validation those of day 22, 23 have 3 and 2.
    assert report["rows_of_straddling_groups"] == (3 + 2 + 1) + (3 + 2)
    assert f"{report['rows_of_straddling_groups']} labelled rows left out, whose group has rows in a later part" in line


def test_split_of_groups_that_all_straddle_says_so():
    deliver(customers())
    rule = {"by": "time", "test_days": 3, "val_days": 3, "train_days": 24, "group": "depot"}
    with pytest.raises(UserError, match=r"train has none of 1,200 labelled rows \(960 rows of its days") as caught:
        made(rule)
    assert "are of groups (depot) that have rows in a more held-out part too" in str(caught.value)
    assert str(caught.value).endswith("use by: hash, which parts whole groups, or leave out split.group (depot)")


def test_split_by_hash_of_few_groups_says_so():
    deliver(rows(groups=1))
    with pytest.raises(UserError, match=r"name a split\.group of more values, .*: the 1 groups of depot each stay"):
        made({**BY_HASH, "group": "depot"})


def test_split_without_rows_names_what_quarantine_and_the_delay_took():
    table = rows()
    table["late"] = table["late"].where(table["dt"] < "2024-01-03")
    deliver(table)
    rules = {"label_rules": {"parcel_id: is missing": 2}, "row_rules": {"weight_kg: is no number": 5}}
    Losses(labels=2, rows=5, **rules).write(PATHS.quarantine)
    with pytest.raises(UserError) as caught:
        made(BY_TIME)
    assert "74 valid rows have no label (yet: target.delay_days is 1)" in str(caught.value)
    assert (
        "2 labels (parcel_id: is missing: 2) and 5 rows (weight_kg: is no number: 5) are in quarantine: "
        "see make quarantine PRODUCT=tiny"
    ) in str(caught.value)


def test_split_from_a_minority_of_readable_labels_is_refused():
    """Labels written like 1,234 would leave the small ones alone to learn from, and to be tested on."""
    table = rows()
    deliver(table)
    n_valid = int(table["late"].notna().sum())
    rule = "late: is no binary target"
    for n, is_refused in ((n_valid, False), (n_valid + 1, True)):
        rules = {rule: n, "parcel_id: is a key already seen": 500}
        losses = Losses(labels_valid=n_valid, labels=n + 500, unreadable_labels=n, label_rules=rules)
        losses.write(PATHS.quarantine)
        if is_refused:
            with pytest.raises(UserError, match=f"{n} of {n_valid + n} are .*{rule}: {n}.*no sample to learn from"):
                made(BY_TIME)
        else:
            assert f"{n + 500} labels are in quarantine" in split(tiny(BY_TIME), AS_OF)


def few(labels, per_day=1):
    """Parcels of a constant depot, one after the other, with these labels."""
    days = [(FIRST + timedelta(days=i // per_day)).isoformat() for i in range(len(labels))]
    return pd.DataFrame(
        {"parcel_id": [f"{i:04d}" for i in range(len(labels))], "dt": days, "depot": "D", "late": labels}
    )


@pytest.mark.parametrize(
    ("labels", "rule", "cause"),
    [
        ([0], BY_TIME, r"must hold rows, and train has none of 1 labelled rows"),
        ([0], BY_HASH, r"must hold two classes of late, and train holds 1 in 1 rows"),
        ([0, 1] * 5, BY_TIME, r"must hold two classes of late, and val holds|must hold rows"),
        ([1] * 30, BY_TIME, r"must hold two classes of late, and train holds 1 in 5 rows; no other share would"),
        ([1] * 30, BY_HASH, r"train holds 1 in \d+ rows; no other share would have two: all 30 labelled rows"),
        ([1, *[0] * 29], BY_TIME, r"must hold two classes of late, and train holds 1 in 5 rows"),
        ([1, *[0] * 29], BY_HASH, r"must hold two classes of late, and \w+ holds 1 in \d+ rows"),
    ],
)
def test_too_few_rows_or_classes_are_one_message_with_the_remedy(labels, rule, cause):
    deliver(few(labels))
    with pytest.raises(UserError, match=cause) as caught:
        made({**rule, "val_days": 1} if rule == BY_TIME and len(labels) == 10 else rule)
    remedy = "target.name is the column that is meant" if "no other share" in str(caught.value) else "give it more days"
    assert remedy in str(caught.value)
    assert not PATHS.splits.exists()


def test_constant_columns_are_split_like_others():
    deliver(few([0, 1] * 40, per_day=4))
    parts = made(BY_HASH)
    assert sum(len(parts[name]) for name in PARTS) == 80
    assert set(parts["train"]["depot"]) == {"D"}
