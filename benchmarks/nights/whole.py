"""Seconds of whole nights: from the command or the trigger to the manifest, with the embedded store and Airflow.

A clone of the repository declares the orders, with a network that trains in seconds; one model is trained and promoted
by `make run`. Then one night, and thirty more, are made by `make backfill`, and one by Airflow's scheduler, triggered
through its API. Everything runs below one folder, on ports of its own.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.nights import orders

HISTORY_DAYS, ROWS_A_DAY, BACKFILLED = 100, 200, 30
WAIT_SECONDS = 900
SECONDS_BETWEEN_LOOKS = 0.2
NETWORK = {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_feedforward": 16}
MODEL = {"preset": "small", "init": "scratch", "network": NETWORK, "train": {"epochs": 1.0}}
GATES = {"metric": "auc", "limit": 0.0, "max_behind_baseline": 1.0, "max_behind_champion": 1.0}


@dataclass(frozen=True, kw_only=True)
class WholeNights:
    """What whole nights took, in seconds."""

    one: float
    """`make backfill` of one night, from its start to its end."""
    backfill: float
    """`make backfill` of thirty nights."""
    scheduler: float
    """From the trigger to the end of the task that publishes, by Airflow's own times."""
    tasks: dict[str, float] = field(default_factory=dict)
    """The night through the scheduler: seconds of each task, and between them."""


def measure(tree: Path, folder: Path) -> WholeNights:
    """Make the nights in a clone of `tree`'s last commit, in `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    project = _project(tree, folder)
    env = _environment(folder)
    command = [sys.executable, "-m", "tasks.commands"]
    night = orders.as_of_night
    try:
        _call([*command, "run", orders.PRODUCT, "--as-of", night(0).isoformat()], project, env)
        one = _backfill(project, env, night(1), night(1))
        many = _backfill(project, env, night(2), night(1 + BACKFILLED))
        _call([*command, "up"], project, env)
        scheduler, tasks = _through_scheduler(folder, env, night(2 + BACKFILLED))
    finally:
        _call([*command, "down"], project, env)
    return WholeNights(one=one, backfill=many, scheduler=scheduler, tasks=tasks)


def _project(tree: Path, folder: Path) -> Path:
    """Clone the repository, and commit the product there; its source lies beside it, complete for all nights."""
    project = folder / "project"
    orders.write_orders(folder, HISTORY_DAYS, BACKFILLED + 5, ROWS_A_DAY)
    source = {**orders.ENTRY["source"], "url": str(folder / orders.FILE)}
    entry = {**orders.ENTRY, "source": source, "model": MODEL, "gates": GATES}
    content = {"as_of": orders.as_of_night(0).isoformat(), "products": {orders.PRODUCT: entry}}
    _call(["git", "clone", "--quiet", str(tree), str(project)], folder, dict(os.environ))
    (project / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    for name, value in (("user.name", "Bench"), ("user.email", "bench@localhost")):
        _call(["git", "config", name, value], project, dict(os.environ))
    _call(["git", "commit", "--quiet", "-am", "The orders"], project, dict(os.environ))
    return project


def _environment(folder: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LAMPLIGHTER_", "AIRFLOW", "AWS_", "PYTHONPATH"))
    }
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LAMPLIGHTER_HOME": str(folder / "home"),
        "LAMPLIGHTER_S3_PORT": str(_free_ports()),
        "LAMPLIGHTER_UI_PORT": str(_free_ports()),
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "false",
    }


def _free_ports(first: int = 21_000) -> int:
    """Return the first of six free ports, with room for those that the store takes 10,000 above."""
    for port in range(first + os.getpid() % 800 * 7, 30_000, 11):
        if not any(_is_taken(port + more + i) for more in (0, 10_000) for i in range(6)):
            return port
    raise RuntimeError("no free ports")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _backfill(project: Path, env: dict[str, str], first: date, last: date) -> float:
    command = [sys.executable, "-m", "tasks.commands", "backfill", orders.PRODUCT]
    started = time.monotonic()
    _call([*command, "--from", first.isoformat(), "--to", last.isoformat()], project, env)
    return time.monotonic() - started


def _through_scheduler(folder: Path, env: dict[str, str], as_of: date) -> tuple[float, dict[str, float]]:
    """Trigger a night through the API; return its seconds up to the end of `publish`, and those of its tasks."""
    passwords = json.loads((folder / "home/airflow/simple_auth_manager_passwords.json.generated").read_text())
    api = f"http://127.0.0.1:{env['LAMPLIGHTER_UI_PORT']}"
    login = {"username": "admin", "password": passwords["admin"]}
    token = _request(f"{api}/auth/token", login)["access_token"]
    dag = f"{api}/api/v2/dags/predict__{orders.PRODUCT}"
    deadline = time.monotonic() + WAIT_SECONDS
    while True:  # the DAG processor may not have seen the file yet
        try:
            _request(dag, {"is_paused": False}, token, "PATCH")
            break
        except urllib.error.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    run = _request(f"{dag}/dagRuns", {"logical_date": None, "conf": {"as_of": as_of.isoformat()}}, token)
    place = f"{dag}/dagRuns/{run['dag_run_id']}"
    for _ in _looks():
        state = _request(place, token=token)["state"]
        if state in ("success", "failed"):
            break
    if state != "success":
        raise RuntimeError(f"the night of {as_of} through the scheduler {state}; see {folder}/home/airflow/logs")
    found = _request(f"{place}/taskInstances", token=token)["task_instances"]
    return seconds_of_tasks(_moment(run["queued_at"]), found)


def seconds_of_tasks(queued: float, tasks: list[dict[str, Any]]) -> tuple[float, dict[str, float]]:
    """Return the seconds from the trigger to the end of `publish`, and those of each task until then, and of none.

    >>> at = "2026-01-01T00:00:{}+00:00".format
    >>> tasks = [{"task_id": name, "map_index": -1, "start_date": at(first), "end_date": at(last)}
    ...          for name, first, last in (("a", "02", "05"), ("b", "04", "06"), ("publish", "08", "09"))]
    >>> seconds_of_tasks(_moment(at("00")), tasks)
    (9.0, {'a': 3.0, 'b': 2.0, 'publish': 1.0, 'no task': 4.0})
    """
    spans = [(_moment(each["start_date"]), _moment(each["end_date"]), each) for each in tasks if each["end_date"]]
    end = next(last for _, last, each in spans if each["task_id"].rpartition(".")[2] == "publish")
    seconds: dict[str, float] = {}
    covered, until = 0.0, queued
    for first, last, each in sorted(spans, key=lambda span: span[:2]):
        if last <= end:
            number = "" if each["map_index"] < 0 else f" {each['map_index']}"
            seconds[each["task_id"] + number] = last - first
            covered += max(last, until) - max(first, until)
            until = max(last, until)
    return end - queued, {**seconds, "no task": end - queued - covered}


def _looks() -> Iterator[None]:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        yield
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _request(url: str, content: dict[str, Any] | None = None, token: str = "", method: str | None = None) -> Any:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    body = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=60) as answer:
        return json.load(answer)


def _call(command: list[str], cwd: Path, env: dict[str, str]) -> None:
    """Run a command; show what it printed where it fails."""
    print(" ".join(command[-6:]), flush=True)
    done = subprocess.run(command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"{command} exited with {done.returncode}:\n{done.stdout[-6000:]}")
