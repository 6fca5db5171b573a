"""Oracle: an account kept by hand of which row was first seen on which night, and the counts that follow from it."""

import json
import shutil
from collections import Counter
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from builders import accept_days, declared
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import params
from tasks.commands.data import decide
from tasks.ingest import ingest
from tasks.rows.intake.taking import Taking
from tasks.rows.partitions import read_tables
from tasks.rows.versions import History
from tasks.runtime.paths import Paths
from tasks.split import split
from tasks.validate import validate

PATHS = Paths("tiny")
NIGHTS = [date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 3)]
BY_HASH = {"by": "hash", "test_fraction": 0.25, "val_fraction": 0.25}


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def product(*left_out, **changes):
    """A product of orders without the keys `left_out`; what it costs: no split by time, no horizon."""
    wanted = {
        "source": {"kind": "csv", "url": "orders.csv"},
        "key": ["order"],
        "columns": {"depot": "category", "weight_kg": "number"},
        "expectations": [],
        "split": BY_HASH,
        **changes,
    }
    content = declared(target__delay_days=0, predict__horizon_days=0, **wanted)
    for name in left_out:
        del content["products"]["tiny"][name]
    return params.parse(content).product("tiny")


def deliver(*rows):
    """Rows as (order, depot, weight, late); a day is there too, for the product that has a time."""
    columns = ["order", "depot", "weight_kg", "late"]
    pd.DataFrame(rows, columns=columns).assign(day="2024-01-01").to_csv("orders.csv", index=False)


def run(product, night):
    printed = ingest(product, night)
    return printed, json.loads(PATHS.report("ingest.json").read_text())


def stored(kind="rows"):
    table = read_tables(PATHS.raw / kind)
    return {day: part.drop(columns="dt") for day, part in table.groupby("dt")}


def column(name, kind="rows"):
    return {day: sorted(part[name].dropna()) for day, part in stored(kind).items()}


def known(night):
    """The rows as a run of that night sees them."""
    history = History(PATHS.raw, night)
    return history.read(history.days(night))


A, B, C, D = ("a", "X", "1", "0"), ("b", "X", "2", "1"), ("c", "Y", "3", "1"), ("d", "Y", "4", "")


def test_row_without_a_date_is_of_the_night_that_first_saw_it():
    keyed = product("time")
    for night, rows in zip(NIGHTS, ([A, B], [B, C, A], [A, B, C, D]), strict=True):
        deliver(*rows)
        printed, report = run(keyed, night)
        assert "taken as known" not in printed
        assert report["rows_new"] == {1: 2, 2: 1, 3: 1}[night.day]
    assert column("order") == {"2024-01-01": ["a", "b"], "2024-01-02": ["c"], "2024-01-03": ["d"]}
    assert column("arrived") == {day: [day] * len(part) for day, part in stored().items()}
    before = {file: file.read_bytes() for file in PATHS.raw.rglob("*") if file.is_file()}
    _, report = run(keyed, NIGHTS[-1])
    assert (report["rows_new"], report["taken"], report["labels_new"]) == (0, {}, 0)
    assert {file: file.read_bytes() for file in PATHS.raw.rglob("*") if file.is_file()} == before


def test_row_that_changes_is_a_version_at_any_time_and_one_that_goes_stays():
    keyed = product("time", source={"kind": "csv", "url": "orders.csv", "late_days": 0})
    deliver(A, B)
    run(keyed, NIGHTS[0])
    deliver(("a", "X", "99", "0"), C)
    night = NIGHTS[0] + timedelta(days=90)
    printed, report = run(keyed, night)
    assert report["taken"] == {"2024-01-01": {"late": 0, "changed": 1, "withdrawn": 0}}
    assert "1 changed rows (rows of 2024-01-01)" in printed
    assert stored()["2024-01-01"]["weight_kg"].tolist() == ["1", "2"]
    assert known(night)["weight_kg"].tolist() == ["99", "2", "3"]
    assert known(NIGHTS[0])["weight_kg"].tolist() == ["1", "2"]


def test_label_comes_later_under_the_key_of_a_row_without_a_date():
    keyed = product("time")
    deliver(A, D)
    run(keyed, NIGHTS[0])
    deliver(A, (*D[:3], "1"), B)
    _, report = run(keyed, NIGHTS[1])
    assert (report["labels_new"], report["labels_late"], report["taken"]) == (1, 1, {})
    assert column("order", "labels") == {"2024-01-01": ["a"], "2024-01-02": ["b", "d"]}


def test_row_that_comes_between_two_runs_of_one_night_is_of_that_night():
    keyed = product("time")
    deliver(A)
    run(keyed, NIGHTS[0])
    deliver(A, B)
    _, report = run(keyed, NIGHTS[0])
    assert (report["rows_new"], report["rows_late"]) == (0, 1)
    run(keyed, NIGHTS[1])
    assert known(NIGHTS[1])["order"].tolist() == ["a", "b"]
    assert column("order") == {"2024-01-01": ["a"]}


def test_night_before_the_newest_takes_nothing():
    keyed = product("time")
    deliver(A)
    run(keyed, NIGHTS[0])
    deliver(A, B)
    run(keyed, NIGHTS[2])
    deliver(A, B, C)
    _, report = run(keyed, NIGHTS[1])
    assert (report["rows_new"], report["newest_as_of"]) == (0, "2024-01-03")
    assert sorted(stored()) == ["2024-01-01", "2024-01-03"]


def test_day_that_is_fetched_again_keeps_its_rows_under_their_date():
    keyed = product("time", source={"kind": "csv", "url": "orders.csv", "complete": True})
    deliver(A, B)
    run(keyed, NIGHTS[0])
    deliver(("a", "X", "99", "0"), C)
    decide.refetch(keyed, NIGHTS[0], "weights were wrong", "Ann", NIGHTS[2])
    _, report = run(keyed, NIGHTS[1])
    assert report["days_refetched"] == {"2024-01-01": "weights were wrong (Ann)"}
    assert column("order") == {"2024-01-01": ["a", "b"], "2024-01-02": ["c"]}
    assert known(NIGHTS[1])["weight_kg"].tolist() == ["99", "3"]


def test_rows_without_a_key_of_theirs_are_counted_once_and_quarantined():
    keyed = product("time")
    lost = (None, "X", "5", "1")
    deliver(A, lost, lost)
    run(keyed, NIGHTS[0])
    deliver(A, lost, lost, B)
    _, report = run(keyed, NIGHTS[1])
    assert (report["rows_new"], report["rows_total"]) == (1, 4)
    validate(keyed, NIGHTS[1])
    bad = read_tables(PATHS.quarantine / "rows")
    assert len(bad) == 2
    assert set(bad["reasons"]) == {"arrived: is missing; order: is missing"}


@pytest.mark.parametrize("without", [("key",), ("key", "time")], ids=" ".join)
def test_equal_rows_are_told_apart_and_keep_their_ids_as_the_file_grows(without):
    keyless = product(*without)
    deliver(A, A, B)
    run(keyless, NIGHTS[0])
    first = stored()["2024-01-01"]
    assert len(set(first["row_id"])) == 3
    assert first["row_id"].tolist()[1] == first["row_id"].tolist()[0] + "#1"
    deliver(A, C, A, B, A)
    _, report = run(keyless, NIGHTS[1])
    assert "order" not in first
    if "time" in without:
        assert report["taken"] == {}
        assert Counter(stored()["2024-01-02"]["row_id"].str.contains("#2")) == {True: 1, False: 1}
    else:
        assert report["taken"] == {"2024-01-01": {"late": 2, "changed": 0, "withdrawn": 0}}
    run(keyless, NIGHTS[2])
    ids = known(NIGHTS[2])["row_id"]
    assert ids.is_unique
    assert set(first["row_id"]) <= set(ids)


def test_row_without_a_key_that_changes_is_another_row():
    keyless = product("key", "time")
    deliver(A, A, B)
    run(keyless, NIGHTS[0])
    deliver(A, ("b", "X", "22", "1"))
    _, report = run(keyless, NIGHTS[1])
    assert report["rows_new"] == 1
    assert report["left"] == {"2024-01-01": {"rows": 0, "labels": 0, "gone": 2}}
    assert stored()["2024-01-02"]["weight_kg"].tolist() == ["22"]


def test_label_may_come_later_to_a_row_without_a_key_whose_cells_stay():
    keyless = product("key", "time")
    deliver(A, D)
    run(keyless, NIGHTS[0])
    deliver(A, (*D[:3], "1"))
    _, report = run(keyless, NIGHTS[1])
    assert (report["rows_new"], report["labels_late"], report["taken"]) == (0, 1, {})
    rows, labels = read_tables(PATHS.raw / "rows"), read_tables(PATHS.raw / "labels")
    joined = rows.merge(labels, on="row_id", validate="one_to_one")
    assert joined.set_index("weight_kg")["late"].astype(str).to_dict() == {"1": "0", "4": "1"}


def test_id_of_a_row_does_not_depend_on_the_order_of_columns():
    deliver(A, B)
    run(product("key", "time"), NIGHTS[0])
    turned = product("key", "time", columns={"weight_kg": "number", "depot": "category"})
    _, report = run(turned, NIGHTS[1])
    assert (report["rows_new"], report["taken"]) == (0, {})


def test_python_source_is_asked_for_all_rows_where_they_have_no_dates():
    deliver(A)
    run(product("time"), NIGHTS[0])
    python = {"source": {"kind": "python", "callable": "tasks.sources.flights:rows"}}
    with Taking(product("time", **python), NIGHTS[1], PATHS.raw) as taking:
        assert taking.since is None
    with Taking(product(**python), NIGHTS[1], PATHS.raw) as taking:
        assert taking.since == NIGHTS[1] - timedelta(days=30), "labels are taken for so long"


def test_line_that_cannot_be_read_is_a_row_too():
    keyless = product("key", "time")
    deliver(A)
    with open("orders.csv", "a") as file:
        file.write("broken,line\n")
    run(keyless, NIGHTS[0])
    _, report = run(keyless, NIGHTS[1])
    assert (report["rows_total"], report["rows_new"]) == (2, 0)
    accept_days(NIGHTS[1])
    validate(keyless, NIGHTS[1])
    assert read_tables(PATHS.quarantine / "rows")["reasons"].tolist() == [
        "row: must have 5 cells as the header has, and has 2"
    ]


ORDERS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("XY"), st.sampled_from("12")), max_size=6)


@given(st.lists(ORDERS, min_size=1, max_size=4))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_of_the_first_night_that_had_so_many_of_it(workspace, nights):
    """By hand: the n-th of equal rows is first seen on the first night that delivers n of them."""
    shutil.rmtree("data", ignore_errors=True)
    wanted, most, came = [], Counter(), False
    for i, rows in enumerate(nights):
        night = NIGHTS[0] + timedelta(days=i)
        deliver(*[(*row, "1") for row in rows])
        came = came or bool(rows)
        if not came:
            continue
        run(product("key", "time"), night)
        cells = Counter((depot, weight) for _, depot, weight in rows)
        for row, n in cells.items():
            wanted += [(night.isoformat(), *row)] * (n - most[row])
            most[row] = max(most[row], n)
    if came:
        table = read_tables(PATHS.raw / "rows")
        assert Counter(table[["dt", "depot", "weight_kg"]].itertuples(index=False, name=None)) == Counter(wanted)
        assert table["row_id"].is_unique


@pytest.mark.parametrize("without", [("time",), ("key", "time")], ids=" ".join)
def test_small_pipeline_runs_without_dates_and_keys(without):
    chance = np.random.default_rng(0)
    orders = [(f"o{i}", "XYZ"[i % 3], f"{w:.3f}", str(i % 2)) for i, w in enumerate(chance.gamma(2, 3, 80))]
    twins = [(f"t{i}", *order[1:]) for i, order in enumerate(orders[:20])] if "key" in without else []
    unlabelled = [(f"n{i}", "X", f"{100 + i}", "") for i in range(5)]
    small = product(*without)
    deliver(*orders, *twins)
    run(small, NIGHTS[0])
    deliver(*orders, *twins, *unlabelled)
    run(small, NIGHTS[1])
    validate(small, NIGHTS[1])
    split(small, NIGHTS[1])
    parts = {name: pd.read_parquet(PATHS.splits / f"{name}.parquet") for name in ("train", "val", "test", "pretrain")}
    groups = {name: set(zip(part["depot"], part["weight_kg"], strict=True)) for name, part in parts.items()}
    assert not groups["train"] & (groups["val"] | groups["test"]), "twins never straddle"
    assert not groups["val"] & groups["test"]
    assert not groups["pretrain"] & (groups["val"] | groups["test"])
    assert sum(len(parts[name]) for name in ("val", "test")) == len(groups["val"]) + len(groups["test"])
    assert len(groups["train"] | groups["val"] | groups["test"]) == 80
    scored = read_tables(PATHS.valid / "rows", until=NIGHTS[1])
    tonight = scored[scored["dt"] == small.scored_day(NIGHTS[1]).isoformat()]
    assert sorted(tonight["weight_kg"]) == [100, 101, 102, 103, 104], "the night scores what arrived today"
