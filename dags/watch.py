"""Look every ten minutes whether each night that must be there is published: the DAG `watch`, one for all products.

It has nothing to do with the runs that it watches. It is not paused when Airflow first sees it, and costs a look at the
store for each product that declares `schedule.ready_by` or `publish.announce`, or has messages to send.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, CronTriggerTimetable, task

from dags.failures import classify_failure
from tasks.runtime.settings import ROOT


@task
def watch() -> str:
    """Look at every product once. It is retried soon: a fresh Airflow's first run may come before its API answers."""
    from tasks import params
    from tasks.watch import watch as look

    line = classify_failure(lambda: look(params.load(ROOT / params.PARAMS_FILE).products.values()))
    print(line, flush=True)
    return line


with DAG(
    dag_id="watch",
    description="Tell people that a night is late or never ran, and send what no receiver has taken yet",
    doc_md=(
        "Every ten minutes, for every product: is the night that must be there by `schedule.ready_by` published? One "
        "that is not is told once, by the channels that the environment declares (docs/operations.md). Then "
        "`LAMPLIGHTER_HEARTBEAT_URL` is called, so that an outside monitor sees that somebody watches. By hand: "
        "`make watch`."
    ),
    schedule=CronTriggerTimetable("*/10 * * * *", timezone="UTC"),
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["lamplighter"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30), "execution_timeout": timedelta(minutes=3)},
) as dag:
    watch()
