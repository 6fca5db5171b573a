"""Declare `rollback`: go back to another version of a product's model by hand, as `make rollback` does.

It takes effect for the next night, and the version that it replaces is withdrawn: no training brings it back. The
registry keeps who started it, and why, and the message "champion changed" tells it.
"""

from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, Param, get_current_context, task

from dags.failures import classify_failure
from dags.messages import tell_rollback
from tasks import params

ROOT = Path(__file__).resolve().parent.parent
PRODUCTS = sorted(params.load(ROOT / params.PARAMS_FILE).products)


@task
def roll_back() -> str:
    """Assign the version of the run's parameters, and bring the champion's mirror beside the predictions up to date."""
    from tasks.runs.steps import roll_back

    context = get_current_context()
    given, user = context["params"], context["dag_run"].triggering_user_name or "somebody in Airflow"
    product, reason = given["product"], given["reason"]
    line = classify_failure(lambda: roll_back(product, given["version"], reason, user))
    print(line, flush=True)
    tell_rollback(product, line, user, reason)
    return line


with DAG(
    dag_id="rollback",
    description="Go back to another version of a product's model",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={
        "product": Param(PRODUCTS[0], type="string", enum=PRODUCTS, title="product"),
        "version": Param(
            "", type="string", pattern=r"^v\d+\.\d+\.\d+$", title="version", description="Such as v1.2.0."
        ),
        "reason": Param("", type="string", minLength=3, title="reason", description="Why: the registry keeps it."),
    },
    tags=["lamplighter"],
    default_args={"retries": 2},
) as dag:
    roll_back()
