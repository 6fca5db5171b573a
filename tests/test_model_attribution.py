"""Oracle: captum's integrated gradients; functions whose integral is known; what the network itself says of a row."""

import numpy as np
import pytest
import test_events
import test_image
import test_next_item
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from test_model_export import KINDS, TASKS, mixed, random_model

from model.features.fitted import Features
from model.features.kinds.base import missing_cells
from model.network.blend import DEEP, LINE, TREES, Shape
from model.network.network import Network
from model.network.store import connect_items
from model.scoring.attribution import attribute, integrated_gradients
from model.settings import NetworkSettings
from model.target import Target

PLAIN = {name: kind for name, kind in KINDS.items() if kind in ("category", "number", "time")}


def test_product_of_two_numbers_gives_each_a_half():
    found = integrated_gradients(
        lambda x: x[:, 0] * x[:, 1], torch.zeros(3), torch.tensor([3.0, 4.0, 5.0]), n_points=9, at_once=7
    )
    torch.testing.assert_close(found, torch.tensor([6.0, 6.0, 0.0]))


def test_integral_of_a_function_is_captums():
    random = torch.Generator().manual_seed(0)
    start, end = (torch.randn(2, 5, generator=random) for _ in range(2))
    weights = torch.randn(10, generator=random)

    def function(x):
        return (x.flatten(1) @ weights).tanh() + x[:, 1, 3].exp()

    of_captum = IntegratedGradients(function).attribute(end[None], start[None], n_steps=32, method="gausslegendre")
    torch.testing.assert_close(integrated_gradients(function, start, end, n_points=32, at_once=5), of_captum[0])


@pytest.mark.parametrize("task", TASKS)
def test_columns_of_the_transformer_are_captums(tmp_path, task, monkeypatch):
    monkeypatch.setattr("model.scoring.attribution.POINTS", (64,))
    network, features = random_model(tmp_path, task, PLAIN, n_layers=1)
    table = mixed(3, seed=5)
    read, blank = (
        network.batch_of(features.encode(each), np.arange(3))
        for each in (table, {name: missing_cells(kind, 3) for name, kind in PLAIN.items()})
    )
    names = list(read)
    layer = LayerIntegratedGradients(
        lambda *inputs: network.deep(dict(zip(names, inputs, strict=True))), network.embeddings.LayerNorm
    )
    for row, each in enumerate(attribute(network, features, table)):
        of_captum = layer.attribute(
            *(tuple(batch[name][row : row + 1] for name in names) for batch in (read, blank)),
            target=each.answer,
            n_steps=64,
            method="gausslegendre",
            attribute_to_layer_input=True,
        )
        np.testing.assert_allclose([*each.columns.values()], of_captum[0].sum(1)[1:].detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_parts_and_columns_add_up_to_the_difference_of_logits(tmp_path, task):
    windows = {"multiclass": 2, "multilabel": 3}.get(task, 1)
    network, features = random_model(tmp_path, task, KINDS, 100, windows, pooling="mean", n_layers=1)
    table = mixed(3, seed=5)
    for row, each in enumerate(attribute(network, features, table)):
        with torch.inference_mode():
            logits = network(network.batch_of(features.encode(table), np.arange(3)))[row]
        assert each.answer == int(logits.argmax())
        assert abs(each.gap) < 0.05, "the columns are the Transformer's part"
        assert set(each.parts) == {DEEP, "subwords", "context"}


def with_companion(task, kinds):
    """A network with a line, and a tree that asks one number; all but the subwords weigh a half."""
    table = {name: column for name, column in mixed(200).items() if name in kinds}
    features = Features.fit(kinds, table, None, task, max_tokens=24)
    target, sizes = Target(task=task, classes=TASKS[task]), NetworkSettings(d_model=16, n_layers=1, n_heads=2)
    shape = Shape(n_nodes=3, n_trees=1, depth=1)
    network = Network(sizes, features.sizes, target, seed=1, companion=shape)
    companion, random = network.companion, torch.Generator().manual_seed(0)
    companion.set_mix([0.5, 0.0, 0.5, 0.5])
    companion.line.load_state_dict(
        {name: torch.randn(each.shape, generator=random) for name, each in companion.line.state_dict().items()}
    )
    trees = companion.trees
    trees.left[0], trees.right[0], trees.threshold[0] = 1, 2, 0.0
    trees.missing_left[0], trees.feature[0] = True, companion.columns.n_categories
    trees.value.copy_(torch.tensor([0.0, -0.75, 1.5]))
    return network, features, table


def test_parts_with_line_and_trees_add_up_to_the_difference_to_a_blank_row():
    network, features, table = with_companion("binary", PLAIN)
    found = attribute(network, features, {name: column[:8] for name, column in table.items()})
    blank = {name: missing_cells(kind, 1) for name, kind in PLAIN.items()}
    with torch.inference_mode():
        rows, nothing = (
            network(network.batch_of(features.encode(each), np.arange(n))) for each, n in ((table, 8), (blank, 1))
        )
    np.testing.assert_allclose([sum(each.parts.values()) for each in found], (rows - nothing)[:, 0], atol=1e-4)
    assert {each.parts[TREES] for each in found} == {0.0, 0.5 * (1.5 + 0.75)}, "a tree counts as a whole"
    assert all(set(each.parts) == {DEEP, LINE, TREES} and set(each.columns) == set(PLAIN) for each in found)


def sequences():
    """Untrained networks of rows with a picture, with events, and with a list as answer."""
    settings = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=16)
    answers = Target(task="binary", classes=("0", "1"))
    items = Target(task="next_item", classes=tuple(test_next_item.ITEMS), history=("last_1", "last_2"), top=3)
    tables = (
        (test_image.a_table(40)[0], test_image.KINDS, answers),
        (test_events.a_table(40)[0], test_events.KINDS, answers),
        (test_next_item.visits(40, 0)[0], test_next_item.KINDS, items),
    )
    for table, kinds, target in tables:
        features = Features.fit({name: kinds[name] for name in table}, table, None, target.task, max_tokens=8)
        network = Network(settings, features.sizes, target, seed=1)
        if target.history:
            connect_items(network, features)
        yield network, features, table


def test_pictures_events_and_lists_are_explained_too():
    for network, features, table in sequences():
        for each in attribute(network, features, {name: column[:6] for name, column in table.items()}):
            assert set(each.columns) == set(table)
            assert abs(each.gap) < 0.01
            assert each.parts[DEEP] != 0
