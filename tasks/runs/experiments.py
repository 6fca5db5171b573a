"""List the runs that the origin keeps as DVC experiments, and the workspaces on this disk."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tasks import params
from tasks.runtime.git import git
from tasks.runtime.settings import settings


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every task of a run knows of it; small enough to pass through XCom."""

    name: str
    """The experiment's name: <product>-<as_of>-<kind>-<8 hex>."""
    product: str
    """The product's name."""
    as_of: str
    """YYYY-MM-DD."""
    revision: str
    """The commit whose code, params.yaml and dvc.yaml the run uses."""
    shards: int
    """Part files of the night."""
    force: bool = False
    """Run the stages even where nothing has changed."""
    champion: str | None = None
    """For predict: the commit of the experiment whose model scores; the same one through the whole run."""
    model_version: str | None = None
    """The champion's version in the registry."""
    generation: int | None = None
    """For predict: what the run claimed for its night; see `tasks.publication.manifests`."""

    @property
    def workspace(self) -> Path:
        """The run's clone."""
        return settings().home / "runs" / self.name

    @property
    def reference(self) -> str:
        """The git reference under which DVC keeps the experiment."""
        return f"refs/exps/{self.revision[:2]}/{self.revision[2:]}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run as the origin keeps it."""

    name: str
    """<product>-<as_of>-<kind>-<8 hex>."""
    as_of: str
    """YYYY-MM-DD."""
    kind: str
    """train or predict."""
    reference: str
    """refs/exps/..."""
    commit: str
    """Its dvc.lock names all that the run made."""


def head() -> tuple[str, params.Params]:
    """The origin's newest commit and what it declares; a working tree, or a worker's image, may say otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        git("clone", "--quiet", "--bare", "--depth", "1", settings().origin, folder)
        revision = git("rev-parse", "HEAD", cwd=Path(folder)).strip()
        return revision, params.loads(git("show", f"HEAD:{params.PARAMS_FILE}", cwd=Path(folder)))


def experiments(product: str) -> list[Experiment]:
    """The product's runs that the origin keeps, in no order."""
    name = re.compile(f"refs/exps/../.{{38}}/({run_name_pattern(product)})")
    listed = [line.split() for line in git("ls-remote", settings().origin, "refs/exps/*").splitlines()]
    return [
        Experiment(name=match[1], as_of=match[2], kind=match[3], reference=reference, commit=commit)
        for commit, reference in listed
        if (match := name.fullmatch(reference))
    ]


def workspaces(product: str) -> list[Path]:
    """The product's workspaces on this disk, newest first."""
    name = re.compile(run_name_pattern(product))
    mine = [path for path in settings().home.glob(f"runs/{product}-*") if path.is_dir() and name.fullmatch(path.name)]
    return sorted(mine, key=lambda path: path.stat().st_mtime, reverse=True)


def run_name_pattern(product: str) -> str:
    """The pattern of the names of the product's runs; its groups are as_of and kind."""
    return rf"{re.escape(product)}-(\d{{4}}-\d\d-\d\d)-(train|predict)-[0-9a-f]{{8}}"
