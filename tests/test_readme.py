"""Oracle: the commands and code of README.md and docs/reading.md, run."""

import json
import re
import subprocess
import sys
from datetime import date

import pandas as pd
import pytest
import yaml
from builders import a_repository, night_inputs
from conftest import ROOT, call, environment

from tasks import STAGES, params
from tasks.publication.contracts import Part
from tasks.publication.night import part_name, write_night
from tasks.publish import publish
from tasks.read import read_manifest
from tasks.rows.partitions import write_table
from tasks.runtime.files import file_sha256
from tasks.runtime.paths import Paths

README = (ROOT / "README.md").read_text("utf-8")
READING = (ROOT / "docs" / "reading.md").read_text("utf-8")


def blocks(language: str, document: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document, flags=re.DOTALL | re.MULTILINE)


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(
        re.findall(r"make ([a-z]+)\b", "\n".join([*blocks("sh"), *re.findall(r"`(make [a-z]+[^`]*)`", README)]))
    )
    assert named
    assert named <= targets


def test_make_help_lists_the_commands():
    printed = call(["make", "help"], ROOT, environment(ROOT / ".lamplighter"))
    assert all(f"make {name}" in printed for name in ("run", "test", "up", "down", "lint"))


@pytest.mark.long
@pytest.mark.parametrize("name", [*STAGES, "publish", "promote"])
def test_every_stage_has_help_that_says_what_it_does(name):
    done = subprocess.run(
        [sys.executable, "-m", f"tasks.{name}", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "product" in done.stdout
    assert len(done.stdout) > 200


def test_the_product_it_shows_is_right(tmp_path):
    entry = yaml.safe_load(blocks("yaml")[0])
    assert (
        params.parse({"as_of": "2024-01-01", "products": entry}).product("ticket-routing").target.task == "multiclass"
    )


def test_the_tree_has_every_folder_and_package_and_no_other():
    tree = README[README.index("## The tree") : README.index("## More")]
    packages = re.findall(r"^([a-z]+)/ .*\n  ((?:[a-z]+/ ?)+)$", tree, flags=re.MULTILINE)
    assert [floor for floor, _ in packages] == ["tasks", "model"]
    for floor, listed in packages:
        found = {file.parent.name for file in (ROOT / floor).glob("*/__init__.py")}
        assert {name.strip("/") for name in listed.split()} == found
    for line in re.findall(r"^((?:[\w./]+ )+) ", tree, flags=re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()), line


def test_the_dvc_commands_it_shows_are_commands_of_dvc():
    for line in re.findall(r"^(dvc [a-z]+(?: show)?)", "\n".join(blocks("sh")), flags=re.MULTILINE):
        call([*line.split(), "--help"], ROOT, environment(ROOT / ".lamplighter"))


def test_its_ways_to_read_a_night_give_the_same_rows(s3_here, tmp_path, monkeypatch):
    """A night of flight-delays as `predict` would leave it, published for real; then the README's own Python."""
    everything = params.load(ROOT / "params.yaml")
    product = everything.product("flight-delays")
    monkeypatch.chdir(tmp_path)
    a_repository(tmp_path)
    folder, report = Paths(product.name).predictions, Paths(product.name).report("validation.json")
    report.parent.mkdir(parents=True)
    report.write_text('{"scored_day": {"rows_in": 7, "rows_quarantined": 1}}')
    parts = []
    for shard in range(2):
        table = pd.DataFrame(
            {
                "flight_id": [f"{shard}{i}" for i in range(3)],
                "date": pd.Timestamp("2013-07-01"),
                "prediction": [True, False, False],
                "probability": [0.9, 0.2, 0.1],
            }
        )
        write_table(folder / part_name(shard), table)
        file = folder / part_name(shard)
        parts.append(Part(name=file.name, rows=3, bytes=file.stat().st_size, sha256=file_sha256(file)))
    inputs = night_inputs("0" * 64, everything.as_of, date(2013, 7, 1))
    write_night(product, everything.as_of, inputs, parts, folder)
    publish(product, everything.as_of)

    own, others = blocks("python", READING)
    assert blocks("python") == [own]
    program = f"{own}\nverified = sorted(frame['flight_id'])\n{others}\nimport json\n" + (
        "print(json.dumps([verified, sorted(frame['flight_id']), sorted(table['flight_id'].to_list()), sorted(rows)]))"
    )
    printed = call([sys.executable, "-c", program], ROOT, environment(tmp_path, **s3_here))
    expected = ["00", "01", "02", "10", "11", "12"]
    assert json.loads(printed.splitlines()[-1]) == [expected, expected, expected, [[False, 4], [True, 2]]]
    named = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", READING, flags=re.MULTILINE)
    manifest = read_manifest(product.publish.url, product.name, everything.as_of.isoformat())
    assert {name for row in named for name in re.findall(r"`(\w+)`", row)} == {*manifest.to_json(), "seal"}
