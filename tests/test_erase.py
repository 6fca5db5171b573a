"""Oracle: a search of its own through every file, object and version; other rows as they were; DVC's own pull."""

import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import boto3
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from erased_project import NIGHTS, PERSON, Project, lived_project
from test_salts import LABELS_OF_FORGETTING

from tasks.commands.nights.recreate import recreate
from tasks.commands.nights.trace import trace
from tasks.erasure import disk, proof
from tasks.ingest import ingest
from tasks.monitoring.past import nights as recorded
from tasks.publication.manifests import current_manifest
from tasks.publication.tables.delta import open_table
from tasks.read import read_predictions
from tasks.runs import retention
from tasks.runs.dvc import lock_at
from tasks.runs.experiments import experiments
from tasks.runs.registry.tags import registry_of
from tasks.runtime.errors import UserError
from tasks.runtime.git import git
from tasks.runtime.paths import Paths
from tasks.validate import validate

PERSONS = ("Ann", date(2024, 3, 1))
LABELS = [
    "erase: what was found is kept",
    "erase: the origin knows",
    "erase: the data of an experiment are made anew",
    "erase: an experiment has moved",
    "erase: the experiments have moved",
    "erase: the generation is acquired",
    "erase: a part is uploaded",
    "erase: the manifest has moved",
    "erase: the night file has followed",
    "erase: a part is deleted",
    "erase: scores are written anew",
    "erase: the table has followed",
    "erase: a record is written",
    "erase: a log is written",
    "erase: the nights are published",
    "erase: the models are marked",
    "erase: the workspaces are removed",
    "erase: logs are written over",
    "erase: raw data of the folder are written",
    "gc: objects are removed",
    "erase: old data are removed",
    "erase: a version is deleted",
    "erase: old data are gone",
]
"""In the order in which they are come to."""


def erase_here(here, key, why="asked for in a letter", **options):
    """Erase in a process, as `make erase` does; ROOT is the clone of the test."""
    from tasks.commands.upkeep import erase as command

    for module in (retention, disk, proof):
        module.ROOT = Path(here)
    return command.erase_rows(_product(), key, why, *PERSONS, **options)


def _product():
    from tasks import params

    return params.load().product("tiny")


def erase_apart(here, environment, label, key):
    """Erase in a process of its own, which is killed at a label; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["erased_project", "tasks.commands.upkeep.erase", "deltalake", "gto.api"])
    process = context.Process(target=_erase, args=(str(here), environment, label, key))
    process.start()
    process.join(600)
    return process.exitcode


def _erase(here, environment, label, key):
    os.environ.update(environment)
    os.environ["LAMPLIGHTER_CRASH_AT"] = label
    os.chdir(here)
    with Path("../killed.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        print(erase_here(here, key, yes=True), flush=True)


def decided(project: Project, key=PERSON):
    """Write the decision, and commit it to the origin, as a person does."""
    said = erase_here(project.here, key)
    assert "commit it and push it" in said
    git("add", "decisions", cwd=project.here)
    git("commit", "--quiet", "-m", "A person asked", cwd=project.here)
    git("push", "--quiet", str(project.origin), "HEAD:main", cwd=project.here)
    return said


@pytest.fixture
def project(s3_here, tmp_path, monkeypatch):
    for name in (
        "LAMPLIGHTER_ORIGIN",
        "LAMPLIGHTER_CACHE",
        "LAMPLIGHTER_HOME",
        "DVC_SITE_CACHE_DIR",
        "LAMPLIGHTER_TASK_LOGS",
    ):
        monkeypatch.setenv(name, "")
    for module in (retention, disk, proof):
        monkeypatch.setattr(module, "ROOT", tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    return lived_project(tmp_path)


def shows(content: bytes, person=PERSON) -> bool:
    """Whether bytes show the person: as a cell of a table, or as a word of anything else."""
    if content[:4] == b"PAR1":
        table = pq.read_table(io.BytesIO(content)).to_pandas()
        return any((table[name].astype(str) == person).any() for name in table)
    return re.search(rb"(?<![0-9A-Za-z])" + person.encode() + rb"(?![0-9A-Za-z])", content) is not None


def everything(project: Project) -> dict[str, bytes]:
    """Every file of this disk but the source and git's own, and every version of every object."""
    found = {
        str(file): file.read_bytes()
        for file in project.base.rglob("*")
        if file.is_file() and ".git" not in file.parts and "source" not in file.parts and "site" not in file.parts
    }
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"], region_name="us-east-1")
    bucket = project.store.bucket
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for each in page.get("Versions", []):
            body = client.get_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])["Body"].read()
            found[f"{each['Key']} {each['VersionId']}"] = body
    return found


def where(project: Project, person=PERSON) -> list[str]:
    return sorted(place for place, content in everything(project).items() if shows(content, person))


def others_of_nights(project: Project) -> dict[date, pd.DataFrame]:
    url = project.product.publish.url
    found = {day: read_predictions(url, "tiny", day.isoformat()) for day in NIGHTS}
    return {day: rows[rows["parcel_id"] != PERSON].reset_index(drop=True) for day, rows in found.items()}


def pulled(project: Project, reference: str, folder: Path) -> dict[str, bytes]:
    """What DVC brings of a run from the remote alone."""
    git("clone", "--quiet", str(project.origin), str(folder))
    git("fetch", "--quiet", str(project.origin), reference, cwd=folder)
    git("checkout", "--quiet", "FETCH_HEAD", cwd=folder)
    env = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder.with_suffix(".site"))}
    wanted = [path for path in lock_at(folder, "HEAD").outs() if path.split("/")[1] not in ("models", "reports")]
    command = [sys.executable, "-m", "dvc", "pull", *wanted]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {str(file.relative_to(folder)): file.read_bytes() for file in (folder / "data").rglob("*") if file.is_file()}


def check_erased(project: Project, before: dict[date, pd.DataFrame]) -> None:
    """All that must hold of a product of which the person was erased."""
    assert where(project) == []
    after = others_of_nights(project)
    assert all(after[day].equals(before[day]) for day in NIGHTS), "other rows are as they were"
    first = current_manifest(project.place(NIGHTS[0]))
    assert (first.rows.erased, first.rows.published, first.rows.add_up) == (1, 19, True)
    assert [current_manifest(project.place(day)).rows.erased for day in NIGHTS[1:]] == [0, 0]
    record = recorded(project.store, "tiny", NIGHTS[0], NIGHTS[0])[NIGHTS[0]]
    assert (record.run, record.published) == (first.run, 19)
    assert project.store.sha256(project.store.key_of(record.shadows[0].part.key)) == record.shadows[0].part.sha256
    table = open_table(project.store, "tiny").to_pyarrow_table().to_pandas()
    assert len(table) == 59
    saved = {each.name: each for each in experiments("tiny")}
    assert first.experiment_commit == saved[first.experiment].commit, "the manifest names the run as it is now"
    with registry_of("tiny") as registry:
        assert {registry.version_at(act.commit) for act in registry.effect.deprecated.values()} == {"v1.0.0"}
        assert registry.champion.version == "v1.0.0", "it predicts until another one takes its place"


@pytest.mark.long
def test_person_is_nowhere_and_all_other_rows_are_as_before(project, tmp_path, capsys):
    before = others_of_nights(project)
    assert len(where(project)) > 20
    old = {each.name: each.commit for each in experiments("tiny")}
    decided(project)
    said = erase_here(project.here, PERSON, yes=True)
    assert "1 rows of tiny are gone" in said
    assert "train tiny again" in said
    check_erased(project, before)
    for each in experiments("tiny"):
        files = pulled(project, each.reference, tmp_path / each.name)
        assert not [place for place, content in files.items() if shows(content)]
        assert any(name.startswith("data/raw/tiny/rows") for name in files)
    capsys.readouterr()
    uri = project.store.uri(project.place(NIGHTS[0]).manifest)
    assert "+ 1 erased since, on a person's word" in trace(uri)
    # The manifest of before is kept, and leads to data that are gone.
    earlier = project.store.uri(project.place(NIGHTS[0]).history(1))
    assert "gone: it held rows that were erased" in trace(earlier)
    with pytest.raises(UserError, match=r"held rows that a person has had erased"):
        recreate(earlier, installed=True)
    again = erase_here(project.here, PERSON, yes=True)
    assert "0 nights were published anew" in again
    assert {each.name: each.commit for each in experiments("tiny")} != old


@pytest.mark.long
def test_source_that_offers_the_row_again_is_refused_it(project):
    decided(project)
    erase_here(project.here, PERSON, yes=True)
    ingest(project.product, date(2024, 1, 23))
    report = json.loads(Paths("tiny").report("ingest.json").read_text())
    assert report["rows_erased"] == 1
    left_out = ("rows_delivered", "rows_withdrawn", "rows_total")
    names = [name for name in report if name.startswith("rows_") and name not in left_out]
    assert report["rows_delivered"] == sum(report[name] for name in names)
    validate(project.product, date(2024, 1, 23))
    counts = json.loads(Paths("tiny").report("validation.json").read_text())["rows"]
    assert counts["rows_in"] == counts["rows_valid"] + counts["rows_quarantined"]
    assert where(project) == []


def check_killed(project, labels):
    """Erase in processes that are killed at one label after the other, then in one that is not; check what is left."""
    before = others_of_nights(project)
    decided(project)
    environment = {name: os.environ[name] for name in os.environ if name.startswith(("LAMPLIGHTER", "AWS", "DVC"))}
    for label in labels:
        code = erase_apart(project.here, environment, label, PERSON)
        assert code == -9, f"{label}: {code}\n" + (project.base / "killed.log").read_text()[-3000:]
    assert erase_apart(project.here, environment, "", PERSON) == 0, (project.base / "killed.log").read_text()[-3000:]
    (project.base / "killed.log").unlink()
    check_erased(project, before)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_erasure_that_is_killed_ends_the_same(project):
    """At every label: tests/chaos_erasure.py."""
    check_killed(project, LABELS[2::5])


def test_every_label_of_the_erasure_is_tried():
    sources = [file.read_text() for file in (ROOT / "tasks" / "erasure").glob("*.py")]
    written = {line.split('"')[1] for text in sources for line in text.splitlines() if "failpoint(" in line}
    tried = {label for label in LABELS if label.startswith("erase:")} | set(LABELS_OF_FORGETTING)
    assert written == tried
