"""Oracle: days made by hand, usual and not; the population stability index by its formula; each run judged alone."""

import json
import math
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from builders import a_product, declared, mistakes, raw_labels, raw_rows

from tasks.commands.data import decide
from tasks.ingest import ingest
from tasks.quality.checked_table import CheckedTable
from tasks.quality.day_summaries import CATEGORIES_KEPT, DaySummary, quantiles, sum_up_days
from tasks.quality.drift import compare, is_empty_usual, stability_index
from tasks.quality.judging import DayJudge
from tasks.quality.ledger import JudgedDay
from tasks.quality.verdicts import Figure
from tasks.rows.partitions import read_tables
from tasks.rows.raw_archive import RawIndex
from tasks.rows.versions import DaysByYear
from tasks.runtime.errors import UserError
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths
from tasks.validate import validate

pytestmark = pytest.mark.usefixtures("workspace")

DAY = date(2024, 2, 10)
PATHS = Paths("tiny")
NONE = {"weight_kg": "number"}


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


def a_day(ago, table, quarantined=0):
    """The summary of a day by its distance from DAY; the rows in quarantine are left out of its mix."""
    text = (DAY - timedelta(days=ago)).isoformat()
    checked = CheckedTable(table.assign(dt=text), table.assign(dt=text))
    checked.add_violation(table.index[len(table) - quarantined :], "weight_kg", "is wrong")
    return sum_up_days(checked, tiny(), date.fromisoformat(text)).get(text, DaySummary(date=text))


def month(n_before=28):
    """A usual month before DAY, oldest first; weekends have half the rows and another mix."""
    found = []
    for ago in range(n_before, 0, -1):
        weekend = (DAY - timedelta(days=ago)).weekday() >= 5
        found.append(a_day(ago, rows(100 if weekend else 200, "AB" if weekend else "AAB", seed=ago)))
    return found


def beyond(last, n_before=28, quarantined=0, **changes):
    newest = (DAY - timedelta(days=0 if len(last) else 1)).isoformat()
    figures = compare(a_day(0, last, quarantined), month(n_before), newest, tiny(**changes))
    return [figure.name for figure in figures if not figure.holds]


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
        (rows(weight=2), ["weight_kg: quantile 0.95"]),
    ],
    ids=["usual", "weekend", "tenfold", "few", "missing", "mix", "unseen", "a number"],
)
def test_day_that_differs_in_kind_is_seen_and_a_usual_one_is_not(last, what):
    assert beyond(last) == what


def test_day_of_quarantined_rows_and_day_without_rows_are_seen():
    assert beyond(rows(), quarantined=80) == ["share quarantined"]
    assert beyond(rows(0)) == ["rows", "newest row"]


def test_limits_are_those_of_the_product():
    assert beyond(rows(2000), day={"max_volume_ratio": 11}) == []
    assert beyond(rows(depots="AABZZZZ"), day={"max_shift": 9}) == []


def test_before_there_is_a_usual_only_a_day_without_a_valid_row_is_seen():
    assert beyond(rows(5), n_before=6) == []
    assert beyond(rows(5), n_before=7) == ["rows"]
    for n_before in range(7):
        assert beyond(rows(0), n_before) == ["rows", "newest row"]
        assert beyond(rows(5), n_before, quarantined=5) == ["valid rows"]


def gamma_days(n_days, n_rows, seed=0, scale=1.0):
    """Summaries of days whose weights have the same distribution, and whose level moves a little."""
    random = np.random.default_rng(seed)
    given = {"rows_in": n_rows, "rows_valid": n_rows, "missing": {"weight_kg": 0}}
    weights = [random.gamma(2, 3 * random.normal(1, 0.03), n_rows) * scale for _ in range(n_days)]
    return [
        DaySummary(date=(DAY - timedelta(days=n_days - i)).isoformat(), numbers={"weight_kg": quantiles(each)}, **given)
        for i, each in enumerate(weights)
    ]


def numbers_beyond(day, before):
    figures = compare(day, before, day.date, tiny(columns=NONE))
    return [figure.name for figure in figures if "quantile" in figure.name and not figure.holds]


def test_number_in_another_unit_is_seen_and_usual_days_are_not():
    days = gamma_days(60, 200)
    miles = gamma_days(60, 200, scale=1.609344)
    assert sum(bool(numbers_beyond(day, days[i : i + 28])) for i, day in enumerate(days[28:])) == 0
    assert sum(bool(numbers_beyond(day, days[i : i + 28])) for i, day in enumerate(miles[28:])) >= 29
    few = gamma_days(60, 30)
    assert sum(bool(numbers_beyond(day, few[i : i + 28])) for i, day in enumerate(few[28:])) <= 2
    assert sum(bool(numbers_beyond(day, days[:28])) for day in few[28:]) <= 2, "a day of few rows has more chance"


def test_numbers_are_not_compared_where_nothing_is_known_of_them():
    *before, day = gamma_days(20, 200, scale=1.0)
    far = replace(day, numbers={"weight_kg": (900.0,) * 5})
    assert numbers_beyond(far, before)
    assert not numbers_beyond(far, [replace(each, numbers={}) for each in before]), "a ledger of before"
    assert not numbers_beyond(far, before[:6])
    assert not numbers_beyond(replace(far, missing={"weight_kg": 191}), before)
    one = [replace(each, numbers={"weight_kg": (1.0,) * 5}) for each in before]
    assert not numbers_beyond(far, one), "a constant says nothing of how it may move"


def test_quantiles_of_counts_move_little_where_little_changes():
    one, other = (quantiles(np.repeat([0.0, 1.0, 2.0], counts)) for counts in ((49, 31, 20), (51, 29, 20)))
    assert np.abs(np.array(one) - other).max() < 0.06
    assert quantiles(np.array([np.nan, np.inf])) == ()


def test_stability_index_is_the_sum_of_its_formula():
    p, q = [(3.5, 1.5), (10.5, 10.5)]
    wanted = sum((a / 5 - b / 21) * math.log((a / 5) / (b / 21)) for a, b in zip(p, q, strict=True))
    assert stability_index(np.array([3, 1]), np.array([10, 10])) == pytest.approx(wanted)


def deliver(n_last, n_before=10):
    for i in range(n_before + 1):
        deliver_day(DAY - timedelta(days=i), n_last if i == 0 else 20)


def deliver_day(day, n, **cells):
    table = pd.DataFrame({"parcel_id": [f"{day}-{j}" for j in range(n)], "day": day.isoformat()})
    raw_rows(table.assign(**{"depot": "A", "weight_kg": "1.5", "handed_in": f"{day}T09:00", **cells}), day)


def report():
    return json.loads(PATHS.report("validation.json").read_text())


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
    drift = report()["drift"]
    assert drift["accepted"] == "a sale (Ann)"
    assert not Figure(**drift["figures"][0]).holds


def test_days_before_that_are_wholly_quarantined_have_a_share_and_no_mix():
    before = [a_day(ago, rows(20, seed=ago), quarantined=20) for ago in range(10, 0, -1)]
    figures = compare(a_day(0, rows(20)), before, DAY.isoformat(), tiny())
    assert [str(figure) for figure in figures if not figure.holds] == ["share quarantined: 0, and 0.6603 to 1 may be"]
    assert [figure.name for figure in figures] == ["rows", "share quarantined"]


def test_limits_that_are_none_are_told():
    lines = mistakes(
        declared(day={"max_volume_ratio": 0.5, "max_share_change": -1.0, "max_shift": math.nan, "max_number_shift": -1})
    )
    assert [line.split(" must")[0] for line in lines] == [
        f"products.tiny.drift.{name}"
        for name in ("max_volume_ratio", "max_share_change", "max_shift", "max_number_shift")
    ]


def pattern(*weeks):
    """The days before DAY, a Saturday, from Saturday to Friday each week: `1` with rows, `.` without."""
    marks = "".join(weeks)
    days = [(DAY - timedelta(days=len(marks) - i)).isoformat() for i in range(len(marks))]
    return [DaySummary(date=day, rows_in=20 * (mark == "1")) for day, mark in zip(days, marks, strict=True)]


@pytest.mark.parametrize(
    ("weeks", "usual"),
    [
        (("..11111",) * 4, True),
        (("1111111",) * 4, False),
        (("1111111", "1111111", "1111111", ".111111"), False),
        (("1111111", "1111111", ".111111", ".111111"), True),
        (("1.11.11",) * 4, False),
        (("11.1111", "1111111", "111111.", "1111111"), False),
        (("11.1.11", "1.11111", "11111.1", "111.1.1"), True),
        ((".......", "......."), True),
        ((), False),
    ],
    ids=["weekends", "never", "once", "twice lately", "other weekdays", "holidays", "now and then", "always", "none"],
)
def test_day_without_rows_is_usual_by_its_weekday_or_among_all(weeks, usual):
    assert is_empty_usual(DaySummary(date=DAY.isoformat()), pattern(*weeks)) is usual


def test_few_rows_on_a_weekday_are_seen_though_weekends_have_none():
    before = pattern(*("..11111",) * 4)
    seen = compare(DaySummary(date="2024-02-12", rows_in=1, rows_valid=1), before, "2024-02-12", tiny(columns=NONE))
    assert [str(figure) for figure in seen if not figure.holds] == ["rows: 1, and 2.424 to 64.2426 may be"]


def judged(counts, loaded=0, scored=None, accepted=(), **cells):
    """The judge after days of so many rows from DAY on, loaded first at day number `loaded`; a dot is no row."""
    days = [DAY + timedelta(days=i) for i in range(len(counts))]
    stored = [day for day, n in zip(days, counts, strict=True) if n]
    reasons = {(DAY + timedelta(days=i)).isoformat(): "right (Ann)" for i in accepted}
    judge = DayJudge(
        tiny(**cells), days[-1] if scored is None else days[scored], days[loaded], DaysByYear.of(stored), reasons
    )
    for day, n in zip(days, counts, strict=True):
        if day <= judge.scored_day and day >= judge.first:
            name = day.isoformat()
            found = JudgedDay(input="", rows_in=n, rows_fit=n) if n else None
            table = rows(n, "A").assign(dt=name)
            judge.judge(
                day, found, sum_up_days(CheckedTable(table, table), judge.product, judge.compared_since).get(name)
            )
    return [(date.fromisoformat(each.date) - DAY).days for each in judge.held]


USUAL = [20] * 10
"""Ten days, of which the last is the scored one of the first load."""


def test_source_that_ends_stops_every_night_for_ever():
    assert judged(USUAL + [0] * 60, loaded=9) == list(range(10, 70))


def test_source_that_shrinks_or_grows_stops_every_night_until_a_person_answers():
    for n in (1, 300):
        assert judged(USUAL + [n] * 40, loaded=9) == list(range(10, 50))
        assert judged(USUAL + [n] * 40, loaded=9, accepted=[12]) == [10, 11], "the new level is usual from then on"


def test_rows_that_come_late_to_an_empty_day_are_judged_by_what_they_are():
    assert judged([*USUAL, 0, 20, 0, 20], loaded=9) == [10, 12]
    assert judged([*USUAL, 20, 20, 20, 20], loaded=9) == []
    assert judged([*USUAL, 1, 20, 300, 20], loaded=9) == [10, 12]


def test_weekends_without_rows_pass_and_a_weekday_without_does_not():
    week = [0, 0, 20, 20, 20, 20, 20]  # DAY is a Saturday
    assert judged(week * 4, loaded=2) == [7, 8, 14, 15, 21, 22], "the first weekend is new, and nobody accepts it"
    assert judged(week * 4, loaded=2, accepted=[7, 8]) == []
    assert judged([*week * 4, 0, 0, 20, 0, 20], loaded=20) == [31]
    assert judged([*week * 4, 0, 0, 0, 20], loaded=20, accepted=[30]) == []


def test_days_of_the_history_are_not_judged_and_the_first_scored_day_is():
    assert judged([20, 300, 1, 0, 20, 20, 20, 20, 20, 20], loaded=9) == []
    assert judged([20] * 9 + [300], loaded=9) == [9]
    assert judged([20] * 5 + [0], loaded=5) == [5]


def test_day_after_the_end_of_a_history_is_no_gap_in_it():
    """A source that has ended long before its first load."""
    assert judged(USUAL + [0] * 300, loaded=309) == [309]
    assert judged([*USUAL, *[0] * 300, 0], loaded=309) == [309, 310]


def test_verdict_on_a_day_does_not_depend_on_later_days():
    counts = [*USUAL, 20, 0, 20, 300, 2, 0, 0, 20, 20, 300, 300, 20]
    whole = judged(counts, loaded=9, accepted=[13])
    for last in range(9, len(counts)):
        assert judged(counts[: last + 1], loaded=9, accepted=[13]) == [day for day in whole if day <= last]


def test_freshness_is_judged_by_how_far_the_newest_row_is_behind():
    before = pattern(*("..11111",) * 4)
    seen = compare(DaySummary(date="2024-02-12"), before, "2024-02-09", tiny())
    assert [str(figure) for figure in seen] == [
        "rows: 0, and 3.6667 to 63 may be",
        "newest row: 3 days behind, and 0 to 2 may be",
    ]


def test_many_categories_are_counted_up_to_a_number_and_the_rest_together():
    table = rows(1000).assign(depot=[f"d{i % 400:03d}" for i in range(1000)])
    day = a_day(0, table)
    assert len(day.categories["depot"]) == CATEGORIES_KEPT
    assert [*day.categories["depot"]][:2] == ["d000", "d001"], "the most frequent, then by name"
    figures = {each.name: each for each in compare(day, [a_day(i, table) for i in range(8)], None, tiny())}
    assert figures["depot: shift"].seen == pytest.approx(0, abs=0.01)


# Held rows


def first_load(as_of):
    """An index that says when the first load was; the rows are what `deliver` wrote."""
    index = RawIndex.load(PATHS.raw)
    index.note_run(as_of)
    index.save()


def night(as_of):
    """What stopped the run, or None."""
    try:
        validate(tiny(), as_of)
    except UserError as error:
        return str(error)
    return None


def test_held_rows_reach_nothing_until_a_person_accepts_and_then_return():
    bad, after = DAY + timedelta(days=1), DAY + timedelta(days=2)
    deliver(20)
    first_load(DAY)
    deliver_day(bad, 300)
    assert "rows: 300, and" in night(bad)
    deliver_day(after, 20)
    raw_labels(pd.DataFrame({"parcel_id": [f"{bad}-1", f"{after}-1"], "late": "1"}), after)
    printed = validate(tiny(), after)
    assert printed.endswith("1 day (2024-02-11) HELD until a person answers, with 300 of the rows in quarantine")
    assert sorted(set(read_tables(PATHS.valid / "rows")["dt"]))[-2:] == ["2024-02-10", "2024-02-12"]
    quarantine = read_tables(PATHS.quarantine / "rows")
    assert set(quarantine["reasons"]) == {"day held: rows"}
    assert (len(quarantine), quarantine["raw_row"].isna().sum()) == (300, 0)
    told = report()
    assert told["rows"] == {"rows_in": 540, "rows_valid": 240, "rows_quarantined": 300}
    assert [(each["date"], each["rows_held"]) for each in told["held_days"]] == [("2024-02-11", 300)]
    assert told["drift"]["days_before"] == 11
    decide.accept(tiny(), bad, "a sale", "Ann", after)
    assert "HELD" not in validate(tiny(), after)
    assert len(read_tables(PATHS.valid / "rows")) == 540
    assert report()["held_days"] == []


def test_expectations_are_about_the_days_that_the_run_goes_on_with():
    deliver(20)
    first_load(DAY)
    deliver_day(DAY + timedelta(days=1), 300, depot="Z")
    deliver_day(DAY + timedelta(days=2), 20)
    known = {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "depot", "value_set": ["A"]}}
    most = {"type": "expect_table_row_count_to_be_between", "kwargs": {"max_value": 250}}
    rules = [{**known, "severity": "critical"}, {**most, "severity": "critical"}]
    product = a_product(expectations=rules, predict__horizon_days=0)
    with pytest.raises(UserError, match="2 expectations do not hold"):
        validate(product, DAY + timedelta(days=1))
    validate(product, DAY + timedelta(days=2))
    assert [each["success"] for each in report()["expectations"]] == [True, True]


def test_day_that_breaks_a_critical_expectation_stays_held_however_much_follows():
    """Of ten days' rows one in ten is too much; of eleven days' rows the same rows would be few enough."""
    deliver(20, n_before=8)
    first_load(DAY)
    deliver_day(DAY + timedelta(days=1), 20, depot="Z")
    known = {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "depot", "value_set": ["A"]}}
    rule = {**known, "severity": "critical"} | {"kwargs": {**known["kwargs"], "mostly": 0.905}}
    product = a_product(expectations=[rule], predict__horizon_days=0, drift={"max_share_change": 1, "max_shift": 99})
    with pytest.raises(UserError, match="1 expectations do not hold"):
        validate(product, DAY + timedelta(days=1))
    deliver_day(DAY + timedelta(days=2), 20)
    assert "HELD" in validate(product, DAY + timedelta(days=2))
    (held,) = report()["held_days"]
    assert [(each["name"], each["seen"]) for each in held["figures"]] == [
        ("expect_column_values_to_be_in_set on depot", 0.9)
    ]
    decide.accept(product, DAY + timedelta(days=1), "a new depot", "Ann", DAY)
    assert "HELD" not in validate(product, DAY + timedelta(days=2))


def test_message_of_a_source_that_has_ended_names_its_newest_row():
    deliver(20)
    first_load(DAY)
    assert night(DAY + timedelta(days=300)).splitlines()[:3] == [
        "products.tiny: the source must have rows of 2024-12-06, and has none; its newest row up to then is of "
        "2024-02-10 (give an as_of that fits, or see why the source has ended), and nothing was passed on:",
        "  rows: 0, and 3.6667 to 63 may be",
        "  newest row: 300 days behind, and 0 to 0 may be",
    ]


def test_index_keeps_the_first_load_and_one_of_before_counts_from_its_newest_run():
    pd.DataFrame(
        {"parcel_id": ["a"], "day": "2024-01-05", "depot": "A", "weight_kg": 1, "handed_in": "", "late": 1}
    ).to_csv("parcels.csv", index=False)
    product = tiny(source__url="parcels.csv")
    for as_of, first in (("2024-01-09", "2024-01-09"), ("2024-01-12", "2024-01-09"), ("2024-01-07", "2024-01-07")):
        ingest(product, date.fromisoformat(as_of))
        index = RawIndex.load(PATHS.raw)
        assert (index.as_of, index.first_as_of) == (max(as_of, "2024-01-12" if as_of < "2024-01-09" else as_of), first)
    file = PATHS.raw / "index.json"
    before = json.loads(file.read_text())
    del before["first_as_of"]
    file.write_text(json.dumps(before))
    assert RawIndex.load(PATHS.raw).first_as_of == "2024-01-12"
    ingest(product, date(2024, 1, 13))
    assert RawIndex.load(PATHS.raw).first_as_of == "2024-01-12"
