"""Oracle: days made by hand, usual and not; the population stability index by its formula; the demo's own year."""

import json
import math
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from builders import a_product, declared, mistakes, raw_rows

from tasks.commands import decide
from tasks.quality.checked_table import Counts
from tasks.quality.drift import Figure, compare_with_days_before, stability_index
from tasks.rows.partitions import partition, read_table, write_table
from tasks.runtime.errors import UserError
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths
from tasks.validate import validate

pytestmark = pytest.mark.usefixtures("workspace")

DAY = date(2024, 2, 10)
PATHS = Paths("tiny")


def tiny(**changes):
    return a_product(expectations=[], predict__horizon_days=0, **changes)


def rows(n=200, depots="AAB", missing=0, weight=1.0, seed=0):
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "depot": random.choice(list(depots), n),
            "weight_kg": random.gamma(2, weight, n),
            "handed_in": pd.Timestamp("2024-01-01").as_unit("s"),
        }
    )
    table.loc[: missing - 1, "weight_kg"] = np.nan
    return table


def days(last, n_before=28):
    """A usual month and its last day, as `validate` hands them on; weekends have half the rows and another mix."""
    by_date = {}
    for i in range(n_before + 1):
        day = DAY - timedelta(days=i)
        weekend = day.weekday() >= 5
        table = last if i == 0 else rows(100 if weekend else 200, "AB" if weekend else "AAB", seed=i)
        write_table(partition(PATHS.valid / "rows", day), table)
        by_date[day.isoformat()] = Counts(rows_in=len(table), rows_valid=len(table))
    return by_date


def beyond(last, n_before=28, quarantined=0, **changes):
    by_date = days(last, n_before)
    by_date[DAY.isoformat()] = replace(by_date[DAY.isoformat()], rows_quarantined=quarantined)
    drift = compare_with_days_before(tiny(**changes), DAY, PATHS.valid / "rows", by_date)
    return [figure.name for figure in drift.figures if not figure.holds]


@pytest.mark.parametrize(
    ("last", "what"),
    [
        (rows(seed=99), []),
        (rows(90, "AB", seed=99), []),
        (rows(2000), ["rows"]),
        (rows(5), ["rows"]),
        (rows(missing=120), ["weight_kg: share missing"]),
        (rows(depots="ABBBBBB"), ["depot: shift"]),
        (rows(depots="AABZZZZ"), ["depot: shift"]),
        (rows(weight=1000), []),
    ],
    ids=["usual", "weekend", "tenfold", "few", "missing", "mix", "unseen", "a number"],
)
def test_day_that_differs_in_kind_is_seen_and_a_usual_one_is_not(last, what):
    assert beyond(last) == what


def test_day_of_quarantined_rows_and_day_without_rows_are_seen():
    assert beyond(rows(), quarantined=80) == ["share quarantined"]
    assert beyond(rows(0)) == ["rows"]


def test_limits_are_those_of_the_product():
    assert beyond(rows(2000), day={"max_volume_ratio": 11}) == []
    assert beyond(rows(depots="AABZZZZ"), day={"max_shift": 9}) == []


def test_nothing_is_judged_before_there_is_a_usual():
    assert beyond(rows(5), n_before=6) == []
    assert beyond(rows(5), n_before=7) == ["rows"]


def teststability_index_is_the_sum_of_its_formula():
    p, q = [(3.5, 1.5), (10.5, 10.5)]
    wanted = sum((a / 5 - b / 21) * math.log((a / 5) / (b / 21)) for a, b in zip(p, q, strict=True))
    assert stability_index(np.array([3, 1]), np.array([10, 10])) == pytest.approx(wanted)


def deliver(n_last, n_before=10):
    for i in range(n_before + 1):
        day = DAY - timedelta(days=i)
        n = n_last if i == 0 else 20
        table = pd.DataFrame({"parcel_id": [f"{day}-{j}" for j in range(n)], "day": day.isoformat()})
        table = table.assign(depot="A", weight_kg="1.5", handed_in=f"{day}T09:00")
        raw_rows(table, day)


def test_run_stops_with_the_figures_until_a_person_accepts_the_day():
    deliver(20)
    validate(tiny(), DAY)
    before = folder_sha256(PATHS.valid), folder_sha256(PATHS.quarantine)
    deliver(200)
    with pytest.raises(
        UserError, match=r"(?s)rows of 2024-02-10 .* 10 days before.*\n  rows: 200, and .* may be\n.*make accept"
    ):
        validate(tiny(), DAY)
    assert (folder_sha256(PATHS.valid), folder_sha256(PATHS.quarantine)) == before
    decide.accept(tiny(), DAY, "no reason yet", "Bob", DAY)
    decide.accept(tiny(), DAY, "a sale", "Ann", DAY)
    decide.accept(tiny(), DAY - timedelta(days=1), "another day", "Ann", DAY)
    validate(tiny(), DAY)
    drift = json.loads(PATHS.report("validation.json").read_text())["drift"]
    assert drift["accepted"] == "a sale (Ann)"
    assert not Figure(**drift["figures"][0]).holds


def test_days_before_that_are_wholly_quarantined_have_a_share_and_no_mix():
    deliver(20)
    for i in range(1, 11):
        file = partition(PATHS.raw / "rows", DAY - timedelta(days=i))
        write_table(file, read_table(file).assign(weight_kg="n/a"))
    with pytest.raises(UserError, match=r"on:\n  share quarantined: 0, and 0.6603 to 1 may be\nLook at .*make accept"):
        validate(tiny(), DAY)
    decide.accept(tiny(), DAY, "mended", "Ann", DAY)
    validate(tiny(), DAY)


def test_limits_that_are_none_are_told():
    lines = mistakes(declared(day={"max_volume_ratio": 0.5, "max_share_change": -1.0, "max_shift": math.nan}))
    assert [line.split(" must")[0] for line in lines] == [
        f"products.tiny.drift.{name}" for name in ("max_volume_ratio", "max_share_change", "max_shift")
    ]
