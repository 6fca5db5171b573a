"""Restoring a new clone, killed at every label, one after the other; then it has all refs, as if nothing had been."""

import os
from multiprocessing import get_context
from pathlib import Path

from chaos_publication import labels_of
from erased_project import lived_project

from tasks.commands.upkeep import restore as command
from tasks.runtime.git import git

LABELS = sorted(labels_of("commands/upkeep/restore"), key=lambda label: label == "restore: a product is looked at")
"""In the order in which they are come to."""


def whole(folder: Path, seed: int) -> dict[str, int]:
    """Lose a machine of which git and the buckets are left; nothing in it is drawn by chance."""
    project = lived_project(folder)
    clone = folder / "new"
    git("clone", "--quiet", "--no-local", "--no-tags", str(project.origin), str(clone))
    os.chdir(clone)
    os.environ["LAMPLIGHTER_ORIGIN"] = str(clone)
    command.ROOT, command._REFS_AT_ONCE = clone, 1
    check_killed(clone, project.origin)
    return {"restores killed at a label and finished": len(LABELS)}


def check_killed(clone: Path, origin: Path) -> None:
    """Restore in processes that are killed at one label after the other, then in one that is not."""
    for label in LABELS:
        before = refs_of(clone)
        killed = get_context("fork").Process(target=_killed_at, args=(label,))
        killed.start()
        killed.join()
        assert killed.exitcode == -9, f"{label}: {killed.exitcode}"
        assert before <= refs_of(clone) <= refs_of(origin), "each ref is whole, or not there"
    assert command.restore().endswith("all is there from which the next nights are made")
    assert refs_of(clone) == refs_of(origin)


def refs_of(repository: Path) -> set[str]:
    """Experiments and tags with what they name."""
    listed = git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps", "refs/tags", cwd=repository)
    return {*listed.splitlines()}


def _killed_at(label: str) -> None:
    os.environ["LAMPLIGHTER_CRASH_AT"] = label
    command.restore()
