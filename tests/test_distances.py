"""Oracle: distances reckoned by hand; for what chance makes, many draws from one distribution; a real S3 server."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from builders import a_product
from test_publish import url  # noqa: F401 (a fixture)

from tasks.monitoring.contracts import Predictions
from tasks.monitoring.distances import columns_of_days, columns_of_training, distances
from tasks.publication.object_store import Store
from tasks.rows.partitions import Partitions, partition, write_table
from tasks.runtime.paths import Paths

DAY = date(2024, 2, 10)
WEEK = timedelta(weeks=1)
KINDS = {"depot": "category", "weight_kg": "number", "handed_in": "time", "note": "text"}
PRODUCT = a_product(columns=KINDS, expectations=[])


def rows_of(day, depots, weights, minute=0, note="abcd"):
    """Write a day of valid rows."""
    n = len(weights)
    handed_in = pd.Timestamp(day) + pd.to_timedelta(np.arange(n) % 600 + minute, "min")
    notes = [note * (1 + i % 10) for i in range(n)]
    table = pd.DataFrame({"depot": pd.array(depots, dtype="str"), "weight_kg": weights, "handed_in": handed_in})
    write_table(partition(Paths("tiny").valid / "rows", day), table.assign(note=notes))


def depots_of(n, share):
    return ["A"] * round(n * share) + ["B"] * (n - round(n * share))


def of_training(url, window, answer=lambda rows: None):  # noqa: F811
    return columns_of_training(PRODUCT, Store(url), Partitions(Paths("tiny").valid / "rows"), "m1", window, answer)


def found(url, day=DAY, window=None):  # noqa: F811
    training = of_training(url, window or (lambda: None))
    return distances(PRODUCT, Partitions(Paths("tiny").valid / "rows"), day, training)


def test_distances_are_those_reckoned_by_hand(workspace, url):  # noqa: F811
    even = np.linspace(0, 100, 1000)  # its deciles are 10, 20, ..., 90: they span 80
    rows_of(DAY - WEEK, depots_of(1000, 0.5), even)
    rows_of(DAY, depots_of(1000, 0.8), even + 20, minute=48, note="abcdefgh")
    apart = {name: each.weekdays for name, each in found(url).items()}
    assert apart["weight_kg"] == pytest.approx(20 / 80, abs=1e-4)
    # 600 minutes evenly, the first 400 of them twice: the deciles span 480, and all lie 48 minutes later.
    assert apart["handed_in"] == pytest.approx(48 / np.ptp(np.quantile(np.arange(1000) % 600, (0.1, 0.9))), abs=1e-3)
    lengths = 4.0 * (1 + np.arange(1000) % 10)  # twice as long
    deciles = np.quantile(lengths, np.arange(0.1, 0.95, 0.1))
    assert apart["note"] == pytest.approx(deciles.mean() / np.ptp(deciles), abs=1e-4)
    # Shares differ by 0.3; chance alone makes of two days of 1,000 rows, of which 65 % are A, sqrt(2/pi * p(1-p)/500).
    assert apart["depot"] == pytest.approx(0.3 - np.sqrt(2 / np.pi * 0.65 * 0.35 / 500), abs=1e-4)
    assert {each.training for each in found(url).values()} == {None}, "its training days are not on record"


def test_missing_cells_count_where_they_differ_more(workspace, url):  # noqa: F811
    even = np.linspace(0, 100, 1000)
    rows_of(DAY - WEEK, depots_of(1000, 0.5), even)
    rows_of(DAY, depots_of(1000, 0.5), np.where(np.arange(1000) % 5 < 2, np.nan, even + 8))
    assert found(url)["weight_kg"].weekdays == pytest.approx(0.4)


def test_days_of_one_distribution_are_as_far_apart_as_nothing(workspace, url):  # noqa: F811
    random, apart = np.random.default_rng(0), []
    for i in range(12):
        for day in (DAY - WEEK, DAY):
            rows_of(day, random.choice(["A", "B", "C"], 200, p=[0.5, 0.3, 0.2]), random.normal(size=200))
        apart.append(found(url)["depot"].weekdays)
        assert apart[i] < 0.1
    assert np.mean(apart) < 0.02


def test_cells_of_the_training_are_looked_at_once_and_kept_with_the_model(workspace, url):  # noqa: F811
    asked = []

    def window():
        asked.append("asked")
        return DAY - timedelta(days=9), DAY - timedelta(days=8)

    for day in (DAY - timedelta(days=9), DAY - timedelta(days=8), DAY - WEEK):
        rows_of(day, depots_of(100, 0.5), np.linspace(0, 100, 100))
    rows_of(DAY, depots_of(100, 0.5), np.linspace(0, 100, 100) + 40)
    first = found(url, window=window)
    assert first["weight_kg"].training == pytest.approx(40 / 80, abs=0.01)
    assert found(url, window=window) == first
    assert asked == ["asked"]
    assert list(Store(url).list("tiny/_columns/")) == ["tiny/_columns/m1.json"]
    assert found(url, day=DAY + timedelta(days=1)) == {}, "a day without rows is far from nothing"
    assert columns_of_days(PRODUCT, Partitions(Paths("tiny").valid / "rows"), []) is None


def test_champion_is_asked_about_a_sample_of_its_training_rows_once(workspace, url, monkeypatch):  # noqa: F811
    monkeypatch.setattr("tasks.monitoring.distances.MAX_ANSWERED", 200)
    asked, days = [], [DAY - timedelta(days=i) for i in (2, 1)]
    for day in days:
        rows_of(day, depots_of(400, 0.5), np.linspace(0, 100, 400))

    def answer(rows):
        asked.append(rows["weight_kg"].tolist())
        return Predictions(mean=0.5, deciles=(0.5,) * 9, shares={})

    first, again = (of_training(url, lambda: (days[0], days[-1]), answer) for _ in range(2))
    assert first == again
    assert again.predictions.mean == 0.5
    evenly = [value for block in range(8) for value in np.linspace(0, 100, 400)[50 * block : 50 * block + 12]]
    assert asked == [evenly + evenly]
