"""Make the timetable of the DAGs known to Airflow, where AIRFLOW__CORE__PLUGINS_FOLDER is this folder."""

from airflow.plugins_manager import AirflowPlugin

from dags.nights import NightTimetable


class Timetables(AirflowPlugin):
    """What Airflow finds in the folder of plugins."""

    name = "lamplighter_timetables"
    timetables = (NightTimetable,)
