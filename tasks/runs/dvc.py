"""Run DVC and the project's own commands in a run's workspace; read dvc.lock."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tasks.runs.experiments import Run
from tasks.runtime.errors import EXIT_TRANSIENT, EXIT_USER_ERROR, TransientError, UserError
from tasks.runtime.git import git
from tasks.runtime.processes import kill_process_tree
from tasks.runtime.settings import settings

DVC_ADVICE = ("Updating lock file", "Generating lock file", "Use `dvc push`", "Data and pipelines are up to date")
"""Lines of DVC that are advice to a person at a keyboard."""


class CommandFailed(RuntimeError):
    """A command of a run failed in a way of its own."""

    def __init__(self, code: int, lines: list[str]) -> None:
        super().__init__(f"the command above failed with exit code {code}")
        self.lines = lines


def read_lock(repository: Path) -> dict[str, Any]:
    """The dvc.lock of a clone."""
    file = repository / "dvc.lock"
    return yaml.safe_load(file.read_text("utf-8")) if file.exists() else {"schema": "2.0", "stages": {}}


def lock_at(repository: Path, commit: str) -> dict[str, Any]:
    """The dvc.lock of an experiment that a repository has."""
    content: dict[str, Any] = yaml.safe_load(git("show", f"{commit}:dvc.lock", cwd=repository))
    return content


def dvc(run: Run, *arguments: str, quietly: bool = False) -> list[str]:
    """Run dvc in the workspace; see `call`."""
    return call(run, [sys.executable, "-m", "dvc", *arguments], quietly=quietly)


def call(run: Run, command: list[str], *, quietly: bool = False) -> list[str]:
    """Run a command in the workspace, showing its output as it comes; returns what it printed, by line.

    With `quietly` its output is shown when it fails only. Raises UserError or PassingError as the command's exit
    code, or that of the stage inside it, says.
    """
    lines = []
    with subprocess.Popen(
        command,
        cwd=run.workspace,
        env=run_environment(run),
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        close_fds=False,  # it shares our lock: where we are killed, a retry waits until it has ended too
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:  # universal newlines: each state of a progress bar is a line
                lines.append(line.rstrip())
                if line.strip() and not quietly and not line.startswith(DVC_ADVICE):
                    print(line.rstrip(), flush=True)
        except BaseException:  # such as Airflow's, when the task's time is up: neither we nor a retry would see an end
            kill_process_tree(process.pid)
            raise
    if quietly and process.returncode:
        print(*lines, sep="\n", flush=True)
    raise_for(process.returncode, lines)
    return lines


def run_environment(run: Run) -> dict[str, str]:
    """What the programs of a run see."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "LAMPLIGHTER_ORIGIN": settings().origin,
        "LAMPLIGHTER_HOME": str(settings().home),
        "LAMPLIGHTER_CACHE": settings().cache,
        "LAMPLIGHTER_RUN": run.name,
        "LAMPLIGHTER_MODEL_VERSION": run.model_version or "",
        "LAMPLIGHTER_MODEL_COMMIT": run.champion or "",
        "LAMPLIGHTER_GENERATION": str(run.generation or ""),
        # Spinning threads of two trainings on one machine slow each other down tenfold; sleeping ones do not.
        "OMP_WAIT_POLICY": "PASSIVE",
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "false",
    }
    environment.pop("PYTHONPATH", None)  # the workspace's own code, not that of whoever calls
    return environment


def raise_for(code: int, lines: list[str]) -> None:
    """Raise the error that an exit code means."""
    if code == 0:
        return
    inner = [int(match[1]) for line in lines if (match := re.search(r"exited with (-?\d+)", line))]
    code = inner[-1] if inner else code
    if code == EXIT_USER_ERROR:
        raise UserError("\n".join(user_error_of(lines)) or "the message above says what to mend")
    signal = -code if code < 0 else code - 128 if inner and code > 128 else 0  # as Python or as a shell tells of it
    if code == EXIT_TRANSIENT or signal:
        raise TransientError(f"killed by signal {signal}" if signal else "the message above says what did not answer")
    raise CommandFailed(code, lines)


def user_error_of(lines: list[str]) -> list[str]:
    """What a stage that stopped said, without what DVC says about it."""
    first = next((i for i, line in enumerate(lines) if line.endswith(" stopped:")), len(lines))
    return [line for line in lines[first:] if line.strip() and not line.startswith("ERROR: failed to reproduce")]


def dvc_hash(folder: Path) -> str:
    """The hash by which DVC knows a folder: of the list of its files, each with its own."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    listed = []
    for name in files:
        with (folder / name).open("rb") as file:
            listed.append({"md5": hashlib.file_digest(file, "md5").hexdigest(), "relpath": name})
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
