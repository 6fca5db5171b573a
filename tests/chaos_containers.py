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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from conftest import LAST_DAY, ROWS_PER_DAY
from containers import UP, Installation, engine, until
from test_containers import BY_HAND

TRAINED = date(2024, 2, 4)
"""The as_of of the training; a night of each day after it has rows until the day before the last."""
TRAIN = ("start", "ingest", "validate", "split", "pretrain", "train", "evaluate", "export", "promote")
PREDICT = ("start", "ingest", "validate", "predict", "collect", "publish", "monitor", "gc")
KILLED = "{}: the worker of `{}` is killed, its disk gone"
OUTAGES = (
    {
        "Redis is killed and started again": "ingest",
        "Postgres is killed and started again": "validate",
        "the scheduler is killed and started again": "predict",
    },
    {"the store hangs for two minutes": "ingest", "the store is stopped for two minutes": "predict"},
    {"the git origin is away for two minutes": "ingest"},
)
"""What is broken in each of some nights, and in which of its tasks; the task should end well all the same."""
FULL = "the disk of another worker is full, through all of these nights"
AWAY_SECONDS = 120
RETRY = '"retry_delay": timedelta(minutes=1)'
"""What dags/products.py declares: a kill is tried again sooner here, an outage as in production."""
OVERLAY = """
x-sooner: &sooner
  environment:
    # A dead worker is noticed within a minute here, not within the quarter of an hour of production.
    AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT: "30"
    AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT: "90"
  volumes: ["../dags:/opt/lamplighter/dags:ro"]
services:
  scheduler: *sooner
  dag-processor: *sooner
  worker:
    <<: *sooner
    environment:
      AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT: "30"
      LAMPLIGHTER_ORIGIN: git://origin/lamplighter.git
  origin:    # a server of git that can be away
    image: lamplighter-worker:${LAMPLIGHTER_TAG}
    entrypoint: [git, daemon, --export-all, --enable=receive-pack, --reuseaddr, --base-path=/srv/origin]
    volumes: ["origin:/srv/origin"]
    networks: [airflow]
  cramped:   # a worker whose disk has little room
    extends: {file: compose.yaml, service: worker}
    environment:
      AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT: "30"
      LAMPLIGHTER_LEAST_FREE_MB: "50"
      LAMPLIGHTER_ORIGIN: git://origin/lamplighter.git
      HOME: /cramped
      AIRFLOW_HOME: /cramped/airflow
      LAMPLIGHTER_HOME: /cramped/home
      LAMPLIGHTER_CACHE: /cramped/cache
      TMPDIR: /cramped/tmp
    volumes: ["../params.yaml:/opt/lamplighter/params.yaml:ro", "../dags:/opt/lamplighter/dags:ro"]
    tmpfs: ["/cramped:size=256m,mode=1777"]
    entrypoint: [sh, -c, "mkdir -p /cramped/airflow /cramped/tmp && exec airflow celery worker"]
"""
RUN_SECONDS = 3600.0
WORKERS = 3
MOST_RUNS = 5
"""A task may end before its worker is killed: it is hit in a later run then."""
FIRST_TRY = "done at try 1"


def declared_faults() -> list[str]:
    """What the campaign breaks, in its order, as its table names it."""
    killed = [("training", task) for task in TRAIN] + [("night", task) for task in PREDICT]
    away = [disturbed(name, task) for night in OUTAGES for name, task in night.items()]
    return [KILLED.format(*each) for each in killed] + away + [FULL]


def disturbed(name: str, task: str) -> str:
    """How the table names an outage in the middle of a task."""
    return f"{name}, in `{task}`"


def whole(folder: Path, seed: int) -> dict[str, int]:
    """Every fault once; the outcomes as rows of the table."""
    if engine() is None:
        print("containers: neither docker nor podman answers on this machine: nothing was broken")
        return {"containers: faults": 0}
    installation = Installation(folder / "project", BY_HAND, "lamplighter-chaos", overlay=OVERLAY)
    try:
        installation.build()
        installation.start(workers=WORKERS)
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
        self.rows: dict[str, str] = {}
        self.replaced: list[Future[None]] = []
        os.environ.update(installation.store_environment())

    def every_fault(self) -> dict[str, int]:
        """Break all of it; return how often each was broken."""
        with self.tried_again_sooner():
            rows = {
                "containers: workers killed in a training": self.kill_in("train__tiny", TRAIN),
                "containers: workers killed in a night": self.kill_in("predict__tiny", PREDICT),
            }
        faults, cramped = self.outages(), self.fill_a_disk()
        began, runs = time.monotonic(), []
        for night in OUTAGES:
            runs.append(self.disturb({name: (task, faults[name]) for name, task in night.items()}))
            rows |= {f"containers: {name}": 1 for name in night}
        hosts = [task["hostname"] for run in runs for task in self.there.tasks(run) if task["hostname"]]
        self.saw(FULL, f"it took {hosts.count(cramped)} of {len(hosts)} tasks", time.monotonic() - began)
        rows["containers: a worker without room"] = 1
        assert cramped not in hosts
        table = [self.rows[fault] for fault in declared_faults()]
        print("\n".join(["| fault | outcome of the task | s |", "|---|---|---:|", *table]), flush=True)
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
        ]
        return dict(zip([name for night in OUTAGES for name in night], made, strict=True))

    def kill_in(self, dag: str, tasks: tuple[str, ...]) -> int:
        """Kill the worker of each task while it runs, with its disk, in as many runs as it takes; return the number."""
        left = list(tasks)
        with ThreadPoolExecutor(1) as replacing:  # the run goes on while another worker takes the place of the lost one
            for _ in range(MOST_RUNS):
                run = self.there.trigger(dag, self.as_of.isoformat())
                for task in list(left):
                    if self._has_killed(run, task, replacing):
                        left.remove(task)
                self.there.wait_for(run, RUN_SECONDS)
                if dag.startswith("predict"):
                    self.check_night()
                if not left:
                    break
        for each in self.replaced:
            each.result()
        assert not left, f"{dag}: in {MOST_RUNS} runs no kill has hit {left}"
        return len(tasks)

    def _has_killed(self, run: str, task: str, replacing: ThreadPoolExecutor) -> bool:
        """Return whether a kill has hit a task of a run at work, and not just after its end."""
        host = until(lambda: self._host_or_end(run, task), f"{task} of {run} runs", RUN_SECONDS)
        if host == "ended":
            return False
        began = time.monotonic()
        self.there.lose_worker(host)
        self.replaced.append(replacing.submit(self.there.replace_workers, WORKERS))
        until(lambda: self._is_over(run, task), f"{task} of {run} done on another worker", RUN_SECONDS)
        tries = self._tries(run, task)
        if tries == FIRST_TRY:
            return False
        kind = "training" if "train__" in run else "night"
        self.saw(KILLED.format(kind, task), f"{tries}, by another worker", time.monotonic() - began)
        return True

    def disturb(self, faults: dict[str, tuple[str, Callable[[], Any]]]) -> str:
        """Make a night in which each fault hits one of its tasks; return its run."""
        run = self.there.trigger("predict__tiny", self.as_of.isoformat())
        for name, (task, fault) in faults.items():
            until(lambda of=task: self._host_or_end(run, of), f"{task} of {run} runs", RUN_SECONDS)
            began = time.monotonic()
            fault()
            until(lambda of=task: self._is_over(run, of), f"{task} of {run} is done", RUN_SECONDS)
            self.saw(disturbed(name, task), self._tries(run, task), time.monotonic() - began)
        self.there.wait_for(run, RUN_SECONDS)
        self.check_night()
        return run

    def saw(self, fault: str, outcome: str, seconds: float) -> None:
        """Keep a row of the table, and print it."""
        self.rows[fault] = f"| {fault} | {outcome} | {seconds:.0f} |"
        print(self.rows[fault], flush=True)

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

    def fill_a_disk(self) -> str:
        """Add a worker with a small disk, fill that, and let its health check see it; return its host name."""
        self.there.call(*self.there.compose, *UP, "cramped")
        self.there.wait_until_healthy(("cramped",))
        (cramped,) = self.there.containers("cramped")
        fill = "dd if=/dev/zero of=/cramped/filler bs=1M 2>/dev/null || true"
        self.there.call(self.there.engine, "exec", cramped, "sh", "-c", fill)
        until(lambda: not self.there.is_healthy(cramped), "the worker says that its disk is full", RUN_SECONDS)
        return str(self.there.inspect(cramped)["Config"]["Hostname"])

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

    def _host_or_end(self, run: str, task: str) -> str:
        found = [each for each in self.there.tasks(run) if each["task_id"] == task]
        states = {each["state"] for each in found}
        running = [each["hostname"] for each in found if each["state"] == "running" and each["hostname"]]
        return running[0] if running else "ended" if found and states <= {"success", "skipped"} else ""

    def _is_over(self, run: str, task: str) -> bool:
        states = {each["state"] for each in self.there.tasks(run) if each["task_id"] == task}
        assert not states & {"failed", "upstream_failed"}, f"{task}: {states}"
        return bool(states) and states <= {"success", "skipped"}
