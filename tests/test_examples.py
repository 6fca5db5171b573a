"""Oracle: the example's own numbers; a person who copies it must see a model that passes its gates."""

import json
import shutil
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from tasks import params
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.ingest import ingest
from tasks.predict import predict
from tasks.pretrain import pretrain
from tasks.split import split
from tasks.train import train
from tasks.validate import validate


def test_example_is_declared_in_at_most_ten_lines():
    text = (ROOT / "params.yaml").read_text()
    entry = text[text.index("\n  parcels:") :].strip().splitlines()
    assert len(entry) <= 10
    assert list(params.loads('as_of: "2013-06-30"\nproducts:\n  ' + "\n".join(entry)).products) == ["parcels"]


@pytest.mark.long
def test_example_goes_from_its_file_to_a_night_that_passes_the_gates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "constraints.txt", tmp_path)  # its hash is part of a night
    declared = params.load(ROOT / "params.yaml")
    product = declared.product("parcels")
    for stage in (ingest, validate, split, pretrain, train, evaluate, export, predict):
        stage(product, declared.as_of)
    metrics = json.loads(Path("data/reports/parcels/metrics.json").read_text())
    model, baseline = metrics["model"][product.gates.metric], metrics["baseline"][product.gates.metric]
    assert model > max(product.gates.limit, baseline - product.gates.max_behind_baseline)
    rows = pd.read_csv("examples/parcels.csv")
    parts = [pd.read_parquet(file) for file in Path("data/predictions/parcels").glob("*.parquet")]
    night = pd.concat([part for part in parts if len(part)])
    assert sorted(night["parcel_id"]) == sorted(rows[rows["day"] == "2013-06-30"]["parcel_id"])


@pytest.mark.parametrize("column", ["day", "handed_in"])
def test_example_has_rows_on_both_sides_of_as_of(column):
    days = pd.to_datetime(pd.read_csv(ROOT / "examples/parcels.csv")[column]).dt.date
    assert days.min() < date(2013, 6, 30) < days.max()
