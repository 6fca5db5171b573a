"""Oracle: toy data whose answer is known, and laws: same seed same bytes, best epoch kept, NaN refused."""

import numpy as np
import pytest
import torch

from model import training
from model.encoded import on_disk
from model.features import Features
from model.network import Network
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.store import save_model
from model.target import Target
from model.training import evaluate_loss, pretrain, train

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
        fresh(features), features, encoded, y, val, y_val, TrainingSettings(epochs=12, learning_rate=5e-3)
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
    _, history = train(network, features, encoded, y, encoded, y, TrainingSettings(epochs=6, learning_rate=5e-3))
    assert history[-1]["val_loss"] < 0.5 * history[0]["train_loss"]


def test_same_seed_gives_the_same_bytes(prepared, tmp_path):
    features, encoded, y = prepared
    for name in ("a", "b"):
        torch.rand(3)  # what else drew from torch's random state must not matter
        base, _ = pretrain(features, encoded, SMALL, PretrainingSettings(epochs=1))
        network = base.answering(Target(task="binary", classes=("no", "yes")), SMALL, seed=0)
        network, _ = train(network, features, encoded, y, encoded, y, QUICK)
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
        network = base.answering(Target(task="binary", classes=("no", "yes")), SMALL, seed=0)
        states.append(train(network, features, rows, y, rows, y, QUICK)[0].state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_another_seed_gives_other_weights(prepared):
    features, encoded, y = prepared
    first, second = (
        train(fresh(features), features, encoded, y, encoded, y, TrainingSettings(epochs=0.2, seed=seed))[
            0
        ].state_dict()
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
    settings = TrainingSettings(epochs=20, learning_rate=5e-3, patience_epochs=2)
    network, history = train(fresh(features), features, encoded, y, encoded, 1 - y, settings)
    losses = [epoch["val_loss"] for epoch in history]
    truth = torch.from_numpy((1 - y).astype(np.float32))
    assert evaluate_loss(network, encoded, truth, settings.batch_tokens) == pytest.approx(min(losses), rel=1e-4)
    assert len(losses) == losses.index(min(losses)) + 1 + settings.patience_epochs
    assert losses[-1] > min(losses)


def test_the_last_weights_are_kept_whatever_the_validation_rows_say(prepared):
    features, encoded, y = prepared
    settings = TrainingSettings(epochs=4, learning_rate=5e-3, patience_epochs=1, keep="last", calibrate=False)
    right, history = train(fresh(features), features, encoded, y, encoded, y, settings)
    wrong, opposed = train(fresh(features), features, encoded, y, encoded, 1 - y, settings)
    assert len(history) == len(opposed) == 4
    assert min(opposed, key=lambda entry: entry["val_loss"]) is not opposed[-1]
    assert all(torch.equal(weight, wrong.state_dict()[name]) for name, weight in right.state_dict().items())


def test_each_epoch_is_told_when_it_ends_and_what_the_listener_raises_ends_the_training(prepared):
    features, encoded, y = prepared
    heard = []

    def listen(entry):
        heard.append(entry)
        if len(heard) == 2:
            raise KeyError("enough")

    learning = TrainingSettings(epochs=3)
    with pytest.raises(KeyError, match="enough"):
        train(fresh(features), features, encoded, y, encoded, y, learning, listen)
    _, history = train(fresh(features), features, encoded, y, encoded, y, learning)
    assert heard == history[:2]


def test_fraction_of_an_epoch_is_a_fraction_of_its_steps(prepared):
    features, encoded, y = prepared
    _, history = train(fresh(features), features, encoded, y, encoded, y, TrainingSettings(epochs=1.5))
    assert [round(epoch["epoch"], 1) for epoch in history] == [1.0, 1.5]


def test_loss_that_is_not_finite_stops_training_with_a_remedy(prepared, monkeypatch):
    features, encoded, y = prepared
    monkeypatch.setattr(training, "_loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(
        FloatingPointError,
        match=r"the loss of train must stay finite, got nan at step 1 of .*; use a learning_rate below",
    ):
        train(fresh(features), features, encoded, y, encoded, y, QUICK)


def test_label_that_is_missing_is_refused(prepared):
    features, encoded, y = prepared
    with pytest.raises(ValueError, match="validation labels must be finite, got NaN"):
        train(fresh(features), features, encoded, y, encoded, np.where(y > 0, np.nan, 0.0), QUICK)


def test_rows_and_labels_must_be_as_many(prepared):
    features, encoded, y = prepared
    with pytest.raises(ValueError, match=r"training rows must be at least one .* got 400 rows and 399 labels"):
        train(fresh(features), features, encoded, y[1:], encoded, y, QUICK)


def test_network_for_other_features_is_refused(prepared):
    features, encoded, y = prepared
    other = Features.fit({"size": "number"}, toy()[0], None, "binary", max_tokens=8)
    with pytest.raises(ValueError, match="network must have a target and be built for the given features"):
        train(fresh(other), features, encoded, y, encoded, y, QUICK)
