"""Upgrades of an installation with data, tags, decisions and nights, as docs/upgrading.md says; real DVC, git and S3.

Each version of before is cloned from this repository's history. Its own code trains, publishes two nights and takes a
person's answers; then the clone is merged with this repository's HEAD, and today's code goes on. Needs the commits.
"""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from chaos_runs import TRAIN_STEPS
from conftest import ROOT, call, environment, parcels

from tasks.publication.contracts import Manifest
from tasks.read import list_nights, read_manifest, read_predictions

NIGHTS, NEXT, ACCEPTED, CORRECTED = ("2024-02-08", "2024-02-09"), "2024-02-10", "2024-02-11", "2024-01-01"
"""The nights of the version before and the first one of today; a day that is accepted, and one with a corrected row."""
FIRST_PARAMS = """
as_of: "2024-02-10"
products:
  tiny:
    description: Does a parcel arrive late?
    source: {kind: csv, url: source/parcels.csv, recheck_days: 7, retake: {"2024-01-20": "cut off (Ada)"}}
    key: [parcel_id]
    time: day
    columns: {depot: category, weight_kg: number, handed_in: time}
    target: {name: late, task: binary, delay_days: 1}
    predict: {horizon_days: 1, shards: 2}
    expectations:
      - {type: expect_column_values_to_be_between, severity: warning, kwargs: {column: weight_kg, min_value: 0}}
    day: {max_volume_ratio: 4.0, accepted: {"2024-02-11": "a holiday (Ada)"}}
    pii: {}
    split: {by: time, test_days: 7, val_days: 5, train_days: 20}
    model:
      preset: small
      init: scratch
      network: {d_model: 16, n_heads: 2, n_layers: 1, d_feedforward: 32}
      pretrain: {}
      train: {epochs: 3.0, batch_tokens: 512, patience_epochs: 2}
      engine: onnxruntime-fp32
    gates: {metric: auc, limit: 0.3, max_behind_baseline: 0.5, max_behind_champion: 0.5}
    schedule: {retrain: null, predict: "0 2 * * *"}
    publish: {url: "s3://lamplighter/predictions"}
"""
"""An entry as 834b4ba wants it, with each key that has another name or place today."""
FIRST_WORK = """
import sys
from tasks.run import collect, open_run, shard, step
kind, as_of, *names = sys.argv[1:]
run = open_run("tiny", kind, as_of, kind + as_of)
for name in names:
    step(run, name)
if kind == "predict":
    step(run, "ingest")
    step(run, "validate")
    collect(run, [shard(run, number) for number in range(run.shards)])
    step(run, "publish")
    step(run, "gc")
"""
WORK = """
import sys
from tasks.runs.steps import night, open_run, step
kind, as_of, *names = sys.argv[1:]
run = open_run("tiny", kind, as_of, kind + as_of)
for name in names:
    step(run, name)
if kind == "predict":
    night(run)
    step(run, "gc")
"""
"""A whole DAG in one process; the first is of 834b4ba, the other of all versions since the folders of today."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of before: how it works, what it is told, and what a person does when it is upgraded."""

    revision: str
    """The commit."""
    work: str
    """The code of a whole DAG."""
    params: str
    """Its params.yaml; empty for the tiny product of its own tests."""
    decide: Sequence[Sequence[str]]
    """Commands by which a person accepts a day and corrects a row; the edit comes before the last one."""
    notes: Sequence[str]
    """What the check of params.yaml says after the merge; nothing where it passes as it is."""


VERSIONS = (
    Version(
        revision="834b4ba",
        work=FIRST_WORK,
        params=FIRST_PARAMS,
        decide=(("tasks.requeue", "tiny", "--day", CORRECTED, "--show"), ("tasks.requeue", "tiny", "--day", CORRECTED)),
        notes=("source.retake must have moved", "day.accepted) must have moved", "patience_epochs is gone"),
    ),
    Version(
        revision="c8ea661",
        work=WORK,
        params="",
        decide=(
            ("tasks.commands", "accept", "tiny", ACCEPTED, "a holiday"),
            ("tasks.commands", "quarantine", "tiny", CORRECTED),
            ("tasks.commands", "requeue", "tiny", CORRECTED, "--why", "as weighed again"),
        ),
        notes=(),
    ),
)


@dataclass
class Installation:
    """A clone in which a user of an earlier version works."""

    folder: Path
    env: dict[str, str]
    url: str

    def git(self, *arguments: str, expect: int = 0) -> str:
        return call(["git", *arguments], self.folder, self.env, expect)

    def python(self, *arguments: str, expect: int = 0) -> str:
        return call([sys.executable, *arguments], self.folder, self.env, expect)

    def module(self, *arguments: str, expect: int = 0) -> str:
        return self.python("-m", *arguments, expect=expect)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def predict(self, work: str, as_of: str) -> Path:
        """Publish a night; returns the workspace of its run."""
        printed = self.python("-c", work, "predict", as_of)
        (name,) = set(re.findall(rf"tiny-{as_of}-predict-[0-9a-f]{{8}}", printed))
        return self.folder / ".lamplighter" / "runs" / name

    def uri(self, as_of: str) -> str:
        return f"{self.url}/tiny/dt={as_of}/_manifest.json"


def installed(version: Version, folder: Path, keys: dict[str, str]) -> Installation:
    """A clone of a version that declares the tiny product."""
    known = subprocess.run(["git", "cat-file", "-e", f"{version.revision}^{{commit}}"], cwd=ROOT, check=False)
    assert known.returncode == 0, f"{version.revision} must be in the history: git fetch --unshallow"
    call(["git", "clone", "--quiet", str(ROOT), str(folder)], ROOT, dict(os.environ))
    url = f"s3://lamplighter/upgrade-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    made = Installation(folder, environment(folder / ".lamplighter", **keys), url)
    for name, value in {"user.name": "Ada", "user.email": "ada@example.org", "advice.detachedHead": "false"}.items():
        made.git("config", name, value)
    made.git("checkout", "--quiet", "-B", "shop", version.revision)
    declared = version.params or _constant(folder / "tests" / "builders.py", "TINY")
    (folder / "params.yaml").write_text(declared.replace("s3://lamplighter/predictions", url))
    config = folder / ".dvc" / "config"
    config.write_text(config.read_text().replace("s3://lamplighter/dvc", f"{url}/dvc"))
    (folder / "source").mkdir()
    parcels().to_csv(folder / "source" / "parcels.csv", index=False)
    made.commit("Our parcels")
    return made


def _constant(file: Path, name: str) -> str:
    """A text that a module of another version names."""
    assigned = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Assign)]
    (value,) = (node.value for node in assigned if ast.unparse(node.targets[0]) == name)
    return str(ast.literal_eval(value))


def decide(made: Installation, version: Version) -> None:
    """Accept a day and correct the weight of a row, as the version has it."""
    *shown, requeue = version.decide
    for command in shown:
        made.module(*command)
    file = made.folder / ".lamplighter" / "quarantine" / "tiny" / f"dt={CORRECTED}.jsonl"
    (row,) = (json.loads(line) for line in file.read_text().splitlines())
    row["cells"]["weight_kg"] = "5.5"
    file.write_text(json.dumps(row) + "\n")
    made.module(*requeue)
    made.commit("Decisions")


def upgrade(made: Installation, version: Version) -> None:
    """What docs/upgrading.md says, command by command."""
    made.git("fetch", "--quiet", str(ROOT), "HEAD")
    made.git("merge", "--quiet", "--no-edit", "FETCH_HEAD", expect=1)
    made.git("checkout", "--ours", "params.yaml")
    made.commit("Upgrade")
    told = made.module("tasks.params", expect=65 if version.notes else 0)
    assert all(note in told for note in version.notes), told
    if version.notes:
        assert "decisions written to decisions/" in made.module("tasks.commands", "migrate-decisions")
        params = made.folder / "params.yaml"
        params.write_text(without_gone_keys(params.read_text()))
        assert "no mistakes" in made.module("tasks.params")
        made.commit("Decisions have moved")


def without_gone_keys(text: str) -> str:
    """A params.yaml of before from which a person has deleted the keys that are refused."""
    return re.sub(r", (retake|accepted): \{[^}]*\}", "", text.replace(", patience_epochs: 2", ""))


def raw_rows(workspace: Path) -> pd.DataFrame:
    """Every raw row of a run, by key."""
    files = sorted((workspace / "data" / "raw" / "tiny" / "rows").rglob("*.parquet"))
    frame = pd.concat([pd.read_parquet(file) for file in files])
    return frame.set_index("parcel_id")[["day", "depot", "weight_kg", "handed_in"]].astype(str).sort_index()


def valid_weights(workspace: Path, day: str) -> set[float]:
    files = sorted((workspace / "data" / "valid" / "tiny" / "rows").rglob("*.parquet"))
    frame = pd.concat([pd.read_parquet(file) for file in files])
    return set(frame.loc[frame["day"].astype(str).str.startswith(day), "weight_kg"].astype(float))


def drill(version: Version, folder: Path, keys: dict[str, str]) -> int:
    """Use a version, upgrade it, go on; returns the nights that were made again with every byte equal."""
    made = installed(version, folder, keys)
    made.python("-c", version.work, "train", NIGHTS[0], *TRAIN_STEPS)
    made.predict(version.work, NIGHTS[0])
    decide(made, version)
    rows_before = raw_rows(made.predict(version.work, NIGHTS[1]))
    before = [_parts(read_manifest(made.url, "tiny", night)) for night in NIGHTS]

    upgrade(made, version)
    assert [each.dt.isoformat() for each in list_nights(made.url, "tiny")] == list(NIGHTS)
    assert all(len(read_predictions(made.url, "tiny", night)) == 20 for night in NIGHTS)
    champion = made.module("tasks.commands", "champion", "tiny")
    assert champion.startswith("champion            v1.0.0, which knows what was known on 2024-02-08")
    assert "every sha256 is equal" in made.module("tasks.commands", "recreate", made.uri(NIGHTS[0]))

    workspace = made.predict(WORK, NEXT)
    manifest = read_manifest(made.url, "tiny", NEXT)
    assert manifest.model.version == "v1.0.0"
    assert manifest.accepted == "a holiday (Ada)"
    assert 5.5 in valid_weights(workspace, CORRECTED)
    rows_now = raw_rows(workspace)
    assert set(rows_now.index) > set(rows_before.index)
    pd.testing.assert_frame_equal(rows_now.loc[rows_before.index], rows_before)
    assert [_parts(read_manifest(made.url, "tiny", night)) for night in NIGHTS] == before
    assert read_manifest(made.url, "tiny").dt.isoformat() == NEXT
    for night in (*NIGHTS, NEXT):
        assert "v1.0.0" in made.module("tasks.commands", "trace", made.uri(night))
    again = [made.module("tasks.commands", "recreate", made.uri(night)) for night in (NIGHTS[1], NEXT)]
    assert all("every sha256 is equal" in text for text in again)
    return 1 + len(again)


def _parts(manifest: Manifest) -> list[tuple[str, int, str]]:
    return [(part.name, part.rows, part.sha256) for part in manifest.parts]


def whole(folder: Path, seed: int) -> dict[str, int]:
    """Every version; returns rows for the table. Needs the address and keys of a store in the environment."""
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    equal = [drill(version, folder / version.revision, keys) for version in VERSIONS]
    return {
        "upgrades from earlier versions, nothing lost": len(VERSIONS),
        "upgrades: nights of before and after made again, every sha256 equal": sum(equal),
    }
