"""Start and stop the embedded default: an S3 server and Airflow, both on loopback with credentials of their own.

    python -m tasks.commands up | down

The object store's data, Airflow's database, logs and the workspaces of runs lie in .lamplighter/; the environment that
the servers run in is that of `tasks.commands.embedded.environment`.
"""

import json
import os
import sys
import urllib.request
from collections.abc import Callable

from tasks.commands.embedded.daemons import (
    is_running,
    port_answers,
    start_daemon,
    stop_daemon,
    stop_where_moved,
    wait_until,
)
from tasks.commands.embedded.environment import (
    AIRFLOW,
    BUCKET,
    EXECUTION,
    FORKS,
    STORE,
    env_file,
    environment,
    execution_port,
)
from tasks.commands.embedded.store import start_store
from tasks.runs.programs import run_environment
from tasks.runtime.errors import UserError
from tasks.runtime.forks.forked import ADDRESS, server_command
from tasks.runtime.settings import settings

START_SECONDS = 600
"""How long Airflow may take on a machine that is at work: half a started one would fail every task."""


def up() -> None:
    """Start the object store and Airflow on loopback; print address, user and password."""
    env = environment()
    print(
        f"object store: {start_store(env)} (bucket {BUCKET}; credentials in {os.path.relpath(env_file())})", flush=True
    )
    address = f"http://127.0.0.1:{settings().ui_port}"
    ports = {AIRFLOW: settings().ui_port, EXECUTION: execution_port()}
    for name, port in ports.items():
        stop_where_moved(name)
        if port_answers(port) and not is_running(name):
            raise UserError(
                f"ports {settings().ui_port} and {execution_port()} must be free for Airflow, and another program "
                f"holds {port}; stop that, or set LAMPLIGHTER_UI_PORT to the first of two free ports"
            )
    if not all(map(port_answers, ports.values())):
        print("Airflow: starting, about half a minute", flush=True)
    env |= {ADDRESS: start_fork_server(env)}
    start_server(AIRFLOW, env, ["standalone"], lambda: _airflow_is_healthy(address))
    # The tasks of runs have a server of their own, which needs the database that the first has made. Both in one would
    # stand still: its one event loop may wait for a turn to write that a request of a task holds.
    execution = ["api-server", "--apps", "execution", "--host", "127.0.0.1", "--port", str(execution_port())]
    start_server(EXECUTION, env, execution, lambda: port_answers(execution_port()))
    generated = settings().home / "airflow" / "simple_auth_manager_passwords.json.generated"
    passwords = json.loads(generated.read_text())
    print("\n".join(f"Airflow: {address}  user {user}  password {password}" for user, password in passwords.items()))
    print("Unpause a DAG to let its schedule run it, or trigger it with an as_of. Stop everything: make down")


def start_fork_server(env: dict[str, str]) -> str:
    """Start the server from which the tasks of runs fork their programs, unless it runs; return its address."""
    place = settings().home / f"{FORKS}.socket"
    stop_where_moved(FORKS)
    start_daemon(FORKS, run_environment(env), server_command(place))
    return str(place)


def start_server(name: str, env: dict[str, str], arguments: list[str], is_healthy: Callable[[], bool]) -> None:
    """Start a server of Airflow's unless it runs, and wait until it is well. Raises TransientError."""
    if is_healthy():
        return
    start_daemon(name, env, [sys.executable, "-m", "airflow", *arguments])
    log = settings().home / f"{name}.log"
    wait_until(is_healthy, START_SECONDS, f"Airflow did not come up; see {log}")


def down() -> None:
    """Stop the servers that `up` and `run` started."""
    for name in (AIRFLOW, EXECUTION, FORKS, STORE):
        if stop_daemon(name):
            print(f"{name}: stopped")


def _airflow_is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=5) as response:
            health = json.load(response)
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))
    except (OSError, ValueError, KeyError):
        return False
