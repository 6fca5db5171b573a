"""Start the embedded object store: SeaweedFS on loopback, with credentials of its own."""

import os
import secrets
import time
from urllib.request import urlopen

from tasks.commands.embedded.daemons import is_running, port_answers, start_daemon, stop_where_moved, wait_until
from tasks.commands.embedded.environment import (
    ADDRESS,
    BUCKET,
    STORE,
    export_environment,
    kept_settings,
    write_secret,
)
from tasks.publication.store_answers import BEFORE_ALL, NoAnswer, check_answer, store_errors
from tasks.publication.store_client import not_an_address
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.settings import BIN, settings

COMPACTIONS = 3


def enter_with_store() -> dict[str, str]:
    """Enter the embedded servers' environment, start the object store where no other is given; return the environment.

    Raises UserError and TransientError as `start_store` does.
    """
    is_embedded = ADDRESS not in os.environ
    env = export_environment()
    if is_embedded:
        start_store(env)
    return env


def start_store(env: dict[str, str]) -> str:
    """Start SeaweedFS on loopback unless it runs, wait until it answers, and return its address.

    Raises TransientError when it does not come up, UserError when another program holds its port; for a store that the
    environment names, what that one answered.
    """
    is_embedded = all(env.get(name) == value for name, value in kept_settings().items() if name.startswith("AWS_"))
    if is_embedded:
        stop_where_moved(STORE)
    refused = refusal(env)
    # A copy of this folder has the same keys and port: the store that answers must be this folder's own.
    if refused is None and (is_running(STORE) or not is_embedded):
        return env[ADDRESS]
    if refused is not None and not is_embedded:
        if isinstance(refused, NoAnswer):  # as likely a wrong address as a store that is down
            raise UserError(f"{refused}; start that store, or correct {ADDRESS}")
        raise refused
    port = int(env[ADDRESS].rpartition(":")[2])
    if port_answers(port) and not is_running(STORE):
        raise UserError(
            f"port {port} must be free for this folder's object store, and another program holds it (another clone's "
            "store, perhaps); stop that, or set LAMPLIGHTER_S3_PORT to the first of five free ports"
        )
    _write_store_keys()
    start_daemon(STORE, env, _store_command(port))
    log = settings().home / f"{STORE}.log"
    wait_until(lambda: refusal(env) is None, 60, f"the object store did not come up; see {log}")
    return env[ADDRESS]


def compact_store() -> None:
    """Let the embedded store give up what was deleted: until then its files hold it. Other stores see to that alone.

    Raises TransientError where it does not answer.
    """
    if not is_running(STORE):
        return
    port = int(kept_settings()[ADDRESS].rpartition(":")[2])
    try:
        for _ in range(COMPACTIONS):  # what was deleted last is given to the volumes some seconds later
            with urlopen(f"http://127.0.0.1:{port + 1}/vol/vacuum?garbageThreshold=0.000001", timeout=300):
                time.sleep(2)
    except OSError as error:
        raise TransientError(
            f"the object store did not give up what was deleted; {error}; run the same again"
        ) from None


def refusal(env: dict[str, str]) -> UserError | TransientError | None:
    """Return why the environment's store cannot be used: its own words; None where it takes keys and bucket."""
    import boto3
    from botocore.config import Config

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
    client.meta.events.register(BEFORE_ALL, check_answer)
    bucket = env.get("S3_BUCKET", BUCKET)
    try:
        with store_errors(f"s3://{bucket} at {env[ADDRESS]}"):
            client.list_objects_v2(Bucket=bucket, MaxKeys=1)  # a HEAD would get no words
    except (UserError, TransientError) as error:
        return error
    return None


def _write_store_keys() -> None:
    """Give the ports behind the S3 gateway keys: without, they hand every object to anyone on this machine."""
    file = settings().home / "security.toml"
    if not file.exists():
        jwt_sections = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
        write_secret(file, "".join(f'[{section}]\nkey = "{secrets.token_hex(20)}"\n' for section in jwt_sections))


def _store_command(port: int) -> list[str]:
    """Return the command that starts SeaweedFS with its S3 gateway on `port` and the rest on the four after it."""
    (settings().home / "store").mkdir(parents=True, exist_ok=True)
    return [
        str(BIN / "weed"),
        "mini",
        "-dir=store",  # below its working directory: what it keeps names no place
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
    ]
