"""Oracle: ONNX Runtime in fp32 for the engines that round; the same engine with other threads, neighbours and order."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from test_model_export import mixed, random_model

from model.compute import processor
from model.features.batches import batches, collate
from model.features.fitted import Features
from model.network.safety import check_onnx
from model.scoring.choice import MAX_LOSS, Measurement, choose, measure, within_tolerance
from model.scoring.engines import INT8_NETWORK, NETWORK, SIMPLEST, Engine, OnnxRuntime, has_cuda, missing_requirement
from model.scoring.quantise import convert_to_fp16, quantise
from model.scoring.scorer import Scorer

TOLERANCE = {"fp32": 1e-6, "bf16": 0.02, "int8": 0.04}
"""Mean difference of a probability from fp32; the random network exaggerates it."""
ALONE = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.02}
"""Of a probability, beside the same row in another batch: a sum taken in another order, then rounded."""
ENGINES = [
    Engine.parse(name)
    for name in ("onnxruntime-fp32", "onnxruntime-int8", "openvino-fp32", "openvino-bf16", "openvino-int8")
]
HERE = [engine for engine in ENGINES if not missing_requirement(engine)]


def calibrated(folder, n_rows=100):
    features = Features.load(folder)
    encoded = features.encode(mixed(n_rows, seed=7))
    cut = batches(encoded, 256)
    quantise(folder / NETWORK, folder / INT8_NETWORK, (collate(encoded, it, features.sizes.pad_id) for it in cut))
    return (folder / INT8_NETWORK).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, export_once):
    folder = tmp_path_factory.mktemp("engines")
    random_model(folder / "trained", "multiclass", max_windows=2, pooling="mean", norm_first=False)
    export_once(folder / "trained", folder / "onnx")
    calibrated(folder / "onnx")
    return folder / "onnx"


def reordered(table, order):
    return {name: column[order] for name, column in table.items()}


@pytest.mark.long
def test_fp16_scores_as_fp32_does_within_its_rounding(folder, tmp_path):
    """The file alone: a CPU rounds to fp16 after every operation, but does its sums in fp32; only a GPU gains."""
    half = Engine(name="onnxruntime", precision="fp16")
    convert_to_fp16(folder / NETWORK, tmp_path / half.network)
    assert (tmp_path / half.network).stat().st_size < 0.95 * (folder / NETWORK).stat().st_size
    check_onnx(tmp_path / half.network)
    for file in folder.glob("*.json"):
        shutil.copy(file, tmp_path)
    features, table = Features.load(folder), mixed(200, seed=5)
    encoded = features.encode(table)
    batch = collate(encoded, np.arange(200), features.sizes.pad_id)
    scores, exact = OnnxRuntime(half, tmp_path).run(batch), Scorer(folder, engine=SIMPLEST).score(table)
    assert scores.dtype == exact.dtype
    assert 0 < np.abs(scores - exact).mean() < 0.005
    assert (missing_requirement(half) is None) == has_cuda()


@pytest.mark.parametrize("engine", HERE, ids=str)
def test_engine_scores_as_fp32_does_and_says_what_it_is(folder, engine):
    scorer, table = Scorer(folder, engine=engine), mixed(200, seed=5)
    exact, scores = Scorer(folder, engine=SIMPLEST).score(table), scorer.score(table)
    assert np.abs(scores - exact).mean() < TOLERANCE[engine.precision]
    if engine.precision in ("bf16", "int8"):
        assert not np.array_equal(scores, exact), "nothing was rounded"
    assert (scorer.engine["engine"], scorer.engine["precision"]) == (engine.name, engine.precision)


@pytest.mark.parametrize("engine", HERE, ids=str)
def test_number_of_threads_changes_no_bit(folder, engine):
    table = mixed(300, seed=6)
    assert np.array_equal(
        Scorer(folder, engine=engine, n_threads=1).score(table), Scorer(folder, engine=engine, n_threads=3).score(table)
    )


@pytest.mark.parametrize("engine", HERE, ids=str)
def test_first_batch_of_an_engine_runs_alone(folder, engine, monkeypatch):
    """Its bindings learn of numpy then; two threads that did so at once hung an export for good."""
    scorer, running, at_once = Scorer(folder, engine=engine, n_threads=3), set(), []
    run = scorer.runner.run

    def watched(batch):
        running.add(threading.get_ident())
        at_once.append((threading.get_ident(), len(running)))
        scores = run(batch)
        running.discard(threading.get_ident())
        return scores

    monkeypatch.setattr(scorer.runner, "run", watched)
    monkeypatch.setattr(scorer, "batch_tokens", 64)
    scorer.score(mixed(300, seed=6))
    assert at_once[0] == (threading.get_ident(), 1)
    assert threading.get_ident() not in {thread for thread, _ in at_once[1:]}


@pytest.mark.parametrize("engine", HERE, ids=str)
def test_score_does_not_depend_on_neighbours_or_order(folder, engine):
    scorer, table = Scorer(folder, engine=engine), mixed(200, seed=2)
    together = scorer.score(table)
    for size in (200, 37, 1):
        chosen = np.random.default_rng(size).permutation(200)[:size]
        assert np.abs(scorer.score(reordered(table, chosen)) - together[chosen]).max() < ALONE[engine.precision]


def test_quantised_network_is_the_same_bytes_again(folder):
    assert (folder / INT8_NETWORK).read_bytes() == calibrated(folder)


def test_chosen_engine_is_the_one_that_scores(folder, monkeypatch):
    monkeypatch.setattr("model.compute.processor.features", lambda: {"avx512_vnni"})  # slow without, and as exact
    assert Scorer(folder).engine["precision"] == "fp32"
    Engine(name="onnxruntime", precision="int8").save(folder)
    try:
        assert Scorer(folder).engine["precision"] == "int8"
    finally:
        (folder / "engine.json").unlink()


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (
            "openvino-bf16",
            "openvino-bf16, chosen when it was exported, and OpenVINO is not installed .* set model.engine",
        ),
        ("onnxruntime-int8", "the processor has none of avx512_vnni, .* set model.engine to onnxruntime-fp32"),
    ],
)
def test_engine_that_cannot_run_here_is_refused_and_never_replaced(folder, monkeypatch, engine, message):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("model.compute.processor.features", lambda: {"fpu"})
    with pytest.raises(ValueError, match=message):
        Scorer(folder, engine=Engine.parse(engine))


def test_measurement_gives_speed_metric_and_difference_of_each(folder, monkeypatch):
    monkeypatch.setattr("model.scoring.choice.TIMED_BATCHES", 1)
    table = mixed(60, seed=3)
    findings = measure(folder, HERE, table, lambda scores: float(scores[0, 0]), min_gain=0.0)
    assert [found.engine for found in findings] == HERE
    exact = Scorer(folder, engine=SIMPLEST).score(table)
    for found in findings:
        scores = Scorer(folder, engine=found.engine).score(table)
        assert found.rows_per_cpu_second > 0
        assert found.metric == scores[0, 0]
        assert found.max_difference == np.abs(scores - exact).max()
    assert findings[0].max_difference == 0


def test_engine_too_slow_to_be_chosen_scores_no_validation_row(folder, monkeypatch):
    monkeypatch.setattr("model.scoring.choice.TIMED_BATCHES", 1)
    n_scored = []
    findings = measure(folder, HERE[:2], mixed(60, seed=3), lambda scores: n_scored.append(len(scores)), min_gain=1e9)
    assert n_scored == [60]
    assert choose(findings, lambda engine: 1.0, False) == SIMPLEST


def finding(name, speed, metric):
    return Measurement(engine=Engine.parse(name), rows_per_cpu_second=speed, metric=metric, max_difference=0.0)


@pytest.mark.parametrize(
    ("speeds", "metrics", "held_out", "chosen"),
    [
        ((100, 120, 300), (0.9, 0.9, 0.9), {}, "c-int8"),
        ((100, 114, 110), (0.9, 0.9, 0.9), {}, "a-fp32"),
        ((100, 200, 229), (0.9, 0.9, 0.9), {}, "b-bf16"),
        ((100, 200, 300), (0.9, 0.899, 0.897), {}, "b-bf16"),
        ((100, 200, 300), (0.9, 0.9, 0.9), {"c-int8": 0.897}, "b-bf16"),
        ((100, 200, 300), (0.9, 0.9, 0.9), {"b-bf16": 0.897, "c-int8": 0.897}, "a-fp32"),
        ((100, 200, 300), (None, None, None), {}, "a-fp32"),
        ((100, 200, 300), (0.9, 0.9, 0.9), {"a-fp32": None}, "a-fp32"),
    ],
    ids=[
        "the fastest",
        "no clear gain",
        "no clear gain over the simpler one",
        "loses on validation rows",
        "loses on held-out rows",
        "all lose on held-out rows",
        "no metric",
        "no held-out metric",
    ],
)
def test_choice_goes_by_a_clear_gain_at_no_loss(speeds, metrics, held_out, chosen):
    findings = [finding(*given) for given in zip(("a-fp32", "b-bf16", "c-int8"), speeds, metrics, strict=True)]
    assert str(choose(findings, lambda engine: held_out.get(str(engine), 0.9), False)) == chosen


def test_an_error_may_rise_by_the_same_share_that_a_metric_may_fall():
    assert within_tolerance(10.0, 10 * (1 + MAX_LOSS / 2), True)
    assert not within_tolerance(10.0, 10 * (1 + MAX_LOSS * 2), True)
    assert within_tolerance(0.9, 0.9 - MAX_LOSS / 2, False)
    assert not within_tolerance(0.9, 0.9 - MAX_LOSS * 2, False)


def test_processor_is_described():
    said = Path("/proc/cpuinfo").read_text()
    assert processor.name() in said or "model name" not in said
    assert processor.features()
    assert all(feature in said for feature in processor.features())
    assert 1 <= processor.n_cores() <= said.count("processor\t")
