"""Oracle: the rules themselves; every wrong value must be named together with its remedy."""

import re
import subprocess
import sys
from dataclasses import asdict

import pytest
from pydantic import ValidationError

from model.settings import PRESETS, NetworkSettings, PretrainingSettings, TrainingSettings
from tasks.params.messages import mistakes_of


def test_width_that_heads_cannot_share_is_refused_with_the_nearest_widths():
    with pytest.raises(
        ValueError, match=r"d_model must be a multiple of n_heads, got d_model=100, n_heads=8; use 96 or 104"
    ):
        NetworkSettings(d_model=100, n_heads=8)


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(ValidationError) as error:
        NetworkSettings(n_layers=0, dropout=1.5, pooling="max")
    assert [each["loc"] for each in error.value.errors()] == [("n_layers",), ("dropout",), ("pooling",)]


@pytest.mark.parametrize(
    ("settings", "wrong", "message"),
    [
        (PretrainingSettings, {"mask_fraction": 0.0}, "mask_fraction must lie between 0 and 1, got 0.0"),
        (PretrainingSettings, {"batch_tokens": 3}, "batch_tokens must be at least 64, got 3; use 64 or more"),
        (PretrainingSettings, {"epochs": 0}, "epochs must be above 0, got 0"),
        (TrainingSettings, {"learning_rate": 0}, "learning_rate must be above 0, got 0"),
        (TrainingSettings, {"patience_steps": 0}, "patience_steps must be at least 1, got 0"),
        (TrainingSettings, {"l1": -1.0}, "l1 must be at least 0, got -1.0; use 0 or more"),
        (TrainingSettings, {"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1.0"),
        (TrainingSettings, {"class_weights": "even"}, "class_weights must be one of none, balanced, got 'even'"),
        (TrainingSettings, {"epochs": "two"}, "epochs must be a number, got 'two'"),
        (TrainingSettings, {"epochs": 0}, "epochs must be above 0 without probe, got 0"),
        (TrainingSettings, {"seed": 1.5}, "seed must be a whole number, got 1.5"),
        (TrainingSettings, {"refit": True, "probe": True, "epochs": 0}, "refit must be false with epochs 0"),
        (TrainingSettings, {"wide_penalty": 0.0}, "wide_penalty must be above 0, got 0.0"),
        (NetworkSettings, {"wide_tokens": -1}, "wide_tokens must be at least 0, got -1; use 0 or more"),
        (NetworkSettings, {"norm_first": 1}, "norm_first must be true or false, got 1"),
    ],
)
def test_wrong_value_is_named_with_its_rule(settings, wrong, message):
    """As a person reads it: params.yaml is where these values are written."""
    with pytest.raises(ValidationError) as error:
        settings(**wrong)
    (line,) = mistakes_of(error.value, settings, ())
    assert re.match(message, line), line


def test_a_whole_number_may_stand_for_a_fraction():
    assert TrainingSettings(epochs=3).epochs == 3


def test_presets_hold_the_sizes_that_products_name():
    assert {"small", "minilm", "base"} <= set(PRESETS)


def test_importing_settings_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'onnxruntime', 'sklearn'}"
    code = f"import sys, model.settings; print(*sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


@pytest.mark.parametrize(
    ("n_tokens", "is_imported", "epochs", "learning_rate", "batch_tokens"),
    [
        (1, False, 30, 1e-3, 16384),
        (100_000, False, 20, 1e-3, 16384),
        (10**9, False, 2, 1e-3, 16384),
        (1, True, 2, 1e-4, 2048),
    ],
)
def test_what_is_left_open_follows_the_number_of_rows(n_tokens, is_imported, epochs, learning_rate, batch_tokens):
    plan = TrainingSettings().for_rows(n_tokens, is_imported=is_imported)
    assert (plan.epochs, plan.learning_rate, plan.batch_tokens) == (epochs, learning_rate, batch_tokens)


@pytest.mark.parametrize(
    ("n_rows", "by_time", "refit"), [(20_000, True, True), (20_001, True, False), (9, False, False)]
)
def test_refit_that_is_left_open_follows_dates_and_rows(n_rows, by_time, refit):
    assert TrainingSettings().with_refit(n_rows, by_time=by_time).refit is refit
    assert TrainingSettings(refit=not refit).with_refit(n_rows, by_time=by_time).refit is not refit
    probe = TrainingSettings(probe=True, epochs=0)
    assert not probe.with_refit(n_rows, by_time=by_time).refit


def test_what_is_declared_stays_whatever_the_number_of_rows():
    declared = TrainingSettings(
        epochs=0.0, probe=True, refit=False, learning_rate=0.5, batch_tokens=99, weight_decay=0.0, l1=0.1
    )
    for n_tokens in (0, 10**9):
        plan = declared.for_rows(n_tokens, is_imported=True)
        assert {name: value for name, value in asdict(declared).items() if getattr(plan, name) != value} == {}
        assert plan.for_rows(7) == plan
