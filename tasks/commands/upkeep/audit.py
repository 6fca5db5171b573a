"""Audit the packages that the project depends on: known vulnerabilities of every pin, and every package's licence.

make audit                    asks PyPI's vulnerability database through pip-audit
make audit DATABASE=all.zip   asks a copy of OSV's records instead, without a network:
                              https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip
make licences                 writes LICENCES.md from the installed packages' own metadata
"""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NotRequired, TypedDict

from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

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


Event = dict[str, str]
"""Of OSV: the version at which a vulnerability is introduced, fixed or last affects, by that word."""


class Range(TypedDict):
    """Versions between events, as OSV records them."""

    type: str
    events: list[Event]


class Affected(TypedDict):
    """A package and those of its versions that are affected, as OSV records them."""

    package: NotRequired[dict[str, str]]
    ranges: NotRequired[list[Range]]
    versions: NotRequired[list[str]]


class Record(TypedDict):
    """A vulnerability, as OSV records it."""

    id: str
    modified: str
    withdrawn: NotRequired[str]
    affected: NotRequired[list[Affected]]


def audit(database: str = "") -> str:
    """Look every pin up in PyPI's vulnerability database, or in a copy of OSV's.

    Raises UserError where a pin has a known vulnerability, TransientError where the database did not answer.
    """
    if database:
        return audit_offline(Path(database))
    uv = Path(sys.executable).parent / "uv"
    arguments = ["-r", str(PINS), "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [str(uv), "tool", "run", "--quiet", "--from", PIP_AUDIT, "pip-audit", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return report_vulnerabilities(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        raise TransientError(f"pip-audit gave no answer; {done.stderr.strip()[-500:]}") from None


def audit_offline(database: Path) -> str:
    """Look every pin up in a copy of OSV's records, a ZIP of JSON files; the line says of when it is.

    Raises UserError where a pin has a known vulnerability, and where the file is no such copy.
    """
    try:
        with zipfile.ZipFile(database) as archive:
            records: list[Record] = [
                json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")
            ]
        newest = max(record["modified"] for record in records)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{database} must be OSV's records of PyPI as a ZIP, and is not ({error}); get it, where a network is, "
            "from https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip"
        ) from None
    counted = report_vulnerabilities(list(look_up(_pins(), records)))
    return f"{counted}, in {len(records):,} records of which the newest is of {newest[:10]}"


def look_up(pins: dict[str, str], records: Iterable[Record]) -> Iterator[Audited]:
    """Yield each pin, by name and version, with those of OSV's records that are of its version.

    >>> event = [{"introduced": "0"}, {"fixed": "1.10"}]
    >>> package = {"package": {"ecosystem": "PyPI", "name": "A.b"}, "ranges": [{"type": "ECOSYSTEM", "events": event}]}
    >>> [each["vulns"] for each in look_up({"a-b": "1.9", "c": "1"}, [{"id": "X", "affected": [package]}])]
    [[{'id': 'X', 'fix_versions': ['1.10']}], []]
    """
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    found: dict[NormalizedName, list[Vulnerability]] = {name: [] for name in versions}
    for record in records:
        for affected in record.get("affected", []) if "withdrawn" not in record else []:
            of = canonicalize_name(affected.get("package", {}).get("name", ""))
            if of in found and _is_affected(versions[of], affected):
                events = [event for each in affected.get("ranges", []) for event in each["events"]]
                fixed = [event["fixed"] for event in events if "fixed" in event]
                found[of].append({"id": record["id"], "fix_versions": fixed})
    for name, vulnerabilities in found.items():
        yield {"name": name, "version": versions[name], "vulns": vulnerabilities}


def _is_affected(version: str, affected: Affected) -> bool:
    if version in affected.get("versions", []):
        return True
    return any(_is_within(version, each["events"]) for each in affected.get("ranges", []) if each["type"] != "GIT")


def _is_within(version: str, events: list[Event]) -> bool:
    """Return whether the events, in the order of their versions, leave the version affected."""
    ordered = sorted(((_version(text), kind) for event in events for kind, text in event.items()), key=lambda e: e[0])
    is_in, pinned = False, _version(version)
    for bound, kind in ordered:
        if kind == "introduced" and pinned >= bound:
            is_in = True
        if (kind == "fixed" and pinned >= bound) or (kind == "last_affected" and pinned > bound):
            is_in = False
    return is_in


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:  # a few records of old: before all others, so that nothing is missed
        return Version("0")


def _pins() -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", PINS.read_text("utf-8"), flags=re.MULTILINE))


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
    rows, absent = [], []
    for name in _pins():
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
