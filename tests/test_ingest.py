"""Oracle: laws of an append-only archive, and a brute-force account of what was known on which day."""

import json
import shutil
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from builders import a_product
from conftest import parcels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.commands.data import decide
from tasks.ingest import ingest
from tasks.rows import partitions
from tasks.rows.partitions import read_tables
from tasks.rows.raw_archive import RawIndex, storable
from tasks.rows.versions import History
from tasks.runtime.errors import UserError
from tasks.runtime.paths import TABLES, Paths

pytestmark = pytest.mark.usefixtures("workspace")

RAW = Paths("tiny").raw


def is_note(name):
    """Whether a run may write a file anew; all else stays as it was."""
    return name in ("index.json", "seen.json") or name.startswith("index/")


def tiny(**changes):
    return a_product(source__url="parcels.csv", **changes)


def deliver(frame):
    frame.to_csv("parcels.csv", index=False)


def rows(*more, days=("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"), each=2):
    """A few parcels a day, each late on even numbers; `more` are appended as they are."""
    regular = [
        {
            "parcel_id": f"{day[-2:]}{i}",
            "day": day,
            "depot": "007",
            "weight_kg": "1.50",
            "handed_in": f"{day}T09:00",
            "late": str(i % 2),
        }
        for day in days
        for i in range(each)
    ]
    return pd.DataFrame([*regular, *more], dtype="str")


def row(number, day, **changes):
    return {"parcel_id": number, "day": day, "depot": "A", "weight_kg": "2", "handed_in": "", "late": "1", **changes}


def run(as_of, **changes):
    ingest(tiny(**changes), date.fromisoformat(as_of))
    return report()


def refetch(day, why):
    """Decided on another day than those of the runs, which see it all the same."""
    decide.refetch(tiny(), date.fromisoformat(day), why, "Ann", date(2024, 3, 1))


def report():
    return json.loads(Paths("tiny").report("ingest.json").read_text())


def stored(kind):
    return {file.stem.removeprefix("dt="): pd.read_parquet(file) for file in sorted((RAW / kind).glob("dt=*.parquet"))}


def ids(kind):
    return {day: sorted(table["parcel_id"].dropna()) for day, table in stored(kind).items()}


def known(as_of):
    """The rows as a run of that date sees them, by their keys."""
    history = History(RAW, date.fromisoformat(as_of))
    days = history.days(tiny().scored_day(date.fromisoformat(as_of)))
    return history.read(days).set_index("parcel_id")


def all_bytes():
    return {file.relative_to(RAW).as_posix(): file.read_bytes() for file in RAW.rglob("*") if file.is_file()}


def but_notes():
    return {name: content for name, content in all_bytes().items() if not is_note(name)}


def run_killed_before_the_index(as_of):
    """All files but index.json are written, those of its years, too."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tasks.rows.raw_archive.index.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(as_of)


def index_in_one_file():
    """Write the index as it was before its dates lay in a file for each year."""
    index, content = RawIndex.load(RAW), json.loads((RAW / "index.json").read_text())
    del content["years"]
    for kind in ("rows", "labels", "changes"):
        content[kind] = {day: entry.to_json() for day, entry in getattr(index, kind).items()}
    (RAW / "index.json").write_text(json.dumps(content))
    shutil.rmtree(RAW / "index")


@pytest.mark.parametrize(("horizon", "delay"), [(0, 0), (1, 1), (0, 2), (3, 0)])
def test_nothing_is_stored_that_was_not_known_on_as_of(horizon, delay):
    frame = parcels()
    deliver(frame)
    as_of = date(2024, 1, 20)
    run(as_of.isoformat(), predict__horizon_days=horizon, target__delay_days=delay)
    known_rows, known_labels = {}, {}
    for number, day in zip(frame["parcel_id"], frame["day"], strict=True):
        event = date.fromisoformat(day)
        if event - timedelta(days=horizon) <= as_of:
            known_rows.setdefault(day, []).append(number)
        if event + timedelta(days=delay) <= as_of:
            known_labels.setdefault((event + timedelta(days=delay)).isoformat(), []).append(number)
    assert ids("rows") == known_rows
    assert ids("labels") == known_labels
    assert "late" not in stored("rows")["2024-01-01"].columns
    assert list(stored("labels")["2024-01-05"].columns) == ["parcel_id", "late"]


def test_history_fetched_at_once_is_history_fetched_night_by_night():
    deliver(parcels())
    for day in range(1, 9):
        run(f"2024-01-{day:02d}")
    nightly = but_notes()
    shutil.rmtree("data")
    run("2024-01-08")
    assert nightly == but_notes()


def test_second_run_changes_nothing_and_reports_nothing():
    deliver(rows(row("x", "not a day"), row("y", "")))
    run("2024-01-02")
    before = all_bytes()
    told = run("2024-01-02")
    assert all_bytes() == before
    assert (told["rows_new"], told["labels_new"], told["taken"], told["left"]) == (0, 0, {}, {})


def test_stored_dates_stay_as_they_are_and_a_changed_past_is_counted():
    deliver(rows())
    run("2024-01-02")
    before = all_bytes()
    frame = rows(row("020x", "2024-01-02"), row("020y", "2024-01-02"))
    frame.loc[frame["parcel_id"] == "010", "weight_kg"] = "9"
    frame = frame[frame["parcel_id"] != "021"]
    deliver(frame)
    line, told = ingest(tiny(), date(2024, 1, 3)), report()
    assert told["taken"] == {
        "2024-01-01": {"late": 0, "changed": 1, "withdrawn": 0},
        "2024-01-02": {"late": 2, "changed": 0, "withdrawn": 0},
    }
    assert told["left"] == {"2024-01-02": {"rows": 0, "labels": 0, "gone": 1}}
    assert "taken as known from 2024-01-03 on: 2 late rows, 1 changed rows (rows of 2024-01-01, 2024-01-02)" in line
    assert "1 stored rows of 2024-01-02 are delivered no longer (kept; told once)" in line
    assert told["days_new"] == ["2024-01-04"]
    after = all_bytes()
    assert {name: after[name] for name in before if not is_note(name)} == {
        name: content for name, content in before.items() if not is_note(name)
    }
    assert known("2024-01-02")["weight_kg"].to_dict() == {f"0{day}{i}": "1.50" for day in (1, 2, 3) for i in range(2)}
    assert known("2024-01-03")["weight_kg"]["010"] == "9"
    assert [*known("2024-01-03").index[2:6]] == ["020", "021", "020x", "020y"]
    assert "delivered no longer" not in ingest(tiny(), date(2024, 1, 4)), "it was told"


def test_day_that_vanished_from_the_source_stays():
    deliver(rows())
    run("2024-01-02")
    deliver(rows(days=("2024-01-01", "2024-01-03", "2024-01-04")))
    told = run("2024-01-03")
    assert (told["taken"], told["left"]) == ({}, {})


def test_rows_in_another_order_are_the_same_past():
    deliver(rows())
    run("2024-01-02")
    deliver(rows().iloc[::-1])
    assert run("2024-01-03")["taken"] == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["depot"], ["depot", "weight_kg"]),
        (["depot", "weight_kg"], ["depot"]),
        (["depot", "weight_kg"], ["weight_kg", "depot"]),
    ],
    ids=["added", "dropped", "in another order"],
)
def test_columns_that_are_declared_otherwise_do_not_change_the_past(before, after):
    kinds = {"depot": "category", "weight_kg": "number"}
    before, after = (
        {"columns": {name: kinds[name] for name in names}, "expectations": []} for names in (before, after)
    )
    deliver(rows())
    run("2024-01-01", **before)
    assert run("2024-01-02", **after)["taken"] == {}
    frame = rows(row("020x", "2024-01-02"))
    frame.loc[frame["parcel_id"].isin(["010", "030"]), "depot"] = "9"
    deliver(frame)
    told = run("2024-01-02", **after)
    assert told["taken"] == {
        "2024-01-01": {"late": 0, "changed": 1, "withdrawn": 0},
        "2024-01-02": {"late": 1, "changed": 0, "withdrawn": 0},
        "2024-01-03": {"late": 0, "changed": 1, "withdrawn": 0},
    }
    for now in (after, before):
        assert run("2024-01-02", **now)["taken"] == {}


def test_labels_stored_with_another_key_are_told_once_more():
    deliver(rows())
    run("2024-01-02")
    run("2024-01-03", key=["parcel_id", "depot"])
    run("2024-01-04", key=["parcel_id", "depot"])
    assert ids("labels") == {
        "2024-01-02": ["010", "011"],
        "2024-01-03": ["010", "011", "020", "021"],
        "2024-01-04": ["030", "031"],
    }
    assert list(stored("labels")["2024-01-03"].columns) == ["parcel_id", "depot", "late"]


def test_label_that_comes_late_lies_under_the_day_on_which_it_became_known():
    frame = rows()
    frame.loc[frame["parcel_id"].isin(["010", "020", "021"]), "late"] = None
    deliver(frame)
    run("2024-01-03")
    assert ids("labels") == {"2024-01-02": ["011"]}
    deliver(rows())
    run("2024-01-04")  # of 01-02 none was known, of 01-01 one: both days' truths came today
    assert ids("labels") == {"2024-01-02": ["011"], "2024-01-04": ["010", "020", "021", "030", "031"]}


@pytest.mark.parametrize("unknown", ["", "  ", "NaN", float("nan"), None])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_truth_that_says_nothing_is_not_known_yet_and_may_come_later(unknown, task):
    target = {"source__kind": "jsonl", "target__task": task, "gates__metric": "auc" if task == "binary" else "macro_f1"}
    for late, as_of in ((unknown, "2024-01-02"), ("1", "2024-01-03")):
        rows(row("x", "2024-01-01", late=late)).astype(object).to_json("parcels.csv", orient="records", lines=True)
        run(as_of, **target)
        assert "x" not in ids("labels")["2024-01-02"]
    assert ids("labels")["2024-01-03"] == ["020", "021", "x"]


def test_stored_truth_that_is_another_now_is_a_version_of_its_own():
    deliver(rows(row("x", "2024-01-01", late="1"), row("y", "2024-01-01", late="1")))
    run("2024-01-03")
    before = stored("labels")["2024-01-02"]
    deliver(rows(row("x", "2024-01-01", late="0"), row("y", "2024-01-01", late="1.0")))
    line = ingest(tiny(), date(2024, 1, 4))
    assert "taken as known from 2024-01-04 on: 1 corrected labels" in line
    pd.testing.assert_frame_equal(stored("labels")["2024-01-02"], before)
    assert stored("labels")["2024-01-04"].set_index("parcel_id")["late"]["x"] == "0"
    after = all_bytes()
    assert "corrected" not in ingest(tiny(), date(2024, 1, 4))
    assert all_bytes() == after


def test_stored_truth_that_the_source_withdraws_is_missing_from_then_on():
    deliver(rows(row("x", "2024-01-01", late="1"), row("y", "2024-01-01", late="1")))
    run("2024-01-03")
    before = stored("labels")["2024-01-02"]
    deliver(rows(row("x", "2024-01-01", late=""), row("y", "2024-01-01", late=""), row("y", "2024-01-01", late="1")))
    told = run("2024-01-04")
    assert told["labels_withdrawn"] == 1  # y is told twice, once with its truth
    pd.testing.assert_frame_equal(stored("labels")["2024-01-02"], before)
    late = stored("labels")["2024-01-04"].set_index("parcel_id")["late"]
    assert late.isna().to_dict() == {"030": False, "031": False, "x": True}
    deliver(rows(row("x", "2024-01-01", late="1"), row("y", "2024-01-01", late="1")))
    assert run("2024-01-05")["labels_late"] == 1, "it is known again"


def test_bad_line_does_not_close_a_day_whose_rows_have_not_come():
    early = rows(days=("2024-01-01", "2024-01-02"))
    deliver(early)
    run("2024-01-02", predict__horizon_days=0)
    deliver(pd.concat([early, pd.DataFrame([row("x", "soon")])]))
    assert run("2024-01-03", predict__horizon_days=0)["rows_waiting_without_a_date"] == 1
    assert "2024-01-03" not in stored("rows")
    deliver(rows(row("x", "soon"), days=("2024-01-01", "2024-01-02", "2024-01-03")))
    assert run("2024-01-03", predict__horizon_days=0)["rows_waiting_without_a_date"] == 0
    assert ids("rows")["2024-01-03"] == ["030", "031", "x"]


def test_image_that_comes_after_its_row_is_a_version_of_that_day():
    """Until then the row's cell says that there is no such file, for which `validate` puts it into quarantine."""
    photo = {"source__images": "photos", "columns": {"photo": "image", "depot": "category"}, "expectations": []}
    deliver(rows(days=("2024-01-01", "2024-01-02")).assign(photo="box.png"))
    run("2024-01-01", **photo)
    run("2024-01-02", **photo)
    assert stored("rows")["2024-01-01"]["photo"].tolist() == ["no image: there is no such file"] * 2
    Path("photos").mkdir()
    Image.new("L", (8, 8)).save("photos/box.png")
    run("2024-01-03", **photo)
    assert known("2024-01-03")["photo"].str.startswith("iVBOR").all()
    assert not known("2024-01-02")["photo"].str.startswith("iVBOR").any(), "what was known then stays as it was"
    before = but_notes()
    run("2024-01-04", **photo)
    assert but_notes() == before


def test_row_without_a_date_is_the_same_under_another_declaration():
    deliver(rows(row("x", "soon"), days=("2024-01-01",)))
    run("2024-01-01")
    columns = {name: tiny().columns[name] for name in reversed(tiny().columns)}
    columns.pop("weight_kg")
    deliver(rows(row("x", "soon"), days=("2024-01-01", "2024-01-02")))
    run("2024-01-02", columns=columns, expectations=[])
    assert [name for day in ids("rows").values() for name in day].count("x") == 1


def test_day_is_fetched_again_once_for_each_reason_and_every_other_stays():
    days = ("2024-01-01", "2024-01-02", "2024-01-03")
    old = {"source__late_days": 0}
    deliver(rows(row("x", "soon"), days=days).drop([4]))
    run("2024-01-04", **old)
    assert ids("rows")["2024-01-03"] == ["031", "x"]
    before = all_bytes()
    deliver(rows(row("y", "soon"), days=days).replace({"weight_kg": "1.50"}, "2"))
    assert [*run("2024-01-04", **old)["left"]] == [*days]
    refetch("2024-01-03", "a truncated file")
    refetch("2024-01-09", "not stored yet")
    told = run("2024-01-04", **old)
    assert told["days_refetched"] == {"2024-01-03": "a truncated file (Ann)"}
    assert told["taken"] == {"2024-01-03": {"late": 1, "changed": 1, "withdrawn": 0}}
    assert known("2024-01-04")["weight_kg"].to_dict() == {
        **{f"0{day}{i}": "1.50" for day in (1, 2) for i in range(2)},
        **{"031": "2", "030": "2", "x": "2"},
    }
    after = all_bytes()
    assert {name: after[name] for name in before if name.startswith("rows")} == {
        name: content for name, content in before.items() if name.startswith("rows")
    }
    deliver(rows(days=days))
    assert run("2024-01-04", **old)["days_refetched"] == {}
    assert but_notes() == {name: content for name, content in after.items() if not is_note(name)}
    refetch("2024-01-03", "and once more")
    run("2024-01-04", **old)
    assert known("2024-01-04")["weight_kg"][["030", "031"]].tolist() == ["1.50", "1.50"]
    deliver(rows(days=days[:2]))
    refetch("2024-01-03", "nothing happened then")
    assert run("2024-01-04", **old)["taken"]["2024-01-03"]["withdrawn"] == 2
    assert sorted(known("2024-01-04").index) == ["010", "011", "020", "021", "x"]


def test_index_of_before_says_which_days_were_fetched_again():
    deliver(rows())
    run("2024-01-02")
    index_in_one_file()
    content = json.loads((RAW / "index.json").read_text())
    before = {
        kind: {day: {"rows": each["rows"], "sha256": "x"} for day, each in content[kind].items()} for kind in TABLES
    }
    before["rows"]["2024-01-01"]["retaken"] = "a truncated file (Ann)"
    (RAW / "index.json").write_text(json.dumps({**before, "undated": [], "as_of": "2024-01-02"}))
    refetch("2024-01-01", "a truncated file")
    told = run("2024-01-03")
    assert (told["days_refetched"], told["taken"], told["labels_corrected"]) == ({}, {}, 0)
    assert told["days_new"] == ["2024-01-04"]


def test_label_that_is_stored_is_not_told_twice():
    deliver(rows())
    for night in range(2, 8):
        run(f"2024-01-{night:02d}")
    labels = pd.concat(stored("labels").values())
    assert labels["parcel_id"].is_unique


def test_leading_zeros_and_long_integers_survive():
    deliver(rows(row("00123", "2024-01-01", depot="007"), row("12345678901234567891", "2024-01-01", depot="1e5")))
    run("2024-01-02")
    table = stored("rows")["2024-01-01"].set_index("parcel_id")
    assert table.loc["00123", "depot"] == "007"
    assert table.loc["12345678901234567891", "depot"] == "1e5"
    assert table.loc["010", "weight_kg"] == "1.50"


def test_words_that_pandas_takes_for_missing_survive():
    deliver(rows(row("n", "2024-01-01", depot="NA"), row("m", "2024-01-01", depot="null")))
    run("2024-01-02")
    table = stored("rows")["2024-01-01"].set_index("parcel_id")
    assert (table.loc["n", "depot"], table.loc["m", "depot"]) == ("NA", "null")
    assert table["handed_in"].isna()["n"]


def test_row_without_a_date_arrives_once_and_is_never_lost():
    deliver(rows(row("x", "someday")))
    run("2024-01-01")
    assert ids("rows")["2024-01-02"] == ["020", "021", "x"]
    deliver(rows(row("x", "someday"), row("y", "")))
    assert run("2024-01-01")["taken"] == {}
    assert "y" not in str(ids("rows"))  # its day is stored already: it waits for the next
    run("2024-01-02")
    assert ids("rows")["2024-01-03"] == ["030", "031", "y"]
    assert sum("x" in numbers for numbers in ids("rows").values()) == 1


@pytest.mark.parametrize("kept", ["nothing", "one day", "every file"])
def test_first_run_that_was_killed_is_made_good_by_the_next(kept):
    deliver(rows())
    run("2024-01-02")
    whole = all_bytes()
    (RAW / "index.json").unlink()
    if kept == "nothing":
        shutil.rmtree(RAW / "labels")
    if kept == "one day":
        for file in sorted(RAW.rglob("dt=*.parquet"))[1:]:
            file.unlink()
    run("2024-01-02")
    assert all_bytes() == whole


def test_later_run_that_was_killed_is_made_good_by_the_next():
    deliver(rows())
    run("2024-01-02")
    shutil.copytree(RAW, "before")
    run("2024-01-03")
    whole = all_bytes()
    shutil.rmtree(RAW)
    shutil.copytree("before", RAW)
    run_killed_before_the_index("2024-01-03")
    (RAW / "rows" / ".dt=2024-01-04.parquet.tmp-1").write_bytes(b"half")
    run("2024-01-03")
    assert all_bytes() == whole
    shutil.rmtree(RAW)
    shutil.copytree("before", RAW)
    run_killed_before_the_index("2024-01-03")
    (RAW / "labels" / "dt=2024-01-03.parquet").unlink()
    run("2024-01-03")
    assert all_bytes() == whole


def test_index_in_one_file_is_read_once_and_parted_by_year():
    """Late rows, labels and a year's end; the nights after it leave the bytes that nights leave which never had one."""
    days = [f"2023-12-{day}" for day in range(25, 32)] + [f"2024-01-0{day}" for day in range(1, 5)]
    found = []
    for before in (False, True):
        shutil.rmtree(RAW, ignore_errors=True)
        deliver(rows(days=days))
        run("2023-12-30")
        deliver(rows(row("x", "2023-12-28"), days=days))
        run("2023-12-31")
        if before:
            index_in_one_file()
        run("2024-01-01")
        run("2024-01-03")
        found.append(all_bytes())
    assert found[0] == found[1]
    assert {name[:11] for name in found[0] if name.startswith("index/")} == {"index/2023-", "index/2024-"}


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_year_of_the_index_that_is_damaged_is_told_with_the_remedy(damage):
    deliver(rows())
    run("2024-01-02")
    (file,) = (RAW / "index").iterdir()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"index/2024-\w+.json: must be .*; restore it: dvc checkout --force"):
        run("2024-01-03")


def test_declared_column_that_is_missing_is_told_and_nothing_is_written(workspace):
    deliver(rows().drop(columns=["depot", "late"]))
    with pytest.raises(UserError, match="must deliver every declared column, and lacks depot, late; it has parcel_id"):
        run("2024-01-02")
    assert not (workspace / "data").exists()


def test_source_without_rows_up_to_as_of_is_told_and_nothing_is_written(workspace):
    deliver(rows())
    with pytest.raises(UserError, match="knows no row up to 2023-12-31; check as_of and the source"):
        run("2023-12-30")
    assert not (workspace / "data").exists()
    run("2024-01-02")
    assert "nothing fetched: a run of a later as_of, 2024-01-02, has been" in ingest(tiny(), date(2024, 1, 1))
    with pytest.raises(UserError, match="knows no row up to 2023-12-31"):
        run("2023-12-30")


def test_cells_of_mixed_types_are_stored_as_text():
    lines = [
        {**row(f"m{i}", "2024-01-01"), "weight_kg": weight, "depot": depot}
        for i, (weight, depot) in enumerate(
            [(1, "A"), ("heavy", 7), (2.5, None), ([1], {"a": 1}), (True, "x"), (2**70, "y")]
        )
    ]
    with open("parcels.jsonl", "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    product = a_product(source={"kind": "jsonl", "url": "parcels.jsonl"})
    ingest(product, date(2024, 1, 2))
    table = stored("rows")["2024-01-01"].set_index("parcel_id")
    assert list(table["weight_kg"]) == ["1", "heavy", "2.5", "[1]", "True", str(2**70)]
    assert list(table["depot"].fillna("-")) == ["A", "7", "-", '{"a": 1}', "x", "y"]
    assert table["unreadable"].dropna().to_dict() == {"m3": "depot: is no single value; weight_kg: is no single value"}
    ingest(product, date(2024, 1, 2))
    assert report()["taken"] == {}


def test_text_of_a_decimal_does_not_depend_on_its_neighbours():
    cells = pd.Series([Decimal("2"), Decimal("3.50"), None, 1.0, "x"], dtype=object)
    for some in (cells, cells[:3], cells[:1]):
        assert storable(some).dropna().tolist() == ["2", "3.50", "1", "x"][: some.notna().sum()]


def test_integers_of_a_column_with_gaps_are_the_same_past_and_the_same_keys():
    def write(*more):
        frame = pd.DataFrame(
            [
                *[
                    {
                        "parcel_id": 2**60 + i,
                        "day": f"2024-01-0{i + 1}",
                        "depot": "A",
                        "weight_kg": 3,
                        "handed_in": "2024-01-01T00:00:00",
                        "late": 1,
                    }
                    for i in range(4)
                ],
                *more,
            ],
            dtype=object,
        )
        frame = frame.astype({"parcel_id": "Int64", "weight_kg": "Int64"})
        frame["handed_in"] = pd.to_datetime(frame["handed_in"])
        frame.to_parquet("parcels.parquet")

    write()
    product = a_product(source={"kind": "parquet", "url": "parcels.parquet"})
    ingest(product, date(2024, 1, 2))
    write(
        {
            "parcel_id": None,
            "day": "2024-01-04",
            "depot": "A",
            "weight_kg": None,
            "handed_in": "2024-01-01T00:00:01",
            "late": 1,
        }
    )
    ingest(product, date(2024, 1, 3))
    assert report()["taken"] == {}
    assert ids("labels") == {f"2024-01-0{i + 2}": [2**60 + i] for i in range(2)}
    assert stored("rows")["2024-01-04"]["parcel_id"].astype(object)[0] is not None


def test_labels_of_keys_that_join_to_one_text_are_all_stored():
    kinds = {"k": "category", "l": "category", "weight_kg": "number"}
    pairs = {"2024-01-01": [("a\x1f", "b")], "2024-01-02": [("a", "\x1fb"), ("c", "d")]}
    lines = [
        {"k": first, "l": second, "day": day, "weight_kg": "1", "late": "1"}
        for day, keys in pairs.items()
        for first, second in keys
    ]
    deliver(pd.DataFrame(lines))
    for as_of in ("2024-01-01", "2024-01-02"):
        run(as_of, key=["k", "l"], columns=kinds, expectations=[], target__delay_days=0, split__group=None)
    assert report()["labels_new"] == 2
    stored_keys = {day: set(zip(table["k"], table["l"], strict=True)) for day, table in stored("labels").items()}
    assert stored_keys == {day: {*keys} for day, keys in pairs.items()}


def test_key_may_hold_the_time_and_a_column_called_day():
    frame = rows(each=1).assign(store=["1", "2", "3", "4"])
    deliver(frame)
    run("2024-01-03", key=["store", "day"])
    assert list(stored("labels")["2024-01-02"].columns) == ["store", "day", "late"]


EVENTS = st.tuples(st.integers(0, 6), st.sampled_from(["", "0", "1"]), st.integers(0, 8))


@given(st.lists(EVENTS, min_size=1, max_size=9), st.lists(st.integers(0, 8), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_night_adds_and_none_takes_away(workspace, events, nights):
    """Parcels whose truth is filled in on some day; nights on any days, run in order."""
    shutil.rmtree(workspace / "data", ignore_errors=True)
    first = date(2024, 1, 1)
    before, earlier = {}, ""
    for night in sorted(nights):
        as_of = first + timedelta(days=night)
        deliver(
            pd.DataFrame(
                [
                    row(f"p{i}", (first + timedelta(days=day)).isoformat(), late=late if truth_on <= night else "")
                    for i, (day, late, truth_on) in enumerate(events)
                ]
            )
        )
        if not any(day <= night + 1 for day, _, _ in events):
            continue
        run(as_of.isoformat())
        after = but_notes()
        assert before.items() <= after.items()
        new = {name.split("dt=")[1][:10] for name in set(after) - set(before) if name.startswith("labels")}
        if before:
            assert all(day > earlier for day in new), "a truth must not arrive before it is known"
        before, earlier = after, as_of.isoformat()
        numbers = [number for day in ids("rows").values() for number in day]
        assert sorted(numbers) == sorted(f"p{i}" for i, (day, _, _) in enumerate(events) if day <= night + 1)
        told = [number for day in ids("labels").values() for number in day]
        assert len(told) == len(set(told))
        assert set(told) >= {
            f"p{i}"
            for i, (day, late, on) in enumerate(events)
            if late and day + 1 <= night and on <= night and nights.count(night) == 1
        }


def test_rows_later_than_the_night_and_rows_without_a_date_are_said():
    deliver(rows(row("x", "2024-01-09"), row("y", "never")))
    line = ingest(tiny(), date(2024, 1, 4))
    assert "1 rows are later than the scored day, and left for later nights" in line
    line = ingest(tiny(), date(2024, 1, 4))
    assert "wait for a new day" not in line
    deliver(rows(row("x", "2024-01-09"), row("y", "never"), row("z", "never")))
    assert "1 rows without a date wait for a new day" in ingest(tiny(), date(2024, 1, 4))


def test_label_that_becomes_readable_is_taken_at_the_same_as_of():
    """A cell that was garbage, and a row that could not be read, in a file that is mended on the same day."""
    late = rows(row("a", "2024-01-02", late="1,000.5"))
    deliver(late)
    run("2024-01-05", target__delay_days=1)
    with open("parcels.csv", "a") as file:
        file.write("one cell alone\n")
    before = all_bytes()
    assert run("2024-01-05", target__delay_days=1)["labels_new"] == 0
    assert but_notes() == {name: content for name, content in before.items() if not is_note(name)}
    deliver(rows(row("a", "2024-01-02", late="1")))
    assert run("2024-01-05", target__delay_days=1)["labels_late"] == 1
    assert stored("labels")["2024-01-05"]["parcel_id"].tolist() == ["040", "041", "a"]
    assert stored("labels")["2024-01-03"]["late"].tolist() == ["0", "1", "1,000.5"]
    after = all_bytes()
    assert run("2024-01-05", target__delay_days=1)["labels_new"] == 0
    assert all_bytes() == after


def test_labels_added_by_a_run_that_was_killed_are_counted_by_the_next():
    deliver(rows(row("a", "2024-01-02", late="?")))
    run("2024-01-05")
    shutil.copytree(RAW, "before")
    deliver(rows(row("a", "2024-01-02", late="1")))
    total = run("2024-01-05")["labels_total"]
    shutil.rmtree(RAW)
    shutil.copytree("before", RAW)
    run_killed_before_the_index("2024-01-05")
    assert run("2024-01-05")["labels_total"] == total
    assert sum(map(len, stored("labels").values())) == total


@pytest.mark.parametrize(("first", "then"), [("{}", "{}.0"), ("{}.0", "{}")])
def test_whole_numbers_written_with_and_without_a_point_are_the_same_keys(first, then):
    frame = rows(days=("2024-01-01", "2024-01-02"))
    numbers = [1000 + i for i in range(len(frame))]
    deliver(frame.assign(parcel_id=[first.format(n) for n in numbers]))
    run("2024-01-02")
    more = rows(days=("2024-01-01", "2024-01-02", "2024-01-03"))
    deliver(more.assign(parcel_id=[then.format(1000 + i) for i in range(len(more))]))
    line = ingest(tiny(), date(2024, 1, 4))
    assert "2 late rows" in line
    assert report()["labels_new"] == 4
    assert "6 KEYS CAME AS WHOLE NUMBERS WRITTEN OTHERWISE THAN BEFORE" in line
    assert "PAST HAS CHANGED" not in line
    assert [*known("2024-01-04").index[-2:]] == [first.format(1004), first.format(1005)]
    labelled = [number for numbers in ids("labels").values() for number in numbers]
    assert sorted(labelled) == sorted(first.format(1000 + i) for i in range(6))


def test_key_of_another_form_stays_what_it_is():
    deliver(rows(days=("2024-01-01",)))
    run("2024-01-01")
    deliver(rows(row("1.0", "2024-01-02"), days=("2024-01-01",)))
    assert run("2024-01-02")["keys_written_otherwise"] == 0
    assert known("2024-01-02").index[-1] == "1.0"


def late_by(days, as_of, **changes):
    """A parcel of 2 January comes so many days after its night of the same day."""
    deliver(rows())
    run("2024-01-02", predict__horizon_days=0)
    for n in range(1, days):
        run(f"2024-01-{2 + n:02d}", predict__horizon_days=0)
    deliver(rows(row("x", "2024-01-02")))
    return run(as_of, predict__horizon_days=0, **changes)


def test_late_row_enters_within_the_days_that_are_taken_and_is_told_once_beyond():
    within = late_by(7, "2024-01-09")
    assert within["taken"] == {"2024-01-02": {"late": 1, "changed": 0, "withdrawn": 0}}
    shutil.rmtree("data")
    beyond = late_by(8, "2024-01-10")
    assert (beyond["taken"], beyond["left"]) == ({}, {"2024-01-02": {"rows": 1, "labels": 0, "gone": 0}})
    assert beyond["labels_late"] == 1, "a label is taken for longer"
    assert run("2024-01-11", predict__horizon_days=0)["left"] == {}


def test_weekly_product_loses_no_row_that_came_the_day_after_its_run():
    deliver(rows())
    run("2024-01-04", predict__horizon_days=0)
    deliver(rows(row("x", "2024-01-04")))
    assert run("2024-01-11", predict__horizon_days=0)["rows_late"] == 1


def test_file_of_the_newest_days_alone_tells_nothing_of_older_ones():
    deliver(rows())
    run("2024-01-03")
    deliver(rows(days=("2024-01-04", "2024-01-05")))
    line = ingest(tiny(), date(2024, 1, 4))
    assert line == "2 new rows on 1 days, 0 new labels"


def test_latest_version_of_a_key_in_one_delivery_stands():
    versions = rows(row("x", "2024-01-01", weight_kg="1"), row("x", "2024-01-01", weight_kg="2"))
    deliver(versions.assign(updated=[*["2024-01-01"] * 8, "2024-01-03T09:00", "2024-01-02T09:00"]))
    source = {"kind": "csv", "url": "parcels.csv", "latest_by": "updated"}
    told = run("2024-01-03", source=source)
    assert (told["rows_superseded"], known("2024-01-03")["weight_kg"]["x"]) == (1, "1")
    assert "updated" not in known("2024-01-03")


def test_versions_are_put_in_order_by_times_as_the_source_writes_them():
    versions = rows(row("x", "2024-01-01", weight_kg="1"), row("x", "2024-01-01", weight_kg="2"))
    deliver(versions.assign(updated=[*["01.01.2024"] * 8, "01.03.2024", "29.02.2024"]))
    source = {"kind": "csv", "url": "parcels.csv", "latest_by": "updated"}
    with pytest.raises(
        UserError, match=r"latest_by: updated must hold numbers alone or times alone.*set source.time_format"
    ):
        run("2024-01-03", source=source)
    run("2024-01-03", source={**source, "time_format": "%d.%m.%Y"})
    assert known("2024-01-03")["weight_kg"]["x"] == "1"


def test_row_that_a_complete_delivery_lacks_is_withdrawn():
    deliver(rows())
    run("2024-01-02", source__complete=True)
    deliver(rows().drop([1]))
    assert run("2024-01-03", source__complete=True)["rows_withdrawn"] == 1
    assert "011" in known("2024-01-02").index
    assert "011" not in known("2024-01-03").index


def test_category_that_comes_with_a_point_overnight_changes_no_past():
    deliver(rows().assign(depot="7"))
    run("2024-01-02")
    deliver(rows().assign(depot="7.0"))
    assert run("2024-01-03")["taken"] == {}


@pytest.mark.long
@pytest.mark.parametrize("killed", [False, True])
def test_months_of_old_days_read_as_their_days_did(monkeypatch, killed):
    """Late rows, corrected labels and further nights come after old months have become one file each."""
    days = [(date(2024, 1, 1) + timedelta(days=i)).isoformat() for i in range(130)]
    late, settled = row("late", "2024-04-28"), {"source__late_days": 20, "target__late_days": 200}
    found = {}
    for kept in (62, 10_000):
        monkeypatch.setattr(partitions, "KEPT_AS_DAYS", kept)
        shutil.rmtree(RAW, ignore_errors=True)
        frame = rows(days=days).assign(parcel_id=[f"p{i}" for i in range(2 * len(days))])
        deliver(frame)
        run(days[-3], **settled)
        frame.loc[[8, 250], "late"] = "9", "9"
        deliver(pd.concat([frame, pd.DataFrame([late], dtype="str")]))
        if killed and kept == 62:
            with monkeypatch.context() as patched:
                patched.setattr(RawIndex, "save", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
                with pytest.raises(KeyboardInterrupt):
                    run(days[-2], **settled)
        counts = run(days[-2], **settled)
        n_months = len([*(RAW / "rows").glob("dt=????-??.parquet")])
        assert n_months == (2 if kept == 62 else 0)
        labels = read_tables(RAW / "labels").to_dict("list")
        found[kept] = counts, known(days[-2]).to_dict("list"), known(days[-9]).to_dict("list"), labels
    assert found[62] == found[10_000]
    assert "late" in known(days[-2]).index
