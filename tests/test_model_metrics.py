"""Oracle: values worked out by hand on a few rows, loops over the definitions, and scikit-learn's own curve."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, precision_score, recall_score

from model.evaluation.baseline import fit_baseline
from model.evaluation.metrics import bootstrap_interval, evaluate_metric, evaluate_scores
from model.heads import METRICS, head_of
from model.heads.measures import N_BINS, calibration_error, reliability

BINARY = (np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.35, 0.8], np.float32))


def test_binary_metrics_equal_hand_worked_values():
    got = evaluate_scores("binary", *BINARY, ("no", "yes"))
    # Of the four pairs (positive, negative) three are in order.
    assert got["auc"] == pytest.approx(3 / 4)
    assert got["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert (got["accuracy"], got["precision"], got["recall"], got["f1"]) == (0.5, 0.5, 0.5, 0.5)
    assert got["brier"] == pytest.approx((0.1**2 + 0.6**2 + 0.65**2 + 0.2**2) / 4, rel=1e-5)
    assert got["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.35, 0.8]).mean(), rel=1e-5)
    assert got["balanced_accuracy"] == 0.5
    # Four rows, each a bin of its own.
    assert got["ece"] == pytest.approx((0.1 + 0.6 + 0.65 + 0.2) / 4)


def test_threshold_moves_the_decisions_and_nothing_else():
    low, usual = (evaluate_scores("binary", *BINARY, ("no", "yes"), threshold) for threshold in (0.3, 0.5))
    assert (low["precision"], low["recall"], low["accuracy"]) == (2 / 3, 1.0, 3 / 4)
    moved = {name for name in low if low[name] != usual[name]}
    assert moved == {"accuracy", "balanced_accuracy", "precision", "recall", "f1", "expected_cost"}
    single = (np.array([[1.0], [0.0]]), np.array([[0.4], [0.2]], np.float32), ("x",))
    low, usual = (evaluate_scores("multilabel", *single, threshold) for threshold in (0.3, 0.5))
    assert (low["macro_recall"], low["per_class"]["x"]["recall"]) == (1.0, 1.0)
    assert (usual["macro_recall"], usual["per_class"]["x"]["recall"]) == (0.0, 0.0)


@pytest.mark.parametrize("task", METRICS)
def test_every_metric_can_be_a_gate(task):
    found = set(head_of(task).with_levels((0.1, 0.9)).metrics(0.5))
    # A wider interval is not better or worse by itself, nor one that holds more: coverage_error says how it should be.
    assert set(METRICS[task]) == found - {"interval_width", "interval_coverage"}


def test_one_metric_alone_is_that_of_all_of_them():
    every = evaluate_scores("binary", *BINARY, ("no", "yes"), 0.3)
    assert {name: evaluate_metric("binary", *BINARY, name, 0.3) for name in METRICS["binary"]} == every


def test_multiclass_metrics_equal_hand_worked_values():
    scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3], [0.1, 0.2, 0.7]], np.float32)
    got = evaluate_scores("multiclass", np.array([0, 1, 0, 2]), scores, ("a", "b", "c"))
    assert got["accuracy"] == pytest.approx(3 / 4)
    assert got["per_class"]["a"] == pytest.approx({"precision": 1, "recall": 1 / 2, "f1": 2 / 3, "support": 2})
    assert got["per_class"]["b"] == pytest.approx({"precision": 1 / 2, "recall": 1, "f1": 2 / 3, "support": 1})
    assert got["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert got["macro_precision"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert got["log_loss"] == pytest.approx(-np.log([0.8, 0.7, 0.3, 0.7]).mean(), rel=1e-5)
    assert got["balanced_accuracy"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    one_hot = np.eye(3)[[0, 1, 0, 2]]
    assert got["brier"] == pytest.approx(((scores - one_hot) ** 2).sum(1).mean(), rel=1e-5)
    # Confidences 0.4 (wrong), 0.7, 0.7 (both right, one bin) and 0.8 (right).
    assert got["ece"] == pytest.approx((0.4 + 2 * 0.3 + 0.2) / 4)
    assert got["macro_average_precision"] == pytest.approx(1.0)


def test_multilabel_metrics_equal_hand_worked_values():
    truth = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    scores = np.array([[0.9, 0.2], [0.4, 0.6], [0.7, 0.8]], np.float32)
    got = evaluate_scores("multilabel", truth, scores, ("x", "y"))
    assert got["per_class"]["x"]["f1"] == pytest.approx(1 / 2)
    assert got["macro_f1"] == pytest.approx((1 / 2 + 1) / 2)
    assert got["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert got["macro_average_precision"] == pytest.approx(((1 / 2 + 1 / 2 * 2 / 3) + 1) / 2)
    assert got["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.3, 0.8, 0.6, 0.8]).mean(), rel=1e-5)
    assert got["brier"] == pytest.approx(np.mean(np.square([0.1, 0.6, 0.7, 0.2, 0.4, 0.2])), rel=1e-5)
    assert got["ece"] == pytest.approx(np.mean([0.1, 0.6, 0.7, 0.2, 0.4, 0.2]))


def test_regression_metrics_equal_hand_worked_values():
    got = evaluate_scores("regression", np.array([1.0, 2.0, 6.0]), np.array([2.0, 2.0, 4.0], np.float32), ())
    assert got == pytest.approx({"rmse": np.sqrt(5 / 3), "mae": 1.0, "r2": 1 - 5 / 14})


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("n", [0, 1, 4])
def test_rows_that_define_no_metric_give_null_and_never_nan(task, n):
    shape = (n, 3) if task in ("multiclass", "multilabel") else (n,)
    y = np.zeros((n, 3) if task == "multilabel" else n)
    got = evaluate_scores(task, y, np.full(shape, 0.3, np.float32), ("a", "b", "c"))
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    interval = bootstrap_interval(task, y, np.full(shape, 0.3, np.float32), METRICS[task][0], 5, 0)
    assert interval is None or interval[0] <= interval[1]


def test_auc_of_one_class_is_null_and_the_rest_remains():
    got = evaluate_scores("binary", np.ones(3), np.array([0.2, 0.6, 0.7], np.float32), ("no", "yes"))
    assert got["auc"] is None
    assert got["accuracy"] == pytest.approx(2 / 3)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.9, 1.0])), min_size=1, max_size=60)
)
@settings(max_examples=30, deadline=None)
def test_binary_metrics_with_ties_equal_loops_over_their_definitions(rows):
    y, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], np.float32)
    got = evaluate_scores("binary", y, scores, ("no", "yes"))
    positives, negatives = scores[y == 1], scores[y == 0]
    if len(positives) and len(negatives):
        wins = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
        assert got["auc"] == pytest.approx(np.mean(wins))
        precision_gained, found = 0.0, 0
        for threshold in sorted(set(scores.tolist()), reverse=True):
            said = scores >= threshold
            gained, found = (said & (y == 1)).sum() - found, (said & (y == 1)).sum()
            precision_gained += gained / len(positives) * found / said.sum()
        assert got["average_precision"] == pytest.approx(precision_gained)
    else:
        assert (got["auc"], got["average_precision"]) == (None, None)
    assert got["brier"] == pytest.approx(np.mean((scores - y) ** 2))
    recalls = [((scores[y == c] >= 0.5) == c).mean() for c in set(y.tolist())]
    assert got["balanced_accuracy"] == pytest.approx(np.mean(recalls))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([0.4, 0.6, 1.0])), min_size=1, max_size=40)
)
@settings(max_examples=20, deadline=None)
def test_multiclass_metrics_equal_loops_over_their_definitions(rows):
    y, said = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    scores = np.array([[top if c == best else (1 - top) / 2 for c in range(3)] for _, best, top in rows])
    got = evaluate_scores("multiclass", y, scores.astype(np.float32), ("a", "b", "c"))
    f1s = []
    for c in range(3):
        hit, claimed, true = ((said == c) & (y == c)).sum(), (said == c).sum(), (y == c).sum()
        assert got["per_class"]["abc"[c]]["support"] == true
        if claimed + true:
            f1s.append(2 * hit / (claimed + true))
    assert got["macro_f1"] == pytest.approx(np.mean(f1s))
    assert got["accuracy"] == pytest.approx(np.mean(said == y))
    assert got["balanced_accuracy"] == pytest.approx(np.mean([(said[y == c] == c).mean() for c in set(y.tolist())]))
    squares = [sum((scores[i, c] - (y[i] == c)) ** 2 for c in range(3)) for i in range(len(y))]
    assert got["brier"] == pytest.approx(np.mean(squares), abs=1e-6)
    certain = np.clip(scores[np.arange(len(y)), y], np.finfo(float).eps, 1)
    assert got["log_loss"] == pytest.approx(-np.mean(np.log(certain)), rel=1e-4, abs=1e-6)
    for name, of_library in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert got[f"macro_{name}"] == pytest.approx(of_library(y, said, average="macro", zero_division=0))
        yes = {"y": (y == 0).astype(int), "scores": scores[:, 0].astype(np.float32)}
        assert evaluate_metric("binary", **yes, metric=name) == pytest.approx(
            of_library(yes["y"], yes["scores"] >= 0.5, zero_division=0)
        )
    labels, chosen = scores >= 0.4, scores > 0.5
    for average in ("macro", "micro"):
        assert evaluate_metric("multilabel", labels.astype(float), scores, f"{average}_f1") == pytest.approx(
            f1_score(labels, chosen, average=average, zero_division=0)
        )


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None)
def test_regression_metrics_equal_loops_over_their_definitions(rows):
    y, scores = np.array([float(row[0]) for row in rows]), np.array([row[1] for row in rows], np.float32)
    got = evaluate_scores("regression", y, scores, ())
    errors = [said - true for true, said in zip(y, scores.tolist(), strict=True)]
    assert got["mae"] == pytest.approx(sum(map(abs, errors)) / len(rows))
    assert got["rmse"] == pytest.approx((sum(error**2 for error in errors) / len(rows)) ** 0.5)
    around = sum((true - y.mean()) ** 2 for true in y)
    assert got["r2"] == (pytest.approx(1 - sum(error**2 for error in errors) / around) if around else None)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=80), st.randoms())
@settings(max_examples=30, deadline=None)
def test_calibration_error_equals_a_loop_over_bins_in_any_order_of_rows(rows, random):
    y, shares = np.array([row[0] for row in rows]), np.array([row[1] / 20 for row in rows])
    edges = [-1.0, *(np.quantile(shares, i / N_BINS) for i in range(1, N_BINS)), 2.0]
    total = 0.0
    for low, high in pairwise(edges):
        held = [i for i, share in enumerate(shares) if low < share <= high]
        total += abs(sum(shares[i] for i in held) - sum(y[i] for i in held))
    assert calibration_error(y, shares) == pytest.approx(total / len(rows))
    order = random.sample(range(len(rows)), len(rows))
    assert calibration_error(y[order], shares[order]) == pytest.approx(calibration_error(y, shares))


def test_reliability_is_scikit_learns_curve():
    random = np.random.default_rng(0)
    shares = random.random(500)
    y = (random.random(500) < shares**2).astype(int)
    predicted, true, rows = reliability(y, shares)
    their_true, their_predicted = calibration_curve(y, shares, n_bins=N_BINS, strategy="quantile")
    np.testing.assert_allclose(predicted, their_predicted)
    np.testing.assert_allclose(true, their_true)
    assert rows.sum() == 500
    assert np.ptp(rows) <= 1


def test_probabilities_that_come_true_have_a_small_calibration_error_and_others_a_large_one():
    random = np.random.default_rng(0)
    shares = random.random(20_000)
    y = (random.random(20_000) < shares).astype(int)
    assert calibration_error(y, shares) < 0.012
    assert calibration_error(y, np.minimum(1, shares + 0.1)) == pytest.approx(0.1, abs=0.015)


def test_class_that_no_row_has_is_left_out_of_the_mean_of_average_precisions():
    scores = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]], np.float32)
    assert evaluate_scores("multiclass", np.array([0, 1]), scores, ("a", "b", "c"))["macro_average_precision"] == 1.0


def test_interval_of_accuracy_is_that_of_a_proportion():
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 2000)
    scores = np.where(random.random(2000) < 0.8, y, 1 - y).astype(np.float32)
    low, high = bootstrap_interval("binary", y, scores, "accuracy", 400, 0)
    accuracy = (y == scores).mean()
    spread = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 2000)
    assert (low, high) == pytest.approx((accuracy - spread, accuracy + spread), abs=0.004)


def test_interval_is_repeatable():
    assert bootstrap_interval("binary", *BINARY, "f1", 50, 3) == bootstrap_interval("binary", *BINARY, "f1", 50, 3)


def test_metric_of_another_task_is_refused():
    with pytest.raises(ValueError, match=r"metric must be one of auc, .* for a binary target, got 'rmse'; use auc"):
        bootstrap_interval("binary", *BINARY, "rmse", 10, 0)


@pytest.mark.parametrize("with_text", [False, True])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_baseline_finds_a_plain_pattern(task, with_text):
    random = np.random.default_rng(0)
    colour = random.choice(np.array(["red", "green", "blue"], object), 600)
    colour[::50] = None
    size = np.where(random.random(600) < 0.1, np.nan, random.normal(size=600))
    when = np.datetime64("2013-01-01T00:00:00") + random.integers(0, 10**7, 600).astype("timedelta64[s]")
    when[::40] = "NaT"
    table = {"colour": colour, "size": size, "when": when}
    kinds = {"colour": "category", "size": "number", "when": "time"}
    if with_text:
        table["note"] = np.array([f"it is {value}" if value else None for value in colour], object)
        kinds["note"] = "text"
    red, green = colour == "red", colour == "green"
    y = {
        "binary": red.astype(int),
        "multiclass": red + 2 * green,
        "multilabel": np.stack([red, green], 1).astype(float),
        "regression": 5.0 * red,
    }[task]
    unseen = {**table, "colour": np.where(green, "violet", colour)}
    baseline = fit_baseline(kinds, table, y, task, 3 if task == "multiclass" else 2, 0)
    scores = baseline.score(table)
    assert scores.dtype == np.float32
    assert baseline.score(unseen).shape == scores.shape
    metric = "r2" if task == "regression" else "accuracy" if task != "multilabel" else "macro_f1"
    assert evaluate_scores(task, y, scores, ("a", "b", "c")[: 2 if task == "multilabel" else 3])[metric] > 0.95


@pytest.mark.parametrize("with_text", [False, True])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_baseline_takes_columns_that_say_nothing_numbers_beyond_measure_and_classes_it_never_saw(task, with_text):
    n, random = 200, np.random.default_rng(0)
    size = random.normal(size=n)
    size[:3] = 1e300, -1.7e308, np.inf
    table = {
        "colour": np.full(n, None, object),
        "size": size,
        "weight": np.full(n, np.nan),
        "when": np.full(n, "NaT", "datetime64[s]"),
    }
    kinds = {"colour": "category", "size": "number", "weight": "number", "when": "time"}
    if with_text:
        table |= {"note": np.full(n, None, object), "grade": random.choice(np.array(["A", "B"], object), n)}
        kinds |= {"note": "text", "grade": "text"}
    late = (size > 0).astype(int)
    y = {"binary": late, "multiclass": late, "multilabel": late[:, None].astype(float), "regression": 2.0 * late}[task]
    n_classes = {"binary": 2, "multiclass": 3, "multilabel": 1}.get(task, 0)
    scores = fit_baseline(kinds, table, y, task, n_classes, 0).score(table)
    assert scores.shape == ((n, n_classes) if task in ("multiclass", "multilabel") else (n,))
    assert np.isfinite(scores).all()
    if not with_text:
        assert np.corrcoef(scores[:, -2] if task == "multiclass" else scores.ravel(), late)[0, 1] > 0.9


def test_baseline_of_texts_without_a_word_gives_what_is_usual():
    table, y = {"note": np.array(["A", None, "B", ""] * 10, object)}, np.array([0, 1, 1, 1] * 10)
    scores = fit_baseline({"note": "text"}, table, y, "binary", 2, 0).score(table)
    np.testing.assert_allclose(scores, 0.75, atol=0.01)


@pytest.mark.parametrize("kind", ["number", "text"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_baseline_of_rows_that_are_all_alike_says_so(task, kind):
    cells = {"number": np.arange(60.0), "text": np.array(["rain", "sun"] * 30, object)}[kind]
    y = np.ones((60, 1)) if task == "multilabel" else np.ones(60, int)
    scores = fit_baseline({"x": kind}, {"x": cells}, y, task, 1 if task == "multilabel" else 2, 0).score({"x": cells})
    wanted = {"binary": np.ones(60), "multiclass": np.tile([0, 1], (60, 1)), "multilabel": np.ones((60, 1))}[task]
    np.testing.assert_array_equal(scores, wanted)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_baseline_of_many_rows_bears_a_class_of_one(task):
    x = np.arange(10_050.0)
    y = (x > 5000).astype(int)
    y[0] = 2 if task == "multiclass" else 0
    y = y if task == "multiclass" else (x == 7).astype(int) if task == "binary" else np.c_[y, x == 7].astype(float)
    n_classes = {"binary": 2, "multiclass": 3, "multilabel": 2}[task]
    assert np.isfinite(fit_baseline({"x": "number"}, {"x": x}, y, task, n_classes, 0).score({"x": x})).all()
