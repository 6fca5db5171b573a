"""Oracle: nights as they were published before, rebuilt object by object on a real S3 server; what a glob finds."""

from datetime import timedelta

import pytest
from test_night_file import manifests_moment
from test_publish import AS_OF, N_PARTS, attempt, claims, make_night, objects, place, tiny, url  # noqa: F401

from tasks.commands.nights.trace import find
from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.garbage import collect_garbage
from tasks.publication.object_store import Store
from tasks.publication.relocation import present_key
from tasks.publish import publish
from tasks.read import read_manifest, read_predictions
from tasks.runtime import faults
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Paths

STEPS = ("the parts are copied", "the night file has followed", "a part of before is deleted")


def earlier_key(run, generation, name):
    return f"tiny/dt=2024-02-10/run={run}-{generation:06d}/{name}"


@pytest.fixture
def night_of_before(url):  # noqa: F811
    """A replaced night and the one that stands, with the parts of a run still under way, all in the layout before."""
    store = Store(url)
    for model in ("first", "second one"):
        product, _ = make_night(url, model=model)
        publish(product, AS_OF)
    (open_run,) = claims(url, "under way")
    night = place(url)
    keys = [night.manifest, night.history(1)]
    for key in keys:
        stored = store.read(key)
        content = manifests.decode_checked(stored)
        for name in ("file", "withdrawn"):
            del content[name]
        for part in content["parts"]:
            moved = earlier_key(content["run"], content["generation"], part["name"])
            body = store.read(store.key_of(part["key"]))
            store.replace(moved, body.body, None)
            store.delete(store.key_of(part["key"]))
            part["key"] = store.full_key(moved)
        store.replace(key, manifests.encode_checked(content), stored)
    store.delete(night.file)
    store.create_file(
        earlier_key("ab", open_run, "part-00000.parquet"), Paths("tiny").predictions / "part-00000.parquet"
    )
    assert len(found_by_glob(url)) == 2 * N_PARTS + 1
    return url


def found_by_glob(url):  # noqa: F811
    return [key for key in Store(url).list("tiny/dt=2024-02-10/") if key.endswith(".parquet")]


def collect(url, after=timedelta()):  # noqa: F811
    return collect_garbage(Store(url), tiny(url), manifests_moment(url) + after)


def assert_settled(url, model="second one"):  # noqa: F811
    night = place(url)
    manifest = read_manifest(url, "tiny")
    assert manifest.model.sha256 == model
    assert len(read_predictions(url, "tiny")) == 10
    assert {present_key(night, Store(url).key_of(part.key)) for part in manifest.parts} == {
        Store(url).key_of(part.key) for part in manifest.parts
    }
    assert Store(url).head(night.file).sha256 == manifest.file.sha256


def test_night_of_before_is_moved_and_a_glob_finds_one_file(night_of_before):
    url = night_of_before  # noqa: F811
    before = read_manifest(url, "tiny")
    assert collect(url).endswith("; 1 nights put right for readers by glob")
    assert_settled(url)
    running = earlier_key("ab", 3, "part-00000.parquet")
    assert found_by_glob(url) == [place(url).file, running], "a run under way keeps its part"
    after = read_manifest(url, "tiny")
    assert (after.generation, after.writer, after.run) == (before.generation, before.writer, before.run)
    assert [part.sha256 for part in after.parts] == [part.sha256 for part in before.parts]
    stood = objects(url)
    assert not collect(url).endswith("glob")
    assert objects(url) == stood, "nothing is done twice"
    collect(url, timedelta(days=3))
    assert found_by_glob(url) == [place(url).file], "a run that never published has left nothing that a glob finds"


def test_next_run_moves_the_night_that_it_finds(night_of_before):
    url = night_of_before  # noqa: F811
    attempt(url, "second one", *claims(url, "a later run"))
    assert_settled(url)
    assert found_by_glob(url) == [place(url).file]


def test_next_run_that_replaces_a_night_of_before_leaves_one_file(night_of_before):
    url = night_of_before  # noqa: F811
    attempt(url, "third model", *claims(url, "a later run"))
    assert_settled(url, "third model")
    assert found_by_glob(url) == [place(url).file]


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_move_that_is_killed_anywhere_is_finished_by_the_next(night_of_before, monkeypatch, step):
    url = night_of_before  # noqa: F811

    def die(label):
        if label == f"relocate: {step}":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(faults, "failpoint", die)
        with pytest.raises(KeyboardInterrupt):
            collect(url)
    assert len(read_predictions(url, "tiny")) == 10, "a reader by manifest is right meanwhile"
    collect(url)
    assert_settled(url)
    assert len(found_by_glob(url)) == 2, "the night file, and the part of the run under way"


def test_publisher_that_kept_the_manifest_of_before_goes_on(night_of_before):
    """It has copied the manifest to the history; then the night is moved, and the manifest is another object."""
    url = night_of_before  # noqa: F811
    night = place(url)
    _, stored = manifests.read_checked(night.store, night.manifest, Manifest)
    manifests.archive_manifest(night, 2, stored)
    collect(url)
    attempt(url, "third model", *claims(url, "a later run"))
    assert_settled(url, "third model")
    assert [each.model.sha256 for each in manifests.history(night)] == ["first", "second one"]


def test_part_of_before_that_is_lost_is_told_after_all_else_was_done(night_of_before):
    url = night_of_before  # noqa: F811
    lost = read_manifest(url, "tiny").parts[1]
    Store(url).delete(Store(url).key_of(lost.key))
    with pytest.raises(UserError, match=r"part-00001\.parquet: must be as the manifest says, and is missing; publish"):
        collect(url)
    attempt(url, "second one", *claims(url, "a later run"))
    assert_settled(url)


def test_address_of_before_still_leads_to_its_part(night_of_before):
    url = night_of_before  # noqa: F811
    uris = [f"s3://lamplighter/{part.key}" for part in read_manifest(url, "tiny").parts]
    names = [part.name for part in read_manifest(url, "tiny").parts]
    collect(url)
    assert [find(uri).part.name for uri in uris] == names
    now = [f"s3://lamplighter/{part.key}" for part in read_manifest(url, "tiny").parts]
    assert now != uris
    assert [find(uri).part.name for uri in now] == names
    assert find(Store(url).uri(place(url).file)).is_current
