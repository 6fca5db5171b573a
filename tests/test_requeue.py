"""Oracle: the law of accounting, before and after; the raw files' own bytes; a count by hand."""

import json
import shutil
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from builders import a_product
from chaos_inputs import nightly

from tasks.commands.data import requeue
from tasks.rows.decisions import file_of
from tasks.rows.losses import Losses
from tasks.rows.partitions import read_tables
from tasks.runtime.errors import UserError
from tasks.runtime.files import folder_sha256, read_json
from tasks.runtime.paths import Paths

AS_OF, DAY = date(2024, 1, 2), date(2024, 1, 1)
DECIDED = date(2024, 3, 1)
PATHS = Paths("tiny")
CORRECTION = json.dumps(
    {
        **{"kind": "correction", "decided": "2024-01-01", "person": "Ann", "why": "a test"},
        **{"of": "rows", "row": "0", "known": "KNOWN", "cells": {}},
    }
)
HEADER = "parcel_id,day,depot,weight_kg,handed_in,late\n"
LINES = [
    "p1,2024-01-01,A,1,,0\n",
    "p2,2024-01-01,007,heavy,,maybe\n",
    "p3,2024-01-01,A,light,,1\n",
    "p1,2024-01-01,A,1,,0\n",
    "p1,2024-01-01,A,1,,0\n",
    "p9,2024-01-03,A\n",
    "p5,2024-01-03,A,1,,1\n",
]


@pytest.fixture(autouse=True)
def source(workspace):
    Path("rows").write_text(HEADER + "".join(LINES))


def tiny(**changes):
    changes = {"source": {"kind": "csv", "url": "rows"}, "expectations": [], **changes}
    return a_product(**changes)


def edited(day=DAY):
    return [json.loads(line) for line in requeue.edit_file(tiny(), day).read_text("utf-8").split("\n")[:-1]]


def edit(change, day=DAY, product=None, as_of=AS_OF):
    """Show a day's quarantine, let `change` edit the rows (or drop one by returning False), and feed it back."""
    requeue.show(product or tiny(), day)
    rows = [row for row in edited(day) if change(row) is not False]
    requeue.edit_file(tiny(), day).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return requeue.requeue(product or tiny(), as_of, day, "Ann", DECIDED)


def heavy_is_nine(row):
    if row["cells"].get("weight_kg") == "heavy":
        row["cells"]["weight_kg"] = 9
    elif row["kind"] == "labels" and row["cells"]["late"] == "maybe":
        row["cells"]["late"] = "1"


def test_corrected_rows_are_judged_again_and_counted_where_they_arrived():
    first = nightly(tiny(), AS_OF)
    assert (first["valid"], first["quarantined"]) == (2, 5)
    raw = folder_sha256(PATHS.raw)
    assert edit(heavy_is_nine).startswith("1 rows corrected: read decisions/tiny/dt=2024-01-01.jsonl, commit it")
    again = nightly(tiny(), AS_OF)
    assert (again["valid"], again["quarantined"]) == (3, 4)
    valid = read_tables(PATHS.valid / "rows").set_index("parcel_id")
    assert (valid.loc["p2", "weight_kg"], valid.loc["p2", "depot"]) == (9, "007")
    report = read_json(PATHS.report("validation.json"))
    assert report["corrected"] == {"rows": 1, "labels": 0}  # the label is known on 01-02, and corrected under that day
    assert folder_sha256(PATHS.raw) == raw
    assert edit(heavy_is_nine, day=date(2024, 1, 2)).startswith("1 rows corrected")
    nightly(tiny(), AS_OF)
    assert read_tables(PATHS.valid / "labels").set_index("parcel_id").loc["p2", "late"] == 1


def test_same_edit_again_changes_nothing_and_gives_the_same_bytes():
    nightly(tiny(), AS_OF)
    edit(heavy_is_nine)
    nightly(tiny(), AS_OF)
    before = file_of("tiny", DAY).read_bytes(), folder_sha256(PATHS.valid), folder_sha256(PATHS.quarantine)
    with pytest.raises(UserError, match="a cell must have been changed, and none is"):
        edit(heavy_is_nine)
    nightly(tiny(), AS_OF)
    assert (file_of("tiny", DAY).read_bytes(), folder_sha256(PATHS.valid), folder_sha256(PATHS.quarantine)) == before


def test_correction_that_is_wrong_stays_in_quarantine_and_can_be_corrected_again():
    nightly(tiny(), AS_OF)
    edit(lambda row: row["cells"].update(weight_kg="still heavy") if row["cells"]["parcel_id"] == "p2" else None)
    assert nightly(tiny(), AS_OF)["quarantined"] == 5
    edit(lambda row: row["cells"].update(weight_kg="8") if row["cells"]["parcel_id"] == "p2" else None)
    assert nightly(tiny(), AS_OF)["quarantined"] == 4
    assert len(file_of("tiny", DAY).read_text().splitlines()) == 1


def test_equal_rows_are_told_apart():
    nightly(tiny(), AS_OF)
    for number in ("p7", "p8"):
        done = []

        def rename(row, number=number, done=done):
            if row["cells"]["parcel_id"] == "p1" and not done:
                done.append(row["cells"].update(parcel_id=number))

        edit(rename)
        nightly(tiny(), AS_OF)
    assert sorted(read_tables(PATHS.valid / "rows")["parcel_id"]) == ["p1", "p5", "p7", "p8"]


def test_equal_row_keeps_its_name_when_the_last_of_them_is_corrected():
    nightly(tiny(), AS_OF)
    for name, number in (("6a6e9b0ceb1afdf9", "p7"), ("6a6e9b0ceb1afdf9#1", "p8")):
        edit(
            lambda row, name=name, number=number: row["cells"].update(parcel_id=number) if row["row"] == name else None
        )
        nightly(tiny(), AS_OF)
    assert sorted(read_tables(PATHS.valid / "rows")["parcel_id"]) == ["p1", "p5", "p7", "p8"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["depot", "weight_kg"], ["depot", "weight_kg", "handed_in"]),
        (["depot", "weight_kg", "handed_in"], ["depot", "weight_kg"]),
        (["depot", "weight_kg", "handed_in"], ["handed_in", "weight_kg", "depot"]),
    ],
    ids=["added", "dropped", "in another order"],
)
def test_row_keeps_its_name_whatever_columns_are_declared(before, after):
    kinds = {"depot": "category", "weight_kg": "number", "handed_in": "time"}
    before, after = (tiny(columns={name: kinds[name] for name in names}) for names in (before, after))
    nightly(before, AS_OF)
    requeue.show(before, DAY)
    named = {row["row"] for row in edited()}
    edit(heavy_is_nine, product=before)
    night, new_day = date(2024, 1, 3), date(2024, 1, 4)
    Path("rows").write_text(HEADER + "".join(LINES) + f"p6,{new_day},A,light,,1\n")
    assert nightly(after, night)["valid"] == 3
    requeue.show(after, DAY)
    assert {row["row"] for row in edited()} < named
    for day in (DAY, new_day):  # stored before and after the change
        edit(
            lambda row: row["cells"].update(weight_kg="7") if row["cells"]["weight_kg"] == "light" else None, day, after
        )
    for declared_now in (after, before):
        assert nightly(declared_now, night)["valid"] == 5


def test_names_are_those_of_the_corrections_that_are_committed():
    """Told once: a name that comes out otherwise leaves every correction without its row."""
    nightly(tiny(), AS_OF)
    requeue.show(tiny(), DAY)
    assert {row["row"]: row["cells"]["parcel_id"] for row in edited()} == {
        "b16fbc4af30b4b52": "p2",
        "73ee13b5bda0f0ca": "p3",
        "6a6e9b0ceb1afdf9#1": "p1",
        "6a6e9b0ceb1afdf9": "p1",
    }


def test_unreadable_row_is_corrected_under_the_day_on_which_it_arrived():
    nightly(tiny(), AS_OF)
    day = date(2024, 1, 3)

    def fill(row, day="2024-01-03"):
        assert row["unreadable_text"] == '["p9", "2024-01-03", "A"]'
        row["cells"] |= {"parcel_id": "p9", "day": day, "depot": "A", "weight_kg": 1.5}

    edit(lambda row: fill(row, "2024-01-01"), day)
    assert nightly(tiny(), AS_OF)["reasons"]["day: was corrected to another day than that under which the row arrived"]
    edit(lambda row: row["cells"].update(day="2024-01-03"), day)
    nightly(tiny(), AS_OF)
    assert "p9" in set(read_tables(PATHS.valid / "rows")["parcel_id"])


def test_run_of_an_earlier_night_does_not_see_a_correction():
    nightly(tiny(), AS_OF)
    edit(heavy_is_nine, as_of=date(2024, 1, 5))
    assert nightly(tiny(), AS_OF)["quarantined"] == 5
    Path("rows").write_text(HEADER + "".join(LINES) + "p6,2024-01-06,A,1,,1\n")
    assert nightly(tiny(), date(2024, 1, 5))["quarantined"] == 4


@pytest.mark.parametrize("nights", [(5, 9), (9, 5)], ids=["the later one last", "the earlier one last"])
def test_each_cell_is_known_from_the_night_that_was_named_for_it(nights):
    Path("rows").write_text(HEADER + "p1,2024-01-01,A,heavy,soon,0\np2,2024-01-01,A,1,,0\n")
    first = "weight_kg: is no number"
    cells = {5: {"weight_kg": "9"}, 9: {"handed_in": "2024-01-01T09:00"}}
    nightly(tiny(), AS_OF)
    for night in nights:  # shown alike both times, as a person has it before a run with the first
        edit(lambda row, night=night: row["cells"].update(cells[night]), as_of=date(2024, 1, night))
    reasons = {night: nightly(tiny(), date(2024, 1, night))["reasons"] for night in (4, 5, 8, 9)}
    assert reasons == {
        4: {first: 1, "handed_in: is no time": 1},
        5: {"handed_in: is no time": 1},
        8: {"handed_in: is no time": 1},
        9: {},
    }
    edit_again = date(2024, 1, 5)
    nightly(tiny(), edit_again)
    edit(lambda row: row["cells"].update(handed_in="2024-01-01T08:00"), as_of=edit_again)
    assert nightly(tiny(), edit_again)["reasons"] == {}
    nightly(tiny(), date(2024, 1, 9))
    assert read_tables(PATHS.valid / "rows")["handed_in"].tolist()[0] == pd.Timestamp("2024-01-01T09:00")


def test_corrections_hold_no_personal_data_either(monkeypatch):
    monkeypatch.setenv("LAMPLIGHTER_PII_KEY", "a key of the tests, long enough")
    Path("rows").write_text(HEADER + "".join(line for line in LINES if "p9" not in line))
    product = tiny(pii={"depot": "hash"})
    nightly(product, AS_OF)
    edit(
        lambda row: row["cells"].update(depot="SECRET", weight_kg="1") if "depot" in row["cells"] else None,
        product=product,
    )
    assert "SECRET" not in file_of("tiny", DAY).read_text()
    assert nightly(product, AS_OF)["valid"] == 4


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"], ids=ascii)
def test_cells_may_hold_what_ends_a_line_elsewhere(end):
    Path("rows").write_text(HEADER + f"p1,2024-01-01,A{end}B,heavy,,0\np2,2024-01-01,A,1,,0\n", "utf-8")
    nightly(tiny(), AS_OF)
    requeue.show(tiny(), DAY)
    file = requeue.edit_file(tiny(), DAY)
    file.write_text(file.read_text("utf-8").replace('"heavy"', "9").replace(f"A{end}B", f"B{end}A"), "utf-8")
    requeue.requeue(tiny(), AS_OF, DAY, "Ann", DECIDED)
    assert nightly(tiny(), AS_OF)["valid"] == 2
    assert read_tables(PATHS.valid / "rows")["depot"].tolist() == [f"B{end}A", "A"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no JSON", "a line must be a row of the quarantine, and is not"),
        ('{"kind": "rows", "row": "0", "cells": {}}', "a line must be a row of the quarantine, and is not"),
        ("", "a cell must have been changed, and none is"),
    ],
)
def test_edited_file_that_is_wrong_is_told(text, told):
    nightly(tiny(), AS_OF)
    requeue.show(tiny(), DAY)
    requeue.edit_file(tiny(), DAY).write_text(text)
    with pytest.raises(UserError, match=told):
        requeue.requeue(tiny(), AS_OF, DAY, "Ann", DECIDED)
    assert not file_of("tiny", DAY).exists()


def test_correction_that_is_none_or_of_no_row_stops_the_run():
    nightly(tiny(), AS_OF)
    file_of("tiny", DAY).parent.mkdir(parents=True, exist_ok=True)
    for line, told in (
        ("no JSON", r"dt=2024-01-01.jsonl:1: a line must be a decision as make accept, refetch or requeue writes it"),
        (
            CORRECTION.replace("KNOWN", "2024-01-01"),
            "must be of a row that is stored, and 0 of",
        ),
        (CORRECTION.replace("KNOWN", "today"), "must be a date written as YYYY-MM-DD"),
    ):
        file_of("tiny", DAY).write_text(line)
        before = folder_sha256(PATHS.valid)
        with pytest.raises(UserError, match=told):
            requeue_free_validate()
        assert folder_sha256(PATHS.valid) == before


def requeue_free_validate():
    from tasks.validate import validate

    validate(tiny(), AS_OF)


def test_quarantine_is_listed_by_day_and_reason(workspace):
    nightly(tiny(), AS_OF)
    told = requeue.overview(tiny()).splitlines()
    assert "2024-01-01       2 rows  weight_kg: is no number" in told
    assert "2024-01-01       2 rows  parcel_id: is a key already seen" in told
    shutil.rmtree("data")
    with pytest.raises(UserError, match="must hold what validate quarantined, and does not"):
        requeue.overview(tiny())
    run = workspace / "home/runs/tiny-2024-01-02-predict-00000000/data/quarantine/tiny"
    Losses().write(run)
    assert requeue.overview(tiny()) == "tiny: no row is in quarantine"
