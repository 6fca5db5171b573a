"""Oracle: a toy kind, yes or no, that is one class and one line of the list; the kinds' own files as syntax trees."""

import ast
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from sklearn.metrics import roc_auc_score
from torch import nn

from model.evaluation.baseline import fit_baseline
from model.features.batches import batches, collate
from model.features.encoded import on_disk
from model.features.fitted import Features
from model.features.kinds import KINDS, Declaration, kind_class
from model.features.kinds.base import Kind
from model.features.kinds.modules.columns import Reconstruction, normalised_cross_entropy
from model.network.network import Network
from model.network.store import load_model, load_pretrained, save_model
from model.scoring.export import export_onnx, parity
from model.scoring.scorer import Scorer
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.target import Target
from model.training.fit import LabelledRows
from model.training.masking import hide
from model.training.train import pretrain, train
from tasks.rows.casting import cast_column
from tasks.rows.model_inputs import inputs

LINE = Declaration(path=f"{__name__}:Flag", cells="str")
SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=24, dropout=0.0, max_tokens=8)
TARGET = Target(task="binary", classes=("0", "1"))
COLUMNS = {"size": "number", "paid": "flag", "colour": "category", "returned": "flag"}


class FlagTokens(nn.Module):
    """A vector for missing, no and yes of each column."""

    def __init__(self, n_columns, d_model):
        super().__init__()
        self.table = nn.Embedding(3 * n_columns, d_model)

    def forward(self, flags):
        return self.table(flags + 3 * torch.arange(flags.shape[1], device=flags.device))


class FlagReconstruction(Reconstruction):
    def __init__(self, n_columns, d_model):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(d_model, 2) for _ in range(n_columns))

    def losses(self, tokens, values, hidden, embeddings):
        return [
            normalised_cross_entropy(head(tokens[rows, column]), values[rows, column] - 1)
            for column, (head, rows) in enumerate(zip(self.heads, hidden.T, strict=True))
        ]


class Flag(Kind[str]):
    """Yes or no; of each column the commoner of the two is fitted, for the sake of having something to keep."""

    name = "flag"
    key = "commoner_flags"
    input = "flags"
    module = "flags"

    @staticmethod
    def misfits(cells):
        return ~np.isin(cells, ["yes", "no"])

    @classmethod
    def fit_column(cls, column, rows):
        return "yes" if (column == "yes").sum() > (column == "no").sum() else "no"

    @classmethod
    def encode_column(cls, column, fitted):
        return (column == "no") + 2 * (column == "yes")

    @classmethod
    def token_module(cls, sizes, d_model):
        return FlagTokens(len(sizes), d_model) if sizes else None

    @classmethod
    def known(cls, values):
        return values > 0

    @classmethod
    def reconstruction(cls, sizes, d_model):
        return FlagReconstruction(len(sizes.of(cls.name)), d_model) if sizes.of(cls.name) else None

    @classmethod
    def plain_numbers(cls, column):
        return np.where(column == "yes", 1.0, np.where(column == "no", 0.0, np.nan))[:, None]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(KINDS, "flag", LINE)


def cells(n=400, seed=0):
    """Cells as delivered, and a label that two flags decide together."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "size": random.normal(size=n),
            "paid": random.choice(["yes", "no"], n),
            "colour": random.choice(["red", "blue"], n),
            "returned": random.choice(["yes", "no", None], n, p=[0.45, 0.45, 0.1]),
        }
    )
    return frame, ((frame["paid"] == "yes") != (frame["returned"] == "yes")).to_numpy("int64")


def a_table(**of):
    frame, y = cells(**of)
    valid = pd.DataFrame({name: cast_column(frame[name], kind)[0] for name, kind in COLUMNS.items()})
    return inputs(valid, SimpleNamespace(inputs=COLUMNS)), y


def test_cell_of_the_type_that_the_kind_refuses_is_a_misfit():
    cast, misfits = cast_column(pd.Series(["yes", "perhaps", None, "no", 1]), "flag")
    assert misfits.tolist() == [False, True, False, False, True]
    assert cast.isna().tolist() == [False, True, True, False, True]


def test_cells_of_the_kind_become_arrays_and_batches(tmp_path):
    table, y = a_table()
    assert table["returned"].dtype == object
    features = Features.fit(COLUMNS, table, y, "binary", max_tokens=8)
    features.save(tmp_path)
    assert json.loads((tmp_path / "features.json").read_text())["commoner_flags"].keys() == {"paid", "returned"}
    assert Features.load(tmp_path) == features
    encoded = features.encode(table)
    assert (encoded.lengths == 1 + len(COLUMNS)).all()
    stored = on_disk([encoded, encoded], tmp_path)
    assert np.array_equal(stored["flags"], np.concatenate([encoded["flags"]] * 2))
    rows = batches(encoded, batch_tokens=64)[1]
    assert np.array_equal(collate(encoded, rows, pad_id=0)["flags"], encoded["flags"][rows])


@pytest.mark.long
def test_kind_goes_from_pretraining_to_scores_and_baseline(tmp_path):
    (table, y), (unseen, truth) = a_table(), a_table(n=150, seed=1)
    features = Features.fit(COLUMNS, table, y, "binary", max_tokens=8)
    encoded = features.encode(table)
    network, history = pretrain(features, encoded, SMALL, PretrainingSettings(epochs=2, batch_tokens=512))
    assert np.isfinite([entry["train_loss"] for entry in history]).all()
    save_model(tmp_path / "pretrained", network, features)
    network, features = load_pretrained(tmp_path / "pretrained", TARGET, SMALL, seed=0)
    rows, held = LabelledRows(features.encode(table), y), LabelledRows(features.encode(unseen), truth)
    settings = TrainingSettings(epochs=30, batch_tokens=512, learning_rate=1e-2, keep="last")
    network, _ = train(network, features, rows, held, settings)
    save_model(tmp_path / "trained", network, features)
    export_onnx(tmp_path / "trained", tmp_path / "exported")
    assert parity(tmp_path / "trained", tmp_path / "exported", [unseen]) < 1e-4
    assert roc_auc_score(truth, Scorer(tmp_path / "exported", n_threads=1).score(unseen)) > 0.95
    assert roc_auc_score(truth, fit_baseline(COLUMNS, table, y, "binary", 2, seed=0).score(unseen)) > 0.95


@pytest.mark.long
def test_pretraining_learns_the_kind_from_the_others_and_hides_no_missing_one():
    table, _ = a_table()
    table["returned"] = np.where(table["colour"] == "red", "yes", "no").astype(object)
    table["returned"][:40] = None
    features = Features.fit(COLUMNS, table, None, "binary", max_tokens=8)
    encoded = features.encode(table)
    settings = PretrainingSettings(epochs=30, batch_tokens=512, learning_rate=1e-2)
    network, history = pretrain(features, encoded, SMALL, settings)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    batch = network.batch_of(encoded, np.arange(100))
    hidden = hide(batch, network, 0.99)
    last = hidden.columns[:, -1]
    assert not last[:40].any()
    assert last[40:].float().mean() > 0.9


def test_model_of_before_the_kind_is_read_as_one_without(tmp_path):
    kinds = {"size": "number"}
    table = {"size": np.arange(50.0)}
    Features.fit(kinds, table, None, "binary", max_tokens=8).save(tmp_path)
    file = tmp_path / "features.json"
    content = json.loads(file.read_text())
    assert content.pop("commoner_flags") == {}
    file.write_text(json.dumps(content))
    assert Features.load(tmp_path).fitted["flag"].columns == {}


@pytest.mark.parametrize("name", ["category", "number", "context", "time", "text"])
def test_class_of_a_kind_has_its_name_in_the_list(name):
    assert kind_class(name).name == name


NAMED_ELSEWHERE = {
    # Labels are cast as cells of a kind, and heads lie below features.
    "model/heads/base.py": {"category"},
    "model/heads/parts/learnt_elsewhere.py": {"text"},
    "model/heads/regression.py": {"number"},
    # How a split and keys of params.yaml are called, too.
    "tasks": {"time"},
    "tasks/params/defaults.py": {"events"},
    "tasks/sources/fetch.py": {"events"},
    # A field of OSV's records of vulnerabilities.
    "tasks/commands/upkeep/audit.py": {"events"},
    # What people write where they mean a kind, and the guess of one from cells.
    "tasks/params": {"category", "number", "text"},
    "tasks/commands/data/product.py": {"category", "number", "text", "image"},
    "tasks/commands/data/source_form.py": {"number"},
    # A replay doubles the numbers of a column, as a source does that changes its unit.
    "tasks/commands/simulation/home.py": {"number"},
    # What a stored list of events is called in its JSON, and the key of a time there.
    "model/features/histories.py": {"events", "time"},
    # The number of a backfill.
    "dags/plugins/run_notes.py": {"number"},
    # A format of log lines.
    "tasks/runtime/log_lines.py": {"text"},
    # A column of the news themselves.
    "tasks/sources/news.py": {"text"},
}


def test_no_module_but_the_kinds_names_a_kind():
    names = set(KINDS) - {"flag"}
    for file in sorted(file for folder in ("model", "tasks", "dags") for file in (ROOT / folder).rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        if path.startswith("model/features/kinds/"):
            continue
        allowed = set().union(*(words for place, words in NAMED_ELSEWHERE.items() if path.startswith(place)))
        tree = ast.parse(file.read_text())
        used = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in names}
        assert used <= allowed, path


def test_the_list_of_kinds_is_read_without_numpy_and_torch():
    code = "import sys, model.features.kinds; print(sorted({'numpy', 'torch'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loaded_model_of_the_kind_scores_as_the_one_saved(tmp_path):
    table, y = a_table(n=60)
    features = Features.fit(COLUMNS, table, y, "binary", max_tokens=8)
    network = Network(SMALL, features.sizes, TARGET, seed=3).eval()
    save_model(tmp_path, network, features)
    loaded, read = load_model(tmp_path)
    with torch.inference_mode():
        expected = network.scores(network.batch_of(features.encode(table), np.arange(60)))
        assert torch.equal(loaded.scores(loaded.batch_of(read.encode(table), np.arange(60))), expected)
