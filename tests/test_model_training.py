"""Oracle: toy data whose answer is known, scikit-learn's class weights, the knobs' formulas written out; and laws."""

import copy
import functools
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_model_batches import rows_of

from model.features.batches import collate
from model.features.encoded import Sizes, on_disk
from model.features.fitted import Features
from model.network.network import Network
from model.network.store import save_model
from model.settings import PATIENT_STEPS, NetworkSettings, PretrainingSettings, TrainingSettings
from model.target import Target
from model.training import steps
from model.training.fit import LabelledRows
from model.training.inference import evaluate_loss
from model.training.loss import Loss, balanced_class_weights, recency_weights
from model.training.optimisation import Optimisation
from model.training.train import pretrain, train, train_again

NOTHING = Sizes(columns={"category": (2,)}, n_subwords=1, max_tokens=8)
SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=32, dropout=0.1)
KINDS = {"colour": "category", "size": "number", "note": "text"}
QUICK = TrainingSettings(epochs=2, learning_rate=3e-3)


def toy(n=400, seed=0):
    """Late when red or large, unless both: no single column tells."""
    random = np.random.default_rng(seed)
    colour = random.choice(np.array(["red", "green"], object), n)
    size = random.normal(size=n)
    note = random.choice(np.array(["all quiet", "some wind", None], object), n)
    return {"colour": colour, "size": size, "note": note}, ((colour == "red") ^ (size > 0)).astype(int)


@pytest.fixture(scope="module")
def prepared():
    table, y = toy()
    features = Features.fit(KINDS, table, y, "binary", max_tokens=8)
    return features, features.encode(table), y


def fresh(features, task="binary", classes=("no", "yes")):
    return Network(SMALL, features.sizes, Target(task=task, classes=classes), seed=0)


def test_training_learns_what_no_column_tells_alone(prepared):
    features, encoded, y = prepared
    table, y_val = toy(seed=1)
    val = features.encode(table)
    _, history = train(
        fresh(features),
        features,
        LabelledRows(encoded, y),
        LabelledRows(val, y_val),
        TrainingSettings(epochs=12, learning_rate=5e-3),
    )
    assert min(epoch["val_loss"] for epoch in history) < 0.25


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_training_learns_every_kind_of_target(prepared, task):
    features, encoded, _ = prepared
    table, _ = toy()
    red, size = (table["colour"] == "red").astype(int), table["size"]
    y = {
        "multiclass": red + (size > 0),
        "multilabel": np.stack([red, size > 0], axis=1).astype(float),
        "regression": 1000 + 50 * size,
    }[task]
    target = Target.fit(task, ("a", "b", "c") if task == "multiclass" else ("a", "b"), y)
    network = Network(SMALL, features.sizes, target, seed=0)
    _, history = train(
        network,
        features,
        LabelledRows(encoded, y),
        LabelledRows(encoded, y),
        TrainingSettings(epochs=6, learning_rate=5e-3),
    )
    assert history[-1]["val_loss"] < 0.5 * history[0]["train_loss"]


def test_same_seed_gives_the_same_bytes(prepared, tmp_path):
    features, encoded, y = prepared
    for name in ("a", "b"):
        torch.rand(3)  # what else drew from torch's random state must not matter
        base, _ = pretrain(features, encoded, SMALL, PretrainingSettings(epochs=1))
        network = base.with_head(Target(task="binary", classes=("no", "yes")), SMALL, seed=0)
        network, _ = train(network, features, LabelledRows(encoded, y), LabelledRows(encoded, y), QUICK)
        save_model(tmp_path / name, network, features)
    for file in ("network.safetensors", "network.json", "features.json", "tokenizer.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_rows_on_disk_give_the_bytes_that_rows_in_memory_give(prepared, tmp_path):
    features, encoded, y = prepared
    table, _ = toy()
    pieces = [{name: column[start : start + 90] for name, column in table.items()} for start in range(0, 400, 90)]
    states = []
    for rows in (encoded, on_disk(map(features.encode, pieces), tmp_path)):
        base, _ = pretrain(features, rows, SMALL, PretrainingSettings(epochs=0.5))
        network = base.with_head(Target(task="binary", classes=("no", "yes")), SMALL, seed=0)
        states.append(train(network, features, LabelledRows(rows, y), LabelledRows(rows, y), QUICK)[0].state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_another_seed_gives_other_weights(prepared):
    features, encoded, y = prepared
    first, second = (
        train(
            fresh(features),
            features,
            LabelledRows(encoded, y),
            LabelledRows(encoded, y),
            TrainingSettings(epochs=0.2, seed=seed),
        )[0].state_dict()
        for seed in (0, 1)
    )
    assert not torch.equal(first["head.out.weight"], second["head.out.weight"])


def test_pretraining_guesses_better_than_chance(prepared):
    features, _, _ = prepared
    random = np.random.default_rng(0)
    colour = random.choice(np.array(["red", "green"], object), 600)
    table = {
        "colour": colour,
        "size": (colour == "red") + random.normal(0, 0.1, 600),
        "note": np.full(600, "all quiet", object),
    }
    features = Features.fit(KINDS, table, None, "binary", max_tokens=8)
    settings = PretrainingSettings(epochs=8, learning_rate=5e-3)
    _, history = pretrain(features, features.encode(table), SMALL, settings)
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert history[0]["train_loss"] < 1.2


def test_early_stopping_returns_the_best_validation_weights(prepared):
    features, encoded, y = prepared
    # Validation labels turned round: the better the training, the worse the validation.
    settings = TrainingSettings(epochs=20, learning_rate=5e-3, patience_steps=40).for_rows(1)
    network, history = train(
        fresh(features), features, LabelledRows(encoded, y), LabelledRows(encoded, 1 - y), settings
    )
    losses = [epoch["val_loss"] for epoch in history]
    truth = torch.from_numpy((1 - y).astype(np.float32))
    kept = evaluate_loss(network, encoded, truth, settings.batch_tokens, doubts=True)
    assert kept == pytest.approx(min(losses), rel=1e-4)
    steps_per_epoch = len(steps.epoch_batches(encoded, settings, 0, 0))
    n_steps = [round(epoch["epoch"] * steps_per_epoch) for epoch in history]
    waited = [step - n_steps[losses.index(min(losses))] for step in n_steps]
    assert waited[-1] >= settings.patience_steps > waited[-2]
    assert losses[-1] > min(losses)


@pytest.mark.parametrize(("epochs", "waited_for"), [(2, 12.0), (40, 12.0), (80, 20.0)])
def test_long_training_is_not_ended_before_its_rate_falls(prepared, epochs, waited_for):
    features, encoded, _ = prepared
    plan = TrainingSettings(epochs=epochs).for_rows(1)
    optimisation = Optimisation(fresh(features), encoded, plan, "train")
    assert optimisation.steps_per_epoch * 12 < PATIENT_STEPS
    assert optimisation.patience_steps == waited_for * optimisation.steps_per_epoch


def test_the_last_weights_are_kept_whatever_the_validation_rows_say(prepared):
    features, encoded, y = prepared
    settings = TrainingSettings(epochs=4, learning_rate=5e-3, keep="last", calibrate=False)
    right, history = train(fresh(features), features, LabelledRows(encoded, y), LabelledRows(encoded, y), settings)
    wrong, opposed = train(fresh(features), features, LabelledRows(encoded, y), LabelledRows(encoded, 1 - y), settings)
    assert len(history) == len(opposed) == 4
    assert min(opposed, key=lambda entry: entry["val_loss"]) is not opposed[-1]
    assert all(torch.equal(weight, wrong.state_dict()[name]) for name, weight in right.state_dict().items())


@pytest.mark.long
@pytest.mark.parametrize("n_later_days", [None, 5])
def test_second_training_learns_from_all_rows_and_keeps_what_unseen_ones_showed(n_later_days):
    (table, y), (held, y_held) = toy(), toy(120, seed=1)
    features = Features.fit(KINDS, table, y, "binary", max_tokens=8, wide_tokens=16)
    part, unseen = features.encode(table), features.encode(held)
    both = features.encode({name: np.concatenate([table[name], held[name]]) for name in table})
    y_both, validation = np.concatenate([y, y_held]), (unseen, 1 - y_held)  # which alone says: the opposite
    settings = TrainingSettings(epochs=4, learning_rate=5e-3, keep="last", label_smoothing=0.1)
    target, sizes = Target(task="binary", classes=("no", "yes")), replace(SMALL, wide_tokens=16)
    start = functools.partial(Network, sizes, features.sizes, target, seed=0)
    first, _ = train(
        start(), features, LabelledRows(part, y), LabelledRows(*validation, n_later_days=n_later_days), settings
    )
    again, _ = train_again(first, start(), features, LabelledRows(both, y_both), settings, n_later_days=n_later_days)
    plain, _ = train(start(), features, LabelledRows(both, y_both), LabelledRows(*validation), settings, refit=False)
    weights, wanted = again.state_dict(), plain.state_dict()
    assert torch.equal(weights.pop("wide.mix"), first.wide.mix)
    assert not torch.equal(wanted.pop("wide.mix"), first.wide.mix)
    assert all(torch.equal(weight, weights[name]) for name, weight in wanted.items())
    assert again.target.scale == first.target.scale
    assert first.target.offset != (0.0,)
    assert again.target.offset == (first.target.offset if n_later_days is None else (0.0,))


def test_listener_hears_each_epoch_and_ends_the_training_by_raising(prepared):
    features, encoded, y = prepared
    heard = []

    def listen(entry):
        heard.append(entry)
        if len(heard) == 2:
            raise KeyError("enough")

    learning = TrainingSettings(epochs=3)
    with pytest.raises(KeyError, match="enough"):
        train(fresh(features), features, LabelledRows(encoded, y), LabelledRows(encoded, y), learning, on_epoch=listen)
    _, history = train(fresh(features), features, LabelledRows(encoded, y), LabelledRows(encoded, y), learning)
    assert heard == history[:2]


def test_fraction_of_an_epoch_is_a_fraction_of_its_steps(prepared):
    features, encoded, y = prepared
    _, history = train(
        fresh(features), features, LabelledRows(encoded, y), LabelledRows(encoded, y), TrainingSettings(epochs=1.5)
    )
    assert [round(epoch["epoch"], 1) for epoch in history] == [1.0, 1.5]


def test_loss_that_is_not_finite_stops_training_with_a_remedy(prepared, monkeypatch):
    features, encoded, y = prepared
    monkeypatch.setattr(Loss, "__call__", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(
        FloatingPointError,
        match=r"the loss of train must stay finite, got nan at step 1 of .*; use a learning_rate below",
    ):
        train(fresh(features), features, LabelledRows(encoded, y), LabelledRows(encoded, y), QUICK)


def test_label_that_is_missing_is_refused(prepared):
    features, encoded, y = prepared
    with pytest.raises(ValueError, match="validation labels must be finite, got NaN"):
        train(
            fresh(features),
            features,
            LabelledRows(encoded, y),
            LabelledRows(encoded, np.where(y > 0, np.nan, 0.0)),
            QUICK,
        )


def test_rows_and_labels_must_be_as_many(prepared):
    features, encoded, y = prepared
    with pytest.raises(ValueError, match=r"training rows must be at least one .* got 400 rows and 399 labels"):
        train(fresh(features), features, LabelledRows(encoded, y[1:]), LabelledRows(encoded, y), QUICK)


def test_network_for_other_features_is_refused(prepared):
    features, encoded, y = prepared
    other = Features.fit({"size": "number"}, toy()[0], None, "binary", max_tokens=8)
    with pytest.raises(ValueError, match="network must have a target and be built for the given features"):
        train(fresh(other), features, LabelledRows(encoded, y), LabelledRows(encoded, y), QUICK)


def linear_steps(settings, loss=None):
    """Three steps of a linear map; returns its first weights, it, its weights after each step, and the steps."""
    torch.manual_seed(0)
    model, seen = torch.nn.Linear(3, 2), []
    before = {name: weight.detach().clone() for name, weight in model.state_dict().items()}

    def recorded(rows):
        seen.append(model.weight.detach().clone())
        return loss(model) if loss else model.weight.sum() * 0 + model.bias.sum() * 0

    optimisation = Optimisation(model, rows_of(np.full(64, 5)), settings.for_rows(1), "test")
    optimisation.n_steps = 3
    optimisation.run(recorded, lambda: 0.0)
    return before, model, [*seen[1:], model.weight.detach()], optimisation


def test_weight_decay_and_l1_shrink_matrices_and_nothing_else():
    rates = [1.0, 1.0, 0.5]  # of the peak: warmed up after one step, then down in a line
    for settings, law in (
        (TrainingSettings(weight_decay=0.3, learning_rate=0.1), lambda w, rate: w * (1 - rate * 0.3)),
        (
            TrainingSettings(weight_decay=0.0, l1=0.8, learning_rate=0.1),
            lambda w, rate: w.sign() * (w.abs() - rate * 0.8).clamp(min=0),
        ),
    ):
        before, model, _, _ = linear_steps(settings)
        expected = before["weight"]
        for share in rates:
            expected = law(expected, 0.1 * share)
        assert torch.allclose(model.weight, expected, atol=1e-6)
        assert torch.equal(model.bias, before["bias"])
    assert (model.weight == 0).any(), "L1 must make zeros, not small numbers"


def test_average_follows_the_weights_and_is_what_is_validated_and_kept():
    settings = TrainingSettings(ema_decay=0.2, learning_rate=0.1)
    before, model, after, optimisation = linear_steps(settings, lambda model: model(torch.ones(3)).square().sum())
    average = before["weight"]
    for step, weights in enumerate(after, start=1):
        decay = min(0.2, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights
    assert torch.allclose(optimisation.best["weight"], average, atol=1e-6)
    assert not torch.allclose(model.weight, average, atol=1e-4)


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    y = np.random.default_rng(0).choice(3, 200, p=[0.7, 0.25, 0.05])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    multiclass = balanced_class_weights(Target(task="multiclass", classes=("a", "b", "c")), torch.from_numpy(y))
    assert multiclass.numpy() == pytest.approx(expected)
    labels = (y[:, None] == np.arange(2)).astype(np.float32)
    multilabel = balanced_class_weights(Target(task="multilabel", classes=("a", "b")), torch.from_numpy(labels))
    for label in range(2):
        expected = compute_class_weight("balanced", classes=np.arange(2), y=labels[:, label].astype(int))
        assert multilabel[:, label].numpy() == pytest.approx(expected)
    assert balanced_class_weights(Target(task="regression"), torch.zeros(3)) is None


@pytest.mark.parametrize(
    ("task", "smoothing", "weighted"), itertools.product(("binary", "multiclass"), (0, 0.2), (0, 1))
)
def test_loss_is_cross_entropy_with_smoothed_targets_and_class_weights(task, smoothing, weighted):
    classes = ("a", "b", "c") if task == "multiclass" else ("no", "yes")
    logits = torch.tensor([[0.3, -1.0, 0.8], [2.0, 0.1, -0.4]])
    truth = torch.tensor([2, 0])
    weights = torch.tensor([0.5, 1.0, 3.0]) if weighted else torch.ones(3)
    if task == "multiclass":
        # As torch does it: each class's share of the target is weighed with that class's weight.
        shares = torch.nn.functional.one_hot(truth, 3) * (1 - smoothing) + smoothing / 3
        expected = -(weights * shares * logits.log_softmax(1)).sum()
        given = weights
    else:
        logits, truth = logits[:, :1], torch.tensor([1.0, 0.0])
        shares = truth[:, None] * (1 - smoothing) + smoothing / 2
        p = logits.sigmoid()
        each = -(shares * p.log() + (1 - shares) * (1 - p).log())
        given = weights[:2, None]
        expected = (each * torch.where(truth[:, None] > 0, given[1], given[0])).sum()
    loss = Loss(
        target=Target(task=task, classes=classes), smoothing=smoothing, class_weights=given if weighted else None
    )
    assert float(loss(logits, truth)) == pytest.approx(float(expected), rel=1e-5)


def test_balanced_training_answers_as_if_classes_were_as_frequent(prepared):
    features, _, _ = prepared
    table = {"colour": np.full(400, "red", object), "size": np.zeros(400), "note": np.full(400, None, object)}
    encoded, y = features.encode(table), (np.arange(400) % 5 == 0).astype(int)  # no column tells which
    shares = {}
    for weights in ("none", "balanced"):
        settings = TrainingSettings(epochs=2, learning_rate=3e-3, class_weights=weights, calibrate=False)
        network, _ = train(fresh(features), features, LabelledRows(encoded, y), LabelledRows(encoded, y), settings)
        batch = collate(encoded, np.arange(len(encoded)), features.sizes.pad_id)
        with torch.no_grad():
            scores = network.scores({name: torch.from_numpy(column) for name, column in batch.items()})
        shares[weights] = float(scores.mean())
    assert shares["none"] == pytest.approx(0.2, abs=0.1)
    assert shares["balanced"] == pytest.approx(0.5, abs=0.1)


def test_rows_weigh_half_for_every_half_life_and_one_in_the_mean():
    weights = recency_weights(np.array([0.0, 20, 40, 60]), 20)
    assert (weights[0] / weights).tolist() == pytest.approx([1, 2, 4, 8])
    assert float(weights.mean()) == pytest.approx(1)
    assert recency_weights(np.zeros(3), 0) is None
    with pytest.raises(ValueError, match="age_days must be given for half_life_days"):
        recency_weights(None, 20)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_loss_counts_a_row_as_often_as_it_weighs(task):
    n_outputs = 1 if task in ("binary", "regression") else 3
    classes = () if task == "regression" else ("a", "b", "c")[: max(2, n_outputs)]
    loss = Loss(target=Target(task=task, classes=classes), smoothing=0.1)
    logits = torch.randn(4, n_outputs)
    truth = {
        "binary": torch.tensor([1.0, 0, 0, 1]),
        "multiclass": torch.tensor([2, 0, 1, 1]),
        "multilabel": torch.eye(4)[:, :3],
        "regression": torch.randn(4),
    }[task]
    repeated = loss(logits[[1, 2, 3, 3, 3]], truth[[1, 2, 3, 3, 3]])
    weighed = loss(logits, truth, torch.tensor([0.0, 1, 1, 3]))
    assert float(weighed) == pytest.approx(float(repeated), rel=1e-5)


def test_training_follows_the_newest_rows_where_old_ones_fade(prepared):
    features, _, _ = prepared
    table = {"colour": np.full(400, "red", object), "size": np.zeros(400), "note": np.full(400, None, object)}
    encoded, y = features.encode(table), np.repeat([1, 0], 200)  # what was always so is never so any more
    age_days = np.repeat([30.0, 0.0], 200)
    shares = {}
    for half_life in (0, 10):
        settings = TrainingSettings(epochs=2, learning_rate=3e-3, half_life_days=half_life, calibrate=False)
        network, _ = train(
            fresh(features), features, LabelledRows(encoded, y, age_days=age_days), LabelledRows(encoded, y), settings
        )
        batch = collate(encoded, np.arange(len(encoded)), features.sizes.pad_id)
        with torch.no_grad():
            scores = network.scores({name: torch.from_numpy(column) for name, column in batch.items()})
        shares[half_life] = float(scores.mean())
    assert shares[0] == pytest.approx(1 / 2, abs=0.1)
    assert shares[10] == pytest.approx(1 / 9, abs=0.1)


def test_epochs_are_told_as_they_end(prepared):
    features, encoded, y = prepared
    told = []
    _, history = train(
        fresh(features), features, LabelledRows(encoded, y), LabelledRows(encoded, y), QUICK, on_epoch=told.append
    )
    assert told == history


class Interrupted(Exception):
    pass


class InMemory:
    """Checkpoints after every step; raises after one of them, as if the process ended there."""

    every_seconds = 0.0

    def __init__(self, last=None, kept=None):
        self.last, self.kept, self.n_saved = last, kept, 0

    def load_newest(self):
        return self.kept

    def save(self, step, tensors, notes):
        self.kept = {name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(notes))
        self.n_saved += 1
        if self.n_saved == self.last:
            raise Interrupted


def test_training_stopped_after_any_checkpoint_goes_on_to_the_same_weights(prepared, monkeypatch):
    features, encoded, y = prepared
    monkeypatch.setattr(steps, "MIN_STEPS_PER_EPOCH", 3)
    settings = TrainingSettings(epochs=2.5, learning_rate=3e-3, ema_decay=0.5)

    def trained(checkpoints):
        network, history = train(
            fresh(features),
            features,
            LabelledRows(encoded, y),
            LabelledRows(encoded, y),
            settings,
            checkpoints=checkpoints,
        )
        return network.state_dict(), history

    whole = InMemory()
    expected, history = trained(whole)
    assert whole.n_saved > 5
    for last in range(1, whole.n_saved + 1):
        stopped = InMemory(last)
        with pytest.raises(Interrupted):
            trained(stopped)
        weights, again = trained(InMemory(kept=stopped.kept))
        assert again == history
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_budget_of_time_takes_the_steps_of_a_training_that_declares_them(prepared, capsys):
    features, encoded, y = prepared
    rows, planned = LabelledRows(encoded, y), []
    hurried, history = train(
        fresh(features), features, rows, rows, QUICK, seconds=1e-6, on_planned=planned.append, checkpoints=InMemory()
    )
    assert history[-1]["epoch"] == planned[0] < QUICK.epochs
    assert "steps fit into 0.0 minutes, which are" in capsys.readouterr().out
    declared, again = train(fresh(features), features, rows, rows, replace(QUICK, epochs=planned[0]))
    assert again == history
    assert all(torch.equal(weight, hurried.state_dict()[name]) for name, weight in declared.state_dict().items())


def test_budget_that_is_ample_changes_nothing(prepared):
    features, encoded, y = prepared
    rows = LabelledRows(encoded, y)
    (ample, history), (free, without) = (
        train(fresh(features), features, rows, rows, QUICK, seconds=seconds) for seconds in (1e6, None)
    )
    assert history == without
    assert all(torch.equal(weight, ample.state_dict()[name]) for name, weight in free.state_dict().items())


def test_steps_that_a_clock_decided_are_kept_by_a_training_that_resumes(prepared, monkeypatch):
    features, encoded, y = prepared
    monkeypatch.setattr(steps, "MIN_STEPS_PER_EPOCH", 3)
    rows, planned, stopped = LabelledRows(encoded, y), [], InMemory(1)
    ticks = itertools.count(0.0, 1.0)  # each look at the clock is a second later
    monkeypatch.setattr(steps.time, "perf_counter", lambda: next(ticks))

    def trained(checkpoints, seconds):
        return train(
            fresh(features), features, rows, rows, QUICK, seconds=seconds, on_planned=planned.append,
            checkpoints=checkpoints,
        )  # fmt: skip

    expected, history = trained(None, 12.5)
    with pytest.raises(Interrupted):
        trained(stopped, 12.5)
    resumed, again = trained(InMemory(kept=stopped.kept), 1e9)  # by then the machine is idle
    assert again == history
    assert 0 < planned[0] == planned[-1] < QUICK.epochs
    assert all(torch.equal(weight, resumed.state_dict()[name]) for name, weight in expected.state_dict().items())


def test_length_that_is_left_open_is_the_one_of_least_validation_loss(prepared):
    features, encoded, y = prepared
    rows, planned = LabelledRows(encoded, y), []
    table, y_val = toy(seed=1)
    for labels, longest in ((y_val, True), (1 - y_val, False)):  # turned round, the shortest training does least harm
        validation = LabelledRows(features.encode(table), labels)
        settings = TrainingSettings(learning_rate=3e-3).for_rows(10**6)  # 2 epochs, and no others
        settings = replace(settings, epochs=3.0, lengths=(0.1, 1.0))
        chosen, history = train(fresh(features), features, rows, validation, settings, on_planned=planned.append)
        assert (planned[-1] > 2) == longest
        declared = TrainingSettings(epochs=planned[-1], learning_rate=3e-3)
        alone, again = train(fresh(features), features, rows, validation, declared)
        assert again == history
        assert all(torch.equal(weight, chosen.state_dict()[name]) for name, weight in alone.state_dict().items())


def test_validation_loss_of_few_rows_without_a_mistake_does_not_reward_certainty(prepared):
    features, encoded, y = prepared
    network, _ = train(fresh(features), features, LabelledRows(encoded, y), LabelledRows(encoded, y), QUICK)
    right = np.flatnonzero((network.eval()(network.batch_of(encoded, np.arange(len(y))))[:, 0] > 0).numpy() == y)[:18]
    table, _ = toy()
    few = features.encode({name: column[right] for name, column in table.items()})
    labels = torch.from_numpy(y[right].astype(np.float32))
    losses = {}
    for doubts in (False, True):
        for size in (1, 100):
            surer = copy.deepcopy(network)
            surer.head.out.weight.data *= size
            surer.head.out.bias.data *= size
            losses[doubts, size] = evaluate_loss(surer, few, labels, 4096, doubts=doubts)
    assert losses[False, 100] < losses[False, 1]
    assert losses[True, 100] > losses[True, 1]
