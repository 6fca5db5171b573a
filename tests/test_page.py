"""Oracle: Airflow's own page and the Products page in a real browser, and Airflow's list of what came of clicks."""

import contextlib
import json
import shutil
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, date, datetime

import jwt
import pytest
from browser import needs_browser, signed_in
from builders import a_repository
from conftest import call, environment, free_port, make_project
from playwright.sync_api import TimeoutError as SlowPage
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from test_messages import Hook
from test_products_page import a_status
from test_registry import experiment, promote

from dags.plugins.page.airflow_runs import seen_by_airflow
from dags.plugins.page.app import app
from tasks.monitoring.status import key_of_status, read_status
from tasks.publication.manifests import encode_checked
from tasks.publication.object_store import Store
from tasks.runs.registry import champions
from tasks.runtime.git import git

pytestmark = [needs_browser(), pytest.mark.long]


ASKING = """
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from airflow.sdk import DAG, chain, get_current_context, task
from dags import products
from tasks import params

HOME = Path(__file__).resolve().parent.parent
PRODUCT = next(iter(params.load(HOME / "params.yaml").products.values()))

@task
def evaluate_gates():
    name = (HOME / "measured").read_text()
    get_current_context()["ti"].xcom_push(key="verdict", value=f"auc 0.8, called {name}")
    get_current_context()["ti"].xcom_push(key="figures", value=name)

@task(trigger_rule="none_failed_min_one_success")
def promote(approver, approved):
    with (HOME / "promoted").open("a") as file:
        file.write(f"{approver} {approved}\\n")

@task
def start():
    return {"as_of": get_current_context()["params"]["as_of"]}

@task
def note_date():
    dag_run = get_current_context()["dag_run"]
    with (HOME / "retrained").open("a") as file:
        file.write(f"{dag_run.run_id} {products.params.parse_date(dag_run.conf['as_of'])}\\n")

TRIES = {"retries": 3, "retry_delay": timedelta(seconds=1)}  # as those of real DAGs, but for their patience
OPTIONS = {"schedule": None, "is_paused_upon_creation": False, "render_template_as_native_obj": True}
with DAG("train__decaying", params=products.form(PRODUCT, "train"), default_args=TRIES, **OPTIONS) as train__decaying:
    note_date()
with DAG("predict__decaying", params=products.form(PRODUCT, "predict"), **OPTIONS) as predict__decaying:
    chain(start(), products.retraining(replace(PRODUCT, name="decaying")))

for name, patience in (("train__asking", timedelta(days=2)), ("train__silent", timedelta(seconds=0))):
    with DAG(name, params=products.form(PRODUCT, "train"), default_args=TRIES, **OPTIONS) as dag:
        approve = products.approval(PRODUCT)
        approve.response_timeout = patience
        chain(evaluate_gates(), approve, promote(products.ASKED, products.SHOWN))
    globals()[name] = dag
"""
"""DAGs that ask as train__<product> does, and start it as predict__<product> does, with a file in place of both."""


@pytest.fixture(scope="module")
def messages():
    """What the embedded Airflow sends to a webhook."""
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, messages):
    """The embedded Airflow of a tiny project: its address and home; its DAGs are paused."""
    project = make_project(tmp_path_factory.mktemp("page") / "für morgen")
    (project / "dags" / "asking.py").write_text(ASKING)
    ports = {"LAMPLIGHTER_S3_PORT": str(free_port()), "LAMPLIGHTER_UI_PORT": str(free_port() + 5)}
    logs = {"LAMPLIGHTER_TASK_LOGS": "s3://lamplighter/logs", "LAMPLIGHTER_LOG": "json"}
    env = environment(project / ".lamplighter", **ports, **logs, LAMPLIGHTER_WEBHOOK_URL=messages.url)
    call([sys.executable, "-m", "tasks.commands", "up"], project, env)
    yield f"http://127.0.0.1:{ports['LAMPLIGHTER_UI_PORT']}", project / ".lamplighter"
    call([sys.executable, "-m", "tasks.commands", "down"], project, env)


@pytest.fixture(scope="module")
def browser(airflow):
    with signed_in(*airflow) as started:
        yield started


@pytest.fixture
def page(browser):
    """A new page of the browser that is signed in."""
    opened = browser.new_page()
    yield opened
    opened.close()


def asked(address: str, path: str, token: str | None = None, body: object = None) -> dict:
    """What Airflow's API answers."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    content = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, content, headers)) as answer:
        return json.load(answer)


def token_of(address: str, home) -> str:
    passwords = json.loads((home / "airflow" / "simple_auth_manager_passwords.json.generated").read_text())
    return asked(address, "/auth/token", body={"username": "admin", "password": passwords["admin"]})["access_token"]


def test_log_of_a_task_whose_machine_is_lost_is_read_from_the_store(airflow):
    address, home = airflow
    token = token_of(address, home)
    run = trigger(address, token, "watch")
    wait_for(lambda: state_of_run(address, token, "watch", run) == "success", "the watcher has looked")
    (log,) = (home / "airflow" / "logs" / "dag_id=watch" / f"run_id={urllib.parse.unquote(run)}").rglob("*.log")
    wait_for(lambda: log.stat().st_size == 0, "the log is in the store alone")
    shutil.rmtree(log.parent)
    shown = asked(address, f"/api/v2/dags/watch/dagRuns/{run}/taskInstances/watch/logs/1", token)["content"]
    events = [each["event"] for each in shown]
    assert any(str(event).startswith("s3://lamplighter/logs/dag_id=watch/") for event in events)
    printed = [json.loads(event) for event in events if str(event).startswith('{"time"')]
    assert [(line["stage"], line["level"]) for line in printed] == [("watch", "info")]
    assert printed[0]["message"] == "1 products, no night is late"


def pick(page, day: str) -> None:
    """Pick a day in the first field of the form that is empty."""
    page.get_by_text("Select date and time").first.click()
    field = page.get_by_placeholder("YYYY/MM/DD").locator("visible=true")
    field.fill(day)
    field.press("Enter")
    page.keyboard.press("Escape")


def test_days_picked_on_the_page_become_runs_of_these_days(airflow, page):
    address, home = airflow
    page.goto(f"{address}/dags/predict__tiny")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_text("Backfill", exact=True).first.click()
    pick(page, "2024/02/02")
    pick(page, "2024/02/05")
    page.get_by_text("4 runs will be triggered.").wait_for()
    page.get_by_text("Unpause predict__tiny on trigger").click()  # no model predicts: the runs may wait
    page.get_by_role("button", name="Run Backfill").click()
    page.get_by_text("Select date and time").first.wait_for(state="detached")
    page.wait_for_timeout(2000)
    listed = asked(address, "/api/v2/dags/predict__tiny/dagRuns", token_of(address, home))["dag_runs"]
    days = sorted(each["logical_date"][:10] for each in listed if each["run_type"] == "backfill")
    assert days == ["2024-02-02", "2024-02-03", "2024-02-04", "2024-02-05"]


def wait_for(found, what, seconds=300):
    """The first answer that is not empty; Airflow's scheduler may take its time."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, what
        time.sleep(0.5)
    return answer


def state_of(address, token, dag, run, task):
    return task_of(address, token, dag, run, task)["state"]


def task_of(address, token, dag, run, task):
    return asked(address, f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}", token)


def state_of_run(address, token, dag, run):
    return asked(address, f"/api/v2/dags/{dag}/dagRuns/{run}", token)["state"]


def trigger(address, token, dag, **conf):
    asks = {"logical_date": datetime.now(UTC).isoformat(), "conf": conf}
    run = asked(address, f"/api/v2/dags/{dag}/dagRuns", token, asks)["dag_run_id"]
    return urllib.parse.quote(run)


def runs_of(address, token, dag):
    return asked(address, f"/api/v2/dags/{dag}/dagRuns", token)["dag_runs"]


def trigger_by_form(page, address, dag, **fields):
    """Fill in the form that Airflow shows of a DAG, and send it."""
    page.goto(f"{address}/dags/{dag}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog").filter(has_text=f"Trigger Dag - {dag}")
    for name, text in fields.items():
        form.locator(f"#element_{name}").fill(text)
    deadline = time.monotonic() + 120
    while form.count():  # the page takes what is typed over a moment later, and refuses what it has not taken yet
        assert time.monotonic() < deadline, form.inner_text()
        page.wait_for_timeout(1000)
        with contextlib.suppress(SlowPage):  # while it sends, the button is dead, and then it is gone
            form.get_by_role("button", name="Trigger", exact=True).click(timeout=10_000)
            form.wait_for(state="detached", timeout=10_000)


def click_answer(page, name):
    """Click a button of the question, and wait until Airflow has taken the answer."""
    with page.expect_response(lambda answer: answer.request.method == "PATCH" and answer.ok):
        page.get_by_role("button", name=name).click()


def answer_question(page, address, token, run, button="Approve"):
    """Answer on the page that Airflow shows of the question; return what the figures are called there.

    An answer that comes before Airflow's scheduler has seen the asking process end is lost, as if the task had been
    killed from outside, and the next try asks anew: a machine that is busy may take so long.
    """
    while True:
        page.goto(f"{address}/dags/train__asking/runs/{run}/tasks/approve/required_actions")
        shown, asking = page.get_by_text("auc 0.8, called").inner_text(), question(address, token, run)
        click_answer(page, button)
        if (
            wait_for(lambda asking=asking: after(asking, question(address, token, run)), "the answer is taken")
            == "ended"
        ):
            return shown.removeprefix("auc 0.8, called ")


def question(address, token, run):
    return task_of(address, token, "train__asking", run, "approve")


def after(before, now):
    """What has come of an answered question: it has ended, is asked anew, or neither yet."""
    if now["state"] in ("success", "failed", "skipped", "upstream_failed"):
        return "ended"
    return now["state"] == "awaiting_input" and now["try_number"] > before["try_number"] and "asked anew"


def test_figures_that_a_person_saw_come_with_the_answer_after_a_clear_too(airflow, page):
    address, home = airflow
    token, project = token_of(address, home), home.parent
    before = promoted(project)
    (project / "measured").write_text("figures-1")
    run, shown = trigger(address, token, "train__asking"), []
    again = {"dry_run": False, "only_failed": False, "include_downstream": True, "task_ids": ["evaluate_gates"]}
    for n_answers in (1, 2):
        wait_for(lambda: state_of(address, token, "train__asking", run, "approve") == "awaiting_input", "approve asks")
        assert waiting(home) == (urllib.parse.unquote(run),)
        shown.append(answer_question(page, address, token, run))
        wait_for(lambda n=n_answers: len(promoted(project)) == len(before) + n, "promote is told")
        wait_for(lambda: state_of(address, token, "train__asking", run, "promote") == "success", "promote ends")
        (project / "measured").write_text("figures-2")
        if n_answers == 1:
            # Airflow loses a clear that comes between a run's last task and its end: it marks the run all the same.
            wait_for(lambda: state_of_run(address, token, "train__asking", run) == "success", "the run ends")
            body = again | {"dag_run_id": urllib.parse.unquote(run)}
            asked(address, "/api/v2/dags/train__asking/clearTaskInstances", token, body)
    page.goto(f"{address}/dags/train__asking/runs/{run}")
    page.get_by_text("Success", exact=True).first.wait_for()
    assert promoted(project) == [*before, *(f"admin {name}" for name in shown)]
    assert shown[0] == "figures-1"
    assert waiting(home) == ()


def test_rejection_on_the_page_promotes_nothing(airflow, page):
    address, home = airflow
    token = token_of(address, home)
    (home.parent / "measured").write_text("figures-4")
    run = trigger(address, token, "train__asking")
    wait_for(lambda: state_of(address, token, "train__asking", run, "approve") == "awaiting_input", "approve asks")
    answer_question(page, address, token, run, "Reject")
    wait_for(lambda: state_of(address, token, "train__asking", run, "promote") == "skipped", "promote is skipped")
    assert "admin figures-4" not in promoted(home.parent)


def waiting(home):
    """The runs that wait for a person, as the Products page finds them."""
    with Session(create_engine(f"sqlite:///{home / 'airflow' / 'airflow.db'}")) as session:
        return seen_by_airflow(session, ["asking"])["asking"].dags["train"].waiting


def promoted(project):
    return written(project / "promoted")


def written(file):
    """The lines of a file, as far as there is one."""
    return file.read_text().splitlines() if file.exists() else []


def test_silence_rejects(airflow):
    address, home = airflow
    token = token_of(address, home)
    (home.parent / "measured").write_text("figures-3")
    run = trigger(address, token, "train__silent")
    wait_for(lambda: state_of_run(address, token, "train__silent", run) in ("success", "failed"), "the run ends")
    states = {task: state_of(address, token, "train__silent", run, task) for task in ("approve", "promote")}
    assert states == {"approve": "success", "promote": "skipped"}  # silence is an answer: no
    assert not [line for line in promoted(home.parent) if "figures-3" in line]


def test_training_triggered_by_the_form_waits_for_a_person_with_its_date(airflow, page):
    address, home = airflow
    token, known = token_of(address, home), runs_of(address, token_of(address, home), "train__asking")
    (home.parent / "measured").write_text("figures-0")
    trigger_by_form(page, address, "train__asking", as_of="2024-02-08")
    run = wait_for(lambda: runs_of(address, token, "train__asking")[len(known) :], "the form makes a run")[0]
    assert run["conf"] == {"as_of": "2024-02-08", "force": False, "approver": None}
    name = urllib.parse.quote(run["dag_run_id"])
    wait_for(lambda: state_of(address, token, "train__asking", name, "approve") == "awaiting_input", "approve asks")
    assert answer_question(page, address, token, name) == "figures-0"
    wait_for(lambda: state_of(address, token, "train__asking", name, "promote") == "success", "promote is told")


def test_nights_that_ask_for_a_training_start_one_for_each_date(airflow):
    address, home = airflow
    token = token_of(address, home)
    for as_of, state in (("2024-02-10", "success"), ("2024-02-10", "skipped"), ("2024-02-11", "success")):
        run = trigger(address, token, "predict__decaying", as_of=as_of)
        wait_for(lambda r=run, s=state: state_of(address, token, "predict__decaying", r, "retrain") == s, as_of)
    wait_for(lambda: len(written(home.parent / "retrained")) == 2, "both trainings run")
    assert written(home.parent / "retrained") == [f"decay__{day} {day}" for day in ("2024-02-10", "2024-02-11")]


@pytest.fixture
def two_versions(airflow, tmp_path, monkeypatch):
    """Two versions of the tiny product's model at the project; the second is the champion."""
    home = airflow[1]
    for line in (home / "env").read_text().splitlines():
        monkeypatch.setenv(*line.split("=", 1))
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(home.parent))
    git("clone", "--quiet", str(home.parent), str(tmp_path / "clone"))
    clone = a_repository(tmp_path / "clone", message=None)
    monkeypatch.chdir(clone)
    leader = None
    for content in ("one", "two"):
        leader = promote(experiment(clone, date(2024, 2, 10), content), leader, as_of=date(2024, 2, 10))
    return leader


def test_rollback_by_the_form_is_done_told_and_shown(airflow, page, two_versions, messages):
    address, home = airflow
    trigger_by_form(page, address, "rollback", version="v1.0.0", reason="late on holidays")
    token = token_of(address, home)
    wait_for(lambda: [each["state"] for each in runs_of(address, token, "rollback")] == ["success"], "it is done")
    [run] = runs_of(address, token, "rollback")
    page.goto(f"{address}/dags/rollback/runs/{urllib.parse.quote(run['dag_run_id'])}")
    page.get_by_text("Success", exact=True).first.wait_for()
    assert champions.champion("tiny").version == "v1.0.0"
    [message] = messages.bodies
    assert (message["kind"], message["product"]) == ("champion-changed", "tiny")
    line = "v1.0.0 predicts tiny from the next night on; v2.0.0 is withdrawn, and no training brings it back"
    assert message["text"].startswith(f"{line}. admin has decided so: late on holidays")
    versions = read_status(Store("s3://lamplighter/predictions"), "tiny").versions
    shown = {each.version: (each.state, each.person) for each in versions}
    assert shown == {"v1.0.0": ("champion", "admin"), "v2.0.0": ("withdrawn", "admin")}


HURT = "<img src=x onerror='window.hurt = 1'>"
REPORT = "2024-02-07-6862ea31.html"
PLACES = (
    "",
    "fragment",
    "products/tiny",
    "fragment/tiny",
    "products/tiny/quarantine/2024-02-10",
    "fragment/tiny/quarantine/2024-02-10",
    "products/tiny/nights/2024-02-10/manifest",
    f"products/tiny/reports/{REPORT}",
    "page.js",
    "style.css",
)


@pytest.fixture(scope="module")
def shown(airflow):
    """The embedded Airflow, with a status, a manifest and a report of its product in the store."""
    address, home = airflow
    with pytest.MonkeyPatch.context() as patch:
        for line in (home / "env").read_text().splitlines():
            patch.setenv(*line.split("=", 1))
        store = Store("s3://lamplighter/predictions")
        status = a_status(last=date(2024, 2, 10), held=HURT).to_json()
        contents = {
            key_of_status("tiny"): encode_checked(status),
            "tiny/dt=2024-02-10/_manifest.json": encode_checked({"product": "tiny"}),
            f"tiny/_reports/{REPORT}": b"<!doctype html><title>r</title><h1>What was measured</h1><script>x</script>",
        }
        for key, content in contents.items():
            store.update(key, lambda _, content=content: content)
    return address, home


def answer(address, place, token=None):
    """The status and headers with which the page's own server answers."""
    request = urllib.request.Request(f"{address}/lamplighter/{place}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request) as found:
            return found.status, found.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_every_address_of_the_page_asks_for_a_login(shown):
    address, home = shown
    token = token_of(address, home)
    for route in app.routes:
        assert any(route.path_regex.match(f"/{place}") for place in PLACES), f"{route.path} is not tried"
    for place in (*PLACES, "docs", "openapi.json"):
        assert answer(address, place)[0] == 401, place
        assert answer(address, place, "no-token")[0] in (401, 403), place
    found = {place: answer(address, place, token) for place in PLACES}
    assert {place: status for place, (status, _) in found.items()} == dict.fromkeys(PLACES, 200)
    for place in ("", "products/tiny", f"products/tiny/reports/{REPORT}"):
        assert "default-src 'none'" in found[place][1]["Content-Security-Policy"]
    for place in (
        "products/nobody",
        "products/tiny/reports/..%2f_status.json",
        "products/tiny/nights/2024-02-11/manifest",
        "products/tiny/quarantine/2024-02-11",
    ):
        assert answer(address, place, token)[0] == 404, place


def test_person_without_rights_sees_neither_page_nor_what_it_shows(shown, browser):
    """A user of Airflow's with no role; a viewer reads all, and triggers nothing."""
    address, home = shown
    claims = jwt.decode(token_of(address, home), options={"verify_signature": False})
    kept = dict(line.split("=", 1) for line in (home / "env").read_text().splitlines())
    nobody, viewer = (
        jwt.encode(claims | {"sub": name, "role": role}, kept["AIRFLOW__API_AUTH__JWT_SECRET"], algorithm="HS512")
        for name, role in (("nobody", None), ("vera", "viewer"))
    )
    assert {place: answer(address, place, nobody)[0] for place in PLACES} == dict.fromkeys(PLACES, 403)
    assert {place: answer(address, place, viewer)[0] for place in PLACES} == dict.fromkeys(PLACES, 200)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        trigger(address, viewer, "train__asking")
    context = browser.browser.new_context()
    context.add_cookies([{"name": "_token", "value": nobody, "url": address}])
    assert context.new_page().goto(f"{address}/lamplighter/products/tiny").status == 403
    context.close()


def test_products_page_leads_from_airflow_to_product_night_and_report(shown, page):
    address, _ = shown
    page.goto(address)
    page.get_by_text("Products", exact=True).first.click()
    page.get_by_role("link", name="tiny", exact=True).click()
    page.get_by_text("The last verdict").wait_for()
    assert page.url == f"{address}/plugin/products/tiny"
    page.get_by_text(HURT).wait_for()
    assert page.evaluate("window.hurt") is None
    page.get_by_role("link", name="predict__tiny").first.click()
    page.wait_for_url(f"{address}/dags/predict__tiny**")
    page.go_back()
    page.get_by_role("link", name="Report").first.click()
    page.get_by_text("What was measured").wait_for()
    page.go_back()
    page.get_by_text("earlier nights").click()
    page.get_by_role("link", name="25", exact=True).first.click()
    page.wait_for_url("**/plugin/products/tiny/quarantine/**")
    page.get_by_text("make quarantine PRODUCT=tiny").wait_for()
    page.get_by_role("link", name="tiny", exact=True).click()
    page.get_by_text("The last verdict").wait_for()
    page.get_by_role("link", name="manifest").first.click()
    page.wait_for_url("**/products/tiny/nights/2024-02-10/manifest")


def test_bare_page_fits_a_phone_and_needs_nothing_that_its_policy_forbids(shown, page):
    address, _ = shown
    page.set_viewport_size({"width": 390, "height": 844})
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{address}/lamplighter/")
    page.get_by_role("link", name="tiny", exact=True).click()
    page.get_by_text("The last verdict").wait_for()
    assert page.url == f"{address}/lamplighter/products/tiny"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("h1").evaluate("element => getComputedStyle(element).fontSize") == "26px"
    assert page.locator("svg").count() == 3
    assert complaints == []
    page.get_by_role("link", name="Report").first.click()
    page.get_by_text("What was measured").wait_for()
