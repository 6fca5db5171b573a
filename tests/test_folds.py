"""Oracle: the t interval worked out by hand, sets of groups, and the days that a fold may know."""

import json
import os
import re
import sys
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import a_product, valid_rows
from conftest import AS_OF, FIRST_DAY, ROOT, call, environment, parcels

from tasks.evaluate import evaluate
from tasks.pretrain import pretrain
from tasks.rows.splitting import split_rows
from tasks.runtime.files import remove_older_than
from tasks.runtime.paths import Paths
from tasks.split import split
from tasks.train import train
from tasks.training import cross_validation
from tasks.training.cross_validation import mean_and_interval
from tasks.training.measuring import measure

PATHS, TODAY = Paths("tiny"), date.fromisoformat(AS_OF)
BY_TIME = {"by": "time", "test_days": 5, "val_days": 4, "train_days": 12, "folds": 3}
BY_HASH = {"by": "hash", "test_fraction": 0.2, "val_fraction": 0.2, "folds": 3}


def tiny(rule):
    quick = {"epochs": 0.5, "batch_tokens": 512}
    return a_product(split=rule, model__pretrain=quick, model__train=quick)


@pytest.fixture
def valid(workspace, monkeypatch):
    """The parcels as `validate` leaves them; truths are known a day later."""
    monkeypatch.setattr("tasks.training.measuring.N_RESAMPLES", 5)
    table = parcels()
    table = table[~table["weight_kg"].isin(["heavy", "-1"])].astype({"weight_kg": "float64", "late": "Int8"})
    table["handed_in"] = table["handed_in"].astype("datetime64[s]")
    table["day"] = table["day"].astype("datetime64[s]")
    valid_rows(table, known_after_days=1)


def test_interval_is_the_t_interval_widened_by_the_share_of_test_rows():
    got = mean_and_interval([0.70, 0.72, 0.68, 0.71], 0.25)
    deviation = np.sqrt(((0.7 - 0.7025) ** 2 + 0.0175**2 + 0.0225**2 + 0.0075**2) / 3)
    reach = 3.182446 * deviation * np.sqrt(1 / 4 + 0.25)
    assert got.mean == pytest.approx(0.7025)
    assert got.interval_95 == pytest.approx([0.7025 - reach, 0.7025 + reach])


def test_folds_by_hash_test_every_row_once(valid):
    tested = []
    for fold in cross_validation.folds(tiny(BY_HASH), TODAY):
        split(fold.product, fold.as_of)
        parts = {
            name: set(pd.read_parquet(PATHS.splits / f"{name}.parquet")["parcel_id"])
            for name in ("train", "val", "test")
        }
        assert not parts["train"] & (parts["val"] | parts["test"])
        tested += parts["test"]
    labelled = parcels().query(f"'{FIRST_DAY}' <= day < '{AS_OF}'")
    assert len(tested) == len(set(tested)) == len(labelled) - 1


@pytest.mark.long
def test_fold_by_time_trains_on_earlier_dates_and_on_nothing_after_it(valid, monkeypatch):
    product, seen = tiny(BY_TIME), {}
    for stage in (split, pretrain, train):
        stage(product, TODAY)

    def watched(product, as_of, valid, splits):
        report = split_rows(product, as_of, valid, splits)
        frames = {name: pd.read_parquet(splits / f"{name}.parquet") for name in ("train", "val", "test", "pretrain")}
        seen[as_of] = {name: frame["day"].max().date() for name, frame in frames.items()}
        return report

    monkeypatch.setattr(cross_validation, "split_rows", watched)
    before = {file: file.read_bytes() for file in [*PATHS.splits.iterdir(), *PATHS.trained.iterdir()]}
    summary = evaluate(product, TODAY)
    full = json.loads(PATHS.report("evaluation.json").read_text())
    each = full["folds"]["each"]
    assert [fold["as_of"] for fold in each] == [str(TODAY - timedelta(days=5 * i)) for i in range(3)]
    assert list(seen) == [TODAY - timedelta(days=5), TODAY - timedelta(days=10)]
    for as_of, days in seen.items():
        assert days["train"] < days["val"] < days["test"] == as_of - timedelta(days=1)
        assert days["pretrain"] <= as_of
    aucs = [fold["model"]["auc"] for fold in each]
    assert aucs[0] == round(full["model"]["auc"], 6)
    assert full["folds"]["model"]["mean"] == pytest.approx(np.mean(aucs))
    ahead = [fold["model"]["auc"] - fold["baseline"]["auc"] for fold in each]
    assert json.loads(PATHS.report("metrics.json").read_text())["folds"]["difference"] == pytest.approx(
        np.mean(ahead), abs=1e-6
    )
    assert f"3 folds: auc {np.mean(aucs):.4f}" in summary
    assert before == {file: file.read_bytes() for file in before}
    assert not list(cross_validation.folder().iterdir())


@pytest.mark.long
def test_fold_that_was_measured_is_not_trained_again_unless_its_inputs_change(valid, monkeypatch):
    trained = []

    def interrupted(fold, home):
        trained.append(fold.number)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return measure_fold(fold, home)

    product, measure_fold = tiny(BY_TIME), cross_validation.measure_fold
    for stage in (split, pretrain, train):
        stage(product, TODAY)
    own = measure(product, PATHS)
    monkeypatch.setattr(cross_validation, "measure_fold", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_validation.cross_validate(product, TODAY, own)
    monkeypatch.setattr(cross_validation, "measure_fold", measure_fold)
    (first,) = cross_validation.folder().glob("tiny-*/fold-1.json")
    first.write_text(re.sub(r'"train": \d+', '"train": 123456', first.read_text()))
    assert cross_validation.cross_validate(product, TODAY, own).each[1].rows["train"] == 123456
    identity = cross_validation.folds_fingerprint(product, TODAY)
    assert cross_validation.folds_fingerprint(product, TODAY - timedelta(days=1)) != identity
    other = replace(product, model=replace(product.model, train=replace(product.model.train, seed=1)))
    assert cross_validation.folds_fingerprint(other, TODAY) != identity


def test_folds_outlive_the_workspace_and_what_nobody_took_up_again_does_not_last(valid):
    code = "from tasks.training import cross_validation; print(cross_validation.folder())"
    env = environment(Path("/elsewhere"), PYTHONPATH=str(ROOT))
    assert call([sys.executable, "-c", code], Path.cwd(), env) == "/elsewhere/folds\n"
    for name, days in (("old", cross_validation.KEPT_DAYS + 1), ("new", 0)):
        (cross_validation.folder() / name).mkdir(parents=True)
        then = time.time() - days * 86400
        os.utime(cross_validation.folder() / name, (then, then))
    remove_older_than(cross_validation.folder(), cross_validation.KEPT_DAYS)
    assert [path.name for path in cross_validation.folder().iterdir()] == ["new"]
