"""Show which date a run is of in its note, where Airflow's pages list runs; a note that a person has written stays.

A run of a backfill is told which one it belongs to, in its configuration, so that its nights ask their source once.
A plugin, since a task can do neither: the scheduler calls it when a run begins, where AIRFLOW__CORE__PLUGINS_FOLDER
is this folder. Without it the date still stands first in the log of `start`, and each night of a backfill asks its
source.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from sqlalchemy import select
from sqlalchemy.orm import object_session

from tasks import params
from tasks.runs.dates import BACKFILL, BACKFILL_OF_RUN, run_date
from tasks.runtime.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent


@hookimpl
def on_dag_run_running(dag_run: Any, msg: str) -> None:
    """Write the note; the task `start` says what is wrong with a date that cannot be told."""
    with suppress(UserError):
        kind, _, name = dag_run.dag_id.partition("__")
        product = params.load(ROOT / params.PARAMS_FILE).products.get(name)
        if product is None or kind not in ("train", "predict"):
            return
        if kind == "predict" and dag_run.run_type == BACKFILL and (last := last_of_backfill(dag_run)):
            until = run_date(last, product.time_zone).as_of
            named = {BACKFILL_OF_RUN: {"number": dag_run.backfill_id, "until": until}}
            dag_run.conf = {**(dag_run.conf or {}), **named}
        if not dag_run.note:
            dag_run.note = str(run_date(dag_run, product.time_zone))


def last_of_backfill(dag_run: Any) -> Any:
    """Return the run of the last date in the backfill that a run belongs to."""
    session, kind = object_session(dag_run), type(dag_run)
    if session is None:
        return None
    of_backfill = select(kind).where(kind.backfill_id == dag_run.backfill_id)
    return session.scalar(of_backfill.order_by(kind.logical_date.desc()).limit(1))


class RunNotes(AirflowPlugin):
    """What Airflow finds in the folder of plugins."""

    name = "lamplighter_run_notes"
    listeners = (sys.modules[__name__],)
