"""Oracle: the same product from random weights, and the baseline, on the same held-out rows; the articles' files."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

from model.network.store import load_model
from tasks import params
from tasks.rows.partitions import write_table
from tasks.runtime.paths import Paths
from tasks.sources import news
from tasks.training.fine_tuning import fine_tune
from tasks.training.measuring import measure
from tasks.training.pretraining import pretrain, weights_folder

DECLARED = params.load(ROOT / "params.yaml")
PRODUCT = DECLARED.product("headlines")
FIRST = date(2013, 1, 1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the product as declared, and from random weights, reaches on the same held-out rows; and its model."""
    rows = news.headlines(None, DECLARED.as_of).dropna(subset=["topic"]).drop_duplicates("headline")
    rows = rows.sample(frac=1, random_state=0).assign(arrived=pd.to_datetime(rows["arrived"]).astype("datetime64[s]"))
    parts = {"test": rows[:100], "val": rows[100:130], "train": rows[130:]}
    found = {}
    for init in (PRODUCT.model.init, "scratch"):
        paths = Paths("headlines", root=tmp_path_factory.mktemp("headlines"))
        for name, part in parts.items():
            write_table(paths.splits / f"{name}.parquet", part.reset_index(drop=True))
        product = replace(PRODUCT, model=replace(PRODUCT.model, init=init))
        pretrain(product, paths)
        fine_tune(product, paths)
        found[init] = measure(product, paths), load_model(paths.trained)[0]
    return found


def gain(first, second, y):
    """The share of rows that `first` alone answers rightly, less that of `second`, and its standard error."""
    difference = (first.argmax(1) == y).astype(float) - (second.argmax(1) == y)
    return difference.mean(), difference.std(ddof=1) / len(y) ** 0.5


@pytest.mark.long
@pytest.mark.parametrize("peer", ["scratch", "baseline"])
def test_imported_weights_beat_random_ones_and_the_baseline(measured, peer):
    declared, _ = measured[PRODUCT.model.init]
    others = measured["scratch"][0].scores["model"] if peer == "scratch" else declared.scores["baseline"]
    mean, error = gain(declared.scores["model"], others, declared.y)
    assert mean > 3 * error
    assert mean > 0.15


@pytest.mark.long
def test_the_encoder_that_scores_is_the_imported_one(measured):
    from safetensors.torch import load_file

    imported = load_file(weights_folder(PRODUCT) / "model.safetensors")
    _, network = measured[PRODUCT.model.init]
    assert network.blend["transformer"] > 0
    assert torch.equal(
        network.encoder.layer[5].intermediate.weight, imported["encoder.layer.5.intermediate.dense.weight"]
    )


def test_headline_is_the_first_line_and_one_in_eight_is_labelled():
    articles, found = news.rows(None, DECLARED.as_of), news.headlines(None, DECLARED.as_of)
    assert list(found["article_id"]) == list(articles["article_id"])
    assert all(
        text.startswith(headline) and "\n" not in headline
        for text, headline in zip(articles["text"], found["headline"], strict=True)
    )
    is_read = found["topic"].notna().to_numpy()
    assert is_read.mean() == pytest.approx(1 / news.READ_ONE_IN, abs=0.02)
    assert np.array_equal(found["topic"][is_read], articles["topic"][is_read])


@pytest.mark.parametrize("n_days", [0, 30])
def test_labelled_headlines_do_not_depend_on_the_days_asked_for(n_days):
    every, day = news.headlines(None, DECLARED.as_of), FIRST + timedelta(days=n_days)
    alone = news.headlines(day, day)
    pd.testing.assert_frame_equal(alone, every[every["arrived"] == day.isoformat()].reset_index(drop=True))
