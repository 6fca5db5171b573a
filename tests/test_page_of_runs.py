"""Oracle: what a person sees in a real browser of a real product, trained by the form, approved and published."""

import json
import sys
import urllib.parse

import pytest
from browser import needs_browser, signed_in
from builders import TINY
from conftest import call, environment, free_port, make_project
from test_page import runs_of, state_of, state_of_run, token_of, trigger_by_form, wait_for

pytestmark = [needs_browser(), pytest.mark.long, pytest.mark.timeout(3000)]
AS_OF = "2024-02-10"
SCHEDULE = 'schedule: {retrain: "0 3 * * 0", predict: "0 2 * * *"}'
PATIENCE_SECONDS = 1200
"""How long a training may take beside others; alone it takes one."""
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser that is signed in to an Airflow of its own, of which nothing has run; its address and token."""
    asking = TINY.replace("gates: {", "gates: {approval: human, ")
    asking = asking.replace(SCHEDULE, "schedule: {}")  # else the form's unpausing makes the run that was due last
    assert "schedule: {}" in asking
    project = make_project(tmp_path_factory.mktemp("by-hand") / "site", asking)
    ports = {"LAMPLIGHTER_S3_PORT": str(free_port()), "LAMPLIGHTER_UI_PORT": str(free_port() + 5)}
    env = environment(project / ".lamplighter", **ports)
    call([sys.executable, "-m", "tasks.commands", "up"], project, env)
    address = f"http://127.0.0.1:{ports['LAMPLIGHTER_UI_PORT']}"
    with signed_in(address, project / ".lamplighter") as started:
        yield started, address, token_of(address, project / ".lamplighter")
    call([sys.executable, "-m", "tasks.commands", "down"], project, env)


def run_by_form(page, address, token, kind):
    """Trigger a run of the tiny product as of a date; return its name, as it stands in addresses."""
    trigger_by_form(page, address, f"{kind}__tiny", as_of=AS_OF)
    run = wait_for(lambda: runs_of(address, token, f"{kind}__tiny"), "the form makes a run")[0]
    return urllib.parse.quote(run["dag_run_id"])


def see_success(page, address, token, kind, run):
    """Wait until a run ends, and see on its page that it has."""
    states = ("success", "failed")
    ended = wait_for(
        lambda: (now := state_of_run(address, token, f"{kind}__tiny", run)) in states and now,
        "it ends",
        PATIENCE_SECONDS,
    )
    assert ended == "success"
    page.goto(f"{address}/dags/{kind}__tiny/runs/{run}")
    page.get_by_text("Success", exact=True).first.wait_for()


def follow(page, name, seen):
    """Follow a link of the page by its name, see what should be there, and come back."""
    before = page.url
    page.get_by_role("link", name=name, exact=True).first.click()
    page.get_by_text(seen).locator("visible=true").first.wait_for()
    left = page.url
    page.goto(before)
    return left


def test_product_is_trained_approved_and_published_by_hand_and_its_links_lead_there(browser):
    started, address, token = browser
    page = started.new_page()
    page.goto(f"{address}/plugin/products")
    page.get_by_text("Nothing to show yet").wait_for()
    page.get_by_role("link", name="train", exact=True).click()
    page.wait_for_url(f"{address}/dags/train__tiny**")

    training = run_by_form(page, address, token, "train")
    asks = lambda: state_of(address, token, "train__tiny", training, "approve") == "awaiting_input"  # noqa: E731
    wait_for(asks, "approve asks", PATIENCE_SECONDS)
    page.goto(f"{address}/plugin/products")
    page.get_by_role("link", name="Look at its figures and answer").click()
    page.get_by_role("button", name="Approve").click()
    see_success(page, address, token, "train", training)

    night = run_by_form(page, address, token, "predict")
    see_success(page, address, token, "predict", night)
    see_where_links_lead(page, address, night)
    see_everything_on_a_phone(page, address)
    page.close()


def see_where_links_lead(page, address, night):
    """Follow the links of the product's page in Airflow, and of the bare one on a phone."""
    for place in ("plugin/products/tiny", "lamplighter/products/tiny"):
        is_bare = place.startswith("lamplighter")
        page.set_viewport_size(PHONE if is_bare else {"width": 1400, "height": 1000})
        page.goto(f"{address}/{place}")
        assert follow(page, "run", "predict__tiny").endswith(f"/dags/predict__tiny/runs/{night}")
        assert follow(page, "manifest", AS_OF).endswith(f"/products/tiny/nights/{AS_OF}/manifest")
        assert "/products/tiny/reports/" in follow(page, "Report", "Calibration")
        assert follow(page, "1", "expect_column_values_to").endswith(f"/products/tiny/quarantine/{AS_OF}")
        follow(page, "predict__tiny", "predict__tiny")
        if is_bare:
            follow(page, "Products", "How to read this page")


def see_everything_on_a_phone(page, address):
    """Open each page and each of its links at a phone's width: nothing is wider, and nothing is missing."""
    bare = f"{address}/lamplighter/"
    places = [bare, f"{bare}products/tiny", f"{bare}products/tiny/quarantine/{AS_OF}"]
    links = set()
    page.set_viewport_size(PHONE)
    for place in places:
        page.goto(place)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], place
        links |= set(page.eval_on_selector_all("a[href]", "all => all.map(each => each.href)"))
    reports = [link for link in links if "/reports/" in link]
    assert len(reports) == 1
    for link in sorted(links):
        answer = page.request.get(link)
        assert answer.ok, (link, answer.status)
        assert "text/html" in answer.headers["content-type"] or json.loads(answer.text())["product"] == "tiny"
    page.goto(reports[0])
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], "the report"
