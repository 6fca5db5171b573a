"""List the runs that the origin keeps as DVC experiments, and the workspaces on this disk."""

import dataclasses
import re
import tempfile
from functools import lru_cache
from pathlib import Path

from pydantic.dataclasses import dataclass

from tasks import params
from tasks.runtime.git import git
from tasks.runtime.records import RECORD, Record
from tasks.runtime.settings import settings


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Run(Record):
    """The facts of a run that its tasks share; small enough to pass through XCom."""

    name: str
    """The experiment's name: <product>-<as_of>-<kind>-<8 hex>."""
    product: str
    """The product's name."""
    as_of: str
    """YYYY-MM-DD."""
    revision: str
    """The commit whose code, params.yaml and dvc.yaml the run uses."""
    shards: int
    """The most part files of the night; how many there are follows from its rows."""
    force: bool = False
    """Whether stages run even where nothing has changed."""
    champion: str | None = None
    """For predict: the commit of the experiment whose model scores, the same one through the whole run."""
    model_version: str | None = None
    """The champion's version in the registry."""
    generation: int | None = None
    """For predict: the fencing token that the run acquired for its night; see `tasks.publication.manifests`."""
    raw_commit: str | None = None
    """The experiment whose raw data the run carries on, of this as_of or a later one: a log, of which the run sees what
    was known on its own as_of. None: those of the product's newest run before it."""
    backfill: int | None = None
    """Airflow's number of the backfill that the night belongs to, if its source is asked once for all nights."""
    backfill_until: str | None = None
    """The as_of of that backfill's last night."""
    commit: str | None = None
    """The experiment's commit as the run's newest stage saved it; known to the commands that a step starts."""
    approver: str | None = None
    """The person who lets the model predict; known to promote."""
    approved: str | None = None
    """The name of the figures that this person has approved; None where the person was named before there were any."""

    @property
    def workspace(self) -> Path:
        """Return the run's clone."""
        return settings().home / "runs" / self.name

    @property
    def reference(self) -> str:
        """Return the git reference under which DVC keeps the experiment."""
        return f"refs/exps/{self.revision[:2]}/{self.revision[2:]}/{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
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
    """The commit whose dvc.lock names all that the run made."""


@lru_cache(maxsize=2)
def _declared(text: str) -> params.Params:
    """Return what a params.yaml declares; a command asks for the same one several times."""
    return params.loads(text)


def head() -> tuple[str, params.Params]:
    """Return the origin's newest commit and the products that it declares.

    A working tree, or a worker's image, may declare others.
    """
    with tempfile.TemporaryDirectory() as folder:
        git("clone", "--quiet", "--bare", "--depth", "1", settings().origin, folder)
        revision = git("rev-parse", "HEAD", cwd=Path(folder)).strip()
        return revision, _declared(git("show", f"HEAD:{params.PARAMS_FILE}", cwd=Path(folder)))


def saved_in_origin(run: Run) -> str | None:
    """Return the commit of a run's experiment as the origin has it; None where no stage of it has been saved."""
    found = git("ls-remote", settings().origin, run.reference).split()
    return found[0] if found else None


def experiments(product: str) -> list[Experiment]:
    """Return the product's runs that the origin keeps, in no order."""
    name = re.compile(f"refs/exps/../.{{38}}/({run_name_pattern(product)})")
    listed = [line.split() for line in git("ls-remote", settings().origin, "refs/exps/*").splitlines()]
    return [
        Experiment(name=match[1], as_of=match[2], kind=match[3], reference=reference, commit=commit)
        for commit, reference in listed
        if (match := name.fullmatch(reference))
    ]


def workspaces(product: str) -> list[Path]:
    """Return the product's workspaces on this disk, newest first."""
    name = re.compile(run_name_pattern(product))
    found = [path for path in settings().home.glob(f"runs/{product}-*") if path.is_dir() and name.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def run_name_pattern(product: str) -> str:
    """Return the pattern of the names of the product's runs; its groups are as_of and kind."""
    return rf"{re.escape(product)}-(\d{{4}}-\d\d-\d\d)-(train|predict)-[0-9a-f]{{8}}"
