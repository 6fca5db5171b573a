"""Oracle: Python's own parser of HTML; scikit-learn's permutation importance; a real S3 server and a real registry."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import a_product, a_repository
from conftest import ROOT, environment
from hypothesis import given
from hypothesis import strategies as st
from sklearn.inspection import permutation_importance as of_scikit_learn
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from test_model_export import TASKS, mixed, random_model
from test_registry import DAY, experiment, origin, promote  # noqa: F401 (origin is a fixture)

from model.evaluation import importance
from tasks.commands.nights.report import report
from tasks.commands.nights.runs import show_runs
from tasks.evaluate import evaluate
from tasks.monitoring.contracts import NightRecord, Predictions, Truth
from tasks.monitoring.past import keep
from tasks.params import effective
from tasks.publication.object_store import Store
from tasks.reports import making
from tasks.reports.changes import changed_settings
from tasks.reports.contracts import Training
from tasks.reports.facts import gather, trained
from tasks.reports.kept import (
    all_trainings,
    collect_old_pages,
    joined,
    keep_page,
    keep_training,
    shown_trainings,
)
from tasks.reports.page import MAX_BYTES, render
from tasks.rows.partitions import write_table
from tasks.runs.experiments import Run
from tasks.runs.gates.figures import figures_of
from tasks.runs.gates.verdict import Gate, Verdict
from tasks.runs.registry import champions
from tasks.runtime.errors import UserError
from tasks.runtime.files import read_json, write_json
from tasks.runtime.git import git
from tasks.runtime.paths import Paths

PATHS = Paths("tiny")
KINDS = {"colour": "category", "size": "number", "when": "time"}
METRIC = {"binary": "auc", "multiclass": "macro_f1", "multilabel": "macro_f1", "regression": "rmse"}
HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>&amp;'
FILES = {}
"""The folder of this session with the files of a training of each task, which take seconds to make."""
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Elements(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "elements are closed in order"

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def measured(export_once):
    """A function that lays out the files of a training, a random network exported and measured; its product."""
    return partial(lay_out, export_once)


def lay_out(export_once, task, url="s3://lamplighter/predictions", **changes):
    product = a_product(
        columns=KINDS, expectations=[], target__task=task, gates__metric=METRIC[task], publish={"url": url}, **changes
    )
    kept = FILES["folder"] / task
    if not kept.exists():
        train_and_measure(export_once, product, task)
        shutil.copytree("data", kept)
    shutil.copytree(kept, "data", dirs_exist_ok=True)
    return product


def train_and_measure(export_once, product, task):
    random = np.random.default_rng(0)
    labels = {
        "binary": lambda n: random.integers(0, 2, n),
        "multiclass": lambda n: random.choice(np.array(["a", HOSTILE, "b"], object), n),
        "multilabel": lambda n: random.choice(["", "x", "y", "x|y"], n),
        "regression": lambda n: random.normal(size=n),
    }[task]
    for name, n in (("train", 60), ("val", 30), ("test", 60)):
        days = pd.to_datetime("2024-02-01") + pd.to_timedelta(np.arange(n) // 20, "D")
        frame = pd.DataFrame({column: mixed(n, seed=n)[column] for column in KINDS}).assign(late=labels(n), day=days)
        frame["parcel_id"] = [f"{name}-{row} {HOSTILE}" for row in range(n)]
        write_table(PATHS.splits / f"{name}.parquet", frame)
    random_model(PATHS.trained, task, KINDS, n_layers=1)
    export_once(PATHS.trained, PATHS.onnx)
    evaluate(product, DAY)
    days = {"train": ["2024-01-01", "2024-01-25"], "val": ["2024-01-26", "2024-01-31"], "test": []}
    write_json(PATHS.report("split.json"), {"rows": {"train": 60, "val": 30, "test": 60}, "days": days, "columns": []})
    PATHS.report("training.csv").write_text("epoch,train_loss,val_loss\n1.0,0.7,0.71\n2.0,0.6,0.65\n")


def gate(name, *, passed, **more):
    return Gate(name=name, passed=passed, value=0.5, wanted=f"at least 0.4 {HOSTILE}", **more)


def facts_of(product, decision="rejected", gates=(), nights=(), changes=()):
    verdict = Verdict(decision=decision, line=f"as it is {HOSTILE}", gates=gates, figures=figures_of(product))
    training = trained(product, PATHS, DAY, "tiny-2024-02-10-train-0a1b2c3d", "c0ffee", verdict, champion="v1.0.0")
    return gather(product, PATHS, training, nights, changes, is_judged=True)


def night(i, value):
    day = DAY - timedelta(days=20 - i)
    truth = None if value is None else Truth(as_of=DAY, labelled=20, metric="auc", value=value)
    return NightRecord(
        as_of=day,
        scored_day=day,
        run="x",
        rows_in=20,
        quarantined=1,
        published=19,
        model_version="v1.0.0",
        predictions=Predictions(mean=0.5, deciles=(), shares={}),
        truth=truth,
    )


@pytest.fixture(autouse=True, scope="module")
def files(tmp_path_factory):
    FILES["folder"] = tmp_path_factory.mktemp("trained")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("tasks.training.measuring.N_RESAMPLES", 20)


@pytest.mark.parametrize("task", TASKS)
def test_page_is_whole_small_and_loads_and_runs_nothing(workspace, measured, task):
    product = measured(task, description=HOSTILE)
    found_slice = {"name": HOSTILE, "rows": 1234, "loss": 0.3, "loss_elsewhere": 0.2, "baseline_loss": 0.29}
    slices = [{**found_slice, "excess": 0.1, "excess_interval": [0.01, 0.2]}]
    write_json(PATHS.report("evaluation.json"), {**read_json(PATHS.report("evaluation.json")), "look_here": slices})
    nights = [night(i, None if i > 17 else 0.5 + i / 100) for i in range(20)]
    found = facts_of(
        product, gates=(gate("limit", passed=False), gate("slices", passed=True, about=HOSTILE)), nights=nights
    )
    page = render(found)
    assert len(page.encode()) < MAX_BYTES
    elements = Elements(page)
    assert not elements.open
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "img", "iframe", "object", "embed", "link", "form"}
    for tag, attributes in elements.found:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            # Namespaces are names; whatever else an attribute refers to is on the page.
            assert name.startswith("xmlns") or "//" not in (value or ""), (tag, name, value)
            assert name not in ("href", "src") or value.startswith("#"), (tag, value)
    policies = [attributes["content"] for tag, attributes in elements.found if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert "1,234" in page
    assert HOSTILE in "".join(elements.text), "what data say is shown as it is"
    assert [attributes["role"] for tag, attributes in elements.found if tag == "svg"].count("img") >= 2
    assert all(attributes["aria-label"] for tag, attributes in elements.found if tag == "svg")
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(f"{value:.4f}" in page for value in (found.training.value, found.training.baseline))
    assert "Not promoted: limit is not passed. The champion goes on." in page
    rows = found.evaluation["single_rows"]
    assert [each["place"] for each in rows] == ["highest", "middle", "lowest"]
    assert rows[0]["score"] >= rows[1]["score"] >= rows[2]["score"]
    assert all(each["key"] in "".join(elements.text) and each["columns"].keys() == KINDS.keys() for each in rows)


@pytest.mark.long
def test_same_facts_give_the_same_bytes_in_any_process(workspace, measured):
    product = measured("binary")
    page = render(facts_of(product))
    assert render(facts_of(product)) == page
    asked = """
from test_reports import DAY, a_product, facts_of, KINDS, render
product = a_product(columns=KINDS, expectations=[], gates__metric="auc")
print(render(facts_of(product)), end="")
"""
    done = subprocess.run(
        [sys.executable, "-c", asked],
        capture_output=True,
        text=True,
        check=True,
        env=environment(workspace, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}", PYTHONHASHSEED="7", TZ="Asia/Tokyo"),
    )
    assert done.stdout == page


def test_training_without_champion_nights_curve_or_reports_still_has_its_page(workspace, measured):
    product = measured("regression")
    for name in ("split.json", "training.csv"):
        PATHS.report(name).unlink()
    page = render(dataclasses.replace(facts_of(product), is_judged=False))
    assert "Not judged: made outside of a run" in page
    assert "<svg" not in page


def run_of(commit):
    return Run(
        name="tiny-2024-02-10-train-0a1b2c3d",
        product="tiny",
        as_of=str(DAY),
        revision="c0ffee",
        shards=1,
        commit=commit,
    )


def test_training_is_on_record_with_its_page_also_where_it_was_rejected(origin, s3_here, tmp_path, measured):  # noqa: F811
    url = f"s3://lamplighter/{tmp_path.name}"
    product, store = measured("binary", url), Store(url)
    leader = promote(experiment(origin, DAY, "first"), None)
    run = run_of(experiment(origin, DAY, "second"))
    shut = Verdict(decision="rejected", line="x", gates=(gate("limit", passed=False),), figures=figures_of(product))
    line = making.report_training(product, DAY, run, shut, leader)
    key = "tiny/_reports/2024-02-10-0a1b2c3d.html"
    assert line == f"report: {url}/{key} (make report PRODUCT=tiny AS_OF=2024-02-10)"
    (kept,) = all_trainings(store, "tiny")
    assert (kept.verdict, kept.version, kept.champion, kept.report) == (shut, None, "v1.0.0", f"{url}/{key}")
    assert kept.value == shut.figures.value
    before = store.head(key).etag, store.list("tiny/")
    assert making.report_training(product, DAY, run, shut, leader) == line
    assert (store.head(key).etag, store.list("tiny/")) == before, "a retry writes nothing"


def test_gates_stay_on_record_when_promote_finds_its_own_model_the_champion(origin, s3_here, tmp_path, measured):  # noqa: F811
    url = f"s3://lamplighter/{tmp_path.name}"
    product, run = measured("binary", url), run_of(experiment(origin, DAY, "first"))
    leader = promote(run.commit, None)
    gates = (gate("limit", passed=True), gate("max_behind_champion", passed=True))
    first = Verdict(decision="promoted", line="x", gates=gates, figures=figures_of(product))
    making.report_training(product, DAY, run, first, None)
    assert champions.champion("tiny") == leader
    (was,) = all_trainings(Store(url), "tiny")
    again = dataclasses.replace(first, decision="champion already", gates=gates[:1], line="y")
    making.report_training(product, DAY, run, again, leader)
    (kept,) = all_trainings(Store(url), "tiny")
    assert (kept.verdict, kept.version, kept.decided_at) == (first, "v1.0.0", was.decided_at)
    (shown,) = shown_trainings(Store(url), "tiny")
    assert shown.to_json().items() <= {**kept.to_json(), "verdict": shown.verdict.to_json()}.items()
    assert (shown.lead.value, shown.lead.passed) == (gates[1].value, True)


def test_trainings_that_end_at_once_are_all_on_record(s3_here, tmp_path):
    store, runs = Store(f"s3://lamplighter/{tmp_path.name}"), [f"tiny-{DAY}-train-{i:08x}" for i in range(6)]
    with ThreadPoolExecutor(len(runs)) as at_once:
        list(at_once.map(lambda run: keep_training(store, "tiny", rejected(run=run)), runs))
    assert [each.run for each in shown_trainings(store, "tiny")] == runs


def test_answer_of_a_person_is_a_verdict_of_its_own_time():
    asked = rejected(verdict=Verdict(decision="needs approval", line="x"), decided_at=AT, airflow_run="manual__1")
    answered = rejected(verdict=Verdict(decision="promoted", line="y"), decided_at=AT + timedelta(hours=3))
    assert joined(asked, answered) == dataclasses.replace(answered, airflow_run="manual__1")
    assert joined(asked, dataclasses.replace(asked, decided_at=AT + timedelta(hours=1))) == asked


def test_report_that_cannot_be_made_stops_no_run(origin, s3_here, tmp_path, measured, monkeypatch):  # noqa: F811
    url = f"s3://lamplighter/{tmp_path.name}"
    product, run = measured("binary", url), run_of(experiment(origin, DAY, "first"))
    verdict = Verdict(decision="rejected", line="x", figures=figures_of(product))
    (PATHS.onnx / "network.onnx").write_bytes(b"no network")
    line = making.report_training(product, DAY, run, verdict, None)
    assert line.startswith("the report could not be made, and nothing depends on it: ")
    (kept,) = all_trainings(Store(url), "tiny")
    assert kept.report is None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr("tasks.publication.store_client.MAX_REQUEST_ATTEMPTS", 1)
    assert "nothing depends on it" in making.report_training(product, DAY, run, verdict, None)


AT = datetime(2024, 2, 11, 3, tzinfo=UTC)


def rejected(**changes):
    facts = {"run": "tiny-2024-02-10-train-0a1b2c3d", "as_of": DAY, "revision": "c0ffee", "metric": "auc"}
    nothing = {"value": None, "interval_95": None, "baseline": None, "rows": {}, "days": {}}
    return Training(**{"verdict": Verdict(decision="rejected", line="x"), **facts, **nothing, **changes})


def test_pages_of_models_that_were_not_promoted_are_deleted_after_a_year(s3_here, tmp_path):
    store, now = Store(f"s3://lamplighter/{tmp_path.name}"), datetime.now(UTC)
    refused, promoted = rejected(), rejected(run="tiny-2024-02-10-train-00ff00ff", version="v1.0.0")
    pages = [keep_page(store, "tiny", training, "page") for training in (refused, promoted)]
    for training in (refused, promoted):
        keep_training(store, "tiny", training)
    store.update("tiny/_reports/notes.html", lambda _: b"a person's own")
    assert collect_old_pages(store, "tiny", now + timedelta(days=364.9)) == 0
    assert [collect_old_pages(store, "tiny", now + timedelta(days=365.1)) for _ in range(2)] == [1, 0]
    assert {store.uri(key) for key in store.list("tiny/_reports/")} == {pages[1], store.uri("tiny/_reports/notes.html")}
    assert all_trainings(store, "tiny") == [promoted, refused], "both stay on record"


def test_newest_report_of_the_store_is_brought_or_that_of_a_date(s3_here, workspace, monkeypatch):
    monkeypatch.setattr("tasks.commands.nights.report.enter_with_store", dict)  # the store of the tests is there
    for screen in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(screen, raising=False)
    product = a_product(publish={"url": f"s3://lamplighter/{uuid.uuid4()}"})
    store = Store(product.publish.url)
    with pytest.raises(UserError, match=r"a report of tiny must be in the store, or the files of one in data,"):
        report(product, None, DAY, local=False)
    trained = [("0a1b2c3d", DAY), ("00ff00ff", DAY - timedelta(days=7)), ("11ee11ee", DAY - timedelta(days=7))]
    for name, day in trained:  # of one date the one that was written last counts
        keep_page(store, "tiny", rejected(run=f"tiny-{day}-train-{name}", as_of=day), f"<h1>{name}</h1>")
        time.sleep(1.1 * (name == "00ff00ff"))  # a store tells times to the second
    for as_of, wanted in ((None, "2024-02-10-0a1b2c3d"), (DAY - timedelta(days=7), "2024-02-03-11ee11ee")):
        file = Path(report(product, as_of, DAY, local=False))
        assert file == workspace / "home" / "reports" / "tiny" / f"{wanted}.html"
        assert file.read_text() == f"<h1>{wanted[-8:]}</h1>"
    store.update("tiny/_reports/2024-02-10-0a1b2c3d.html", lambda _: b"made anew")
    assert Path(report(product, DAY, DAY, local=False)).read_bytes() == b"made anew"


def test_data_docs_lie_beside_the_report_of_this_folder(workspace, measured, monkeypatch):
    monkeypatch.setattr("tasks.commands.nights.report._opened", lambda file: "")
    a_repository(workspace)
    product = measured("binary")
    rule = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}, "success": True}
    nothing = {"columns": "table", "severity": "info", "rows_seen": None, "rows_missing": 0, "rows_unexpected": None}
    found = [{**rule, **nothing, "error": None, "observed": 4}]
    write_json(PATHS.report("validation.json"), {"as_of": "2024-02-10", "expectations": found})
    page, docs = report(product, DAY, DAY, local=True, with_docs=True).splitlines()
    assert [Path(each).name for each in (page, docs)] == ["2024-02-10-local.html", "2024-02-10-local.data-docs.html"]
    assert "make report PRODUCT=tiny LOCAL=1 DOCS=1" in Path(page).read_text()
    assert "Table-Level Expectations" in Path(docs).read_text()


def test_list_of_runs_has_every_training_and_night_and_fits_a_terminal(origin, s3_here, tmp_path):  # noqa: F811
    url = f"s3://lamplighter/{tmp_path.name}"
    product, run = a_product(publish={"url": url}), run_of("c" * 40)
    assert "no training on record" in show_runs([product], 5, as_json=False)
    other = f"refs/exps/aa/{'b' * 38}/tiny-2024-02-03-train-00ff00ff"
    git("push", "--quiet", str(origin), f"{experiment(origin, DAY, 'old')}:{other}")
    lead = dataclasses.replace(gate("max_behind_champion", passed=False), value=-0.0319, interval_95=(-0.0391, -0.0247))
    verdict = Verdict(decision="needs approval", line="x", gates=(lead,))
    kept = trained(product, PATHS, DAY, run.name, run.revision, verdict, version="v10.0.0", seconds=1234.5)
    keep_training(Store(url), "tiny", dataclasses.replace(kept, metric="average_precision", value=0.45678))
    keep(Store(url), "tiny", [night(18, 0.61), dataclasses.replace(night(19, None), estimate=0.7), night(20, None)])
    shown = show_runs([product], 5, as_json=False)
    assert max(map(len, shown.splitlines())) <= 100
    words = [" ".join(line.split()) for line in shown.splitlines()]
    assert "2024-02-03 00ff00ff not on record – – – – –" in words
    assert "2024-02-10 0a1b2c3d needs approval 0.4568 -0.0319 ±0.0072 v10.0.0 20.6 average_precision" in words
    assert "2024-02-08 v1.0.0 19 1 0.5000 0.6100 20 auc" in words
    assert "2024-02-09 v1.0.0 19 1 0.5000 0.7000 – an estimate: no label yet" in words
    assert "2024-02-10 v1.0.0 19 1 0.5000 – – not measured yet" in words
    whole = json.loads(show_runs([product], 1, as_json=True))["tiny"]
    assert [each["run"] for each in whole["trainings"]] == [run.name]
    assert [NightRecord.from_json(each) for each in whole["nights"]] == [night(20, None)]


def test_settings_that_differ_are_told_by_their_place_and_without_passwords():
    one = effective.effective(a_product())
    other = effective.effective(a_product(model__train__learning_rate=0.1))
    assert [(each.name, each.now) for each in changed_settings(one, other)] == [("model.train.learning_rate", "0.1")]
    assert changed_settings(one, one) == []
    (told,) = changed_settings({"url": "postgresql://me:secret@host/x"}, {"url": "postgresql://host/x"})
    assert (told.before, told.now) == ("postgresql://…@host/x", "postgresql://host/x")


DAYS = st.lists(st.integers(0, 4), min_size=1, max_size=40).map(lambda days: np.unique(days, return_inverse=True)[1])


@given(DAYS, st.integers(0, 99))
def test_cells_change_places_within_their_day_or_whole_days_do(day, seed):
    order = importance.within_days(day, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(day)))
    assert (day[order] == day).all()
    order = importance.whole_days(day, np.random.default_rng(seed))
    of_day = {one: set(day[order][day == one]) for one in set(day)}
    assert all(len(given) == 1 for given in of_day.values()), "a day gets the cells of one other day"
    assert {each for given in of_day.values() for each in given} == set(day)


def linear_rows(n=4_000):
    random = np.random.default_rng(1)
    table = {name: random.normal(size=n) for name in ("strong", "weak", "unread")}
    y = 3 * table["strong"] + table["weak"] + random.normal(size=n)
    model = LinearRegression().fit(np.stack([table["strong"], table["weak"]], axis=1), y)
    return table, y, model


def test_importance_is_that_of_scikit_learn_where_there_are_no_days():
    table, y, model = linear_rows()
    days = np.full(len(y), "2024-01-01", "datetime64[D]")

    def score(rows):
        return model.predict(np.stack([rows["strong"], rows["weak"]], axis=1))

    found = {
        each.column: each
        for each in importance.permutation_importance(table, days, score, lambda scores: r2_score(y, scores), 5)
    }
    inputs = np.stack([table["strong"], table["weak"]], axis=1)
    wanted = of_scikit_learn(model, inputs, y, scoring="r2", n_repeats=20, random_state=0).importances_mean
    assert [found["strong"].loss, found["weak"].loss] == pytest.approx(wanted, rel=0.05)
    for each, value in zip(("strong", "weak"), wanted, strict=True):
        low, high = found[each].interval_95
        assert low - 0.05 < value < high + 0.05
    assert (found["unread"].loss, found["unread"].movement, found["unread"].interval_95) == (0.0, 0.0, (0.0, 0.0))


def test_column_of_the_day_is_worth_what_whole_days_are():
    random = np.random.default_rng(0)
    day = np.repeat(np.arange(50), 40)
    table = {"of_day": random.normal(size=50)[day], "of_row": random.normal(size=len(day)) + 100 * day}
    y = table["of_day"] + (table["of_row"] - 100 * day)
    days = np.datetime64("2024-01-01") + day

    def score(rows):
        return rows["of_day"] + rows["of_row"] - 100 * day

    of_day, of_row = importance.permutation_importance(table, days, score, lambda scores: r2_score(y, scores), 5)
    assert (of_day.by_days, of_row.by_days) == (True, False)
    # Each is half of the variance; cells of two rows differ by twice theirs. Among all days `of_row` would be all.
    assert of_day.loss == pytest.approx(1.0, abs=0.35)
    assert of_row.loss == pytest.approx(1.0, abs=0.1)


def test_importance_is_none_where_rows_do_not_define_the_metric():
    table, y, _ = linear_rows(n=20)
    days = np.full(len(y), date(2024, 1, 1), "datetime64[D]")
    (found, *_) = importance.permutation_importance(table, days, lambda rows: rows["strong"], lambda scores: None, 2)
    assert (found.loss, found.interval_95) == (None, None)
    assert found.movement > 0
