"""Oracle: a real origin with GTO's tags, and a real S3 server's claims."""

import uuid
from datetime import UTC, date, datetime, timedelta

import pytest
from builders import TINY, a_repository
from conftest import AS_OF

from tasks.publication import manifests
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.runs import experiments
from tasks.runs.registry import champions
from tasks.runs.steps import open_run
from tasks.runtime import git
from tasks.runtime.errors import UserError


@pytest.fixture
def origin(s3_here, tmp_path, monkeypatch):
    """An origin that declares the tiny product, published to a place of its own; the working directory is a clone."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    for each in (origin, clone):
        a_repository(each, message=None)
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(origin))
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path))
    (origin / "params.yaml").write_text(TINY.replace("s3://lamplighter/", f"s3://lamplighter/{uuid.uuid4().hex}/"))
    commit(origin, "Declare a product")
    monkeypatch.chdir(clone)
    return origin


def commit(origin, what):
    git.git("add", "--all", cwd=origin)
    git.git("commit", "--quiet", "--allow-empty", "-m", what, cwd=origin)
    return git.git("rev-parse", "HEAD", cwd=origin).strip()


def promote(origin, leader):
    """Make a model the champion: that of an experiment, whose commit is on no branch."""
    made = commit(origin, f"An experiment {uuid.uuid4().hex}")  # two within a second would be one commit
    git.git("fetch", "--quiet", str(origin), "HEAD")
    git.git("reset", "--quiet", "--hard", "HEAD~", cwd=origin)
    return champions.promote("tiny", made, date.fromisoformat(AS_OF), leader, "approved by the gates")


@pytest.mark.parametrize("kind", ["train", "predict"])
def test_run_that_is_opened_again_is_the_same_until_head_or_champion_have_changed(origin, kind):
    """So that no workspace has the code of one commit, or the model of one champion, under the name of another."""
    leader = promote(origin, None)
    first = open_run("tiny", kind, AS_OF, "a run of Airflow's")
    assert open_run("tiny", kind, AS_OF, "a run of Airflow's") == first
    assert open_run("tiny", kind, AS_OF, "another").name != first.name
    promote(origin, leader)
    promoted = open_run("tiny", kind, AS_OF, "a run of Airflow's")
    assert (promoted.workspace == first.workspace) == (kind == "train")
    commit(origin, "Mend")
    mended = open_run("tiny", kind, AS_OF, "a run of Airflow's")
    assert mended.workspace not in (first.workspace, promoted.workspace)


def test_run_is_opened_as_the_commit_declares_and_not_the_working_tree(origin):
    promote(origin, None)
    revision, declared = experiments.head()
    file = origin / "params.yaml"
    committed = declared.product("tiny")
    file.write_text(file.read_text().replace("shards: 3", "shards: 5").replace("/predictions", "/elsewhere"))
    run = open_run("tiny", "predict", AS_OF, "a run of Airflow's")
    assert (run.revision, run.shards, run.generation) == (revision, 3, 1)
    place = NightPlace(store=Store(committed.publish.url), product="tiny", as_of=date.fromisoformat(AS_OF))
    again = manifests.acquire_generation(place, run.name)
    assert again == run.generation, "it is claimed where the night will be published"
    assert Store(committed.publish.url.replace("/predictions", "/elsewhere")).list("") == {}


def test_run_of_a_day_that_has_not_come_is_refused(origin):
    """For its night would be the newest one until then."""
    promote(origin, None)
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    assert open_run("tiny", "predict", tomorrow.isoformat(), "a run of Airflow's").generation == 1
    with pytest.raises(UserError, match=r"as_of must have come, got 2\d{3}-.*correct it"):
        open_run("tiny", "predict", (tomorrow + timedelta(days=2)).isoformat(), "a run of Airflow's")


def test_run_after_the_end_of_the_data_is_refused(origin):
    """Such as the first run of a demonstration whose DAG is unpaused."""
    promote(origin, None)
    file = origin / "params.yaml"
    declared = experiments.head()[1].product("tiny")
    ends = date.fromisoformat(AS_OF) + timedelta(days=declared.predict.horizon_days)
    file.write_text(file.read_text().replace("source: {", f'source: {{ends: "{ends}", '))
    commit(origin, "The data end")
    assert open_run("tiny", "predict", AS_OF, "a run of Airflow's").generation == 1
    for kind in ("train", "predict"):
        with pytest.raises(UserError, match=f"source.ends: the data end on {ends}.* as_of up to {AS_OF}, or delete"):
            open_run("tiny", kind, "2024-02-11", "a run of Airflow's")


def mirrored(store):
    return manifests.decode_checked(store.read("tiny/_champion.json"))


def test_night_without_a_champion_is_refused_and_readers_learn_that_none_predicts(origin):
    product = experiments.head()[1].product("tiny")
    store = Store(product.publish.url)
    with pytest.raises(UserError, match="must have been promoted, and none has"):
        open_run("tiny", "predict", AS_OF, "a run of Airflow's")
    assert store.list("") == {}, "nothing is said of a product that never had one"
    leader = promote(origin, None)
    champions.mirror(product)
    assert mirrored(store)["version"] == leader.version
    for tag in git.git("tag", "--list", cwd=origin).split():
        git.git("tag", "--delete", tag, cwd=origin)
    with pytest.raises(UserError, match="must have been promoted, and none has"):
        open_run("tiny", "predict", AS_OF, "a run of Airflow's")
    assert mirrored(store) == {"product": "tiny", "version": None, "commit": None, "experiment": None}
