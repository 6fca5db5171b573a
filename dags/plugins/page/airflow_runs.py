"""Ask Airflow's database how the products' DAGs stand: the last run of each, and what waits for a person."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import func, select

KINDS = ("predict", "train")


@dataclass(frozen=True, kw_only=True)
class SeenRun:
    """The last run of a DAG."""

    name: str
    """Airflow's run_id."""
    state: str
    """queued, running, success or failed."""
    began: datetime | None
    """When it began; None where it has not."""


@dataclass(frozen=True, kw_only=True)
class SeenDag:
    """How a DAG stands."""

    is_paused: bool
    """Whether its schedule starts nothing."""
    next_run: datetime | None
    """When it runs next by its schedule."""
    last: SeenRun | None = None
    """None where it has never run."""
    waiting: tuple[str, ...] = ()
    """Runs that wait for a person's answer."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How the DAGs of a product stand; None for one that Airflow does not know yet."""

    dags: Mapping[str, SeenDag] = field(default_factory=dict)
    """By kind: predict, train."""


def seen_by_airflow(session: Any, products: Iterable[str]) -> dict[str, Seen]:
    """Return how the DAGs of each product stand, in three questions to the database."""
    ids = {f"{kind}__{name}": (name, kind) for name in products for kind in KINDS}
    known = {dag.dag_id: dag for dag in session.scalars(select(DagModel).where(DagModel.dag_id.in_(ids)))}
    newest = select(func.max(DagRun.id)).where(DagRun.dag_id.in_(ids)).group_by(DagRun.dag_id)
    last = {
        run.dag_id: SeenRun(name=run.run_id, state=str(run.state), began=run.start_date)
        for run in session.scalars(select(DagRun).where(DagRun.id.in_(newest)))
    }
    asks = select(TaskInstance.dag_id, TaskInstance.run_id).where(
        TaskInstance.dag_id.in_(ids), TaskInstance.state == TaskInstanceState.AWAITING_INPUT
    )
    waiting: dict[str, list[str]] = {}
    for dag, run in session.execute(asks):
        waiting.setdefault(dag, []).append(run)
    found: dict[str, dict[str, SeenDag]] = {name: {} for name, _ in ids.values()}
    for dag_id, dag in known.items():
        name, kind = ids[dag_id]
        found[name][kind] = SeenDag(
            is_paused=bool(dag.is_paused),
            next_run=dag.next_dagrun_create_after,
            last=last.get(dag_id),
            waiting=tuple(sorted(waiting.get(dag_id, ()))),
        )
    return {name: Seen(dags=dags) for name, dags in found.items()}
