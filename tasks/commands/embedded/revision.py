"""Say of which commit runs are made, and what of this folder is not part of it.

A run is made from the newest commit of the origin: what is not committed, or not pushed to an origin elsewhere, does
not take part. These are notes and no errors: a page of the docs may well wait for its commit. A product that the origin
does not declare at all is an error, since no run of it can be made.
"""

from pathlib import Path

from tasks import params
from tasks.runs.experiments import head
from tasks.runtime.errors import UserError
from tasks.runtime.git import git, redact_credentials, try_git
from tasks.runtime.settings import ROOT, settings

READ_BY_RUNS = (params.PARAMS_FILE.name, "dvc.yaml", "decisions/", "dags/", "tasks/", "model/", ".dvc/")
"""What of a folder decides a run: named before all else."""
SHOWN = 5


def declared_product(name: str) -> params.Product:
    """Return the product as the origin declares it. Raises UserError where only this folder does, or neither."""
    revision, declared = head()
    if name in declared.products:
        return declared.product(name)
    params.load().product(name)  # a name that is declared nowhere is told with those that are
    remedy = "commit it" if _is_origin(ROOT) else "commit it and push it there"
    raise UserError(
        f"products.{name} must be declared by the newest commit of the origin, {_named(revision)}, and only "
        f"{params.PARAMS_FILE} of this folder declares it; {remedy}"
    )


def print_uncommitted(root: Path = ROOT) -> list[str]:
    """Print a line for each kind of thing in this folder that runs are made without; return the lines."""
    revision = head()[0]
    lines = [*_uncommitted(root, revision), *([] if _is_origin(root) else _unpushed(root, revision))]
    for line in lines:
        print(line, flush=True)
    return lines


def _uncommitted(root: Path, revision: str) -> list[str]:
    changed = [line[3:] for line in git("status", "--porcelain", cwd=root).splitlines()]
    if not changed:
        return []
    changed.sort(key=lambda path: not path.strip('"').startswith(READ_BY_RUNS))
    return [
        f"note: a run is made from the last commit, {revision[:12]}; {len(changed)} uncommitted changes are not part "
        f"of it: {_first(changed)}"
    ]


def _unpushed(root: Path, revision: str) -> list[str]:
    if try_git("cat-file", "-e", f"{revision}^{{commit}}", cwd=root) is None:
        return [f"note: a run is made from {_named(revision)}, which this folder does not have yet: git pull brings it"]
    ahead = git("log", "--format=%h %s", f"{revision}..HEAD", cwd=root).splitlines()
    if not ahead:
        return []
    return [
        f"note: a run is made from {_named(revision)}; {len(ahead)} commits of this folder are not pushed there and "
        f"not part of it (git push): {_first(ahead)}"
    ]


def _first(lines: list[str]) -> str:
    return ", ".join(lines[:SHOWN]) + (f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else "")


def _is_origin(root: Path) -> bool:
    return settings().origin == str(root)


def _named(revision: str) -> str:
    return f"{revision[:12]} of {redact_credentials(settings().origin)}"
