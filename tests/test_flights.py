"""Oracle: the definitions written out in loops, and the law that a row knows nothing later than it may."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from tasks.sources import flights

ZONES = pd.Series({"EWR": -5, "JFK": -5, "ORD": -6, "LAX": -8})
PLANES = pd.DataFrame({"tailnum": ["N1"], "year": [2001], "manufacturer": ["A"], "model": ["B"], "seats": [100]})
N_DAYS, PER_DAY = 14, 12


def observed(changed_from=N_DAYS):
    """Hourly weather of two airports from the day before the first; from day `changed_from` on, it is another one."""
    random = np.random.default_rng(1)
    n = (N_DAYS + 1) * 24
    hours = np.repeat(pd.Timestamp("2012-12-31") + pd.to_timedelta(np.arange(n), unit="h"), 2)
    table = pd.DataFrame({"year": hours.year, "month": hours.month, "day": hours.day, "hour": hours.hour})
    table["dewp"] = random.normal(40, 10, 2 * n)
    table["wind_dir"] = np.where(random.random(2 * n) < 0.1, np.nan, random.integers(0, 36, 2 * n) * 10.0)
    table["wind_speed"] = np.where(random.random(2 * n) < 0.02, 1048.0, random.uniform(0, 30, 2 * n))
    later = hours >= pd.Timestamp("2013-01-01") + pd.Timedelta(days=changed_from)
    return table.assign(dewp=table["dewp"].where(~later, 0), wind_dir=table["wind_dir"].where(~later, 90))


def delivered(n_days=N_DAYS, changed_from=N_DAYS, weather_from=N_DAYS):
    """The source's rows for random flights; from the days given on, every truth or observation is another one."""
    random = np.random.default_rng(0)
    n = N_DAYS * PER_DAY
    days = pd.Timestamp("2013-01-01") + pd.to_timedelta(np.repeat(np.arange(N_DAYS), PER_DAY), unit="D")
    table = pd.DataFrame(
        {
            "year": days.year,
            "month": days.month,
            "day": days.day,
            "sched_dep_time": 100 * random.integers(5, 23, n) + random.integers(0, 60, n),
            "sched_arr_time": 100 * random.integers(5, 23, n) + random.integers(0, 60, n),
            "arr_delay": np.where(random.random(n) < 0.1, np.nan, random.integers(-90, 250, n)),
            "carrier": random.choice(["AA", "UA"], n),
            "flight": random.choice(["1", "2", "3"], n),
            "tailnum": random.choice(np.array(["N1", "N2", None], object), n),
            "origin": random.choice(["EWR", "JFK"], n),
            "dest": random.choice(["ORD", "LAX"], n),
            "distance": 1000,
        }
    )
    later = np.arange(n) >= changed_from * PER_DAY
    table["arr_delay"] = table["arr_delay"].where(~later, 300 - table["arr_delay"].fillna(0))
    return flights.table(table[: n_days * PER_DAY], PLANES, ZONES, observed(weather_from))


@pytest.mark.parametrize("day", [2, 7, 13])
def test_a_row_knows_the_truths_of_two_days_before_and_none_later(day):
    its = slice(day * PER_DAY, (day + 1) * PER_DAY)
    inputs = [name for name in delivered() if name != "late"]
    row = delivered()[inputs][its]
    pd.testing.assert_frame_equal(row, delivered(changed_from=day - 1)[inputs][its], check_exact=True)
    assert not row.equals(delivered(changed_from=day - 2)[inputs][its])


@pytest.mark.parametrize("day", [2, 7, 13])
def test_a_row_knows_the_weather_of_the_evening_before_and_none_later(day):
    its = slice(day * PER_DAY, (day + 1) * PER_DAY)
    row = delivered()[its]
    pd.testing.assert_frame_equal(row, delivered(weather_from=day)[its], check_exact=True)
    assert not row.equals(delivered(weather_from=day - 1)[its])


def test_the_evening_before_equals_the_definition():
    weather = observed()
    rows = delivered().set_index("date")[["dew_point_above_usual_f", "wind_from_east_mph"]].drop_duplicates()
    assert len(rows) == N_DAYS
    dew_points = []
    for back, (_, row) in enumerate(rows.iterrows()):
        day = pd.Timestamp("2012-12-31") + pd.Timedelta(days=back)
        its = weather[(weather[["year", "month", "day"]] == [day.year, day.month, day.day]).all(axis=1)]
        its = its[its["hour"].isin([18, 19, 20, 21])]
        dew_points.append(its["dewp"].mean())
        weights = 0.5 ** (np.arange(back, -1, -1) / flights.USUAL_DEW_POINT_DAYS)
        usual = weights @ dew_points / weights.sum()
        assert row["dew_point_above_usual_f"] == pytest.approx(dew_points[-1] - usual, abs=1e-9)
        sane = its[its["wind_speed"] < 100]
        east = sane["wind_speed"] * np.sin(np.radians(sane["wind_dir"]))
        assert row["wind_from_east_mph"] == pytest.approx(east.mean())


@pytest.mark.parametrize("n_days", [1, 3, 9])
def test_a_row_does_not_change_when_later_days_arrive(n_days):
    pd.testing.assert_frame_equal(delivered()[: n_days * PER_DAY], delivered(n_days), check_exact=True)


def test_trailing_means_equal_the_definition():
    rows = delivered()
    day = pd.to_datetime(rows["date"]).dt.day.to_numpy() - 1
    late = rows["late"].to_numpy()
    carrier, hour = rows["carrier"].to_numpy(), rows["scheduled_departure"].dt.hour.to_numpy()

    def mean(row, *like, prior=None):
        weight = {
            other: 0.5 ** ((day[row] - 2 - day[other]) / flights.HALF_LIFE_DAYS)
            for other in range(len(rows))
            if day[other] <= day[row] - 2
            and all(column[other] == column[row] for column in like)
            and not np.isnan(late[other])
        }
        pseudo = 0 if prior is None else flights.PRIOR_FLIGHTS
        total = sum(weight.values()) + pseudo
        return (sum(w * late[o] for o, w in weight.items()) + pseudo * (prior or 0)) / total if total else np.nan

    for row in (0, 20, 40, 100, 167):
        hourly = mean(row, hour, prior=mean(row))
        of_carrier = mean(row, carrier, hour, prior=hourly)
        assert rows["late_share_of_carrier_in_hour"][row] == pytest.approx(of_carrier, nan_ok=True)


def test_traffic_and_rotation_equal_the_definition():
    rows = delivered()
    departure = rows["scheduled_departure"]
    for row in (0, 30, 90, 167):
        minutes = (departure[row] - departure).dt.total_seconds() / 60
        assert rows["scheduled_departure_minute"][row] == departure[row].hour * 60 + departure[row].minute
        here = rows["origin"] == rows["origin"][row]
        assert rows["departures_in_3_hours_before"][row] == (here & minutes.between(0, 180)).sum()
        own = (rows["tail_number"] == rows["tail_number"][row]) & (rows["date"] == rows["date"][row])
        if own.any():
            before = rows[own].sort_values(["scheduled_departure", "flight_id"])
            earlier = list(before.index).index(row)
            assert rows["plane_flights_before"][row] == earlier
            assert rows["plane_flights_of_day"][row] == len(before)
            if earlier:
                last = before.index[earlier - 1]
                assert rows["plane_minutes_since_departure"][row] == minutes[last]
                slack = minutes[last] - 2 * rows["scheduled_minutes"][last]
                assert rows["plane_slack_minutes"][row] == slack
            else:
                assert np.isnan(rows["plane_slack_minutes"][row])
        else:
            assert np.isnan(rows["plane_flights_before"][row])


@pytest.mark.parametrize(
    ("day", "days"), [("2013-07-04", 0), ("2013-07-02", 2), ("2013-07-06", 2), ("2013-07-20", 3), ("2013-12-31", 1)]
)
def test_days_from_a_holiday(day, days):
    assert flights._days_from_holiday(pd.Series([day])).tolist() == [days]


def test_rows_kept_on_this_machine_are_those_that_the_package_gives(monkeypatch, tmp_path):
    """Also where the file is damaged, and where none can be written."""
    days = date(2013, 2, 27), date(2013, 3, 1)
    made = delivered().assign(date=lambda rows: rows["date"].str.replace("2013-01", "2013-03"))
    calls = []
    monkeypatch.setattr(flights, "_flights", lambda: calls.append(1) or made)
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path / "full"))
    wanted = made[made["date"] == "2013-03-01"].reset_index(drop=True)
    for _ in range(2):
        pd.testing.assert_frame_equal(flights.rows(*days), wanted, check_exact=True)
    assert len(calls) == 1
    pd.testing.assert_frame_equal(flights.rows(None, date(2013, 12, 31)), made, check_exact=True)
    (file,) = (tmp_path / "full" / "sources").glob("flights-*.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 255
    file.write_bytes(content)
    pd.testing.assert_frame_equal(flights.rows(None, date(2013, 12, 31)), made, check_exact=True)
    assert len(calls) == 2
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path / "file"))
    pd.testing.assert_frame_equal(flights.rows(*days), wanted, check_exact=True)
