"""Oracle: the same rows written a day at a time and made months once; a dictionary of the frames that were written."""

import os
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.rows import partitions as module
from tasks.rows.day_writer import in_order
from tasks.rows.partitions import Partitions, partition, write_table
from tasks.runtime.errors import UserError

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
        assert one.first() <= day
        assert other.first() <= day
    for columns in (None, ["b", "a"]):
        batches = [*other.batches(days, columns)]
        in_order = [row for day in days for row in one.table(day, columns).to_pylist()]
        assert [row for _, batch in batches for row in batch.to_pylist()] == in_order
        dates = [day for dates, batch in batches for day in dates.tolist()[: len(batch)]]
        assert dates == [day for day in days for _ in range(one.n_rows(day))]
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


def test_any_way_of_writing_gives_the_bytes_of_writing_all_and_compacting_once(tmp_path_factory):
    @settings(max_examples=20, deadline=None)
    @given(st.lists(STEPS, min_size=3, max_size=7), st.integers(1, 4))
    def holds(steps, size):
        folder = tmp_path_factory.mktemp("any")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "ROWS_AT_ONCE", size)
            patch.setattr("tasks.runtime.files._fsync", lambda path: None)
            wanted = dict(zip(DAYS, ("exact", "gaps", "typed", "more"), strict=True))
            stored = fill(folder / "stored", wanted)
            for step in steps:
                take(*step, stored, wanted)
                assert rows_of(stored) == expected_rows(wanted)
            once = fill(folder / "once", wanted)
            for each in (stored, once):
                each.folder.mkdir(exist_ok=True)
                each.compact(date(2013, 12, 31))
            assert contents(stored.folder) == contents(once.folder)

    holds()


DAYS = [APRIL, APRIL + timedelta(days=1), APRIL + timedelta(days=30), date(2013, 8, 30)]
STEPS = st.tuples(
    st.sampled_from(["write", "compact", "remove", "month"]),
    st.sampled_from(DAYS),
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 3),
    st.booleans(),
)


def rows_of(stored):
    return {day: stored.table(day).to_pylist() for day in stored.days()}


def expected_rows(wanted):
    return {day: pa.Table.from_pandas(KINDS[kind], preserve_index=False).to_pylist() for day, kind in wanted.items()}


def write_in_order(stored, days, newest=LATE_IN_AUGUST):
    with in_order(stored, newest) as writer:
        for day, kind in sorted(days.items()):
            writer.write(day, KINDS[kind])


@pytest.mark.parametrize("held", [2**20, 100])
@pytest.mark.parametrize("newest", [LATE_IN_AUGUST, None])
def test_writing_dates_in_order_gives_the_bytes_of_writing_each_and_compacting(tmp_path, monkeypatch, held, newest):
    monkeypatch.setattr("tasks.rows.day_writer.BYTES_HELD", held)
    days = dict(zip((APRIL + timedelta(days=n) for n in (0, 1, 4, 28, 31, 150)), KINDS, strict=True))
    apart, together = Partitions(tmp_path / "apart"), Partitions(tmp_path / "in order")
    for changed in (days, {APRIL: "more", DAYS[2]: "typed"}):
        for day, kind in changed.items():
            apart.write(day, KINDS[kind])
        write_in_order(together, changed, newest)
        for folder in (apart, together):
            folder.compact(LATE_IN_AUGUST)
    assert contents(together.folder) == contents(apart.folder)
    assert sorted(contents(apart.folder)) == ["dt=2013-04.parquet", "dt=2013-05.parquet", "dt=2013-08-29.parquet"]


def test_dates_that_are_read_together_have_the_cells_and_types_of_each(tmp_path):
    cells = {"a": pa.array([2**60 + 1, 2]), "b": pa.array([True, None]), "c": pa.array([None, 1.5])}
    gaps = {"a": pa.array([None, 7]), "b": pa.array([True, False]), "c": pa.array([1.0, 2.0])}
    apart, joined = Partitions(tmp_path / "apart"), Partitions(tmp_path / "joined")
    for folder in (apart, joined):
        for number, each in enumerate((cells, cells, gaps, cells)):
            folder.write(APRIL + timedelta(days=number), pa.table(each))
    joined.compact(LATE_IN_AUGUST)
    days = apart.days()
    assert [len(alike) for alike, *_ in joined.alike(days)] == [4]
    for wanted in (days, days[:2], days[2:], days[::-1]):
        pd.testing.assert_frame_equal(joined.read(wanted), apart.read(wanted))


class KilledError(BaseException):
    """No handler of ours catches it, as none runs when a process is killed."""


def take(step, day, kind, nth, is_given_up, stored, wanted):
    """Take one step, which is killed before its nth change of the folder, and tried again unless it is given up."""
    before, after = dict(wanted), dict(wanted)
    if step == "write":
        after[day] = kind
        act = partial(stored.write, day, KINDS[kind])
    elif step == "remove":
        after.pop(day, None)
        act = partial(stored.remove, [day])
    elif step == "month" and day < DAYS[-1]:
        of_month = {each: kept for each, kept in wanted.items() if each.month == day.month} | {day: kind}
        after |= of_month
        act = partial(write_in_order, stored, of_month)
    else:
        act = partial(stored.compact, LATE_IN_AUGUST)
    with pytest.MonkeyPatch.context() as killing:
        changes = []

        def counted(change):
            def changing(path, *args, **kwargs):
                if path.parent == stored.folder and not path.name.startswith("."):
                    if len(changes) == nth:
                        raise KilledError
                    changes.append(path)
                return change(path, *args, **kwargs)

            return changing

        killing.setattr(Path, "unlink", counted(Path.unlink))
        killing.setattr(Path, "replace", lambda path, to: counted(lambda to: os.replace(path, to))(to))
        try:
            act()
        except KilledError:
            states = [before, after]
            left = states[[*map(expected_rows, states)].index(rows_of(stored))]
            if is_given_up:
                act, after = dict, left
    act()
    wanted.clear()
    wanted.update(after)


def test_day_that_lies_beside_its_month_becomes_a_part_of_it(tmp_path):
    days = dict(zip((APRIL + timedelta(days=n) for n in range(6)), KINDS, strict=True))
    first, *others = days
    stored, once = fill(tmp_path / "stored", {day: days[day] for day in others}), fill(tmp_path / "once", days)
    stored.compact(LATE_IN_AUGUST)
    write_table(partition(stored.folder, first), KINDS[days[first]])
    same_reading(once, stored)
    for each in (stored, once):
        each.compact(LATE_IN_AUGUST)
    assert contents(stored.folder) == contents(once.folder)
    assert list(contents(once.folder)) == ["dt=2013-04.parquet"]


def test_months_are_made_of_old_days_only(tmp_path):
    days = [date(2013, 4, 30), date(2013, 5, 31), date(2013, 6, 1)]
    stored = fill(tmp_path, dict.fromkeys(days, "exact"))
    stored.compact(date(2013, 4, 30) + timedelta(days=62))
    assert list(contents(tmp_path)) == [f"dt={day}.parquet" for day in days]
    stored.compact(date(2013, 4, 30) + timedelta(days=63))
    assert list(contents(tmp_path)) == ["dt=2013-04.parquet", "dt=2013-05-31.parquet", "dt=2013-06-01.parquet"]
    assert stored.days() == days
    assert Partitions(tmp_path / "absent").days() == []


def test_day_of_a_month_is_read_without_the_others(tmp_path, monkeypatch):
    stored = fill(tmp_path, dict.fromkeys((APRIL + timedelta(days=n) for n in range(9)), "more"))
    stored.compact(LATE_IN_AUGUST)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    stored.write(APRIL, KINDS["more"])
    file = tmp_path / "dt=2013-04.parquet"
    assert [pq.read_metadata(file).row_group(group).num_rows for group in range(4)] == [2, 2, 1, 2]
    whole = bytearray(file.read_bytes())
    for group in range(4, pq.read_metadata(file).num_row_groups):  # all other days are destroyed
        about = pq.read_metadata(file).row_group(group).column(0)
        start = about.dictionary_page_offset or about.data_page_offset
        whole[start : start + about.total_compressed_size] = bytes(about.total_compressed_size)
    file.write_bytes(whole)
    assert stored.table(APRIL)["a"].to_pylist() == [0, 1, 2, 3, 4]
    assert [piece["a"].to_pylist() for piece in stored.pieces(APRIL, range(1, 3))] == [[1], [2]]
    with pytest.raises(UserError, match=r"dt=2013-04.parquet: must be as it was written, and is damaged"):
        stored.table(APRIL + timedelta(days=4), ["b"])
