"""Bring what a commit recorded from the DVC remote, and tell data that are lost from a remote that does not answer."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.runs.programs import dvc_environment
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.git import git, redact_credentials
from tasks.runtime.settings import settings
from tasks.runtime.surroundings import explained_output


class LostData(UserError):
    """Recorded data that are in neither the DVC cache nor the remote: no waiting brings them back."""

    def __init__(self, meaning: str, lost: list[str], way_out: str) -> None:
        """Name what is lost, by its meaning and its files, and what to do."""
        self.lost = lost
        named = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        super().__init__(
            f"{meaning} must be in the DVC cache or remote, and {len(lost)} files and folders are not ({named}); "
            f"restore the remote's data from a backup; or else: {way_out}"
        )


def way_out_of_lost_model(product: str, version: str, commit: str) -> str:
    """Return what a person may do where the files of a registered model are lost."""
    return (
        f"train {product} again as {version} was (commit {commit[:12]}: the same revision and as_of), whose bytes "
        f'fill the gap, or give that version up: make ban PRODUCT={product} VERSION={version} REASON="its model is '
        'lost"; then the champion before it, if there is one, takes its place'
    )


def get(commit: str, path: Path, destination: Path, meaning: str, way_out: str) -> None:
    """Bring a file or folder that a commit of the origin records, from the DVC remote or else from the cache.

    Raises LostData where both have lost it, TransientError where the remote does not answer.
    """
    command = [sys.executable, "-m", "dvc", "get", "--quiet", settings().origin, str(path)]
    refusal = _failure([*command, "--rev", commit, "--out", str(destination)])
    if refusal is None:
        return
    if known := explained_output("dvc get", refusal):
        raise known
    with _clone_at(commit) as clone:
        pull_all(clone, [str(path)], meaning, way_out)
        shutil.rmtree(destination, ignore_errors=True)
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(clone / path, destination)


def pull_all(clone: Path, paths: list[str], meaning: str, way_out: str) -> None:
    """Bring recorded data into a clone. Raises LostData where it is nowhere to be had, TransientError else."""
    refusal = _failure([sys.executable, "-m", "dvc", "pull", "--quiet", *paths], clone)
    if refusal is None:
        return
    if known := explained_output("dvc pull", refusal):
        raise known
    if lost := lost_data(clone, paths):
        raise LostData(meaning, lost, way_out)
    raise TransientError(f"the DVC remote did not give {meaning}: {refusal}")


def lost_data(clone: Path, paths: list[str]) -> list[str]:
    """Return the recorded files that are in neither the cache nor the remote; none where the remote does not answer.

    DVC's own account, as JSON: `dvc status --cloud` says nothing of a folder whose list of files is lost.
    """
    command = [sys.executable, "-m", "dvc", "data", "status", "--json", "--granular", "--not-in-remote", *paths]
    done = subprocess.run(
        command, cwd=clone, env=dvc_environment(), capture_output=True, text=True, check=False, close_fds=False
    )
    if done.returncode:
        return []
    status: dict[str, list[str]] = json.loads(done.stdout)
    return sorted({*status.get("not_in_cache", [])} & {*status.get("not_in_remote", [])})


@contextmanager
def _clone_at(commit: str) -> Iterator[Path]:
    """Make a clone at a commit of the origin, with the cache of this machine; it is deleted afterwards."""
    settings().home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="remote-", dir=settings().home) as folder:
        clone = Path(folder) / "clone"
        git("clone", "--quiet", "--no-checkout", settings().origin, str(clone))
        git("fetch", "--quiet", "--no-tags", settings().origin, commit, cwd=clone)
        git("checkout", "--quiet", "--detach", commit, cwd=clone)
        (clone / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {settings().cache}\n    type = copy\n")
        yield clone


def _failure(command: list[str], cwd: Path | None = None) -> str | None:
    """Run a program; return its message where it fails."""
    done = subprocess.run(
        command, cwd=cwd, env=dvc_environment(), capture_output=True, text=True, errors="replace", check=False
    )
    return redact_credentials(done.stderr.strip()) if done.returncode else None
