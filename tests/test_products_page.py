"""Oracle: what was written into statuses by hand, an HTML parser, and a real S3 server."""

import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from itertools import chain

import pytest
from builders import a_product
from conftest import ROOT, environment
from test_publish import AS_OF, url  # noqa: F401 (url is a fixture)

from dags.plugins.page import app as page
from dags.plugins.page.airflow_runs import Seen, SeenDag, SeenRun
from dags.plugins.page.cards import make_cards
from dags.plugins.page.charts import HEIGHT, MARGIN, bar_chart, line_chart
from dags.plugins.page.freshness import state_of
from dags.plugins.page.meanings import of_gate, of_metric
from dags.plugins.page.products import read_statuses
from model.heads import METRICS
from tasks.monitoring.contracts import BrokenRule, Decay, Lead, NightRecord, Predictions, Shadow, SliceTruth, Truth
from tasks.monitoring.gate import Gate
from tasks.monitoring.showing import show_trainings
from tasks.monitoring.status import (
    LostMessage,
    ShownTraining,
    ShownVerdict,
    ShownVersion,
    Status,
    key_of_status,
    read_status,
)
from tasks.params.gates import ExportGates, Gates
from tasks.publication.contracts import PublishedPart
from tasks.publication.manifests import encode_checked
from tasks.publication.object_store import Store
from tasks.runtime.errors import UserError

DAY = timedelta(days=1)
NOW = datetime(2026, 7, 1, 9, 0, tzinfo=UTC)
LAST = date(2026, 6, 30)
HOSTILE = "<script>alert(1)</script>'\"&{{ 7 * 7 }}"


def a_night(as_of, number=0, **changes):
    facts = {
        "as_of": as_of,
        "scored_day": as_of + DAY,
        "run": f"{number:012x}",
        "rows_in": 900 + 37 * (number % 7),
        "quarantined": 25 if number % 9 == 4 else 0,
        "published": 900 + 37 * (number % 7) - (25 if number % 9 == 4 else 0),
        "model_version": "v2.0.0",
        "predictions": Predictions(mean=0.2 + 0.01 * (number % 5), deciles=(), shares={}),
        "change": None if number < 7 else 0.05 + 0.02 * (number % 4),
        "truth": a_truth(as_of, 0.78 + 0.013 * ((number * 7) % 5 - 2)) if number < 50 else None,
        "airflow_run": f"scheduled__{as_of}T02:00:00+00:00",
    }
    return NightRecord(**facts | changes)


def a_truth(as_of, value, **more):
    return Truth(as_of=as_of + 2 * DAY, labelled=850, metric="auc", value=value, **more)


def a_gate(name, **changes):
    facts = {"passed": True, "value": 0.7936, "threshold": 0.5, "interval_95": None, "wanted": "more", "about": None}
    return Gate(**facts | {"name": name} | changes)


def a_verdict(decision="promoted", gates=(), line="v2.0.0 is the champion now (auc 0.7936, baseline 0.7702)"):
    return ShownVerdict(decision=decision, line=line, gates=gates)


def a_training(as_of, decision="promoted", **changes):
    gates = (
        a_gate("limit"),
        a_gate("max_behind_champion", value=0.0123, threshold=0.0, interval_95=(-0.004, 0.03)),
        a_gate("slices.max_behind_champion", about="carrier=AA", passed=decision != "rejected", value=-0.02),
    )
    facts = {
        "run": f"tiny-{as_of}-train-6862ea31",
        "as_of": as_of,
        "decided_at": NOW - timedelta(days=3),
        "verdict": a_verdict(decision, gates),
        "metric": "auc",
        "value": 0.7936,
        "interval_95": (0.7819, 0.8049),
        "baseline": 0.7702,
        "rows": {"test": 6216},
        "champion": "v1.0.0",
        "report": f"s3://lamplighter/predictions/tiny/_reports/{as_of}-6862ea31.html",
        "airflow_run": "manual__2026-06-28T03:00:00+00:00",
    }
    return ShownTraining(**facts | changes)


def a_status(product="tiny", last=LAST, n=53, **changes):
    """A status of n nights and two trainings, the second of which made the champion."""
    first = last - (n - 1) * DAY
    made = f"{product}-{last - 3 * DAY}-train-6862ea31"
    facts = {
        "product": product,
        "nights": tuple(a_night(first + i * DAY, i) for i in range(n)),
        "trainings": (
            a_training(last - 10 * DAY, "rejected", run=f"{product}-{last - 10 * DAY}-train-1b2c3d4e", value=0.771),
            a_training(last - 3 * DAY, run=made),
        ),
        "versions": (
            ShownVersion(
                version="v1.0.0",
                trained_until=last - 40 * DAY,
                experiment=None,
                state="withdrawn",
                decided_on=str(last - 3 * DAY),
                person="Grace",
                reason="late on holidays",
            ),
            ShownVersion(version="v2.0.0", trained_until=last - 3 * DAY, experiment=made, state="champion"),
        ),
    }
    return Status(**facts | changes)


def seen(state="success", *, is_paused=False, waiting=(), training=None):
    last = SeenRun(name="scheduled__2026-07-01", state=state, began=NOW - timedelta(hours=7))
    return Seen(
        dags={
            "predict": SeenDag(is_paused=is_paused, next_run=NOW + DAY, last=last),
            "train": SeenDag(is_paused=training is not None, next_run=None, waiting=waiting, last=training),
        }
    )


PLACES = {"airflow": "/base", "own": "/base/lamplighter", "home": "/base/lamplighter/", "now": NOW}


def overview(cards):
    """The bare page of all products."""
    template = page.templates.get_template("overview.html")
    return template.render(cards=cards, **PLACES, product_page="/base/lamplighter/products/", is_bare=True)


def drawn(template, status, known=None, product=None, night=None):
    """The bare page of one product, or of one of its nights."""
    product = product or a_product()
    cards = make_cards([product], {product.name: status}, {product.name: known or seen()}, NOW)
    if template == "overview.html":
        return overview(cards)
    return page.templates.get_template(template).render(
        card=cards[0], night=night, **PLACES, product_page="/base/lamplighter/products/", is_bare=True
    )


class Read(HTMLParser):
    """The tags, links and text of a page, as a browser's parser sees them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.links, self.words = [], set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [value for name, value in attributes if name == "href"]

    def handle_data(self, data):
        self.words.append(data.strip())

    @property
    def text(self):
        return " ".join(filter(None, self.words))


@pytest.mark.parametrize("template", ["overview.html", "product.html"])
def test_page_shows_night_champion_verdict_and_where_they_lead(template):
    read = Read(drawn(template, a_status(), seen(waiting=("manual__1+00:00",))))
    for words in ("fresh", "2026-06-30", "v2.0.0", "auc 0.7936", "baseline 0.7702", "promoted", "auc by night"):
        assert words in read.text
    assert "A new model waits for a person." in read.text
    assert "/base/dags/train__tiny/runs/manual__1%2B00%3A00/tasks/approve/required_actions" in read.links
    assert "/base/lamplighter/products/tiny/nights/2026-06-30/manifest" in read.links
    assert "/base/dags/predict__tiny/runs/scheduled__2026-06-30T02%3A00%3A00%2B00%3A00" in read.links
    if template == "product.html":
        for words in ("carrier=AA", "-0.0040 to 0.0300", "not promoted", "withdrawn", "late on holidays", "Grace"):
            assert words in read.text
        assert "/base/lamplighter/products/tiny/reports/2026-06-27-6862ea31.html" in read.links


@pytest.mark.parametrize("template", ["overview.html", "product.html"])
def test_text_of_data_stays_text_and_pages_hold_no_script_or_style(template):
    gate = a_gate(HOSTILE, about=HOSTILE, wanted=HOSTILE)
    status = a_status(
        trainings=(a_training(LAST, verdict=a_verdict(HOSTILE, (gate,), HOSTILE)),),
        versions=(ShownVersion(version=HOSTILE, trained_until=None, experiment=HOSTILE, state="champion"),),
        nights=(a_night(LAST, model_version=HOSTILE, airflow_run=HOSTILE),),
        held=HOSTILE,
    )
    read = Read(drawn(template, status))
    assert HOSTILE in read.text
    assert not {"script", "iframe", "style", "form"} & set(read.tags)
    assert not [name for name in read.attributes if name.startswith("on") or name == "style"]
    assert all(link.startswith("/base/") for link in read.links)
    assert "default-src 'none'" in page.CONTENT_POLICY
    assert "unsafe" not in page.CONTENT_POLICY


def test_status_that_cannot_be_read_says_so_and_the_others_stand(url, monkeypatch):  # noqa: F811
    whole, damaged, empty = (a_product(publish={"url": f"{url}/{name}"}) for name in ("whole", "damaged", "empty"))
    content = encode_checked(a_status().to_json())
    Store(whole.publish.url).update(key_of_status("tiny"), lambda _: content)
    Store(damaged.publish.url).update(key_of_status("tiny"), lambda _: content.replace(b"0.79", b"0.89"))
    found = [read_statuses([each])["tiny"] for each in (whole, damaged, empty)]
    assert found[0] == a_status()
    assert "arrived damaged" in found[1]
    assert found[2] is None
    texts = [Read(drawn("overview.html", each)).text for each in found]
    assert "fresh" in texts[0]
    assert "unknown" in texts[1]
    assert "Its status cannot be read." in texts[1]
    assert "no night yet" in texts[2]


def test_status_shows_the_trainings_that_are_found_by_their_verdicts_also_after_damage(url):  # noqa: F811
    store = Store(url)
    found = [a_training(LAST - i * DAY, decided_at=NOW + i * DAY, run=f"tiny-{i}") for i in range(30)]
    show_trainings(store, "tiny", lambda: found)
    assert read_status(store, "tiny").trainings == tuple(found[-26:])
    store.update(key_of_status("tiny"), lambda current: current.body[:-40])
    with pytest.raises(UserError, match="arrived damaged"):
        read_status(store, "tiny")
    show_trainings(store, "tiny", lambda: found[:2])
    assert read_status(store, "tiny").trainings == tuple(found[:2])


def test_trainings_of_older_records_have_their_place_by_as_of(url):  # noqa: F811
    known = [a_training(LAST, decided_at=None), a_training(LAST - DAY, decided_at=None, run="tiny-before")]
    show_trainings(Store(url), "tiny", lambda: known)
    assert read_status(Store(url), "tiny").trainings == (known[1], known[0])


@pytest.mark.parametrize(("state", "is_said"), [("queued", True), ("success", False)])
def test_training_that_a_paused_dag_never_begins_is_said(state, is_said):
    run = SeenRun(name="decay__2026-06-30", state=state, began=None)
    read = Read(drawn("overview.html", a_status(), seen(training=run)))
    assert ("A training is asked for and does not begin:" in read.words) == is_said
    assert any(link.endswith("runs/decay__2026-06-30") for link in read.links) == is_said


def test_withdrawn_nights_are_drawn_apart_and_said():
    status = a_status()
    nights = tuple(replace(each, withdrawn=i == 10 or i == 52) for i, each in enumerate(status.nights))
    html = drawn("product.html", replace(status, nights=nights))
    assert html.count('class="ll-apart"') == 2 + 3, "two bars, and of the earlier night a point in each line"
    assert "withdrawn: auc" in html
    assert "A person has withdrawn the night of 2026-06-30" in html
    points = line_chart("auc", [(LAST + i * DAY, float(i), "") for i in range(4)], apart=[LAST + DAY])
    assert [point.is_apart for point in points.points] == [False, True, False, False]
    assert points.paths[0].count(",") == 3, "no line leads to it"


def test_slices_shadows_and_decay_of_the_nights_are_drawn():
    part = PublishedPart(name="m", rows=1, bytes=1, sha256="0" * 64, key="tiny/_shadow/m")
    beside = Shadow(roles=("previous", "anchor"), version="v1.0.0", commit="c" * 40, model="m", part=part)
    nights = []
    for i in range(5):
        day = LAST - (4 - i) * DAY
        slices = {HOSTILE: SliceTruth(labelled=40, value=0.6 + i / 100), "small": SliceTruth(labelled=3, value=None)}
        truth = a_truth(day, 0.7, slices=slices, shadows={"v1.0.0": 0.72 + i / 100})
        nights.append(a_night(day, truth=truth))
    decay = Decay(nights=5, first_mean=0.75, first_deviation=0.02, recent_mean=0.7, evidence=3.5, wanted=100.0)
    leads = {"v1.0.0": Lead(nights=5, mean=0.04, low=-0.0031)}
    last = {"shadows": (beside,), "leads": leads, "decay": decay, "drifting": ("depot",), "retrain": "it fell"}
    nights[-1] = replace(nights[-1], **last)
    read = Read(drawn("product.html", a_status(nights=tuple(nights))))
    for words in (
        f"auc, {HOSTILE}",
        "auc of v1.0.0 less the champion's",
        "2026-06-26: +0.0200 beside v2.0.0",
        "previous, anchor",
        "+0.0400",
        "−0.0031",
        "0.7500 in the first ones, 0.7000 in the last seven",
        "far from its training rows: depot",
        "a training was asked for",
    ):
        assert words in read.text, words
    assert "auc, small" not in read.text, "too few rows are not drawn"


@pytest.mark.parametrize("template", ["overview.html", "product.html"])
def test_night_without_truth_shows_an_estimate_and_calls_it_one(template):
    night = a_night(LAST, truth=None, estimate=0.7654)
    read = Read(drawn(template, a_status(nights=(night,))))
    assert "no label has come yet 0.7654 is the estimate for 2026-06-30" in read.text
    assert ("0.7654 estimate" in read.text) == (template == "product.html"), "in the table of nights"
    known = replace(night, truth=a_truth(LAST, 0.7))
    text = Read(drawn(template, a_status(nights=(known,)))).text
    assert text.count("estimate") == 1, "in the explanation alone"


def test_quarantine_of_a_night_says_which_rules_and_what_to_do_and_escapes_them():
    rules = {"weight_kg: " + HOSTILE: BrokenRule(rows=19, first=12), "depot: missing": BrokenRule(rows=6, first=340)}
    night = a_night(LAST, 4, broken=rules)
    read = Read(drawn("quarantine.html", a_status(nights=(night,)), night=night))
    for words in ("25 of the 1,048 rows of 2026-07-01", "weight_kg", HOSTILE, "19", "12", "depot", "missing", "340"):
        assert words in read.text, words
    assert "make quarantine PRODUCT=tiny DT=2026-07-01" in read.text
    assert any(link.endswith("/tasks/validate") for link in read.links)
    assert "script" not in read.tags
    assert "is not on record" in Read(drawn("quarantine.html", a_status(), night=a_night(LAST, 4))).text
    for template in ("overview.html", "product.html"):
        links = Read(drawn(template, a_status(nights=(night,)))).links
        assert "/base/lamplighter/products/tiny/quarantine/2026-06-30" in links


def test_overview_has_what_is_wrong_first_and_what_has_not_begun_in_a_list():
    names = ("new", "fine", "bad")
    products = [replace(a_product(), name=name, description=f"Is it {name}?") for name in names]
    nothing = Seen(dags={"train": SeenDag(is_paused=True, next_run=None)})
    known = {"new": nothing, "fine": seen(), "bad": seen("failed")}
    statuses = {"new": None, "fine": a_status("fine"), "bad": a_status("bad")}
    cards = make_cards(products, statuses, known, NOW)
    assert [(card.name, card.is_untouched) for card in cards] == [("bad", False), ("fine", False), ("new", True)]
    read = Read(overview(cards))
    assert "3 declared : 1 fresh , 1 no night yet , 1 stopped" in re.sub(r"([:,])", r" \1", read.text).replace(
        "  ", " "
    )
    assert "Nothing to show yet" in read.text
    assert "/base/dags/train__new" in read.links
    assert "The last verdict: 3 of 3 gates passed" in read.text
    assert sum(link.endswith("-6862ea31.html") for link in read.links) == 2


def test_message_that_may_be_lost_is_shown_for_a_day():
    lost = tuple(LostMessage(subject=f"tiny: {h} hours ago", tried=NOW - timedelta(hours=h)) for h in (3, 30))
    text = Read(drawn("overview.html", a_status(lost=lost))).text
    assert "This message may have reached nobody: tiny: 3 hours ago" in text
    assert "30 hours ago" not in text


def test_every_metric_and_gate_is_explained():
    assert [name for name in chain(*METRICS.values()) if not of_metric(name)] == []
    plain = {each.name for each in fields(Gates)} - {"metric", "champion_lead", "approval", "slices", "export"}
    names = [*plain, "slices.max_behind_champion", "slices.max_gap", "behaviour.3"]
    names += [f"export.{each.name}" for each in fields(ExportGates)]
    assert [name for name in names if not of_gate(name)] == []


def test_report_that_could_not_be_made_is_no_link():
    none = a_training(LAST, report=None)
    for template in ("overview.html", "product.html"):
        assert not [link for link in Read(drawn(template, a_status(trainings=(none,)))).links if "/reports/" in link]


def test_store_that_does_not_answer_takes_seconds_and_says_so(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    found = read_statuses([a_product(publish={"url": "s3://nowhere/at-all"})])["tiny"]
    assert "the store did not answer" in found


@pytest.mark.parametrize(
    ("last", "known", "word"),
    [
        pytest.param(LAST, seen(), "fresh", id="the night that was due"),
        pytest.param(LAST - DAY, seen(), "late", id="a night behind"),
        pytest.param(LAST - DAY, seen(is_paused=True), "paused", id="a paused DAG"),
        pytest.param(LAST, seen("failed"), "stopped", id="a failed run"),
        pytest.param(LAST - DAY, seen("running"), "at work", id="a run at work"),
        pytest.param(None, seen(), "no night yet", id="no night"),
        pytest.param(LAST - DAY, Seen(), "late", id="a DAG that Airflow does not know yet"),
    ],
)
def test_state_follows_from_schedule_night_and_last_run(last, known, word):
    night = a_night(last) if last else None
    assert state_of(a_product(), night, known.dags, NOW).word == word


def test_night_is_called_late_only_after_the_time_it_takes():
    due = datetime(2026, 7, 1, 2, 0, tzinfo=UTC)
    states = [state_of(a_product(), a_night(LAST - DAY), seen().dags, due + timedelta(hours=h)) for h in (-1, 1, 4)]
    assert [each.word for each in states] == ["fresh", "due", "late"]


def test_charts_hold_every_night_within_their_frame():
    nights = [(LAST + i * DAY, value, str(i)) for i, value in enumerate([0.5, None, 0.7, 0.6])]
    chart = line_chart("auc", nights, level=0.8)
    assert [point.text for point in chart.points] == ["0", "2", "3"]
    heights = [point.y for point in chart.points]
    assert heights[0] == HEIGHT - MARGIN > heights[2] > heights[1] > chart.level == MARGIN
    assert line_chart("auc", nights[:2]) is None
    bars = bar_chart("rows", [(LAST, 30, 10, "a"), (LAST + DAY, 20, 0, "b")])
    assert bars.points[0].height == pytest.approx(3 * bars.points[0].top, abs=0.02)
    assert bars.points[0].y - bars.points[0].top == pytest.approx(MARGIN)
    assert line_chart("auc", [(LAST, 0.5, ""), (LAST + DAY, 0.5, "")]).points[0].y == HEIGHT - MARGIN


def test_line_breaks_where_nights_are_missing_for_more_than_a_week():
    days = [LAST, LAST + DAY, LAST + 20 * DAY, LAST + 21 * DAY]
    assert len(line_chart("auc", [(day, float(i), "") for i, day in enumerate(days)]).paths) == 2


@pytest.mark.long
@pytest.mark.slow
def test_page_imports_neither_git_nor_models_nor_tables(tmp_path):
    heavy = ("torch", "pandas", "numpy", "pyarrow", "git", "gto", "dvc", "sklearn", "great_expectations", "onnxruntime")
    code = f"""
import sys, json
sys.path.insert(0, {str(ROOT / "dags" / "plugins")!r})
import products_page
early = [name for name in sys.modules if name.startswith(("fastapi", "dags.plugins.page"))]
import dags.plugins.page.app as page
from tasks.monitoring.status import Status
print(json.dumps([early, [name for name in {heavy} if name in sys.modules]]))
"""
    env = environment(tmp_path, AIRFLOW_HOME=str(tmp_path / "airflow"), PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[], []]


def test_script_of_the_page_is_small_and_sets_only_the_server_s_html():
    script = (page.FOLDER / "static" / "page.js").read_text("utf-8")
    assert len(script) < 4000
    assert re.findall(r"innerHTML = (.+);", script) == ["shown.html"]
    assert "eval" not in script
