"""Oracle: a task that only this file knows, taken through the whole package; finite differences; the syntax trees."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import mean_absolute_error, mean_poisson_deviance

from model import heads
from model.evaluation.baseline import fit_baseline
from model.evaluation.metrics import bootstrap_interval, evaluate_scores
from model.features.fitted import Features
from model.heads import HEADS, TASKS, head_of
from model.heads.base import Head
from model.heads.parts.estimators import MOST_TREES, boosted_classifier
from model.network.network import Network
from model.network.store import save_model
from model.scoring.export import export_onnx
from model.scoring.scorer import Scorer, TorchScorer
from model.settings import NetworkSettings, TrainingSettings
from model.target import Target, read_target
from model.training.fit import LabelledRows
from model.training.train import train
from tasks.publication.scoring import prediction_columns
from tasks.rows import model_inputs
from tasks.rows.casting import cast_target
from tasks.training.plots import PLOTS, plot_evaluation

KINDS = {"size": "number", "damp": "context", "note": "text"}


class Counts(Head):
    """A number of events: the logit is the logarithm of its mean, the loss is Poisson's."""

    task = "counts"
    label_kind = "number"
    metric_names = ("deviance", "mae")
    lower_is_better = metric_names
    ridge_scale = 0.1
    plots = ("scatter",)

    def label_array(self, labels, classes):
        return labels.astype("float64")

    def loss_labels(self, y, target):
        return torch.from_numpy(np.asarray(y, np.float32))

    def loss(self, logits, labels, smoothing, class_weights):
        return (logits.exp() - labels[:, None] * logits).mean(1)

    def score_and_information(self, logits, outputs, class_weights):
        return outputs - logits.exp(), logits.exp()

    def activation(self, logits, target):
        return logits[:, 0].exp()

    def metrics(self, threshold):
        return {"deviance": mean_poisson_deviance, "mae": mean_absolute_error}

    def tree_estimator(self, is_category: Sequence[bool], y, seed):
        return HistGradientBoostingRegressor(loss="poisson", categorical_features=is_category, random_state=seed)

    def linear_estimator(self):
        return PoissonRegressor(alpha=1e-3)

    def estimator_scores(self, estimator, rows, n_classes):
        return estimator.predict(rows).astype("float32")

    def night_columns(self, scores, classes, threshold):
        return {"prediction": scores.astype("float64")}


@pytest.fixture
def counts(monkeypatch):
    """The one line that adds the task."""
    monkeypatch.setattr(heads, "HEADS", (*HEADS, Counts()))


def shops(n, seed):
    """Customers of a shop: many with a large one, few where the note says that it was closed."""
    random = np.random.default_rng(seed)
    size = random.normal(size=n)
    note = random.choice(np.array(["open all day", "closed in the morning"], object), n)
    mean = np.exp(1 + 0.7 * size - 1.5 * (note == "closed in the morning"))
    return {"size": size, "damp": np.repeat(random.normal(size=n // 10), 10), "note": note}, random.poisson(mean), mean


@pytest.mark.long
@pytest.mark.slow
def test_task_of_one_new_file_trains_scores_and_is_measured(counts, tmp_path):
    (table, y, _), (unseen, y_unseen, mean) = shops(1000, 0), shops(400, 1)
    features = Features.fit(KINDS, table, y, "counts", max_tokens=8, wide_tokens=16)
    settings = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=16, dropout=0.0, wide_tokens=16)
    target = Target.fit("counts", (), y, "customers")
    network = Network(settings, features.sizes, target)
    training = TrainingSettings(epochs=8, learning_rate=1e-2)
    network, _ = train(
        network,
        features,
        LabelledRows(features.encode(table), y),
        LabelledRows(features.encode(unseen), y_unseen),
        training,
    )
    save_model(tmp_path / "trained", network, features)
    export_onnx(tmp_path / "trained", tmp_path / "onnx")
    assert read_target(tmp_path / "onnx") == target

    scores = Scorer(tmp_path / "onnx").score(unseen)
    np.testing.assert_allclose(scores, TorchScorer(tmp_path / "trained").score(unseen), rtol=1e-4)
    measured = evaluate_scores("counts", y_unseen, scores, ())
    blind = mean_poisson_deviance(y_unseen, np.full(len(y_unseen), y.mean()))
    assert measured["deviance"] < 0.6 * blind
    assert measured["mae"] == pytest.approx(np.abs(scores - y_unseen).mean())
    assert np.corrcoef(scores, mean)[0, 1] > 0.9
    low, high = bootstrap_interval("counts", y_unseen, scores, "deviance", 50, 0)
    assert low < measured["deviance"] < high


@pytest.mark.parametrize("kinds", [KINDS, {"size": "number"}])
def test_task_of_one_new_file_has_a_baseline(counts, kinds):
    table, y, mean = shops(1000, 0)
    scores = fit_baseline(kinds, table, y, "counts", 0, 0).score(table)
    assert scores.dtype == np.float32
    assert np.corrcoef(scores, mean)[0, 1] > 0.5


def test_task_of_one_new_file_has_labels_and_columns_of_its_night(counts):
    target = SimpleNamespace(name="customers", task="counts")
    product = SimpleNamespace(target=target, predict=SimpleNamespace(threshold=0.5, quantiles=()))
    labels, misfits = cast_target(pd.Series(["3", "many", None]), target)
    assert misfits.tolist() == [False, True, False]
    frame = pd.DataFrame({"customers": labels.dropna()})
    assert model_inputs.classes(frame, product) == ()
    assert model_inputs.targets(frame, product, ()).tolist() == [3.0]
    columns = prediction_columns(product, np.array([2.5], np.float32), ())
    assert list(columns) == ["prediction"]


def test_task_of_one_new_file_has_a_picture(counts, tmp_path):
    target, predict = SimpleNamespace(name="customers", task="counts"), SimpleNamespace(quantiles=())
    product = SimpleNamespace(name="shops", target=target, predict=predict)
    _, y, mean = shops(100, 0)
    plot_evaluation(tmp_path / "evaluation.png", product, y, {"model": mean, "baseline": mean[::-1]}, ())
    assert (tmp_path / "evaluation.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_task_is_refused_with_the_names_of_the_known_ones():
    with pytest.raises(ValueError, match=r"task must be one of binary, .*, span, got 'ranking'; use binary"):
        head_of("ranking")


WRITTEN_FOR_PEOPLE = {
    "tasks/commands/data/product.py",
    "tasks/params/messages.py",
    "tasks/params/schema.py",
    "tasks/params/sections.py",
}
"""Modules that name tasks in examples, remedies and proposals for a person to edit, and compare with none."""


def strings(tree):
    """The string constants of a module that are not docstrings."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in texts]


def decisions(tree):
    """The string constants that something is compared with or looked up by."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.MatchValue):
            yield from strings(node)
        elif isinstance(node, ast.Dict):
            yield from (key for key in node.keys if isinstance(key, ast.Constant))


def test_no_module_but_the_heads_names_a_task():
    named = set()
    for file in (file for folder in ("model", "tasks", "dags") for file in (ROOT / folder).rglob("*.py")):
        name, tree = file.relative_to(ROOT).as_posix(), ast.parse(file.read_text())
        if not name.startswith("model/heads/"):
            found = decisions(tree) if name in WRITTEN_FOR_PEOPLE else strings(tree)
            named |= {f"{name}:{node.lineno}" for node in found if node.value in TASKS}
    assert not named


@pytest.mark.parametrize("task", [head.task for head in HEADS if head.has_labels and head.label_kind != "text"])
def test_score_and_information_are_derivatives_of_the_likelihood(task):
    """Of several classes the information is an upper bound: what one class gains the others lose."""
    head, n = head_of(task), 40
    random = torch.Generator().manual_seed(0)
    n_outputs = head.n_outputs(3)
    labels = {
        "binary": torch.randint(0, 2, (n,), generator=random).float(),
        "multiclass": torch.randint(0, 3, (n,), generator=random),
        "multilabel": torch.randint(0, 2, (n, 3), generator=random).float(),
        "next_item": torch.randint(0, 3, (n,), generator=random),
        "regression": torch.randn(n, generator=random, dtype=torch.float64),
    }[task]
    logits = torch.randn(n, n_outputs, generator=random, dtype=torch.float64, requires_grad=True)
    score, information = head.score_and_information(logits.detach(), head.outputs(labels, n_outputs), None)
    is_one_of_several = task in ("multiclass", "next_item")
    per_output = 1 if is_one_of_several else n_outputs  # the loss is the mean over independent outputs
    loss = head.loss(logits, labels.double() if labels.is_floating_point() else labels, 0.0, None) * per_output
    (slope,) = torch.autograd.grad(loss.sum(), logits, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), logits)
    if task == "regression":  # half the squared error over its mean is the negative log-likelihood
        variance = (logits.detach()[:, 0] - labels).square().mean()
        torch.testing.assert_close(score, -slope / (2 * variance))
        torch.testing.assert_close(information, curvature / (2 * variance))
    elif is_one_of_several:
        torch.testing.assert_close(score, -slope)
        means = logits.detach().softmax(-1)
        torch.testing.assert_close(information, means)
    else:
        torch.testing.assert_close(score, -slope)
        torch.testing.assert_close(information, curvature)


@pytest.mark.parametrize("head", HEADS, ids=TASKS)
def test_every_head_names_metrics_and_plots_that_exist(head):
    assert set(head.with_levels((0.1, 0.9)).metrics(0.5)) >= set(head.metric_names)
    assert set(head.lower_is_better) | set(head.probability_metrics) <= set(head.metric_names)
    assert set(head.plots) <= set(PLOTS)
    assert head.default_metric in set(head.metric_names) - set(head.lower_is_better)


@pytest.mark.parametrize("head", HEADS, ids=TASKS)
def test_scores_of_a_row_have_the_shape_that_the_head_says(head):
    target = Target(task=head.task, classes=("a", "b")[: head.max_classes])
    shape = (target.n_outputs, 2) if head.answers_spans else (target.n_outputs,)
    scores = head.scores(torch.zeros(5, *shape), target)
    assert scores.shape == (5, *head.score_shape(len(target.classes)))


def test_importing_the_heads_imports_nothing_heavy():
    heavy = ("numpy", "torch", "pandas", "sklearn", "scipy")
    code = f"import sys, model.heads; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_baseline_of_many_classes_is_quick_and_does_not_run_wild():
    random = np.random.default_rng(0)
    centres = random.normal(size=(60, 8)) * 1.5
    y = random.permutation(np.repeat(np.arange(60), 20))
    inputs = centres[y] + random.normal(size=(len(y), 8))
    trees = boosted_classifier([False] * 8, y, 0)
    assert trees.max_iter * 60 <= MOST_TREES
    assert trees.set_params(max_iter=20).fit(inputs[:900], y[:900]).score(inputs[900:], y[900:]) > 0.25
    assert boosted_classifier([False] * 8, y % 3, 0).max_iter == 100
