"""Train a product and publish one night of it, each by its DAG, in this terminal.

    make run PRODUCT=flight-delays AS_OF=2013-06-30

Both runs are made from the origin's last commit; what is not committed or pushed is named and left out. The object
store is started where none is given; no Airflow server is needed, since `airflow dags test` runs a DAG without one.
"""

import getpass
import json
import os
import re
import time
from collections.abc import Iterable
from datetime import date

from tasks.commands.embedded.airflow_process import AirflowProcess
from tasks.commands.embedded.daemons import running_pid
from tasks.commands.embedded.environment import ADDRESS, env_file, export_environment
from tasks.commands.embedded.revision import declared_product, print_uncommitted
from tasks.commands.embedded.servers import AIRFLOW
from tasks.commands.embedded.store import start_store
from tasks.commands.embedded.summary import summarise
from tasks.runs.experiments import experiments, head, run_name_pattern
from tasks.runs.programs import run_environment
from tasks.runs.steps import parse_as_of
from tasks.runtime.errors import UserError
from tasks.runtime.forks.forked import fork_server
from tasks.runtime.settings import settings


def run(product: str, as_of: date | None) -> None:
    """Run train__<product> and predict__<product> once, and print a summary of what came out."""
    described, declared = declared_product(product), head()[1]
    last = declared.product(product).last_as_of or declared.as_of
    night = (as_of or min(declared.as_of, last)).isoformat()
    parse_as_of(night)
    left_out = print_uncommitted()
    if as_of is None:
        origin = "that of the committed params.yaml" if last >= declared.as_of else "the last of its data"
        print(f"as_of {night}, {origin}; AS_OF=YYYY-MM-DD makes another night", flush=True)
    credentials = None if ADDRESS in os.environ else env_file()
    env = export_environment()
    started = time.monotonic()
    print(f"object store: {start_store(env)}", flush=True)
    _print_scheduler()
    # The tasks print what a person needs; Airflow's own log lines would bury it.
    quiet = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL", "PYTHONWARNINGS": "ignore"}
    with (
        fork_server(settings().home / f"fork-server-{os.getpid()}.socket", run_environment(env)) as forking,
        AirflowProcess(env | forking | quiet) as airflow,
    ):
        airflow.call("db", "migrate", quiet=True)
        names = {kind: _run_dag(airflow, product, kind, night) for kind in ("train", "predict")}
    summary = summarise(described, night, names, credentials)
    print("\n".join(["", summary, *left_out, "", f"in {time.monotonic() - started:.0f} s"]))


def _run_dag(airflow: AirflowProcess, product: str, kind: str, as_of: str) -> str:
    """Run one DAG in this terminal and return its experiment. Raises UserError when it fails: the log has said why."""
    print(f"\n{kind}__{product}, as_of {as_of}", flush=True)
    before = {experiment.name for experiment in experiments(product)}
    conf = {"as_of": as_of}
    if kind == "train":
        # Whoever types `make run` is the human that gates.approval may ask for: nobody could answer a task of this run.
        conf["approver"] = f"{getpass.getuser()}, who ran it by hand,"
    lines = airflow.call("dags", "test", f"{kind}__{product}", "--conf", json.dumps(conf))
    if name := named_run(lines, product, kind):
        return name
    # Where the scheduler of `make up` did the tasks, their lines are in its log.
    new = [each.name for each in experiments(product) if (each.kind, each.as_of) == (kind, as_of)]
    new = [name for name in new if name not in before]
    if len(new) != 1:
        raise UserError(
            f"{kind}__{product} of {as_of} is done, and which run it was cannot be told (new: "
            f"{', '.join(new) or 'none'}); Airflow's page of the run names it"
        )
    return new[0]


def named_run(lines: Iterable[str], product: str, kind: str) -> str | None:
    """Return the run that the lines of a DAG's own tasks name: another one may be made at the same time."""
    name = re.compile(rf"(?<![\w-]){run_name_pattern(product)}(?=: as_of | ▸ )")
    found = (match for line in lines for match in name.finditer(line) if match[2] == kind)
    return next((match[0] for match in found), None)


def _print_scheduler() -> None:
    """Say where the lines of those tasks are which the scheduler of `make up`, with the same database, picks up."""
    if running_pid(AIRFLOW) is not None:
        address = f"http://127.0.0.1:{settings().ui_port}"
        print(
            "note: the Airflow of make up runs too, and its scheduler may do some tasks of this run: the result is the "
            f"same, and what they print is at {address}; to see it all here, make down first",
            flush=True,
        )
