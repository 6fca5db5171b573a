"""Oracle: a drill. The machine is lost, and what a new clone publishes next is what the lost one would have."""

import hashlib
import json
import re
import shutil
import sys
from datetime import date
from pathlib import Path

import chaos_restore
import pandas as pd
import pytest
import yaml
from builders import TINY
from chaos_runs import TRAIN_STEPS
from conftest import call, environment, make_project
from test_publish import url  # noqa: F401 (a fixture)
from test_retention import lived, project  # noqa: F401 (fixtures)

from tasks.commands.upkeep import restore as command
from tasks.commands.upkeep.restore import restore
from tasks.publication.object_store import Store
from tasks.publication.salts.shard import Shard
from tasks.publication.salts.table import SaltTable
from tasks.read import read_manifest
from tasks.rows.decisions import Accepted, file_of, write_decisions
from tasks.rows.intake.erased import Tombstone, Tombstones
from tasks.rows.intake.erased import file_of as erased_file
from tasks.runtime.errors import UserError
from tasks.runtime.git import git

pytestmark = pytest.mark.long

URL = "s3://lamplighter/restore-drill"
FIRST, NEXT = "2024-02-10", "2024-02-11"
SCORED = date(2024, 2, 12)
WHY = "half of the depots are closed"


WORK = """
import sys
from tasks.runs.steps import night, open_run, step
kind, as_of, *names = sys.argv[1:]
run = open_run("tiny", kind, as_of, "drill")
for name in names:
    step(run, name)
if kind == "predict":
    night(run)
"""
"""The work of a whole DAG in one process."""


def work(folder: Path, s3: dict[str, str], kind: str, as_of: str) -> str:
    """What a run prints on a machine that works in a folder, from which its runs clone."""
    steps = TRAIN_STEPS if kind == "train" else ()
    return call([sys.executable, "-c", WORK, kind, as_of, *steps], folder, environment(folder / ".lamplighter", **s3))


def commit(folder: Path, message: str) -> None:
    git("add", "--all", cwd=folder)
    git("-c", "user.name=Test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", message, cwd=folder)


@pytest.fixture(scope="module")
def lost(tmp_path_factory, s3):
    """A machine that has trained and published a night, and is gone; a mirror of its git, and the buckets, are left."""
    folder = tmp_path_factory.mktemp("machines")
    text = TINY.replace("s3://lamplighter/predictions", URL)
    made = make_project(folder / "first" / "clone", text)
    config = made / ".dvc" / "config"
    config.write_text(config.read_text().replace("s3://lamplighter/dvc", "s3://lamplighter/dvc-of-the-drill"))
    commit(made, "Data of its own")
    for kind in ("train", "predict"):
        work(made, s3, kind, FIRST)
    # From now on the source has forgotten its past, and the day that is scored next has few rows.
    source = made / "source" / "parcels.csv"
    rows = pd.read_csv(source, dtype=str, keep_default_na=False)
    few = rows[rows["day"] >= "2024-02-10"]
    few = few[(few["day"] != SCORED.isoformat()) | (few.groupby("day").cumcount() < 5)]
    few.to_csv(source, index=False)
    decision = Accepted(decided=NEXT, person="Ann", why=WHY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        write_decisions(file_of("tiny", SCORED), [decision])
    commit(made, "A day is accepted")
    git("clone", "--quiet", "--mirror", str(made), str(folder / "backup.git"))
    made.parent.rename(folder / "gone")
    return folder


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_next_night_is_the_one_that_the_lost_machine_would_have_published(lost, s3_here):
    before = read_manifest(URL, "tiny", FIRST)
    clone = lost / "second" / "clone"
    git("clone", "--quiet", "--no-local", str(lost / "backup.git"), str(clone))
    git("config", "user.name", "Test", cwd=clone)
    git("config", "user.email", "test@localhost", cwd=clone)
    asked = [sys.executable, "-m", "tasks.commands", "restore", "--all"]
    printed = call(asked, clone, environment(clone / ".lamplighter", **s3_here))
    assert "restore: 2 experiments fetched" in printed
    assert re.search(r"tiny: 1 nights, the newest of 2024-02-10; champion v1.0.0; history of tiny-2024-02-10-", printed)
    assert "restore: all is there from which the next nights are made" in printed
    work(clone, s3_here, "predict", NEXT)
    after = read_manifest(URL, "tiny", NEXT)
    assert (after.model.version, after.model.commit) == ("v1.0.0", before.model.commit)
    assert WHY in after.accepted
    workspace = next((clone / ".lamplighter" / "runs").glob(f"tiny-{NEXT}-predict-*[0-9a-f]"))
    assert (workspace / "data/raw/tiny/rows/dt=2024-01-01.parquet").exists(), "the source has forgotten it"
    # The lost machine comes back and makes that night too, as if the new one had not: else it would stop, since it
    # does not have the run that has published it.
    store = Store(URL)
    for key in [key for key in store.list("tiny/") if f"dt={NEXT}" in key or key.endswith("/_latest.json")]:
        store.delete(key)
    (lost / "gone").rename(lost / "first")
    work(lost / "first" / "clone", s3_here, "predict", NEXT)
    meant = read_manifest(URL, "tiny", NEXT)
    assert (after.run, after.parts, after.rows) == (meant.run, meant.parts, meant.rows)


@pytest.fixture
def new_clone(project, lived, tmp_path, monkeypatch):  # noqa: F811
    """A plain clone of the origin, which is where its runs begin from now on."""
    clone = tmp_path / "new"
    git("clone", "--quiet", "--no-local", str(project.origin), str(clone))
    monkeypatch.chdir(clone)
    monkeypatch.setattr(command, "ROOT", clone)
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(clone))
    shutil.rmtree(project.cache)
    return clone


def experiments_of(clone: Path) -> set[str]:
    return set(git("for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", "refs/exps", cwd=clone).split("\n"))


def test_restore_that_is_killed_is_finished_by_the_next_one(project, new_clone, url, monkeypatch):  # noqa: F811
    monkeypatch.setattr(command, "_REFS_AT_ONCE", 1)
    chaos_restore.check_killed(new_clone, project.origin)


def test_clone_has_experiments_again_and_nothing_else_changes(project, new_clone, url, capsys):  # noqa: F811
    assert experiments_of(new_clone) == {""}
    before = {key: Store(url).read(key).etag for key in Store(url).list("")}
    assert restore(every_byte=True) == "restore: all is there from which the next nights are made"
    assert experiments_of(new_clone) == experiments_of(project.origin) != {""}
    assert "9 experiments fetched" in capsys.readouterr().out
    assert before == {key: Store(url).read(key).etag for key in Store(url).list("")}


def test_experiment_that_is_newer_here_stays_as_it_is(project, lived, new_clone):  # noqa: F811
    restore()
    newer = git("rev-parse", "HEAD", cwd=new_clone).strip()
    git("update-ref", lived["rejected"].reference, newer, cwd=new_clone)
    restore()
    assert f"{lived['rejected'].name} {newer}" in experiments_of(new_clone)


def test_data_of_champion_or_history_that_are_lost_or_damaged_are_named(project, lived, new_clone):  # noqa: F811
    lost = project.store(b"history")
    file = project.remote / "files" / "md5" / lost[:2] / lost[2:]
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"hist0ry")
    restore()
    meanings = ["the champion v1.0.0", re.escape(f"the history, {lived['newest'].name}")]
    for meaning in meanings:
        with pytest.raises(UserError, match=rf"products.tiny: 1 of \d objects of {meaning}, in .*, such as {lost}"):
            restore(every_byte=True)
    file.unlink()
    with pytest.raises(UserError, match=rf"must be in git and in the buckets, and this is not(?s:.*){lost}"):
        restore()
    file.write_bytes(whole)
    restore(every_byte=True)


def test_night_that_is_lost_or_damaged_is_named(new_clone, url):  # noqa: F811
    store, part = Store(url), read_manifest(url, "tiny", "2024-02-10").parts[1]
    key = store.key_of(part.key)
    whole = store.read(key)
    store.replace(key, whole.body[:-9] + b"\0" * 9, whole)
    restore()
    with pytest.raises(UserError, match=r"products.tiny: s3://.*part-00001: must be as the manifest says, and is dama"):
        restore(every_byte=True)
    store.delete(key)
    with pytest.raises(
        UserError, match=r"products.tiny: 1 files of the night of 2024-02-10, such as s3://.*/part-0000"
    ):
        restore()


def test_backup_of_git_without_experiments_is_told(project, lived, new_clone):  # noqa: F811
    """As a backup that a plain `git clone` or `git push` has made."""
    for run in lived.values():
        git("update-ref", "-d", run.reference, cwd=project.origin)
    git("-c", "gc.reflogExpire=now", "reflog", "expire", "--expire=now", "--all", cwd=project.origin)
    git("gc", "--quiet", "--prune=now", cwd=project.origin)
    named = lived["night"].name
    with pytest.raises(UserError, match=rf"products.tiny: the experiment {named} of the night of 2024-02-10, in git"):
        restore()


@pytest.fixture
def hashed(project, lived, new_clone, url, monkeypatch):  # noqa: F811
    """The salts of a product that hashes by them, of which the newest run has stored rows of 40 persons."""
    monkeypatch.setenv("LAMPLIGHTER_PII_KEY", "a key of the tests, long enough")
    content = yaml.safe_load((new_clone / "params.yaml").read_text())
    content["products"]["tiny"]["pii"] = {"depot": "salted"}
    (new_clone / "params.yaml").write_text(yaml.safe_dump(content))
    commit(new_clone, "Depots are persons")
    table, counted = SaltTable(Store(url), "tiny"), {}
    table.minting(True, counted)([hashlib.sha256(bytes([each])).hexdigest()[:32] for each in range(40)])
    project.experiment("2024-03-01", "predict", 11, **{"index.json": json.dumps({"salts": counted})})
    return table


def test_salts_that_are_lost_damaged_or_older_than_rows_are_named(hashed, url):  # noqa: F811
    assert restore() == "restore: all is there from which the next nights are made"
    store, keys = Store(url), [hashed.key(digit) for digit in "01"]
    whole = {key: store.read(key).body for key in keys}
    store.update(keys[0], lambda _: Shard(product="tiny").encode())
    store.update(keys[1], lambda _: whole[keys[1]].replace(b"salts", b"slats"))
    store.delete(hashed.key("f"))
    with pytest.raises(UserError) as told:
        restore()
    lost, older, damaged = str(told.value).splitlines()[1:]
    where = f"{url}/tiny/_salts"
    assert lost.startswith(
        f"products.tiny: 1 of 16 objects of salts, such as {where}/f.json, by which stored rows are h"
    )
    assert re.search(
        rf"^products.tiny: {where}/0.json: must have the salts of \d+ subjects, .* and has 0: it is", older
    )
    assert damaged.startswith(f"products.tiny: {where}/1.json: salts must be as they were written, and arrived damaged")


def test_variables_that_its_products_need_are_named(project, new_clone, monkeypatch, capsys):  # noqa: F811
    content = yaml.safe_load((new_clone / "params.yaml").read_text())
    product = content["products"]["tiny"]
    product["pii"], product["source"] = {"depot": "hash"}, {"kind": "csv", "url_env": "PARCELS_URL"}
    (new_clone / "params.yaml").write_text(yaml.safe_dump(content))
    stone = Tombstone(columns=("parcel_id",), hmac="0" * 64, decided="2024-02-10", person="T", why="asked for")
    Tombstones(key="1" * 64, erased=(stone,)).write(new_clone / erased_file("tiny"))
    git("add", "--all", cwd=new_clone)
    git("-c", "user.name=T", "-c", "user.email=t@x", "commit", "--quiet", "--all", "-m", "Secrets", cwd=new_clone)
    monkeypatch.setenv("PARCELS_URL", "source/parcels.csv")
    restore()
    printed = capsys.readouterr().out
    assert "tiny: LAMPLIGHTER_PII_KEY must be set where its runs work, and is not here" in printed
    assert "tiny: LAMPLIGHTER_ERASURE_KEY must be set where its runs work, and is not here" in printed
    assert "PARCELS_URL" not in printed
