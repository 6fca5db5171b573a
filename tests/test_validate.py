"""Oracle: counting by hand, the law rows in = valid + quarantined, and Great Expectations' own meaning of a rule."""

import json
import shutil
import subprocess
import sys
from datetime import date

import pandas as pd
import pyarrow.parquet as pq
import pytest
from builders import a_product, accept_days, raw_labels, raw_rows
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.rows.partitions import partition, read_tables
from tasks.runtime.errors import UserError
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths
from tasks.validate import validate

pytestmark = pytest.mark.usefixtures("workspace")

PATHS = Paths("tiny")
AS_OF = date(2024, 1, 2)
SCORED_DAY = date(2024, 1, 3)
POSITIVE = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "weight_kg", "min_value": 0}}


@pytest.fixture(autouse=True)
def accepted_day(workspace):
    """Most tests have no row on the scored day, and are about others."""
    accept_days(SCORED_DAY)


def tiny(*expectations, **changes):
    return a_product(expectations=list(expectations), **changes)


def row(number, **changes):
    return {
        "parcel_id": number,
        "day": "2024-01-01",
        "depot": "A",
        "weight_kg": "2",
        "handed_in": "2024-01-01T09:00",
        **changes,
    }


def deliver(rows, labels=(), day="2024-01-01"):
    """Raw files as `ingest` writes them."""
    columns = ["parcel_id", "day", "depot", "weight_kg", "handed_in"]
    table = pd.DataFrame(rows, columns=columns, dtype="str")
    raw_rows(table, day)
    if len(labels):
        raw_labels(pd.DataFrame(labels, columns=["parcel_id", "late"]), AS_OF)


def report():
    return json.loads(PATHS.report("validation.json").read_text())


def quarantined(kind="rows"):
    return read_tables(PATHS.quarantine / kind, ["parcel_id", "reasons"]).set_index("parcel_id")["reasons"].to_dict()


def valid(kind="rows"):
    return sorted(read_tables(PATHS.valid / kind)["parcel_id"])


def test_misfit_cell_goes_to_quarantine_with_column_and_rule_and_no_value():
    deliver(
        [
            row("good"),
            row("a", weight_kg="SECRET"),
            row("b", handed_in="SECRET"),
            row("c", day="SECRET"),
            row("d", weight_kg="SECRET", day="SECRET"),
        ]
    )
    validate(tiny(), AS_OF)
    assert valid() == ["good"]
    assert quarantined() == {
        "a": "weight_kg: is no number",
        "b": "handed_in: is no time",
        "c": "day: is no time",
        "d": "day: is no time; weight_kg: is no number",
    }
    assert report()["reasons"] == {"day: is no time": 2, "handed_in: is no time": 1, "weight_kg: is no number": 2}
    assert "SECRET" not in PATHS.report("validation.json").read_text()
    kept = read_tables(PATHS.quarantine / "rows").set_index("parcel_id")
    assert (kept.loc["a", "weight_kg"], kept.loc["a", "dt"]) == ("SECRET", "2024-01-01")


def test_missing_inputs_are_valid_and_missing_keys_and_times_are_not():
    deliver([row("good", depot=None, weight_kg=None, handed_in=None), row(None), row("late", day=None)])
    validate(tiny(), AS_OF)
    assert valid() == ["good"]
    assert sorted(read_tables(PATHS.quarantine / "rows")["reasons"]) == [
        "day: is missing",
        "parcel_id: is missing",
    ]


def test_of_rows_with_one_key_the_first_stands():
    deliver([row("x", depot="first"), row("x", depot="second"), row("y")])
    deliver([row("x", depot="third", day="2024-01-02")], day="2024-01-02")
    validate(tiny(), AS_OF)
    table = read_tables(PATHS.valid / "rows")
    assert table.set_index("parcel_id").loc["x", "depot"] == "first"
    reasons = read_tables(PATHS.quarantine / "rows")
    assert reasons["depot"].tolist() == ["second", "third"]
    assert set(reasons["reasons"]) == {"parcel_id: is a key already seen"}


def test_key_of_several_columns_is_judged_as_a_whole():
    deliver([row("x"), row("x", depot="B"), row("x"), row("y", depot=None)])
    validate(tiny(key=["parcel_id", "depot"], split__group=None), AS_OF)
    reasons = read_tables(PATHS.quarantine / "rows")["reasons"].tolist()
    assert reasons == ["parcel_id+depot: is a key already seen", "parcel_id+depot: is missing"]


def test_key_that_is_a_time_or_a_number_joins_rows_to_labels():
    deliver([row("1.0"), row("2")])
    table = pd.DataFrame({"weight_kg": ["2"], "day": ["2024-01-01"], "late": ["1"]})
    raw_labels(table, AS_OF)
    validate(tiny(key=["day", "weight_kg"]), AS_OF)
    rows, labels = (read_tables(PATHS.valid / kind).drop(columns="dt") for kind in ("rows", "labels"))
    assert len(rows.merge(labels, on=["day", "weight_kg"], validate="one_to_one")) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "", None]),
            st.sampled_from(["2024-01-01", "2024-01-02", "?", None]),
            st.sampled_from(["1", "-1", "x", "1e999", None]),
            st.sampled_from(["2024-01-01", "x", None]),
        ),
        max_size=18,  # fewer than those of which most must be right
    ),
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(["0", "1", "maybe"])), max_size=6),
    st.sampled_from(["warning", "info"]),
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_in_are_rows_valid_plus_rows_quarantined_on_every_date(workspace, garbage, truths, severity):
    shutil.rmtree(workspace / "data", ignore_errors=True)
    days = {"2024-01-01": [row("always")], "2024-01-02": []}
    for i, (number, day, weight, time) in enumerate(garbage):
        days[list(days)[i % 2]].append(row(number, day=day, weight_kg=weight, handed_in=time))
    for day, rows in days.items():
        deliver(rows, truths, day=day)
    validate(tiny({**POSITIVE, "severity": severity}), AS_OF)
    told, kept = report(), read_tables(PATHS.valid / "rows")
    bad = read_tables(PATHS.quarantine / "rows", ["reasons"])
    for day, rows in days.items():
        if rows:
            n_valid, n_bad = int((kept["dt"] == day).sum()), int((bad["dt"] == day).sum())
            assert n_valid + n_bad == len(rows)
            assert told["rows_by_date"][day] == {"rows_in": len(rows), "rows_valid": n_valid, "rows_quarantined": n_bad}
    assert (bad["reasons"] != "").all()
    labels = told["labels"]
    assert labels["rows_in"] == len(truths) == labels["rows_valid"] + labels["rows_quarantined"]
    assert told["scored_day"]["date"] == "2024-01-03"
    assert kept["parcel_id"].is_unique
    if severity == "warning":
        assert not (kept["weight_kg"] < 0).any()


def test_rows_that_arrive_after_as_of_are_not_looked_at():
    deliver([row("a")])
    deliver([row("b", day="2024-01-03")], day="2024-01-03")
    deliver([row("c", day="2024-01-04")], day="2024-01-04")
    validate(tiny(), AS_OF)
    assert valid() == ["a", "b"]
    assert report()["scored_day"] == {"date": "2024-01-03", "rows_in": 1, "rows_valid": 1, "rows_quarantined": 0}


def test_warning_quarantines_and_info_only_reports():
    deliver([row("a", weight_kg="-1"), row("b"), row("c", depot="Z")])
    known = {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "depot", "value_set": ["A"]}}
    validate(tiny({**POSITIVE, "severity": "warning"}, {**known, "severity": "info"}), AS_OF)
    assert quarantined() == {"a": "weight_kg: expect_column_values_to_be_between"}
    assert valid() == ["b", "c"]
    seen = {each["type"]: each for each in report()["expectations"]}
    assert [each["success"] for each in seen.values()] == [False, False]
    assert seen[known["type"]]["rows_unexpected"] == 1


def test_failed_critical_expectation_stops_and_leaves_what_was_there():
    deliver([row("a"), row("b")])
    validate(tiny(), AS_OF)
    before = folder_sha256(PATHS.valid), folder_sha256(PATHS.quarantine)
    deliver([row("a", weight_kg="-1"), row("b")])
    with pytest.raises(UserError, match=r"1 expectations do not hold(.|\n)*1 of 2 rows break it(.|\n)*validation.json"):
        validate(tiny({**POSITIVE, "severity": "critical"}), AS_OF)
    assert (folder_sha256(PATHS.valid), folder_sha256(PATHS.quarantine)) == before
    assert report()["expectations"][0]["success"] is False


def test_critical_expectation_that_holds_mostly_quarantines_the_rest():
    deliver([row("a", weight_kg="-1"), *(row(str(i)) for i in range(9))])
    mostly = {**POSITIVE, "severity": "critical", "kwargs": {**POSITIVE["kwargs"], "mostly": 0.9}}
    validate(tiny(mostly), AS_OF)
    assert list(quarantined()) == ["a"]


def test_expectation_that_cannot_be_evaluated_is_one_clear_message():
    deliver([row("a")])
    words = {
        "type": "expect_column_values_to_be_between",
        "severity": "info",
        "kwargs": {"column": "depot", "min_value": 0},
    }
    with pytest.raises(UserError) as caught:
        validate(tiny(words), AS_OF)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("  expect_column_values_to_be_between on depot (info): could not be evaluated: ")
    assert "Traceback" not in str(caught.value)
    assert not PATHS.valid.exists()


@pytest.mark.parametrize(
    ("name", "kwargs", "bad"),
    [
        ("values_to_be_between", {"column": "day", "min_value": "2024-01-02", "max_value": "2024-01-02"}, {"a"}),
        ("values_to_be_between", {"column": "handed_in", "min_value": "2024-01-02T09:30:00"}, {"a"}),
        ("values_to_be_between", {"column": "handed_in", "min_value": "2024-01-02 11:00:00+02:00"}, {"a"}),
        ("values_to_be_in_set", {"column": "day", "value_set": ["2024-01-02", "2024-01-03"]}, {"a"}),
        ("values_to_be_in_set", {"column": "handed_in", "value_set": ["2024-01-01T09:00:00"]}, {"b"}),
        (
            "pair_values_to_be_in_set",
            {"column_A": "day", "column_B": "depot", "value_pairs_set": [["2024-01-01", "A"], ["2024-01-02", "B"]]},
            {"b"},
        ),
    ],
)
def test_times_are_compared_with_the_times_that_are_declared(name, kwargs, bad):
    deliver([row("a"), row("b", day="2024-01-02", handed_in="2024-01-02T10:00")])
    validate(tiny({"type": f"expect_column_{name}", "severity": "warning", "kwargs": kwargs}), AS_OF)
    assert set(quarantined()) == bad
    assert report()["expectations"][0]["kwargs"] == kwargs


@pytest.mark.parametrize(
    ("what", "seen"),
    [("min", "2024-01-01T09:00:00"), ("max", "2024-01-03T09:00:00"), ("median", "2024-01-02T09:00:00")],
)
def test_time_that_is_observed_is_told(what, seen):
    deliver([row(f"a{i}", handed_in=f"2024-01-0{i}T09:00") for i in (1, 2, 3)], day=SCORED_DAY)
    late = {"type": f"expect_column_{what}_to_be_between", "kwargs": {"column": "handed_in", "min_value": "2024-02-01"}}
    validate(tiny({**late, "severity": "warning"}), AS_OF)
    assert report()["expectations"][0]["observed"] == seen
    with pytest.raises(UserError, match=rf"observed {seen}, wanted .*'min_value': '2024-02-01'"):
        validate(tiny({**late, "severity": "critical"}), AS_OF)


def test_argument_that_is_no_time_is_one_clear_message():
    deliver([row("a")])
    words = {"type": POSITIVE["type"], "kwargs": {"column": "day", "min_value": "someday"}, "severity": "info"}
    with pytest.raises(UserError, match=r"expect_column_values_to_be_between: .*'someday'.*invalid date.*; correct"):
        validate(tiny(words), AS_OF)


def test_outcomes_are_in_the_order_declared_whatever_order_they_are_judged_in():
    deliver([row("a")])
    declared_ones = [
        {**POSITIVE, "severity": "info"},
        {**POSITIVE, "severity": "info"},
        {"type": POSITIVE["type"], "severity": "info", "kwargs": {"column": "depot", "min_value": 0}},
        {
            "type": "expect_column_values_to_be_in_set",
            "severity": "info",
            "kwargs": {"column": "depot", "value_set": ["Z"]},
        },
    ]
    with pytest.raises(UserError, match="1 expectations do not hold"):
        validate(tiny(*declared_ones), AS_OF)
    seen = report()["expectations"]
    assert [(each["columns"], each["success"], each["error"] is None) for each in seen] == [
        ("weight_kg", True, True),
        ("weight_kg", True, True),
        ("depot", False, False),
        ("depot", False, True),
    ]


def test_expectation_on_the_whole_table_is_judged_by_what_it_observes():
    deliver([row("a"), row("b")], day=SCORED_DAY)
    size = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 5}}
    validate(tiny({**size, "severity": "warning"}), AS_OF)
    seen = report()["expectations"][0]
    assert (seen["columns"], seen["success"], seen["observed"]) == ("table", False, 2)
    assert valid() == ["a", "b"]
    with pytest.raises(UserError, match=r"on table \(critical\): observed 2, wanted \{'min_value': 5\}"):
        validate(tiny({**size, "severity": "critical"}), AS_OF)


def test_expectation_on_several_columns_blames_its_rows():
    deliver([row("a"), row("b"), row("c", depot="B")], day=SCORED_DAY)
    pair = {
        "type": "expect_compound_columns_to_be_unique",
        "severity": "warning",
        "kwargs": {"column_list": ["depot", "weight_kg"]},
    }
    validate(tiny(pair), AS_OF)
    assert set(quarantined()) == {"a", "b"}
    assert quarantined()["a"] == "depot+weight_kg: expect_compound_columns_to_be_unique"


def test_expectation_on_the_target_judges_labels_and_one_that_only_names_it_does_not():
    deliver([row("a", depot="late"), row("b", depot="A")], [("a", "1"), ("b", "0"), ("c", "1")])
    ones = {
        "type": "expect_column_values_to_be_in_set",
        "severity": "warning",
        "kwargs": {"column": "late", "value_set": [1]},
    }
    named = {
        "type": "expect_column_values_to_match_regex",
        "severity": "warning",
        "kwargs": {"column": "depot", "regex": "late"},
    }
    validate(tiny(ones, named), AS_OF)
    assert quarantined("labels") == {"b": "late: expect_column_values_to_be_in_set"}
    assert quarantined() == {"b": "depot: expect_column_values_to_match_regex"}


def test_truth_that_does_not_fit_its_task_goes_to_quarantine():
    deliver([row("a")], [("a", "1"), ("b", "perhaps"), ("c", "2"), ("d", "0"), ("a", "0")])
    validate(tiny(), AS_OF)
    assert quarantined("labels") == {
        "a": "parcel_id: is a key already seen",
        "b": "late: is no binary target",
        "c": "late: is no binary target",
    }
    table = read_tables(PATHS.valid / "labels").set_index("parcel_id")["late"]
    assert table.dtype == "Int8"
    assert table.to_dict() == {"a": 1, "d": 0}


def test_sets_of_labels_are_stored_joined():
    deliver([row("a")], [("a", ["x", "y"]), ("b", ["x"]), ("c", [])])
    validate(tiny(target__task="multilabel", gates__metric="macro_f1"), AS_OF)
    table = read_tables(PATHS.valid / "labels").set_index("parcel_id")["late"]
    assert table.to_dict() == {"a": "x|y", "b": "x", "c": ""}


def test_no_label_yet_is_no_mistake():
    deliver([row("a")])
    validate(
        tiny(
            {
                "type": "expect_column_values_to_be_in_set",
                "severity": "warning",
                "kwargs": {"column": "late", "value_set": [0, 1]},
            }
        ),
        AS_OF,
    )
    assert report()["labels"] == {"rows_in": 0, "rows_valid": 0, "rows_quarantined": 0}


@pytest.mark.long
@pytest.mark.slow
def test_charts_and_distributions_are_loaded_when_they_are_used_and_not_before():
    code = """
import gc, sys
from tasks.quality.expectations import SELDOM_USED, great_expectations
great_expectations()
assert gc.isenabled() and "_LoadedWhenUsed" not in [getattr(each, "__name__", "") for each in sys.meta_path]
loaded = {name: {"scipy.stats._stats_py", "altair.vegalite"} & {*sys.modules} for name in SELDOM_USED}
assert [type(sys.modules[name]).__name__ for name in SELDOM_USED] == ["_LazyModule"] * 2, loaded
assert not any(loaded.values()), loaded
assert sys.modules["scipy.stats"].norm.cdf(0) == 0.5
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_same_rows_give_the_same_bytes():
    deliver([row("a", weight_kg="-1"), row("b"), row("c", weight_kg="x")], [("a", "1")])
    hashes = []
    for _ in range(2):
        validate(tiny({**POSITIVE, "severity": "warning"}), AS_OF)
        hashes.append([folder_sha256(folder) for folder in (PATHS.valid, PATHS.quarantine, PATHS.report("").parent)])
    assert hashes[0] == hashes[1]


def test_valid_rows_and_labels_lie_in_order_of_key_whatever_order_they_came_in():
    hashes = []
    for order in (1, -1):
        deliver([row("b"), row("a"), row("c")][::order], [("c", "1"), ("a", "0")][::order])
        validate(tiny(), AS_OF)
        hashes.append([folder_sha256(PATHS.valid / kind) for kind in ("rows", "labels", "keys")])
    assert hashes[0] == hashes[1]
    assert list(read_tables(PATHS.valid / "rows")["parcel_id"]) == ["a", "b", "c"]


def test_judging_a_few_dates_at_a_time_gives_what_judging_all_at_once_gives(monkeypatch):
    for i in range(1, 4):
        deliver(
            [row("x"), row(f"{i}", weight_kg="-1"), row(f"{i}a", depot=None), row(f"{i}b", depot=f"B{i}"), row(None)],
            day=f"2024-01-0{i}",
        )
    wanted = tiny(
        {**POSITIVE, "severity": "critical", "kwargs": {**POSITIVE["kwargs"], "mostly": 0.8}},
        {"type": "expect_column_values_to_not_be_null", "severity": "warning", "kwargs": {"column": "depot"}},
        {"type": "expect_column_values_to_be_unique", "severity": "warning", "kwargs": {"column": "depot"}}
        | {"window_days": 3},
        {"type": "expect_table_row_count_to_be_between", "severity": "info", "kwargs": {"min_value": 15}}
        | {"window_days": 3},
        {
            "type": "expect_column_value_lengths_to_be_between",
            "severity": "info",
            "kwargs": {"column": "depot", "max_value": 1, "mostly": 0.75},
        },
        split__group=None,
    )
    seen = []
    for n_rows in (1000, 1):
        monkeypatch.setattr("tasks.quality.checks.ROWS_CHECKED_AT_ONCE", n_rows)
        shutil.rmtree(PATHS.valid, ignore_errors=True)
        validate(wanted, AS_OF)
        seen.append((report(), folder_sha256(PATHS.valid), folder_sha256(PATHS.quarantine)))
    assert seen[0] == seen[1]
    assert [each["success"] for each in report()["expectations"]] == [True, False, False, True, True]
    assert report()["expectations"][2]["rows_unexpected"] == 9
    assert valid() == ["1b", "2b", "3b", "x"], "the whole table is judged on the scored day and those before it"


def test_date_stored_before_a_column_was_declared_has_it_empty():
    deliver([row("a")])
    file = partition(PATHS.raw / "rows", date(2024, 1, 1))
    raw_rows(pd.read_parquet(file).drop(columns="weight_kg"), "2024-01-01")
    deliver([row("b")], day="2024-01-02")
    validate(tiny(), AS_OF)
    assert read_tables(PATHS.valid / "rows")["weight_kg"].isna().tolist() == [True, False]


@pytest.mark.parametrize("n_rows", [1000, 1], ids=["together", "date by date"])
def test_dates_stored_with_other_columns_become_one_table(n_rows, monkeypatch):
    """Added, dropped, in another order, and of another kind; a row of each date is quarantined."""
    monkeypatch.setattr("tasks.quality.checks.ROWS_CHECKED_AT_ONCE", n_rows)
    stored = [
        ["parcel_id", "day", "depot"],
        ["parcel_id", "day", "handed_in", "weight_kg", "depot", "colour"],
        ["parcel_id", "day", "depot", "weight_kg", "handed_in"],
    ]
    for i, columns in enumerate(stored, 1):
        day = f"2024-01-0{i}"
        table = pd.DataFrame([row(f"a{i}", day=day, colour="red"), row(None, day=day, weight_kg=None, colour="red")])
        table["depot"] = [7, 8] if i == 2 else ["A", "B"]
        raw_rows(table[columns], day)
    validate(tiny(POSITIVE | {"severity": "warning"}), AS_OF)
    files = sorted((PATHS.valid / "rows").glob("*.parquet"))
    assert [pq.read_schema(file).names for file in files] == [stored[2]] * 3
    assert len({str(pq.read_schema(file).remove_metadata()) for file in files}) == 1
    typed = read_tables(PATHS.valid / "rows")
    assert typed["depot"].tolist() == ["A", "7", "A"]
    assert typed["weight_kg"].fillna(-1).tolist() == [-1, 2, 2]
    bad = read_tables(PATHS.quarantine / "rows")
    assert bad["depot"].tolist() == ["B", "8", "B"]
    assert "colour" not in bad


def test_long_integers_with_gaps_stay_exact():
    table = pd.DataFrame(
        {
            "parcel_id": pd.array([2**60 + 1, None], "Int64"),
            "day": "2024-01-01",
            "depot": [7.0, None],
            "weight_kg": [1, 2],
            "handed_in": pd.to_datetime(["2024-01-01T09:00", None]),
        }
    )
    raw_rows(table, "2024-01-01")
    validate(tiny(), AS_OF)
    typed = read_tables(PATHS.valid / "rows")
    assert (typed.loc[0, "parcel_id"], typed.loc[0, "depot"]) == (str(2**60 + 1), "7")


def test_row_that_is_none_takes_nobody_s_key():
    deliver([row("a", day="02/01/2024"), row("b")])
    deliver([row("a", day="2024-01-02"), row("b", day="2024-01-02")], day="2024-01-02")
    validate(tiny(), AS_OF)
    bad = read_tables(PATHS.quarantine / "rows")
    assert bad["reasons"].tolist() == ["day: is no time", "parcel_id: is a key already seen"]
    assert pd.read_parquet(partition(PATHS.valid / "rows", date(2024, 1, 2)))["parcel_id"].tolist() == ["a"]


def test_column_that_takes_most_rows_or_labels_is_no_success():
    many = [row(f"a{i}", weight_kg="1.234,5" if i % 3 else "985") for i in range(30)]
    deliver([row("first"), *many])
    with pytest.raises(UserError) as caught:
        validate(tiny(), AS_OF)
    assert str(caught.value).splitlines()[1] == (
        "  20 of 31 (65%) because of weight_kg: is no number; the first is row 3 of 2024-01-01 in data/raw/tiny/rows"
    )
    assert not PATHS.valid.exists()
    deliver([row(f"a{i}") for i in range(30)], [(f"a{i}", "perhaps") for i in range(30)])
    with pytest.raises(
        UserError, match=r"most labels must be right.*\n  30 of 30 \(100%\) because of late: is no binary"
    ):
        validate(tiny(), AS_OF)


def test_what_is_lost_is_told_of_rows_and_labels():
    deliver([row("a"), row("b", weight_kg="x")], [("a", "1"), ("b", "perhaps")])
    assert validate(tiny(), AS_OF) == (
        "2 rows in = 1 valid + 1 quarantined; 2 labels in = 1 valid + 1 quarantined; "
        "0 of 0 expectations failed without stopping the run"
    )
    deliver([row("c", day="2024-01-02", weight_kg="x")], day="2024-01-02")
    assert validate(tiny(), AS_OF).endswith("; 1 day (2024-01-02) without a valid row")
