"""Oracle: the three ways in must agree. Real DVC, real Airflow, a real S3 server, a tiny product.

One run through Airflow (train, then predict) is made once; each test then looks at what it left, or goes on from it.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import proxy
import pytest
from builders import TINY
from conftest import AS_OF, call, environment, make_project

from tasks.publication.object_store import Store
from tasks.read import read_manifest
from tasks.runtime.files import file_sha256

pytestmark = pytest.mark.long

URL = "s3://lamplighter/predictions"
SECRETS = {
    "LAMPLIGHTER_PII_KEY": "planted-secret-of-the-hashes",
    "WAREHOUSE_URL": "postgresql://me:planted-secret-of-the-warehouse@db/x",
}


@pytest.fixture(scope="module")
def airflow_run(tmp_path_factory, s3):
    """The tiny product, trained and published by its DAGs; whoever runs them by hand is the human who must approve."""
    asking = TINY.replace("gates: {", "gates: {approval: human, ")
    project = make_project(tmp_path_factory.mktemp("project") / "Vorhersagen für morgen", asking)
    env = environment(project / ".lamplighter", **s3, **SECRETS)
    travelled: list[tuple[str, str, int]] = []  # method, key and bytes of every request

    def note(request: proxy.Request) -> None:
        travelled.append((request.method, proxy.key_of(request.path), len(request.body)))

    with proxy.Proxy(s3["AWS_ENDPOINT_URL_S3"]) as between:
        between.reset(note)
        through = env | {"AWS_ENDPOINT_URL_S3": between.url}
        printed = call([sys.executable, "-m", "tasks.commands", "run", "tiny"], project, through)
    return SimpleNamespace(project=project, env=env, printed=printed, travelled=travelled)


@pytest.fixture
def published(airflow_run, monkeypatch):
    """The manifest, and an environment in which the store can be read."""
    for name, value in airflow_run.env.items():
        monkeypatch.setenv(name, value)
    stored = Store(URL).read(f"tiny/dt={AS_OF}/_manifest.json")
    assert stored is not None
    return stored.json()


def on_an_empty_disk(airflow_run, folder: Path) -> dict[str, str]:
    """The environment of a worker that has nothing of the run yet but the address of its origin."""
    return airflow_run.env | {
        "LAMPLIGHTER_HOME": str(folder),
        "LAMPLIGHTER_CACHE": str(folder / "cache"),
        "LAMPLIGHTER_ORIGIN": str(airflow_run.project),
    }


def experiments(project: Path, env: dict[str, str]) -> list[str]:
    return call(["git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/tiny-*"], project, env).split()


def in_project(code: str, project: Path, env: dict[str, str]) -> str:
    """What a Python program in the project prints."""
    return call([sys.executable, "-c", code], project, env)


def test_a_run_prints_what_a_person_wants_to_know(airflow_run):
    for text in (
        "held-out auc",
        "baseline",
        "tiny-2024-02-10-train-",
        "20 in = 19 valid + 1 quarantined; 19 published",
        f"{URL}/tiny/dt={AS_OF}/_manifest.json",
        "read_predictions(",
    ):
        assert text in airflow_run.printed


def test_parts_and_data_travel_once_to_the_store_and_once_to_the_remote(airflow_run, published):
    """Counted on the wire; a part's rows go to the store once more, in the night's file for readers by glob."""
    sent = [(unquote(key), n) for method, key, n in airflow_run.travelled if method in ("PUT", "POST") and n]
    fetched = [unquote(key) for method, key, _ in airflow_run.travelled if method == "GET"]
    parts = {part["key"]: part["bytes"] for part in published["parts"]}
    assert len(parts) == 3
    assert sorted(each for each in sent if "/_parts/" in each[0]) == sorted(parts.items())
    assert not parts.keys() & set(fetched), "this machine has them"
    to_remote = Counter(key for key, _ in sent if key.startswith("dvc/files/md5/"))
    assert set(to_remote.values()) == {1}, "nothing is sent again, of the training, the night and its parts"
    for part in published["parts"]:
        digest = hashlib.md5(Store(URL).read(Store(URL).key_of(part["key"])).body, usedforsecurity=False).hexdigest()
        assert to_remote[f"dvc/files/md5/{digest[:2]}/{digest[2:]}"] == 1
    assert not [key for key in fetched if re.fullmatch(r"dvc/files/md5/../.{30}", key)], "nor is it brought back"
    assert [each for each in sent if each[0].endswith(".parquet")] == [
        (published["file"]["key"], published["file"]["bytes"])
    ]


def test_the_manifest_leads_back_to_data_code_and_model(airflow_run, published):
    head = call(["git", "rev-parse", "HEAD"], airflow_run.project, airflow_run.env).strip()
    assert published["git_revision"] == head
    assert published["experiment"] in experiments(airflow_run.project, airflow_run.env)
    assert published["model"]["version"] == "v1.0.0"
    assert published["rows"] == {"in": 20, "published": 19, "quarantined": 1}
    assert {part["key"].rpartition("/")[2] for part in published["parts"]} == {f"part-{i:05d}" for i in range(3)}
    assert published["inputs"]["environment_sha256"] == file_sha256(airflow_run.project / "constraints.txt")
    assert {"name": "probability", "type": "float"} in published["schema"]


def test_dvc_repro_without_servers_gives_the_same_bytes_as_airflow(airflow_run, published, tmp_path):
    project = make_project(tmp_path / "laptop")  # with a cache of its own
    env = {name: value for name, value in environment(project / ".lamplighter").items() if not name.startswith("AWS_")}
    call(["dvc", "repro"], project, env)
    night = json.loads((project / "data/predictions/tiny/night.json").read_text())
    assert [part["sha256"] for part in night["parts"]] == [part["sha256"] for part in published["parts"]]
    assert night["run"] == published["run"]
    again = call(["dvc", "repro"], project, env)
    assert again.count("didn't change, skipping") == 9  # the stages, and the settings that they read
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("learning_rate: 0.003", "learning_rate: 0.002"))
    call(["dvc", "repro", "settings@tiny"], project, env)
    planned = call(["dvc", "repro", "--dry"], project, env)
    rerun = [line.split("'")[1] for line in planned.splitlines() if line.startswith("Running stage")]
    wanted = ["train@tiny", "evaluate@tiny", "export@tiny"]  # the last two read other keys of `model`, too
    assert rerun == wanted, "a new learning rate must rerun train, and nothing before it"
    assert "model.auc" in call(["dvc", "metrics", "show", "--md"], project, env)
    assert "index.html" in call(["dvc", "plots", "show"], project, env)


def test_dvc_lists_the_runs_that_airflow_made(airflow_run):
    shown = call(["dvc", "exp", "show", "--csv"], airflow_run.project, airflow_run.env)
    assert all(name in shown for name in experiments(airflow_run.project, airflow_run.env))
    assert "model.auc" in shown


def test_nothing_is_committed_to_a_branch(airflow_run):
    assert call(["git", "status", "--porcelain"], airflow_run.project, airflow_run.env) == ""
    assert call(["git", "rev-list", "--count", "main"], airflow_run.project, airflow_run.env).strip() == "1"


def test_a_run_ends_the_same_when_every_task_starts_on_an_empty_disk(airflow_run, published):
    """Workspace and cache are deleted before every task: all that is left is git and the DVC remote."""
    before = _objects(published)
    code = f"""
import os, shutil, sys
from pathlib import Path
from tasks.runtime.settings import settings
from tasks.runs.steps import open_run, step, shard, collect, validated_shards
def empty_disk():
    shutil.rmtree(settings().home, ignore_errors=True); shutil.rmtree(settings().cache, ignore_errors=True)
run = open_run("tiny", "predict", "{AS_OF}", "another run")
empty_disk(); step(run, "ingest")
empty_disk(); numbers = validated_shards(run)
parts = []
for number in numbers:
    empty_disk(); parts.append(shard(run, number))
empty_disk(); collect(run, parts)
empty_disk(); step(run, "publish")
"""
    elsewhere = airflow_run.project.parent / "elsewhere"
    env = airflow_run.env | {
        "LAMPLIGHTER_HOME": str(elsewhere),
        "LAMPLIGHTER_CACHE": str(elsewhere / "cache"),
        "LAMPLIGHTER_ORIGIN": str(airflow_run.project),
    }
    printed = in_project(code, airflow_run.project, env)
    assert "published already, unchanged" in printed
    assert _objects(published) == before


def test_way_back_leads_to_the_same_bytes_after_code_and_params_changed(airflow_run, tmp_path):
    """The night is made again from another clone, in which main has gone on; with a cache that is empty."""
    moved, uri = tmp_path / "moved", f"{URL}/tiny/dt={AS_OF}/_manifest.json"
    call(["git", "clone", "--quiet", str(airflow_run.project), str(moved)], tmp_path, airflow_run.env)
    for name, old, new in (
        ("model/heads/binary.py", "scores >= threshold", "scores > 0 * threshold"),
        ("params.yaml", "shards: 3", "shards: 2"),
    ):
        text = (moved / name).read_text()
        assert old in text
        (moved / name).write_text(text.replace(old, new))
    env = airflow_run.env | {"LAMPLIGHTER_HOME": str(tmp_path / "home"), "LAMPLIGHTER_ORIGIN": str(airflow_run.project)}
    told = call([sys.executable, "-m", "tasks.commands", "trace", uri], moved, env)
    head = call(["git", "rev-parse", "HEAD"], airflow_run.project, env).strip()
    for text in (
        f"{'code':<20}{head}",
        "tiny-2024-02-10-train-",
        "who ran it by hand, and the gates",
        "md5",
        "20 rows in, 1 quarantined",
    ):
        assert text in told, text
    assert "3 parts, 19 rows: every sha256 is equal" in call(
        [sys.executable, "-m", "tasks.commands", "recreate", uri], moved, env
    )


def _objects(manifest: dict) -> dict[str, str]:
    """Every object of the night with its entity tag."""
    import boto3

    listed = boto3.client("s3").list_objects_v2(Bucket="lamplighter", Prefix=f"predictions/tiny/dt={manifest['dt']}/")
    return {each["Key"]: f"{each['ETag']} {each['LastModified']}" for each in listed["Contents"]}


def test_silent_remote_is_left_to_a_retry_and_one_that_lost_data_not(airflow_run, tmp_path):
    code = f"""
from tasks.runtime.errors import TransientError, UserError
from tasks.runs.steps import open_run, step
try:
    step(open_run("tiny", "predict", "{AS_OF}", "a third run"), "ingest")
except (TransientError, UserError) as error:
    print("for a retry:" if isinstance(error, TransientError) else "for a person:", error)
"""
    env = on_an_empty_disk(airflow_run, tmp_path)
    nobody = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    down = in_project(code, airflow_run.project, env | nobody)
    assert "for a retry:" in down
    config = (airflow_run.project / ".dvc" / "config").read_text()
    lost = in_project(
        "import tasks.runs.workspace as w\n"
        "clone = w._clone\n"
        "def elsewhere(run):\n"
        "    clone(run)\n"
        "    config = run.workspace / '.dvc' / 'config'\n"
        "    config.write_text(config.read_text().replace('lamplighter/dvc', 'lamplighter/nothing'))\n"
        "w._clone = elsewhere\n" + code.replace("a third run", "a fourth run"),
        airflow_run.project,
        env,
    )
    assert "lamplighter/dvc" in config
    assert "for a person:" in lost
    assert "history would be lost" in lost


def test_a_remote_that_gives_other_bytes_than_it_was_given_feeds_no_run(airflow_run, published, tmp_path):
    """Every file of the remote with its last byte changed, under another address."""
    import boto3

    client = boto3.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="lamplighter", Prefix="dvc/"):
        for key in (each["Key"] for each in page["Contents"]):
            body = client.get_object(Bucket="lamplighter", Key=key)["Body"].read()
            if body and not key.endswith(".dir"):
                body = body[:-1] + bytes([body[-1] ^ 1])
            client.put_object(Bucket="lamplighter", Key=key.replace("dvc/", "damaged/", 1), Body=body)
    env = on_an_empty_disk(airflow_run, tmp_path)
    code = f"""
import tasks.runs.workspace as w
from tasks.runtime.errors import TransientError, UserError
from tasks.runs.steps import open_run, step
clone = w._clone
def elsewhere(run):
    clone(run)
    config = run.workspace / ".dvc" / "config"
    config.write_text(config.read_text().replace("lamplighter/dvc", "lamplighter/damaged"))
w._clone = elsewhere
try:
    step(open_run("tiny", "predict", "{AS_OF}", "a fifth run"), "ingest")
except (TransientError, UserError) as error:
    print("stopped:", type(error).__name__, error)
"""
    said = in_project(code, airflow_run.project, env)
    assert "stopped:" in said
    assert "without which history would be lost" in said, "it must be the pull that stops"


def test_a_task_killed_at_work_leaves_nothing_that_its_retry_trips_over(airflow_run, tmp_path):
    """SIGKILL in the middle of a stage, and a lock of git's left behind; the retry must still finish the stage."""
    env = on_an_empty_disk(airflow_run, tmp_path)
    code = f"""
from tasks.runs.steps import open_run, step
run = open_run("tiny", "train", "{AS_OF}", "a killed run")
step(run, "ingest")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=airflow_run.project, env=env, stdout=subprocess.PIPE
    ) as victim:
        assert victim.stdout is not None
        for line in victim.stdout:
            if b"python -m tasks.ingest" in line or b"ingest@tiny" in line:
                break
        victim.kill()
    (workspace,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    (workspace / ".git" / "index.lock").touch()
    assert workspace.with_suffix(".at-work").exists()
    assert "ingest" in in_project(code, airflow_run.project, env)
    assert workspace.name in experiments(airflow_run.project, env)
    assert not workspace.with_suffix(".at-work").exists()


def test_secrets_of_the_environment_reach_nothing_that_a_run_leaves(airflow_run, published):
    """Files (workspaces, logs, Airflow's database), git's objects, the store's objects, and what was printed."""
    import boto3

    secrets = [b"planted-secret", airflow_run.env["AWS_SECRET_ACCESS_KEY"].encode()]
    client = boto3.client("s3")
    keys = [
        each["Key"]
        for page in client.get_paginator("list_objects_v2").paginate(Bucket="lamplighter")
        for each in page["Contents"]
    ]
    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=airflow_run.project, capture_output=True, check=True
    ).stdout
    left = {"printed": airflow_run.printed.encode(), "git": objects}
    left |= {f"s3://{key}": client.get_object(Bucket="lamplighter", Key=key)["Body"].read() for key in keys}
    left |= {
        str(file): file.read_bytes()
        for file in airflow_run.project.rglob("*")
        if file.is_file() and file != airflow_run.project / ".lamplighter/env"
    }
    assert len(keys) > 20
    assert any(name.endswith(".db") for name in left)
    assert not [name for name, content in left.items() if any(secret in content for secret in secrets)]


def test_model_that_is_not_the_registered_one_scores_nothing(airflow_run, tmp_path):
    code = f"""
import tasks.runs.workspace as w
from tasks.runtime.errors import UserError
from tasks.runs.steps import open_run, shard, step
run = open_run("tiny", "predict", "{AS_OF}", "a run with another model")
step(run, "ingest")
step(run, "validate")
pull = w.pull
def changed(run, paths, meaning):
    pull(run, paths, meaning)
    with (run.workspace / "data/models/tiny/onnx/features.json").open("a") as file:
        file.write(" ")
w.pull = changed
try:
    shard(run, 0)
except UserError as error:
    print("refused:", error)
"""
    env = on_an_empty_disk(airflow_run, tmp_path)
    assert "data/models/tiny/onnx must be what is registered" in in_project(code, airflow_run.project, env)


def test_backfill_makes_what_is_missing_as_of_its_own_date(airflow_run, published):
    """The last test of this file: later nights than the others know of."""
    command = [sys.executable, "-m", "tasks.commands", "backfill", "tiny", "--from", AS_OF, "--to", "2024-02-12"]
    shown = call([*command, "--dry"], airflow_run.project, airflow_run.env)
    states = [line.split()[1] for line in shown.splitlines() if line.startswith("2024")]
    assert states == ["published", "missing", "missing"]
    before = read_manifest(URL, "tiny", AS_OF)
    printed = call(command, airflow_run.project, airflow_run.env)
    assert printed.endswith(f"nothing is missing from {AS_OF} to 2024-02-12\n"), printed
    assert f"2024-02-11  published  20    {before.model.version}" in printed
    nights = [read_manifest(URL, "tiny", day) for day in (AS_OF, "2024-02-11", "2024-02-12")]
    assert nights[0] == before, "what is there is left alone"
    assert [str(night.scored_day) for night in nights] == ["2024-02-11", "2024-02-12", "2024-02-13"]
