"""Tell people what becomes of a run: it has stopped, a model was rejected, the champion changed, an approval waits.

By callbacks of the tasks, in the task's own process: a night that goes well pays nothing for them. None of them raises
or changes how its task ends. A task whose process was killed is told by Airflow's DAG processor, and a night that never
ran by `tasks.watch`.
"""

from typing import Any

from airflow.sdk import Context, get_current_context
from airflow.sdk.exceptions import AirflowFailException

from tasks import params
from tasks.runtime.errors import TransientError
from tasks.runtime.settings import ROOT

WORK = {"train": "training", "predict": "night"}


class UnknownFailure(AirflowFailException):
    """A failure that the project has no words for: its text may hold values of the data, and is for the log alone."""


def tell_failure(context: Context) -> None:
    """Tell that the run has stopped, with the reason; once for a run, and for a backfill, however many tasks fail."""
    error = context.get("exception")
    known = isinstance(error, AirflowFailException | TransientError) and not isinstance(error, UnknownFailure)
    failed = context["ti"].task_id
    ended = f"with {type(error).__name__}" if error else "without a word"
    reason = str(error) if known else f"{failed} ended {ended}; its log says more"
    _tell_stopped(context, reason)


def tell_rejection(context: Context, person: str | None) -> None:
    """Tell that a person has rejected the model, or that nobody has answered in time."""
    _tell_stopped(context, f"{person} has rejected the model" if person else "nobody has let the model through in time")


def tell_decision(run: Any, fields: Any) -> None:
    """Tell what promote has decided, where that is one of the four messages; `fields` are those of its result."""
    from tasks.monitoring.messages.outbox import tell
    from tasks.monitoring.messages.wording import of_decision

    try:
        product = params.load(ROOT / params.PARAMS_FILE).product(run["product"])
        link = link_of(get_current_context())
        message = of_decision(product, fields["decision"], fields["line"], run["as_of"], run["name"], link)
        if message:
            tell(product, message)
    except Exception as error:
        print(f"no message could be made of the decision: {type(error).__name__}", flush=True)


def tell_paused_training(context: Context) -> None:
    """Tell that a training that the nights ask for will not begin, since its DAG is paused; once for each date."""
    from tasks.monitoring.messages.outbox import tell
    from tasks.monitoring.messages.wording import stopped

    try:
        operator = context["ti"].task
        if not context["ti"].get_dag(operator.trigger_dag_id).is_paused:
            return
        product = params.load(ROOT / params.PARAMS_FILE).product(operator.trigger_dag_id.partition("__")[2])
        reason = (
            f"labels show that the champion has become worse, and {operator.trigger_dag_id} is paused: the run "
            f"{operator.trigger_run_id} waits until it is unpaused in Airflow, or deleted there"
        )
        work = f"the training of {operator.conf['as_of']}"
        tell(product, stopped(product, work, f"train {operator.trigger_run_id}", reason, link_of(context)))
    except Exception as error:
        print(f"no message could be made of the paused DAG: {type(error).__name__}", flush=True)


def tell_rollback(product: str, line: str, person: str, reason: str) -> None:
    """Tell that a person has made another version the champion by a run of Airflow's; once for the run."""
    from tasks.monitoring.messages.outbox import tell
    from tasks.monitoring.messages.wording import champion_changed

    try:
        context = get_current_context()
        about, text = f"rollback {context['dag_run'].run_id}", f"{line}. {person} has decided so: {reason}"
        declared = params.load(ROOT / params.PARAMS_FILE).product(product)
        tell(declared, champion_changed(declared, about, text, link_of(context)))
    except Exception as error:
        print(f"no message could be made of the rollback: {type(error).__name__}", flush=True)


def link_of(context: Context) -> str | None:
    """Return the address of the task's page."""
    link = getattr(context["ti"], "log_url", None)
    return str(link) if link else None


def _tell_stopped(context: Context, reason: str) -> None:
    from tasks.monitoring.messages.outbox import tell
    from tasks.monitoring.messages.wording import stopped
    from tasks.runs.dates import backfill_of, run_date

    try:
        dag_run = context["dag_run"]
        kind, _, name = dag_run.dag_id.partition("__")
        product = params.load(ROOT / params.PARAMS_FILE).product(name)
        as_of = run_date(dag_run, product.time_zone).as_of
        backfill = backfill_of(dag_run.conf, dag_run)
        # A run that a person has cleared may stop anew; a backfill itself clears the runs of dates that have failed.
        anew = f", cleared {dag_run.clear_number} times" if getattr(dag_run, "clear_number", 0) else ""
        about = f"backfill {backfill.number}" if backfill else f"{kind} {dag_run.run_id}{anew}"
        work = f"the {WORK[kind]} of {as_of}"
        tell(product, stopped(product, work, about, reason, link_of(context)))
    except Exception as error:
        print(f"no message could be made of the failure: {type(error).__name__}", flush=True)
