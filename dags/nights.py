"""A cron timetable by which a backfill takes whole days: the first and the last that a person picks, and all between.

Airflow makes the runs that are due between two moments, and a page on which days are picked gives their first moments:
the last day would be left out. `dags/plugins/timetables.py` makes the timetable known to Airflow, which stores it with
the DAGs.
"""

from typing import Any

from airflow.timetables.base import TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable


class NightTimetable(CronTriggerTimetable):
    """Run when a cron expression says; of a backfill, on each such day from the first that was picked to the last."""

    def next_dagrun_info(self, *, last_automated_data_interval: Any, restriction: TimeRestriction) -> Any:
        """Return when the next run is due. Only a backfill asks with catchup, since no DAG here has it."""
        if restriction.catchup and restriction.earliest and restriction.latest:
            zone = self._timezone
            restriction = TimeRestriction(
                earliest=restriction.earliest.in_timezone(zone).start_of("day"),
                latest=restriction.latest.in_timezone(zone).end_of("day"),
                catchup=True,
            )
        return super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )
