"""Oracle: a real S3 server; the law that a reader of a date gets a night that stands, or why there is none."""

from datetime import date

import pytest
from builders import night_inputs
from test_publish import AS_OF, by_id, make_night, tiny, url  # noqa: F401 (url is a fixture)

from tasks.commands.nights.trace import find
from tasks.commands.nights.withdraw import withdraw
from tasks.publication import manifests, withdrawal
from tasks.publication.contracts import Withdrawal
from tasks.publication.manifests import NightPlace
from tasks.publication.night import run_of
from tasks.publication.object_store import Store
from tasks.publication.withdrawal import leave_withdrawn, withdraw_night
from tasks.publish import publish
from tasks.read import read_manifest, read_predictions
from tasks.runs.experiments import Run
from tasks.runtime.errors import UserError

LATER = date(2024, 2, 11)
WHY = Withdrawal(person="Ann", reason="yesterday's weights")


def place_of(url, as_of=AS_OF):  # noqa: F811
    return NightPlace(store=Store(url), product="tiny", as_of=as_of)


def a_run(as_of, generation):
    return Run(product="tiny", as_of=as_of.isoformat(), revision="", name="late", shards=3, generation=generation)


@pytest.fixture
def nights(url):  # noqa: F811
    """Two nights, of which the later one is the newest; returns what the earlier one holds."""
    product, table = make_night(url)
    publish(product, AS_OF)
    publish(make_night(url, LATER, model="later")[0], LATER)
    return table


def test_withdrawn_night_is_told_and_the_pointer_goes_back(url, nights):  # noqa: F811
    told = withdraw(tiny(url), LATER, " yesterday's weights ", "Ann")
    assert told == (
        f"{url}/tiny/dt=2024-02-11/_manifest.json: withdrawn; _latest is the night of 2024-02-10. "
        "A new run of 2024-02-11 publishes it again"
    )
    with pytest.raises(UserError, match=r"Ann has withdrawn this night: yesterday's weights; choose another dt"):
        read_predictions(url, "tiny", "2024-02-11")
    assert by_id(read_predictions(url, "tiny")).equals(by_id(nights))
    assert [each.withdrawn for each in manifests.history(place_of(url, LATER))] == [None], "the night is kept"
    assert find(f"{url}/tiny/dt=2024-02-11/_manifest.json").manifest.withdrawn == WHY


def test_withdrawal_again_changes_nothing_and_names_the_first_reason(url, nights):  # noqa: F811
    withdraw(tiny(url), LATER, WHY.reason, "Ann")
    before = {key: Store(url).read(key).body for key in Store(url).list("tiny/")}
    assert "had been withdrawn already" in withdraw(tiny(url), LATER, "another reason", "Bob")
    assert before == {key: Store(url).read(key).body for key in Store(url).list("tiny/")}


def test_pointer_stays_where_no_other_night_stands_and_follows_the_next(url, nights):  # noqa: F811
    withdraw(tiny(url), LATER, WHY.reason, "Ann")
    assert "no other night stands" in withdraw(tiny(url), AS_OF, WHY.reason, "Ann")
    with pytest.raises(UserError, match="has withdrawn this night"):
        read_predictions(url, "tiny")
    earlier = date(2024, 2, 8)
    publish(make_night(url, earlier, model="earlier")[0], earlier)
    assert read_manifest(url, "tiny").dt == earlier


def test_older_night_is_withdrawn_and_the_pointer_stays(url, nights):  # noqa: F811
    withdraw(tiny(url), AS_OF, WHY.reason, "Ann")
    assert read_manifest(url, "tiny").dt == LATER


def test_same_night_is_published_again_by_a_new_run_alone(url, nights):  # noqa: F811
    withdraw(tiny(url), LATER, WHY.reason, "Ann")
    product, table = make_night(url, LATER, model="later")
    with pytest.raises(UserError, match=r"Ann has withdrawn the night since it was opened \(yesterday's weights\)"):
        publish(make_night(url, LATER, model="other")[0], LATER, a_run(LATER, 1))
    make_night(url, LATER, model="later")
    publish(product, LATER, a_run(LATER, 1))
    assert read_manifest(url, "tiny").dt == AS_OF, "a retry of the run that had published it brings nothing back"
    publish(product, LATER)
    assert by_id(read_predictions(url, "tiny")).equals(by_id(table))
    found = read_manifest(url, "tiny")
    assert (found.dt, found.run, found.withdrawn) == (LATER, run_of(night_inputs("later", LATER)), None)


@pytest.mark.long
@pytest.mark.parametrize(
    "label", ["the generation is acquired", "the history is kept", "the manifest has moved", "the pointer has moved"]
)
def test_withdrawal_that_died_is_finished_by_doing_it_again(url, nights, label, monkeypatch):  # noqa: F811
    def die(at):
        if at == f"withdraw: {label}":
            raise KeyboardInterrupt

    monkeypatch.setattr(withdrawal.faults, "failpoint", die)
    with pytest.raises(KeyboardInterrupt):
        withdraw_night(place_of(url, LATER), WHY)
    monkeypatch.setattr(withdrawal.faults, "failpoint", lambda at: None)
    withdraw_night(place_of(url, LATER), WHY)
    assert read_manifest(url, "tiny").dt == AS_OF
    publish(make_night(url, LATER, model="later")[0], LATER)
    assert read_manifest(url, "tiny").dt == LATER


def test_night_that_takes_its_place_meanwhile_is_not_withdrawn_unseen(url, nights, monkeypatch):  # noqa: F811
    def publish_another(at):
        if at == "withdraw: the history is kept":
            monkeypatch.setattr(withdrawal.faults, "failpoint", lambda at: None)
            publish(make_night(url, LATER, model="another")[0], LATER)

    monkeypatch.setattr(withdrawal.faults, "failpoint", publish_another)
    with pytest.raises(UserError, match="another night has taken this one's place just now; nothing was withdrawn"):
        withdraw_night(place_of(url, LATER), WHY)
    assert read_manifest(url, "tiny", "2024-02-11").run == run_of(night_inputs("another", LATER))


def test_publisher_that_moved_the_pointer_too_late_takes_it_back(url, nights):  # noqa: F811
    """The pointer as it is where the night was withdrawn between a publisher's look at it and its write."""
    place = place_of(url, LATER)
    withdraw_night(place, WHY)
    moved = manifests.latest(place.store, "tiny").to_json() | {"dt": "2024-02-11"}
    place.store.update("tiny/_latest.json", lambda _: manifests.encode_checked(moved))
    assert leave_withdrawn(place).dt == AS_OF


def test_night_that_is_none_and_reason_that_is_none_are_told(url, nights):  # noqa: F811
    with pytest.raises(UserError, match="a night must be published, and none is; choose another DT"):
        withdraw(tiny(url), date(2024, 2, 20), WHY.reason, "Ann")
    with pytest.raises(UserError, match="REASON must say why"):
        withdraw(tiny(url), LATER, " ", "Ann")
