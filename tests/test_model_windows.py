"""Oracle: windows as rows of their own, averaged; texts whose telling word stands where one window does not reach."""

import numpy as np
import pytest
import torch

from model.features.fitted import Features
from model.network.network import Network
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.target import Target
from model.training.fit import LabelledRows
from model.training.inference import evaluate_loss
from model.training.train import pretrain, train

KINDS = {"colour": "category", "body": "text"}
SMALL = NetworkSettings(
    d_model=32, n_layers=1, n_heads=2, d_feedforward=32, pooling="mean", max_tokens=12, max_windows=4
)


def articles(n=300, seed=0):
    """Short and long texts; the third quarter of each has the word that tells."""
    random = np.random.default_rng(seed)
    fill, y = np.array(["rain", "sun", "wind", "hail", "snow"], object), random.integers(0, 2, n)
    bodies = [
        " ".join([*random.choice(fill, random.integers(15, 22)), ("win", "loss")[its], *random.choice(fill, 8)])
        for its in y
    ]
    colours = random.choice(np.array(["red", "green", None], object), n)
    return {"colour": colours, "body": np.array(bodies, object)}, y


def fitted(table, max_windows=SMALL.max_windows):
    return Features.fit(KINDS, table, None, "binary", max_tokens=SMALL.max_tokens, max_windows=max_windows)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_head_reads_the_mean_of_a_rows_windows(pooling):
    table, _ = articles(40)
    table["body"][:5] = [None, "", "sun", "sun rain", "hail " * 500]
    features = fitted(table)
    settings = NetworkSettings(d_model=16, n_layers=2, n_heads=2, d_feedforward=16, pooling=pooling)
    network = Network(settings, features.sizes, Target(task="binary", classes=("no", "yes"))).eval()
    encoded, alone = features.encode(table), fitted(table, 1)
    assert encoded.n_windows[:5].tolist() == [1, 1, 1, 1, 4]
    rows = np.random.default_rng(0).permutation(40)[:17]
    with torch.inference_mode():
        pooled = network.pooled(network.batch_of(encoded, rows))
        for row, its in zip(rows, pooled, strict=True):
            first, end = encoded.window_offsets[row : row + 2]
            parts = []
            for window in range(first, end):
                text = encoded["text"][encoded["offsets"][window] : encoded["offsets"][window + 1]]
                category = alone.encode({name: column[[row]] for name, column in table.items()})["categories"]
                batch = {
                    "categories": torch.from_numpy(category),
                    "text": torch.from_numpy(text.astype(np.int64))[None],
                }
                parts.append(network.pooled(batch)[0])
            torch.testing.assert_close(its, torch.stack(parts).mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [TrainingSettings(epochs=12, learning_rate=1e-2, batch_tokens=512), TrainingSettings(probe=True, epochs=0)],
    ids=["trained", "probed"],
)
def test_what_stands_behind_the_first_window_is_learnt(settings):
    table, y = articles()
    held_table, held_y = articles(100, seed=1)
    losses = {}
    for max_windows in (1, SMALL.max_windows):
        features = fitted(table, max_windows)
        network = Network(SMALL, features.sizes, Target(task="binary", classes=("no", "yes")), seed=0)
        encoded, held = features.encode(table), features.encode(held_table)
        network, _ = train(
            network, features, LabelledRows(encoded, y), LabelledRows(held, held_y), settings, refit=False
        )
        losses[max_windows] = evaluate_loss(network, held, torch.from_numpy(held_y.astype(np.float32)), 512)
    assert losses[1] > 0.65
    assert losses[SMALL.max_windows] < 0.9 * losses[1]


def test_pretraining_reads_every_window_and_is_the_same_bytes_again():
    table, _ = articles()
    settings = PretrainingSettings(epochs=4, batch_tokens=1024, learning_rate=3e-3)
    features = fitted(table)
    (network, history), (other, again) = (pretrain(features, features.encode(table), SMALL, settings) for _ in range(2))
    assert history == again
    assert history[-1]["train_loss"] < history[0]["train_loss"] < 1.1
    weights = other.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in network.state_dict().items())


def test_a_model_of_before_windows_is_read_as_one_without(tmp_path):
    table, _ = articles(20)
    fitted(table, 1).save(tmp_path)
    file = tmp_path / "features.json"
    file.write_text(file.read_text().replace(' "max_windows": 1,\n', ""))
    assert "max_windows" not in file.read_text()
    assert Features.load(tmp_path).fitted["text"].reading.max_windows == 1
    assert Features.load(tmp_path).encode(table).window_offsets is None
