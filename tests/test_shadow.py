"""Oracle: the exported model itself, scikit-learn on its scores; the store's own list; git's tags on a real origin."""

import dataclasses
import io
import os
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml
from builders import a_product
from sklearn.metrics import roc_auc_score
from test_model_export import mixed, random_model
from test_publish import AS_OF, url  # noqa: F401 (url is a fixture)
from test_registry import experiment, origin, promote  # noqa: F401 (origin is a fixture)

from model.scoring.scorer import Scorer
from tasks.gc import gc
from tasks.monitor import monitor
from tasks.monitoring.nights import answers_here
from tasks.monitoring.past import nights
from tasks.monitoring.shadow import Contender, collect_old_scores, score_beside
from tasks.predict import predict
from tasks.publication.manifests import NightPlace, current_manifest
from tasks.publication.object_store import Store
from tasks.publish import publish
from tasks.rows import model_inputs
from tasks.rows.partitions import partition, write_table
from tasks.runs.dvc import dvc_hash
from tasks.runs.experiments import Run
from tasks.runs.registry import champions, versions
from tasks.runs.shadows import bring, find_contenders, learnt_until
from tasks.runtime import git
from tasks.runtime.errors import UserError
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths

PATHS = Paths("tiny")
KINDS = {"colour": "category", "size": "number", "when": "time"}
SCORED = AS_OF + timedelta(days=1)
N = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory, export_once):
    """An exported model, untrained: what it answers does not matter here."""
    folder = tmp_path_factory.mktemp("model")
    random_model(folder / "trained", "binary", KINDS, n_layers=1)
    export_once(folder / "trained", folder / "onnx")
    return folder / "onnx"


def other(model, folder):
    """Another model, by its hash."""
    shutil.copytree(model, folder)
    (folder / "README").write_text("another")
    return folder


def described(url, **changes):  # noqa: F811
    given = {"columns": KINDS, "expectations": [], "model__init": "scratch", "publish__url": url}
    return a_product(**given | changes)


def valid_day(day, n=N, seed=9):
    """Valid rows of a day, with their labels a day later."""
    columns = mixed(n, seed=seed)
    rows = pd.DataFrame({name: columns[name] for name in KINDS})
    rows = rows.assign(parcel_id=[f"{day}-{i:03d}" for i in range(n)], day=pd.Timestamp(day))
    write_table(partition(PATHS.valid / "rows", day), rows)
    labels = pd.DataFrame({"parcel_id": rows["parcel_id"], "late": pd.array([i % 2 for i in range(n)], dtype="Int8")})
    write_table(partition(PATHS.valid / "labels", day + timedelta(days=1)), labels)
    return rows


def published(product, model, as_of=AS_OF, run=None):
    """Score and publish the night of a date."""
    shutil.rmtree(PATHS.onnx, ignore_errors=True)
    shutil.copytree(model, PATHS.onnx)
    Path("constraints.txt").write_text("")
    write_json(PATHS.report("validation.json"), {"scored_day": {"rows_in": N, "rows_quarantined": 0}})
    predict(product, as_of)
    if git.try_git("rev-parse", "HEAD") is None:
        git.git("commit", "--quiet", "--allow-empty", "-m", "a revision")
    publish(product, as_of, run)
    return NightPlace(store=Store(product.publish.url), product="tiny", as_of=as_of)


def contender(folder, version="v1.0.0"):
    return Contender(roles=("previous",), version=version, commit="ab" * 20, model=dvc_hash(folder), folder=folder)


def test_other_models_score_the_same_rows_apart_and_once(url, model, tmp_path):  # noqa: F811
    product, rows = described(url), valid_day(SCORED)
    place = published(product, model)
    manifest, beside = current_manifest(place), contender(other(model, tmp_path / "other"))
    shadow = score_beside(product, place, manifest, beside, PATHS)
    stored = place.store.read(place.store.key_of(shadow.part.key))
    table = pd.read_parquet(io.BytesIO(stored.body))
    wanted = Scorer(beside.folder).score(model_inputs.inputs(rows, product))
    assert table["probability"].to_numpy() == pytest.approx(wanted)
    assert table["parcel_id"].tolist() == rows["parcel_id"].tolist()
    assert list(table.columns) == ["parcel_id", "probability"]
    shutil.rmtree(PATHS.valid)  # whoever comes second finds it
    assert score_beside(product, place, manifest, beside, PATHS) == shadow
    found = [key for key in place.store.list("tiny/") if key.endswith(".parquet")]
    assert found == ["tiny/dt=2024-02-10/predictions.parquet"], "no glob for nights finds what was not published"


def test_model_of_other_columns_and_rows_that_have_changed_are_not_compared(url, model):  # noqa: F811
    product = described(url)
    valid_day(SCORED)
    place = published(product, model)
    manifest = current_manifest(place)
    wider = described(url, columns={**KINDS, "weight_kg": "number"})
    with pytest.raises(UserError, match="must read and answer what is declared now to be compared"):
        score_beside(wider, place, manifest, contender(model), PATHS)
    valid_day(SCORED, seed=10)
    with pytest.raises(UserError, match="must be those that the night of 2024-02-10 was made of"):
        score_beside(product, place, manifest, contender(model), PATHS)
    assert not place.store.list("tiny/_shadow/")


def test_predictions_are_compared_with_what_their_model_says_of_its_training_rows(url, model):  # noqa: F811
    product, rows = described(url), valid_day(SCORED)
    manifest = current_manifest(published(product, model))
    wanted = Scorer(model).score(model_inputs.inputs(rows, product))
    assert answers_here(product, manifest, PATHS, rows).mean == pytest.approx(wanted.mean(), abs=1e-6)
    assert answers_here(product, manifest, PATHS, rows.drop(columns="size")) is None, "its columns are other ones"
    (PATHS.onnx / "README").write_text("another model")
    assert answers_here(product, manifest, PATHS, rows) is None


def test_scores_beside_the_champion_are_deleted_once_no_labels_are_taken(url, model):  # noqa: F811
    product = described(url)
    valid_day(SCORED)
    place = published(product, model)
    score_beside(product, place, current_manifest(place), contender(model), PATHS)
    now = datetime.now(UTC)
    assert collect_old_scores(place.store, product, now + timedelta(days=32.9)) == 0
    assert collect_old_scores(place.store, product, now + timedelta(days=33.1)) == 1
    assert not place.store.list("tiny/_shadow/")
    assert gc(product, AS_OF).startswith("0 of 3 parts deleted")
    assert current_manifest(place) is not None


def trained(origin, as_of, model, kind="train"):  # noqa: F811
    """An experiment of the origin with a model, whose files are on this disk already; returns its commit."""
    commit = experiment(origin, as_of, dvc_hash(model).removesuffix(".dir"))
    git.git("update-ref", f"refs/exps/ab/{'c' * 38}/tiny-{as_of}-{kind}-{commit[:8]}", commit, cwd=origin)
    kept = Path(os.environ["LAMPLIGHTER_HOME"]) / "models" / "tiny" / dvc_hash(model).removesuffix(".dir")
    if not kept.exists():
        shutil.copytree(model, kept)
    return commit


@pytest.fixture
def models(model, tmp_path, monkeypatch):
    """Four models that differ."""
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path / "home"))
    folders = []
    for i in range(4):
        shutil.copytree(model, tmp_path / f"model{i}")
        (tmp_path / f"model{i}" / "README").write_text(f"model {i}")
        folders.append(tmp_path / f"model{i}")
    return folders


def test_those_beside_a_champion_are_the_one_before_the_first_and_the_newest_refused(origin, models):  # noqa: F811
    day = [date(2024, 2, n) for n in (1, 3, 5, 7)]
    commits = [trained(origin, day[i], models[i]) for i in range(4)]
    leader = None
    for i in range(3):
        leader = promote(commits[i], leader, as_of=day[i])

    def roles(as_of, champion):
        return {each.name: each.roles for each in find_contenders("tiny", as_of, champion)}

    challenger = commits[3][:12]
    everyone = {"v2.0.0": ("previous",), challenger: ("challenger",), "v1.0.0": ("anchor",)}
    assert roles(AS_OF, commits[2]) == everyone
    assert roles(day[2], commits[2]) == {"v2.0.0": ("previous",), "v1.0.0": ("anchor",)}, "nobody knows later data"
    assert roles(day[1], commits[1]) == {"v1.0.0": ("previous", "anchor")}
    assert roles(day[0], commits[0]) == {}
    assert learnt_until("tiny", [commits[2], commits[1]]) == day[2]
    assert learnt_until("tiny", []) is None
    versions.ban("tiny", "v1.0.0", "leaked", ("Grace", "grace@localhost"))
    assert roles(AS_OF, commits[2]) == {"v2.0.0": ("previous",), challenger: ("challenger",)}
    brought = bring("tiny", find_contenders("tiny", AS_OF, commits[2])[0])
    assert dvc_hash(brought.folder) == dvc_hash(models[1])


def test_night_is_scored_by_others_too_and_a_lost_one_stops_nothing(url, origin, models):  # noqa: F811
    """And a second look, as after a lost answer, changes nothing."""
    product, rows = described(url), valid_day(SCORED)
    commits = [trained(origin, date(2024, 2, 1 + i), models[i]) for i in range(2)]
    lost = experiment(origin, date(2024, 2, 4), "0" * 32)
    git.git("update-ref", f"refs/exps/ab/{'d' * 38}/tiny-2024-02-04-train-00000000", lost, cwd=origin)
    leader = promote(commits[1], promote(commits[0], None, as_of=date(2024, 2, 1)), as_of=date(2024, 2, 2))
    run = Run(
        name="tiny-2024-02-10-predict-00000000",
        product="tiny",
        as_of=str(AS_OF),
        revision="ab" * 20,
        shards=3,
        champion=leader.commit,
        model_version=leader.version,
    )
    place = published(product, models[1], run=run)
    assert str(monitor(product, AS_OF)).endswith("scored by v1.0.0 too")
    record = nights(place.store, "tiny", AS_OF, AS_OF)[AS_OF]
    assert [(each.name, each.roles) for each in record.shadows] == [("v1.0.0", ("previous", "anchor"))]
    assert list(record.not_scored) == [lost[:12]], "the night stands, whatever becomes of those beside it"
    before = place.store.read("tiny/_past/2024.json").etag
    monitor(product, AS_OF)
    assert place.store.read("tiny/_past/2024.json").etag == before
    later = AS_OF + timedelta(days=2)
    monitor(product, later)
    truth = nights(place.store, "tiny", AS_OF, AS_OF)[AS_OF].truth
    auc = roc_auc_score([i % 2 for i in range(N)], Scorer(models[0]).score(model_inputs.inputs(rows, product)))
    assert truth.shadows == {"v1.0.0": pytest.approx(auc, abs=1e-6)}
    place.store.delete(place.store.key_of(record.shadows[0].part.key))
    monitor(product, later + timedelta(days=3))
    again = nights(place.store, "tiny", AS_OF, AS_OF)[AS_OF].truth
    assert (again.value, again.shadows) == (truth.value, {"v1.0.0": None})


def test_rollback_by_itself_is_done_once_says_why_and_stays(origin):  # noqa: F811
    commits = [experiment(origin, AS_OF, f"model{i}") for i in range(3)]
    promote(commits[1], promote(commits[0], None))

    def back(to="v1.0.0", instead_of=commits[1], as_of=AS_OF):
        return versions.roll_back_by_itself("tiny", to, instead_of, as_of, 28, "auc better by 0.02")

    line = "v1.0.0 predicts from the next night on, and v2.0.0 is withdrawn: auc better by 0.02"
    assert back() == (True, line)
    assert champions.champion("tiny").version == "v1.0.0"
    assert back() == (True, line), "as where its answer was lost"
    assert back(as_of=AS_OF + timedelta(days=1)) == (False, "v1.0.0 predicts by now, which is left as it is")
    assert champions.approval(origin, "tiny", commits[0]).count("automatic rollback as of 2024-02-10: auc better") == 1
    assert champions.admission("tiny", commits[1], AS_OF).exclusion, "what was withdrawn comes back by a person only"
    third = promote(commits[2], champions.champion("tiny"))
    done, line = back(instead_of=third.commit, as_of=AS_OF + timedelta(days=27))
    assert (done, line) == (False, "monitor.rollback.cool_down_days: the last one was as of 2024-02-10")
    assert back("v2.0.0", third.commit, AS_OF + timedelta(days=28))[0] is False, "it was withdrawn"
    versions.hold("tiny", None, "an audit", ("Grace", "grace@localhost"))
    assert "is held" in back(instead_of=third.commit, as_of=AS_OF + timedelta(days=28))[1]
    versions.release("tiny", third.version, "it is over", ("Grace", "grace@localhost"))
    assert back(instead_of=third.commit, as_of=AS_OF + timedelta(days=28))[0] is True


def test_night_without_a_registry_behind_it_is_recorded_all_the_same(url, origin, model, monkeypatch):  # noqa: F811
    product = described(url)
    valid_day(SCORED)
    place = published(product, model)
    monkeypatch.setattr("tasks.monitor.current_manifest", lambda place: with_commit(current_manifest(place)))
    assert "predictions by" in str(monitor(product, AS_OF))
    assert list(nights(place.store, "tiny", AS_OF, AS_OF)[AS_OF].not_scored) == ["registry"]


def with_commit(manifest):
    """The manifest of a model that the origin does not have."""
    return dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, commit="0" * 40))


def test_declaration_of_what_follows_may_be_left_out_or_switched_off():
    monitored = a_product().monitor
    assert (monitored.shadow, monitored.retrain, monitored.rollback.cool_down_days) == (True, True, 28)
    assert a_product(monitor=yaml.safe_load("{rollback: null}")).monitor.rollback is None
