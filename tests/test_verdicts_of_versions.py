"""Oracle: the days that are judged, and judging everything anew, byte for byte; rows come through ingest itself."""

import shutil
from datetime import date, timedelta

import pandas as pd
import pytest
from builders import a_product

from tasks.commands.data import decide
from tasks.ingest import ingest
from tasks.quality.checks import Check
from tasks.rows.decisions import Correction, file_of, read_decisions, write_decisions
from tasks.rows.partitions import read_tables
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths
from tasks.validate import validate

pytestmark = pytest.mark.usefixtures("workspace")

PATHS = Paths("tiny")
FIRST = date(2024, 1, 1)
RULE = {
    "type": "expect_column_values_to_be_between",
    "severity": "warning",
    "kwargs": {"column": "weight_kg", "min_value": 0},
}


def day(number):
    return FIRST + timedelta(days=number)


@pytest.fixture(autouse=True)
def judged(monkeypatch):
    """The days whose rows are judged, as they are."""
    days, judge = [], Check._judge

    def noted(self, batch):
        days.extend(each.isoformat()[5:] for each in batch if self.judge)
        return judge(self, batch)

    monkeypatch.setattr(Check, "_judge", noted)
    monkeypatch.setattr("tasks.runtime.files._fsync", lambda _: None)
    return days


def rows(n_days, **weights):
    """Twenty rows a day; the weights of some are given, as of p3x7: the row number 7 of the day number 3."""
    keys = [(f"p{number}x{place}", day(number)) for number in range(n_days) for place in range(20)]
    found = pd.DataFrame(keys, columns=["parcel_id", "day"]).astype("str")
    found["weight_kg"] = found["parcel_id"].map(weights).fillna("1")
    return found.assign(depot="A", handed_in=found["day"] + "T09:00", late="1")


def night(frame, number, judged, **changes):
    """The days that a night judges."""
    frame.to_csv("parcels.csv", index=False)
    product = a_product(source__url="parcels.csv", expectations=[RULE], predict__horizon_days=0, **changes)
    ingest(product, day(number))
    judged.clear()
    validate(product, day(number))
    found = [*judged]
    if number > 5:
        assert state() == anew(product, number)
    return found


def state():
    return folder_sha256(PATHS.valid), folder_sha256(PATHS.quarantine), PATHS.report("validation.json").read_bytes()


def anew(product, number):
    """What judging everything anew leaves."""
    shutil.rmtree(PATHS.valid)
    shutil.rmtree(PATHS.quarantine)
    validate(product, day(number))
    return state()


def test_day_that_is_fetched_again_is_judged_again_where_rows_are_others(judged):
    assert night(rows(6), 5, judged) == [f"01-0{number}" for number in range(1, 7)]
    product = a_product(source__url="parcels.csv", predict__horizon_days=0)
    decide.refetch(product, day(2), "the file was cut", "Ann", date(2024, 3, 1))
    assert night(rows(7), 6, judged, source__late_days=0) == ["01-07"], "its rows are what they were"
    decide.refetch(product, day(2), "and mended", "Ann", date(2024, 3, 1))
    assert night(rows(8, p2x7="-1", p3x7="-1"), 7, judged, source__late_days=0) == ["01-03", "01-08"]
    assert read_tables(PATHS.quarantine / "rows")["parcel_id"].tolist() == ["p2x7"]


def test_correction_of_a_changed_row_has_its_day_judged_again_and_no_other(judged):
    night(rows(6), 5, judged)
    assert night(rows(7, p4x3="-1"), 6, judged) == ["01-05", "01-07"]
    (bad,) = read_tables(PATHS.quarantine / "rows").to_dict("records")
    assert (bad["parcel_id"], bad["raw_row"][0]) == ("p4x3", "c")
    decision = Correction(
        **{"decided": day(7).isoformat(), "person": "Ann", "why": "a sign"},
        **{"of": "rows", "row": bad["raw_row"], "known": day(7).isoformat(), "cells": {"weight_kg": 2}},
    )
    file = file_of("tiny", day(4))
    write_decisions(file, [*read_decisions(file), decision])
    assert night(rows(8, p4x3="-1"), 7, judged) == ["01-05", "01-08"]
    assert not len(read_tables(PATHS.quarantine / "rows"))
    valid = read_tables(PATHS.valid / "rows").set_index("parcel_id")["weight_kg"]
    assert valid["p4x3"] == 2
    assert night(rows(9, p4x3="-1"), 8, judged) == ["01-09"], "a verdict on a corrected row stands, too"
