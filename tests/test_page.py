"""Oracle: Airflow's own page in a real browser, and its list of the runs that came of what was clicked."""

import json
import sys
import urllib.request

import pytest
from browser import needs_browser, signed_in
from conftest import call, environment, free_port, make_project

pytestmark = needs_browser()


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """The embedded Airflow of a tiny project: its address and home; its DAGs are paused."""
    project = make_project(tmp_path_factory.mktemp("page") / "für morgen")
    ports = {"LAMPLIGHTER_S3_PORT": str(free_port()), "LAMPLIGHTER_UI_PORT": str(free_port() + 5)}
    env = environment(project / ".lamplighter", **ports)
    call([sys.executable, "-m", "tasks.commands", "up"], project, env)
    yield f"http://127.0.0.1:{ports['LAMPLIGHTER_UI_PORT']}", project / ".lamplighter"
    call([sys.executable, "-m", "tasks.commands", "down"], project, env)


def asked(address: str, path: str, token: str | None = None, body: object = None) -> dict:
    """What Airflow's API answers."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    content = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, content, headers)) as answer:
        return json.load(answer)


def token_of(address: str, home) -> str:
    passwords = json.loads((home / "airflow" / "simple_auth_manager_passwords.json.generated").read_text())
    return asked(address, "/auth/token", body={"username": "admin", "password": passwords["admin"]})["access_token"]


def pick(page, day: str) -> None:
    """Pick a day in the first field of the form that is empty."""
    page.get_by_text("Select date and time").first.click()
    field = page.get_by_placeholder("YYYY/MM/DD").locator("visible=true")
    field.fill(day)
    field.press("Enter")
    page.keyboard.press("Escape")


def test_days_picked_on_the_page_become_runs_of_these_days(airflow):
    address, home = airflow
    with signed_in(address, home) as page:
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
