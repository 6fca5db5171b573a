"""Oracle: the law that readers see one complete night, old or new; a short seeded part of `make chaos`."""

import uuid
from concurrent.futures import Future

import chaos_announcements as announcements
import chaos_publication as chaos
import proxy
import pytest
from chaos import outcomes

from tasks.publication.object_store import Store
from tasks.publication.store_check import check_store
from tasks.runtime.errors import UserError


@pytest.mark.long
def test_readers_see_complete_nights_whatever_breaks(s3_here, tmp_path):
    with chaos.campaign(tmp_path, f"s3://lamplighter/chaos-{uuid.uuid4().hex}", seed=1) as campaign:
        chaos.under_faults(campaign, sample=10)
        chaos.under_kills(campaign, chaos.labels_of("publish", "publication/publishing", "publication/manifests"))
        chaos.killed_at_random(campaign, 3)
        chaos.against_each_other(campaign, 2)
    tally = campaign.tally
    assert tally.trials >= 15
    assert sum(n for name, n in tally.injected.items() if name in proxy.FAULTS) >= 20
    assert tally.reads >= 20


def test_every_version_is_announced_whoever_is_killed(s3_here, workspace):
    with announcements.receiving() as hook:
        tally = announcements.campaign(hook, 1, announcements.LABELS[::3])
    assert tally["announcements: kills"] >= len(announcements.LABELS[::3])


def test_store_that_ignores_conditions_is_refused(s3_here, monkeypatch):
    with proxy.Proxy(s3_here["AWS_ENDPOINT_URL_S3"]) as ignorant:
        ignorant.rewrite = proxy.without_conditions
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", ignorant.url)
        with pytest.raises(UserError, match=r"must honour conditional writes .* 32 writers .* were told that they won"):
            check_store(Store("s3://lamplighter/probe"))


def test_store_that_honours_conditions_is_let_through_and_left_as_it_was(s3_here):
    store = Store(f"s3://lamplighter/probe-{uuid.uuid4().hex}")
    check_store(store)
    assert store.list("") == {}


def test_part_that_fails_takes_nothing_from_those_that_passed():
    first, broken, last = Future(), Future(), Future()
    first.set_result({"a": 1})
    broken.set_exception(AssertionError("half a night"))
    last.set_result({"b": 2})
    rows, failed = outcomes({"first": first, "broken": broken, "last": last})
    assert rows == {"a": 1, "b": 2}
    assert list(failed) == ["broken"]
    assert str(failed["broken"]) == "half a night"
