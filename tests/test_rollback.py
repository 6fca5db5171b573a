"""Oracle: git's tags on a real origin, the store's objects and a receiver's messages, after SIGKILL at each label."""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
from datetime import date, timedelta

import pytest
from conftest import ROOT
from test_messages import hook, only_declared_here  # noqa: F401 (fixtures)
from test_publish import AS_OF, url  # noqa: F401 (url is a fixture)
from test_registry import origin, promote  # noqa: F401 (origin is a fixture)
from test_shadow import described, model, models, published, trained, valid_day  # noqa: F401 (fixtures)

from tasks.monitor import monitor
from tasks.monitoring.contracts import NightRecord, Predictions, Truth
from tasks.monitoring.messages.contracts import Outgoing
from tasks.monitoring.past import keep, nights
from tasks.monitoring.status import read_status
from tasks.publication.manifests import read_checked
from tasks.runs.experiments import Run
from tasks.runs.registry import champions
from tasks.runtime import git

LABELS = (
    "shadow: a night is scored",
    "monitor: the past is about to be kept",
    "monitor: the past is kept",
    "promote: the tags are pushed",
    "monitor: the champion before predicts again",
    "tell: the message is claimed",
)
"""In the order in which a night that rolls back passes them; each kill leaves what the next try begins with."""
_FORKS = multiprocessing.get_context("forkserver")


def monitor_here(folder, address, environment):
    """Monitor the night of the tests in a process of its own."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    monitor(described(address), AS_OF)


def ended(address, crash_at):
    """The exit code of a process that monitors the night, and dies at a label."""
    environment = {**os.environ, "LAMPLIGHTER_CRASH_AT": crash_at}
    process = _FORKS.Process(target=monitor_here, args=(os.getcwd(), address, environment))
    process.start()
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module", autouse=True)
def forks():
    """A server of forks that has imported what they need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
        _FORKS.set_forkserver_preload(["test_rollback"])
        multiprocessing.forkserver.ensure_running()
        yield


def better_before(store, leader):
    """Put 40 nights on record, in each of which the champion before was better on the same rows."""
    records = []
    for i in range(1, 41):
        day = AS_OF - timedelta(days=i)
        truth = Truth(as_of=min(day + timedelta(days=2), AS_OF), labelled=60, metric="auc", value=0.7 + i % 3 / 100)
        truth = Truth.from_json({**truth.to_json(), "shadows": {"v1.0.0": 0.8 + i % 2 / 100}})
        nothing = Predictions(mean=None, deciles=(), shares={})
        rows = {"rows_in": 60, "quarantined": 0, "published": 60}
        of = {"model_version": leader.version, "model_commit": leader.commit, "predictions": nothing, "truth": truth}
        records.append(NightRecord(as_of=day, scored_day=day + timedelta(days=1), run="x", **rows, **of))
    keep(store, "tiny", records)


@pytest.mark.long
def test_night_killed_at_every_label_scores_and_rolls_back_once(url, origin, models, hook, monkeypatch):  # noqa: F811
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080/")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "scheduled__2024-02-11T02:00:00+00:00")
    product = described(url)
    valid_day(AS_OF + timedelta(days=1))
    commits = [trained(origin, date(2024, 2, 1 + i), models[i]) for i in range(2)]
    leader = promote(commits[1], promote(commits[0], None, as_of=date(2024, 2, 1)), as_of=date(2024, 2, 2))
    facts = {"name": "tiny-2024-02-10-predict-00000000", "product": "tiny", "as_of": str(AS_OF), "shards": 3}
    run = Run(**facts, revision="ab" * 20, champion=leader.commit, model_version=leader.version)
    place = published(product, models[1], run=run)
    better_before(place.store, leader)
    assert [ended(url, label) for label in LABELS] == [-signal.SIGKILL] * len(LABELS)
    assert ended(url, "") == 0
    record = nights(place.store, "tiny", AS_OF, AS_OF)[AS_OF]
    assert [each.name for each in record.shadows] == ["v1.0.0"]
    assert len(place.store.list("tiny/_shadow/")) == 1
    assert "auc of v1.0.0 better than that of v2.0.0" in record.rollback
    assert champions.champion("tiny").version == "v1.0.0"
    tags = git.git("tag", "--list", "tiny#prod*", cwd=origin).split()
    assert tags == ["tiny#prod!#3", "tiny#prod#1", "tiny#prod#2", "tiny#prod#4"], "once, whoever died meanwhile"
    shown = {each.version: each.state for each in read_status(place.store, "tiny").versions}
    assert shown == {"v1.0.0": "champion", "v2.0.0": "withdrawn"}
    assert len({body["id"] for body in hook.bodies}) <= 1, "one message, which may come late, and never two"
    [key] = place.store.list("tiny/_messages/champion-changed/")
    kept = read_checked(place.store, key, Outgoing)[0].message
    assert kept.link == "http://127.0.0.1:8080/dags/predict__tiny/runs/scheduled__2024-02-11T02%3A00%3A00%2B00%3A00"
