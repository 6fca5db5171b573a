"""Drive docker/compose.yaml from outside: build, start, ask, look at, break and remove what it declares.

Works with docker (Compose 2.24) and with podman, whose podman-compose uv brings where it is not installed. Needs root's
or the user's right to start containers; everything is named after the project, and `remove` leaves nothing of it.
"""

import base64
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from conftest import AS_OF, ROOT, free_port, make_project

PODMAN_COMPOSE = "podman-compose==1.6.0"
IMAGES = {"airflow": "lamplighter-airflow", "worker": "lamplighter-worker"}
OWN = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
"""The services that run the project's images."""
STORES = ("postgres", "redis", "seaweedfs")
DECLARED = "services:\n" + "".join(
    f"  {service}:\n    volumes: ['../params.yaml:/opt/lamplighter/params.yaml:ro']\n" for service in OWN
)
"""The images hold the DAGs of the project that they were built from: what the test declares is laid over it."""
UP = ("up", "--detach", "--no-build", "--no-deps")
WAIT_SECONDS = 900.0
"""How long a start or a run may take on a machine that does much beside it."""


def engine() -> str | None:
    """The program that runs containers here, or None where there is none that answers."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return None


def until(happened: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS, every: float = 1.0) -> Any:
    """Look again and again until something has happened; return what it gave. What does not answer is asked again."""
    deadline, refused = time.monotonic() + seconds, None
    while True:
        try:
            if found := happened():
                return found
        except OSError as error:  # an HTTPError too
            refused = error
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s; last refusal: {refused}"
        time.sleep(every)


class Installation:
    """What compose.yaml declares, of a project of its own, on ports and under names of its own."""

    def __init__(self, folder: Path, params: str, name: str = "lamplighter-test", overlay: str = "") -> None:
        """Make the project; `overlay` is another compose file, laid over compose.yaml.

        `LAMPLIGHTER_BUILD_ARGS` of the environment is added to each build, as for a proxy.
        """
        found = engine()
        assert found, "neither docker nor podman answers"
        self.engine, self.name = found, name
        self.project = make_project(folder, params)
        self.ui_port, self.s3_port = free_port(), free_port() + 7
        self.keys = {key: secrets.token_hex(16) for key in self._variables() if key != "LAMPLIGHTER_ORIGIN"}
        fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        self.keys |= {"AIRFLOW_FERNET_KEY": fernet, "LAMPLIGHTER_ORIGIN": "/srv/origin/lamplighter.git"}
        env = self.keys | {
            "AIRFLOW_BASE_URL": f"http://127.0.0.1:{self.ui_port}",
            "LAMPLIGHTER_UI_PORT": str(self.ui_port),
            "LAMPLIGHTER_S3_PORT": str(self.s3_port),
            "LAMPLIGHTER_TAG": name,
            "LAMPLIGHTER_TASKS_AT_ONCE": "2",
        }
        (self.project / "docker" / ".env").write_text("".join(f"{key}={value}\n" for key, value in env.items()))
        files = ["--file", "compose.yaml"]
        for file, text in {"declared.yaml": DECLARED, "overlay.yaml": overlay}.items():
            if text:
                (self.project / "docker" / file).write_text(text)
                files += ["--file", file]
        self.compose = [*self._compose_command(), "--project-name", name, *files]

    def _variables(self) -> Iterator[str]:
        for line in (self.project / "docker" / ".env.example").read_text().splitlines():
            if line.endswith("=") and not line.startswith("#"):
                yield line.rstrip("=")

    def _compose_command(self) -> list[str]:
        if self.engine == "docker":
            return ["docker", "compose"]
        if shutil.which("podman-compose"):
            return ["podman-compose"]
        uv = Path(sys.executable).parent / "uv"
        return [str(uv), "tool", "run", "--quiet", "--from", PODMAN_COMPOSE, "podman-compose"]

    def call(self, *command: str, expect: int | None = 0, given: bytes | None = None) -> str:
        """Run a command in docker/; return what it prints. Its errors are the failure's message."""
        folder = self.project / "docker"
        # The environment wins over .env, and a reader's own address of the store would reach the workers.
        own = ("AWS_", "AIRFLOW", "LAMPLIGHTER_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        done = subprocess.run(command, cwd=folder, input=given, capture_output=True, check=False, env=env)
        errors = done.stderr.decode(errors="replace")[-4000:]
        assert expect is None or done.returncode == expect, f"{shlex.join(command)}: {done.returncode}\n{errors}"
        return done.stdout.decode(errors="replace").strip()

    def build(self) -> dict[str, int]:
        """Build both images from this project; return their bytes."""
        words = shlex.split(os.environ.get("LAMPLIGHTER_BUILD_ARGS", ""))
        sizes = {}
        for part, image in IMAGES.items():
            file, tag = str(ROOT / "docker" / f"{part}.Dockerfile"), f"{image}:{self.name}"
            self.call("nice", self.engine, "build", *words, "--file", file, "--tag", tag, str(ROOT))
            sizes[part] = int(self.call(self.engine, "image", "inspect", "-f", "{{.Size}}", tag))
        return sizes

    def start(self, workers: int = 2) -> None:
        """Start everything and wait until all is healthy; the origin is filled from the project's commit."""
        up = [*self.compose, "up", "--detach", "--no-build"]
        if self.engine == "podman":  # before 4.6 it has no `depends_on` that waits for health: the same order, by hand
            up.append("--no-deps")
            self.call(*up, *STORES)
            self.wait_until_healthy(STORES)
            self.call(*up, "migrate")
            until(self._has_migrated, "the database is made")
        self.call(*up, "--scale", f"worker={workers}", *OWN, *STORES)
        bundle = subprocess.run(
            ["git", "bundle", "create", "-", "HEAD", "--all"], cwd=self.project, capture_output=True, check=True
        )
        load = "cat > /tmp/bundle && git clone --quiet --bare /tmp/bundle /srv/origin/lamplighter.git"
        worker = self.containers("worker")[0]
        self.call(self.engine, "exec", "--interactive", worker, "sh", "-c", load, given=bundle.stdout)
        self.wait_until_healthy()

    def _has_migrated(self) -> bool:
        state = self.inspect(f"{self.name}_migrate_1")["State"]
        return (state["Status"], state["ExitCode"]) == ("exited", 0)

    def containers(self, service: str | None = None) -> list[str]:
        """The names of the containers that run, of one service or of all."""
        label = "com.docker.compose"
        filters = [f"label={label}.project={self.name}", *([f"label={label}.service={service}"] if service else [])]
        words = [word for each in filters for word in ("--filter", each)]
        return sorted(self.call(self.engine, "ps", *words, "--format", "{{.Names}}").split())

    def inspect(self, container: str) -> dict[str, Any]:
        """What the engine says of a container."""
        found: dict[str, Any] = json.loads(self.call(self.engine, "inspect", container))[0]
        return found

    def is_healthy(self, container: str) -> bool:
        """Whether a container's own check says so; podman without systemd runs it when asked only."""
        if self.engine == "podman":
            done = subprocess.run(["podman", "healthcheck", "run", container], capture_output=True, check=False)
            return done.returncode == 0
        health: str = self.inspect(container)["State"].get("Health", {}).get("Status", "")
        return health == "healthy"

    def wait_until_healthy(self, services: tuple[str, ...] = ()) -> None:
        """Wait until every container that has a check passes it."""
        for service in services or (*STORES, *OWN):
            names = until(lambda of=service: self.containers(of), f"a container of {service}")
            for container in names:
                until(lambda of=container: self.is_healthy(of), f"{container} healthy", every=5)

    def ask(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        """Ask Airflow's API as the admin; return what it answers."""
        address = f"http://127.0.0.1:{self.ui_port}"
        login = {"username": "admin", "password": self.keys["LAMPLIGHTER_ADMIN_PASSWORD"]}
        token = answer_of(f"{address}/auth/token", login, {}, None)["access_token"]
        return answer_of(f"{address}/api/v2{path}", body, {"Authorization": f"Bearer {token}"}, method)

    def trigger(self, dag: str, as_of: str = AS_OF) -> str:
        """Start a run of a DAG for a date; return its path in the API."""

        until(lambda: self.ask(f"/dags/{dag}", {"is_paused": False}, "PATCH"), f"the DAG {dag}")
        run = self.ask(f"/dags/{dag}/dagRuns", {"logical_date": None, "conf": {"as_of": as_of}})
        return f"/dags/{dag}/dagRuns/{run['dag_run_id']}"

    def tasks(self, run: str) -> list[dict[str, Any]]:
        """The task instances of a run."""
        listed: list[dict[str, Any]] = self.ask(f"{run}/taskInstances")["task_instances"]
        return listed

    def log_of(self, run: str, task: dict[str, Any]) -> list[str]:
        """What the UI shows of the log of a task instance, line by line, where it comes from before all."""
        number = task["try_number"]
        index = f"?map_index={task['map_index']}"
        content = self.ask(f"{run}/taskInstances/{task['task_id']}/logs/{number}{index}")["content"]
        return [str(line["event"]) for line in content]

    def worker_of(self, host: str) -> str | None:
        """The worker of a host name; None where it runs no more."""
        found = [each for each in self.containers("worker") if self.inspect(each)["Id"].startswith(host)]
        return found[0] if found else None

    def lose_worker(self, host: str) -> None:
        """Kill the worker of a host name, which is the beginning of its container's id, and remove its disk."""
        self.call(self.engine, "kill", "--signal", "KILL", host)
        self.call(self.engine, "rm", "--force", "--volumes", host)

    def replace_workers(self, workers: int) -> None:
        """Bring up as many workers as there should be, in place of those that were lost; takes half a minute."""
        self.call(*self.compose, *UP, "--scale", f"worker={workers}", "worker")

    def wait_for(self, run: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until a run has succeeded; where it has not, the failure names its tasks."""
        state = until(lambda: (now := self.ask(run)["state"]) in ("success", "failed") and now, run, seconds)
        ended = {task["task_id"]: task["state"] for task in self.tasks(run)}
        assert state == "success", ended

    def store_environment(self) -> dict[str, str]:
        """What a reader on this machine sets."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.s3_port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.keys["AWS_ACCESS_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": self.keys["AWS_SECRET_ACCESS_KEY"],
        }

    def remove(self) -> None:
        """Stop and remove containers, volumes, networks and the two images."""
        of_project = ["--filter", f"label=com.docker.compose.project={self.name}"]
        if left := self.call(self.engine, "ps", "--all", *of_project, "--format", "{{.Names}}", expect=None).split():
            # With --volumes, which takes those that an image declares; `down` of podman-compose leaves them.
            self.call(self.engine, "rm", "--force", "--volumes", *left, expect=None)
        self.call(*self.compose, "down", "--volumes", expect=None)
        for image in IMAGES.values():
            self.call(self.engine, "rmi", "--force", f"{image}:{self.name}", expect=None)


def answer_of(address: str, body: dict[str, Any] | None, headers: dict[str, str], method: str | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        address, data, {"Content-Type": "application/json", **headers}, method=method or ("POST" if data else "GET")
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)
