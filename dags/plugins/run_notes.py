"""Show in a run's note, where Airflow's pages list runs, which date it is of, and a training's report when it is done.
A note that a person has written stays.

A run of a backfill is told which one it belongs to, in its configuration, so that its nights ask their source once.
A plugin, since a task can do neither: the scheduler calls it when a run begins, where AIRFLOW__CORE__PLUGINS_FOLDER
is this folder. Without it the date still stands first in the log of `start`, and each night of a backfill asks its
source.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from sqlalchemy import select
from sqlalchemy.orm import object_session

from tasks import params
from tasks.monitoring.status import page_name
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


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Add to the note of a training the way to its report."""
    from airflow.models.xcom import XComModel

    kind, _, name = dag_run.dag_id.partition("__")
    session = object_session(dag_run)
    if kind != "train" or session is None or name not in params.load(ROOT / params.PARAMS_FILE).products:
        return
    left = select(XComModel).filter_by(
        dag_id=dag_run.dag_id, run_id=dag_run.run_id, task_id="start", key="return_value"
    )
    opened = session.scalar(left)
    if opened:
        dag_run.note = with_report(dag_run.note, name, XComModel.deserialize_value(opened))


def with_report(note: str | None, product: str, run: Mapping[str, Any]) -> str:
    """Return the note of a training with the way to its report, once."""
    page = page_name(run["name"], date.fromisoformat(run["as_of"]))
    link = f"[Report](/lamplighter/products/{product}/reports/{page})"
    known = note or ""
    return known if link in known else f"{known}\n\n{link}".strip()


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
