"""Oracle: metrics by loops over their definitions, a rule that made data follow, torch itself, counts by hand."""

import shutil
from datetime import date

import numpy as np
import pandas as pd
import pytest
import torch
from builders import a_product

from model.features.fitted import Features
from model.heads import head_of
from model.heads.item_lists import NONE, best, difference, joined, numbers_of, ranks, renumbered
from model.network.network import Network
from model.network.store import connect_items, load_model, save_model
from model.scoring.engines import OPENVINO, Engine, missing_requirement
from model.scoring.export import export_onnx, parity
from model.scoring.scorer import Scorer, TorchScorer
from model.settings import NetworkSettings, TrainingSettings
from model.target import Target
from model.training.fit import LabelledRows
from model.training.train import train
from tasks.predict import predict
from tasks.publication.night import part_name
from tasks.rows.partitions import partition, write_table
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths

HEAD = head_of("next_item")
KINDS = {"last_1": "category", "last_2": "category", "season": "category", "hidden": "category", "age": "number"}
SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=24, dropout=0.0)
ITEMS = np.array([f"item {number:02}" for number in range(8)], object)


def visits(n, seed):
    """In spring one comes back to where one was before the last time, else one goes on to the item after the last."""
    random = np.random.default_rng(seed)
    last = random.integers(8, size=(n, 2))
    season = random.choice(np.array(["spring", "autumn"], object), n)
    y = np.where(season == "spring", last[:, 1], (last[:, 0] + 1) % 8)
    table = {
        "last_1": ITEMS[last[:, 0]],
        "last_2": ITEMS[last[:, 1]],
        "season": season,
        "hidden": np.full(n, None, object),
        "age": random.normal(size=n),
    }
    return table, ITEMS[y]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("next_item")
    table, labels = visits(1000, 0)
    table["hidden"] = np.where(np.arange(1000) % 3 == 0, ITEMS[np.arange(1000) % 4], None)
    classes = HEAD.classes(set(labels))
    y = HEAD.label_array(labels, classes)
    features = Features.fit(KINDS, table, None, "next_item", max_tokens=8)
    target = Target(task="next_item", classes=classes, history=("last_1", "last_2"), exclude=("hidden",), top=5)
    network = Network(SMALL, features.sizes, target)
    connect_items(network, features)
    rows = LabelledRows(features.encode(table), y)
    held = LabelledRows(features.encode(visits(300, 1)[0]), HEAD.label_array(visits(300, 1)[1], classes))
    settings = TrainingSettings(epochs=8, batch_tokens=1536, learning_rate=2e-2, keep="last")
    network, _ = train(network, features, rows, held, settings)
    save_model(folder / "trained", network, features)
    export_onnx(folder / "trained", folder / "onnx")
    return folder


@pytest.mark.long
def test_network_learns_to_come_back_and_to_go_on(trained):
    table, labels = visits(500, 2)
    scorer = Scorer(trained / "onnx", n_threads=1)
    lists, y = scorer.score(table), HEAD.label_array(labels, scorer.classes)
    assert lists.shape == (500, 5, 2)
    assert HEAD.metrics(0.5)["hit_rate"](y, lists[:, :1]) > 0.8


def test_graph_returns_the_top_alone_and_scores_as_torch_does(trained):
    import onnx

    graph = onnx.load(trained / "onnx" / "network.onnx").graph
    assert [each.name for each in graph.output] == ["items", "scores"]
    assert "TopK" in {node.op_type for node in graph.node}
    table, _ = visits(200, 3)
    assert parity(trained / "trained", trained / "onnx", [table]) < 1e-4
    lists = TorchScorer(trained / "trained").score(table)
    assert (np.diff(lists[..., 1]) <= 0).all()
    assert (lists[..., 1].sum(1) <= 1 + 1e-5).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_engine_lists_the_same_items(trained, precision):
    engine = Engine(name=OPENVINO, precision=precision)
    if lacks := missing_requirement(engine):
        pytest.skip(lacks)
    table, _ = visits(200, 3)
    exact, other = (Scorer(trained / "onnx", n_threads=1, engine=each).score(table) for each in (None, engine))
    assert difference(exact, other) < (1e-4 if precision == "fp32" else 0.05)
    assert (numbers_of(other)[:, 0] == numbers_of(exact)[:, 0]).mean() > 0.95


def test_list_of_a_row_depends_on_no_row_beside_it(trained):
    table, _ = visits(64, 4)
    scorer = Scorer(trained / "onnx", n_threads=1)
    parts = [scorer.score({name: cells[i : i + 16] for name, cells in table.items()}) for i in range(0, 64, 16)]
    assert np.array_equal(np.concatenate(parts), scorer.score(table))


def test_excluded_item_is_in_no_list(trained):
    table, _ = visits(100, 5)
    scorer = TorchScorer(trained / "trained")
    before = scorer.score(table)
    names = np.array(scorer.classes, object)
    first = names[numbers_of(before)[:, 0]]
    after = scorer.score({**table, "hidden": first})
    known = np.isin(first, ITEMS[:4])  # what no training row excluded is no known word
    assert known.any()
    listed = names[numbers_of(after)]
    assert not (listed == first[:, None])[known].any()
    assert (numbers_of(after) != NONE).all()


def test_rows_without_history_with_new_items_or_new_words_get_a_full_list(trained):
    table, _ = visits(3, 6)
    table["last_1"] = np.array([None, "never seen", None], object)
    table["last_2"] = np.array([None, "never seen either", ITEMS[3]], object)
    lists = Scorer(trained / "onnx", n_threads=1).score(table)
    assert np.isfinite(lists).all()
    assert (numbers_of(lists) >= 0).all()


def test_all_items_excluded_leave_an_empty_list():
    target = Target(task="next_item", classes=("a", "b", "c"), top=2)
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, -torch.inf, -torch.inf], [-torch.inf] * 3])
    lists = HEAD.scores(logits, target).numpy()
    assert numbers_of(lists).tolist() == [[2, 1], [0, NONE], [NONE, NONE]]
    np.testing.assert_allclose(lists[1:, :, 1], [[1, 0], [0, 0]])
    night = HEAD.night_columns(lists, target.classes, 0.5)
    assert night["prediction"].tolist() == ["c", "a", None]
    assert [list(row) for row in night["items"]] == [["c", "b"], ["a"], []]
    found, classes = HEAD.scores_of_night(night)
    assert [[classes[i] for i in row if i >= 0] for row in numbers_of(found)] == [["c", "b"], ["a"], []]
    assert HEAD.night_score(night)[2] == 0


def test_network_without_history_has_vectors_of_its_own(tmp_path):
    table, labels = visits(50, 0)
    features = Features.fit({"season": "category"}, table, None, "next_item", max_tokens=8)
    network = Network(SMALL, features.sizes, Target(task="next_item", classes=HEAD.classes(set(labels))))
    connect_items(network, features)
    save_model(tmp_path, network.eval(), features)
    again, _ = load_model(tmp_path)
    batch = again.batch_of(features.encode(table), np.arange(5))
    assert torch.equal(again.scores(batch), network.scores(batch))
    assert again.scores(batch).shape == (5, 8, 2)


def test_metrics_are_their_definitions():
    random = np.random.default_rng(0)
    lists, y = best(random.random((200, 12)), 4, random), random.integers(-1, 14, size=200)
    found = {name: metric(y, lists) for name, metric in HEAD.metrics(0.5).items()}
    places = [
        list(row).index(label) if label >= 0 and label in row else None
        for label, row in zip(y, numbers_of(lists), strict=True)
    ]
    known = [place for place in places if place is not None]
    assert found["hit_rate"] == pytest.approx(len(known) / 200)
    assert found["ndcg"] == pytest.approx(sum(1 / np.log2(place + 2) for place in known) / 200)
    assert found["mrr"] == pytest.approx(sum(1 / (place + 1) for place in known) / 200)
    shown = {number for row in numbers_of(lists) for number in row}
    assert found["coverage"] == pytest.approx(np.mean([label in shown for label in set(y)]))


def test_equal_scores_are_listed_in_random_order_and_by_no_name():
    lists = best(np.zeros((4000, 20)), 5, np.random.default_rng(0))
    share = np.bincount(numbers_of(lists).ravel(), minlength=20) / 4000
    assert share.min() > 0.2
    assert share.max() < 0.3
    assert np.array_equal(lists, best(np.zeros((4000, 20)), 5, np.random.default_rng(0)))
    names = [f"{number:04}" for number in range(500)]
    assert abs(np.corrcoef(np.arange(500), [int(name) for name in HEAD.classes(names)])[0, 1]) < 0.15


def test_difference_of_lists_is_that_of_an_items_score():
    one = joined(np.array([[0, 1, 2]]), np.array([[0.5, 0.3, 0.2]]))
    swapped = joined(np.array([[0, 2, 1]]), np.array([[0.5, 0.25, 0.25]]))
    assert difference(one, swapped) == pytest.approx(0.05)
    assert difference(one, one) == 0
    other_item = joined(np.array([[0, 3, 2]]), np.array([[0.5, 0.4, 0.2]]))
    assert difference(one, other_item) == pytest.approx(0.2)


def test_lists_of_one_model_are_read_as_those_of_another():
    lists = joined(np.array([[1, 0], [2, NONE]]), np.full((2, 2), 0.5))
    again = renumbered(lists, ("a", "b", "c"), ("c", "a"))
    assert numbers_of(again).tolist() == [[NONE, 1], [0, NONE]]
    assert ranks(np.array([1, 0]), again).tolist() == [1, 0]


def test_night_of_lists_is_one_for_any_number_of_shards_and_pandas_reads_it(trained, tmp_path, monkeypatch):
    """The first pieces have no list of which a type could be read: their rows exclude nothing, and have no history."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.rows.partitions.ROWS_AT_ONCE", 7)
    (tmp_path / "constraints.txt").write_text("")
    paths = Paths("tiny")
    shutil.copytree(trained / "onnx", paths.onnx)
    table, _ = visits(30, 7)
    table["last_1"][:9] = table["last_2"][:9] = None
    rows = pd.DataFrame(table).assign(
        parcel_id=[f"p{number:02}" for number in range(30)], day=pd.Timestamp("2024-02-11")
    )
    write_table(partition(paths.valid / "rows", date(2024, 2, 11)), rows)
    write_json(
        paths.report("validation.json"),
        {"scored_day": {"rows_in": 30, "rows_valid": 30, "rows_quarantined": 0}},
    )
    nights = []
    for n_shards in (1, 3):
        product = a_product(
            columns=KINDS,
            expectations=[],
            predict={"horizon_days": 1, "shards": n_shards, "rows_per_shard": 1, "top": 5},
            target={"name": "late", "task": "next_item", "history": ["last_1", "last_2"], "exclude": ["hidden"]},
            gates={"metric": "ndcg", "limit": 0.1},
            split={"by": "time"},
        )
        predict(product, date(2024, 2, 10))
        parts = [pd.read_parquet(paths.predictions / part_name(number)) for number in range(n_shards)]
        nights.append(pd.concat(parts, ignore_index=True))
    pd.testing.assert_frame_equal(*nights, check_exact=False, atol=1e-6)
    night = nights[0]
    assert night["is_new"].tolist() == [True] * 9 + [False] * 21
    assert [items[0] for items in night["items"]] == night["prediction"].tolist()
    assert {len(items) for items in night["items"]} == {5}


def test_best_lists_are_those_of_sorting_every_score():
    random = np.random.default_rng(0)
    scores = np.round(random.random((300, 40)), 1)  # most are equal to another
    order = np.random.default_rng(1).random(scores.shape)
    place = np.lexsort((order, -scores), axis=1)
    for top in (1, 7, 40, 50):
        assert np.array_equal(numbers_of(best(scores, top, np.random.default_rng(1))), place[:, :top])
