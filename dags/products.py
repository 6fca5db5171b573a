"""WHEN and in what order: `train__<product>` and `predict__<product>` for every product of params.yaml.

Each task does one stage in a workspace of the run (see `tasks.runs.steps`); what passes between tasks is the run's
name and numbers. A parse reads params.yaml and imports nothing heavy. A task is retried where waiting can mend
it, and fails at once where only a person can.
"""

import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, chain, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from tasks import STAGES, params
from tasks.runtime.errors import TransientError, UserError

ROOT = Path(__file__).resolve().parent.parent
TRAIN_STAGES = STAGES[:-1]
"""All but predict, which predict__<product> does."""
TASK_TIMEOUT = timedelta(days=1)
"""A task that takes longer hangs, and no night after it would run. docker/compose.yaml lets Celery wait as long."""
APPROVAL_TIMEOUT = timedelta(days=2)
APPROVER = "{{ ti.xcom_pull(task_ids='approve')['responded_by_user']['name'] }}"


def asks_a_human(product: params.Product) -> bool:
    """Whether a person must approve in Airflow; not where one runs the DAG by hand, who is named instead."""
    return product.gates.approval == "human" and "LAMPLIGHTER_APPROVER" not in os.environ


def retried_if_useful(work: Callable[[], Any]) -> Any:
    """What `work` returns; a failure that no retry can mend is marked as final."""
    try:
        return work()
    except UserError as error:
        print(error, flush=True)
        raise AirflowFailException(str(error)) from None
    except TransientError as error:
        print(f"this may pass; waiting before another try: {error}", flush=True)
        raise
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        raise AirflowFailException(repr(error)) from None


@task
def start(product: str, kind: str) -> dict[str, Any]:
    """Open the run: settle its as_of, revision and champion."""
    from dataclasses import asdict

    from tasks.runs.steps import open_run

    context = get_current_context()
    given = context["params"]
    unique = context["dag_run"].run_id
    run = retried_if_useful(
        lambda: open_run(product, kind, as_of(context), unique, shards=given.get("shards"), force=given["force"])
    )
    print(
        f"{run.name}: as_of {run.as_of}, revision {run.revision[:12]}"
        + (f", model {run.model_version}" if run.champion else "")
    )
    return asdict(run)


@task
def step(run: dict[str, Any], stage: str, approver: str | None = None) -> None:
    """Do one stage, or publish, gc or promote."""
    from tasks.runs.experiments import Run
    from tasks.runs.steps import step

    retried_if_useful(lambda: step(Run(**run), stage, approver))


@task
def judge(run: dict[str, Any]) -> str:
    """Measure the new model at the gates; what a person is asked to approve. One that fails is asked for no further."""
    from tasks.runs.experiments import Run
    from tasks.runs.steps import step

    said = str(retried_if_useful(lambda: step(Run(**run), "promote")))
    if "waits for a human's approval" not in said:
        raise AirflowSkipException(said)
    return said


@task
def shards(run: dict[str, Any]) -> list[int]:
    """The numbers of the night's shards."""
    return list(range(run["shards"]))


@task(map_index_template="shard {{ task.op_kwargs['number'] }}")
def predict(run: dict[str, Any], number: int) -> dict[str, Any]:
    """Score one shard; returns its part's name, rows and hash."""
    from tasks.runs.experiments import Run
    from tasks.runs.steps import shard

    return retried_if_useful(lambda: shard(Run(**run), number))


@task
def collect(run: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    """Verify every shard and make the night of them."""
    from tasks.runs.experiments import Run
    from tasks.runs.steps import collect

    retried_if_useful(lambda: collect(Run(**run), list(parts)))


def as_of(context: Any) -> str:
    """The run's date: as given; the day before for a scheduled or backfilled run; that of params.yaml by hand."""
    if context["params"]["as_of"]:
        return str(context["params"]["as_of"])
    if context["dag_run"].run_type in ("scheduled", "backfill"):
        return (context["logical_date"] - timedelta(days=1)).date().isoformat()
    return params.load(ROOT / params.PARAMS_FILE).as_of.isoformat()


def form(product: params.Product, kind: str) -> dict[str, Param]:
    """What a person may choose when triggering a run."""
    fields = {
        "as_of": Param(
            None,
            type=["null", "string"],
            format="date",
            title="as_of",
            description=(
                "The date up to which data is known, inclusive. "
                "Empty: yesterday for scheduled runs, params.yaml's as_of by hand."
            ),
        ),
        "force": Param(
            False, type="boolean", title="force", description="Run every stage even where nothing has changed."
        ),
    }
    if kind == "predict":
        fields["shards"] = Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=params.MAX_SHARDS,
            title="shards",
            description="Part files of the night, each scored by a task of its own. Empty: as params.yaml declares.",
        )
    return fields


def explanation(product: params.Product, kind: str) -> str:
    """What the UI says about the DAG."""
    flow = {
        "train": " → ".join([*TRAIN_STAGES, "promote"]),
        "predict": "ingest → validate → predict (sharded) → collect → publish → gc",
    }[kind]
    purpose = {
        "train": f"Retrain; the new model predicts when its {product.gates.metric} on held-out rows passes the gates.",
        "predict": f"Score the rows of as_of + {product.predict.horizon_days} days with the champion; publish to "
        f"`{product.publish.url}/{product.name}/`.",
    }[kind]
    return (
        f"**{product.description}**\n\n{purpose}\n\n{flow}\n\n"
        "Every task restores the run's workspace from git and the DVC remote, does one stage with "
        "`dvc repro --single-item`, and hands on. The run stays as a DVC experiment: `dvc exp show -A`."
    )


def approval(product: params.Product) -> Any:
    """The task in which a person lets a model through: no worker waits for it, and silence rejects."""
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    return ApprovalOperator(
        task_id="approve",
        subject=f"Shall this model predict {product.name} from now on?",
        body="{{ ti.xcom_pull(task_ids='judge') }}",
        defaults=ApprovalOperator.REJECT,
        response_timeout=APPROVAL_TIMEOUT,
    )


def declare(product: params.Product, kind: str, schedule: str | None) -> DAG:
    """One DAG."""
    with DAG(
        dag_id=f"{kind}__{product.name}",
        description=product.description,
        doc_md=explanation(product, kind),
        schedule=schedule,
        start_date=datetime(2013, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        params=form(product, kind),
        tags=["lamplighter", product.name],
        render_template_as_native_obj=True,
        default_args={
            "retries": 2,
            "retry_delay": timedelta(minutes=1),
            "retry_exponential_backoff": True,
            "execution_timeout": TASK_TIMEOUT,
        },
    ) as dag:
        run = start(product.name, kind)
        names = TRAIN_STAGES if kind == "train" else ("ingest", "validate", "publish", "gc")
        steps = {name: step.override(task_id=name)(run, name) for name in names}
        if kind == "train" and asks_a_human(product):
            promote = step.override(task_id="promote")(run, "promote", APPROVER)
            chain(run, *steps.values(), judge(run), approval(product), promote)
        elif kind == "train":
            chain(run, *steps.values(), step.override(task_id="promote")(run, "promote"))
        else:
            numbers = shards(run)
            night = collect(run, predict.partial(run=run).expand(number=numbers))
            chain(run, steps["ingest"], steps["validate"], numbers)
            chain(night, steps["publish"], steps["gc"])
    return dag


for _product in params.load(ROOT / params.PARAMS_FILE).products.values():
    for _kind, _schedule in (("train", _product.schedule.retrain), ("predict", _product.schedule.predict)):
        globals()[f"{_kind}__{_product.name}"] = declare(_product, _kind, _schedule)
