"""Faults of the installation of docker/: workers killed with their disks, Redis, Postgres, store and origin away.

    python tests/chaos.py containers

Every fault hits a run under way through Airflow's API; the run must end well, and its night be there once and whole.
Prints a row of a table for each: what came of the task that was hit, after how long. docker/README.md has the table of
the last campaign. Builds the images, takes the better part of an hour, and says that it did nothing where no
containers can be run.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from conftest import LAST_DAY, ROWS_PER_DAY
from containers import Installation, engine, until
from test_containers import BY_HAND

TRAINED = date(2024, 2, 4)
"""The as_of of the training; a night of each day after it has rows until the day before the last."""
TRAIN = ("start", "ingest", "validate", "split", "pretrain", "train", "evaluate", "export", "promote")
PREDICT = ("start", "ingest", "validate", "predict", "collect", "publish", "monitor", "gc")
KILLED = "the worker of `{}` is killed, its disk gone"
OUTAGES = (
    {
        "Redis is killed and started again": "ingest",
        "Postgres is killed and started again": "validate",
        "the scheduler is killed and started again": "predict",
    },
    {"the store hangs for two minutes": "ingest", "the store is stopped for two minutes": "predict"},
    {"the git origin is away for two minutes": "ingest", "the disk of another worker is full": "validate"},
)
"""What is broken in each of some nights, and in which of its tasks; the task should end well all the same."""
AWAY_SECONDS = 120
RETRY = '"retry_delay": timedelta(minutes=1)'
"""What dags/products.py declares: a kill is tried again sooner here, an outage as in production."""
OVERLAY = """
x-sooner: &sooner
  environment:
    # A dead worker is noticed within a minute here, not within the quarter of an hour of production.
    AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT: "45"
    AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT: "90"
  volumes: ["../dags:/opt/lamplighter/dags:ro"]
services:
  scheduler: *sooner
  dag-processor: *sooner
  worker:
    <<: *sooner
    environment:
      AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT: "45"
      LAMPLIGHTER_ORIGIN: git://origin/lamplighter.git
  origin:    # a server of git that can be away
    image: lamplighter-worker:${LAMPLIGHTER_TAG}
    entrypoint: [git, daemon, --export-all, --enable=receive-pack, --reuseaddr, --base-path=/srv/origin]
    volumes: ["origin:/srv/origin"]
    networks: [airflow]
  cramped:   # a worker whose disk has little room
    extends: {file: compose.yaml, service: worker}
    environment:
      AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT: "45"
      LAMPLIGHTER_LEAST_FREE_MB: "50"
      LAMPLIGHTER_ORIGIN: git://origin/lamplighter.git
      HOME: /tmp/worker
      AIRFLOW_HOME: /tmp/worker/airflow
      LAMPLIGHTER_HOME: /tmp/worker/home
      LAMPLIGHTER_CACHE: /tmp/worker/cache
      TMPDIR: /tmp/worker/tmp
    volumes: ["../params.yaml:/opt/lamplighter/params.yaml:ro", "../dags:/opt/lamplighter/dags:ro"]
    tmpfs: ["/tmp:size=256m"]
    entrypoint: [sh, -c, "mkdir -p /tmp/worker/airflow /tmp/worker/tmp && exec airflow celery worker"]
"""
UP = ("up", "--detach", "--no-build", "--no-deps")
RUN_SECONDS = 3600.0


def whole(folder: Path, seed: int) -> dict[str, int]:
    """Every fault once; the outcomes as rows of the table."""
    if engine() is None:
        print("containers: neither docker nor podman answers on this machine: nothing was broken")
        return {"containers: faults": 0}
    installation = Installation(folder / "project", BY_HAND, "lamplighter-chaos", overlay=OVERLAY)
    try:
        installation.build()
        installation.start(workers=2)
        installation.call(*installation.compose, *UP, "origin")
        return Campaign(installation).every_fault()
    finally:
        installation.remove()


class Campaign:
    """What is broken, one after the other; each night has a date of its own."""

    def __init__(self, installation: Installation) -> None:
        """Begin before the training."""
        self.there = installation
        self.as_of = TRAINED
        self.lines: list[str] = []
        os.environ.update(installation.store_environment())

    def every_fault(self) -> dict[str, int]:
        """Break all of it; return how often each was broken."""
        with self.tried_again_sooner():
            rows = {
                "containers: workers killed in a training": self.kill_in("train__tiny", TRAIN),
                "containers: workers killed in a night": self.kill_in("predict__tiny", PREDICT),
            }
        faults = self.outages()
        for night in OUTAGES:
            self.disturb({name: (task, faults[name]) for name, task in night.items()})
            rows |= {f"containers: {name}": 1 for name in night}
        print("\n".join(["| fault | outcome of the task | s |", "|---|---|---:|", *self.lines]), flush=True)
        return rows

    def outages(self) -> dict[str, Callable[[], Any]]:
        """Return how each outage is made."""
        made = [
            lambda: self.restart("redis"),
            lambda: self.restart("postgres"),
            lambda: self.restart("scheduler"),
            lambda: self.away("seaweedfs", "pause", "unpause"),
            lambda: self.away("seaweedfs", "stop", "start"),
            lambda: self.away("origin", "stop", "start"),
            self.fill_a_disk,
        ]
        return dict(zip([name for night in OUTAGES for name in night], made, strict=True))

    def kill_in(self, dag: str, tasks: tuple[str, ...]) -> int:
        """Kill the worker of each task while it runs, with its disk; return how many were killed."""
        run, killed = self.there.trigger(dag, self.as_of.isoformat()), []
        for task in tasks:
            host = until(lambda of=task: self._host_or_end(run, of), f"{task} of {dag} runs", RUN_SECONDS)
            fault = KILLED.format(task)
            if host == "ended":
                self.saw(fault, "over before it could be killed", 0)
                continue
            began = time.monotonic()
            self.lose_worker(host)
            until(lambda of=task: self._is_over(run, of), f"{task} of {dag} done on another worker", RUN_SECONDS)
            self.saw(fault, f"{self._tries(run, task)}, by another worker", time.monotonic() - began)
            killed.append(task)
        self.there.wait_for(run, RUN_SECONDS)
        if dag.startswith("predict"):
            self.check_night()
        assert killed
        return len(killed)

    def lose_worker(self, host: str) -> None:
        """Kill the worker of a host name and remove its disk; another one takes its place."""
        call, name, container = self.there.call, self.there.engine, self._container(host)
        call(name, "kill", "--signal", "KILL", container)
        call(name, "rm", "--force", "--volumes", container)
        call(*self.there.compose, *UP, "--scale", "worker=2", "worker")

    def disturb(self, faults: dict[str, tuple[str, Callable[[], Any]]]) -> None:
        """Make a night in which each fault hits one of its tasks."""
        run = self.there.trigger("predict__tiny", self.as_of.isoformat())
        for name, (task, fault) in faults.items():
            until(lambda of=task: self._host_or_end(run, of), f"{task} of {run} runs", RUN_SECONDS)
            began = time.monotonic()
            fault()
            until(lambda of=task: self._is_over(run, of), f"{task} of {run} is done", RUN_SECONDS)
            self.saw(f"{name}, in `{task}`", self._tries(run, task), time.monotonic() - began)
        self.there.wait_for(run, RUN_SECONDS)
        self.check_night()

    def saw(self, fault: str, outcome: str, seconds: float) -> None:
        """Keep a row of the table, and print it."""
        self.lines.append(f"| {fault} | {outcome} | {seconds:.0f} |")
        print(self.lines[-1], flush=True)

    def restart(self, service: str) -> None:
        """Kill a service and start it again, its disk as it was."""
        (container,) = self.there.containers(service)
        self.there.call(self.there.engine, "kill", "--signal", "KILL", container)
        self.there.call(self.there.engine, "start", container)

    def away(self, service: str, go: str, come: str) -> None:
        """Have a service answer nobody for two minutes: held still it takes connections, stopped it has no address."""
        (container,) = self.there.containers(service)
        self.there.call(self.there.engine, go, container)
        time.sleep(AWAY_SECONDS)
        self.there.call(self.there.engine, come, container)

    def fill_a_disk(self) -> None:
        """Add a worker with a small disk, fill that, and let its health check see it; it takes no more tasks."""
        self.there.call(*self.there.compose, *UP, "cramped")
        self.there.wait_until_healthy(("cramped",))
        (cramped,) = self.there.containers("cramped")
        fill = "dd if=/dev/zero of=/tmp/worker/filler bs=1M 2>/dev/null || true"
        self.there.call(self.there.engine, "exec", cramped, "sh", "-c", fill)
        until(lambda: not self.there.is_healthy(cramped), "the worker says that its disk is full", RUN_SECONDS)

    @contextmanager
    def tried_again_sooner(self) -> Iterator[None]:
        """Have what failed tried again after seconds, until the block ends."""
        file = self.there.project / "dags" / "products.py"
        declared = file.read_text()
        assert declared.count(RETRY) == 1
        try:
            file.write_text(declared.replace(RETRY, '"retry_delay": timedelta(seconds=5)'))
            until(lambda: self._retry_seconds() == 5, "a retry after five seconds")
            yield
        finally:
            file.write_text(declared)
        until(lambda: self._retry_seconds() == 60, "a retry after a minute")

    def check_night(self) -> None:
        """The night of this date is there once, whole, with each key once; then it is the next date's turn."""
        from tasks.read import read_predictions

        frame = read_predictions("s3://lamplighter/predictions", "tiny", self.as_of.isoformat())
        broken = self.as_of + timedelta(days=1) == LAST_DAY - timedelta(days=3)  # a row of that day is in quarantine
        assert len(frame) == ROWS_PER_DAY - broken
        assert frame["parcel_id"].is_unique
        self.as_of += timedelta(days=1)

    def _retry_seconds(self) -> float | None:
        """Return what Airflow knows of the delay before a retry; None where its DAGs do not agree."""
        asked = [self.there.ask(f"/dags/{kind}__tiny/tasks/ingest") for kind in ("train", "predict")]
        seconds = {task["retry_delay"]["days"] * 86400 + task["retry_delay"]["seconds"] for task in asked}
        return seconds.pop() if len(seconds) == 1 else None

    def _tries(self, run: str, task: str) -> str:
        """Return at which try a task is done, the last of its shards."""
        return f"done at try {max(each['try_number'] for each in self.there.tasks(run) if each['task_id'] == task)}"

    def _container(self, host: str) -> str | None:
        """Return the worker of a host name; None where it runs no more."""
        found = [each for each in self.there.containers("worker") if self.there.inspect(each)["Id"].startswith(host)]
        return found[0] if found else None

    def _host_or_end(self, run: str, task: str) -> str:
        found = [each for each in self.there.tasks(run) if each["task_id"] == task]
        states = {each["state"] for each in found}
        running = [each["hostname"] for each in found if each["state"] == "running" and each["hostname"]]
        return running[0] if running else "ended" if found and states <= {"success", "skipped"} else ""

    def _is_over(self, run: str, task: str) -> bool:
        states = {each["state"] for each in self.there.tasks(run) if each["task_id"] == task}
        assert not states & {"failed", "upstream_failed"}, f"{task}: {states}"
        return bool(states) and states <= {"success", "skipped"}
