"""Oracle: each row scored alone by the same engine; the whole night for its shards; sets of keys counted by hand."""

import json
import re
import shutil
import uuid
from datetime import date

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from builders import a_product, a_repository
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_model_export import TASKS, mixed, random_model

from model.network.store import load_model, save_model
from model.scoring.scorer import Scorer, TorchScorer
from tasks.predict import predict, predict_shard
from tasks.publication import scoring
from tasks.publication.night import part_name, read_night, run_of, write_night
from tasks.publication.scoring import shard_rows
from tasks.publish import publish
from tasks.read import read_predictions
from tasks.rows import model_inputs
from tasks.rows.partitions import partition, write_table
from tasks.runtime.errors import UserError
from tasks.runtime.files import folder_sha256, write_json
from tasks.runtime.paths import Paths

KINDS = {"colour": "category", "size": "number", "when": "time"}
METRIC = {"binary": "auc", "multiclass": "macro_f1", "multilabel": "macro_f1", "regression": "rmse"}
PATHS = Paths("tiny")
AS_OF, SCORED = date(2024, 2, 10), date(2024, 2, 11)
N_ROWS = 30


def product(task="binary", shards=3, url="s3://lamplighter/predictions", threshold=0.5, explain=0):
    return a_product(
        columns=KINDS,
        expectations=[],
        predict={
            "horizon_days": 1,
            "shards": shards,
            "rows_per_shard": 1,
            "threshold": threshold,
            "explain": explain,
        },
        target__task=task,
        gates__metric=METRIC[task],
        publish__url=url,
        key=["parcel_id", "depot"],
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory, export_once):
    """An exported model per task, untrained: what it answers does not matter here."""
    folder = tmp_path_factory.mktemp("models")
    for task in TASKS:
        random_model(folder / task / "trained", task, KINDS, n_layers=1)
        export_once(folder / task / "trained", folder / task / "onnx")
    return folder


@pytest.fixture
def night(models, tmp_path, monkeypatch):
    """A function that lays out what `predict` reads, and returns the product and its rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "constraints.txt").write_text("")

    def lay_out(task="binary", n_rows=N_ROWS, **changes):
        shutil.rmtree("data", ignore_errors=True)
        shutil.copytree(models / task / "onnx", PATHS.onnx)
        columns = mixed(max(n_rows, 1), seed=9)
        rows = pd.DataFrame({name: columns[name] for name in KINDS}).assign(
            parcel_id=[f"p{i:03d}" for i in range(max(n_rows, 1))], depot="A", day=pd.Timestamp("2024-02-11")
        )
        rows["when"] = rows["when"].astype("datetime64[s]")
        day = SCORED if n_rows else AS_OF
        write_table(partition(PATHS.valid / "rows", day), rows)
        write_json(
            PATHS.report("validation.json"),
            {"scored_day": {"rows_in": n_rows, "rows_valid": n_rows, "rows_quarantined": 0}},
        )
        return product(task, **changes), rows.head(n_rows)

    return lay_out


def parts(n=3):
    return [pd.read_parquet(PATHS.predictions / part_name(i)) for i in range(n)]


def whole_night(n=3):
    return pd.concat(parts(n)).sort_values("parcel_id").reset_index(drop=True)


def told():
    return json.loads((PATHS.predictions / "night.json").read_text())


@given(st.integers(0, 60), st.integers(1, 12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shards_are_equal_shares_in_order_and_hold_every_row_once(tmp_path, monkeypatch, n_rows, n_shards):
    own = tmp_path / f"{n_rows}-{n_shards}"  # an example sees nothing of the one before
    own.mkdir(exist_ok=True)
    monkeypatch.chdir(own)
    monkeypatch.setattr("tasks.rows.partitions.ROWS_AT_ONCE", 7)
    columns = {"colour": "a", "size": 1.0, "when": pd.Timestamp("2024-02-11"), "day": pd.Timestamp("2024-02-11")}
    rows = pd.DataFrame({"parcel_id": [f"{i:03d}" for i in range(n_rows)], "depot": "A"}).assign(**columns)
    if n_rows:
        write_table(partition(PATHS.valid / "rows", SCORED), rows)
    asked = product(shards=n_shards)
    shards = [pd.concat(shard_rows(asked, AS_OF, i)) for i in range(scoring.n_shards(asked, AS_OF))]
    assert len(shards) == max(1, min(n_rows, n_shards))
    assert [number for shard in shards for number in shard["parcel_id"]] == list(rows["parcel_id"])
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("n_rows", "n"), [(0, 1), (1, 1), (50_000, 1), (50_001, 2), (400_000, 8), (9_000_000, 8)])
def test_number_of_shards_follows_from_the_rows_up_to_the_ceiling(n_rows, n):
    assert a_product(predict={"shards": 8}).predict.n_shards(n_rows) == n


@pytest.mark.long
def test_shard_reads_its_own_row_groups_only(night, monkeypatch):
    monkeypatch.setattr("tasks.rows.partitions.ROWS_AT_ONCE", 5)
    wanted, _ = night()
    read = []
    whole = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_groups",
        lambda self, groups, **kwargs: read.extend(groups) or whole(self, groups, **kwargs),
    )
    assert predict_shard(wanted, AS_OF, 1).rows == 10
    assert read == [2, 3]


@pytest.mark.parametrize("task", TASKS)
def test_every_row_is_scored_once_and_as_if_it_were_alone(night, task):
    wanted, rows = night(task)
    predict(wanted, AS_OF)
    seen = whole_night()
    assert seen["parcel_id"].tolist() == rows["parcel_id"].tolist()
    assert all(len(part) for part in parts())
    assert all(part["parcel_id"].is_monotonic_increasing for part in parts())
    scorer = Scorer(PATHS.onnx)
    alone = np.concatenate([scorer.score(model_inputs.inputs(rows.iloc[[i]], wanted)) for i in range(N_ROWS)])
    given_back = {"binary": ["probability"], "regression": ["prediction"]}.get(
        task, [f"probability_{name}" for name in TASKS[task]]
    )
    np.testing.assert_allclose(seen[given_back].to_numpy().reshape(alone.shape), alone, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("binary", {"prediction": "bool", "probability": "float"}),
        (
            "multiclass",
            {
                "prediction": "large_string",
                "probability": "float",
                "probability_a": "float",
                "probability_b": "float",
                "probability_c": "float",
            },
        ),
        ("multilabel", {"prediction": "large_string", "probability_x": "float", "probability_y": "float"}),
        ("regression", {"prediction": "double"}),
    ],
)
def test_columns_of_a_night_are_key_time_and_answers_even_when_it_is_empty(night, task, columns):
    schemas = []
    for n_rows in (N_ROWS, 0):
        wanted, _ = night(task, n_rows)
        predict(wanted, AS_OF)
        assert told()["rows"] == {"in": n_rows, "published": n_rows, "quarantined": 0}
        assert len(whole_night(3 if n_rows else 1)) == n_rows
        schemas.append(told()["schema"])
    assert schemas[0] == schemas[1]
    types = {field["name"]: field["type"] for field in schemas[0]}
    assert list(types) == ["parcel_id", "depot", "day", *columns]
    assert {name: types[name] for name in columns} == columns


@pytest.mark.parametrize(
    ("task", "threshold"), [*((task, 0.5) for task in TASKS), ("binary", 0.2), ("multilabel", 0.8)]
)
def test_prediction_is_what_its_probabilities_say(night, task, threshold):
    wanted, _ = night(task, threshold=threshold)
    predict(wanted, AS_OF)
    for _, row in whole_night().iterrows():
        if task == "binary":
            assert row["prediction"] == (row["probability"] >= threshold)
        if task == "multiclass":
            by_class = {name: row[f"probability_{name}"] for name in TASKS[task]}
            assert by_class[row["prediction"]] == row["probability"] == max(by_class.values())
        if task == "multilabel":
            said = [name for name in TASKS[task] if row[f"probability_{name}"] >= threshold]
            assert row["prediction"] == "|".join(said)


def test_shard_alone_gives_the_same_bytes_as_the_whole_night(night):
    wanted, _ = night()
    predict(wanted, AS_OF)
    whole, said = {i: (PATHS.predictions / part_name(i)).read_bytes() for i in range(3)}, told()
    night_before = read_night(PATHS.predictions)
    shutil.rmtree(PATHS.predictions)
    for shard in (2, 0, 1):
        part = predict_shard(wanted, AS_OF, shard)
        assert (PATHS.predictions / part_name(shard)).read_bytes() == whole[shard]
        assert {name: part.to_json()[name] for name in ("name", "rows", "bytes", "sha256")} == said["parts"][shard]
        assert (part.run, part.inputs) == (night_before.run, night_before.inputs)
    write_night(wanted, AS_OF, part.inputs, night_before.parts, PATHS.predictions)
    assert told() == said


@pytest.mark.parametrize("task", TASKS)
def test_reasons_are_what_the_torch_network_says_without_the_column(night, models, task):
    wanted, rows = night(task, explain=2)
    predict(wanted, AS_OF)
    assert told()["inputs"]["explain"] == 2
    model = TorchScorer(models / task / "trained")
    table = model_inputs.inputs(rows.sort_values("parcel_id"), wanted)
    scores = model.score(table)
    answer = scores.argmax(1) if scores.ndim > 1 else None

    def of_answer(found):
        return found if answer is None else found[np.arange(len(found)), answer]

    moved = {}
    for name, column in table.items():
        missing = {"O": None, "M": np.datetime64("NaT"), "f": np.nan}[column.dtype.kind]
        without = {**table, name: np.full(len(column), missing, column.dtype)}
        moved[name] = of_answer(scores) - of_answer(model.score(without))
    strongest = np.sort(np.abs(np.stack(list(moved.values()))), axis=0)[::-1]
    found = whole_night()
    for place in (0, 1):
        for row, text in enumerate(found[f"reason_{place + 1}"]):
            if pd.isna(text):
                assert strongest[place, row] < 0.0051
                continue
            name, value = re.fullmatch(r"(\w+) \(([+-].*)\)", text).groups()
            assert float(value) == pytest.approx(moved[name][row], abs=0.0051, rel=0.006)
            assert abs(float(value)) == pytest.approx(strongest[place, row], abs=0.0101, rel=0.006)
    assert found["reason_1"].notna().any()


def test_night_without_reasons_has_the_name_that_it_had_before_there_were_any(night):
    wanted, _ = night()
    predict(wanted, AS_OF)
    assert "explain" not in told()["inputs"]
    assert not [name for name in whole_night() if name.startswith("reason")]


def test_empty_night_has_the_columns_of_its_reasons(night):
    wanted, _ = night(n_rows=0, explain=1)
    shutil.rmtree(PATHS.valid)
    predict(wanted, AS_OF)
    assert list(whole_night(1).columns)[-2:] == ["probability", "reason_1"]


def test_same_inputs_give_the_same_bytes(night):
    wanted, _ = night(explain=2)
    hashes = []
    for _ in range(2):
        predict(wanted, AS_OF)
        hashes.append(folder_sha256(PATHS.predictions))
    assert hashes[0] == hashes[1]


def test_night_in_many_pieces_has_the_scores_of_a_night_in_one(night, monkeypatch):
    wanted, _ = night("multiclass")
    predict(wanted, AS_OF)
    whole = whole_night()
    monkeypatch.setattr("tasks.rows.partitions.ROWS_AT_ONCE", 4)
    rows = pd.read_parquet(partition(PATHS.valid / "rows", SCORED))
    write_table(partition(PATHS.valid / "rows", SCORED), rows)
    predict(wanted, AS_OF)
    assert pq.read_metadata(PATHS.predictions / part_name(0)).num_row_groups == 3
    pd.testing.assert_frame_equal(whole_night(), whole, check_exact=False, atol=1e-5, rtol=0)


def test_night_is_empty_when_no_row_was_ever_valid(night):
    wanted, _ = night(n_rows=0)
    shutil.rmtree(PATHS.valid)
    predict(wanted, AS_OF)
    assert told()["rows"] == {"in": 0, "published": 0, "quarantined": 0}
    assert list(whole_night(1).columns) == ["parcel_id", "depot", "day", "prediction", "probability"]


def test_name_of_a_run_changes_with_rows_model_shards_and_threshold(night):
    wanted, rows = night()
    predict(wanted, AS_OF)
    runs = {told()["run"]}
    write_table(partition(PATHS.valid / "rows", SCORED), rows.assign(size=1.0))
    predict(wanted, AS_OF)
    runs.add(told()["run"])
    (PATHS.onnx / "more").write_text("another model")
    predict(wanted, AS_OF)
    runs.add(told()["run"])
    predict(product(shards=2), AS_OF)
    runs.add(told()["run"])
    assert not (PATHS.predictions / part_name(2)).exists()
    predict(product(shards=2, threshold=0.4), AS_OF)
    runs.add(told()["run"])
    assert len(runs) == 5
    assert run_of(read_night(PATHS.predictions).inputs) == told()["run"]
    assert told()["inputs"]["engine"]["engine"] == "onnxruntime"


def test_rows_of_other_days_are_not_scored(night):
    wanted, rows = night()
    for day in (AS_OF, date(2024, 2, 12)):
        write_table(partition(PATHS.valid / "rows", day), rows.assign(parcel_id="other"))
    predict(wanted, AS_OF)
    assert "other" not in set(whole_night()["parcel_id"])


def test_rows_that_do_not_add_up_are_refused_and_nothing_is_written(night):
    wanted, _ = night()
    write_json(PATHS.report("validation.json"), {"scored_day": {"rows_in": 31, "rows_quarantined": 0}})
    with pytest.raises(UserError, match=r"rows in must be published plus quarantined, got .*'in': 31"):
        predict(wanted, AS_OF)
    assert not PATHS.predictions.exists()


def test_score_that_is_no_number_stops_the_night(night, models, tmp_path, export_once):
    its, _ = night()
    network, features = load_model(models / "binary" / "trained")
    network.head.out.bias.data.fill_(np.nan)
    save_model(tmp_path / "broken", network, features)
    shutil.rmtree(PATHS.onnx)
    export_once(tmp_path / "broken", PATHS.onnx)
    with pytest.raises(UserError, match=r"scores must be finite, and \d+ of \d+ are not; export with"):
        predict(its, AS_OF)
    assert not PATHS.predictions.exists()


def test_night_without_a_model_is_told(night):
    wanted, _ = night()
    shutil.rmtree(PATHS.onnx)
    with pytest.raises(UserError, match=r"must hold an exported model, and does not; run dvc repro export@tiny"):
        predict(wanted, AS_OF)


def test_empty_night_is_published_and_read_as_no_rows(night, s3_here, tmp_path):
    url = f"s3://lamplighter/predict-{uuid.uuid4().hex}"
    wanted, _ = night(n_rows=0, url=url)
    predict(wanted, AS_OF)
    a_repository(tmp_path)
    assert publish(wanted, AS_OF).startswith("0 predictions in 1 part published")
    empty = read_predictions(url, "tiny")
    assert list(empty.columns) == ["parcel_id", "depot", "day", "prediction", "probability"]
    assert len(empty) == 0
    assert empty["prediction"].dtype == bool
