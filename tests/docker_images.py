"""What the images of docker/ install and set, read from their Dockerfiles; nothing is built."""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"

# Makes Python see the named distributions and no others among those installed: their files and their metadata.
ONLY_THE_IMAGE = """
import json, sys
from importlib import metadata
from importlib.machinery import PathFinder

allowed = set(json.loads(sys.argv[1]))
inside = {str(d.locate_file(f)) for d in metadata.distributions() if name_of(d) in allowed for f in d.files or ()}
installed = tuple(p for p in sys.path if "site-packages" in p)

class ImageFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.origin and spec.origin.startswith(installed) and spec.origin not in inside:
            return None
        return spec

    @classmethod
    def find_distributions(cls, *context):
        return (d for d in PathFinder.find_distributions(*context) if name_of(d) in allowed)

sys.meta_path[sys.meta_path.index(PathFinder)] = ImageFinder
try:
    from importlib_metadata import DistributionFinder, MetadataPathFinder as backport  # Airflow reads through it
except ModuleNotFoundError:
    pass
else:
    everything = backport().find_distributions
    backport.find_distributions = staticmethod(
        lambda context=DistributionFinder.Context(): (d for d in everything(context) if name_of(d) in allowed))
"""
NAME_OF = "import re\nname_of = lambda d: re.sub('[-_.]+', '-', d.metadata['Name']).lower()\n"


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, continued lines joined and comments left out."""
    lines = [line for line in (DOCKER / dockerfile).read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def pip_installs(dockerfile: str) -> list[list[str]]:
    """The words after each `pip install` of a Dockerfile."""
    runs = [text for word, text in instructions(dockerfile) if word == "RUN"]
    return [shlex.split(part)[2:] for run in runs for part in run.split("&&") if part.strip().startswith("pip install")]


def data_packages() -> list[str]:
    """The worker image's packages of data and weights, which are an argument of its build."""
    given = dict(text.split("=", 1) for word, text in instructions("worker.Dockerfile") if word == "ARG")
    return shlex.split(given["DATA_PACKAGES"])[0].split()


def named(install: list[str]) -> list[str]:
    """The distributions that a `pip install` names itself, without options and files."""
    takes_value = {"--constraint", "--requirement", "--index-url"}
    words = [word for before, word in zip(["", *install], install, strict=False) if before not in takes_value]
    return [word for word in words if not word.startswith(("-", "$"))]


@cache
def pins() -> dict[str, str]:
    """The versions of constraints.txt."""
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return {canonicalize_name(name): version for name, version in lines}


@cache
def airflow_image() -> frozenset[str]:
    """Every distribution that the Airflow image installs, with all that these require."""
    found: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = []
    for install in pip_installs("airflow.Dockerfile"):
        if "--no-deps" in install:
            found |= {canonicalize_name(name) for name in named(install)}
        else:
            waiting += [(canonicalize_name(name), frozenset()) for name in named(install)]
    seen = set()
    while waiting:
        name, extras = item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        found.add(name)
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # needed on another platform or not at all: what it lacks here cannot be imported either
        for requirement in map(Requirement, required):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return frozenset(found)


def run_seeing_only(distributions: frozenset[str], code: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter that sees these distributions alone."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    env = inherited | {"AIRFLOW_HOME": str(home), "PYTHONPATH": str(ROOT), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    return subprocess.run(
        [sys.executable, "-c", NAME_OF + ONLY_THE_IMAGE + code, json.dumps(sorted(distributions))],
        env=env,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def environment(dockerfile: str) -> dict[str, str]:
    """The ENV of an image."""
    pairs = [pair for word, text in instructions(dockerfile) if word == "ENV" for pair in text.split()]
    return dict(pair.split("=", 1) for pair in pairs)
