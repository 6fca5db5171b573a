"""Oracle: a real S3 server's own list of objects; the law that what a manifest names within keep_days is there."""

from datetime import UTC, date, datetime, timedelta

from test_publish import (  # noqa: F401
    AS_OF,
    N_PARTS,
    attempt,
    by_id,
    claims,
    make_night,
    objects,
    place,
    run_with,
    tiny,
    two_nights,
    url,
)

from tasks.gc import gc
from tasks.publication import manifests
from tasks.publication.garbage import collect_garbage
from tasks.publication.object_store import Store
from tasks.publish import publish
from tasks.read import read_manifest, read_predictions


def parts(url):  # noqa: F811
    return {key for key in objects(url) if "/part-" in key}


def named(url, *manifests):  # noqa: F811
    return {Store(url).key_of(part.key) for manifest in manifests for part in manifest.parts}


def collect(url, days):  # noqa: F811
    """As if this many days had passed."""
    return collect_garbage(Store(url), tiny(url), datetime.now(UTC) + timedelta(days=days))


def test_replaced_parts_are_kept_for_their_readers_and_then_deleted(url, two_nights):  # noqa: F811
    everything = objects(url)
    assert collect(url, 29.9) == "0 of 6 parts deleted: no night that stood within 30 days needs them"
    assert objects(url) == everything
    assert collect(url, 30.1).startswith("3 of 6 parts deleted")
    first, second = two_nights
    assert parts(url) == named(url, second)
    assert everything.keys() - objects(url).keys() == named(url, first), "manifests are kept"
    assert manifests.history(place(url)) == [first]
    assert collect(url, 60).startswith("0 of 3 parts deleted")
    assert len(read_predictions(url, "tiny")) == 10


def test_age_counts_from_when_a_night_was_replaced_not_from_when_it_was_written(url, monkeypatch):  # noqa: F811
    """A night that stood for months is replaced while somebody reads it."""
    product, _ = make_night(url, model="first")
    publish(product, AS_OF)
    first, listed = read_manifest(url, "tiny"), Store.list
    long_ago = datetime.now(UTC) - timedelta(days=200)
    monkeypatch.setattr(
        Store,
        "list",
        lambda store, prefix: {
            key: long_ago if key in aged else written for key, written in listed(store, prefix).items()
        },
    )
    # A publisher that died long ago has copied the manifest to the history, and not replaced it.
    aged = {*named(url, first), "tiny/dt=2024-02-10/_history/000001.json"}
    product, _ = make_night(url, model="second one")
    publish(product, AS_OF)
    assert collect(url, 29.9).startswith("0 of 6")
    assert named(url, first) <= parts(url)


def test_reader_slower_than_the_grace_goes_on_with_the_night_that_stands(url, two_nights, monkeypatch):  # noqa: F811
    first, second = two_nights
    collect(url, 31)
    told = iter([first])
    real = manifests.current_manifest
    monkeypatch.setattr(manifests, "current_manifest", lambda *given: next(told, None) or real(*given))
    frame = read_predictions(url, "tiny")
    assert by_id(frame)["probability"][0] == len(second.model.sha256) / 1000


def test_parts_of_a_run_that_may_still_publish_are_kept_however_old(url, monkeypatch):  # noqa: F811
    first, slow = claims(url, "first", "slow")
    attempt(url, "first", first)
    product, _ = make_night(url, model="slow one")
    with monkeypatch.context() as patch:
        patch.setattr(
            manifests, "commit_manifest", lambda *given: (given[-1](), False)[1]
        )  # uploads, and goes no further
        patch.setattr(manifests, "release_generations", lambda *_: None)
        publish(product, AS_OF, run_with(slow))
    assert len(parts(url)) == 2 * N_PARTS
    assert collect(url, 365).startswith("0 of 6")
    (later,) = claims(url, "later")
    attempt(url, "a later model", later)
    assert collect(url, 29.9).startswith("0 of 9"), "nothing is deleted that was written lately"
    assert collect(url, 365).startswith("6 of 9"), "what was replaced, and what can never be published any more"


def test_gc_says_what_it_did(url):  # noqa: F811
    assert gc(tiny(url), date(2024, 2, 10)) == "0 of 0 parts deleted: no night that stood within 30 days needs them"
