"""Oracle: the stage itself, without the setting, on rows that were joined by hand."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
import torch
from builders import a_product
from conftest import AS_OF, FIRST_DAY

from model.network.store import load_model, load_pretrained
from tasks.pretrain import pretrain
from tasks.rows.partitions import write_table
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths
from tasks.train import train
from tasks.training.fine_tuning import fine_tune

PATHS, TODAY = Paths("tiny"), date.fromisoformat(AS_OF)


@pytest.fixture
def parts(workspace):
    """Labelled rows of twelve days, and of the three after them, whose truth is another."""
    random, parts = np.random.default_rng(0), {}
    for name, first, n_days in (("train", 0, 12), ("val", 12, 3)):
        n = 20 * n_days
        weight = random.gamma(2.0, 3.0, n)
        days = [pd.Timestamp(FIRST_DAY + timedelta(days=first + i)).as_unit("s") for i in range(n_days)]
        parts[name] = pd.DataFrame(
            {
                "day": np.repeat(days, 20),
                "depot": random.choice(["A", "B"], n),
                "weight_kg": weight,
                "handed_in": days[0],
                "late": (weight > (6 if name == "train" else 4)).astype(int),
            }
        )
    write(parts)
    write_table(PATHS.splits / "pretrain.parquet", parts["train"])
    pretrain(product(), TODAY)
    return parts


def product(split_by="time", **training):
    quick = {"epochs": 1.5, "batch_tokens": 512, "half_life_days": 4, "keep": "last", "refit": False}
    return a_product(model__init="scratch", model__train={**quick, **training}, split={"by": split_by})


def write(parts):
    for name, rows in parts.items():
        write_table(PATHS.splits / f"{name}.parquet", rows)


def trained(**training):
    said = train(product(**training), TODAY)
    return said, load_model(PATHS.trained)[0]


def test_refit_has_the_weights_of_both_parts_and_the_scale_of_unseen_rows(parts):
    plain, first = trained()
    said, again = trained(refit=True)
    assert said == f"{plain}, then trained once more with the 60 validation rows"
    assert again.target.scale == first.target.scale
    assert (first.target.offset != (0.0,), again.target.offset) == (True, (0.0,))
    write({"train": pd.concat(parts.values(), ignore_index=True)})
    _, both = trained(calibrate=False)
    wanted = both.state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in again.state_dict().items())


def test_best_weights_learn_on_from_the_newest_rows_and_keep_what_they_knew(parts):
    _, first = trained(keep="best", epochs=6)
    said, again = trained(keep="best", epochs=6, refit=True)
    assert "then trained once more with the 60 validation rows" in said
    before, after = (torch.cat([each.flatten() for each in network.parameters()]) for network in (first, again))
    begun = load_pretrained(PATHS.pretrained, first.target, product().model.network_settings(), seed=0)[0]
    start = torch.cat([each.flatten() for each in begun.parameters()])
    assert 0 < (after - before).norm() < (before - start).norm() / 2


@pytest.mark.parametrize(
    ("by", "declared", "is_said"),
    [("time", None, True), ("time", False, False), ("hash", None, False), ("hash", True, True)],
)
def test_few_dated_rows_are_trained_on_once_more_unless_something_else_is_declared(parts, by, declared, is_said):
    said = train(product(by, refit=declared), TODAY)
    assert ("once more" in said) == is_said


def test_refit_is_left_out_where_the_validation_rows_are_to_measure(parts):
    train(product(), TODAY)
    first = folder_sha256(PATHS.trained)
    said = fine_tune(product(refit=True), PATHS, refit=False).summary
    assert "once more" not in said
    assert folder_sha256(PATHS.trained) == first
