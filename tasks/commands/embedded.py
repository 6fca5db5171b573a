"""The embedded default: an S3 server and Airflow on loopback, each with credentials made on first use.

    python -m tasks.commands.embedded run flight-delays --as-of 2013-06-30    train and predict once, through Airflow
    python -m tasks.commands.embedded up | down                               the servers alone

Everything that is kept lies in .lamplighter/: env_file and credentials in `env` (mode 600, not in git), the
object store's data, Airflow's database, the workspaces of runs. With AWS_ENDPOINT_URL_S3 in the environment, a
store of your own takes the embedded one's place: then all AWS_* and S3_BUCKET come from there, and else none. This
Airflow is always its own: AIRFLOW* of the environment are for another one, such as that of docker/, and are not read.
"""

import argparse
import base64
import fcntl
import getpass
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from tasks import params, stage
from tasks.publication.object_store import not_an_address
from tasks.runs.experiments import experiments, head
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.git import git
from tasks.runtime.settings import BIN, ROOT, settings

BUCKET = "lamplighter"
ADDRESS = "AWS_ENDPOINT_URL_S3"
"""Whoever sets it has a store of their own."""


def environment() -> dict[str, str]:
    """The environment of every process; what is set already wins, but keys of two stores or Airflows never mix."""
    settings().home.mkdir(parents=True, exist_ok=True)
    settings().home.chmod(0o700)  # Airflow, too, writes a password there
    given = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    kept = _kept_settings()
    if ADDRESS in given:
        kept = _without_store(kept)
    else:
        given = _without_store(given)
    # Airflow calls itself by name, and finds itself there whether or not somebody has activated .venv.
    ours = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "LAMPLIGHTER_HOME": str(settings().home)}
    return {**kept, **_airflow_settings(), **given, **ours}


def export_environment() -> dict[str, str]:
    """Make it the environment of this process as well."""
    env = environment()
    os.environ.clear()
    os.environ.update(env)
    return env


def start_store(env: dict[str, str]) -> str:
    """Start SeaweedFS on loopback unless it runs, and wait until it answers; returns its address.

    Raises PassingError when it does not come up, UserError when another program holds its port.
    """
    if store_is_ready(env):
        return env[ADDRESS]
    if any(env.get(name) != value for name, value in _kept_settings().items() if name.startswith("AWS_")):
        raise UserError(
            f"the object store at {env[ADDRESS]} must answer the credentials of the environment "
            f"and hold the bucket {env.get('S3_BUCKET', BUCKET)}, and does not; check AWS_* and S3_BUCKET"
        )
    port = int(env[ADDRESS].rpartition(":")[2])
    if _answers(port) and _running("store") is None:
        raise UserError(
            f"port {port} must be free for the object store, and another program holds it; stop that, or set "
            f"LAMPLIGHTER_S3_PORT and delete {settings().home / 'env'}"
        )
    data = settings().home / "store"
    data.mkdir(parents=True, exist_ok=True)
    if not (settings().home / "security.toml").exists():
        # Without keys of their own, the ports behind the S3 gateway would give every object to anyone on this machine.
        doors = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
        _write_secret(
            settings().home / "security.toml", "".join(f'[{door}]\nkey = "{secrets.token_hex(20)}"\n' for door in doors)
        )
    start_daemon(
        "store",
        env,
        [
            str(BIN / "weed"),
            "mini",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={port}",
            f"-master.port={port + 1}",
            f"-filer.port={port + 2}",
            f"-volume.port={port + 3}",
            f"-admin.port={port + 4}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-admin.ui=false",
            "-webdav=false",
            "-master.telemetry=false",
        ],
    )
    _wait(lambda: store_is_ready(env), 60, f"the object store did not come up; see {settings().home / 'store.log'}")
    return env[ADDRESS]


def up() -> None:
    """Start the store and Airflow, and say where they are."""
    env = environment()
    print(
        f"object store: {start_store(env)} (bucket {BUCKET}; credentials in {_shown(settings().home / 'env')})",
        flush=True,
    )
    address = f"http://127.0.0.1:{settings().ui_port}"
    generated = settings().home / "airflow" / "simple_auth_manager_passwords.json.generated"
    if _answers(settings().ui_port) and _running("airflow-standalone") is None:
        raise UserError(
            f"port {settings().ui_port} must be free for Airflow, and another program holds it; "
            "stop that, or set LAMPLIGHTER_UI_PORT"
        )
    if not _answers(settings().ui_port):
        print("Airflow: starting, about half a minute", flush=True)
        start_daemon("airflow-standalone", env, [str(BIN / "airflow"), "standalone"])
        _wait(
            lambda: _healthy(address), 180, f"Airflow did not come up; see {settings().home / 'airflow-standalone.log'}"
        )
    passwords = json.loads(generated.read_text())
    print("\n".join(f"Airflow: {address}  user {user}  password {password}" for user, password in passwords.items()))
    print("Unpause a DAG to let its schedule run it, or trigger it with an as_of. Stop everything: make down")


def down() -> None:
    """Stop what `up` and `run` started."""
    for name in ("airflow-standalone", "store"):
        pid = _running(name)
        if pid is not None:
            _stop(pid)
            print(f"{name}: stopped")
        (settings().home / f"{name}.pid").unlink(missing_ok=True)


def run(product: str, as_of: str | None) -> None:
    """Train and predict once, each by its DAG, and say what came out."""
    from tasks.commands.summary import summary
    from tasks.runs.steps import parse_as_of

    params.load().product(product)
    _tell_uncommitted()
    declared = head()[1]
    as_of = as_of or declared.as_of.isoformat()
    parse_as_of(as_of)
    env_file = None if ADDRESS in os.environ else settings().home / "env"
    env = export_environment()
    started = time.monotonic()
    print(f"object store: {start_store(env)}", flush=True)
    _airflow(env, "db", "migrate", quiet=True)
    names = {kind: _dag(env, product, kind, as_of) for kind in ("train", "predict")}
    told = summary(declared.product(product), as_of, names, env_file)
    print(f"\n{told}\n\nin {time.monotonic() - started:.0f} s")


def _dag(env: dict[str, str], product: str, kind: str, as_of: str) -> str:
    """Run one DAG in this terminal, and return its experiment. Raises UserError when it fails: its output said why."""
    print(f"\n{kind}__{product}, as_of {as_of}", flush=True)
    before = {experiment.name for experiment in experiments(product)}
    # Our tasks print what a person needs; Airflow's own log lines would bury it.
    calm = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL", "PYTHONWARNINGS": "ignore"}
    # Whoever types `make run` is the human that gates.approval may ask for: nobody could answer a task here.
    calm["LAMPLIGHTER_APPROVER"] = f"{getpass.getuser()}, who ran it by hand,"
    _airflow(env | calm, "dags", "test", f"{kind}__{product}", "--conf", json.dumps({"as_of": as_of}))
    return next(e.name for e in experiments(product) if e.name not in before and e.kind == kind and e.as_of == as_of)


def _airflow(env: dict[str, str], *arguments: str, quiet: bool = False) -> None:
    answer = subprocess.run([BIN / "airflow", *arguments], env=env, text=True, check=False, capture_output=quiet)
    if answer.returncode:
        raise UserError(
            f"airflow {' '.join(arguments[:3])} failed"
            + (f":\n{answer.stderr}" if quiet else "; the lines above say why")
        )


def _kept_settings() -> dict[str, str]:
    """What `.lamplighter/env` holds; made on first use."""
    file = settings().home / "env"
    if not file.exists():
        _write_secret(file, "".join(f"{name}={value}\n" for name, value in _fresh_settings().items()))
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)


def _without_store(env_file: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env_file.items() if not name.startswith(("AWS_", "S3_BUCKET"))}


def _fresh_settings() -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "S3_BUCKET": BUCKET,
        "AWS_DEFAULT_REGION": "us-east-1",
        ADDRESS: f"http://127.0.0.1:{settings().s3_port}",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
    }


def _write_secret(file: Path, text: str) -> None:
    """A file that only its owner may read, there whole or not at all."""
    aside = file.with_name(f".{file.name}.tmp-{os.getpid()}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    aside.rename(file)


def _airflow_settings() -> dict[str, str]:
    return {
        "AIRFLOW_HOME": str(settings().home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(settings().ui_port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{settings().ui_port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{settings().ui_port}/execution/",
        # A stage that takes every core may starve the heartbeat for minutes, and is not dead for that.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "900",
    }


def store_is_ready(env: dict[str, str]) -> bool:
    """Whether a store answers that takes our credentials and holds our bucket."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(
        connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}
    )
    try:
        client = boto3.client(
            "s3",
            endpoint_url=env[ADDRESS],
            aws_access_key_id=env.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=env.get("AWS_SECRET_ACCESS_KEY"),
            aws_session_token=env.get("AWS_SESSION_TOKEN"),
            region_name=env.get("AWS_DEFAULT_REGION", "us-east-1"),
            config=config,
        )
    except ValueError as error:
        raise not_an_address(error) from None
    try:
        client.head_bucket(Bucket=env.get("S3_BUCKET", BUCKET))
        return True
    except (BotoCoreError, ClientError):
        return False


def start_daemon(name: str, env: dict[str, str], command: list[str]) -> None:
    """Start a server that outlives us, unless it runs: with a log, and its process id in a file it keeps locked."""
    with (settings().home / f"{name}.log").open("ab") as log, (settings().home / f"{name}.pid").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        file.truncate(0)
        process = subprocess.Popen(
            command,
            env=env,
            cwd=settings().home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[file.fileno()],
        )
        file.write(str(process.pid))


def _running(name: str) -> int | None:
    """The process id of a server that has not ended: the number in the file may be another program's by now."""
    with suppress(FileNotFoundError), (settings().home / f"{name}.pid").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            told = file.read()
            return int(told) if told else None  # it is being started
    return None


def _stop(pid: int) -> None:
    """End a detached server and its children; kill what has not ended after ten seconds."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, sign)
        except ProcessLookupError:
            return
        for _ in range(100):
            try:
                os.killpg(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)


def _wait(ready: object, seconds: int, failure: str) -> None:
    assert callable(ready)
    for _ in range(seconds * 2):
        if ready():
            return
        time.sleep(0.5)
    raise TransientError(f"{failure} (waited {seconds} s)")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=5) as answer:
            health = json.load(answer)
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))
    except (OSError, ValueError, KeyError):
        return False


def _tell_uncommitted() -> None:
    changed = git("status", "--porcelain", cwd=ROOT).splitlines()
    if changed:
        print(
            f"note: a run is made from the last commit; {len(changed)} uncommitted changes are not part of it: "
            + ", ".join(line[3:] for line in changed[:5]),
            flush=True,
        )


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.commands.embedded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, does in (("up", up), ("down", down)):
        verbs.add_parser(name, help=does.__doc__)
    once = verbs.add_parser("run", help=run.__doc__)
    once.add_argument("product")
    once.add_argument("--as-of", help="YYYY-MM-DD; default: as_of of params.yaml")
    given = parser.parse_args()
    if given.verb == "run":
        return stage.exit_code_of("run", lambda: run(given.product, given.as_of))
    return stage.exit_code_of(given.verb, up if given.verb == "up" else down)


if __name__ == "__main__":
    sys.exit(main())
