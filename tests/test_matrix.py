"""Oracle: tables, leads and lists of peers that are told by hand; for an interval, rows that are copies."""

import ast
from dataclasses import replace
from datetime import timedelta
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks import ahead
from benchmarks.ahead import HeldOut, pigeonhole_interval
from benchmarks.matrix import fashion, measuring
from benchmarks.matrix.forecasts import ForecastBench
from benchmarks.matrix.lines import LINES, Line
from benchmarks.matrix.made import METRIC, TRAINING, MadeRowsBench
from benchmarks.matrix.measuring import BASELINE, OURS, Bench
from benchmarks.matrix.own import MADE_FILE
from benchmarks.matrix.products import PRODUCTS
from benchmarks.matrix.summary import summarise
from tasks import params

PEERS = ROOT / "benchmarks" / "peers"
MADE = PRODUCTS["unusual-flights, made rows"]
OWN = Line(
    product="credit-risk",
    competitor=OURS,
    revision="aaa",
    machine="one",
    metric="auc",
    lower_is_better=False,
    rows={"train": 535, "val": 83, "test": 282},
    value=0.8,
    interval=(0.75, 0.85),
    seconds=90.0,
    rows_per_second=1000,
    training_bytes=2**30,
    scoring_bytes=2**29,
)
PEER = replace(OWN, competitor="LightGBM", revision="aaa-1", value=0.78, lead=(0.02, -0.01, 0.05), n_blocks=20)


@pytest.fixture
def lines(tmp_path, monkeypatch):
    lines = replace(LINES, file=tmp_path / "runs.jsonl", kept=tmp_path / "kept.jsonl")
    monkeypatch.setattr(measuring, "FOLDER", tmp_path)
    monkeypatch.setattr(measuring, "LINES", lines)
    return lines


def dictionary(file, name):
    """The dictionary that a module gives this name, its values as text."""
    tree = ast.parse(file.read_text("utf-8"))
    named = [each for each in tree.body if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == name]
    (found,) = (each.value for each in named)
    return {ast.literal_eval(key): ast.unparse(value) for key, value in zip(found.keys, found.values, strict=True)}


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_every_product_is_declared_and_its_peers_have_a_class(name):
    assert params.load(ROOT / PRODUCTS[name].file).product(PRODUCTS[name].product).gates.metric
    modules = dictionary(PEERS / "peer_matrix.py", "MODULES")
    if name == ahead.PRODUCT:
        assert set(ahead.MODELS) <= set(dictionary(PEERS / "peer_ahead.py", "MODELS"))
    elif PRODUCTS[name].peers:
        found = dictionary(PEERS / "matrix" / f"{ast.literal_eval(modules[name])}.py", "PEERS")
        assert set(PRODUCTS[name].peers) <= set(found)


def test_newest_line_of_a_competitor_counts_and_half_a_line_does_not(lines):
    lines.append([OWN, replace(OWN, value=0.9), PEER])
    with lines.file.open("a") as file:
        file.write('\n{"product": "credit-r')
    assert [line.value for line in lines.read()] == [0.9, 0.78]
    lines.keep()
    lines.file.unlink()
    assert lines.read() == [replace(OWN, value=0.9), PEER]


def test_best_peer_stands_beside_ours_whatever_the_own_baseline_is():
    baseline = replace(PEER, competitor=BASELINE, revision="aaa", value=0.79, seconds=None)
    other = replace(PEER, competitor="CatBoost", value=0.77)
    result = summarise([OWN, other, baseline, PEER])
    (row,) = result.tables["Ours and the best peer"]
    assert row["best peer"] == "LightGBM: 0.7800 (0.7500 to 0.8500)"
    assert row["ours leads by"] == "+0.0200 (-0.0100 to +0.0500)"
    assert row["minutes to train, ours"] == "1.50"
    assert row["MiB, ours"] == "1,024 / 512"
    assert [each["who"] for each in result.tables["credit-risk: auc"]] == [OURS, BASELINE, "LightGBM", "CatBoost"]


def test_of_an_error_the_lowest_is_best():
    low, high = (replace(PEER, competitor=name, value=value) for name, value in (("LightGBM", 1.0), ("CatBoost", 2.0)))
    own = replace(OWN, lower_is_better=True)
    (row,) = summarise([own, *(replace(each, lower_is_better=True) for each in (high, low))]).tables[
        "Ours and the best peer"
    ]
    assert row["best peer"].startswith("LightGBM")


@pytest.mark.parametrize(("lead", "met"), [((-0.02, -0.04, 0.0), True), ((-0.02, -0.03, -0.01), False)])
def test_target_is_met_unless_ours_is_surely_behind(lead, met):
    (target,) = summarise([OWN, replace(PEER, lead=lead)]).targets
    assert target.met is met


def test_peer_of_another_state_of_ours_is_left_out():
    result = summarise([OWN, replace(PEER, revision="bbb-1")])
    assert result.tables["Ours and the best peer"][0]["best peer"] is None
    not_measured, left_out = result.notes
    assert "digits" in not_measured
    assert "credit-risk" not in not_measured
    assert left_out.endswith("left out: 1.")


def test_without_a_line_of_ours_there_is_no_table():
    with pytest.raises(SystemExit, match="no line of ours"):
        summarise([PEER])


def test_lead_is_that_of_the_same_rows_by_blocks(lines):
    bench = Bench(PRODUCTS["credit-risk"])
    random = np.random.default_rng(1)
    y, block = np.tile([0, 1], 50), np.arange(100) // 5
    ours, weaker = y + random.normal(0, 0.5, 100), y + random.normal(0, 2, 100)
    bench.files.mkdir(parents=True)
    for name, array in {"y": y, "block": block, "model": ours, "LightGBM": weaker}.items():
        np.save(bench.files / f"{name}.npy", array)
    for part in ("train", "val", "test"):
        pd.DataFrame({"y": y}).to_parquet(bench.files / f"{part}.parquet")
    figures = {"seconds": 1.0, "rows_per_second": 5, "training_bytes": 7, "scoring_bytes": 3, "minutes": {}}
    own, peer = (bench.line(name, figures) for name in (OURS, "LightGBM"))
    assert own.value == pytest.approx(roc_auc_score(y, ours))
    assert own.lead is None
    assert peer.lead[0] == pytest.approx(roc_auc_score(y, ours) - roc_auc_score(y, weaker))
    assert peer.lead[1] < peer.lead[0] < peer.lead[2]
    assert (peer.n_blocks, peer.rows["test"], peer.rows_per_second) == (20, 100, 5)
    lines.append([own])
    assert bench.missing() == [BASELINE, *PRODUCTS["credit-risk"].peers]


def test_forecasts_behind_ours_have_a_lead_above_zero(lines):
    bench = ForecastBench(PRODUCTS[ahead.PRODUCT])
    series, day = (each.ravel() for each in np.meshgrid(list("abcd"), pd.date_range("2013-01-01", periods=6)))
    peer = f"StatsForecast {ahead.MODELS[0]}"
    scores = {ahead.OURS: np.ones((24, 1)), peer: np.full((24, 1), 3.0)}
    rows = pd.DataFrame({"series": series, "day": day})
    bench.held_out = HeldOut(rows=rows, y=np.zeros(24), scores=scores, seconds={ahead.OURS: 2.0, peer: 1.0})
    assert bench.measure(OURS).value == 1.0
    assert bench.measure(peer).lead == (2.0, 2.0, 2.0)


def flights(n, seed, *, keeps_the_rule=True):
    """Rows of unusual-flights whose carrier decides all else, or, where the rule is not kept, nothing."""
    random = np.random.default_rng(seed)
    codes = random.integers(4, size=n)
    found = {"flight_id": [f"f{seed}{number}" for number in range(n)], "date": pd.Timestamp("2013-06-01")}
    for name, kind in params.load().product(MADE.product).columns.items():
        of_column = codes if keeps_the_rule else random.permutation(codes)
        found[name] = [f"{name} {code}" for code in of_column] if kind == "category" else of_column * 10.0
    return pd.DataFrame(found).assign(changed_column="-")


@pytest.mark.long
@pytest.mark.slow
def test_made_rows_that_keep_a_rule_lead_those_that_do_not(lines):
    bench = MadeRowsBench(MADE)
    splits = bench.folder / "data" / "splits" / MADE.product
    for folder in (splits, bench.files):
        folder.mkdir(parents=True)
    for part, seed in (("train", 1), ("val", 2), ("test", 3)):
        flights(400, seed).to_parquet(splits / f"{part}.parquet")
    flights(400, 4).to_parquet(bench.files / MADE_FILE)
    flights(400, 5, keeps_the_rule=False).to_parquet(bench.files / "SDV CTGAN rows.parquet")
    figures = {"seconds": 1.0, "rows_per_second": 5, "training_bytes": 7, "scoring_bytes": 3}
    own, peer = (bench.line(name, figures) for name in (OURS, "SDV CTGAN"))
    baseline, training = (bench.line(name, {}) for name in (BASELINE, TRAINING))
    assert (own.product, own.metric, own.lower_is_better, own.lead) == (MADE.name, METRIC, True, None)
    assert own.interval[0] < 0.5 < own.interval[1]
    assert peer.value > 0.9
    assert baseline.value > 0.9
    assert training.value < 0.6
    assert peer.lead[0] == pytest.approx(peer.value - own.value)
    assert peer.lead[1] < peer.lead[0] < peer.lead[2]
    assert own.worth["copied"] == 1.0
    assert own.worth["learnt from made"] == own.worth["learnt from real"] == 1.0
    assert peer.worth["learnt from made"] < 0.5
    lines.append([own, peer])
    assert bench.missing() == [BASELINE, TRAINING, "SDV GaussianCopula"]
    (row,) = (each for each in summarise(lines.read()).tables["Ours and the best peer"])
    assert row["best peer"].startswith("SDV CTGAN")


def test_copies_of_an_evening_make_an_interval_no_narrower():
    random = np.random.default_rng(3)
    of_series = random.normal(size=20)
    series, day = (each.ravel() for each in np.meshgrid(np.arange(20), np.arange(50), indexing="ij"))
    low, high = pigeonhole_interval(of_series[series], series, day)  # each evening the same
    expected = 2 * 1.96 * of_series.std() / np.sqrt(20)
    assert low < of_series.mean() < high
    assert high - low == pytest.approx(expected, rel=0.15)
    as_rows = 2 * 1.96 * of_series.std() / np.sqrt(1000)
    assert high - low > 5 * as_rows


@pytest.mark.skipif(not fashion.FOLDER.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_own_test_pictures_of_fashion_mnist_are_the_ones_held_out():
    declared = params.load(ROOT / PRODUCTS["fashion-mnist"].file)
    last = declared.as_of - timedelta(days=declared.product("fashion-mnist").split.test_days - 1)
    found = fashion.rows(last, declared.as_of)
    assert len(found) == 10_000 == found["picture_id"].str.startswith("t10k-").sum()
    assert set(found["article"].value_counts()) == {1_000}
    first = found[found["picture_id"] == "t10k-0"].iloc[0]
    assert first["article"] == "ankle boot"  # label 9, as its README says
    assert Image.open(BytesIO(first["picture"])).size == (28, 28)
