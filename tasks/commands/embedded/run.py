"""Train a product and publish one night of it, each by its DAG, in this terminal.

    make run PRODUCT=flight-delays AS_OF=2013-06-30

Both runs are made from the origin's last commit; changes that are not committed are named and left out. The object
store is started where none is given; no Airflow server is needed, since `airflow dags test` runs a DAG without one.
"""

import getpass
import json
import os
import subprocess
import sys
import time
from datetime import date

from tasks import params
from tasks.commands.embedded.daemons import running_pid
from tasks.commands.embedded.environment import ADDRESS, env_file, export_environment
from tasks.commands.embedded.servers import AIRFLOW
from tasks.commands.embedded.store import start_store
from tasks.commands.embedded.summary import summarise
from tasks.runs.experiments import experiments, head
from tasks.runs.steps import parse_as_of
from tasks.runtime.errors import UserError
from tasks.runtime.git import git
from tasks.runtime.settings import ROOT, settings


def run(product: str, as_of: date | None) -> None:
    """Run train__<product> and predict__<product> once, and print a summary of what came out."""
    params.load().product(product)
    _print_uncommitted()
    declared = head()[1]
    night = (as_of or declared.as_of).isoformat()
    parse_as_of(night)
    if as_of is None:
        print(f"as_of {night}, that of the committed params.yaml; AS_OF=YYYY-MM-DD makes another night", flush=True)
    credentials = None if ADDRESS in os.environ else env_file()
    env = export_environment()
    started = time.monotonic()
    print(f"object store: {start_store(env)}", flush=True)
    _print_scheduler()
    _airflow(env, "db", "migrate", quiet=True)
    names = {kind: _run_dag(env, product, kind, night) for kind in ("train", "predict")}
    summary = summarise(declared.product(product), night, names, credentials)
    print(f"\n{summary}\n\nin {time.monotonic() - started:.0f} s")


def _run_dag(env: dict[str, str], product: str, kind: str, as_of: str) -> str:
    """Run one DAG in this terminal and return its experiment. Raises UserError when it fails: the log has said why."""
    print(f"\n{kind}__{product}, as_of {as_of}", flush=True)
    before = {experiment.name for experiment in experiments(product)}
    # The tasks print what a person needs; Airflow's own log lines would bury it.
    quiet = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL", "PYTHONWARNINGS": "ignore"}
    conf = {"as_of": as_of}
    if kind == "train":
        # Whoever types `make run` is the human that gates.approval may ask for: nobody could answer a task of this run.
        conf["approver"] = f"{getpass.getuser()}, who ran it by hand,"
    _airflow(env | quiet, "dags", "test", f"{kind}__{product}", "--conf", json.dumps(conf))
    return next(e.name for e in experiments(product) if e.name not in before and e.kind == kind and e.as_of == as_of)


def _airflow(env: dict[str, str], *arguments: str, quiet: bool = False) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments], env=env, text=True, check=False, capture_output=quiet
    )
    if done.returncode:
        raise UserError(
            f"airflow {' '.join(arguments[:3])} failed"
            + (f":\n{done.stderr}" if quiet else "; the lines above say why")
        )


def _print_scheduler() -> None:
    """Say where the lines of those tasks are which the scheduler of `make up`, with the same database, picks up."""
    if running_pid(AIRFLOW) is not None:
        address = f"http://127.0.0.1:{settings().ui_port}"
        print(
            "note: the Airflow of make up runs too, and its scheduler may do some tasks of this run: the result is the "
            f"same, and what they print is at {address}; to see it all here, make down first",
            flush=True,
        )


def _print_uncommitted() -> None:
    changed = git("status", "--porcelain", cwd=ROOT).splitlines()
    if changed:
        print(
            f"note: a run is made from the last commit; {len(changed)} uncommitted changes are not part of it: "
            + ", ".join(line[3:] for line in changed[:5]),
            flush=True,
        )
