"""Oracle: scikit-learn's own predictions of the trees and lines; a model without a companion; scores of rows alone."""

import json

import numpy as np
import onnx
import pytest
import torch

from model.features.fitted import Features
from model.heads import head_of
from model.network.blend import DEEP, LINE, PARTS, TREES, Shape
from model.network.companion import Companion, Trees
from model.network.network import Network
from model.network.store import load_model, save_model
from model.scoring.engines import Engine, missing_requirement
from model.scoring.export import export_onnx, parity
from model.scoring.scorer import WHOLE, Scorer, TorchScorer
from model.scoring.trees import OPERATOR, take_out
from model.settings import NetworkSettings, TrainingSettings
from model.target import Target
from model.training.blending import fit_blend, likelihood
from model.training.boosting import as_arrays, choose_mean, fit_trees, growths
from model.training.closed_forms.line import fit_line
from model.training.columns import N_PIECES, rows_of
from model.training.companion import fit_companion, fold_numbers
from model.training.fit import LabelledRows
from model.training.loss import loss_labels
from model.training.train import train, train_again, train_by_folds

KINDS = {"shop": "category", "price": "number", "weight": "number", "note": "text", "when": "time"}
SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=16, dropout=0.0, max_tokens=8, wide_tokens=16)
QUICK = TrainingSettings(epochs=1.0, batch_tokens=512)
TASKS = ("binary", "multiclass", "multilabel", "regression")


@pytest.fixture(scope="module", autouse=True)
def few_rounds():
    """Trees of few rounds, which are as much trees as those of many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.training.boosting.ROUNDS", (20, 40))
        yield


def a_table(n=240, seed=0):
    """Rows whose label hangs on a shop, and on two numbers together, as a step: what trees see at once."""
    random = np.random.default_rng(seed)
    price, weight = random.normal(size=(2, n))
    shop = random.choice(["a", "b", "c"], n).astype(object)
    price[:5] = np.nan
    table = {
        "shop": np.where(random.random(n) < 0.05, None, shop),
        "price": price,
        "weight": weight,
        "note": random.choice(["red box", "blue box on top", "green"], n).astype(object),
        "when": np.datetime64("2024-01-01", "s") + (random.random(n) * 1e8).astype("timedelta64[s]"),
    }
    level = 2.0 * (np.nan_to_num(price) > 0) * (weight > 0.3) + (shop == "a")
    return table, level


def labels(task, level):
    """The level as labels of a task, with their classes."""
    match task:
        case "binary":
            return (level > 0.5).astype(np.int64), ("0", "1")
        case "multiclass":
            return level.astype(np.int64), ("0", "1", "2", "3")
        case "multilabel":
            return np.stack([level > 0.5, level > 1.5, level < 9], axis=1).astype(np.float32), ("x", "y", "z")
    return level * 40 + 300, ()


def trained(task, kinds=KINDS, companion=True, n_later_days=None):
    """A network of the task, trained on the table, with its features and the table; the last rows are unseen."""
    table, level = a_table()
    table = {name: table[name] for name in kinds}
    y, classes = labels(task, level)
    sizes = SMALL if "text" in kinds.values() else NetworkSettings(**{**vars(SMALL), "wide_tokens": 0})
    features = Features.fit(kinds, table, None, task, max_tokens=8, wide_tokens=sizes.wide_tokens)
    network = Network(sizes, features.sizes, Target.fit(task, classes, y), seed=0)
    parts = [{name: column[at] for name, column in table.items()} for at in (slice(180), slice(180, None))]
    rows, unseen = (
        LabelledRows(features.encode(part), y[at], n_later_days=days)
        for part, at, days in zip(parts, (slice(180), slice(180, None)), (None, n_later_days), strict=True)
    )
    return train(network, features, rows, unseen, QUICK, companion=companion)[0], features, table, y


@pytest.fixture(scope="module", params=["multilabel", "regression"])
def exported(request, tmp_path_factory):
    """A folder with a trained model whose parts all have a weight, its export beside it, and the table."""
    folder = tmp_path_factory.mktemp(request.param)
    network, features, table, _ = trained(request.param)
    network.companion.set_mix([0.25, 0.25, 0.25, 0.25])
    save_model(folder / "trained", network, features)
    export_onnx(folder / "trained", folder / "onnx")
    return folder, table


def test_what_rises_in_the_rows_that_join_is_known_of_their_newest():
    random, number = np.random.default_rng(0), np.repeat(np.arange(100), 4)
    when, y = (np.datetime64("1920") + number).astype("datetime64[s]"), 300 + 5.0 * np.maximum(0, number - 80)
    y, cut = y + random.normal(size=400), (slice(320), slice(320, None))
    parts = [{"when": when[at]} for at in cut]
    ends = {"when": when[[325, 399]]}
    said = {}
    for end, joining in {"last": (), "newest": parts[1:]}.items():
        features = Features.fit({"when": "time"}, parts[0], None, "regression", max_tokens=8, joining=joining)
        network = Network(SMALL, features.sizes, Target.fit("regression", (), y[:320]), seed=0)
        rows, later = (
            LabelledRows(features.encode(part), y[at], n_later_days=20) for part, at in zip(parts, cut, strict=True)
        )
        network, _ = train(network, features, rows, later, QUICK, companion=True)
        network.companion.set_mix([0.0, 0.0, 0.5, 0.5])
        said[end] = network.scores(network.batch_of(features.encode(ends), np.arange(2))).detach().numpy()
    assert np.ptp(said["last"]) < 5
    assert said["newest"][1] > said["newest"][0] + 30


@pytest.mark.parametrize("task", TASKS)
def test_trees_as_arrays_say_what_the_library_says(task):
    _, level = a_table()
    random = np.random.default_rng(1)
    inputs = np.c_[level, random.normal(size=(240, 3))].astype(np.float32)
    inputs[random.random(inputs.shape) < 0.1] = np.nan
    y, classes = labels(task, level)
    n_outputs = head_of(task).n_outputs(len(classes))
    boosted = fit_trees(head_of(task), inputs, y, n_outputs, 30, None, 0, growths(240, 4)[0])
    arrays = as_arrays([boosted])
    model = boosted.models[0]
    expected = model.predict(inputs) if task == "regression" else model.decision_function(inputs)
    answers = boosted.raw(inputs)
    np.testing.assert_allclose(answers[:, : expected.reshape(240, -1).shape[1]], expected.reshape(240, -1))
    trees = Trees(type("Shape", (), vars(arrays)), n_outputs)
    trees.load_state_dict(arrays.tensors)
    found = (trees(torch.from_numpy(inputs)) + trees.base).numpy()
    np.testing.assert_allclose(found, answers, atol=2e-5 * max(1, np.abs(answers).max()))
    # On a grid of a power of two: in any order the sum is the same.
    leaves = arrays.tensors["value"].numpy()
    forwards, backwards = np.float32(0), np.float32(0)
    for value in leaves[:200]:
        forwards += value
    for value in leaves[:200][::-1]:
        backwards += value
    assert forwards == backwards


def test_growths_are_kept_whose_mean_errs_least():
    random = np.random.default_rng(0)
    truth = random.normal(size=400)
    good, other = (truth + random.normal(size=400) for _ in range(2))
    forests = [
        (20, [good[:200], good[200:]]),
        (35, [truth[:200] * 3, truth[200:] * 3]),
        (50, [other[:200], other[200:]]),
    ]
    n_rounds, mean = choose_mean(forests, lambda parts: float(((np.concatenate(parts) - truth) ** 2).sum()))
    assert n_rounds == (20, 0, 50)
    np.testing.assert_allclose(np.concatenate(mean), (good + other) / 2)


def test_mean_of_forests_is_one_sum_of_trees():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(200, 4)).astype(np.float32)
    y = inputs[:, 0] + (inputs[:, 1] > 0)
    forests = [
        fit_trees(head_of("regression"), inputs, y, 1, 5 + at, None, 0, growth)
        for at, growth in enumerate(growths(*inputs.shape))
    ]
    arrays = as_arrays(forests)
    trees = Trees(type("Shape", (), vars(arrays)), 1)
    trees.load_state_dict(arrays.tensors)
    found = (trees(torch.from_numpy(inputs)) + trees.base).numpy()
    np.testing.assert_allclose(found, np.mean([forest.raw(inputs) for forest in forests], axis=0), atol=1e-5)


def line_of(y, strengths=None):
    """What a companion's line says of the numbers that it was fitted to, with the companion; of chosen strengths."""
    table = {name: a_table()[0][name] for name in ("price", "weight")}
    features = Features.fit(dict.fromkeys(table, "number"), table, None, "regression", max_tokens=8)
    network, encoded = Network(SMALL, features.sizes, Target.fit("regression", (), y), seed=0), features.encode(table)
    rows = rows_of([encoded], None, loss_labels(network.target, y), None)
    if strengths:
        shape = Shape(n_rounds=(20,), strengths=strengths, n_pieces=N_PIECES)
        network.companion = Companion(features.sizes, 1, shape, reads_text=False)
    fit_companion(network, rows, None, 0)
    return network.companion.line_logits(rows.batch, None)[:, 0].numpy(), network.companion


def test_line_draws_a_curve_where_unseen_rows_have_one(monkeypatch):
    price = np.nan_to_num(a_table()[0]["price"])
    y = np.abs(price) * 40 + 300
    found, companion = line_of(y)
    assert companion.shape.n_pieces == N_PIECES
    assert np.corrcoef(found, y)[0, 1] > 0.98
    monkeypatch.setattr("model.training.companion.MAX_CURVED", 2 * len(y) * N_PIECES - 1)
    straight, companion = line_of(y)
    assert companion.shape.n_pieces == 0
    assert len(companion.shape.strengths) == 1
    assert np.corrcoef(straight, y)[0, 1] < 0.5


@pytest.mark.long
def test_small_trees_are_left_out_of_many_rows_and_the_others_keep_their_place(monkeypatch):
    table, _ = a_table()
    y = np.sin(np.nan_to_num(table["price"])) * 40 + np.nan_to_num(table["weight"]) * 40
    monkeypatch.setattr("model.training.boosting.ROUNDS", (160,))
    _, of_few = line_of(y)
    assert of_few.shape.n_rounds[1] > 0, "small trees are of use here"
    monkeypatch.setattr("model.training.boosting.FEW_ROWS", len(y) - 1)
    monkeypatch.setattr("model.training.boosting.MANY_LABELS", len(y) - 1)
    _, of_many = line_of(y)
    first, small, large = of_many.shape.n_rounds
    assert (small, first + large > 0) == (0, True)
    assert of_many.shape.grown_for == len(y), "its folds are few rows, and their trees those of many"
    assert len(of_many.trees.roots) == first + large, "a tree of each round"


def test_mean_of_two_lines_is_one_line():
    y = a_table()[1] * 40 + 300
    (plain, _), (curved, _), (mean, _) = (line_of(y, strengths) for strengths in ((3.0, 0.0), (0.0, 1.0), (3.0, 1.0)))
    assert np.abs(plain - curved).max() > 0.05
    np.testing.assert_allclose(mean, (plain + curved) / 2, atol=1e-5)


def test_shape_of_a_model_from_before_there_were_pieces_is_read():
    described = {**Shape(n_rounds=(7,), parts=(LINE,)).to_json(), "n_rounds": 7, "strength": 0.3}
    del described["strengths"], described["n_pieces"]
    assert Shape.of(described) == Shape(n_rounds=(7,), strengths=(0.3,), parts=(LINE,))


def test_threshold_between_two_numbers_of_single_precision_parts_them():
    low = np.float32(1.0)
    high = np.nextafter(low, np.float32(2))
    inputs = np.repeat(np.array([[low], [high]], np.float32), 40, axis=0)
    y = np.repeat([0.0, 1.0], 40)
    arrays = as_arrays([fit_trees(head_of("regression"), inputs, y, 1, 40, None, 0, growths(len(y), 1)[0])])
    trees = Trees(type("Shape", (), vars(arrays)), 1)
    trees.load_state_dict(arrays.tensors)
    answers = (trees(torch.from_numpy(inputs)) + trees.base)[:, 0]
    assert answers[:40].max() < 0.3 < 0.7 < answers[40:].min()


@pytest.mark.parametrize("task", TASKS)
def test_labels_all_alike_give_a_line_and_no_tree(task):
    y, classes = labels(task, np.zeros(30))
    n_outputs = head_of(task).n_outputs(len(classes))
    inputs = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    boosted = fit_trees(head_of(task), inputs, y, n_outputs, 10, None, 0, growths(*inputs.shape)[0])
    assert np.isfinite(boosted.raw(inputs)).all()
    weight, bias = fit_line(head_of(task), inputs, y, n_outputs, 1.0, None)
    assert np.isfinite(inputs @ weight + bias).all()
    assert as_arrays([boosted]).n_trees == (10 if task == "regression" else 0)


def test_blend_leaves_out_what_only_adds_noise_and_shares_between_equals():
    random = np.random.default_rng(0)
    truth = torch.from_numpy(random.normal(size=(400, 1)))
    good, twin, noise = (truth + torch.from_numpy(random.normal(size=(400, 1))) * s for s in (0.5, 0.5, 0))
    noise = torch.from_numpy(random.normal(size=(400, 1)))
    weights = fit_blend({DEEP: good, LINE: twin, TREES: noise}, lambda answers: ((answers - truth) ** 2).sum() / 0.5)
    deep, _, line, trees = weights
    assert trees == 0
    assert deep == pytest.approx(line, abs=0.1)
    assert deep + line == pytest.approx(0.9, abs=0.1)


def test_few_rows_leave_a_part_its_share_that_is_hardly_behind_and_many_decide():
    random = np.random.default_rng(0)
    truth = torch.from_numpy(random.normal(size=(3000, 1)))
    near = truth + 0.5 * torch.from_numpy(random.normal(size=truth.shape))
    far = near + 0.3 * torch.from_numpy(random.normal(size=truth.shape))

    def weight(n, n_observed=None):
        parts = {LINE: near[:n], DEEP: far[:n]}
        return fit_blend(parts, lambda answers: ((answers - truth[:n]) ** 2).sum() / 0.5, n_observed)[PARTS.index(DEEP)]

    assert weight(20) > 0.1
    assert weight(3000) == 0
    assert weight(3000, n_observed=20) > 0.1  # rows of twenty days


@pytest.mark.parametrize("error", [0.0, 1e-9, 1e-7, 1e-5, 1e-3])
def test_part_that_is_all_but_exact_takes_all_of_the_weight(error):
    random, target = np.random.default_rng(0), Target(task="regression", mean=0.0, deviation=1.0)
    truth = torch.from_numpy(random.normal(size=(64, 1))).float()  # as labels are
    other, exact, near = (truth + s * torch.from_numpy(random.normal(size=truth.shape)) for s in (1.0, error, 0.1))
    parts = {DEEP: other, LINE: exact, TREES: near}
    weights = fit_blend(parts, likelihood(target, parts, truth[:, 0], None))
    assert weights[PARTS.index(LINE)] == pytest.approx(1, abs=1e-2)
    assert weights.sum() == pytest.approx(weights[PARTS.index(LINE)])


def test_encoder_says_of_a_row_what_it_learnt_without_that_row():
    table, level = a_table(40)
    y = labels("regression", level)[0]
    kinds = {"price": "number", "weight": "number"}
    features = Features.fit(kinds, {name: table[name] for name in kinds}, None, "regression", max_tokens=8)
    encoded = features.encode({name: table[name] for name in kinds})
    start = Network(SMALL, features.sizes, Target.fit("regression", (), y), seed=0)
    unseen = LabelledRows(encoded.take(np.arange(8)), y[:8])
    changed = y.copy()
    changed[3] += 1000
    before, after = (
        train_by_folds(start, features, LabelledRows(encoded, each), unseen, QUICK.for_rows(200))
        for each in (y, changed)
    )
    fold = fold_numbers(40, 3, QUICK.seed)
    assert torch.equal(before[fold == fold[3]], after[fold == fold[3]])
    assert (before[fold != fold[3]] != after[fold != fold[3]]).any()


def test_companion_finds_what_a_short_training_of_the_encoder_does_not():
    network, _, _, _ = trained("regression", kinds={"shop": "category", "price": "number", "weight": "number"})
    assert network.blend[TREES] > 0.4
    assert set(network.blend) <= set(PARTS)
    assert trained("regression", companion=False)[0].companion is None


def test_one_later_day_leaves_every_part_its_share_and_many_days_decide():
    kinds = {"shop": "category", "price": "number", "weight": "number"}
    of_one_day, of_many = (trained("regression", kinds, n_later_days=days)[0].blend for days in (1, 60))
    assert set(of_one_day) == {"transformer", "linear", "trees"}
    assert of_one_day[TREES] < 0.75
    assert of_many[TREES] > 0.95
    assert "linear" not in of_many


@pytest.mark.long
def test_same_seed_gives_the_same_companion():
    first, second = (trained("multiclass")[0].state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.long
@pytest.mark.parametrize("task", ["binary"])
def test_second_training_keeps_blend_and_rounds_and_fits_to_all_rows(task):
    first, features, table, y = trained(task)
    fresh = Network(SMALL, features.sizes, first.target, seed=0)
    rows = LabelledRows(features.encode(table), y)
    settings = TrainingSettings(epochs=1.0, batch_tokens=512, keep="last", refit=True)
    kept = {name: value.clone() for name, value in first.companion.state_dict().items()}
    second, _ = train_again(first, fresh, features, rows, settings)
    shapes = [each.companion.shape for each in (first, second)]
    assert len({(shape.n_rounds, shape.grown_for) for shape in shapes}) == 1
    assert torch.equal(second.companion.mix, kept["mix"])


def test_loaded_model_scores_as_the_one_saved(exported):
    folder, table = exported
    network, features = load_model(folder / "trained")
    described = json.loads((folder / "trained" / "network.json").read_text())["companion"]
    assert described["parts"] == ["transformer", "subwords", "linear", "trees"]
    save_model(folder / "again", network, features)
    np.testing.assert_array_equal(
        TorchScorer(folder / "trained").score(table), TorchScorer(folder / "again").score(table)
    )


def test_encoder_reads_a_row_once_for_all_parts_and_each_says_the_same(exported, monkeypatch):
    folder, table = exported
    scorer, reads = TorchScorer(folder / "trained"), []
    names, pooled = (WHOLE, *scorer.network.blend), scorer.network.pooled

    def counted(batch):
        reads.append("pooled" not in batch)
        return pooled(batch)

    alone = [scorer.of_parts(name).score(table)[:, 0] for name in names]
    monkeypatch.setattr(scorer.network, "pooled", counted)
    together = scorer.of_parts(*names).score(table)
    assert len(names) == 5
    assert sum(reads) == 1
    np.testing.assert_array_equal(together, np.stack(alone, axis=1))
    np.testing.assert_array_equal(together[:, 0], scorer.score(table))


def test_exported_graph_holds_one_operator_for_all_trees_and_scores_as_torch(exported):
    folder, table = exported
    assert load_model(folder / "trained")[0].companion.shape.n_pieces == N_PIECES  # the graph has them too
    model = onnx.load(folder / "onnx" / "network.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count(OPERATOR) == 1
    deviation = load_model(folder / "trained")[0].target.deviation
    assert parity(folder / "trained", folder / "onnx", [table]) / deviation < 1e-5


def test_engine_that_knows_no_trees_runs_the_rest(exported):
    folder, table = exported
    chosen = Engine.parse("openvino-fp32")
    if lacks := missing_requirement(chosen):
        pytest.skip(lacks)
    scale = load_model(folder / "trained")[0].target.deviation
    exact, other = (
        Scorer(folder / "onnx", engine=each).score(table) for each in (Engine.parse("onnxruntime-fp32"), chosen)
    )
    assert np.abs(exact - other).max() / scale < 1e-4


def test_trees_taken_out_read_what_they_need_and_no_more(exported):
    folder, _ = exported
    alone, rest = take_out(onnx.load(folder / "onnx" / "network.onnx"))
    assert all(node.op_type != OPERATOR for node in rest.graph.node)
    assert "text" not in {each.name for each in alone.graph.input}
    assert "tree_logits" in {each.name for each in rest.graph.input}


@pytest.fixture(scope="module")
def three_classes():
    return trained("multiclass", kinds={"shop": "category", "price": "number", "when": "time"})


@pytest.fixture(scope="module", params=[TREES, LINE])
def alone(request, tmp_path_factory, three_classes):
    """The part that alone has a weight, a folder with the model and its export, and the table."""
    folder = tmp_path_factory.mktemp(request.param)
    network, features, table, _ = three_classes
    network.companion.set_mix([float(name == request.param) for name in PARTS])
    save_model(folder / "trained", network, features)
    export_onnx(folder / "trained", folder / "onnx")
    return request.param, folder, table


@pytest.mark.long
def test_part_without_weight_is_not_computed(alone):
    part, folder, table = alone
    nodes = [node.op_type for node in onnx.load(folder / "onnx" / "network.onnx").graph.node]
    assert (OPERATOR in nodes) == (part == TREES)
    assert "LayerNormalization" not in nodes
    assert parity(folder / "trained", folder / "onnx", [table]) < 1e-5


def test_what_a_part_says_of_a_row_depends_on_no_row_beside_it(alone):
    part, folder, table = alone
    scorer = Scorer(folder / "onnx", engine=Engine.parse("onnxruntime-fp32"))
    together = scorer.score(table)
    rows = [scorer.score({name: column[[row]] for name, column in table.items()}) for row in range(30)]
    np.testing.assert_allclose(together[:30], np.concatenate(rows), rtol=0, atol=0 if part == TREES else 1e-6)


def test_line_of_few_rows_stays_straight_where_bending_gains_hardly_anything():
    noise = np.random.default_rng(5).normal(size=240)
    _, companion = line_of(np.nan_to_num(a_table()[0]["weight"]) * 40 + 20 * noise + 300)
    assert companion.shape.n_pieces == 0
    assert companion.shape.strengths[1:] == (0.0,)
