"""Hold the environment of the embedded servers and of every process that `make run` starts.

Credentials are made on first use and kept in .lamplighter/env (mode 600, not in git). With AWS_ENDPOINT_URL_S3 in the
environment, an object store elsewhere takes the embedded one's place: then all AWS_* and S3_BUCKET come from the
environment, and else none. The embedded Airflow reads no AIRFLOW* of the environment: they are for another one, such as
that of docker/.
"""

import base64
import json
import os
import secrets
from importlib.util import find_spec
from pathlib import Path

from tasks.commands.embedded.daemons import is_running
from tasks.runtime.errors import UserError
from tasks.runtime.settings import BIN, ROOT, settings, store_encryption, task_logs

STORE, AIRFLOW, EXECUTION, FORKS = "store", "airflow-standalone", "airflow-execution", "fork-server"
"""The names of the servers' logs and process id files."""
BUCKET = "lamplighter"
ADDRESS = "AWS_ENDPOINT_URL_S3"
"""The variable that names an object store in place of the embedded one."""
CONNECT = "tasks.commands.embedded.database.CONNECT"
"""By this name Airflow imports how its database is opened."""
CONFIGURATION = """\
# The embedded Airflow is configured by its environment: tasks/commands/embedded/environment.py.
# What you add here counts too, where the environment says nothing else. Name no path of this folder: it may be moved.
"""
"""Airflow's configuration file: without one Airflow writes its own, full of absolute paths of the place it is at."""


def environment() -> dict[str, str]:
    """Return the environment of every process; what is set already wins, but two stores' or Airflows' never mix."""
    settings().home.mkdir(parents=True, exist_ok=True)
    settings().home.chmod(0o700)  # Airflow, too, writes a password there
    _write_configuration(settings().home / "airflow" / "airflow.cfg")
    given = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    kept = kept_settings()
    if ADDRESS in given:
        kept = _without_store(kept)
    else:
        given = _without_store(given)
    # Airflow calls itself by name, and must be found whether or not somebody has activated .venv.
    places = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "LAMPLIGHTER_HOME": str(settings().home)}
    return {**kept, **airflow_settings(), **task_log_settings(), **given, **places}


def export_environment() -> dict[str, str]:
    """Make `environment()` the environment of this process as well, and return it."""
    env = environment()
    os.environ.clear()
    os.environ.update(env)
    return env


def env_file() -> Path:
    """Return the file with the embedded servers' credentials."""
    return settings().home / "env"


def kept_settings() -> dict[str, str]:
    """Return the variables of the credentials file; it is made on first use."""
    if not env_file().exists():
        _write_settings(_fresh_settings())
    kept = dict(line.split("=", 1) for line in env_file().read_text().splitlines() if "=" in line)
    if "LAMPLIGHTER_S3_PORT" in os.environ and kept[ADDRESS] != _store_address() and not is_running(STORE):
        kept[ADDRESS] = _store_address()  # the port that a person asks for, such as for a copy of this folder
        _write_settings(kept)
    return kept


def _write_settings(kept: dict[str, str]) -> None:
    write_secret(env_file(), "".join(f"{name}={value}\n" for name, value in kept.items()))


def _store_address() -> str:
    return f"http://127.0.0.1:{settings().s3_port}"


def write_secret(file: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = file.with_name(f".{file.name}.tmp-{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    temporary.rename(file)


def _write_configuration(file: Path) -> None:
    """Write Airflow's configuration unless it is there; one that Airflow has written itself is kept aside."""
    first_line = CONFIGURATION.partition("\n")[0]
    if file.exists():
        if file.read_text("utf-8").startswith(first_line):
            return
        file.rename(file.with_name("airflow.cfg.unused"))
    file.parent.mkdir(exist_ok=True)
    write_secret(file, CONFIGURATION)


def airflow_settings() -> dict[str, str]:
    """Return the settings of the embedded Airflow that are no secrets."""
    return {
        "AIRFLOW_HOME": str(settings().home / "airflow"),
        "AIRFLOW_CONFIG": str(settings().home / "airflow" / "airflow.cfg"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "dags" / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": CONNECT,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": CONNECT,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(settings().ui_port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{settings().ui_port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{execution_port()}/execution/",
        # A stage that takes every core may starve the heartbeat for minutes, and is not dead for that.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "900",
    }


def task_log_settings() -> dict[str, str]:
    """Return the settings by which Airflow keeps logs of tasks in the store; nothing unless LAMPLIGHTER_TASK_LOGS asks.

    Address and keys are those of the AWS_ variables. Raises UserError where the package for it is not installed.
    """
    address = task_logs()
    if address is None:
        return {}
    if find_spec("airflow.providers.amazon") is None:
        raise UserError(
            "LAMPLIGHTER_TASK_LOGS needs apache-airflow-providers-amazon, which is not installed; run .venv/bin/pip "
            "install --constraint constraints.txt '.[logs]', or unset it"
        )
    by_path = {"config_kwargs": {"s3": {"addressing_style": "path"}}}
    return {
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": address,
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "lamplighter_logs",
        "AIRFLOW__LOGGING__ENCRYPT_S3_LOGS": str("ServerSideEncryption" in store_encryption()),
        "AIRFLOW_CONN_LAMPLIGHTER_LOGS": json.dumps({"conn_type": "aws", "extra": by_path}),
    }


def execution_port() -> int:
    """Return the port of the API server that only the tasks of runs speak to."""
    return settings().ui_port + 1


def _fresh_settings() -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "S3_BUCKET": BUCKET,
        "AWS_DEFAULT_REGION": "us-east-1",
        ADDRESS: _store_address(),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
    }


def _without_store(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith(("AWS_", "S3_BUCKET"))}
