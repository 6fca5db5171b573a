"""Oracle: sums of weekly series counted by hand, a split found by brute force, pinball and means by numpy."""

import contextlib
import json
import os
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from builders import a_product, declared, mistakes, night_inputs, report, through_all_stages, to_split
from test_publish import AS_OF as NIGHT
from test_publish import url  # noqa: F401 (url is a fixture)

from model.target import Target
from tasks.monitor import monitor
from tasks.monitoring.past import nights
from tasks.params import FOR_DAY, HORIZON, NAIVE
from tasks.predict import predict
from tasks.publication.contracts import Part
from tasks.publication.night import part_name, read_night, write_night
from tasks.publication.object_store import Store
from tasks.publish import publish
from tasks.rows import model_inputs
from tasks.rows.labels.horizons import by_horizon
from tasks.rows.partitions import partition, read_table, write_table
from tasks.runs.gates.unseen import Learnt, learnt_days, unseen
from tasks.runtime.errors import UserError
from tasks.runtime.files import file_sha256, write_json
from tasks.runtime.paths import Paths
from tasks.sources.fetch import fetch_whole

FIRST, LAST, AS_OF = date(2024, 1, 1), date(2024, 5, 20), date(2024, 5, 10)
SERIES = ("A", "B", "C", "D")
HORIZONS = [1, 7, 14]
CHANGES = {
    "key": ["shop", "day"],
    "columns": {"shop": "category"},
    "target": {"name": "units", "task": "regression", "delay_days": 1},
    "predict": {"horizon_days": HORIZONS, "quantiles": [0.1, 0.5, 0.9], "shards": 3, "rows_per_shard": 5},
    "split": {"by": "time", "test_days": 10, "val_days": 7, "train_days": 40},
    "expectations": [],
    "gates": {"metric": "mae", "limit": 1000},
    "model__init": "scratch",
    "model__train": {"epochs": 1, "batch_tokens": 512, "learning_rate": 0.003},
}


def units(shop, day):
    """What a shop sells on a day: more towards the week's end, and a level of its own."""
    return 10.0 * (SERIES.index(shop) + 1) + day.weekday() + (day - FIRST).days / 100


def sales():
    days = [FIRST + timedelta(days=number) for number in range((LAST - FIRST).days + 1)]
    rows = [{"shop": shop, "day": day.isoformat(), "units": units(shop, day)} for day in days for shop in SERIES]
    return pd.DataFrame(rows)


def product(**changes):
    return a_product(**deepcopy({**CHANGES, **changes}))


def split_in(folder, frame, **changes):
    """Take rows through ingest, validate and split in a folder; return the parts."""
    with contextlib.chdir(folder):
        (folder / "source").mkdir()
        for name in ("tasks", "model"):
            (folder / name).symlink_to(Path(__file__).parent.parent / name)
        frame.to_csv("source/parcels.csv", index=False)
        to_split(product(**changes), AS_OF)
        return {name: read_table(Paths("tiny").splits / f"{name}.parquet") for name in ("train", "val", "test")}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return split_in(tmp_path_factory.mktemp("split"), sales())


def test_each_row_stands_once_for_each_horizon_with_the_label_of_that_day(parts):
    for part in parts.values():
        ahead = pd.to_timedelta(part[HORIZON], unit="D")
        assert (part[FOR_DAY] == part["day"] + ahead).all()
        wanted = [units(shop, day.date()) for shop, day in zip(part["shop"], part[FOR_DAY], strict=True)]
        np.testing.assert_allclose(part["units"], wanted)
        assert not part.duplicated(["shop", "day", HORIZON]).any()


def test_no_part_learns_from_a_label_known_after_the_next_part_begins(parts):
    known_on = {name: part[FOR_DAY] + timedelta(days=1) for name, part in parts.items()}
    begins = {name: part["day"].min() for name, part in parts.items()}
    assert known_on["train"].max() < begins["val"]
    assert known_on["val"].max() < begins["test"]
    assert known_on["test"].max() == pd.Timestamp(AS_OF)
    for name, n_days in (("test", 10), ("val", 7)):  # of the longest horizon there are as many days as were asked for
        part = parts[name]
        assert part.loc[part[HORIZON] == 14, "day"].nunique() == n_days
    assert set(parts["test"].groupby("day")[HORIZON].nunique()) == {3}
    # Nothing that could be learnt from is left out: brute force over all rows of the days.
    val_begins, test_begins = begins["val"], begins["test"]
    every = [
        (day, ahead)
        for day in pd.date_range(FIRST, AS_OF)
        for ahead in HORIZONS
        if day + timedelta(days=ahead + 1) <= pd.Timestamp(AS_OF)
    ]
    both = pd.concat([parts["train"], parts["val"]])
    learnt = set(zip(both["day"], both[HORIZON], strict=True))
    wanted = {
        (day, ahead)
        for day, ahead in every
        if begins["train"] <= day < test_begins
        and day + timedelta(days=ahead + 1) < (val_begins if day < val_begins else test_begins)
    }
    assert learnt == wanted


def test_seasonal_naive_label_is_the_newest_of_the_weekday_known_on_the_day(parts):
    for part in parts.values():
        for shop, day, for_day, naive in zip(part["shop"], part["day"], part[FOR_DAY], part[NAIVE], strict=True):
            before = pd.date_range(FIRST, day - timedelta(days=1))
            known = before[before.weekday == for_day.weekday()]
            assert np.isnan(naive) if not len(known) else naive == pytest.approx(units(shop, known[-1].date()))


def test_gaps_ends_and_doubled_days_take_no_row_from_other_series(parts, tmp_path):
    frame = sales()
    day = pd.to_datetime(frame["day"])
    gap = (frame["shop"] == "A") & (day.dt.day % 3 == 0)
    ended = (frame["shop"] == "B") & (day > "2024-04-20")
    doubled = frame[(frame["shop"] == "C") & (day == "2024-04-25")].assign(units=-1.0)
    found = split_in(tmp_path, pd.concat([frame[~gap & ~ended], doubled], ignore_index=True))
    for name, part in found.items():
        other, same = (each[each["shop"] == "D"].reset_index(drop=True) for each in (part, parts[name]))
        pd.testing.assert_frame_equal(other, same)
        assert not (part.loc[part["shop"] == "A", FOR_DAY].dt.day % 3 == 0).any()
        assert not (part["units"] < 0).any()
        assert not (part.loc[part["shop"] == "B", FOR_DAY] > "2024-04-20").any()


def test_history_shorter_than_the_horizons_is_told(tmp_path):
    with pytest.raises(UserError, match="every part must hold rows"):
        split_in(tmp_path, sales()[lambda rows: rows["day"] >= "2024-04-20"])


def test_labels_that_are_all_missing_are_told(tmp_path):
    with pytest.raises(UserError, match="label"):
        split_in(tmp_path, sales().assign(units=np.nan))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"predict__horizon_days": [0, 7]},
            "predict.horizon_days must be a list of numbers from 1 to 366, got 0",
        ),
        (
            {"predict__horizon_days": [400]},
            "predict.horizon_days must be a list of numbers from 1 to 366, got 400",
        ),
        ({"predict__horizon_days": [7, 1, 7]}, "predict.horizon_days must ascend, got [7, 1, 7]; use [1, 7]"),
        ({"predict__horizon_days": []}, "predict.horizon_days must be a number, or a list of 1 to 60, got 0"),
        ({"predict__horizon_days": [True]}, "from 1 to 366, got True"),
        ({"predict__horizon_days": "1, 7"}, "must be a whole number or a list of them, got '1, 7'"),
        ({"predict__horizon_days": -1}, "predict.horizon_days must be at least 0, got -1"),
        ({"key": ["shop"]}, "key must hold the time day for several horizons"),
        ({"split": {"by": "hash"}}, "split.by must be time for several horizons"),
        ({"split__group": "shop"}, "split.group must not be given for several horizons"),
        (
            {"columns": {"shop": "category", "for_day": "time"}},
            "must not be a name that several horizons add",
        ),
    ],
)
def test_mistake_about_horizons_is_told(changes, message):
    (line,) = mistakes(declared(**deepcopy({**CHANGES, **changes})))
    assert message in line


def test_one_number_stays_what_it_was():
    tomorrow = product(predict={"horizon_days": 1})
    assert tomorrow.scored_day(AS_OF) == AS_OF + timedelta(days=1)
    assert product().scored_day(AS_OF) == AS_OF
    assert tomorrow.inputs == {"shop": "category"}
    rows = pd.DataFrame({"shop": ["A"], "day": [pd.Timestamp(AS_OF)]})
    assert by_horizon(rows, tomorrow) is rows
    assert tomorrow.slices == {}
    assert product().slices == {"horizon": HORIZON}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ahead")
    with through_all_stages(folder, sales(), deepcopy(CHANGES), AS_OF) as line:
        yield folder, line


def night(folder):
    parts = sorted((folder / Paths("tiny").predictions).glob("part-*.parquet"))
    return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)


def test_night_has_a_row_for_each_key_and_horizon_whatever_the_shards(made, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(folder)
    found = night(folder)
    assert list(found) == ["shop", "day", HORIZON, FOR_DAY, "prediction", "quantile_10", "quantile_50", "quantile_90"]
    assert len(found) == len(SERIES) * len(HORIZONS)
    assert not found.duplicated(["shop", HORIZON]).any()
    assert (found["day"] == pd.Timestamp(AS_OF)).all()
    assert read_night(Paths("tiny").predictions).rows.add_up
    before = found
    predict(product(predict__shards=1), AS_OF)
    pd.testing.assert_frame_equal(night(folder), before, check_exact=False, atol=1e-3)
    predict(product(), AS_OF)
    pd.testing.assert_frame_equal(night(folder), before, check_exact=True)


def test_night_killed_while_it_is_scored_is_the_same_the_next_time(made, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(folder)
    declaration = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    Path("params.yaml").write_text(yaml.safe_dump({**declaration, "as_of": AS_OF.isoformat()}))
    before = read_night(Paths("tiny").predictions)
    command = [sys.executable, "-m", "tasks.predict", "tiny"]
    child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    began = Paths("tiny").predictions.parent
    while child.poll() is None and len(list(began.rglob("part-00000.parquet"))) < 2:
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert read_night(Paths("tiny").predictions) == before
    subprocess.run(command, check=True)
    assert read_night(Paths("tiny").predictions) == before


def test_report_has_each_horizon_and_the_seasonal_naive_baseline(made, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(folder)
    measured = report("evaluation.json")
    test = read_table(Paths("tiny").splits / "test.parquet")
    assert measured["baseline"]["mae"] == pytest.approx((test["units"] - test[NAIVE]).abs().mean(), rel=1e-4)
    names = [each["name"] for each in measured["slices"]["slices"]]
    assert names == ["horizon=1", "horizon=7", "horizon=14"]
    assert not measured["slices"]["gaps"]


def test_night_is_measured_for_each_horizon_when_its_labels_have_come(url):  # noqa: F811
    day, described = timedelta(days=1), product(publish={"url": url}, predict={"horizon_days": [1, 7]})
    paths, rows = Paths("tiny"), pd.DataFrame({"shop": [*SERIES], "day": pd.Timestamp(NIGHT)})
    write_table(partition(paths.valid / "rows", NIGHT), rows)
    table = by_horizon(rows, described)
    true = np.array([units(shop, at.date()) for shop, at in zip(table["shop"], table[FOR_DAY], strict=True)])
    error = np.arange(8.0)
    write_table(paths.predictions / part_name(0), table.assign(prediction=true + error))
    write_json(paths.report("validation.json"), {"scored_day": {"rows_in": 4, "rows_quarantined": 0}})
    file = paths.predictions / part_name(0)
    part = Part(name=file.name, rows=8, bytes=file.stat().st_size, sha256=file_sha256(file))
    write_night(described, NIGHT, night_inputs("m1", NIGHT, NIGHT), [part], paths.predictions)
    publish(described, NIGHT)
    truths = []
    for as_of in (NIGHT, NIGHT + day, NIGHT + 2 * day, NIGHT + 8 * day):
        sold = as_of - day
        labels = pd.DataFrame({"shop": [*SERIES], "day": pd.Timestamp(sold), "units": [units(s, sold) for s in SERIES]})
        write_table(partition(paths.valid / "labels", as_of), labels)
        monitor(described, as_of)
        truths.append(nights(Store(url), "tiny", NIGHT, NIGHT)[NIGHT].truth)
    assert truths[:2] == [None, None]
    assert (truths[2].labelled, truths[2].value) == (4, None)  # as a whole it is measured once all labels have come
    assert {name: each.value for name, each in truths[2].slices.items()} == {"horizon=1": error[::2].mean()}
    assert (truths[3].labelled, truths[3].value) == (8, error.mean())
    found = {name: (each.labelled, each.value) for name, each in truths[3].slices.items()}
    assert found == {"horizon=1": (4, error[::2].mean()), "horizon=7": (4, error[1::2].mean())}


def test_champion_has_not_seen_rows_from_the_first_day_it_was_tested_on():
    described, first = product(), date(2024, 4, 1)
    report = {"train": ["2024-01-01", "2024-02-20"], "val": ["2024-02-25", "2024-03-20"], "test": [str(first), "x"]}
    learnt = learnt_days(described, report)
    rows = pd.DataFrame({"shop": "A", "day": pd.date_range("2024-03-18", "2024-04-03")})
    champion = Learnt(as_of=AS_OF, product=described, first=learnt[0], last=learnt[1])
    kept = rows.loc[unseen(rows, "day", champion), "day"]
    assert kept.min() == pd.Timestamp(first)


def test_past_of_the_target_ends_as_long_before_a_row_as_labels_wait(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    sales().to_csv("source/parcels.csv", index=False)
    past = {"kind": "events", "from": "sales", "by": "shop", "time": "day", "fields": {"units": "number"}}
    described = product(
        columns={"shop": "category", "past": past}, sources={"sales": {"kind": "csv", "url": "source/parcels.csv"}}
    )
    rows = fetch_whole(described, None, AS_OF)
    last = [json.loads(cell)["events"][-1] for cell in rows.loc[rows["day"] == str(AS_OF), "past"]]
    assert {each["time"] for each in last} == {str(AS_OF - timedelta(days=1))}
    assert [each["units"] for each in last] == [units(shop, AS_OF - timedelta(days=1)) for shop in SERIES]


def test_model_of_other_horizons_does_not_answer_what_is_declared():
    described = product()
    kinds = {"shop": "category", HORIZON: "number", FOR_DAY: "time"}
    same = Target(task="regression", column="units", levels=(0.1, 0.5, 0.9), horizons=(1, 7, 14))
    assert not model_inputs.schema_mismatch(kinds, same, described)
    assert "for [1, 7] days ahead" in model_inputs.schema_mismatch(kinds, replace(same, horizons=(1, 7)), described)
    assert "for one day" in model_inputs.schema_mismatch(kinds, replace(same, horizons=()), described)
