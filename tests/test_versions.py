"""Oracle: versions applied by hand, one by one, to a list of rows."""

import json
import shutil
from datetime import date, timedelta

import pandas as pd
import pytest
from builders import a_product
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.ingest import ingest
from tasks.rows.intake.beside import Beside
from tasks.rows.partitions import Partitions, partition, write_table
from tasks.rows.versions import History
from tasks.runtime.paths import Paths

pytestmark = pytest.mark.usefixtures("workspace")

RAW = Paths("tiny").raw
DAY, NEXT = date(2024, 1, 1), date(2024, 1, 2)


def a_log():
    """Two days of rows, and changes of the first that became known on three later dates."""
    for day, keys in ((DAY, "abc"), (NEXT, "de")):
        write_table(partition(RAW / "rows", day), pd.DataFrame({"key": [*keys], "n": [f"{key}0" for key in keys]}))
    changes = {
        "2024-01-02": [("b", "b1", "changed", 1), ("x", "x0", "late", 3)],
        "2024-01-03": [("a", "a0", "withdrawn", 0), ("y", "y0", "late", 4), ("y", "y1", "changed", 4)],
        "2024-01-04": [("x", "x1", "changed", 3), ("a", "a2", "late", 0)],
    }
    for known, versions in changes.items():
        table = pd.DataFrame(versions, columns=["key", "n", "change", "slot"]).assign(dt_of=DAY.isoformat())
        write_table(partition(RAW / "changes", date.fromisoformat(known)), table)
    index = {
        "rows": {day.isoformat(): {"rows": n, "digest": f"base {n}"} for day, n in ((DAY, 3), (NEXT, 2))},
        "labels": {},
        "changes": {
            known: {"rows": len(of), "late": 1, "of": {DAY.isoformat(): known}} for known, of in changes.items()
        },
        "undated": [],
    }
    (RAW / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("as_of", "known"),
    [
        (date(2024, 1, 1), "a0 b0 c0"),
        (date(2024, 1, 2), "a0 b1 c0 x0"),
        (date(2024, 1, 3), "b1 c0 x0 y1"),
        (date(2024, 1, 4), "a2 b1 c0 x1 y1"),
    ],
    ids=str,
)
def test_run_sees_the_newest_version_of_each_row_that_was_known(as_of, known):
    a_log()
    history = History(RAW, as_of)
    rows = history.read([DAY, NEXT], ["n", "key"])
    assert rows["n"].tolist() == [*known.split(), "d0", "e0"]
    assert rows["dt"].tolist() == ["2024-01-01"] * len(known.split()) + ["2024-01-02"] * 2
    assert list(rows.columns) == ["n", "key", "dt"]
    assert history.days() == [DAY, NEXT]


def test_digest_of_a_day_changes_with_what_is_known_of_it_alone():
    a_log()
    of_day = [History(RAW, date(2024, 1, n)).digest(DAY) for n in range(1, 6)]
    of_next = {History(RAW, date(2024, 1, n)).digest(NEXT) for n in range(1, 6)}
    assert len(set(of_day[:4])) == 4
    assert of_day[3] == of_day[4]
    assert len(of_next) == 1


CELLS = st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.sampled_from("uv"), st.sampled_from(["", "0", "1"]))


def a_delivery(rows):
    """One row of each key, as (key, day of January, cell, label)."""
    first = {key: (key, day, cell, late) for key, day, cell, late in reversed(rows)}
    lines = [
        {"parcel_id": f"{key}{day}", "day": f"2024-01-0{day + 1}", "depot": cell, "weight_kg": "1", "late": late}
        for key, day, cell, late in sorted(first.values())
    ]
    return pd.DataFrame([{"parcel_id": "z", "day": "2024-01-01", "depot": "u", "weight_kg": "1", "late": "0"}, *lines])


def as_seen(product, night):
    """The rows and the newest labels that a run of a night sees, by key."""
    history = History(RAW, night)
    rows = history.read(history.days(product.scored_day(night)), ["parcel_id", "depot"])
    labels = Partitions(RAW / "labels").read(Partitions(RAW / "labels").days(night), ["parcel_id", "late"])
    newest = labels.drop_duplicates("parcel_id", keep="last").dropna(subset="late")
    return dict(zip(rows["parcel_id"], rows["depot"], strict=True)), dict(
        zip(newest["parcel_id"], newest["late"], strict=True)
    )


@pytest.mark.long
@given(st.lists(st.lists(CELLS, max_size=5), min_size=1, max_size=5))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_night_sees_the_newest_versions_that_had_come_by_then(workspace, nights):
    """A dictionary by key, updated night by night, is what a run of each night sees, then and for ever after."""
    shutil.rmtree(workspace / "data", ignore_errors=True)
    columns = {"depot": "category", "weight_kg": "number"}
    product = a_product(source__url="rows.csv", columns=columns, expectations=[], predict__horizon_days=0)
    rows, labels, seen, stored = {}, {}, {}, {}
    for i, delivered in enumerate(nights):
        night, frame = DAY + timedelta(days=i), a_delivery(delivered)
        frame.to_csv("rows.csv", index=False)
        for _, each in frame.iterrows():
            key, event = each["parcel_id"], date.fromisoformat(each["day"])
            if event <= night:
                rows[key] = each["depot"]
            if event + timedelta(days=1) <= night:
                labels.pop(key, None)
                labels.update({key: each["late"]} if each["late"] else {})
        ingest(product, night)
        assert as_seen(product, night) == (rows, labels)
        seen[night] = ({**rows}, {**labels})
        for file, content in stored.items():
            assert file.read_bytes() == content, "what is stored is never rewritten"
        stored = {file: file.read_bytes() for file in RAW.rglob("dt=*.parquet")}
        ingest(product, night)
        assert stored == {file: file.read_bytes() for file in RAW.rglob("dt=*.parquet")}, "the same run adds nothing"
    for night, was in seen.items():
        assert as_seen(product, night) == was, "a run of an earlier night sees what it saw"


def test_date_that_is_as_stored_is_found_so_without_comparing_rows(monkeypatch):
    declared = {"depot": "category", "weight_kg": "number"}
    product = a_product(source__url="rows.csv", columns=declared, expectations=[], predict__horizon_days=0)
    columns = ["parcel_id", "day", "depot", "weight_kg", "late"]
    days = [DAY + timedelta(days=n) for n in range(4)]
    rows = [[f"{day}-{n}", str(day), "Ghent", "1.5", n] for day in days for n in (0, 1)]
    frame = pd.DataFrame(rows, columns=columns)
    compared = []
    monkeypatch.setattr(Beside, "compare_rows", lambda _, rows: compared.extend(rows["dt"].unique()))
    for night in days:
        frame[frame["day"] <= str(night)].to_csv("rows.csv", index=False)
        ingest(product, night)
    assert compared == [str(day) for day in days[:-1]], "the date whose labels came, and no other"
    assert len(as_seen(product, days[-1])[1]) == 6
