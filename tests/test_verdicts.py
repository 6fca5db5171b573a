"""Oracle: judging everything anew, byte for byte; the number of days that are read; the files' own bytes."""

import random
import shutil
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from builders import a_product, accept_days, raw_day, raw_labels, raw_rows

from tasks.quality.checks import Check
from tasks.quality.duplicates.key_index import KeyIndex, distinct, is_repeated
from tasks.quality.ledger import JudgedDays
from tasks.rows.corrections import Delivered
from tasks.rows.decisions import Correction, file_of, read_decisions, write_decisions
from tasks.rows.keys import key_digests
from tasks.rows.partitions import Partitions, read_tables
from tasks.rows.raw_archive import RawIndex
from tasks.rows.raw_archive.years import Years
from tasks.rows.versions import History
from tasks.runtime.errors import UserError
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths
from tasks.validate import validate

pytestmark = pytest.mark.usefixtures("workspace")

FIRST = date(2024, 1, 1)
PATHS = Paths("tiny")
RULES = [
    {
        "type": "expect_column_values_to_be_between",
        "severity": "warning",
        "kwargs": {"column": "weight_kg", "min_value": 0},
    },
    {
        "type": "expect_column_values_to_be_unique",
        "severity": "warning",
        "window_days": 3,
        "kwargs": {"column": "handed_in"},
    },
]


def tiny(rules=(), **changes):
    return a_product(expectations=list(rules), predict__horizon_days=0, **changes)


def day(number):
    return FIRST + timedelta(days=number)


def store(number, keys, weight="1", late=()):
    """Raw rows of one day, and the labels that became known on it."""
    at = day(number).isoformat()
    table = pd.DataFrame({"parcel_id": keys, "day": at, "depot": "A", "weight_kg": weight}, dtype="str")
    table["handed_in"] = [f"{at}T{place % 24:02d}:{place // 24 % 60:02d}" for place in range(len(table))]
    raw_rows(table, day(number))
    if len(late):
        labels = pd.DataFrame({"parcel_id": late, "late": "1"}, dtype="str")
        raw_labels(labels, day(number))


def first_load(number):
    index = RawIndex.load(PATHS.raw)
    index.note_run(day(number))
    index.save()


def state():
    report = PATHS.report("validation.json").read_bytes()
    return folder_sha256(PATHS.valid), folder_sha256(PATHS.quarantine), report


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """No test here loses power."""
    monkeypatch.setattr("tasks.runtime.files._fsync", lambda _: None)


@pytest.fixture
def judged(monkeypatch):
    """The days that are read and judged, as they are."""
    days, judge = [], Check._judge

    def noted(self, batch):
        days.extend(each.isoformat()[5:] for each in batch if self.judge)
        return judge(self, batch)

    monkeypatch.setattr(Check, "_judge", noted)
    return days


def run(product, number):
    try:
        validate(product, day(number))
    except UserError as error:
        return str(error)
    return None


def anew(product, number):
    """What judging everything anew leaves."""
    kept = {path: path.with_name(f"{path.name}.kept") for path in (PATHS.valid, PATHS.quarantine)}
    for path, place in kept.items():
        path.rename(place)
    stopped = run(product, number)
    found = state()
    for path, place in kept.items():
        shutil.rmtree(path)
        place.rename(path)
    return stopped, found


@pytest.mark.long
def test_step_by_step_is_the_same_bytes_as_anew():
    """Late rows, keys of other days, days without rows, held and accepted days, months that become one file."""
    chance = random.Random(3)
    product = tiny(RULES, drift={"max_volume_ratio": 9.0, "max_share_change": 1, "max_shift": 99})
    n_history, keys = 64, [f"k{i}" for i in range(4000)]
    for number in range(n_history):
        store(number, chance.sample(keys, 6), chance.choice(["1", "1", "1", "-1", "x"]), [f"k{number}"])
    first_load(n_history - 1)
    accept_days(*(day(n_history - 1 + i) for i in range(0, 5, 2)))
    n_held = 0
    for number in range(n_history, n_history + 4):
        if chance.random() < 0.8:
            store(
                number,
                chance.sample(keys, chance.choice([6, 6, 90])),
                chance.choice(["1", "1", "1", "-1"]),
                [f"k{number}"],
            )
        if chance.random() < 0.7:
            store(chance.randrange(n_history), chance.sample(keys, 7))
        if chance.random() < 0.5:
            accept_days(day(number - 1))
        stopped = run(product, number)
        n_held += stopped is not None
        if stopped is None:
            assert anew(product, number) == (None, state())
    assert not Partitions(PATHS.valid / "rows").folder.joinpath("dt=2024-01-05.parquet").exists()
    assert n_held < 4


def test_night_reads_the_days_that_are_new_or_changed_and_no_other(judged):
    for number in range(12):
        store(number, [f"{number}-{i}" for i in range(20)])
    first_load(9)
    assert run(tiny(), 9) is None
    assert len(judged) == 10
    judged.clear()
    assert run(tiny(), 9) is None
    assert judged == []
    assert run(tiny(), 10) is None
    assert judged == ["01-11"]
    judged.clear()
    store(3, [f"3-{i}" for i in range(19)])
    assert run(tiny(), 11) is None
    assert judged == ["01-04", "01-12"]


def test_night_reads_no_file_about_days_of_years_that_stand(monkeypatch):
    """Neither of the index nor of the ledger; a late row has its own year and month read, and no other."""
    last = 800
    for number in (*range(0, last - 30, 45), *range(last - 30, last)):
        store(number, [f"{number}-{i}" for i in range(20)], ["-1", *["1"] * 19], [f"{number}-0"])
    first_load(last - 2)
    assert run(tiny(RULES[:1]), last - 2) is None
    years, months = set(), set()
    of_year, of_month = Years._content, JudgedDays._file
    monkeypatch.setattr(Years, "_content", lambda self, year: years.add(year) or of_year(self, year))
    monkeypatch.setattr(JudgedDays, "_file", lambda self, month: months.add(month) or of_month(self, month))
    assert run(tiny(RULES[:1]), last - 1) is None
    assert (years, {month[:4] for month in months}) == ({"2024", "2026"}, {"2026"})  # the first day, and this year
    store(405, [f"405-{i}" for i in range(21)])
    years.clear()
    months.clear()
    assert run(tiny(RULES[:1]), last - 1) is None
    assert (years, {month[:4] for month in months}) == ({"2024", "2025", "2026"}, {"2025", "2026"})
    assert anew(tiny(RULES[:1]), last - 1) == (None, state())


def test_late_row_with_the_key_of_a_later_day_has_it_judged_again(judged):
    for number in range(5):
        store(number, [f"{number}-{i}" for i in range(20)])
    first_load(4)
    run(tiny(), 4)
    judged.clear()
    store(1, [*(f"1-{i}" for i in range(19)), "3-7"])
    run(tiny(), 4)
    assert judged == ["01-02", "01-04"]
    bad = read_tables(PATHS.quarantine / "rows")
    assert bad[["dt", "parcel_id", "reasons"]].to_numpy().tolist() == [
        ["2024-01-04", "3-7", "parcel_id: is a key already seen"]
    ]
    store(1, [f"1-{i}" for i in range(20)])
    run(tiny(), 4)
    assert not len(read_tables(PATHS.quarantine / "rows"))


def test_other_rules_judge_all_days_and_a_decision_its_own(judged, capsys):
    for number in range(5):
        store(number, [f"{number}-{i}" for i in range(20)], "-1" if number == 2 else "1")
    first_load(4)
    run(tiny(), 4)
    judged.clear()
    run(tiny(RULES[:1]), 4)
    assert len(judged) == 5
    assert "expectations, columns or code are others" in capsys.readouterr().out
    judged.clear()
    bad = read_tables(PATHS.quarantine / "rows")
    decision = Correction(
        **{"decided": "2024-01-05", "person": "Ann", "why": "a sign"},
        **{"of": "rows", "row": bad["raw_row"][0], "known": "2024-01-05", "cells": {"weight_kg": 1}},
    )
    write_decisions(file_of("tiny", day(2)), [*read_decisions(file_of("tiny", day(2))), decision])
    run(tiny(RULES[:1]), 4)
    assert judged == ["01-03"]
    assert len(read_tables(PATHS.quarantine / "rows")) == 19


@pytest.mark.long
@pytest.mark.parametrize(
    ("place", "n_days"),
    [
        ("valid/tiny/ledger/ledger.json", 5),
        ("valid/tiny/ledger/rows-2024-01.json", 5),
        ("valid/tiny/keys/2024-01.keys", 5),
        ("valid/tiny/rows/dt=2024-01-03.parquet", 1),
        ("quarantine/tiny/rows/dt=2024-01-03.parquet", 1),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_file_is_told_and_its_days_judged_anew(place, n_days, damage, judged, capsys):
    for number in range(5):
        store(number, [f"{number}-{i}" for i in range(20)], ["-1", *["1"] * 19])
    first_load(4)
    run(tiny(RULES[:1]), 4)
    before, file = state(), Path("data") / place
    judged.clear()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-7])
    assert run(tiny(RULES[:1]), 4) is None
    assert "judged anew" in capsys.readouterr().out
    assert len(judged) == n_days
    assert state() == before


@pytest.mark.parametrize("place", ["valid/tiny/rows/dt=2024-01-03.parquet", "raw/tiny/rows/dt=2024-01-03.parquet"])
def test_byte_that_was_flipped_is_seen_by_whoever_reads_it(place):
    """Its length and its end are as they were, which is all that a night looks at."""
    for number in range(5):
        store(number, [f"{number}-{i}" for i in range(20)])
    first_load(4)
    run(tiny(), 4)
    file = Path("data") / place
    content = bytearray(file.read_bytes())
    content[len(content) // 8] ^= 1  # in a page, not in the description of the file
    file.write_bytes(content)
    days = Partitions(file.parent)
    with pytest.raises(UserError, match=rf"{place}: must be as it was written, and is damaged .*; restore it: dvc"):
        days.table(day(2))
    assert len(days.table(day(1))) == 20


def test_kill_between_the_two_folders_leaves_what_the_next_run_mends():
    for number in range(6):
        store(number, [f"{number}-{i}" for i in range(20)], ["-1", *["1"] * 19])
    first_load(4)
    run(tiny(RULES[:1]), 4)
    shutil.copytree(PATHS.valid, "valid before")
    run(tiny(RULES[:1]), 5)
    wanted = state()
    shutil.rmtree(PATHS.valid)
    shutil.copytree("valid before", PATHS.valid)  # quarantine has taken its place, the valid rows have not
    run(tiny(RULES[:1]), 5)
    assert state() == wanted


class KilledError(BaseException):
    """No handler of ours catches it."""


def test_validate_that_is_killed_before_any_rename_is_made_good_by_the_next(monkeypatch):
    for number in range(6):
        store(number, [f"{number}-{i}" for i in range(20)], ["-1", *["1"] * 19])
    first_load(4)
    run(tiny(RULES[:1]), 4)
    shutil.copytree("data", "before")
    run(tiny(RULES[:1]), 5)
    wanted = state()
    for nth in range(5):
        shutil.rmtree("data")
        shutil.copytree("before", "data")
        assert is_killed_at(nth, partial(run, tiny(RULES[:1]), 5), monkeypatch) == (nth < 4)
        run(tiny(RULES[:1]), 5)
        assert state() == wanted


def is_killed_at(nth, act, monkeypatch):
    """Act, but for the nth rename and all that comes after it, and return whether there was one."""
    changes, rename, rmtree = [], Path.rename, shutil.rmtree

    def killing(path, to):
        changes.append(path)
        if len(changes) > nth:
            raise KilledError
        return rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killing)
        # A process that is killed tidies nothing.
        patch.setattr(shutil, "rmtree", lambda *args, **kw: None if len(changes) > nth else rmtree(*args, **kw))
        try:
            act()
        except KilledError:
            return True
    return False


def test_expectation_for_some_rows_alone_judges_each_day_as_all_days(judged):
    rule = {
        "type": "expect_column_values_to_be_between",
        "severity": "warning",
        "kwargs": {"column": "weight_kg", "max_value": 5, "row_condition": 'depot=="A"', "condition_parser": "pandas"},
    }
    for number in range(5):
        keys = [f"{number}-{i}" for i in range(20)]
        store(number, keys, [str(1 + 9 * (place in (number, 7))) for place in range(20)])
    for number in (1, 3):
        rows = Partitions(PATHS.raw / "rows").read([day(number)]).drop(columns="dt")
        rows.loc[7, "depot"] = "B"
        raw_rows(rows, day(number))
    first_load(3)
    for number in (3, 4):
        assert run(tiny([rule]), number) is None
        assert anew(tiny([rule]), number) == (None, state())
    bad = read_tables(PATHS.quarantine / "rows")
    expected = {f"{number}-{place}" for number in range(5) for place in (number, 7)} - {"1-7", "3-7"}
    assert sorted(bad["parcel_id"]) == sorted(expected)
    assert judged[:5] == ["01-01", "01-02", "01-03", "01-04", "01-01"]


def test_run_of_an_earlier_date_gives_what_it_gave(capsys):
    for number in range(7):
        store(number, [f"{number}-{i}" for i in range(20)])
    first_load(4)
    run(tiny(), 5)
    before = state()
    run(tiny(), 6)
    run(tiny(), 5)
    assert "knows what became known later" in capsys.readouterr().out
    assert state() == before


def test_index_of_keys_knows_what_comparing_all_knows(tmp_path):
    chance = np.random.default_rng(0)
    index, days = KeyIndex(tmp_path), {}
    for number in range(0, 90, 3):
        at = day(number)
        days[at] = distinct(key_digests(pd.Series(chance.integers(0, 400, 30)).astype("str")))
        index.replace(f"{at:%Y-%m}", {at: days[at]})
    rows = [(tuple(key), at) for at, keys in days.items() for key in keys.tolist()]
    first = {}
    for key, at in rows:
        first.setdefault(key, at)
    repeated = index.repeated()
    found = {(tuple(key), number) for key, number in zip(repeated.keys.tolist(), repeated.day.tolist(), strict=True)}
    assert found == {(key, (at - date(1970, 1, 1)).days) for key, at in rows if at != first[key]}
    wanted = days[day(30)]
    taken = index.days_that_take(wanted)
    known = {(tuple(key), number) for key, number in zip(taken.keys.tolist(), taken.day.tolist(), strict=True)}
    assert known == {(key, (at - date(1970, 1, 1)).days) for key, at in rows if list(key) in wanted.tolist()}


def test_ids_of_rows_of_many_days_are_those_of_each_day_alone():
    kinds = [
        {"parcel_id": ["a", "a", "a"], "n": pd.array([1, 1, None], "Int64")},
        {"parcel_id": ["a", "a", "a"], "n": [1, 1, 2]},
        {"parcel_id": ["a", "b"], "note": ["x", None]},
    ]
    for number in range(9):
        rows = pd.DataFrame(kinds[number % 3]).assign(day=day(number).isoformat())
        table = pa.Table.from_pandas(rows, preserve_index=False)
        for kind in ("rows", "labels"):
            raw_day(kind, day(number), table.replace_schema_metadata())
    Partitions(PATHS.raw / "rows").compact(day(100))
    days, history = [day(number) for number in range(9)], History(PATHS.raw, day(9))
    for kind in ("rows", "labels"):
        delivered = Delivered(kind, PATHS.raw, history)
        for pattern in ([True, True, True], [False, True, False], [True, False, True]):
            wanted = [np.array(pattern[: delivered.n_rows(each)]) for each in days]
            alone = [ids for each, some in zip(days, wanted, strict=True) for ids in delivered.row_ids(each, some)]
            assert delivered.row_ids_of(days, wanted) == alone
    assert len({*delivered.row_ids(days[0], np.ones(3, bool))}) == 3


def test_keys_that_share_half_a_digest_are_two():
    found = np.array([[1, 2], [1, 3], [4, 2], [1, 2]], np.uint64)
    assert is_repeated(found).tolist() == [False, False, False, True]
