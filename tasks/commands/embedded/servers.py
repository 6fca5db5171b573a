"""Start and stop the embedded default: an S3 server and Airflow, both on loopback with credentials of their own.

    python -m tasks.commands up | down

The object store's data, Airflow's database, logs and the workspaces of runs lie in .lamplighter/; the environment that
the servers run in is that of `tasks.commands.embedded.environment`.
"""

import json
import os
import sys
import urllib.request

from tasks.commands.embedded.daemons import (
    port_answers,
    running_pid,
    start_daemon,
    stop_daemon,
    stop_where_moved,
    wait_until,
)
from tasks.commands.embedded.environment import AIRFLOW, BUCKET, STORE, env_file, environment
from tasks.commands.embedded.store import start_store
from tasks.runtime.errors import UserError
from tasks.runtime.settings import settings


def up() -> None:
    """Start the object store and Airflow on loopback; print address, user and password."""
    env = environment()
    print(
        f"object store: {start_store(env)} (bucket {BUCKET}; credentials in {os.path.relpath(env_file())})", flush=True
    )
    stop_where_moved(AIRFLOW)
    port = settings().ui_port
    address = f"http://127.0.0.1:{port}"
    if port_answers(port) and running_pid(AIRFLOW) is None:
        raise UserError(
            f"port {port} must be free for Airflow, and another program holds it; stop that, or set LAMPLIGHTER_UI_PORT"
        )
    if not port_answers(port):
        print("Airflow: starting, about half a minute", flush=True)
        start_daemon(AIRFLOW, env, [sys.executable, "-m", "airflow", "standalone"])
        log = settings().home / f"{AIRFLOW}.log"
        wait_until(lambda: _airflow_is_healthy(address), 180, f"Airflow did not come up; see {log}")
    generated = settings().home / "airflow" / "simple_auth_manager_passwords.json.generated"
    passwords = json.loads(generated.read_text())
    print("\n".join(f"Airflow: {address}  user {user}  password {password}" for user, password in passwords.items()))
    print("Unpause a DAG to let its schedule run it, or trigger it with an as_of. Stop everything: make down")


def down() -> None:
    """Stop the servers that `up` and `run` started."""
    for name in (AIRFLOW, STORE):
        if stop_daemon(name):
            print(f"{name}: stopped")


def _airflow_is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=5) as response:
            health = json.load(response)
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))
    except (OSError, ValueError, KeyError):
        return False
