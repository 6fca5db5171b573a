"""Oracle: Airflow's own timetable says which runs were due; a real S3 server, and receivers on loopback."""

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from threading import Thread
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pendulum
import pytest
import yaml
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from builders import a_product, declared
from test_messages import Hook, hook, only_declared_here  # noqa: F401 (fixtures)
from test_monitor import published, scored
from test_publish import url  # noqa: F401 (a fixture)

from dags.messages import UnknownFailure, tell_decision, tell_failure, tell_rejection
from dags.nights import NightTimetable
from tasks import params
from tasks.monitoring.lateness import due_night
from tasks.monitoring.messages.outbox import tell
from tasks.monitoring.messages.wording import stopped
from tasks.monitoring.status import read_status
from tasks.publication.contracts import Withdrawal
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.publication.withdrawal import withdraw_night
from tasks.runtime.errors import TransientError, UserError
from tasks.watch import watch

BERLIN = ZoneInfo("Europe/Berlin")
AS_OF = date(2024, 2, 10)
AFTER = datetime(2024, 2, 11, 6, 31, tzinfo=UTC)


def declared_nights(cron, ready_by, zone="UTC", **changes):
    schedule = {"predict": cron, "ready_by": ready_by}
    return a_product(schedule=schedule, time_zone=zone, **changes)


@pytest.fixture
def product(url):  # noqa: F811
    return declared_nights("0 2 * * *", "06:30", publish={"url": url})


def newest_run_that_must_have_ended(cron, zone, now):
    """The newest run of fifteen days that Airflow's timetable makes due and whose next 06:30 has come."""
    timetable, found = NightTimetable(cron, timezone=zone), None
    run = timetable._get_next(pendulum.instance(now - timedelta(days=15)))
    while run <= now:
        local = run.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        by = datetime.combine(local.date(), time(6, 30))
        by += timedelta(days=by < local)
        if by <= now.astimezone(ZoneInfo(zone)).replace(tzinfo=None):
            found = (local.date() - timedelta(days=1), by)
        run = timetable._get_next(run)
    return found


@pytest.mark.parametrize("cron", ["0 2 * * *", "0 18 * * *", "30 6 * * *", "0 2 * * 1", "0 */5 * * *", "0 2 1 * *"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Tokyo"])
def test_newest_night_that_must_be_there_is_that_of_airflows_last_run(cron, zone):
    product = declared_nights(cron, "06:30", zone)
    for hours in range(0, 24 * 8, 7):
        now = datetime(2024, 3, 27, 0, 1, tzinfo=UTC) + timedelta(hours=hours)  # clocks change on the 31st
        due = due_night(product, now)
        wanted = newest_run_that_must_have_ended(cron, zone, now)
        assert wanted is None or (due.as_of, due.by) == wanted, now


def test_night_is_due_from_the_hour_on_by_the_products_own_clock():
    product = declared_nights("0 2 * * *", "06:30", "Europe/Berlin")
    before, after = (datetime(2024, 2, 11, 6, minute, tzinfo=BERLIN) for minute in (29, 30))
    assert due_night(product, before).as_of == AS_OF - timedelta(days=1)
    assert due_night(product, after).as_of == AS_OF
    assert due_night(declared_nights("0 2 * * *", None), after) is None


def test_no_night_is_due_after_the_end_of_the_data():
    source = {"ends": "2024-02-10"}
    product = a_product(
        schedule={"predict": "0 2 * * *", "ready_by": "06:30"},
        source={"kind": "csv", "url": "source/parcels.csv"} | source,
    )
    last = product.last_as_of
    assert due_night(product, datetime.combine(last + timedelta(days=1), AFTER.timetz())).as_of == last
    assert due_night(product, datetime.combine(last + timedelta(days=2), AFTER.timetz())) is None


def test_hour_without_a_schedule_is_refused():
    with pytest.raises(UserError, match=r"schedule\.ready_by must have nights that are due by"):
        params.parse(declared(schedule={"ready_by": "06:30"}))


def test_night_that_never_ran_is_told_once_by_many_watchers(product, hook):  # noqa: F811
    with ThreadPoolExecutor(8) as pool:
        lines = list(pool.map(lambda _: watch([product], AFTER), range(8)))
    assert all("late: tiny (2024-02-10)" in line for line in lines)
    [body] = hook.bodies
    assert (body["kind"], body["about"]) == ("night-late", "2024-02-10")
    assert "No night has been published." in body["text"]
    assert "2024-02-11 06:30 (UTC)" in body["text"]


def test_published_night_is_on_time_and_a_withdrawn_one_not_late(product, hook):  # noqa: F811
    published(product, AS_OF, scored())
    assert watch([product], AFTER) == "1 products, no night is late"
    place = NightPlace(store=Store(product.publish.url), product="tiny", as_of=AS_OF)
    withdraw_night(place, Withdrawal(person="Ada", reason="wrong feed"))
    assert watch([product], AFTER) == "1 products, no night is late"
    watch([product], AFTER + timedelta(days=1))
    assert [body["about"] for body in hook.bodies] == ["2024-02-11"]


def test_heartbeat_is_sent_only_where_every_product_was_seen(product, hook, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LAMPLIGHTER_HEARTBEAT_URL", os.environ.pop("LAMPLIGHTER_WEBHOOK_URL"))
    watch([product], AFTER)
    assert hook.bodies == ["GET"]
    gone = declared_nights("0 2 * * *", "06:30", publish={"url": f"s3://{uuid.uuid4()}/none"})
    with pytest.raises(TransientError, match="no heartbeat is sent"):
        watch([gone, product], AFTER)
    assert hook.bodies == ["GET"]


def test_message_that_may_be_lost_is_shown_and_silences_the_heartbeat_for_an_hour(product, hook, monkeypatch):  # noqa: F811
    heartbeat = Hook()
    Thread(target=heartbeat.serve_forever, daemon=True).start()
    monkeypatch.setenv("LAMPLIGHTER_HEARTBEAT_URL", heartbeat.url)
    hook.status, begun = 504, datetime.now(UTC)
    tell(product, stopped(product, "the night of 2024-02-09", "a run", "rows must reconcile"))
    lines = [watch([product], begun + timedelta(minutes=n)) for n in (1, 10, 50, 70)]
    assert ["may have reached nobody" in line for line in lines] == [False, True, True, False]
    assert heartbeat.bodies == ["GET", "GET"]
    shown = read_status(Store(product.publish.url), "tiny").lost
    assert "tiny: the night of 2024-02-09 has stopped" in [each.subject for each in shown]
    heartbeat.shutdown()
    heartbeat.server_close()


def test_outside_monitor_that_is_dead_fails_nothing(product, monkeypatch, capsys):
    monkeypatch.setenv("LAMPLIGHTER_HEARTBEAT_URL", "http://127.0.0.1:9/secret")
    assert "late" in watch([product], AFTER)
    log = capsys.readouterr().out
    assert "the outside monitor has not taken it: Connection refused" in log
    assert "secret" not in log


@pytest.fixture
def failing(product, monkeypatch, tmp_path):
    """What Airflow gives the callback of a task of the tiny product that has failed."""
    import dags.messages

    content = declared(publish={"url": product.publish.url})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(dags.messages, "ROOT", tmp_path)
    due = datetime(2024, 2, 11, 2, tzinfo=UTC)

    def context(error, task="publish", **run):
        facts = {"dag_id": "predict__tiny", "run_id": "scheduled__2024-02-11", "run_type": "scheduled", "conf": None}
        times = dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end", "run_after"), due)
        dag_run = SimpleNamespace(**{**times, **facts, **run})
        ti = SimpleNamespace(task_id=task, log_url="http://127.0.0.1/log")
        return {"exception": error, "ti": ti, "dag_run": dag_run, "params": {"as_of": None}}

    return context


def test_shards_that_fail_together_tell_one_reason(failing, hook):  # noqa: F811
    error = AirflowFailException("all shards must have been scored, and 2 have")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: tell_failure(failing(error, f"predict {number}")), range(8)))
    [body] = hook.bodies
    assert (body["kind"], body["about"]) == ("stopped", "predict scheduled__2024-02-11")
    assert "The night of 2024-02-10 of tiny has stopped: all shards must" in body["text"]
    assert body["link"] == "http://127.0.0.1/log"
    tell_failure(failing(error, clear_number=1))
    assert len(hook.bodies) == 2, "a person has cleared it, and it has stopped anew"


def test_backfill_that_cannot_go_on_is_told_once(failing, hook):  # noqa: F811
    conf = {"backfill": {"number": 7, "until": "2024-02-20"}}
    for day in range(10):
        tell_failure(
            failing(TransientError("no answer"), run_id=f"{day}", run_type="backfill", conf=conf, clear_number=day % 2)
        )
    assert [body["about"] for body in hook.bodies] == ["backfill 7"]


def test_failure_without_words_is_told_without_what_it_holds(failing, hook):  # noqa: F811
    tell_failure(failing(UnknownFailure(repr(KeyError("Mrs Miller")))))
    tell_failure(failing(None, dag_id="train__tiny"))
    assert "publish ended with UnknownFailure; its log says more" in hook.bodies[0]["text"]
    assert "Mrs Miller" not in str(hook.bodies)
    assert "The training of 2024-02-10 of tiny has stopped: publish ended without a word" in hook.bodies[1]["text"]


def test_callback_that_cannot_tell_changes_nothing(failing, capsys):
    tell_failure(failing(None, dag_id="predict__unknown"))
    tell_decision({"product": "tiny"}, {})
    assert capsys.readouterr().out.count("no message could be made") == 2


def test_rejection_names_the_person_or_silence(failing, hook):  # noqa: F811
    tell_rejection(failing(None, dag_id="train__tiny", run_id="a"), "Ada")
    tell_rejection(failing(None, dag_id="train__tiny", run_id="b"), None)
    assert "Ada has rejected the model" in hook.bodies[0]["text"]
    assert "nobody has let the model through in time" in hook.bodies[1]["text"]


def test_decision_of_a_run_is_told_with_its_figures(failing, hook, monkeypatch):  # noqa: F811
    monkeypatch.setattr("dags.messages.get_current_context", lambda: failing(None))
    run = {"product": "tiny", "as_of": "2024-02-10", "name": "tiny-2024-02-10-train-00000000"}
    for _ in range(2):
        tell_decision(run, {"decision": "promoted", "line": "v2.0.0 is the champion now (auc 0.8)"})
    tell_decision(run, {"decision": "needs approval", "line": "passes the gates (auc 0.8)"})
    assert [body["kind"] for body in hook.bodies] == ["champion-changed", "approval-waits"]
    assert all("auc 0.8" in body["text"] for body in hook.bodies)


def test_every_task_tells_its_failure_and_the_watcher_is_not_paused():
    import dags.products
    import dags.watch

    declared_dags = [dag for dag in vars(dags.products).values() if isinstance(dag, DAG)]
    assert len(declared_dags) >= 8
    for task in (task for dag in declared_dags for task in dag.tasks):
        callback = task.partial_kwargs["on_failure_callback"] if task.is_mapped else task.on_failure_callback
        assert tell_failure in (callback if isinstance(callback, list) else [callback]), task.task_id
    assert dags.watch.dag.is_paused_upon_creation is False
    assert dags.watch.dag.task_ids == ["watch"]
