"""Oracle: DVC itself, which says what it runs; and params.yaml read back."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY, environment, make_project

from tasks import params
from tasks.params import effective

SHORT = """
as_of: "2024-02-10"
products:
  tiny:
    source: {kind: csv, url: source/parcels.csv}
    key: [parcel_id]
    time: day
    columns: {depot: category, weight_kg: number}
    target: {name: late, task: binary}
  other:
    source: {kind: csv, url: source/parcels.csv}
    columns: {depot: category, weight_kg: number}
    target: {name: late, task: binary}
"""


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    folder = make_project(tmp_path_factory.mktemp("project"), SHORT)
    assert ran(folder, "ingest@tiny") == ["settings@tiny", "ingest@tiny"]
    return folder


@pytest.fixture
def project(ingested, tmp_path):
    """A project whose stages have run: a copy, since to run them anew takes longer."""
    return Path(shutil.copytree(ingested, tmp_path / "copy", symlinks=True))


def ran(folder, target):
    """The stages that DVC runs for a target."""
    done = subprocess.run(
        ["dvc", "repro", target], cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"Running stage '(.*)'", done.stdout)


@pytest.mark.long
@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("tiny", "predict"), {"horizon_days": 0}, ["settings@tiny"]),
        (("tiny", "gates"), {"limit": 0.6}, ["settings@tiny"]),
        (("other", "target"), {"name": "late", "task": "multiclass"}, []),
        (("tiny", "target"), {"name": "late", "task": "multiclass"}, ["settings@tiny", "ingest@tiny"]),
    ],
    ids=["a default written out", "a setting of another stage", "another product", "a setting of the stage"],
)
def test_stage_reruns_for_a_changed_setting_of_its_own_and_nothing_else(project, place, value, expected):
    content = yaml.safe_load(SHORT)
    content["products"][place[0]][place[1]] = value
    (project / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert ran(project, "ingest@tiny") == expected


def test_every_parameter_that_dvc_reads_is_in_the_settings():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for product in (params.loads(SHORT).product("tiny"), params.loads(SHORT).product("other")):
        for stage in set(stages) - {"settings"}:
            (named,) = (each for each in stages[stage]["do"]["params"] if isinstance(each, dict))
            for place in named["data/settings/${key}.json"]:
                value = effective.effective(product)
                for step in place.split("."):
                    value = value[step]


@pytest.mark.parametrize("text", [SHORT, TINY, (ROOT / "params.yaml").read_text()], ids=["short", "tiny", "shipped"])
def test_effective_settings_declare_the_same_product(tmp_path, text):
    declared = params.loads(text)
    for product in declared.products.values():
        settings = json.loads(effective.write(product, tmp_path).read_text())
        explained = yaml.safe_load(effective.explained(product))
        for content in ({product.name: settings}, explained):
            assert params.parse({"as_of": "2024-01-01", "products": content}).products[product.name] == product


def test_entry_in_full_says_of_every_key_what_it_means():
    lines = effective.explained(params.loads(TINY).product("tiny")).splitlines()[1:]
    keys = [i for i, line in enumerate(lines) if re.match(r" +[a-z_0-9]+:", line)]
    assert len(keys) > 60
    assert [lines[i] for i in keys if not lines[i - 1].lstrip().startswith("#")] == []
