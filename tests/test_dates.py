"""Oracle: the runs that Airflow's own timetables and API make, and a calendar."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.timetables.base import TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.simple import NullTimetable
from airflow.timetables.trigger import CronTriggerTimetable
from airflow.utils.types import DagRunType
from pendulum import DateTime

from dags.nights import NightTimetable
from tasks.runs.dates import Backfill, backfill_of, run_date
from tasks.runtime.errors import UserError

ZONES = ("UTC", "Asia/Tokyo", "America/New_York", "Pacific/Auckland")
NIGHTLY, WEEKLY = "0 3 * * *", "0 4 * * 0"
SETTINGS = pytest.mark.parametrize("timetable", [CronTriggerTimetable, CronDataIntervalTimetable])
"""What Airflow makes of a cron expression with create_cron_data_intervals off, and on."""


def at(*time: int, zone: str = "UTC") -> DateTime:
    return DateTime(*time, tzinfo=UTC) if zone == "UTC" else DateTime.create(*time, tz=zone)


def run(logical=None, interval=None, run_after=None, run_type="scheduled", conf=None):
    """A run as Airflow hands it to a task."""
    start, end = interval or (None, None)
    return SimpleNamespace(
        logical_date=logical,
        data_interval_start=start,
        data_interval_end=end,
        run_after=run_after,
        run_type=run_type,
        conf=conf,
    )


def nights(timetable, zone, first, last):
    """The as_of of each run that Airflow makes on its own, or in a backfill, between two moments."""
    found, info = [], None
    while True:
        info = timetable.next_dagrun_info(
            last_automated_data_interval=info and info.data_interval, restriction=TimeRestriction(first, last, True)
        )
        if info is None:
            return found
        dated = run(info.logical_date, info.data_interval, info.run_after)
        found.append((info.run_after, run_date(dated, zone).as_of))


@SETTINGS
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("cron", [NIGHTLY, WEEKLY, "0 18 * * *", "59 23 * * *", "0 0 * * *"])
def test_scheduled_run_is_of_the_day_before_it_was_due(timetable, zone, cron):
    """Also in weeks in which clocks are moved."""
    for month in (3, 7, 10):
        dated = nights(
            timetable(cron, timezone=zone), zone, at(2013, month, 1, zone=zone), at(2013, month, 28, zone=zone)
        )
        assert len(dated) >= 3
        for due, as_of in dated:
            assert as_of == (due.in_timezone(zone).date() - timedelta(days=1)).isoformat()


def test_nights_of_both_settings_are_the_same():
    first, last = at(2013, 7, 1), at(2013, 7, 20)
    on, off = (
        dict(nights(kind(NIGHTLY, timezone="Asia/Tokyo"), "Asia/Tokyo", first, last))
        for kind in (CronDataIntervalTimetable, CronTriggerTimetable)
    )
    assert off[at(2013, 7, 9, 18)] == "2013-07-09", "03:00 of the 10th in Tokyo"
    assert {due: as_of for due, as_of in on.items() if due in off} == {due: off[due] for due in on if due in off}
    assert len(on.keys() & off.keys()) > 15


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("cron", [NIGHTLY, "0 0 * * *", "59 23 * * *"])
@pytest.mark.parametrize("hours", [(0, 0), (0, 23), (12, 12), (23, 1)])
def test_days_that_a_person_backfills_are_the_nights_that_are_made(zone, cron, hours):
    """Airflow's own way to the runs of a backfill: the first and the last day are in, at whatever hour they are typed.

    The first Sunday of November has 25 hours in New York; in Auckland clocks were moved on 29 September.
    """
    for month, first, last in ((7, 2, 8), (11, 1, 7), (9, 26, 30)):
        picked = [at(2013, month, day, hour, zone=zone) for day, hour in zip((first, last), hours, strict=True)]
        made, info, timetable = [], None, NightTimetable(cron, timezone=zone)
        while info := timetable.next_dagrun_info(
            last_automated_data_interval=info and info.data_interval, restriction=TimeRestriction(*picked, True)
        ):
            proposed = {"as_of": "2013-12-30"}  # the form of a backfill has the fields of a run
            dated = run(info.logical_date, info.data_interval, info.run_after, DagRunType.BACKFILL_JOB, proposed)
            made.append(run_date(dated, zone).as_of)
        assert made == [f"2013-{month:02d}-{day:02d}" for day in range(first, last + 1)]


def test_timetable_of_nights_schedules_as_that_of_cron_does():
    """Without catchup, as all DAGs here are; what it stores gives it again."""
    ours, plain = (kind(NIGHTLY, timezone="Asia/Tokyo") for kind in (NightTimetable, CronTriggerTimetable))
    assert NightTimetable.deserialize(ours.serialize()) == ours
    info = plain.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(at(2013, 1, 1), None, False)
    )
    for _ in range(3):
        asked = {
            "last_automated_data_interval": info.data_interval,
            "restriction": TimeRestriction(at(2013, 1, 1), at(2099, 1, 1, 1), False),
        }
        info = plain.next_dagrun_info(**asked)
        assert ours.next_dagrun_info(**asked) == info


def test_run_belongs_to_the_backfill_that_the_scheduler_has_named():
    conf = {"backfill": {"number": 3, "until": "2013-07-08"}}
    assert backfill_of(conf, run(run_type=DagRunType.BACKFILL_JOB)) == Backfill(number=3, until="2013-07-08")
    assert backfill_of({}, run(run_type=DagRunType.BACKFILL_JOB)) is None, "where the plugin is not there"
    assert backfill_of(conf, run(run_type="manual")) is None, "a person may have copied it"


@SETTINGS
@pytest.mark.parametrize("cron", [NIGHTLY, WEEKLY])
@pytest.mark.parametrize("hour", [0, 2, 12, 23])
def test_logical_date_that_was_typed_decides(timetable, cron, hour):
    """The API makes the interval of the logical date, the command line and other DAGs make it of now."""
    logical, now = at(2013, 7, 2, hour), at(2026, 11, 28, 19)
    for basis in (logical, now):
        interval = timetable(cron, timezone="UTC").infer_manual_data_interval(run_after=basis)
        assert run_date(run(logical, interval, now), "UTC").as_of == "2013-07-01"


@SETTINGS
@pytest.mark.parametrize("cron", [NIGHTLY, WEEKLY, None])
def test_run_by_hand_now_is_of_last_night_on_any_weekday(timetable, cron):
    made = timetable(cron, timezone="Asia/Tokyo") if cron else NullTimetable()
    for day in range(2, 9):
        now = at(2013, 7, day, 12, zone="Asia/Tokyo")
        dated = run(now, made.infer_manual_data_interval(run_after=now), now)
        assert run_date(dated, "Asia/Tokyo").as_of == f"2013-07-{day - 1:02d}"


def test_run_of_an_asset_or_another_dag_is_of_last_night():
    """It has neither logical date nor interval."""
    assert run_date(run(run_after=at(2013, 7, 1, 18)), "Asia/Tokyo").as_of == "2013-07-01"
    assert run_date(run(run_after=at(2013, 7, 1, 18)), "America/New_York").as_of == "2013-06-30"


def test_given_date_wins_over_all_others():
    date = run_date(run(run_after=at(2013, 7, 1), conf={"as_of": "2013-05-05"}), "UTC")
    assert str(date) == "as_of 2013-05-05 (as given)"


@pytest.mark.parametrize("dated", [run(), run(run_after=datetime(2013, 7, 1))])
def test_date_that_cannot_be_told_is_an_error_with_a_remedy(dated):
    with pytest.raises(UserError, match=r"^(a run|the time of a run) must have .*trigger the run with an as_of"):
        run_date(dated, "UTC")
