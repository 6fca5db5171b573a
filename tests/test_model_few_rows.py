"""Oracle: what a training of few rows did, as its own steps, losses and calls tell it, against the rules in words."""

from dataclasses import replace

import numpy as np
import pytest

from model.features.fitted import Features
from model.network.network import Network
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.target import Target
from model.training import calibration
from model.training import train as training
from model.training.calibration import calibrated
from model.training.fit import Fit, LabelledRows
from model.training.optimisation import Optimisation
from model.training.steps import SMALLEST_BATCH_ROWS, epoch_batches
from model.training.train import N_FOLDS, _train_lengths, is_trained_by_folds, train

SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=16, dropout=0.0)
N_ROWS, N_UNSEEN = 60, 12


@pytest.fixture(scope="module")
def rows():
    """Features, training rows of which a label in five is wrong, and a few rows to validate on."""
    random = np.random.default_rng(0)
    table = {"size": random.normal(size=N_ROWS + N_UNSEEN), "weight": random.normal(size=N_ROWS + N_UNSEEN)}
    y = ((table["size"] > 0) ^ (random.random(N_ROWS + N_UNSEEN) < 0.2)).astype(np.int64)
    features = Features.fit({"size": "number", "weight": "number"}, table, None, "binary", max_tokens=8)
    parts = [
        LabelledRows(features.encode({name: column[at] for name, column in table.items()}), y[at])
        for at in (slice(N_ROWS), slice(N_ROWS, None))
    ]
    return features, *parts


def fresh(features):
    return Network(SMALL, features.sizes, Target(task="binary", classes=("no", "yes")), seed=0)


def test_steps_are_of_sixteen_rows_where_these_are_little_work(rows):
    _, fitted, _ = rows
    plan = TrainingSettings().for_rows(int(fitted.encoded.n_tokens.sum()))
    much, little = (epoch_batches(fitted.encoded, plan, 0, most) for most in (0, 10**6))
    assert max(map(len, much)) < SMALLEST_BATCH_ROWS // 2
    assert min(map(len, little)) >= SMALLEST_BATCH_ROWS // 2
    assert len(little) == -(-N_ROWS // SMALLEST_BATCH_ROWS)
    # Pretraining, whose loss is of a part of the cells alone, keeps its many steps.
    pretraining = epoch_batches(fitted.encoded, PretrainingSettings(epochs=1), 0, 10**6)
    assert len(pretraining) == len(much)


@pytest.mark.parametrize(("losses", "kept"), [((3.0, 4.0, 1.0), 0.25), ((3.0, 2.0, 1.0), 0.75), ((3.0, 2.0, 5.0), 0.5)])
def test_no_length_is_tried_after_one_that_was_no_better(rows, losses, kept):
    features, fitted, _ = rows
    plan = TrainingSettings().for_rows(int(fitted.encoded.n_tokens.sum()))
    plan, left = replace(plan, epochs=0.75, lengths=(0.25, 0.5)), list(losses)
    history, epochs = _train_lengths(
        Fit(fresh(features), features, fitted, plan), None, lambda: left.pop(0), None, None, None
    )
    assert (epochs, history[-1]["val_loss"]) == (kept, losses[[0.25, 0.5, 0.75].index(kept)])
    assert len(left) == (1 if losses[1] > losses[0] else 0)


@pytest.fixture(scope="module")
def trained(rows):
    """What each training took of its epochs, its history, and how many rows calibrated probabilities."""
    features, fitted, unseen = rows
    taken, calibrating, run = [], [], Optimisation.run

    def watched_run(optimisation, *given, **named):
        history = run(optimisation, *given, **named)
        taken.append((optimisation.step / optimisation.steps_per_epoch, history))
        return history

    def watched_calibration(target, logits, y, *given):
        calibrating.append(len(y))
        return calibrated(target, logits, y, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Optimisation, "run", watched_run)
        for module in (training, calibration):
            patch.setattr(module, "calibrated", watched_calibration)
        settings = TrainingSettings(epochs=4, learning_rate=0.05)
        assert is_trained_by_folds(fresh(features), fitted, unseen)
        train(fresh(features), features, fitted, unseen, settings, companion=True)
    return taken, calibrating


def test_folds_end_with_the_epoch_whose_weights_were_kept(trained):
    (whole, history), *folds = trained[0]
    kept = min(history, key=lambda entry: entry["val_loss"])["epoch"]
    assert kept < whole
    assert [epochs for epochs, _ in folds] == [kept] * N_FOLDS


def test_probabilities_are_calibrated_on_all_rows_that_judged_the_blend(trained):
    assert trained[1] == [N_ROWS + N_UNSEEN]


def test_texts_alone_are_weighed_and_calibrated_on_all_rows_by_folds(monkeypatch):
    random, calibrating = np.random.default_rng(0), []
    is_late = random.random(N_ROWS + 4) < 0.5
    notes = np.array(
        [f"{random.choice(['van', 'lorry'])} {'stuck' if late else 'moves'} {random.integers(9)}" for late in is_late],
        object,
    )
    features = Features.fit({"note": "text"}, {"note": notes}, None, "binary", max_tokens=8, wide_tokens=8)
    fitted, unseen = (
        LabelledRows(features.encode({"note": notes[at]}), is_late[at].astype(np.int64))
        for at in (slice(N_ROWS), slice(N_ROWS, None))
    )
    monkeypatch.setattr(training, "calibrated", lambda target, logits, y: calibrating.append(len(y)) or target)
    target = Target(task="binary", classes=("no", "yes"))
    mixes = []
    for companion in (False, True):
        network = Network(replace(SMALL, wide_tokens=8), features.sizes, target, seed=0)
        settings = TrainingSettings(epochs=0.2, learning_rate=1e-9)  # the encoder has learnt nothing
        mixes.append(train(network, features, fitted, unseen, settings, companion=companion)[0].blend)
    assert calibrating == [N_ROWS + 4]
    weighed, by_folds = mixes
    assert by_folds["subwords"] > 1.5 * by_folds["transformer"]
    assert by_folds["subwords"] > weighed["subwords"]
