"""Oracle: what was published, on a real S3 server; differences and pins worked by hand. All of it: test_pipeline.py."""

import importlib.metadata
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import TINY
from conftest import ROOT
from test_publish import AS_OF, make_night, place, two_nights, url  # noqa: F401

from tasks import params
from tasks.commands.nights import recreate as module
from tasks.commands.nights.differences import differing_cells
from tasks.commands.nights.trace import find
from tasks.publication.night import read_night
from tasks.publication.object_store import Store
from tasks.rows.partitions import write_table
from tasks.runtime.errors import UserError
from tasks.runtime.files import file_sha256, write_json
from tasks.runtime.paths import Paths
from tasks.training.checkpoints import PLAN


def test_every_address_leads_to_the_manifest_that_names_it(url, two_nights):  # noqa: F811
    first, second = two_nights
    current = find(f"{url}/tiny/dt=2024-02-10/_manifest.json")
    assert (current.manifest, current.is_current, current.part) == (second, True, None)
    before = find(Store(url).uri(place(url).history(1)))
    assert (before.manifest, before.is_current) == (first, False)
    for manifest in two_nights:
        found = find(f"s3://lamplighter/{manifest.parts[2].key}")
        assert (found.manifest, found.part) == (manifest, manifest.parts[2])


@pytest.mark.parametrize(
    "end",
    [
        "",
        "/tiny/dt=2024-02-10/run=ab-000001/part-00000.parquet",
        "/tiny/dt=2024-02-10/x",
        "/tiny/dt=2024-13-01/_manifest.json",
    ],
)
def test_address_that_leads_nowhere_is_refused(s3_here, end):
    with pytest.raises(UserError, match=r"must be (the address of )?a manifest or a part"):
        find(f"s3://lamplighter/{uuid.uuid4().hex}{end}")


def test_night_that_was_published_by_hand_cannot_be_made_again(url, two_nights):  # noqa: F811
    with pytest.raises(UserError, match="must have been published by a run, and was by hand"):
        module.recreate(f"{url}/tiny/dt=2024-02-10/_manifest.json")


def test_equal_night_has_no_differences(url, two_nights):  # noqa: F811
    folder = Paths("tiny").predictions
    published = find(f"{url}/tiny/dt=2024-02-10/_manifest.json")
    assert module._differences(published, read_night(folder), folder) == []


def test_differences_are_shown_from_cause_to_row(url, two_nights):  # noqa: F811
    folder = Paths("tiny").predictions
    night = read_night(folder)
    published = find(f"{url}/tiny/dt=2024-02-10/_manifest.json")
    part = folder / "part-00001.parquet"
    table = pd.read_parquet(part)
    before = table.loc[2, "probability"]
    table.loc[2, "probability"] = before + 0.5
    write_table(part, table)
    parts = list(night.parts)
    parts[1] = replace(parts[1], sha256=file_sha256(part))
    engine = replace(night.inputs.engine, engine="another")
    night = replace(night, parts=tuple(parts), inputs=replace(night.inputs, engine=engine))
    shown = module._differences(published, night, folder)
    assert shown == [
        "input engine.engine: was onnxruntime, is another",
        f"part-00001.parquet: probability in 1 of 3 rows, first in row 2: was {before!r}, is {before + 0.5!r}",
    ]
    write_table(part, table.head(1))
    assert module._differences(published, night, folder)[1] == "part-00001.parquet: rows were 3, are 1"
    Store(url).delete(Store(url).key_of(published.manifest.parts[1].key))
    assert "in the store no more" in module._differences(published, night, folder)[1]


def test_packages_that_a_revision_pins_otherwise_are_named(tmp_path):
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path / name)
    assert module._differing_pins(tmp_path) == [], "what is installed is what is pinned"
    text = (tmp_path / "constraints.txt").read_text()
    numpy = importlib.metadata.version("numpy")
    (tmp_path / "constraints.txt").write_text(text.replace(f"numpy=={numpy}", "numpy==1.0") + "never-heard-of==1\n")
    assert module._differing_pins(tmp_path) == [f"numpy 1.0 (installed: {numpy})"]
    pyproject = (tmp_path / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(pyproject.replace('"numpy",', '"numpy", "Never_Heard.of",'))
    assert "never-heard-of 1 (installed: none)" in module._differing_pins(tmp_path)


def test_training_again_takes_the_steps_that_a_clock_had_decided(tmp_path):
    class Pulled(module.Clone):
        def pull_dependencies(self, name):
            for folder, epochs in ((Paths("tiny").trained, 1.5), (Paths("tiny").pretrained, 0.25)):
                (self.folder / folder).mkdir(parents=True, exist_ok=True)
                write_json(self.folder / folder / PLAN, {"epochs": epochs})

    clone = Pulled(folder=tmp_path, product="tiny", python=Path("python"))
    params_file = tmp_path / "params.yaml"
    params_file.write_text(TINY)
    module._pin_steps(clone)
    assert params_file.read_text() == TINY, "no clock had a part in it"
    params_file.write_text(TINY.replace("init: pretrain", "init: pretrain\n      minutes: 2"))
    module._pin_steps(clone)
    model = params.loads(params_file.read_text()).product("tiny").model
    assert (model.minutes, model.train.epochs, model.pretrain.epochs) == (None, 1.5, 0.25)


def test_cells_that_are_lists_differ_as_a_whole():
    def rows(*tokens):
        return pd.DataFrame({"id": ["a", "b", "c"], "tokens": [*map(np.array, tokens), None]})

    assert differing_cells(rows([1, 2], [3]), rows([1, 2], [3])) == ""
    shown = differing_cells(rows([1, 2], [3]), rows([1, 2], [3, 4]))
    assert shown == "tokens in 1 of 3 rows, first in row 1: was array([3]), is array([3, 4])"
