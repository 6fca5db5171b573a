"""Oracle: answers of pip-audit as it gave them; packages' own metadata."""

import re
import tomllib
from email.message import Message

import pytest
from conftest import ROOT

from tasks.commands.audit import licence_of, report_vulnerabilities
from tasks.runtime.errors import TransientError, UserError

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
