"""Name and hold the locks of a run's workspace."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.runs.experiments import Run


@contextmanager
def locked(file: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the lock of a file. Raises BlockingIOError where another process does, and `how` says not to wait."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        os.set_inheritable(handle.fileno(), True)
        fcntl.flock(handle, how)
        yield


def workspace_lock(workspace: Path) -> Path:
    """Held by whoever restores the workspace or works in it alone."""
    return workspace.with_suffix(".lock")


def shared_lock(workspace: Path) -> Path:
    """Held by all who work in the workspace beside each other, and alone by whoever deletes it."""
    return workspace.with_suffix(".shared-lock")


def dirty_flag(run: Run) -> Path:
    """There while a process restores or works; left behind by one that was killed."""
    return run.workspace.with_suffix(".at-work")


def commit_file(run: Run) -> Path:
    """Holds the experiment's commit that the workspace stands at; there once the clone is complete."""
    return run.workspace / ".git" / "lamplighter"
