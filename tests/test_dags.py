"""Oracle: Airflow's own parser and serialiser, and params.yaml."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import yaml
from airflow.sdk.exceptions import AirflowSkipException
from builders import declared
from conftest import ROOT, environment
from jinja2.nativetypes import NativeEnvironment

from tasks import STAGES, params
from tasks.commands.embedded.environment import airflow_settings
from tasks.runs.dates import Backfill
from tasks.runs.dvc import DvcLock
from tasks.runs.experiments import Run
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths
from tasks.runtime.results import Result

DECLARED = params.load(ROOT / "params.yaml").products
SERIALISE = """
import json, sys
from airflow.serialization.serialized_objects import DagSerialization
import dags.products as module
dags = {name: value for name, value in vars(module).items() if name.startswith(("train__", "predict__"))}
json.dump({name: DagSerialization.to_dict(dag) for name, dag in dags.items()}, sys.stdout)
"""


def serialised(tmp_path, seed: int, **settings: str) -> dict:
    env = environment(
        tmp_path,
        PYTHONHASHSEED=str(seed),
        PYTHONPATH=str(ROOT),
        AIRFLOW_HOME=str(tmp_path / "airflow"),
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "dags" / "plugins"),
        **settings,
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SERIALISE],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[done.stdout.index("{") :])


@pytest.fixture(scope="module")
def dags(tmp_path_factory):
    return serialised(tmp_path_factory.mktemp("airflow"), 1)


@pytest.fixture(scope="module")
def module():
    import dags.products

    return dags.products


def tasks_of(dag: dict) -> dict[str, set[str]]:
    """Each task's successors."""
    tasks = [task["__var"] for task in dag["dag"]["tasks"]]
    return {task["task_id"]: set(task.get("downstream_task_ids", [])) for task in tasks}


def test_every_product_has_its_two_dags_on_its_schedules(module):
    for name, product in DECLARED.items():
        for kind, schedule in (("train", product.schedule.retrain), ("predict", product.schedule.predict)):
            dag = getattr(module, f"{kind}__{name}")
            assert dag.dag_id == f"{kind}__{name}"
            stored = dag.schedule and dag.schedule.serialize()
            due = stored and (stored["expression"], stored["timezone"])
            assert due == (schedule and (schedule, product.time_zone))
            assert dag.catchup is False


@pytest.mark.long
def test_serialisation_is_the_same_at_every_parse_hash_seed_and_setting_of_intervals(dags, tmp_path):
    assert serialised(tmp_path, 2, AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS="True") == dags


def test_night_that_waits_for_late_data_holds_no_worker_meanwhile(module):
    product = params.parse(declared(schedule__ready={"rows_at_least": 5, "until": "05:00"})).product("tiny")
    dag = module.declare(product, "predict", None)
    waits = dag.get_task("ready")
    assert (waits.mode, waits.poke_interval) == ("reschedule", 300)
    assert (waits.upstream_task_ids, waits.downstream_task_ids) == ({"start"}, {"ingest"})
    assert "ready → ingest" in dag.doc_md
    assert not module.declare(params.parse(declared()).product("tiny"), "predict", None).has_task("ready")
    assert not module.declare(product, "train", None).has_task("ready")


def test_backfill_takes_the_steps_of_the_dag_in_its_order(module):
    from tasks.commands.nights.backfill import FIRST_WAIT_SECONDS, TRIES
    from tasks.runs.upstream import PREDICT_STAGES

    dag = module.declare(next(iter(DECLARED.values())), "predict", None)
    order = [task.task_id for task in dag.topological_sort()]
    order.remove("retrain")
    assert order == ["start", *PREDICT_STAGES, "collect", "publish", "monitor", "gc"]
    retried = dag.default_args
    assert (retried["retries"] + 1, retried["retry_delay"].total_seconds()) == (TRIES, FIRST_WAIT_SECONDS)


@pytest.mark.parametrize("kind", ["train", "predict"])
def test_outage_of_five_minutes_leaves_every_task_a_try_after_it(module, kind):
    from airflow.models.taskinstance import TaskInstance

    dag = module.declare(next(iter(DECLARED.values())), kind, None)
    failed_at = datetime(2024, 2, 10, tzinfo=UTC)
    for task in dag.tasks:
        waited = timedelta()
        for number in range(1, task.retries + 1):
            facts = {"task": task, "try_number": number, "end_date": failed_at, "retry_delay_override": None}
            names = {"dag_id": dag.dag_id, "task_id": task.task_id, "logical_date": failed_at}
            waited += TaskInstance.next_retry_datetime(SimpleNamespace(**facts, **names)) - failed_at
        assert timedelta(minutes=5) < waited < timedelta(minutes=15), task.task_id


@pytest.mark.parametrize(("reason", "chosen"), [(None, ["gc"]), ("auc has fallen", ["gc", "retrain"])])
def test_training_begins_where_the_nights_ask_for_one(module, monkeypatch, reason, chosen):
    result = Result(status="done", fields={"line": "", "retrain": reason})
    monkeypatch.setattr("tasks.runs.steps.step", lambda run, name: result)
    run = Run(name="tiny-2024-02-10-predict-00000000", product="tiny", as_of="2024-02-10", revision="ab" * 20, shards=3)
    assert module.monitor.function(run.to_json()) == chosen


def test_training_that_the_nights_ask_for_has_their_date_and_is_one(module):
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator

    dag = module.declare(next(iter(DECLARED.values())), "predict", None)
    retrain = dag.get_task("retrain")
    assert isinstance(retrain, TriggerDagRunOperator)
    assert (retrain.logical_date, retrain.skip_when_already_exists) == (None, True)
    ti = SimpleNamespace(xcom_pull=lambda task_ids: {"start": {"as_of": "2024-10-11"}}[task_ids])
    rendered = [
        NativeEnvironment().from_string(text).render(ti=ti) for text in (retrain.trigger_run_id, retrain.conf["as_of"])
    ]
    assert rendered == ["decay__2024-10-11", "2024-10-11"]
    assert retrain.trigger_dag_id == f"train__{next(iter(DECLARED))}"


@pytest.mark.parametrize("is_paused", [True, False])
def test_training_that_a_paused_dag_will_not_begin_is_told(module, monkeypatch, is_paused):
    name, told, asked_of = next(iter(DECLARED)), [], []
    monkeypatch.setattr("tasks.monitoring.messages.outbox.tell", lambda product, message: told.append(message))
    operator = SimpleNamespace(
        trigger_dag_id=f"train__{name}", trigger_run_id="decay__2024-10-11", conf={"as_of": "2024-10-11"}
    )

    def get_dag(dag_id):
        asked_of.append(dag_id)
        return SimpleNamespace(is_paused=is_paused)

    retrain = module.declare(DECLARED[name], "predict", None).get_task("retrain")
    context = {"ti": SimpleNamespace(task=operator, get_dag=get_dag, log_url="http://127.0.0.1/log")}
    for callback in retrain.on_execute_callback:
        callback(context)
    assert asked_of == [f"train__{name}"]
    assert [(each.kind, each.about, each.link) for each in told] == [
        ("stopped", "train decay__2024-10-11", "http://127.0.0.1/log")
    ] * is_paused
    assert all(f"train__{name} is paused" in each.text for each in told)


@pytest.mark.parametrize("product", DECLARED)
def test_each_task_does_one_stage_in_the_order_of_the_data(dags, product):
    order = ["start", *STAGES[:-1], "promote"]
    successors = tasks_of(dags[f"train__{product}"])
    assert set(successors) == set(order)
    assert all(after in successors[before] for before, after in itertools.pairwise(order))
    order = ["start", "ingest", "validate", "predict", "collect", "publish", "monitor", "gc"]
    successors = tasks_of(dags[f"predict__{product}"])
    assert set(successors) == {*order, "retrain"}
    assert all(after in successors[before] for before, after in itertools.pairwise(order))
    assert successors["monitor"] == {"gc", "retrain"}


@pytest.fixture
def asking(module):
    """The training DAG of a product whose models a person must approve."""
    product = DECLARED["flight-delays"]
    return module.declare(replace(product, gates=replace(product.gates, approval="human")), "train", None)


def test_human_is_asked_where_the_gates_say_so_and_silence_rejects(asking):
    assert asking.get_task("evaluate_gates").downstream_task_ids == {"approve", "promote"}
    approve = asking.get_task("approve")
    assert approve.downstream_task_ids == {"promote"}
    assert (approve.defaults, approve.response_timeout.days) == (["Reject"], 2)
    assert "responded_by_user" in str(asking.get_task("promote").op_args)
    assert asking.get_task("promote").trigger_rule == "none_failed_min_one_success", "it runs where nobody is asked"


@pytest.mark.parametrize(
    ("approver", "answer", "named"),
    [
        ("Ada", None, "Ada"),
        (None, {"responded_by_user": {"name": "Grace"}}, "Grace"),
        (None, None, None),  # `approve` was marked successful by hand
        (None, {"responded_by_user": None}, None),  # nobody answered in time
    ],
)
def test_person_who_approves_is_named_or_nobody_is(module, approver, answer, named):
    ti = SimpleNamespace(xcom_pull=lambda task_ids: answer)
    template = NativeEnvironment().from_string(module.ASKED)
    assert template.render(params=SimpleNamespace(approver=approver), ti=ti) == named


@pytest.mark.parametrize(
    ("approver", "answer", "shown"),
    [
        ("Ada", None, None),
        (None, {"params_input": {"figures": "figures-0123456789ab"}}, "figures-0123456789ab"),
        (None, {"params_input": {"figures": "figures-123456789012"}}, "figures-123456789012"),  # no number
        (None, {"params_input": {}}, "not named"),  # an answer by Airflow's API alone
        (None, None, "not named"),
    ],
)
def test_answer_names_the_figures_that_a_person_was_shown(module, approver, answer, shown):
    ti = SimpleNamespace(xcom_pull=lambda task_ids: answer)
    template = NativeEnvironment().from_string(module.SHOWN)
    assert template.render(params=SimpleNamespace(approver=approver), ti=ti) == shown


def test_shape_of_a_dag_follows_from_params_alone(module, asking, monkeypatch):
    monkeypatch.setenv("LAMPLIGHTER_APPROVER", "whoever runs it by hand")
    product = DECLARED["flight-delays"]
    again = module.declare(replace(product, gates=replace(product.gates, approval="human")), "train", None)
    assert {each.task_id: each.downstream_task_ids for each in again.tasks} == {
        each.task_id: each.downstream_task_ids for each in asking.tasks
    }
    assert set(asking.task_ids) == {"start", *STAGES[:-1], "evaluate_gates", "approve", "promote"}


@pytest.mark.parametrize(
    ("approver", "decision", "chosen"),
    [
        ("Ada", None, ["promote"]),
        (None, "needs approval", ["approve"]),
        (None, "rejected", []),
        (None, "champion already", []),
    ],
)
def test_next_task_is_chosen_by_the_fields_of_a_result(module, monkeypatch, approver, decision, chosen):
    pushed = {}
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    monkeypatch.setattr(module, "get_current_context", lambda: {"params": {"approver": approver}, "ti": ti})
    result = Result(status="done", message="waits for a human's approval", fields={"decision": decision, "line": "auc"})
    monkeypatch.setattr("tasks.runs.steps.step", lambda run, name: result)
    run = Run(name="tiny-2024-02-10-train-00000000", product="tiny", as_of="2024-02-10", revision="ab" * 20, shards=3)
    assert module.evaluate_gates.function(run.to_json()) == chosen
    link = "[The report of this training](/lamplighter/products/tiny/reports/2024-02-10-00000000.html)"
    assert pushed == ({} if approver else {"verdict": f"auc\n\n{link}", "figures": None})


def test_shards_are_mapped_when_the_dag_runs(module):
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    assert all(isinstance(getattr(module, f"predict__{name}").get_task("predict"), MappedOperator) for name in DECLARED)


def test_no_task_hangs_for_good_and_celery_waits_as_long(module):
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    visible = compose["x-agreed"]["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"]
    for name in DECLARED:
        for dag in (getattr(module, f"{kind}__{name}") for kind in ("train", "predict")):
            assert {task.execution_timeout.total_seconds() for task in dag.tasks} == {int(visible)}


def test_every_dag_explains_itself_and_has_a_form(module):
    for name, product in DECLARED.items():
        train, predict = getattr(module, f"train__{name}"), getattr(module, f"predict__{name}")
        assert product.description in train.doc_md
        assert "→" in predict.doc_md
        assert all("**What happens next**" in dag.doc_md for dag in (train, predict))
        assert set(train.params) == {"as_of", "force", "approver"}
        assert set(predict.params) == {"as_of", "force", "shards"}
        assert predict.params["shards"] is None, "what is committed decides, not what this parse has read"


def test_form_says_what_a_run_without_an_as_of_is_of(module):
    as_of = {name: getattr(module, f"predict__{name}").params.get_param("as_of") for name in DECLARED}
    assert "give a date up to 2013-12-30." in as_of["flight-delays"].description, "its nights score tomorrow's rows"
    assert as_of["flight-delays"].resolve() == "2013-12-30", "the newest that makes sense is proposed"
    assert "give a date up to 2013-07-05." in as_of["news-topics"].description
    going_on = replace(
        DECLARED["parcels"], source=replace(DECLARED["parcels"].source, ends=None), time_zone="Asia/Tokyo"
    )
    dag = module.declare(going_on, "predict", "0 3 * * *")
    assert dag.params["as_of"] is None, "a date would make another DAG of it each day"
    assert "last night, the day before the run's own day in Asia/Tokyo" in dag.params.get_param("as_of").description
    assert "Asia/Tokyo" in dag.doc_md
    assert "The data end" not in dag.doc_md


@pytest.mark.parametrize("wrong", ["", "yesterday", "2013-6-30", "2013-06-31", 20130630])
def test_date_that_cannot_be_read_is_refused_when_the_run_is_triggered(module, wrong):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        module.form(DECLARED["parcels"], "predict")["as_of"].resolve(wrong)


def test_log_of_start_begins_with_the_date_and_its_reason(module, monkeypatch, capsys):
    due = datetime(2013, 7, 1, 18, tzinfo=UTC)
    dag_run = SimpleNamespace(
        run_id="r",
        logical_date=due,
        data_interval_start=due,
        data_interval_end=due,
        run_after=due,
        run_type="scheduled",
        conf=None,
    )
    context = {"params": {"as_of": None, "force": False}, "dag_run": dag_run}
    monkeypatch.setattr(module, "get_current_context", lambda: context)
    opened = Run(name="tiny-r", product="tiny", as_of="2013-07-01", revision="ab" * 20, shards=3)
    asked = []
    monkeypatch.setattr("tasks.runs.steps.open_run", lambda *asks, **more: asked.append(asks) or opened)
    module.start.function("tiny", "predict", "Asia/Tokyo")
    assert asked == [("tiny", "predict", "2013-07-01", "r")]
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "as_of 2013-07-01 (the day before 2013-07-02 03:00 in Asia/Tokyo)"


@pytest.mark.parametrize(
    ("run_type", "force", "cleared", "is_made"),
    [
        ("backfill", False, 0, False),
        ("backfill", True, 0, True),
        ("backfill", False, 1, True),
        ("scheduled", False, 0, True),
        ("manual", False, 0, True),
    ],
)
def test_backfill_leaves_nights_alone_that_stand(module, monkeypatch, run_type, force, cleared, is_made):
    """Unless a person has asked for them by force, or by clearing the run."""
    day = datetime(2013, 7, 2, 3, tzinfo=UTC)
    dag_run = SimpleNamespace(
        run_id="r",
        logical_date=day,
        data_interval_start=day,
        data_interval_end=day,
        run_after=day,
        run_type=run_type,
        conf={"backfill": {"number": 3, "until": "2013-07-08"}},
        clear_number=cleared,
    )
    context = {"params": {"as_of": None, "force": force}, "dag_run": dag_run}
    monkeypatch.setattr(module, "get_current_context", lambda: context)
    monkeypatch.setattr("tasks.runs.steps.standing_night", lambda *asked: f"it stands: {asked}")
    opened = Run(name="tiny-r", product="tiny", as_of="2013-07-02", revision="ab" * 20, shards=3)
    asked = []
    monkeypatch.setattr("tasks.runs.steps.open_run", lambda *asks, **more: asked.append(more["backfill"]) or opened)
    if is_made:
        assert module.start.function("tiny", "predict", "UTC")["product"] == "tiny"
        assert asked == [Backfill(number=3, until="2013-07-08") if run_type == "backfill" else None]
    else:
        with pytest.raises(AirflowSkipException, match=r"it stands: .*'2013-07-02'"):
            module.start.function("tiny", "predict", "UTC")


NOTES = """
import datetime, sys
from types import SimpleNamespace
from airflow.listeners.listener import get_listener_manager
due = datetime.datetime(2013, 7, 2, 3, tzinfo=datetime.UTC)
for dag, conf, note in [
    ("predict__parcels", {}, None),
    ("train__parcels", {"as_of": "2013-05-05"}, None),
    ("predict__parcels", None, "looked at by Ada"),
    ("another", {}, None),
]:
    dates = dict(logical_date=due, data_interval_start=due, data_interval_end=due, run_after=due)
    dag_run = SimpleNamespace(dag_id=dag, conf=conf, note=note, run_type="scheduled", **dates)
    get_listener_manager().hook.on_dag_run_running(dag_run=dag_run, msg="")
    print("note:", dag_run.note)
"""


def test_scheduler_notes_the_date_of_a_run_when_it_begins(tmp_path):
    env = environment(tmp_path, PYTHONPATH=str(ROOT), **{**airflow_settings(), "AIRFLOW_HOME": str(tmp_path)})
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", NOTES], env=env, capture_output=True, text=True)
    assert [line.removeprefix("note: ") for line in done.stdout.splitlines() if line.startswith("note: ")] == [
        "as_of 2013-07-01 (the day before 2013-07-02 03:00 in UTC)",
        "as_of 2013-05-05 (as given)",
        "looked at by Ada",
        "None",
    ], done.stderr


def test_note_of_a_training_leads_to_its_report_once():
    from dags.plugins.run_notes import with_report

    run = {"name": "parcels-2013-07-01-train-6862ea31", "as_of": "2013-07-01"}
    link = "[Report](/lamplighter/products/parcels/reports/2013-07-01-6862ea31.html)"
    noted = with_report("as_of 2013-07-01 (as given)", "parcels", run)
    assert noted == f"as_of 2013-07-01 (as given)\n\n{link}"
    assert with_report(noted, "parcels", run) == noted
    assert with_report(None, "parcels", run) == link


@pytest.mark.parametrize("final", [UserError("mend me"), KeyError("a bug")])
def test_what_no_retry_can_mend_fails_at_once(module, final):
    from airflow.sdk.exceptions import AirflowFailException

    def fail():
        raise final

    with pytest.raises(AirflowFailException):
        module.classify_failure(fail)


def test_what_may_pass_is_left_to_a_retry(module):
    def fail():
        raise TransientError("the store did not answer")

    with pytest.raises(TransientError):
        module.classify_failure(fail)


def test_assets_tell_what_each_dag_takes_and_makes(dags):
    """As Airflow stores them; an alias, since a training that is not promoted makes no model that predicts."""
    made = {
        kind: {
            (task["__var"]["task_id"], outlet["__var"].get("uri") or outlet["__var"]["name"])
            for task in dags[f"{kind}__parcels"]["dag"]["tasks"]
            for outlet in task["__var"].get("outlets", [])
        }
        for kind in ("train", "predict")
    }
    taken = {("ingest", f"lamplighter://parcels/{name}") for name in ("source", "raw")}
    assert made == {
        "train": {*taken, ("promote", "parcels/champions")},
        "predict": {*taken, ("publish", "lamplighter://parcels/predictions")},
    }


VERDICT = {"version": "v3.0.0", "figures": {"metric": "auc", "value": 0.7936}}
OF_THE_RUN = {"as_of": "2024-02-10", "experiment": "parcels-2024-02-10-train-00000000"}
DELIVERED = {"manifest": "data/reports/parcels/ingest.json", "rows": 30, "version": "2024-02-10"}
STORED = {
    "manifest": "data/raw/parcels/index.json",
    "rows": 500,
    "rows_new": 20,
    "labels": 400,
    "labels_new": 10,
    "version": "aa.dir",
}
MADE = {
    "manifest": "s3://lamplighter/predictions/parcels/_champion.json",
    "rows": 350,
    "rows_held_out": 50,
    **VERDICT["figures"],
    "version": "v3.0.0",
}


@pytest.mark.parametrize(
    ("stage", "fields", "noted"),
    [
        ("ingest", {}, {"parcels/source": DELIVERED, "parcels/raw": STORED}),
        ("promote", {"decision": "promoted", **VERDICT}, {"parcels/champions": MADE}),
        ("promote", {"decision": "rejected", **VERDICT}, {}),
        ("monitor", {}, {}),
    ],
)
def test_event_of_an_asset_has_manifest_rows_and_version(monkeypatch, tmp_path, stage, fields, noted):
    """By what the stages leave in the run's workspace."""
    from airflow.sdk.execution_time.context import OutletEventAccessors

    import dags.assets

    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path))
    run = Run(name=OF_THE_RUN["experiment"], product="parcels", as_of="2024-02-10", revision="c" * 40, shards=1)
    reports = Paths("parcels", root=run.workspace / "data").report
    counts = {"rows_delivered": 30, "rows_total": 500, "rows_new": 20, "labels_total": 400, "labels_new": 10}
    write_json(reports("ingest.json"), counts)
    write_json(reports("split.json"), {"rows": {"train": 300, "val": 50, "test": 50, "pretrain": 450}})
    out = {"path": "data/raw/parcels", "md5": "aa.dir"}
    DvcLock({"ingest@parcels": {"outs": [out]}}).write(run.workspace)
    events = OutletEventAccessors()
    monkeypatch.setattr(dags.assets, "get_current_context", lambda: {"outlet_events": events})
    dags.assets.note(run.to_json(), stage, fields, "20 rows")
    found = {}
    for each in events:
        accessor = events[each]
        [found[each.name]] = [event.extra for event in accessor.asset_alias_events] or [accessor.extra]
    assert found == {name: {**OF_THE_RUN, **facts, "line": "20 rows"} for name, facts in noted.items()}
