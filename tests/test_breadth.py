"""Oracle: outcomes, ranks and chosen lines that are told by hand; every split counted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.breadth import schedule as of_schedule
from benchmarks.breadth.lines import LINES, Line
from benchmarks.breadth.parts import LABEL, Truth, product_of, resampled, shape, write_parts
from benchmarks.breadth.schedule import OURS, PEERS, Schedule
from benchmarks.breadth.sets import UNSEEN, Set, digest, split
from benchmarks.breadth.summary import summarise
from benchmarks.breadth.tables import MAKERS


def small(metric="mae", days=None, n=50):
    table = pd.DataFrame({"size": np.arange(n, dtype=float), "price": np.arange(n, dtype=float) + 1})
    table["day"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(table.index, unit="D")
    columns = {"size": "number"}
    return Set(name="small", table=table, columns=columns, target="price", task="regression", metric=metric, days=days)


@pytest.fixture
def files(tmp_path, monkeypatch):
    lines = replace(LINES, file=tmp_path / "runs.jsonl", kept=tmp_path / "kept.jsonl")
    monkeypatch.setattr(of_schedule, "LINES", lines)
    return lines


def line(schedule, competitor, value, split=0, rung=15, seconds=10.0, revision=None, machine=None):
    revision = revision or (schedule.code if competitor in (OURS, "own baseline") else schedule.peer)
    of_set = {"set": "small", "data": schedule.digests["small"], "machine": machine or schedule.machine}
    minutes = dict.fromkeys(("pretrain", "train", "evaluate", "export"), 0.1)
    given = {"competitor": competitor, "value": value, "split": split, "rung": rung, "seconds": seconds}
    given["resampled"] = [None]  # too few draws for an interval
    return Line(**of_set, **given, revision=revision, minutes=minutes, rows_per_second=100.0)


def table(result, title):
    return next(rows for name, rows in result.tables.items() if name.startswith(title))


def test_at_least_twenty_sets_and_a_third_of_them_unseen():
    assert len(MAKERS) >= 20
    assert set(UNSEEN) < set(MAKERS)
    assert len(UNSEEN) >= len(MAKERS) / 3


@pytest.mark.parametrize("days", [None, "day"])
@pytest.mark.parametrize("seed", range(5))
def test_parts_of_a_split_share_no_row(days, seed):
    parts = split(small(days=days), seed)
    rows = [row for part in parts.values() for row in part["size"]]
    assert len(rows) == len(set(rows))
    assert all(len(part) for part in parts.values())
    if days:
        assert parts["train"]["day"].max() < parts["val"]["day"].min() < parts["test"]["day"].min()


def test_set_with_other_cells_is_another_set():
    one, other = small(), small()
    other.table.loc[0, "price"] = 99.0
    assert digest(one) == digest(small()) != digest(other)


def test_lower_error_on_every_split_is_a_win(files):
    schedule = Schedule([small()], range(3), ())
    for at in range(3):
        found = [line(schedule, OURS, 1.0 + at, at)]
        found += [line(schedule, peer, 2.0 + at + 0.01 * at, at) for peer in PEERS]
        files.append(found)
    result = summarise(schedule)
    assert table(result, "Sets")[0]["against it"].endswith(": win")
    assert table(result, "Ours against")[0]["all: wins, draws, losses"] == "1, 0, 0"
    assert table(result, "Mean rank")[0][OURS] == 1
    assert all(target.met for target in result.targets)


def test_difference_within_the_interval_is_a_draw_and_beyond_it_a_loss(files):
    schedule = Schedule([small()], range(3), ())
    for at, noise in enumerate((-0.5, 0.1, 0.5)):
        found = [line(schedule, OURS, 1.0, at), line(schedule, "own baseline", 0.5 + noise / 100, at)]
        files.append([*found, line(schedule, "linear", 1 + noise, at)])
    rows = table(summarise(schedule), "Ours against")
    counts = {row["against"]: row["all: wins, draws, losses"] for row in rows}
    assert (counts["own baseline"], counts["linear"], counts["CatBoost"]) == ("0, 0, 1", "0, 1, 0", "0, 0, 0")


def test_peer_counts_with_the_time_that_the_model_took(files):
    schedule = Schedule([small()], range(1), ())
    files.append([line(schedule, OURS, 1.0, seconds=20.0)])
    files.append([line(schedule, "linear", rung / 10, rung=rung) for rung in (60, 15, 30)])
    assert table(summarise(schedule), "Sets")[0]["linear"] == "3.000"  # of 30 seconds, the first not below 20


def test_work_is_done_once_and_anew_where_the_code_changed(files):
    schedule = Schedule([small()], range(1), (OURS, "linear", "AutoGluon best"))
    assert [(job.competitor, job.rung) for job in schedule.jobs()] == [
        (OURS, 15),
        ("linear", 15),
        ("AutoGluon best", 30),
    ]
    files.append([line(schedule, OURS, 1.0, revision="older"), line(schedule, "linear", 1.0)])
    assert [job.competitor for job in schedule.jobs()] == [OURS, "AutoGluon best"]
    files.append([line(schedule, OURS, 1.0, seconds=50.0), line(schedule, "AutoGluon best", 1.0, rung=60)])
    assert [(job.competitor, job.rung) for job in schedule.jobs()] == [("linear", 60)]


def test_newest_of_ours_counts_and_a_peer_of_another_machine_if_alone(files):
    schedule = Schedule([small()], range(2), ("linear",))
    files.append([line(schedule, OURS, 1.0, machine="other"), line(schedule, "linear", 2.0, machine="other")])
    files.append([line(schedule, OURS, 9.0)])
    files.append([line(schedule, OURS, 3.0, 1), line(schedule, "linear", 4.0, 1)])
    files.append([line(schedule, "linear", 99.0, 1, machine="other")])
    result = summarise(schedule)
    (row,) = table(result, "Sets")
    assert (row[OURS].split()[0], row["linear"].split()[0]) == ("6.000", "3.000")
    assert "Figures of peers that another machine has measured than ours: 1." in result.notes
    assert [(job.competitor, job.split) for job in schedule.jobs()] == [("linear", 0)]


def test_half_a_line_of_a_killed_run_costs_only_that_line(files):
    schedule = Schedule([small()], range(2), ())
    files.append([line(schedule, OURS, 1.0)])
    with files.file.open("a") as file:
        file.write('{"set": "small", "split"')
    files.append([line(schedule, OURS, 2.0, 1)])
    assert [each.value for each in files.read()] == [1.0, 2.0]
    files.keep()
    files.file.unlink()
    assert [each.value for each in files.read()] == [1.0, 2.0]


def test_entry_of_a_set_has_defaults_alone_and_labels_go_to_the_peers(tmp_path):
    one = small(days="day")
    one.table["y"] = one.table["size"]  # a column that a person may well have
    one.columns["y"] = "number"
    truth = write_parts(one, 0, [15], tmp_path)
    product = product_of(tmp_path)
    assert (product.model.preset, product.model.companion) == ("small", "measured")
    rows = pd.read_parquet(tmp_path / "test.parquet")
    assert list(rows) == ["size", "y", LABEL]
    assert rows["y"].tolist() == rows["size"].tolist()
    assert rows[LABEL].tolist() == truth.y.tolist()


def test_scores_that_are_not_numbers_are_refused():
    truth = Truth(np.zeros(2), 0)
    with pytest.raises(AssertionError, match="numbers"):
        shape(small(), np.array([1.0, np.nan]), truth)


def test_one_split_is_compared_on_the_same_draws_of_its_test_rows(files):
    schedule = Schedule([small()], range(1), ())
    draws = np.random.default_rng(0).normal(10, 5, 100)  # what both vary by is no difference
    for peer, lead in (("own baseline", 0.0), ("linear", 3.0), ("CatBoost", -3.0)):
        found = line(schedule, peer, 10 + lead)
        files.append([replace(found, resampled=[float(each + lead + 0.1 * (at % 2)) for at, each in enumerate(draws)])])
    files.append([replace(line(schedule, OURS, 10.0), resampled=[float(each) for each in draws])])
    rows = table(summarise(schedule), "Ours against")
    counts = {row["against"]: row["all: wins, draws, losses"] for row in rows}
    assert (counts["own baseline"], counts["linear"], counts["CatBoost"]) == ("0, 1, 0", "1, 0, 0", "0, 0, 1")


def test_draws_of_test_rows_are_the_same_for_all_who_are_measured_on_them():
    y = np.arange(40.0)
    found = [resampled("regression", y, y + shift, "mae") for shift in (1.0, 3.0)]
    assert found == [[1.0] * 100, [3.0] * 100]
    noisy = resampled("regression", y, y**2, "mae")
    assert noisy == resampled("regression", y, y**2, "mae")
    assert len(set(noisy)) > 50
