"""Oracle: what each of several runs has learnt by itself; a real S3 server, at which they write at once."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier

import pytest
from test_conclusions import BEFORE, FIRST, record
from test_monitor import labels_known, product, published, scored
from test_publish import AS_OF, url  # noqa: F401 (url is a fixture)

from tasks.commands.nights import withdraw as withdrawing
from tasks.commands.nights.withdraw import withdraw
from tasks.monitor import monitor
from tasks.monitoring.contracts import Decay, Lead, Truth
from tasks.monitoring.past import Past, mark_withdrawn, merged, nights
from tasks.monitoring.status import read_status
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store

LATE = FIRST + timedelta(days=30)
TRUTH = Truth(as_of=FIRST + timedelta(days=9), labelled=40, metric="auc", value=0.7)
DECAY = Decay(nights=9, first_mean=0.8, first_deviation=0.01, recent_mean=0.7, evidence=30.0, wanted=20.0)
OTHER = replace(BEFORE, version=None, commit="c" * 40, model="c", roles=("challenger",))
LEARNT = (
    {"withdrawn": True},
    {"retrain": "auc has fallen"},
    {"rollback": "v1.0.0 was better"},
    {"truth": TRUTH},
    {"decay": DECAY},
    {"leads": {"v1.0.0": Lead(nights=9, mean=0.1, low=0.05)}},
)


def test_what_runs_learn_of_one_night_at_once_is_all_kept(url):  # noqa: F811
    """Each has read the night before any of them writes; each also records a night of its own."""
    store, together = Store(url), Barrier(len(LEARNT))

    def learn(number):
        past = Past.of(store, "tiny", FIRST, LATE)
        past.put([replace(past.known[FIRST], **LEARNT[number]), record(number + 1)])
        together.wait(30)
        past.keep()

    begun = Past.of(store, "tiny", FIRST, LATE)
    begun.put([record(0)])
    begun.keep()
    with ThreadPoolExecutor(len(LEARNT)) as pool:
        list(pool.map(learn, range(len(LEARNT))))
    known = nights(store, "tiny", FIRST, LATE)
    assert list(known) == [FIRST + timedelta(days=n) for n in range(len(LEARNT) + 1)]
    wanted = record(0)
    for facts in LEARNT:
        wanted = replace(wanted, **facts)
    assert known[FIRST] == wanted


@pytest.mark.parametrize("number", range(len(LEARNT)))
def test_fact_of_another_run_stays_whatever_this_one_has_learnt(number):
    before, fact = record(0), LEARNT[number]
    for other in LEARNT:
        if other is not fact:
            current, mine = replace(before, **fact), replace(before, **other)
            assert merged(mine, before, current) == replace(before, **fact, **other)


def test_two_that_record_a_night_at_once_keep_the_models_that_either_has_scored():
    first = record(0, not_scored={"c" * 12: "the remote did not answer"}, retrain="auc has fallen")
    second = record(0, shadows=(OTHER,), rollback="v1.0.0 was better", not_scored={"v1.0.0": "no answer"})
    kept = merged(second, None, first)
    assert kept.shadows == (BEFORE, OTHER)
    assert kept.not_scored == {}
    assert (kept.retrain, kept.rollback) == ("auc has fallen", "v1.0.0 was better")


def test_night_published_anew_is_not_lost_to_a_measurement_of_the_one_before():
    before, anew = record(0, retrain="auc has fallen"), record(0, run="another")
    assert merged(replace(before, truth=TRUTH), before, anew) == anew
    after = merged(anew, before, replace(before, truth=TRUTH, withdrawn=True))
    assert (after.run, after.truth, after.withdrawn) == ("another", None, False)
    assert after.retrain == "auc has fallen", "it has begun, and the next one waits for its days"


def test_night_is_shown_and_counted_no_more_from_its_withdrawal_on(url):  # noqa: F811
    described, later = product(url), AS_OF + timedelta(days=1)
    for day in (AS_OF, later):
        published(described, day, scored(seed=day.day))
        monitor(described, day)
    withdraw(described, AS_OF, "wrong rows", "Ann")
    known = nights(Store(url), "tiny", AS_OF, later)
    assert {day: each.withdrawn for day, each in known.items()} == {AS_OF: True, later: False}
    assert read_status(Store(url), "tiny").nights == tuple(replace(each, columns={}) for each in known.values())
    labels_known(AS_OF + timedelta(days=2), scored(seed=AS_OF.day)["parcel_id"], [0, 1] * 20)
    monitor(described, later)
    assert nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF] == known[AS_OF]
    published(described, AS_OF, scored(seed=AS_OF.day))
    monitor(described, AS_OF)
    assert nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF].withdrawn is False, "a new run has published it"
    mark_withdrawn(NightPlace(store=Store(url), product="tiny", as_of=AS_OF))
    assert nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF].withdrawn is False


def test_withdrawal_that_died_before_the_record_was_marked_is_finished_by_doing_it_again(url, monkeypatch):  # noqa: F811
    described = product(url)
    published(described, AS_OF, scored())
    monitor(described, AS_OF)

    def die(at):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(
            withdrawing.faults, "failpoint", lambda at: die(at) if at.startswith("withdraw: the record") else 0
        )
        with pytest.raises(KeyboardInterrupt):
            withdraw(described, AS_OF, "wrong rows", "Ann")
    assert not nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF].withdrawn
    withdraw(described, AS_OF, "wrong rows", "Ann")
    assert nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF].withdrawn
