"""Oracle: gates worked by hand, for metrics that should rise and for metrics that should fall."""

import dataclasses
import json
import math
import shutil
from datetime import date

import numpy as np
import pandas as pd
import pytest
from builders import a_product
from sklearn.metrics import f1_score, roc_auc_score
from test_model_export import TASKS, mixed, random_model

from model.evaluation.paired import Difference
from model.scoring.scorer import Scorer
from tasks import params
from tasks.publication.scoring import load_scorer
from tasks.rows import model_inputs
from tasks.rows.partitions import write_table
from tasks.rows.slices.declared import Slice
from tasks.runs.gates.comparison import (
    Comparison,
    HeldOut,
    ProbabilityLeads,
    incompatibility,
    measure_lead,
    score_both,
)
from tasks.runs.gates.figures import Figures
from tasks.runs.gates.verdict import Verdict, judge
from tasks.runs.registry.tags import Champion
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Paths
from tasks.training.gate_metric import gate_metric
from tasks.training.held_out.slices import Gap, MeasuredSlices

PATHS = Paths("tiny")
KINDS = {"colour": "category", "size": "number", "when": "time"}


def product(metric, task="binary", **gates):
    given = {"metric": metric, "limit": 0.7, "max_behind_baseline": 0.02, "max_behind_champion": 0.01, **gates}
    return a_product(gates=given, target__task=task)


def compared(challenger, baseline, champion, metric="auc", **others):
    """A comparison whose lead has no chance in it."""
    lead = None
    if champion is not None and not math.isnan(champion - challenger):
        value = (challenger - champion) * (-1 if metric in params.LOWER_IS_BETTER else 1)
        lead = Difference(value=value, low=value, high=value, n_blocks=7)
    given = {"lead": lead, **others}
    return Comparison(metric=metric, challenger=challenger, baseline=baseline, champion=champion, **given)


def failed(*measured, metric="auc", task="binary", others=None, **gates):
    """The names of the gates that stay shut for (challenger, baseline, champion)."""
    found = judge(product(metric, task, **gates), compared(*measured, metric=metric, **(others or {})))
    return [gate.name for gate in found if not gate.passed]


@pytest.mark.parametrize(
    ("challenger", "baseline", "champion", "shut"),
    [
        (0.80, 0.75, 0.78, []),
        (0.80, 0.81, 0.805, []),  # behind both, and no further than allowed
        (0.69, 0.60, 0.60, ["limit"]),
        (0.80, 0.83, None, ["max_behind_baseline"]),
        (0.80, 0.75, 0.82, ["max_behind_champion"]),
        (0.60, 0.75, 0.82, ["limit", "max_behind_baseline", "max_behind_champion"]),
        (0.70, 0.70, None, []),  # exactly at the limit
    ],
)
def test_metric_that_should_rise(challenger, baseline, champion, shut):
    assert failed(challenger, baseline, champion) == shut


@pytest.mark.parametrize(
    ("challenger", "baseline", "champion", "shut"),
    [
        (0.50, 0.55, 0.52, []),
        (0.50, 0.49, 0.495, []),
        (0.71, 0.80, 0.80, ["limit"]),
        (0.50, 0.47, None, ["max_behind_baseline"]),
        (0.50, 0.55, 0.48, ["max_behind_champion"]),
        (0.90, 0.60, 0.60, ["limit", "max_behind_baseline", "max_behind_champion"]),
    ],
)
@pytest.mark.parametrize(("metric", "task"), [("log_loss", "binary"), ("rmse", "regression"), ("mae", "regression")])
def test_metric_that_should_fall(metric, task, challenger, baseline, champion, shut):
    assert failed(challenger, baseline, champion, metric=metric, task=task) == shut


def test_first_challenger_needs_no_champion():
    assert failed(0.9, 0.8, None, max_behind_champion=-1.0) == []
    assert failed(0.9, 0.8, 0.85, max_behind_champion=-1.0) == ["max_behind_champion"]


def test_gate_may_ask_for_a_lead():
    assert failed(0.805, 0.8, None, max_behind_baseline=-0.01) == ["max_behind_baseline"]
    assert failed(0.815, 0.8, None, max_behind_baseline=-0.01) == []


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
def test_what_could_not_be_measured_opens_no_gate(metric):
    assert failed(math.nan, 0.8, 0.8, metric=metric) == ["limit", "max_behind_baseline", "max_behind_champion"]
    assert failed(0.7, 0.7, math.nan, metric=metric) == ["max_behind_champion"]


def test_shut_gate_tells_what_it_wants():
    wants = [str(gate) for gate in judge(product("auc"), compared(0.6, 0.75, 0.82))]
    assert wants == [
        "gates.limit wants at least 0.7000",
        "gates.max_behind_baseline wants at least 0.7300",
        "gates.max_behind_champion wants a lead over the champion of at least -0.0100, and it is -0.2200 (95% interval "
        "-0.2200 to -0.2200, 7 blocks of rows)",
    ]
    falling = judge(product("log_loss"), compared(0.9, 0.5, None, metric="log_loss"))
    assert str(falling[1]) == "gates.max_behind_baseline wants at most 0.5200"


NOISY = {"lead": Difference(value=0.004, low=-0.002, high=0.010, n_blocks=7)}


def test_lead_must_be_above_chance_where_a_human_approves():
    lead = {"max_behind_champion": 0.0, "others": NOISY}
    assert failed(0.8, 0.7, 0.796, **lead) == []
    assert failed(0.8, 0.7, 0.796, approval="human", **lead) == ["max_behind_champion"]
    assert failed(0.8, 0.7, 0.796, approval="human", champion_lead="any", **lead) == []
    assert failed(0.8, 0.7, 0.796, champion_lead="significant", **lead) == ["max_behind_champion"]
    surely = {"lead": Difference(value=0.004, low=0.001, high=0.007, n_blocks=7)}
    assert failed(0.8, 0.7, 0.796, approval="human", max_behind_champion=0.0, others=surely) == []


def probabilities(brier, calibration=0.0, margin=0.002):
    """How probabilities compare, beside a champion whose squared error is 0.2."""
    leads = [Difference(value=each, low=each - margin, high=each + margin, n_blocks=7) for each in (brier, calibration)]
    return {"probabilities": ProbabilityLeads(brier=leads[0], calibration=leads[1], champion_brier=0.2)}


def test_surely_worse_probabilities_stop_a_challenger_unless_they_are_not_looked_at():
    for worse in (probabilities(-0.0031), probabilities(-0.0001, -0.0121)):
        assert failed(0.8, 0.7, 0.7, others=worse) == ["calibration"]
        assert failed(0.8, 0.7, 0.7, others=worse, calibration="any") == []
    for perhaps in (probabilities(-0.0029), probabilities(-0.0001, -0.0119), probabilities(0.0, -0.0121)):
        assert failed(0.8, 0.7, 0.7, others=perhaps) == []


def stopped_share(days, challenger, champion, n=25):
    """The share of weeks in which probabilities stop a challenger; days differ, and each resembles the one before.

    Of a model are given how much of what can be known it knows, the factor of its logits, and what is added to them.
    """
    random, stopped = np.random.default_rng(0), 0
    n_days, n_rows = days
    for _ in range(n):
        day = np.repeat(np.arange(n_days), n_rows)
        levels = random.normal(scale=0.6, size=n_days)
        for i in range(1, n_days):
            levels[i] = 0.5 * levels[i - 1] + 0.75**0.5 * levels[i]
        known = random.normal(size=(2, len(day))) * [[0.8], [0.5]]
        y = (random.random(len(day)) < 1 / (1 + np.exp(1.2 - levels[day] - known.sum(0)))).astype(int)
        scores = [
            (1 / (1 + np.exp(-(added - 1.2 + factor * known[:knows].sum(0))))).astype("float32")
            for knows, factor, added in (challenger, champion)
        ]
        rows = HeldOut(product=product("auc"), y=y, challenger=scores[0], champion=scores[1], block=day)
        found = judge(rows.product, compared(0.8, 0.7, 0.7, probabilities=rows.probability_leads()))
        stopped += any(gate.name == "calibration" and not gate.passed for gate in found)
    return stopped / n


PLAIN, BETTER = (1, 1.0, 0.0), (2, 1.0, 0.0)


@pytest.mark.long
def test_challenger_that_is_better_and_as_well_calibrated_is_hardly_ever_stopped():
    assert stopped_share((7, 300), BETTER, PLAIN) == 0
    assert stopped_share((7, 300), (2, 1.0, 0.15), PLAIN) <= 0.1  # too high by what a week can hardly show
    assert stopped_share((7, 40), PLAIN, (1, 2.0, 0.0)) <= 0.04  # where the champion is the one that exaggerates


@pytest.mark.long
def test_challenger_that_exaggerates_or_promises_too_much_is_stopped_where_days_show_it():
    assert stopped_share((7, 300), (2, 2.0, 0.0), PLAIN) >= 0.3
    assert stopped_share((7, 300), (2, 1.0, 1.2), PLAIN) >= 0.4
    assert stopped_share((28, 300), (2, 2.0, 0.0), PLAIN, n=5) == 1


def test_too_few_positives_and_too_early_a_change_leave_the_champion():
    assert failed(0.9, 0.7, 0.7, others={"n_positives": 9}) == ["min_positives"]
    assert failed(0.9, 0.7, 0.7, others={"n_positives": 10}) == []
    since = [failed(0.9, 0.7, 0.7, others={"days_since": days}) for days in (0, 1, 6, 7)]
    assert since == [[], ["min_days_between"], ["min_days_between"], []]
    assert failed(0.9, 0.7, None, others={"n_positives": 0, "days_since": 1}) == []


def held_out(n_days, kept_days, gain, random):
    """Held-out rows on which a challenger's scores are nearer to the labels by `gain`, and which of them are kept."""
    day = np.repeat(np.arange(n_days), 40)
    y = random.integers(0, 2, len(day))
    noise = random.normal(size=len(day))
    champion = (1 / (1 + np.exp(-(2 * y - 1) * 0.5 - noise))).astype("float32")
    challenger = (1 / (1 + np.exp(-(2 * y - 1) * (0.5 + gain) - noise))).astype("float32")
    rows = HeldOut(product=product("auc"), y=y, challenger=challenger, champion=champion, block=day)
    return rows, day < kept_days


def test_lead_is_measured_on_the_rows_that_neither_has_learnt_from():
    champion = Champion(version="v1.0.0", commit="c", as_of="2024-02-03")
    alone = Comparison(metric="auc", challenger=0.8, baseline=0.7)
    rows, kept = held_out(7, 5, 0.5, np.random.default_rng(0))
    found = measure_lead(alone, rows, kept, " on some", champion, date(2024, 2, 10))
    common = rows.only(kept)
    wanted = roc_auc_score(common.y, common.challenger) - roc_auc_score(common.y, common.champion)
    assert found.lead.value == pytest.approx(wanted)
    assert found.lead.n_blocks == 5
    assert found.champion == pytest.approx(roc_auc_score(common.y, common.champion))
    assert found.days_since == 7
    assert found.n_positives == min(common.y.sum(), 200 - common.y.sum())
    assert found.probabilities.brier.value > 0
    assert found.probabilities.calibration.n_blocks == 5


def test_champion_that_has_learnt_nearly_all_held_out_rows_is_not_compared():
    champion = Champion(version="v1.0.0", commit="c", as_of="2024-02-03")
    rows, kept = held_out(7, 0, 0.5, np.random.default_rng(0))
    found = measure_lead(Comparison(metric="auc", challenger=0.8, baseline=0.7), rows, kept, "", champion, date.max)
    assert found.champion is None
    assert found.about_champion.endswith("has learnt from all but 0 of the 280 held-out rows")


def halves(rows, gain):
    """The held-out rows in two slices by turns; on the second the challenger is worse by `gain`."""
    second = np.arange(len(rows.y)) % 2 == 1
    worse = np.where(second, 0.5 + (rows.challenger - 0.5) * (1 - gain), rows.challenger)
    slices = [Slice(declaration="by_half", name=f"by_half={i}", rows=second == bool(i)) for i in (0, 1)]
    return dataclasses.replace(
        rows, challenger=np.where(second & (gain > 1), 1 - rows.challenger, worse), slices=(*slices,)
    )


def test_slice_where_the_champion_is_surely_better_stops_a_challenger():
    champion = Champion(version="v1.0.0", commit="c", as_of="2024-02-03")
    rows, kept = held_out(7, 7, 3.0, np.random.default_rng(0))
    worse = dataclasses.replace(halves(rows, 2.0), product=product("auc", slices={"min_rows": 50}))
    alone = Comparison(metric="auc", challenger=0.8, baseline=0.7)
    found = measure_lead(alone, worse, kept, "", champion, date(2024, 2, 10))
    for each, half in zip(found.slices, worse.slices, strict=True):
        y, challenger, of_champion = (values[half.rows] for values in (worse.y, worse.challenger, worse.champion))
        assert each.rows == 140
        assert each.lead.value == pytest.approx(roc_auc_score(y, challenger) - roc_auc_score(y, of_champion))
    gates = [gate for gate in judge(worse.product, found) if gate.name == "slices.max_behind_champion"]
    assert [(gate.about, gate.passed) for gate in gates] == [("by_half=0", True), ("by_half=1", False)]
    assert gates[1].interval_95[1] < gates[1].threshold == 0.0
    assert "on by_half=1 (140 rows), and it is -" in str(gates[1])
    for off in ({"min_rows": 50, "max_behind_champion": 0.9}, {"max_behind_champion": None}):
        assert all(gate.passed for gate in judge(product("auc", slices=off), found) if "slices" in gate.name)
    few = dataclasses.replace(worse, product=product("auc", slices={"min_rows": 141}))
    assert measure_lead(alone, few, kept, "", champion, date(2024, 2, 10)).slices == ()


def test_noise_on_twenty_slices_seldom_stops_a_challenger_that_is_as_good():
    random, stopped = np.random.default_rng(1), 0
    for _ in range(40):
        rows, _ = held_out(7, 7, 0.0, random)
        noise = random.normal(scale=0.05, size=len(rows.y))
        part = random.integers(0, 4, len(rows.y))
        slices = tuple(Slice(declaration="part", name=f"part={i}", rows=part == i) for i in range(4))
        given = {"challenger": rows.champion + noise, "champion": rows.champion + random.permutation(noise)}
        rows = dataclasses.replace(rows, slices=slices, product=product("auc", slices={"min_rows": 20}), **given)
        stopped += any(each.lead.high < 0 for each in rows.slice_leads())
    assert stopped <= 4


def test_gap_between_slices_of_one_entry_is_a_gate_where_a_limit_is_given():
    gap = Gap(declaration="by_half", value=0.2, interval_95=(0.1, 0.3), highest="by_half=0", lowest="by_half=1")
    figures = Figures(metric="auc", slices=MeasuredSlices(metric="auc", min_rows=50, slices=(), gaps=(gap,)))
    compared_with_none = compared(0.9, 0.7, None)
    for limit, passed in ((0.1, [False]), (0.2, [True]), (None, [])):
        gates = judge(product("auc", slices={"max_gap": limit}), compared_with_none, figures)
        assert [gate.passed for gate in gates if gate.name == "slices.max_gap"] == passed
    (gate,) = (
        gate for gate in judge(product("auc", slices={"max_gap": 0.1}), compared_with_none, figures) if gate.about
    )
    assert (gate.value, gate.threshold, gate.interval_95) == (0.2, 0.1, (0.1, 0.3))
    assert str(gate) == (
        "gates.slices.max_gap wants slices of by_half at most 0.1000 apart in auc, and it is 0.2000 between by_half=0 "
        "and by_half=1"
    )


def test_page_for_who_decides_has_every_gate_and_reads_no_data_as_markdown():
    evil = Gap(declaration="by", value=0.2, interval_95=(0.1, 0.3), highest="by=[x](http://e)|", lowest="by=<b>")
    figures = Figures(metric="auc", slices=MeasuredSlices(metric="auc", min_rows=1, slices=(), gaps=(evil,)))
    gates = judge(product("auc", slices={"max_gap": 0.1}), compared(0.9, 0.7, 0.8), figures)
    line = "; ".join(map(str, gates))
    page = Verdict(decision="rejected", line=line, gates=gates, figures=figures).page
    assert page.count("\n| ") == len(gates) + 1
    assert "| slices.max\\_gap | by | 0.2000 | 0.1000 | 0.1000 to 0.3000 | NOT PASSED |" in page
    assert "| limit |  | 0.9000 | 0.7000 |  | passed |" in page
    assert "](http" not in page
    assert "<b>" not in page
    assert page.endswith(f"These figures are called {figures.called}.")


def test_every_metric_has_a_direction():
    assert set(params.LOWER_IS_BETTER) <= {metric for metrics in params.METRICS.values() for metric in metrics}


def topics(columns):
    given = {"columns": columns, "expectations": [], "target__task": "multiclass", "gates__metric": "macro_f1"}
    return a_product(**given)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, export_once):
    """An exported model of three classes; exporting takes seconds, so that the tests copy it."""
    folder = tmp_path_factory.mktemp("model")
    random_model(folder / "trained", "multiclass", KINDS, n_layers=1)
    export_once(folder / "trained", folder / "onnx")
    return folder / "onnx"


@pytest.fixture
def champion(exported, tmp_path, monkeypatch):
    """An exported model of three classes, and a challenger that knows one more; held-out rows of all four."""
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "champion", PATHS.onnx):
        shutil.copytree(exported, folder)
    described = json.loads((PATHS.onnx / "network.json").read_text())
    described["target"]["classes"].append("d")
    (PATHS.onnx / "network.json").write_text(json.dumps(described))
    rows = pd.DataFrame({name: mixed(80)[name] for name in KINDS})
    rows["late"] = pd.array(np.random.default_rng(0).choice(["a", "b", "c", "d"], 80), dtype="str")
    rows["day"] = pd.Timestamp("2024-02-01") + pd.to_timedelta(np.arange(80) % 4, "D")
    write_table(PATHS.splits / "test.parquet", rows)
    return tmp_path / "champion"


def test_champion_is_measured_on_the_rows_of_a_class_that_it_does_not_know(champion):
    rows = pd.read_parquet(PATHS.splits / "test.parquet")
    said = Scorer(champion).score(model_inputs.inputs(rows, topics(KINDS))).argmax(1)
    wanted = f1_score(rows["late"], np.array(TASKS["multiclass"])[said], average="macro")
    shutil.copy(champion / "network.json", PATHS.onnx / "network.json")  # the challenger knows no more than it
    both = score_both(champion, topics(KINDS))
    assert len(np.unique(both.block)) == 4
    assert gate_metric(both.product, both.y, both.champion) == pytest.approx(wanted)
    known = rows[rows["late"] != "d"]
    assert wanted < f1_score(known["late"], np.array(TASKS["multiclass"])[said[known.index]], average="macro")


def test_champion_of_other_classes_altogether_stops_no_challenger(champion):
    assert incompatibility(champion, topics(KINDS)) == ""
    described = json.loads((PATHS.onnx / "network.json").read_text())
    described["target"]["classes"] = ["d", "e", "f"]
    (PATHS.onnx / "network.json").write_text(json.dumps(described))
    assert incompatibility(champion, topics(KINDS)) == "answers with a, b, c"
    assert incompatibility(champion, topics({"size": "number", "when": "time"})) == "reads colour as category"


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (KINDS, ""),
        ({**KINDS, "weight": "number"}, ""),
        ({"colour": "category", "when": "time"}, "reads size as number"),
        ({**KINDS, "size": "category", "colour": "text"}, "reads colour as category, size as number"),
    ],
)
def test_model_of_other_columns_is_named_and_neither_scores_nor_stops_a_new_one(champion, columns, told):
    assert incompatibility(champion, topics(columns)) == told
    if told:
        with pytest.raises(UserError, match=f"must declare what the model .*, and the model {told}; let train__tiny"):
            load_scorer(topics(columns))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"target__task": "binary", "gates__metric": "auc"}, "answers late as multiclass"),
        ({"target__task": "regression", "gates__metric": "rmse"}, "answers late as multiclass"),
        ({"target__name": "team"}, "answers late as multiclass"),
    ],
)
def test_model_of_another_target_neither_scores_nor_stops_a_new_one(champion, changes, told):
    for folder in (champion, PATHS.onnx):
        described = json.loads((folder / "network.json").read_text())
        described["target"]["column"] = "late"
        (folder / "network.json").write_text(json.dumps(described))
    given = {"columns": KINDS, "expectations": [], "target__task": "multiclass", "gates__metric": "macro_f1"}
    product = a_product(**{**given, **changes})
    assert incompatibility(champion, product) == told
    with pytest.raises(UserError, match=f"and the model {told}; let train__tiny promote"):
        load_scorer(product)
