"""Faults of the installation of docker/: workers killed with their disks, Redis, Postgres, store and origin away.

    python tests/chaos.py containers

Every fault hits a run under way through Airflow's API; the run must end well, and its night be there once and whole.
Builds the images, takes the better part of an hour, and says that it did nothing where no containers can be run.
"""

import os
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from conftest import AS_OF, ROWS_PER_DAY
from containers import Installation, engine, until
from test_containers import BY_HAND

TRAIN = ("start", "ingest", "validate", "split", "pretrain", "train", "evaluate", "export", "promote")
PREDICT = ("start", "ingest", "validate", "predict", "publish", "monitor")
SOONER = """
x-sooner: &sooner
  environment:
    # A dead worker is noticed after a minute here, not after the quarter of an hour of production.
    AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT: "60"
    AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT: "90"
services:
  scheduler: *sooner
  worker: *sooner
"""
RUN_SECONDS = 3600.0


def whole(folder: Path, seed: int) -> dict[str, int]:
    """Every fault once; the outcomes as rows of the table."""
    if engine() is None:
        print("containers: neither docker nor podman answers on this machine: nothing was broken")
        return {"containers: faults": 0}
    installation = Installation(folder / "project", BY_HAND, "lamplighter-chaos")
    (installation.project / "docker" / "sooner.yaml").write_text(SOONER)
    installation.compose += ["--file", "sooner.yaml"]
    try:
        installation.build()
        installation.start(workers=2)
        return Campaign(installation).every_fault()
    finally:
        installation.remove()


class Campaign:
    """What is broken, one after the other; each night has a date of its own."""

    def __init__(self, installation: Installation) -> None:
        """Begin before the first night."""
        self.there = installation
        self.as_of = date.fromisoformat(AS_OF)
        os.environ.update(installation.store_environment())

    def every_fault(self) -> dict[str, int]:
        """Break all of it; return how often each was broken."""
        rows = {}
        rows["containers: workers killed in a training"] = self.kill_in("train__tiny", TRAIN)
        rows["containers: workers killed in a night"] = self.kill_in("predict__tiny", PREDICT)
        for name, fault in {
            "redis restarted": lambda: self.restart("redis"),
            "postgres restarted": lambda: self.restart("postgres"),
            "the store away for two minutes": lambda: self.away("seaweedfs", 120),
            "the origin away for two minutes": self.origin_away,
        }.items():
            self.disturb(name, fault)
            rows[f"containers: {name}"] = 1
        return rows

    def kill_in(self, dag: str, tasks: tuple[str, ...]) -> int:
        """Kill the worker of each task while it runs, with its disk; return how many were killed."""
        run, killed = self.there.trigger(dag, self.as_of.isoformat()), []
        for task in tasks:
            host = until(lambda of=task: self._host_or_end(run, of), f"{task} of {dag} runs", RUN_SECONDS)
            if host == "ended":
                print(f"containers: {task} of {dag} was over before it could be killed", flush=True)
                continue
            began = time.monotonic()
            self.lose_worker(host)
            until(lambda of=task: self._is_over(run, of), f"{task} of {dag} done on another worker", RUN_SECONDS)
            print(f"containers: {task} of {dag}: done {time.monotonic() - began:.0f} s after the kill", flush=True)
            killed.append(task)
        self.there.wait_for(run, RUN_SECONDS)
        if dag.startswith("predict"):
            self.check_night()
        assert killed
        return len(killed)

    def lose_worker(self, host: str) -> None:
        """Kill the worker of a host name and remove its disk; another one takes its place."""
        call, name = self.there.call, self.there.engine
        (container,) = [
            each for each in self.there.containers("worker") if self.there.inspect(each)["Id"].startswith(host)
        ]
        call(name, "kill", "--signal", "KILL", container)
        call(name, "rm", "--force", "--volumes", container)
        call(*self.there.compose, "up", "--detach", "--no-build", "--no-deps", "--scale", "worker=2", "worker")

    def disturb(self, name: str, fault: Callable[[], Any]) -> None:
        """Make a night with a fault in its middle."""
        run = self.there.trigger("predict__tiny", self.as_of.isoformat())
        until(lambda: self._is_over(run, "ingest"), f"ingest of {run}", RUN_SECONDS)
        began = time.monotonic()
        fault()
        self.there.wait_for(run, RUN_SECONDS)
        tries = {task["task_id"]: task["try_number"] for task in self.there.tasks(run) if task["try_number"] > 1}
        print(
            f"containers: {name}: night there {time.monotonic() - began:.0f} s later; tried again: {tries}", flush=True
        )
        self.check_night()

    def restart(self, service: str) -> None:
        """Kill a service and start it again, its disk as it was."""
        (container,) = self.there.containers(service)
        self.there.call(self.there.engine, "kill", "--signal", "KILL", container)
        self.there.call(self.there.engine, "start", container)

    def away(self, service: str, seconds: float) -> None:
        """Hold a service still, which answers nobody meanwhile."""
        (container,) = self.there.containers(service)
        self.there.call(self.there.engine, "pause", container)
        time.sleep(seconds)
        self.there.call(self.there.engine, "unpause", container)

    def origin_away(self) -> None:
        """Take the origin away for two minutes and put it back."""
        self._in_worker("mv /srv/origin/lamplighter.git /srv/origin/away")
        time.sleep(120)
        self._in_worker("mv /srv/origin/away /srv/origin/lamplighter.git")

    def check_night(self) -> None:
        """The night of this date is there once, whole, with each key once; then it is the next date's turn."""
        from tasks.read import read_predictions

        frame = read_predictions("s3://lamplighter/predictions", "tiny", self.as_of.isoformat())
        assert len(frame) >= ROWS_PER_DAY - 1  # one row of all is broken, and lies in quarantine
        assert frame["parcel_id"].is_unique
        self.as_of += timedelta(days=1)

    def _host_or_end(self, run: str, task: str) -> str:
        found = [each for each in self.there.tasks(run) if each["task_id"] == task]
        states = {each["state"] for each in found}
        running = [each["hostname"] for each in found if each["state"] == "running" and each["hostname"]]
        return running[0] if running else "ended" if found and states <= {"success", "skipped"} else ""

    def _is_over(self, run: str, task: str) -> bool:
        states = {each["state"] for each in self.there.tasks(run) if each["task_id"] == task}
        assert not states & {"failed", "upstream_failed"}, f"{task}: {states}"
        return bool(states) and states <= {"success", "skipped"}

    def _in_worker(self, script: str) -> None:
        self.there.call(self.there.engine, "exec", self.there.containers("worker")[0], "sh", "-c", script)
