"""Oracle: a search of its own through every file, object and version; what DVC's cache and remote still hold."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from builders import declared, to_split
from conftest import ROOT
from erased_project import Project, crown, declared_project
from test_erase import decided, erase_here, where

from tasks.erasure import disk, proof
from tasks.erasure.beside import MADE_PICTURES
from tasks.reports.kept import key_of_page
from tasks.runs import retention
from tasks.runs.experiments import experiments
from tasks.runs.registry.tags import registry_of
from tasks.runtime.paths import MADE, Paths

AS_OF, CUSTOMER, KEY = date(2024, 2, 10), "Quillfeather", "p00123"
CHANGES = {
    "columns": {"customer": "category", "lane": "category", "weight_kg": "number"},
    "target": {"task": "reconstruct"},
    "predict": {"horizon_days": 1, "make_rows": 300},
    "gates": {},
    "expectations": [],
    "model__init": "scratch",
    "model__train": {"epochs": 3, "batch_tokens": 512, "learning_rate": 0.006},
}


def deliveries(n=600):
    random = np.random.default_rng(0)
    customer = random.choice([CUSTOMER, "Ashworth", "Pemberton", "Lindqvist"], n)
    day = pd.Timestamp("2024-01-10") + pd.to_timedelta(random.integers(0, 33, n), "D")
    return pd.DataFrame(
        {
            "parcel_id": [f"p{number:05d}" for number in range(n)],
            "day": day.strftime("%Y-%m-%d"),
            "customer": customer,
            "lane": [f"{each[0]}{random.integers(2)}" for each in customer],
            "weight_kg": [len(each) * 1.5 for each in customer],
        }
    )


@pytest.fixture
def project(s3_here, tmp_path, monkeypatch):
    """A product without labels that was trained, with the rows that it has made up, and two runs that name them."""
    from tasks.evaluate import evaluate
    from tasks.export import export
    from tasks.pretrain import pretrain
    from tasks.train import train

    for name in ("ORIGIN", "CACHE", "HOME", "TASK_LOGS"):
        monkeypatch.setenv(f"LAMPLIGHTER_{name}", "")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", "")
    for module in (retention, disk, proof):
        monkeypatch.setattr(module, "ROOT", tmp_path / "here")
    monkeypatch.setattr("tasks.training.measuring.N_RESAMPLES", 20)
    monkeypatch.chdir(tmp_path)
    project, paths = declared_project(tmp_path, yaml.safe_dump(declared(**CHANGES)), deliveries()), Paths("tiny")
    for name in ("tasks", "model"):
        (project.here / name).symlink_to(ROOT / name)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    to_split(project.product, AS_OF)
    for stage in (pretrain, train, evaluate, export):
        stage(project.product, AS_OF)
    torch.set_num_threads(n_threads)
    stages = {
        "ingest": [paths.raw],
        "validate": [paths.valid, paths.quarantine, paths.report("validation.json")],
        "split": [paths.splits, paths.report("split.json")],
        "train": [paths.trained],
        "evaluate": [paths.report("evaluation.json"), paths.made_rows],
        "export": [paths.onnx],
    }
    crown(project, project.experiment(AS_OF, "train", stages))
    return project


def objects(project: Project, path: Path) -> list[Path]:
    """Where cache and remote hold the content of a file."""
    from erased_project import _md5

    name = _md5(path.read_bytes())
    return [file for file in project.base.glob(f"*/files/md5/{name[:2]}/{name[2:]}*") if file.is_file()]


@pytest.mark.long
def test_made_rows_with_an_erased_value_are_nowhere(project):
    made = Paths("tiny").made_rows / MADE
    assert (pd.read_parquet(made)["customer"] == CUSTOMER).sum() > 20
    held = objects(project, made)
    assert len(held) == 2
    assert {*map(str, held), str(made.resolve())} <= {*where(project, CUSTOMER)}
    decided(project, f"customer={CUSTOMER}")
    erase_here(project.here, f"customer={CUSTOMER}", yes=True)
    assert where(project, CUSTOMER) == []
    assert not any(file.exists() for file in (made, *held))
    with registry_of("tiny") as registry:
        assert registry.effect.banned, "its vocabulary shows the customer"


def later_run(project: Project, key: str) -> None:
    """Save a run of the next day, whose model is another one and has not learnt from a row."""
    paths = Paths("tiny")
    for file in paths.splits.glob("*.parquet"):
        rows = pd.read_parquet(file)
        rows[rows["parcel_id"] != key].reset_index(drop=True).to_parquet(file)
    (paths.onnx / "later.txt").write_text("another model")
    project.experiment(AS_OF + timedelta(days=1), "train", {"split": [paths.splits], "export": [paths.onnx]})


@pytest.mark.long
def test_made_rows_of_a_model_that_learnt_from_an_erased_row_go_too(project):
    made = Paths("tiny").made_rows / MADE
    training = pd.read_parquet(Paths("tiny").splits / "train.parquet")
    key = KEY if KEY in {*training["parcel_id"]} else training["parcel_id"].iloc[0]
    assert str(made.resolve()) not in where(project, key), "it cannot be told by the key"
    held = objects(project, made)
    columns = [*CHANGES["columns"]]
    erased = training[training["parcel_id"] == key][columns].iloc[0]
    assert (pd.read_parquet(made)[columns] == erased).all(axis=1).any(), "a made row is a copy of it"
    later_run(project, key)
    pages = [key_of_page("tiny", each.name, date.fromisoformat(each.as_of)) for each in experiments("tiny")]
    of_learnt, of_later = sorted(pages)
    for page in pages:
        project.store.update(page, lambda _: b"<p>" + MADE_PICTURES + b"</p>")
    decided(project, key)
    erase_here(project.here, key, yes=True)
    assert MADE_PICTURES not in project.store.read(of_learnt).body
    assert MADE_PICTURES in project.store.read(of_later).body
    assert where(project, key) == []
    assert not any(file.exists() for file in (made, *held))
    with registry_of("tiny") as registry:
        assert registry.effect.deprecated
        assert not registry.effect.banned
