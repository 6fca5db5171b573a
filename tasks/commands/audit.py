"""Audit the packages that the project depends on: known vulnerabilities of every pin, and every package's licence.

make audit       asks PyPI's vulnerability database through pip-audit
make licences    writes LICENCES.md from the installed packages' own metadata
"""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NotRequired, TypedDict

from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import atomic_file

PINS, LICENCES = Path("constraints.txt"), Path("LICENCES.md")
PIP_AUDIT = "pip-audit==2.10.1"


class Vulnerability(TypedDict):
    """A known vulnerability of a package, as pip-audit reports it."""

    id: str
    fix_versions: list[str]


class Audited(TypedDict):
    """A package in pip-audit's answer; one that it skipped has neither version nor vulnerabilities."""

    name: str
    version: NotRequired[str]
    vulns: NotRequired[list[Vulnerability]]
    skip_reason: NotRequired[str]


def audit() -> str:
    """Look every pin up in the vulnerability database.

    Raises UserError where a pin has a known vulnerability, TransientError where the database did not answer.
    """
    uv = Path(sys.executable).parent / "uv"
    arguments = ["-r", str(PINS), "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [str(uv), "tool", "run", "--quiet", "--from", PIP_AUDIT, "pip-audit", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return report_vulnerabilities(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        raise TransientError(f"pip-audit gave no answer; {done.stderr.strip()[-500:]}") from None


def report_vulnerabilities(packages: list[Audited]) -> str:
    """Sum up pip-audit's answer; a package that it skipped is not one without vulnerabilities.

    Raises as `audit` does.
    """
    found = [
        f"  {each['name']} {each['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'no version'}"
        for each in packages
        for one in each.get("vulns", [])
    ]
    if found:
        raise UserError("constraints.txt must pin no version with a known vulnerability:\n" + "\n".join(found))
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    if skipped or not packages:
        raise TransientError(
            f"the vulnerability database did not answer for {len(skipped)} of {len(packages)} packages "
            f"({', '.join(skipped[:3])} ...): they are not audited; run it where pypi.org can be reached"
        )
    return f"{len(packages)} packages, none with a known vulnerability"


def licences() -> str:
    """Write LICENCES.md: every pin that is installed, with its licence; return a line about it."""
    names = re.findall(r"^([A-Za-z0-9._-]+)==", PINS.read_text("utf-8"), flags=re.MULTILINE)
    rows, absent = [], []
    for name in names:
        try:
            about = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
        else:
            rows.append(f"| {name} | {about['Version']} | {licence_of(about)} |")
    lines = [
        "# Licences\n",
        "What the pinned packages say of themselves; `make licences` writes this file.",
        f"Not installed where it was written: {', '.join(absent) or 'none'}.\n",
        "| package | version | licence |\n|---|---|---|",
        *rows,
    ]
    with atomic_file(LICENCES) as temporary:
        temporary.write_text("\n".join(lines) + "\n", "utf-8")
    return f"{LICENCES}: {len(rows)} packages"


def licence_of(about: metadata.PackageMetadata) -> str:
    """Return a package's licence by its expression, its classifiers, or its own words, in that order."""
    if about["License-Expression"]:
        return str(about["License-Expression"])
    classified = [line.rpartition(":: ")[2] for line in about.get_all("Classifier") or [] if line.startswith("License")]
    own = (about["License"] or "").strip().splitlines()
    return ", ".join(classified) or (own[0][:80] if own else "not declared")
