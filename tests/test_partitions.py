"""Oracle: the same rows written a day at a time and made months once; a dictionary of the frames that were written."""

from datetime import date, timedelta

import numpy as np
import pandas as pd

from tasks.rows.partitions import Partitions

APRIL, LATE_IN_AUGUST = date(2013, 4, 1), date(2013, 8, 31)
KINDS = {
    "exact": pd.DataFrame({"a": [2**60 + 1, 2], "b.c": ["x", None], "b": [0.5, np.nan]}),
    "gaps": pd.DataFrame({"a": pd.Series([2**60 + 1, None, 3], dtype=object), "b.c": ["x", None, "y"]}),
    "text": pd.DataFrame({"a": ["u"], "b.c": pd.Series([None], dtype=object)}),
    "typed": pd.DataFrame({"a": pd.array([1, None], "Int8"), "at": pd.Series(["2024-01-01", None]).astype("M8[s]")}),
    "none": pd.DataFrame({"a": pd.Series([], dtype="str")}),
    "more": pd.DataFrame({"b": [True, False, True, False, True], "a": range(5), "note": [None] * 5}),
}


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def fill(folder, days):
    stored = Partitions(folder)
    for day, kind in days.items():
        stored.write(day, KINDS[kind])
    return stored


def same_reading(one, other):
    days = one.days()
    assert days == other.days()
    for day in days:
        expected, found = one.table(day), other.table(day)
        assert found.equals(expected)
        assert found.schema.equals(expected.schema, check_metadata=True)
        assert one.n_rows(day) == other.n_rows(day) == len(expected)
        assert one.sha256(day) == other.sha256(day)
        assert one.columns(day) == other.columns(day) == expected.schema.names
        for rows in (None, range(1, 3), range(4, 9)):
            pieces = [(len(piece), piece.to_pylist()) for piece in one.pieces(day, rows)]
            assert [(len(piece), piece.to_pylist()) for piece in other.pieces(day, rows)] == pieces
    for columns in (None, ["b", "a"], ["absent", "b.c"], []):
        pd.testing.assert_frame_equal(other.read(days, columns), one.read(days, columns))


def test_month_reads_as_its_days_did_whatever_their_columns_and_types(tmp_path):
    days = dict(zip((APRIL + timedelta(days=n) for n in (0, 1, 4, 9, 28, 29)), KINDS, strict=True))
    apart, joined = fill(tmp_path / "apart", days), fill(tmp_path / "joined", days)
    joined.compact(LATE_IN_AUGUST)
    assert list(contents(joined.folder)) == ["dt=2013-04.parquet"]
    same_reading(apart, joined)
    assert joined.days(since=APRIL + timedelta(days=1), until=APRIL + timedelta(days=9)) == sorted(days)[1:4]
    assert APRIL in joined
    assert APRIL + timedelta(days=2) not in joined
