"""Oracle: Airflow's own record of tries, where the origin is a path whose disk is away for five minutes of a run."""

import os
import sys
import time
import urllib.parse
from pathlib import Path

from conftest import AS_OF, ROWS_PER_DAY, call, environment, free_port, make_project
from containers import answer_of, until
from test_containers import BY_HAND
from test_page import token_of

from tasks.read import read_predictions
from tasks.runtime.git import git

AWAY_SECONDS = 300
ENOUGH_SECONDS = 2400.0
"""Of this a training takes minutes, and the wait for the last try 7 to 14."""
MOST_TRIES = 4


class Embedded:
    """The embedded Airflow of a project whose runs clone a path; its API."""

    def __init__(self, folder: Path) -> None:
        """Make the project, and the origin on a disk of its own."""
        self.project, self.disk = make_project(folder / "project", BY_HAND), folder / "disk"
        self.origin = self.disk / "lamplighter.git"
        git("clone", "--quiet", "--bare", str(self.project), str(self.origin))
        self.home, ui_port = self.project / ".lamplighter", str(free_port() + 5)
        ports = {"LAMPLIGHTER_S3_PORT": str(free_port()), "LAMPLIGHTER_UI_PORT": ui_port}
        self.env = environment(self.home, **ports, LAMPLIGHTER_ORIGIN=str(self.origin))
        self.address = f"http://127.0.0.1:{ui_port}"

    def command(self, name: str) -> None:
        call([sys.executable, "-m", "tasks.commands", name], self.project, self.env)

    def ask(self, path, body=None, method=None):
        headers = {"Authorization": f"Bearer {token_of(self.address, self.home)}"}
        return answer_of(f"{self.address}/api/v2{path}", body, headers, method)

    def trigger(self, dag: str) -> str:
        until(lambda: self.ask(f"/dags/{dag}", {"is_paused": False}, "PATCH"), f"the DAG {dag}")
        run = self.ask(f"/dags/{dag}/dagRuns", {"logical_date": None, "conf": {"as_of": AS_OF}})["dag_run_id"]
        return f"/dags/{dag}/dagRuns/{urllib.parse.quote(run)}"

    def state(self, run: str) -> str:
        return self.ask(run)["state"]

    def end_of(self, run: str) -> str:
        return until(lambda: (now := self.state(run)) in ("success", "failed") and now, run, ENOUGH_SECONDS)


def whole(folder: Path, seed: int) -> dict[str, int]:
    """Take the disk away in the ingest of a training, for five minutes; nothing here is drawn from `seed`."""
    airflow = Embedded(folder)
    airflow.command("up")
    try:
        n_tries = outlive(airflow)
    finally:
        airflow.command("down")
    return {"runs that ended well after five minutes without the disk of their origin": 1, "tries of its task": n_tries}


def outlive(airflow: Embedded) -> int:
    """Return the tries that the task took which was hit."""
    run = airflow.trigger("train__tiny")
    hit = f"{run}/taskInstances/ingest"
    until(lambda: airflow.ask(hit)["state"] == "running", "ingest is at work", ENOUGH_SECONDS, every=0.2)
    began = time.monotonic()
    airflow.disk.rename(airflow.disk.with_name("away"))
    time.sleep(AWAY_SECONDS)
    tried = airflow.ask(hit)
    assert tried["state"] in ("up_for_retry", "scheduled", "queued", "running"), tried
    airflow.disk.with_name("away").rename(airflow.disk)
    until(lambda: airflow.ask(hit)["state"] == "success", "ingest is done", ENOUGH_SECONDS)
    n_tries = airflow.ask(hit)["try_number"]
    print(f"ingest: done at try {n_tries}, {time.monotonic() - began:.0f} s after it was hit")
    assert 2 <= n_tries <= MOST_TRIES
    log = " ".join(str(line["event"]) for line in airflow.ask(f"{hit}/logs/1")["content"])
    assert f"{airflow.origin}: the origin must be there, and nothing is; where its disk is" in log
    assert airflow.end_of(run) == "success"
    night = airflow.trigger("predict__tiny")
    assert airflow.end_of(night) == "success"
    kept = dict(line.split("=", 1) for line in (airflow.home / "env").read_text().splitlines())
    os.environ.update({name: value for name, value in kept.items() if name.startswith("AWS_")})
    frame = read_predictions("s3://lamplighter/predictions", "tiny", AS_OF)
    assert len(frame) == ROWS_PER_DAY - 1  # one weighs less than nothing, and lies in quarantine
    assert frame["parcel_id"].is_unique
    assert len(git("for-each-ref", "refs/exps", cwd=airflow.origin).splitlines()) == 2, "of the training and the night"
    return n_tries
