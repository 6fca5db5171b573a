"""Oracle: answers of pip-audit as it gave them; packages' own metadata."""

import json
import re
import subprocess
import tomllib
import zipfile
from email.message import Message

import pytest
import yaml
from conftest import ROOT

from tasks.commands.upkeep.audit import audit_offline, licence_of, look_up, report_vulnerabilities
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.settings import BIN

GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-2021-108", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (1)"}


def test_vulnerability_is_named_and_what_was_not_audited_is_not_called_safe():
    assert report_vulnerabilities([GOOD]) == "1 packages, none with a known vulnerability"
    with pytest.raises(UserError, match=r"b 2: PYSEC-2021-108, mended in 3"):
        report_vulnerabilities([GOOD, BAD, SKIPPED])
    with pytest.raises(TransientError, match=r"did not answer for 1 of 2 packages \(c ...\): they are not audited"):
        report_vulnerabilities([GOOD, SKIPPED])
    with pytest.raises(TransientError, match="0 of 0"):
        report_vulnerabilities([])


@pytest.mark.parametrize(
    ("version", "is_found"),
    [("0.9", False), ("1.0", True), ("1.9", True), ("1.10", False), ("2.0", True), ("2.1", True), ("2.2", False)],
)
def test_pin_is_affected_within_the_ranges_of_a_record_alone(version, is_found):
    """By the examples of OSV's schema: `fixed` is the first that is not affected, `last_affected` the last that is."""
    of_name = {"package": {"ecosystem": "PyPI", "name": "A_b"}}
    first = {"type": "ECOSYSTEM", "events": [{"introduced": "1.0"}, {"fixed": "1.10"}]}
    second = {"type": "ECOSYSTEM", "events": [{"introduced": "2.0"}, {"last_affected": "2.1"}]}
    record = {"id": "PYSEC-1", "affected": [{**of_name, "ranges": [first, second]}]}
    (answer,) = look_up({"a-b": version}, [record])
    assert bool(answer["vulns"]) == is_found
    (answer,) = look_up({"a-b": version}, [{**record, "withdrawn": "2026-01-01T00:00:00Z"}])
    assert not answer["vulns"]


def test_offline_audit_says_of_when_the_database_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "constraints.txt").write_text("# pins\na==1\nb==2 ; python_version < '3.12'\n")
    record = {"id": "X", "modified": "2026-11-01T00:00:00Z", "affected": []}
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("X.json", json.dumps(record))
    line = audit_offline(tmp_path / "all.zip")
    assert line == "2 packages, none with a known vulnerability, in 1 records of which the newest is of 2026-11-01"
    record["affected"] = [{"package": {"ecosystem": "PyPI", "name": "b"}, "versions": ["2"]}]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("X.json", json.dumps(record))
    with pytest.raises(UserError, match=r"b 2: X, mended in no version"):
        audit_offline(tmp_path / "all.zip")
    (tmp_path / "all.zip").write_text("an error page")
    with pytest.raises(UserError, match=r"must be OSV's records of PyPI as a ZIP"):
        audit_offline(tmp_path / "all.zip")


def test_licence_is_the_expression_or_the_classifier_or_the_first_words():
    about = Message()
    assert licence_of(about) == "not declared"
    about["License"] = "BSD\nand much more"
    assert licence_of(about) == "BSD"
    about["Classifier"] = "License :: OSI Approved :: MIT License"
    assert licence_of(about) == "MIT License"
    about["License-Expression"] = "Apache-2.0"
    assert licence_of(about) == "Apache-2.0"


def test_licences_of_what_the_project_names_are_listed():
    listed = (ROOT / "LICENCES.md").read_text("utf-8")
    named = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    for name in (re.match(r"[A-Za-z0-9.-]+", each)[0] for each in named):
        assert name == "onnxruntime" or f"| {name.replace('.', '-')} | " in listed


def test_licences_are_those_of_the_pins_and_of_no_other_versions():
    """Whoever changes a pin is told here to type `make licences`."""
    listed = (ROOT / "LICENCES.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\S+) \| (\S+) \| .+ \|$", listed, flags=re.MULTILINE))
    absent = re.search(r"^Not installed where it was written: (.*)\.$", listed, flags=re.MULTILINE)[1].split(", ")
    pins = dict(
        re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    )
    assert {name: version for name, version in pins.items() if name not in absent} == {
        name: version.partition("+")[0]  # of torch: which build it is
        for name, version in rows.items()
        if name != "package"
    }


def test_release_brings_the_bill_of_materials_that_make_sbom_writes():
    workflow = ROOT / ".github" / "workflows" / "release.yml"
    check = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow]
    assert subprocess.run(check, capture_output=True, text=True, check=False).returncode == 0
    commands = [
        step["run"] for step in yaml.safe_load(workflow.read_text())["jobs"]["release"]["steps"] if "run" in step
    ]
    assert any(command.startswith("make") and "sbom" in command.split() for command in commands)
    assert any("gh release create" in command and "sbom.json" in command.split() for command in commands)
