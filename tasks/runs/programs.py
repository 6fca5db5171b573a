"""Run programs in a run's workspace, and all DVC commands of a step in one process.

DVC takes a second to start, and a step gives it three or four commands. Where there is a fork server neither DVC nor a
stage imports what the server has imported: see `tasks.runtime.forks.forked`.
"""

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.runs.experiments import Run
from tasks.runtime.forks import dvc_commands
from tasks.runtime.forks.forked import Forked, fork_piped
from tasks.runtime.log_lines import RUN
from tasks.runtime.processes import kill_process_tree
from tasks.runtime.settings import settings, store_encryption

DVC_ADVICE = (
    "Updating lock file",
    "Generating lock file",
    "Use `dvc push`",
    "Data and pipelines are up to date",
    "To track the changes with git, run:",
    "\tgit add dvc.lock",
    "To enable auto staging, run:",
    "\tdvc config core.autostage true",
)
"""Lines of DVC that are advice to a person at a keyboard."""
OUTPUT_LINES = 60
"""The last lines of a program that failed: those in which it says why."""
Program = subprocess.Popen[str] | Forked
_DVC_OF: dict[Path, Program | None] = {}
"""The process that runs the DVC commands of a workspace in which this process works; None before the first."""


@contextmanager
def one_dvc(run: Run) -> Iterator[None]:
    """Give all DVC commands of the run's workspace within it to one process; it starts with the first of them.

    The caller holds the workspace's lock: the process inherits it, and a retry waits until both have ended.
    """
    _DVC_OF[run.workspace] = None
    try:
        yield
    finally:
        if process := _DVC_OF.pop(run.workspace, None):
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()


def call_dvc(run: Run, arguments: list[str], *, quietly: bool = False) -> tuple[int, str]:
    """Run a DVC command in the workspace and return its exit code and its last lines, as `call` does."""
    if run.workspace not in _DVC_OF:
        with one_dvc(run):
            return call_dvc(run, arguments, quietly=quietly)
    process = _DVC_OF[run.workspace] or _start_dvc(run)
    _DVC_OF[run.workspace] = process
    assert process.stdin is not None
    assert process.stdout is not None
    code: list[int] = []

    def lines(answered: Iterable[str]) -> Iterator[str]:
        for line in answered:
            if line.startswith(dvc_commands.END):
                code.append(int(line.removeprefix(dvc_commands.END)))
                return
            yield line

    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(arguments) + "\n")
        process.stdin.flush()
    shown, last = _show(process, lines(process.stdout), quietly=quietly)
    if not code:  # it was killed, and the next command needs another
        _DVC_OF[run.workspace] = None
        code.append(process.wait() or 1)
    if quietly and code[0]:
        print(*shown, sep="\n", flush=True)
    return code[0], last


def call(run: Run, command: list[str], *, quietly: bool = False) -> tuple[int, str]:
    """Run a command in the workspace and return its exit code and its last lines.

    Its output is shown as it comes; with `quietly` it is shown when the command fails only.
    """
    with _start(run, command, run_environment()) as process:
        assert process.stdout is not None
        shown, last = _show(process, process.stdout, quietly=quietly)
    code = process.wait()
    if quietly and code:
        print(*shown, sep="\n", flush=True)
    return code, last


def _start_dvc(run: Run) -> Program:
    return _start(run, [sys.executable, "-P", dvc_commands.__file__], dvc_environment(), subprocess.PIPE)


def _start(run: Run, command: list[str], environment: dict[str, str], stdin: int | None = None) -> Program:
    takes_input, environment = stdin is not None, environment | {RUN: run.name}
    if forked := fork_piped(command, run.workspace, environment, takes_input=takes_input):
        return forked
    return subprocess.Popen(
        command,
        cwd=run.workspace,
        env=environment,
        text=True,
        errors="replace",
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        close_fds=False,  # it shares the workspace's lock: where this process is killed, a retry waits for both
    )


def _show(process: Program, output: Iterable[str], *, quietly: bool) -> tuple[list[str], str]:
    """Print the lines of a process as they come, unless `quietly`; return those that were kept, and the last ones."""
    kept: list[str] = []
    last: deque[str] = deque(maxlen=OUTPUT_LINES)
    try:
        for line in output:  # universal newlines: each state of a progress bar is a line
            last.append(line)
            if quietly:
                kept.append(line.rstrip())
            elif line.strip() and not line.startswith(DVC_ADVICE):
                print(line.rstrip(), flush=True)
    except BaseException:  # such as Airflow's, when the task's time is up: nobody would wait for the command's end
        kill_process_tree(process.pid)
        raise
    return kept, "".join(last)


def run_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of the programs of a run whose tasks have the `given` one."""
    environment = dict(given) | {
        "PATH": f"{Path(sys.executable).parent}:{given['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "LAMPLIGHTER_ORIGIN": settings().origin,
        "LAMPLIGHTER_HOME": str(settings().home),
        "LAMPLIGHTER_CACHE": settings().cache,
        # Spinning threads of two trainings on one machine slow each other down tenfold; sleeping ones do not.
        "OMP_WAIT_POLICY": "PASSIVE",
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "false",
    }
    environment.pop("PYTHONPATH", None)  # the workspace's own code, not that of this process
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # six processes of a run would compile that code, each anew
    return environment


def dvc_environment() -> dict[str, str]:
    """Return the environment of programs that are DVC's alone: as of a run, and how the remote encrypts.

    fsspec takes what a file system is made with from there, so that no key lies in a file. A stage must not have it: a
    source may lie in another store.
    """
    options = s3_options()
    return run_environment() | ({dvc_commands.ENCRYPTED: json.dumps(options)} if options else {})


def s3_options() -> dict[str, dict[str, str]]:
    """Return what fsspec makes a file system of S3 with, so that it encrypts as this installation does; {}: nothing."""
    asked = store_encryption()
    return {"s3_additional_kwargs": asked} if asked else {}
