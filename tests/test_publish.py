"""Oracle: a real S3 server's own list of objects and ETags; the law that a night is whole or not at all."""

import json
import subprocess
import sys
import uuid
from datetime import date

import boto3
import pandas as pd
import pytest
from builders import a_product, a_repository, declared, night_inputs
from conftest import ROOT, environment

from tasks.publication import manifests
from tasks.publication.contracts import Part, Rows
from tasks.publication.manifests import NightPlace
from tasks.publication.night import part_name, read_night, write_night
from tasks.publication.object_store import Store
from tasks.publish import publish
from tasks.read import read_manifest, read_predictions
from tasks.rows.partitions import write_table
from tasks.runs.experiments import Run
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import file_sha256, write_json
from tasks.runtime.paths import Paths

AS_OF = date(2024, 2, 10)
N_PARTS = 3


@pytest.fixture
def url(s3_here, tmp_path, monkeypatch):
    """A prefix of its own, seen from a repository of its own."""
    monkeypatch.chdir(tmp_path)
    a_repository(tmp_path)
    return f"s3://lamplighter/publish-{uuid.uuid4().hex}"


def tiny(url):
    return a_product(publish={"url": url})


def make_night(url, as_of=AS_OF, n_rows=10, model="m1"):
    """data/predictions as `predict` leaves it, scored by no model at all."""
    product, paths = tiny(url), Paths("tiny")
    write_json(paths.report("validation.json"), {"scored_day": {"rows_in": n_rows + 2, "rows_quarantined": 2}})
    table = pd.DataFrame(
        {
            "parcel_id": [f"p{i}" for i in range(n_rows)],
            "prediction": [i % 2 == 0 for i in range(n_rows)],
            "probability": [i / 100 + len(model) / 1000 for i in range(n_rows)],
        }
    )
    parts = []
    for shard in range(N_PARTS):
        file = paths.predictions / part_name(shard)
        write_table(file, table[table.index % N_PARTS == shard])
        parts.append(
            Part(
                name=file.name,
                rows=int((table.index % N_PARTS == shard).sum()),
                bytes=file.stat().st_size,
                sha256=file_sha256(file),
            )
        )
    write_night(product, as_of, night_inputs(model, as_of), parts, paths.predictions)
    return product, table


@pytest.fixture
def two_nights(url):
    """Two nights of one date; returns their manifests."""
    found = []
    for model in ("first", "second one"):
        product, _ = make_night(url, model=model)
        publish(product, AS_OF)
        found.append(read_manifest(url, "tiny"))
    return found


def objects(url):
    """Every object below a prefix but the claims, which every attempt renews: key and ETag."""
    store = Store(url)
    answer = boto3.session.Session().client("s3").list_objects_v2(Bucket=store.bucket, Prefix=store.full_key(""))
    tags = {each["Key"].removeprefix(store.full_key("")): each["ETag"] for each in answer.get("Contents", [])}
    return {key: tag for key, tag in tags.items() if manifests.CLAIMS not in key}


def place(url, as_of=AS_OF):
    """One night of the tiny product below a prefix."""
    return NightPlace(store=Store(url), product="tiny", as_of=as_of)


def by_id(frame):
    return frame.sort_values("parcel_id").reset_index(drop=True)


def test_night_is_published_whole_and_read_back(url):
    product, table = make_night(url)
    said = publish(product, AS_OF)
    assert said.startswith("10 predictions in 3 parts published: s3://lamplighter/publish-")
    pd.testing.assert_frame_equal(by_id(read_predictions(url, "tiny")), by_id(table))
    manifest = read_manifest(url, "tiny", "2024-02-10")
    run = manifest.run
    assert set(objects(url)) == {
        "tiny/_latest.json",
        "tiny/dt=2024-02-10/_manifest.json",
        "tiny/dt=2024-02-10/predictions.parquet",
        *(f"tiny/_parts/dt=2024-02-10/run={run}-000001/part-0000{i}" for i in range(N_PARTS)),
    }
    assert manifest.rows == Rows(rows_in=12, published=10, quarantined=2)
    assert [field.name for field in manifest.schema] == ["parcel_id", "prediction", "probability"]
    assert (manifest.supersedes, manifest.model.sha256) == (None, "m1")
    assert len(manifest.git_revision) == 40
    client = boto3.session.Session().client("s3")
    for part in manifest.parts:
        body = client.get_object(Bucket="lamplighter", Key=part.key)["Body"].read()
        assert len(body) == part.bytes


def test_same_night_again_changes_no_object(url):
    product, _ = make_night(url)
    publish(product, AS_OF)
    before = objects(url)
    assert "were published already, unchanged" in publish(product, AS_OF)
    assert objects(url) == before


def test_new_inputs_replace_the_manifest_and_keep_the_history(url):
    product, _ = make_night(url)
    publish(product, AS_OF)
    first, before = read_manifest(url, "tiny"), objects(url)
    product, table = make_night(url, model="another model")
    publish(product, AS_OF)
    after = objects(url)
    moved, file = "tiny/dt=2024-02-10/_manifest.json", "tiny/dt=2024-02-10/predictions.parquet"
    assert {key: tag for key, tag in before.items() if key not in (moved, file)}.items() <= after.items()
    assert after[file] != before[file]
    assert after["tiny/dt=2024-02-10/_history/000001.json"] == before[moved] != after[moved]
    second = read_manifest(url, "tiny")
    assert second.supersedes == first.run != second.run
    assert manifests.history(place(url)) == [first]
    pd.testing.assert_frame_equal(by_id(read_predictions(url, "tiny")), by_id(table))


def test_earlier_inputs_published_again_take_their_place_and_history_has_both(url):
    stood, kept = [], {}
    for model in ("a", "another", "a", "another"):
        product, table = make_night(url, model=model)
        publish(product, AS_OF)
        stood.append(read_manifest(url, "tiny"))
        history = {key: tag for key, tag in objects(url).items() if manifests.HISTORY in key}
        assert kept.items() <= history.items(), "the history is never written again"
        kept = history
    pd.testing.assert_frame_equal(by_id(read_predictions(url, "tiny")), by_id(table))
    assert manifests.history(place(url)) == stood[:-1]
    assert [manifest.generation for manifest in stood] == [1, 2, 3, 4]


def test_pointer_never_moves_back(url):
    for day, newest in (("2024-02-10", "2024-02-10"), ("2024-02-12", "2024-02-12"), ("2024-02-11", "2024-02-12")):
        product, _ = make_night(url, date.fromisoformat(day), model=day)
        publish(product, date.fromisoformat(day))
        assert read_manifest(url, "tiny").dt == date.fromisoformat(newest)
        assert read_manifest(url, "tiny", day).dt == date.fromisoformat(day)


@pytest.mark.long
def test_five_publishers_of_one_night_agree_on_one_manifest(url, s3, tmp_path):
    make_night(url)
    (tmp_path / "params.yaml").write_text(json.dumps(declared(publish={"url": url})))
    env = environment(tmp_path, PYTHONPATH=str(ROOT), **s3)
    publishers = [
        subprocess.Popen(
            [sys.executable, "-m", "tasks.publish", "tiny"],
            cwd=tmp_path,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(5)
    ]
    said = [publisher.communicate(timeout=120)[0] for publisher in publishers]
    assert [publisher.returncode for publisher in publishers] == [0] * 5, said
    assert sum("parts published" in text for text in said) == 1, said
    manifest = read_manifest(url, "tiny")
    assert Store(url).read("tiny/_latest.json").json()["dt"] == "2024-02-10"
    assert {part.key for part in manifest.parts} <= {Store(url).full_key(key) for key in objects(url)}
    assert len(read_predictions(url, "tiny")) == 10


def test_other_writers_who_keep_winning_are_a_passing_failure(url, monkeypatch):
    product, _ = make_night(url)
    monkeypatch.setattr(Store, "replace", lambda *_: False)
    with pytest.raises(TransientError, match="other writers moved the manifest 25 times while we tried"):
        publish(product, AS_OF, run_with(1))


def test_night_that_is_not_there_or_of_another_date_is_refused(url):
    with pytest.raises(UserError, match=r"night\.json must exist, and does not; run dvc repro predict@tiny"):
        publish(tiny(url), AS_OF)
    product, _ = make_night(url)
    with pytest.raises(UserError, match="must be of as_of 2024-02-11, and is of 2024-02-10"):
        publish(product, date(2024, 2, 11))
    assert objects(url) == {}


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"PAR1"), lambda file: file.unlink()])
def test_part_that_is_not_as_the_night_says_is_refused_before_anything_is_sent(url, damage):
    product, _ = make_night(url)
    damage(Paths("tiny").predictions / part_name(1))
    with pytest.raises(UserError, match=r"part-00001\.parquet must be as night.json says, and is not"):
        publish(product, AS_OF)
    assert objects(url) == {}


def test_rows_that_do_not_add_up_are_refused(url):
    product, _ = make_night(url)
    folder = Paths("tiny").predictions
    file = folder / "night.json"
    night = json.loads(file.read_text())
    night["rows"]["quarantined"] = 0
    file.write_text(json.dumps(night))
    with pytest.raises(UserError, match="rows in must be published plus quarantined"):
        publish(product, AS_OF)
    write_json(Paths("tiny").report("validation.json"), {"scored_day": {"rows_in": 11, "rows_quarantined": 2}})
    with pytest.raises(UserError, match="rows in must be published plus quarantined"):
        write_night(product, AS_OF, night_inputs(), read_night(folder).parts, folder)


def run_with(generation):
    """The facts of a run that acquired a generation, as publish gets them; it has no champion."""
    name, revision = f"tiny-{AS_OF}-predict-{generation:08x}", "ab" * 20
    return Run(
        name=name, product="tiny", as_of=AS_OF.isoformat(), revision=revision, shards=N_PARTS, generation=generation
    )


def attempt(url, model, generation):
    """A worker of a run that acquired `generation` publishes what it has scored."""
    product, table = make_night(url, model=model)
    return publish(product, AS_OF, run_with(generation)), table


def claims(url, *names):
    return [manifests.acquire_generation(place(url), name) for name in names]


def test_claim_is_higher_than_all_before_and_the_same_for_a_retry(url):
    assert claims(url, "run a", "run b", "run a") == [1, 2, 1]
    attempt(url, "b", 2)
    assert claims(url, "run a", "run c") == [3, 4], "what was settled is opened anew"
    Store(url).delete("tiny/_claims/dt=2024-02-10.json")
    assert claims(url, "run d") == [3], "the manifest counts where the claims were lost"


def test_worker_of_an_earlier_run_that_wakes_after_a_later_one_published_changes_nothing(url):
    zombie, later = claims(url, "zombie", "later")
    _, table = attempt(url, "later's model", later)
    before = objects(url)
    with pytest.raises(
        UserError, match=r"generation 1, and a run opened later \(tiny-.*, generation 2\) has published"
    ):
        attempt(url, "zombie's", zombie)
    assert {key: tag for key, tag in objects(url).items() if "part-" not in key} == {
        key: tag for key, tag in before.items() if "part-" not in key
    }
    pd.testing.assert_frame_equal(by_id(read_predictions(url, "tiny")), by_id(table))


def test_worker_of_an_earlier_run_cannot_undo_what_a_later_one_found_standing(url):
    """A night stands, an earlier run sleeps over another one, a later run finds the first night right."""
    first, zombie, later = claims(url, "first", "zombie", "later")
    attempt(url, "right", first)
    said, table = attempt(url, "right", later)
    assert "published already" in said
    with pytest.raises(UserError, match="a run opened later"):
        attempt(url, "zombie's", zombie)
    pd.testing.assert_frame_equal(by_id(read_predictions(url, "tiny")), by_id(table))
    before = objects(url)
    (again,) = claims(url, "again")
    attempt(url, "right", again)
    assert objects(url) == before, "with nobody between, nothing is written"


def test_worker_that_wakes_after_its_own_retry_has_published_changes_nothing(url):
    (mine,) = claims(url, "mine")
    attempt(url, "model", mine)
    before = objects(url)
    said, _ = attempt(url, "model", mine)
    assert "published already" in said
    with pytest.raises(UserError, match=r"has published another night already .*a run publishes one night"):
        attempt(url, "scored otherwise", mine)
    assert before.items() <= objects(url).items()


def test_publisher_overtaken_before_it_had_its_answer_is_told_that_it_published(url, monkeypatch):
    """Its PUT took effect, the answer was lost, and a later run replaced the manifest before it looked."""
    mine, theirs = claims(url, "mine", "theirs")
    replace, overtaken = Store.replace, []

    def losing(store, key, body, expected):
        done = replace(store, key, body, expected)
        if key.endswith(manifests.MANIFEST) and not overtaken:
            overtaken.append(key)
            attempt(url, "theirs", theirs)
            return False
        return done

    product, _ = make_night(url, model="mine")
    monkeypatch.setattr(Store, "replace", losing)
    assert "parts published" in publish(product, AS_OF, run_with(mine))
    assert read_manifest(url, "tiny").model.sha256 == "theirs"
    assert [manifest.model.sha256 for manifest in manifests.history(place(url))] == ["mine"]
