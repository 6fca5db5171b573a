"""Build a small product that has lived: three nights with their table, runs in an origin, a remote, a registry.

Rows, verdicts and nights are made by the project's own stages; models and splits are written by hand.
"""

import json
import os
import shutil
import uuid
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import boto3
import pandas as pd
import yaml
from builders import TINY, a_repository, night_inputs
from conftest import parcels

from tasks import params
from tasks.ingest import ingest
from tasks.monitoring.contracts import NightRecord, Predictions, Shadow
from tasks.monitoring.past import keep
from tasks.monitoring.shadow import key_of
from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.contracts import ModelRef, Part, PublishedPart
from tasks.publication.manifests import NightPlace
from tasks.publication.night import part_name, read_night, write_night
from tasks.publication.object_store import Store
from tasks.publication.publishing import Provenance, publish_night
from tasks.publication.tables.delta import follow_manifest
from tasks.rows.partitions import Partitions, write_table
from tasks.runs.dvc import dvc_hash
from tasks.runs.experiments import Run
from tasks.runtime.files import file_sha256, write_json
from tasks.runtime.git import git
from tasks.runtime.paths import Paths
from tasks.validate import validate

NIGHTS = [date(2024, 1, 20), date(2024, 1, 21), date(2024, 1, 22)]
PERSON = "p00405"
"""A row of 2024-01-21: scored by the first night, labelled by the last."""


@dataclass
class Project:
    """Where everything lies."""

    base: Path
    product: Product

    @property
    def origin(self) -> Path:
        return self.base / "origin"

    @property
    def here(self) -> Path:
        return self.base / "here"

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def store(self) -> Store:
        return Store(self.product.publish.url)

    def place(self, as_of: date) -> NightPlace:
        return NightPlace(store=self.store, product="tiny", as_of=as_of)

    def environment(self) -> dict[str, str]:
        places = {"LAMPLIGHTER_ORIGIN": self.origin, "LAMPLIGHTER_CACHE": self.base / "cache"}
        places |= {"LAMPLIGHTER_HOME": self.home, "DVC_SITE_CACHE_DIR": self.base / "site"}
        places |= {"LAMPLIGHTER_TASK_LOGS": f"s3://{self.store.bucket}/logs"}
        return {name: str(value) for name, value in places.items()}

    def put(self, path: Path) -> dict[str, object]:
        """Put a file or folder into cache and remote as DVC does; what dvc.lock says of it."""
        files = [path] if path.is_file() else [each for each in sorted(path.rglob("*")) if each.is_file()]
        for file in files:
            self._put(_md5(file.read_bytes()), file.read_bytes())
        size = sum(file.stat().st_size for file in files)
        about = {"path": path.as_posix(), "hash": "md5"}
        if path.is_file():
            return {**about, "md5": _md5(path.read_bytes()), "size": size}
        named = [{"md5": _md5(each.read_bytes()), "relpath": each.relative_to(path).as_posix()} for each in files]
        md5 = dvc_hash(path)
        self._put(md5, json.dumps(named, sort_keys=True).encode())
        return {**about, "md5": md5, "size": size, "nfiles": len(files)}

    def _put(self, name: str, content: bytes) -> None:
        for place in ("cache", "remote"):
            file = self.base / place / "files" / "md5" / name[:2] / name[2:]
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.write_bytes(content)
                file.chmod(0o444)

    def experiment(self, as_of: date, kind: str, stages: dict[str, list[Path]]) -> Run:
        """Save a run with what its stages have made."""
        entries = {
            f"{name}@tiny": {"cmd": "x", "outs": [self.put(path) for path in paths]} for name, paths in stages.items()
        }
        head = git("rev-parse", "HEAD", cwd=self.origin).strip()
        text = (self.origin / "params.yaml").read_text()
        (self.origin / "params.yaml").write_text(text.replace("2024-02-10", as_of.isoformat()))
        (self.origin / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": entries}, sort_keys=False))
        git("add", "--force", "dvc.lock", "params.yaml", cwd=self.origin)
        git("commit", "--quiet", "-m", "dvc: commit experiment", cwd=self.origin)
        commit = git("rev-parse", "HEAD", cwd=self.origin).strip()
        git("reset", "--quiet", "--hard", head, cwd=self.origin)
        name = f"tiny-{as_of}-{kind}-{len(stages):08x}"
        run = Run(name=name, product="tiny", as_of=as_of.isoformat(), revision=head, shards=3, commit=commit)
        git("update-ref", run.reference, commit, cwd=self.origin)
        return run


def _md5(content: bytes) -> str:
    import hashlib

    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def declared_project(base: Path, text: str, rows: pd.DataFrame) -> Project:
    """Declare it below an empty folder, with a bucket of its own that keeps versions. The working directory is `here`.

    `text` is the file with its declaration, `rows` what its source delivers.
    """
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"], region_name="us-east-1")
    bucket = f"versions-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    text = text.replace("s3://lamplighter/predictions", f"s3://{bucket}/predictions")
    project = Project(base, params.loads(text).product("tiny"))
    _declare(project, text, rows)
    for name, value in project.environment().items():
        os.environ[name] = value
    os.chdir(project.here)
    return project


def lived_project(base: Path) -> Project:
    """Build it below an empty folder. The working directory is `here`."""
    text = TINY.replace('predictions"}', 'predictions", table: delta}')
    project, paths = declared_project(base, text, parcels()), Paths("tiny")
    runs = []
    for as_of in NIGHTS:
        ingest(project.product, as_of)
        validate(project.product, as_of)
        judged = [paths.valid, paths.quarantine, paths.report("validation.json")]
        _score(project, as_of)
        stages = {"ingest": [paths.raw], "validate": judged, "predict": [paths.predictions]}
        runs.append(project.experiment(as_of, "predict", stages))
        _publish(project, as_of, runs[-1])
    _train(project, judged)
    _leave_on_disk(project, runs[0])
    log = f"validate: {PERSON} repeats a key\n".encode()
    Store(os.environ["LAMPLIGHTER_TASK_LOGS"]).replace("dag_id=predict__tiny/task_id=validate/attempt=1.log", log, None)
    return project


def _declare(project: Project, text: str, rows: pd.DataFrame) -> None:
    origin = project.origin
    (origin / ".dvc").mkdir(parents=True)
    remote = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {project.base / 'remote'}\n"
    (origin / ".dvc" / "config").write_text(remote)
    (origin / ".gitignore").write_text("/data\n/source\n/.lamplighter\n")
    (origin / "params.yaml").write_text(text)
    (origin / "constraints.txt").write_text("")
    (origin / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    outs = {"ingest": ["raw"], "validate": ["valid", "quarantine"], "predict": ["predictions"], "split": ["splits"]}
    stages = {
        name: {"foreach": "${products}", "do": {"cmd": "x", "outs": [f"data/{each}/${{key}}" for each in places]}}
        for name, places in outs.items()
    }
    (origin / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    a_repository(origin)
    git("config", "receive.denyCurrentBranch", "updateInstead", cwd=origin)
    shutil.copytree(origin, project.here)
    (project.here / "source").mkdir()
    rows.to_csv(project.here / "source" / "parcels.csv", index=False)


def _score(project: Project, as_of: date) -> None:
    """Write a night of the valid rows, scored by no model."""
    paths, day = Paths("tiny"), as_of + timedelta(days=1)
    valid = Partitions(paths.valid / "rows")
    keys = valid.table(day).column("parcel_id").to_pylist()
    inputs = replace(night_inputs("m1", as_of, day), rows_sha256=valid.sha256(day))
    parts = []
    for shard in range(3):
        mine = keys[shard::3]
        scores = [i / 100 for i in range(len(mine))]
        frame = pd.DataFrame({"parcel_id": mine, "prediction": True, "probability": scores})
        file = paths.predictions / part_name(shard)
        write_table(file, frame)
        sizes = {"rows": len(mine), "bytes": file.stat().st_size, "sha256": file_sha256(file)}
        parts.append(Part(name=file.name, **sizes))
    write_night(project.product, as_of, inputs, parts, paths.predictions)


def _publish(project: Project, as_of: date, run: Run) -> None:
    place, night = project.place(as_of), read_night(Paths("tiny").predictions)
    model = ModelRef(sha256=night.model.sha256, version="v1.0.0", commit=None)
    provenance = Provenance(experiment=run.name, experiment_commit=run.commit, git_revision=run.revision, model=model)
    generation = manifests.acquire_generation(place, run.name)
    publish_night(place, night, Paths("tiny").predictions, generation, provenance)
    follow_manifest(place, 7, Paths("tiny").predictions)
    scores = Paths("tiny").predictions / "part-00002.parquet"  # in the first night the person is among them
    key = key_of(place, night.run, "ab" * 16)
    place.store.create_file(key, scores)
    part = PublishedPart(name="m", rows=7, bytes=1, sha256=file_sha256(scores), key=place.store.full_key(key))
    shadow = Shadow(roles=("anchor",), version="v0.0.1", commit="c" * 40, model="ab" * 16 + ".dir", part=part)
    record = NightRecord(
        as_of=as_of,
        scored_day=night.scored_day,
        run=night.run,
        rows_in=night.rows.rows_in,
        quarantined=night.rows.quarantined,
        published=night.rows.published,
        model_version="v1.0.0",
        predictions=Predictions(mean=0.5, deciles=(), shares={}),
        shadows=(shadow,),
    )
    keep(place.store, "tiny", [record])


def _train(project: Project, judged: list[Path]) -> None:
    """Save a training whose splits hold every valid row, and register its model as the champion."""
    paths = Paths("tiny")
    rows = Partitions(paths.valid / "rows")
    for name in ("train", "val", "test"):
        write_table(paths.splits / f"{name}.parquet", rows.read(rows.days()).drop(columns="dt"))
    for folder in (paths.trained, paths.onnx):
        write_json(folder / "features.json", {"vocabulary": ["A", "B"]})
    single = [{"key": PERSON, "place": "highest", "score": 0.9}, {"key": "p00001", "place": "lowest", "score": 0.1}]
    write_json(paths.report("evaluation.json"), {"rows": 3, "single_rows": single})
    stages = {
        "ingest": [paths.raw],
        "validate": judged,
        "split": [paths.splits],
        "train": [paths.trained],
        "evaluate": [paths.report("evaluation.json")],
        "export": [paths.onnx],
    }
    crown(project, project.experiment(NIGHTS[-1], "train", stages))
    page = f"<html><p>highest: {PERSON}</p></html>".encode()
    project.store.update("tiny/_reports/2024-01-22-00000006.html", lambda _: page)


def crown(project: Project, run: Run) -> None:
    """Register the model of a run as the champion."""
    import gto.api

    author = {"author": "Ann", "author_email": "ann@localhost"}
    gto.api.register(str(project.origin), "tiny", ref=run.commit, version="v1.0.0", **author)
    gto.api.assign(str(project.origin), "tiny", version="v1.0.0", stage="prod", message="the gates", **author)


def _leave_on_disk(project: Project, run: Run) -> None:
    """Leave what runs and people leave: a workspace, a log, a file to edit, a fold."""
    shutil.copytree(project.here / "data", run.workspace / "data")
    log = project.home / "airflow" / "logs" / "task.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"a line\nquarantined: {PERSON} has no weight\nanother line with p004051\n")
    edited = project.home / "quarantine" / "tiny" / "dt=2024-01-21.jsonl"
    edited.parent.mkdir(parents=True)
    edited.write_text(json.dumps({"row": "1", "cells": {"parcel_id": PERSON}}) + "\n")
    fold = project.home / "folds" / "tiny-0" / "splits.parquet"
    write_table(fold, pd.DataFrame({"parcel_id": [PERSON]}))
