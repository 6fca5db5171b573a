"""Show which date a run is of in its note, where Airflow's pages list runs; a note that a person has written stays.

A plugin, since a task cannot write notes: the scheduler calls it when a run begins, where AIRFLOW__CORE__PLUGINS_FOLDER
is this folder. Without it the date still stands first in the log of `start`.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from tasks import params
from tasks.runs.dates import run_date
from tasks.runtime.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent


@hookimpl
def on_dag_run_running(dag_run: Any, msg: str) -> None:
    """Write the note; the task `start` says what is wrong with a date that cannot be told."""
    with suppress(UserError):
        kind, _, name = dag_run.dag_id.partition("__")
        product = params.load(ROOT / params.PARAMS_FILE).products.get(name)
        if product and kind in ("train", "predict") and not dag_run.note:
            dag_run.note = str(run_date((dag_run.conf or {}).get("as_of"), dag_run, product.time_zone))


class RunNotes(AirflowPlugin):
    """What Airflow finds in the folder of plugins."""

    name = "lamplighter_run_notes"
    listeners = (sys.modules[__name__],)
