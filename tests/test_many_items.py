"""Oracle: the loss with a logit for every item, its gradients by torch, and a training that was never interrupted."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from model.features.batches import batches
from model.features.fitted import Features
from model.features.kinds import CATEGORY
from model.heads import head_of
from model.heads.item_lists import MANY_ITEMS, MOST_SHARES, numbers_of
from model.network.network import Network
from model.network.store import connect_items, save_model
from model.scoring.export import export_onnx, parity
from model.scoring.scorer import Scorer, TorchScorer
from model.settings import NetworkSettings, TrainingSettings
from model.target import Target
from model.training.fit import LabelledRows
from model.training.train import train

HEAD = head_of("next_item")
KINDS = {"last_1": "category", "last_2": "category", "season": "category"}
SMALL = NetworkSettings(d_model=8, n_layers=1, n_heads=2, d_feedforward=16, dropout=0.0)
HISTORY = ("last_1", "last_2")


def rows_of(n_items, n_rows, seed):
    """In spring one goes back to where one was before the last time, else one stays; few items are had often."""
    random = np.random.default_rng(seed)
    names = np.array([f"item {number:06}" for number in range(n_items)], object)
    often = random.integers(n_items, size=(n_rows, 2)) ** 2 // n_items
    last = names[np.where(random.random((n_rows, 2)) < 0.5, often, np.arange(n_rows)[:, None] % n_items)]
    season = random.choice(np.array(["spring", "autumn"], object), n_rows)
    labels = np.where(season == "spring", last[:, 1], last[:, 0])
    return {"last_1": last[:, 0], "last_2": last[:, 1], "season": season}, labels


def network_of(table, labels, history=HISTORY):
    classes = HEAD.classes(set(labels))
    features = Features.fit(KINDS, table, None, "next_item", max_tokens=8, item_columns=HISTORY)
    network = Network(SMALL, features.sizes, Target(task="next_item", classes=classes, history=history, top=5))
    connect_items(network, features)
    return network, features, HEAD.label_array(labels, classes)


def small_head(history):
    """A head of 300 items, and what it reads of 40 rows."""
    table, labels = rows_of(300, 900, 0)
    network, features, y = network_of(table, labels, history)
    batch, labels = network.batch_of(features.encode(table), np.arange(40)), torch.from_numpy(y[:40])
    head = network.head
    with torch.no_grad():
        for weight in head.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(1))
    head.draw_by(torch.from_numpy(y))
    pooled = torch.randn(40, 8, generator=torch.Generator().manual_seed(2))
    vectors = torch.randn(features.fitted[CATEGORY].sizes[0] * 3, 8, generator=torch.Generator().manual_seed(3))
    return head, (pooled, batch["categories"], vectors.requires_grad_()), labels


def gradient(head, vectors, loss):
    wanted = [*head.parameters(), vectors]
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, wanted, materialize_grads=True)])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("history", [HISTORY, ()], ids=["history", "none"])
def test_drawn_items_have_the_gradient_of_all_on_average(history, smoothing, monkeypatch):
    head, read, labels = small_head(history)
    exact = gradient(head, read[2], cross_entropy(head(*read), labels, label_smoothing=smoothing))
    errors = []
    for n_drawn in (64, 4096):
        monkeypatch.setattr("model.network.heads.drawn_items.N_DRAWN", n_drawn)
        torch.manual_seed(4)
        losses = torch.stack([head.train().losses(*read, labels, smoothing).mean() for _ in range(24)])
        found = gradient(head, read[2], losses.mean())
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[1] < 0.03
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("history", [HISTORY, ()], ids=["history", "none"])
def test_loss_of_validation_rows_is_that_of_all_items(history, monkeypatch):
    monkeypatch.setattr("model.network.heads.item_head.PIECE_ITEMS", 70)
    head, read, labels = small_head(history)
    found = head.eval().losses(*read, labels, 0.0)
    torch.testing.assert_close(found, cross_entropy(head(*read), labels, reduction="none"), rtol=1e-4, atol=1e-5)


class Kept:
    """Checkpoints in memory; a training is killed once it has kept `until` of them."""

    every_seconds = 0.0

    def __init__(self, until):
        self.until, self.states = until, []

    def load_newest(self):
        return self.states[-1] if self.states else None

    def save(self, step, tensors, notes):
        copied = {name: tensor.clone() for name, tensor in tensors.items()}
        self.states.append((copied, {**notes, "history": [dict(entry) for entry in notes["history"]]}))
        if len(self.states) == self.until:
            raise KeyboardInterrupt

    def nested(self, name):
        raise AssertionError(name)


def test_killed_training_by_drawn_items_resumes_to_the_byte(monkeypatch):
    monkeypatch.setattr("model.target.MANY_ITEMS", 5)
    monkeypatch.setattr("model.network.heads.drawn_items.N_DRAWN", 16)
    table, labels = rows_of(30, 600, 0)

    def trained(checkpoints):
        network, features, y = network_of(table, labels)
        assert network.target.has_many_items
        rows = LabelledRows(features.encode(table), y)
        settings = TrainingSettings(epochs=1.5, batch_tokens=256, learning_rate=1e-2, keep="last")
        return train(network, features, rows, rows.take(np.arange(50)), settings, checkpoints=checkpoints)

    whole, history = trained(None)
    state = Kept(until=17)
    with pytest.raises(KeyboardInterrupt):
        trained(state)
    again, resumed = trained(state)
    assert resumed == history
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in whole.state_dict().items())


@pytest.mark.long
def test_sixty_thousand_items_are_learnt_exported_and_scored_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("model.network.heads.drawn_items.N_DRAWN", 512)
    n_items, n_rows = 60_000, 120_000
    table, labels = rows_of(n_items, n_rows, 0)
    table["last_1"][:n_items] = labels[:n_items] = sorted({f"item {number:06}" for number in range(n_items)})
    table["season"][:n_items] = "autumn"
    network, features, y = network_of(table, labels)
    assert network.target.has_many_items
    assert len(network.target.classes) == n_items
    assert len(features.fitted[CATEGORY].columns["last_1"]) > MANY_ITEMS / 2
    assert network.target.most_rows * n_items <= MOST_SHARES
    rows = LabelledRows(features.encode(table), y)
    settings = TrainingSettings(epochs=1, batch_tokens=8192, learning_rate=3e-2, keep="last")
    network, history = train(network, features, rows, rows.take(np.arange(n_rows - 300, n_rows)), settings)
    assert history[-1]["val_loss"] < 0.7 * np.log(n_items)
    save_model(tmp_path / "trained", network, features)
    export_onnx(tmp_path / "trained", tmp_path / "onnx")
    unseen, wanted = rows_of(n_items, 400, 1)
    scorer, most = Scorer(tmp_path / "onnx", n_threads=1), 0
    run = scorer.runner.run

    def counted(batch):
        nonlocal most
        most = max(most, len(batch["categories"]))
        return run(batch)

    monkeypatch.setattr(scorer.runner, "run", counted)
    lists = scorer.score(unseen)
    assert 1 < most <= MOST_SHARES // n_items
    assert lists.shape == (400, 5, 2)
    known = np.isin(wanted, features.fitted[CATEGORY].columns["last_1"])
    y_wanted = HEAD.label_array(wanted, scorer.classes)
    assert HEAD.metrics(0.5)["hit_rate"](y_wanted[known], lists[known]) > 0.8
    few = {name: column[:60] for name, column in unseen.items()}
    assert parity(tmp_path / "trained", tmp_path / "onnx", [few]) < 1e-4
    assert np.array_equal(numbers_of(TorchScorer(tmp_path / "trained").score(few))[:, 0], numbers_of(lists)[:60, 0])


def test_batch_has_as_many_rows_as_it_may():
    table, _ = rows_of(300, 900, 0)
    encoded = Features.fit(KINDS, table, None, "next_item", max_tokens=8).encode(table)
    cut = batches(encoded, 400, most_rows=7)
    assert {len(rows) for rows in cut} == {7, 900 % 7}
    assert np.array_equal(np.sort(np.concatenate(cut)), np.arange(900))
    assert len(batches(encoded, 400)) == 9


@pytest.mark.parametrize(("column", "n_known"), [("last_1", 60_000), ("season", 50_000)])
def test_items_that_two_rows_have_are_known_however_many(column, n_known):
    names = np.array([f"item {number % 60_000:06}" for number in range(120_000)], object)
    table = dict.fromkeys(KINDS, names)
    features = Features.fit(KINDS, table, None, "next_item", max_tokens=8, item_columns=HISTORY)
    assert len(features.fitted[CATEGORY].columns[column]) == n_known
