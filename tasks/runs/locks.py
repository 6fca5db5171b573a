"""Name and hold the locks of a run's workspace.

The locks are fcntl's and not the library filelock's: their descriptors are inherited by the programs that work in the
workspace. Where the task that holds a lock is killed, its programs go on holding it, and a retry waits until they have
ended too. filelock's descriptors cannot be inherited.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.runs.experiments import Run
from tasks.runtime.settings import settings


@contextmanager
def locked(file: Path, mode: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the lock of a file. Raises BlockingIOError where another process does and `mode` has LOCK_NB."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        os.set_inheritable(handle.fileno(), True)
        fcntl.flock(handle, mode)
        yield


def removal_lock() -> Path:
    """Return the lock shared by all tasks of this machine, and held alone to remove data that nobody needs.

    A task saves its data before the experiment that names them: removed in between they would be lost.
    """
    return settings().home / "removal.lock"


def workspace_lock(workspace: Path) -> Path:
    """Return the lock of the one process that restores the workspace or works in it alone."""
    return workspace.with_suffix(".lock")


def shared_lock(workspace: Path) -> Path:
    """Return the lock shared by all who work in the workspace side by side, and held alone to delete it."""
    return workspace.with_suffix(".shared-lock")


def dirty_flag(run: Run) -> Path:
    """Return the file that exists while a process restores or works; one that was killed leaves it behind."""
    return run.workspace.with_suffix(".at-work")


def commit_file(run: Run) -> Path:
    """Return the file with the experiment's commit that the workspace is at; it exists once the clone is complete."""
    return run.workspace / ".git" / "lamplighter"


def changed_flag(run: Run) -> Path:
    """Return the file that names the command that failed last: what persists may be changed, and is restored."""
    return run.workspace / ".git" / "lamplighter-changed"
