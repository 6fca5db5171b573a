"""Oracle: rows whose columns decide one another by a rule; sums and shares counted by hand; the night scored whole."""

import copy
import dataclasses
from datetime import date, timedelta
from math import log2

import numpy as np
import pandas as pd
import pytest
import torch
from builders import a_product, declared, mistakes, predicted, report, through_all_stages, to_split
from sklearn.metrics import roc_auc_score

from model.evaluation.baseline import fit_baseline
from model.features.fitted import Features
from model.features.kinds import guessed_columns, kind_class
from model.heads import head_of
from model.network.network import Network
from model.network.store import load_pretrained
from model.scoring.scorer import Scorer, TorchScorer
from model.scoring.surprise import percentiles, surprise_columns
from model.scoring.synthesis import RowMaker
from model.settings import NetworkSettings, TrainingPlan
from model.target import Target, read_target
from model.training.masking import fill, hide_shares
from tasks import params
from tasks.monitoring.performance import Labelled
from tasks.predict import predict
from tasks.reports.making import render_here
from tasks.rows import model_inputs
from tasks.rows.changed import changed_rows
from tasks.runtime.paths import Paths
from tasks.training.held_out.made_rows import make_rows

COLUMNS = {"depot": "category", "lane": "category", "weight_kg": "number", "handed_in": "time"}
KILOS = {"A": 5.0, "B": 20.0, "C": 50.0, "D": 100.0}
SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=32)
PATHS, AS_OF = Paths("tiny"), date(2024, 2, 10)
CHANGES = {
    "columns": COLUMNS,
    "target": {"task": "reconstruct"},
    "predict": {"horizon_days": 1, "shards": 3, "rows_per_shard": 7, "make_rows": 700},
    "gates": {},
    "expectations": [],
    "model__init": "scratch",
    "model__train": {"epochs": 10, "batch_tokens": 512, "learning_rate": 0.006},
}


def parcels(n=900, seed=0):
    """Parcels of which the depot decides lane, weight and hour; in some the weight is missing."""
    random = np.random.default_rng(seed)
    depot = random.choice(list(KILOS), n)
    day = pd.Timestamp("2024-01-10") + pd.to_timedelta(random.integers(0, 33, n), "D")
    hours = np.array([KILOS[each] / 8 for each in depot]) + random.uniform(0, 2, n)
    return pd.DataFrame(
        {
            "parcel_id": [f"p{number:05d}" for number in range(n)],
            "day": day.strftime("%Y-%m-%d"),
            "depot": depot,
            "lane": [f"{each}{random.integers(2)}" for each in depot],
            "weight_kg": np.where(random.random(n) < 0.05, np.nan, [KILOS[each] for each in depot]),
            "handed_in": (day + pd.to_timedelta(hours, "h")).strftime("%Y-%m-%dT%H:%M:%S"),
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a product without labels that went through all stages, and what evaluate printed."""
    folder = tmp_path_factory.mktemp("reconstruct")
    with through_all_stages(folder, parcels(), CHANGES, AS_OF) as line:
        yield folder, line


@pytest.fixture
def product(made, monkeypatch):
    monkeypatch.chdir(made[0])
    return a_product(**CHANGES)


def test_changed_rows_are_told_from_others_and_their_column_is_named(product, made):
    measured = report("evaluation.json")["model"]
    assert measured["auc"] > 0.9
    assert measured["column_named"] > 0.6
    assert set(measured["per_class"]) == set(COLUMNS)
    assert f"auc {measured['auc']:.4f} (95% interval" in made[1]
    assert 0.7 < report("evaluation.json")["baseline"]["auc"] < 1


def test_held_out_rows_come_once_as_they_are_and_once_changed(product):
    rows = pd.read_parquet(PATHS.splits / "test.parquet")
    whole, changed = (rows[rows.changed_column.eq("-") == is_whole] for is_whole in (True, False))
    assert report("split.json")["rows_changed"]["test"] == len(changed) == len(whole)
    both = changed.merge(whole, on="parcel_id", suffixes=("", "_before"), validate="one_to_one")
    assert len(both) == len(changed) == len(whole)
    for name in COLUMNS:
        now, before = both[name].astype("str").fillna(""), both[f"{name}_before"].astype("str").fillna("")
        assert ((now != before) == both.changed_column.eq(name)).all()
    assert pd.read_parquet(PATHS.splits / "train.parquet").changed_column.eq("-").all()


def test_night_has_the_surprise_of_every_row_as_one_alone_would(product):
    found = predicted()
    rows = pd.concat([pd.read_parquet(file) for file in sorted((PATHS.valid / "rows").rglob("*2024-02-11*"))])
    assert len(found) == len(rows) > 20
    scorer, table = Scorer(PATHS.onnx), model_inputs.inputs(rows, product)
    one = {name: column[3:4] for name, column in table.items()}
    alone = head_of("reconstruct").night_columns(scorer.score(one), scorer.classes, 0.5)
    same = found[found.parcel_id == rows.parcel_id.iloc[3]].iloc[0]
    assert same.surprise_bits == pytest.approx(alone["surprise_bits"][0], abs=1e-4)
    assert same.prediction == alone["prediction"][0]
    assert found.surprise_percentile.between(0, 100).all()
    ranks = found.sort_values("surprise_bits").surprise_percentile
    assert ranks.is_monotonic_increasing


def test_night_does_not_depend_on_its_shards(product):
    before = predicted().sort_values("parcel_id", ignore_index=True)
    whole = dataclasses.replace(product, predict=dataclasses.replace(product.predict, shards=1))
    predict(whole, AS_OF)
    after = predicted().sort_values("parcel_id", ignore_index=True)
    predict(product, AS_OF)
    bits = "surprise_bits", "surprise_percentile"
    pd.testing.assert_frame_equal(before.drop(columns=[*bits]), after.drop(columns=[*bits]))
    assert np.allclose(before[bits[0]], after[bits[0]], atol=1e-4)


def test_bits_are_those_of_the_cell_hidden_alone(product):
    scorer = TorchScorer(PATHS.trained)
    network, table = scorer.network, model_inputs.split_part(PATHS.splits, "test", product).sample(5).read_all()
    batch = network.batch_of(scorer.features.encode(table), np.arange(5))
    number = guessed_columns(COLUMNS).index("lane")
    with torch.inference_mode():
        hidden = torch.zeros(5, len(COLUMNS), dtype=torch.bool)
        hidden[:, number] = True
        tokens, _ = network.encode(batch, hidden_columns=hidden)
        vectors = network.filling.transform(tokens)[:, 1 + number]
        first = network.sizes.of("category")[0]
        table_of_lanes = network.embeddings.category_embeddings.weight[first:]
        shares = (vectors @ table_of_lanes.T).softmax(-1)
        slots = batch["categories"][:, number]
        wanted = [-log2(shares[row, slots[row]]) for row in range(5)]
        assert np.allclose(network.scores(batch)[:, number], wanted, atol=1e-4)


def test_cell_that_breaks_the_rule_is_named_with_what_was_expected(product):
    scorer = Scorer(PATHS.onnx)
    rows = parcels(40, seed=5).assign(weight_kg=5.0)
    rows = rows[rows.depot.eq("D")].reset_index(drop=True)
    rows["handed_in"] = rows.handed_in.astype("datetime64[s]")
    table = model_inputs.inputs(rows, product)
    scores = scorer.score(table)
    told = {
        **head_of("reconstruct").night_columns(scores, scorer.classes, 0.5),
        **surprise_columns(scorer, table, scores),
    }
    assert set(told["prediction"]) == {"weight_kg"}
    assert set(told["surprise_cell"]) == {"5"}
    assert set(told["surprise_expected"]) == {"100"}
    assert (told["surprise_percentile"] > 90).all()


def test_rows_without_any_value_or_of_unseen_values_are_scored(product):
    scorer = Scorer(PATHS.onnx)
    table = {
        "depot": np.array([None, "Ä" * 500, "A"], object),
        "lane": np.array([None, "", "A0"], object),
        "weight_kg": np.array([np.nan, 1e300, 5.0]),
        "handed_in": np.array(["NaT", "2999-12-31T23:59:59", "2024-02-01T01:00:00"], "datetime64[s]"),
    }
    scores = scorer.score(table)
    assert np.isfinite(scores).all()
    bits = scores[:, : len(COLUMNS)].sum(1)
    assert bits[2] < bits[0]
    assert bits[2] < bits[1]
    assert len(scorer.score({name: column[:0] for name, column in table.items()})) == 0


def test_exported_model_knows_what_percentiles_are_made_of(product):
    quantiles = read_target(PATHS.onnx).quantiles
    assert list(quantiles) == sorted(quantiles)
    assert percentiles(np.array([quantiles[500]]), quantiles) == pytest.approx([50.0], abs=0.2)


def test_night_is_measured_by_its_bits_alone(product):
    found = predicted()
    scores, classes = head_of("reconstruct").scores_of_night({name: found[name].to_numpy() for name in found})
    labels = pd.DataFrame({"changed_column": ["-"] * len(found)})
    known = Labelled(keys=found.parcel_id, table=labels, scores=scores, classes=classes)
    assert known.metric(product) is None
    by_bits = dataclasses.replace(product, gates=dataclasses.replace(product.gates, metric="bits_per_row"))
    assert known.metric(by_bits) == pytest.approx(found.surprise_bits.mean(), abs=1e-5)


def test_made_rows_have_the_columns_and_types_of_valid_rows(product, made):
    rows = pd.read_parquet(PATHS.made_rows / "rows.parquet")
    valid = pd.read_parquet(next((PATHS.valid / "rows").rglob("*.parquet")))
    assert list(rows.dtypes.items()) == list(valid[list(rows)].dtypes.items())
    assert [*rows] == ["parcel_id", "day", *COLUMNS]
    assert len(rows) == rows.parcel_id.nunique() == 700
    assert "700 rows made up, told from held-out ones with AUC 0." in made[1]
    assert set(rows.weight_kg.dropna()) <= {*KILOS.values()}
    assert 0 < rows.weight_kg.isna().mean() < 0.15
    as_ruled = rows.lane.str[0].eq(rows.depot)
    assert as_ruled.mean() > 0.8


def test_made_rows_pass_as_rows_of_a_source(product, tmp_path, monkeypatch):
    rows = pd.read_parquet(PATHS.made_rows / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    rows.to_parquet("source/made.parquet")
    source = {"kind": "parquet", "url": "source/made.parquet"}
    to_split(a_product(**{**CHANGES, "source": source}), rows.day.max().date() - timedelta(days=1))
    assert report("validation.json")["rows"] == {"rows_in": 700, "rows_valid": 700, "rows_quarantined": 0}


def test_evaluation_says_how_like_real_rows_made_ones_are(product):
    found = report("evaluation.json")["made_rows"]
    assert 0.4 < found["told_apart"]["auc"] < 0.65
    assert found["told_apart"]["interval_95"][0] < found["told_apart"]["auc"] < found["told_apart"]["interval_95"][1]
    assert found["learnt"]["column"] == "depot"
    assert found["learnt"]["from_made"] > found["learnt"]["constant"] + 0.3
    assert found["share_copied"] == pytest.approx(found["held_out_share_copied"], abs=0.02)
    assert [each["column"] for each in found["columns"]] == [*COLUMNS]
    assert all(0 <= each["difference"] < 0.5 for each in found["columns"])
    page = render_here(product, AS_OF, "0" * 40)
    assert "They are no anonymous data" in page
    assert "made-rows" in page


def test_made_rows_depend_on_seed_and_number_alone(product):
    scorer = TorchScorer(PATHS.trained)
    known = model_inputs.split_part(PATHS.splits, "train", product).read_all()
    whole, again, other = (RowMaker(scorer.network, scorer.features, known, seed) for seed in (0, 0, 1))
    rows = pd.concat([pd.DataFrame(table) for _, table in whole.rows(0, 700)], ignore_index=True)
    few = pd.concat([pd.DataFrame(table) for _, table in again.rows(500, 530)], ignore_index=True)
    pd.testing.assert_frame_equal(few, rows[500:530].reset_index(drop=True))
    others = pd.concat([pd.DataFrame(table) for _, table in other.rows(500, 530)], ignore_index=True)
    assert not others.equals(few)
    stored = pd.read_parquet(PATHS.made_rows / "rows.parquet", columns=[*COLUMNS])
    assert stored.lane.tolist() == rows.lane.tolist()


def test_making_that_was_killed_leaves_nothing_and_ends_with_the_same_bytes(product, monkeypatch):
    file = PATHS.made_rows / "rows.parquet"
    before = file.read_bytes()

    def die(place):
        raise KeyboardInterrupt(place)

    monkeypatch.setattr("tasks.runtime.faults.failpoint", die)
    with pytest.raises(KeyboardInterrupt, match="made rows are written"):
        make_rows(product, PATHS)
    assert [each.name for each in PATHS.made_rows.parent.iterdir()] == ["tiny"]
    monkeypatch.undo()
    monkeypatch.chdir(file.parents[3])
    make_rows(product, PATHS)
    assert file.read_bytes() == before


class Kept:
    """Checkpoints in memory, after every step."""

    every_seconds, state = 0.0, None

    def load_newest(self):
        return self.state and copy.deepcopy(self.state)

    def save(self, step, tensors, notes):
        self.state = copy.deepcopy((tensors, notes))


def test_training_that_was_killed_ends_with_the_same_weights(product):
    table = model_inputs.split_part(PATHS.splits, "train", product).sample(150).read_all()
    start, features = load_pretrained(PATHS.pretrained, read_target(PATHS.trained), SMALL, seed=1)
    encoded = features.encode(table)
    plan = TrainingPlan(epochs=2, batch_tokens=256)

    def stop(entry):
        raise KeyboardInterrupt

    straight, _ = fill(copy.deepcopy(start), encoded, encoded, plan)
    kept = Kept()
    with pytest.raises(KeyboardInterrupt):
        fill(copy.deepcopy(start), encoded, encoded, plan, checkpoints=kept, on_epoch=stop)
    resumed, _ = fill(copy.deepcopy(start), encoded, encoded, plan, checkpoints=kept)
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_share_that_is_hidden_is_drawn_evenly():
    torch.manual_seed(0)
    hidden = hide_shares(8000, 4).sum(1)
    counts = torch.bincount(hidden, minlength=5)
    assert counts[0] == 0
    assert counts[1:].sub(2000).abs().max() < 200


def test_metrics_are_as_counted_by_hand():
    #                 bits of two columns, expected bits, likeliest choices
    scores = np.array([[1, 1, 0, 0, 0, 0], [5, 1, 5, 0, 0, 0], [3, 9, 3, 0, 0, 0], [1, 0, 0, 0, 0, 0]], float)
    y = np.array([-1, 0, 1, -1])
    found = {name: metric(y, scores) for name, metric in head_of("reconstruct").metrics(0.5).items()}
    assert found["auc"] == roc_auc_score([0, 1, 1, 0], [2, 6, 12, 1])
    assert found["column_named"] == 0.5
    assert found["bits_per_row"] == 1.5
    assert np.isnan(head_of("reconstruct").metrics(0.5)["column_named"](y, scores.sum(1)))


def test_changed_cell_is_another_rows_and_never_equal():
    rows = pd.DataFrame({"one": ["a", "a", None, "b"], "same": ["x"] * 4, "number": [1.0, np.nan, 1.0, 2.0]})
    changed, names = changed_rows(rows, list(rows), seed=1)
    assert "same" not in names
    for position, (index, row) in enumerate(changed.iterrows()):
        before, name = rows.loc[index], names[position]
        assert str(row[name]) != str(before[name])
        assert str(row[name]) in [str(cell) for cell in rows[name]]
        assert [str(cell) for cell in row.drop(name)] == [str(cell) for cell in before.drop(name)]
    assert len(changed_rows(rows.assign(one="a", number=1.0), list(rows), seed=1)[0]) == 0


def test_baseline_counts_values_that_occur_together():
    table = {"one": np.array(["a", "a", "b", "b"], object), "other": np.array(["x", "x", "y", "y"], object)}
    baseline = fit_baseline({"one": "category", "other": "category"}, table, np.full(4, -1), "reconstruct", 2, 0)
    fitted, swapped = baseline.score(table), baseline.score({**table, "other": table["other"][::-1]})
    share = (2 + 1) / (4 + 2)
    assert fitted[0, 0] == pytest.approx(-log2((2 + 4 * share) / (2 + 4)))
    assert swapped[0, 0] == pytest.approx(-log2((0 + 4 * share) / (2 + 4)))


@pytest.mark.parametrize("name", list(COLUMNS))
def test_every_choice_of_a_column_has_a_name(name):
    rows = parcels(400).assign(handed_in=lambda rows: rows.handed_in.astype("datetime64[s]"))
    table = {each: rows[each].to_numpy(object if COLUMNS[each] == "category" else None) for each in COLUMNS}
    features = Features.fit(COLUMNS, table, None, "reconstruct", max_tokens=8)
    kind = kind_class(COLUMNS[name])
    names = kind.choice_names(features.fitted[kind.name].columns[name])
    target = Target(task="reconstruct", classes=tuple(guessed_columns(COLUMNS)))
    settings = NetworkSettings(d_model=8, n_layers=1, n_heads=2, d_feedforward=8)
    network = Network(settings, features.sizes, target)
    column = list(features.fitted[kind.name].columns).index(name)
    assert len(names) == np.prod(network.filling.head(kind.name).n_choices[column])
    truths = network.filling.head(kind.name).truths(
        network.batch_of(features.encode(table), np.arange(400))[kind.input], column, network.embeddings
    )
    number = network.filling.head(kind.name).number_of(truths, column)
    told = names[number.numpy()]
    assert [each is None for each in told] == [bool(each) for each in pd.isna(rows[name])]
    if COLUMNS[name] == "category":
        assert list(told) == list(rows[name])
    elif COLUMNS[name] == "number":
        assert [np.nan if each is None else float(each) for each in told] == pytest.approx(rows[name], nan_ok=True)
    elif COLUMNS[name] == "time":
        assert all(
            f"{when.hour:02}:00 to" in text and when.day_name() in text
            for when, text in zip(rows[name], told, strict=True)
        )


def test_entry_needs_neither_name_nor_labels_and_refuses_what_needs_them():
    assert a_product(**CHANGES).gates.metric == "auc"
    found = mistakes(declared(**{**CHANGES, "target": {"task": "reconstruct", "delay_days": 2}}))
    assert any("target.delay_days must not be given" in line and "got 2" in line for line in found)
    found = mistakes(declared(**{**CHANGES, "predict": {**CHANGES["predict"], "explain": 2}}))
    assert any("predict.explain must not be given" in line for line in found)
    found = mistakes(declared(**{**CHANGES, "columns": {"depot": "category", "story": "text"}}))
    assert any("columns must be each one of category, number, time" in line and "story" in line for line in found)
    found = mistakes(declared(**{**CHANGES, "columns": {"depot": "category"}}))
    assert any("columns must name two inputs" in line for line in found)
    assert any("target.name" in line for line in mistakes(declared(target={"task": "binary"})))
    assert any("make_rows must not be given for a binary" in line for line in mistakes(declared(predict__make_rows=5)))
    assert params.parse(declared(**CHANGES)).product("tiny").target.name == "changed_column"
