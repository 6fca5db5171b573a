"""Runs under SIGKILL at every label of the code around them, then every night re-created; real DVC, git and S3.

The tiny product is trained, and nights are published, by the functions that Airflow's tasks call, each in a process
of its own. In the first runs each step is killed at one label after another and retried; then code and params move
on; then every night is made again from git and the DVC remote, one of them from the raw data.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos_publication import labels_of
from conftest import call, environment, make_project

from tasks import STAGES

URL = "s3://lamplighter/predictions"
KILLS_PER_TASK = 4
ELSEWHERE = ("publish: a part is uploaded",)
"""Labels that no run of shards passes, which upload their own parts: chaos_publication kills there."""
TRAIN_STEPS = (*STAGES[:-1], "promote")
WORKER = """
import json, sys
from pathlib import Path
from tasks.publication.contracts import UploadedPart
from tasks.runs.experiments import Run
from tasks.runs.steps import collect, night, open_run, shard, step
what, file, *rest = sys.argv[1:]
kept = Path(file)
def run(): return Run.from_json(kept.read_text())
if what == "start": kept.write_text(json.dumps(open_run("tiny", *rest).to_json()))
elif what == "shard": print("PART " + json.dumps(shard(run(), int(rest[0])).to_json()))
elif what == "night": night(run())
elif what == "collect": collect(run(), [UploadedPart.from_json(part) for part in json.loads(rest[0])])
else: step(run(), what)
"""


@dataclass
class Project:
    """A repository with the tiny product, and what was done to its runs."""

    folder: Path
    env: dict[str, str]
    kills: Counter = field(default_factory=Counter)
    """By label."""
    left: list[str] = field(default_factory=list)
    """Labels at which no process has been killed yet, those tried longest ago first."""

    def work(self, *given: str, crash_at: str = "") -> subprocess.CompletedProcess:
        """One task of a run, in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", WORKER, *given],
            cwd=self.folder,
            env={**self.env, "LAMPLIGHTER_CRASH_AT": crash_at},
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def do(self, *given: str) -> str:
        """One task, killed and retried a few times, at labels that it may reach; returns what it printed in the end."""
        mine = ("workspace", "save", given[0])
        for label in [label for label in self.left if label.partition(":")[0] in mine][:KILLS_PER_TASK]:
            ended = self.work(*given, crash_at=label)
            self.left.remove(label)
            if ended.returncode == 0:  # not on this task's way
                self.left.append(label)
                return ended.stdout
            assert ended.returncode == -9 or "killed by signal 9" in ended.stdout, ended.stdout[-3000:]
            self.kills[label] += 1
        ended = self.work(*given)
        assert ended.returncode == 0, f"{given}, retried:\n{ended.stdout[-3000:]}"
        return ended.stdout

    def train(self, as_of: str, unique: str) -> None:
        file = str(self.folder.parent / f"{unique}.json")
        self.do("start", file, "train", as_of, unique)
        for name in TRAIN_STEPS:
            self.do(name, file)

    def predict(self, as_of: str, unique: str) -> str:
        """Publish a night; returns its manifest's address."""
        file = str(self.folder.parent / f"{unique}.json")
        self.do("start", file, "predict", as_of, unique)
        for name in ("ingest", "validate"):
            self.do(name, file)
        n_shards = json.loads(Path(file).read_text())["shards"]
        printed = [self.do("shard", file, str(number)) for number in range(n_shards)]
        parts = [json.loads(re.findall(r"^PART (.*)", text, re.MULTILINE)[-1]) for text in printed]
        self.do("collect", file, json.dumps(parts))
        for name in ("publish", "monitor", "gc"):
            self.do(name, file)
        return f"{URL}/tiny/dt={as_of}/_manifest.json"

    def predict_at_once(self, as_of: str, unique: str) -> None:
        """Publish a night as a backfill does: its stages in one go."""
        file = str(self.folder.parent / f"{unique}.json")
        self.do("start", file, "predict", as_of, unique)
        self.do("night", file)

    def move_on(self) -> None:
        """Change what predicts and what is declared, and commit it to main."""
        file = self.folder / "model" / "heads" / "binary.py"
        file.write_text(file.read_text().replace("scores >= threshold", "scores > 0 * threshold"))
        params = self.folder / "params.yaml"
        params.write_text(params.read_text().replace("shards: 3", "shards: 2").replace("epochs: 8", "epochs: 2"))
        call(["git", "commit", "--quiet", "--all", "-m", "Move on"], self.folder, self.env)

    def recreate(self, uri: str, *more: str, expect: int = 0) -> str:
        return call([sys.executable, "-m", "tasks.commands", "recreate", uri, *more], self.folder, self.env, expect)


def whole(folder: Path, seed: int) -> dict[str, int]:
    """The whole of it; returns rows for the table. Needs the address and keys of a store in the environment."""
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    made = make_project(folder / "project")
    project = Project(made, environment(made / ".lamplighter", **keys))
    labels = labels_of(
        "runs/steps",
        "runs/workspace",
        "runs/registry/champions",
        "publication/manifests",
        "publication/publishing",
        "publish",
    )
    project.left = [label for label in labels if label not in ELSEWHERE and not label.startswith("gc")]
    project.train("2024-02-08", "train")
    uris = [project.predict(as_of, f"night-{as_of}") for as_of in ("2024-02-08", "2024-02-09")]
    project.predict_at_once("2024-02-09", "backfill")
    assert not project.left, f"nothing reached {project.left}"
    project.move_on()
    uris.append(project.predict("2024-02-10", "night-2024-02-10"))
    equal = [project.recreate(uri) for uri in uris]
    equal.append(project.recreate(uris[0], "--from", "data"))
    assert all("every sha256 is equal" in text for text in equal)
    return {
        "runs: kills": project.kills.total(),
        "runs: labels at which a process was killed": len(project.kills),
        "runs: nights published by runs whose tasks were killed": 2,
        "re-creations of three nights, every sha256 equal": len(equal),
        "re-creations:   of these from raw data, the model trained again": 1,
    }
