"""Declare WHEN and in what order: `train__<product>` and `predict__<product>` for every product of params.yaml.

Each task does one stage in a workspace of the run (see `tasks.runs.steps`); only the facts of the run and the records
of the night's parts pass between tasks. A parse reads params.yaml and imports nothing heavy. A task is retried where
waiting can mend it, and fails at once where only a person can. The shape of a DAG follows from params.yaml alone: no
environment, no setting of Airflow's and no parameter of a run changes it. Which date a run is of: `tasks.runs.dates`.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, chain, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.assets import asset, note, of_stage
from dags.failures import classify_failure
from dags.messages import tell_decision, tell_failure, tell_paused_training
from dags.nights import NightTimetable
from dags.pods import pod_of
from tasks import STAGES, params

ROOT = Path(__file__).resolve().parent.parent
TRAIN_STAGES = STAGES[:-1]
"""All but predict, which predict__<product> does."""
TASK_TIMEOUT = timedelta(days=1)
"""A task that takes longer hangs, and no night after it would run. docker/compose.yaml lets Celery wait as long."""
LOOK_AGAIN = timedelta(minutes=5)
"""How often a night that waits for late data looks at the source."""
APPROVAL_TIMEOUT = timedelta(days=2)
APPROVAL_TASKS = ("evaluate_gates", "approve")
NAMED = "{{ params.approver }}"
"""The person whom the run's parameter names, or None."""
ASKED = "{{ params.approver or ((ti.xcom_pull(task_ids='approve') or {}).get('responded_by_user') or {}).get('name') }}"
"""The same, or else the person who has answered the task `approve`."""
SHOWN = """{{ None if params.approver
    else ((ti.xcom_pull(task_ids='approve') or {}).get('params_input') or {}).get('figures', 'not named') }}"""
"""The name of the figures that this person was shown; None where nobody was asked."""
RETRAIN = "retrain"
"""The task that starts train__<product> where the champion has become worse."""
NIGHT_OF_RUN = "{{ ti.xcom_pull(task_ids='start')['as_of'] }}"
Json = dict[str, Any]
"""What XCom carries."""


def needs_approval(product: params.Product) -> bool:
    """Return whether a person must let a model of the product predict."""
    return product.gates.approval == "human"


@task
def start(product: str, kind: str, time_zone: str) -> Json:
    """Open the run: settle its as_of, which the log says first, its revision and its champion."""
    from tasks.runs.dates import BACKFILL, backfill_of, run_date
    from tasks.runs.steps import open_run, standing_night
    from tasks.runtime.log_lines import tell_of

    tell_of(product=product, stage="start")
    context = get_current_context()
    given, dag_run = context["params"], context["dag_run"]
    dated = classify_failure(lambda: run_date(dag_run, time_zone))
    print(dated, flush=True)
    is_asked_for = given["force"] or dag_run.run_type != BACKFILL or dag_run.clear_number
    if kind == "predict" and not is_asked_for:
        line = classify_failure(lambda: standing_night(product, dated.as_of))
        if line:
            raise AirflowSkipException(line)
    run = classify_failure(
        lambda: open_run(
            product,
            kind,
            dated.as_of,
            dag_run.run_id,
            shards=given.get("shards"),
            force=given["force"],
            backfill=backfill_of(dag_run.conf, dag_run),
        )
    )
    tell_of(as_of=run.as_of, run=run.name)
    model = f", model {run.model_version}" if run.champion else ""
    print(f"{run.name}: as_of {run.as_of}, revision {run.revision[:12]}{model}")
    return run.to_json()


@task
def step(run: Json | None, stage: str, approver: str | None = None, approved: str | None = None) -> None:
    """Do one stage, or publish, monitor, gc or promote."""
    from tasks.runs import steps

    name = None if approver is None else str(approver)  # a name of digits is rendered as a number
    result = classify_failure(lambda: steps.step(steps.opened_run(run), stage, name, approved))
    classify_failure(lambda: steps.check_answered(result))
    if stage == "promote":
        tell_decision(run, result.fields)
    note(run, stage, result.fields, result.message)


@task.sensor(mode="reschedule", poke_interval=LOOK_AGAIN.total_seconds(), timeout=TASK_TIMEOUT.total_seconds() * 2)
def ready(run: Json) -> bool:
    """Wait until the scored day's rows have come or the hour has passed; no worker is held between two looks."""
    from tasks.runs.experiments import Run
    from tasks.runs.readiness import is_ready

    return classify_failure(lambda: is_ready(Run.from_json(run)))


@task.branch
def evaluate_gates(run: Json | None) -> list[str]:
    """Measure the new model at the gates, and choose the next task: `approve`, `promote`, or none where it fails.

    Where the run's parameter names who approves, nobody is asked, and promote itself measures.
    """
    from tasks.runs import steps
    from tasks.runs.gates.verdict import Verdict

    context = get_current_context()
    if context["params"]["approver"]:
        return ["promote"]
    result = classify_failure(lambda: steps.step(steps.opened_run(run), "promote"))
    tell_decision(run, result.fields)
    verdict = Verdict.from_json(result.fields)
    context["ti"].xcom_push(key="verdict", value=f"{verdict.page}\n\n{report_link(run)}")
    context["ti"].xcom_push(key="figures", value=verdict.figures and verdict.figures.called)
    return ["approve"] if verdict.decision == "needs approval" else []


def report_link(run: Json | None) -> str:
    """Return the link to the report of a training on the Products page, as Markdown."""
    from tasks.monitoring.status import page_name
    from tasks.runs.steps import opened_run

    opened = opened_run(run)
    page = page_name(opened.name, date.fromisoformat(opened.as_of))
    return f"[The report of this training](/lamplighter/products/{opened.product}/reports/{page})"


@task
def validate(run: Json | None) -> list[int]:
    """Do the stage validate of a night; return the numbers of the shards that its rows ask for."""
    from tasks.runs import steps

    return classify_failure(lambda: steps.validated_shards(steps.opened_run(run)))


@task.branch
def monitor(run: Json | None) -> list[str]:
    """Record the night, measure earlier ones, and choose what follows: `retrain` where the champion has become worse.

    What the nights say of the champion before, the command itself does.
    """
    from tasks.runs import steps

    observed = classify_failure(lambda: steps.step(steps.opened_run(run), "monitor")).fields
    return ["gc", RETRAIN] if observed.get("retrain") else ["gc"]


@task(map_index_template="shard {{ task.op_kwargs['number'] }}")
def predict(run: Json | None, number: int) -> Json:
    """Score one shard; return its part's name, rows, hash and key."""
    from tasks.runs import steps

    return classify_failure(lambda: steps.shard(steps.opened_run(run), number)).to_json()


@task
def collect(run: Json | None, parts: Iterable[Json | None] | None) -> None:
    """Verify every shard and make the night of them."""
    from tasks.publication.contracts import UploadedPart
    from tasks.runs import steps

    described = [UploadedPart.from_json(part) for part in parts or () if part is not None]
    classify_failure(lambda: steps.collect(steps.opened_run(run), described))


def empty_as_of(product: params.Product) -> str:
    """Return what a run is of that is given no as_of, for those who fill in the form."""
    last = product.last_as_of
    if last:
        return f"The data end on {product.source.ends}: give a date up to {last}. Empty: last night, which is refused."
    return f"Empty: last night, the day before the run's own day in {product.time_zone}, at whatever hour it runs."


def form(product: params.Product, kind: str) -> dict[str, Param]:
    """Return the parameters that a person may choose when triggering a run."""
    last = product.last_as_of
    fields = {
        "as_of": Param(
            last and last.isoformat(),  # of data that go on, last night: a date would make the DAG another one daily
            type=["null", "string"],
            format="date",
            title="as_of",
            description="The date up to which data is known, inclusive. "
            + empty_as_of(product)
            + " A backfill makes each of its own dates, whatever stands here." * (kind == "predict"),
        ),
        "force": Param(
            False, type="boolean", title="force", description="Run every stage even where nothing has changed."
        ),
    }
    if kind == "train":
        fields["approver"] = Param(
            None,
            type=["null", "string"],
            title="approver",
            description=(
                "The name of who lets the new model predict by starting this run, if it passes the gates; the registry "
                "records it. Empty: where gates.approval is human, the task `approve` asks."
            ),
        )
    else:
        fields["shards"] = Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=params.MAX_SHARDS,
            title="shards",
            description="The most part files of the night, each scored by a task of its own; its rows say how many. "
            "Empty: as params.yaml declares.",
        )
    return fields


def explanation(product: params.Product, kind: str) -> str:
    """Return the text that the UI shows about the DAG."""
    waits = "ready → " * bool(product.schedule.ready)
    flow = {
        "train": " → ".join([*TRAIN_STAGES, *APPROVAL_TASKS * needs_approval(product), "promote"]),
        "predict": waits + "ingest → validate → predict (sharded) → collect → publish → monitor → gc "
        "(and → retrain, which starts train__"
        + product.name
        + " where labels show that the champion has become worse)",
    }[kind]
    purpose = {
        "train": f"Retrain; the new model predicts when its {product.gates.metric} on held-out rows passes the gates.",
        "predict": f"Score the rows of as_of + {product.predict.lead_days} days with the champion; publish to "
        f"`{product.publish.url}/{product.name}/`.",
    }[kind]
    asks = "the task `approve` asks a person, for two days; silence rejects. Then " if needs_approval(product) else ""
    then = {
        "train": f"{asks}a model that is let through predicts from the next night on; one that is not stays as an "
        "experiment, and the champion goes on. A message tells of either, where one is declared.",
        "predict": "readers see the night when `publish` has ended, whole or not at all; `monitor` measures it when "
        "its labels have come. A task that fails changes nothing for them; its log says in one message what to do.",
    }[kind]
    return (
        f"**{product.description}**\n\n{purpose}\n\n{flow}\n\n**What happens next**: {then}\n\n{dates(product)}\n\n"
        "Every task restores the run's workspace from git and the DVC remote, does one stage with "
        "`dvc repro --single-item`, and saves it. The run stays as a DVC experiment: `dvc exp show -A`."
    )


def dates(product: params.Product) -> str:
    """Return which date a run is of, by how it was started."""
    last = product.last_as_of
    ends = f" **The data end on {product.source.ends}: give an as_of up to {last}.**" if last else ""
    return f"""**Which night a run is of**, as the first line of the log of `start` says. Days are those of
{product.time_zone}.{ends}

| the run | its as_of |
|---|---|
| was given an as_of | that |
| was due on the 2nd by its schedule, at 03:00 as at 18:00 | the 1st |
| was triggered on the 2nd by hand, an asset or another DAG, without an as_of | the 1st |
| was due last by its schedule when its DAG was unpaused, by its form too | as if it had run then; it goes first |
| has a logical date on the 2nd that somebody typed | the 1st |
| belongs to a backfill from the 2nd to the 8th | the 2nd to the 8th, where one is due on each day |
"""


def approval(product: params.Product) -> Any:
    """Return the task in which a person lets a model through: no worker waits for it, and silence rejects."""
    from dags.approval import ApproveFigures

    return ApproveFigures(
        task_id="approve",
        figures="{{ ti.xcom_pull(task_ids='evaluate_gates', key='figures') }}",
        subject=f"Shall this model predict {product.name} from now on?",
        body="{{ ti.xcom_pull(task_ids='evaluate_gates', key='verdict') }}",
        defaults=ApproveFigures.REJECT,
        response_timeout=APPROVAL_TIMEOUT,
    )


def retraining(product: params.Product) -> Any:
    """Return the task that starts a training of the night's as_of: one, however often it is tried."""
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator

    return TriggerDagRunOperator(
        task_id=RETRAIN,
        trigger_dag_id=f"train__{product.name}",
        trigger_run_id=f"decay__{NIGHT_OF_RUN}",
        conf={"as_of": NIGHT_OF_RUN},
        logical_date=None,  # a moment of the parse would change the DAG at each
        skip_when_already_exists=True,
        on_execute_callback=tell_paused_training,
    )


def declare(product: params.Product, kind: str, schedule: str | None) -> DAG:
    """Return one DAG of a product."""
    with DAG(
        dag_id=f"{kind}__{product.name}",
        description=product.description,
        doc_md=explanation(product, kind),
        schedule=schedule and NightTimetable(schedule, timezone=product.time_zone),
        start_date=datetime(2013, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        params=form(product, kind),
        tags=["lamplighter", product.name],
        render_template_as_native_obj=True,
        default_args={
            "retries": 3,  # the last try begins 7 to 14 minutes after the first has failed
            "retry_delay": timedelta(minutes=1),
            "retry_exponential_backoff": 2.0,
            "execution_timeout": TASK_TIMEOUT,
            "on_failure_callback": tell_failure,
        },
    ) as dag:
        run = start(product.name, kind, product.time_zone)
        names = TRAIN_STAGES if kind == "train" else ("ingest", "publish", "gc")
        options = {name: {"task_id": name, **of_stage(product.name, name), **pod_of(name)} for name in names}
        steps = {name: step.override(**options[name])(run, name) for name in names}
        if kind == "train" and needs_approval(product):
            # Where nobody is asked, `approve` is skipped, and promote runs all the same; a rejection skips promote.
            promote = step.override(
                task_id="promote", trigger_rule="none_failed_min_one_success", **of_stage(product.name, "promote")
            )
            promoted, gates = promote(run, "promote", ASKED, SHOWN), evaluate_gates(run)
            chain(run, *steps.values(), gates, approval(product), promoted)
            chain(gates, promoted)
        elif kind == "train":
            promote = step.override(task_id="promote", **of_stage(product.name, "promote"))
            chain(run, *steps.values(), promote(run, "promote", NAMED))
        else:
            scored_by = {"inlets": [asset(product.name, "model"), asset(product.name, "raw")]}
            numbers = validate.override(**scored_by)(run)
            night = collect(run, predict.partial(run=run).expand(number=numbers))
            waits = [ready(run)] if product.schedule.ready else []
            chain(run, *waits, steps["ingest"], numbers)
            observed = monitor(run)
            chain(night, steps["publish"], observed, steps["gc"])
            chain(observed, retraining(product))
    return dag


for _product in params.load(ROOT / params.PARAMS_FILE).products.values():
    for _kind, _schedule in (("train", _product.schedule.retrain), ("predict", _product.schedule.predict)):
        globals()[f"{_kind}__{_product.name}"] = declare(_product, _kind, _schedule)
