"""Oracle: versions applied by hand, one by one, to a list of rows."""

import json
from datetime import date

import pandas as pd
import pytest

from tasks.rows.partitions import partition, write_table
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
