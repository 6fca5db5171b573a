"""Commands of Airflow one after the other in one process, since loading Airflow and its API takes most of a short one.

    with AirflowProcess(env) as airflow:
        lines = airflow.call("dags", "test", "train__parcels")

The process is this module, run as a program: each line of its standard input is a command, as a JSON list, and after
what the command prints stands a line with its exit code.
"""

import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from tasks.runtime.errors import UserError

END = "\x04 exit code "
"""What the line with an exit code begins with."""


class AirflowProcess:
    """A process that has loaded Airflow, as a context; it ends with it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Start it in an environment."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env={**env, "PYTHONUNBUFFERED": "1"},
            text=True,
            errors="replace",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Tell the process to end after the command that it is at, and wait for that."""
        self._process.communicate()

    def call(self, *arguments: str, quiet: bool = False) -> list[str]:
        """Do a command and return its lines, which are shown as they come unless `quiet`. Raises UserError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        lines: list[str] = []
        code = "none"
        with suppress(BrokenPipeError):  # where it has ended its last lines say why
            print(json.dumps(arguments), file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            shown, end, code_of_this = line.partition(END)
            if shown:
                lines.append(shown)
                if not quiet:
                    print(shown, end="", flush=True)
            if end:
                code = code_of_this.strip()
                break
        if code != "0":
            shown_lines = f":\n{''.join(lines)}" if quiet else "; the lines above say why"
            raise UserError(f"airflow {' '.join(arguments[:3])} failed{shown_lines}")
        return lines


def serve() -> None:
    """Do the commands of standard input until it ends; what they start reads nothing of it."""
    commands = os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    for line in commands:
        code = _exit_code(json.loads(line))
        sys.stderr.flush()
        print(f"{END}{code}", flush=True)


def _exit_code(arguments: list[str]) -> int:
    """Do a command as `python -m airflow` does it, and return the exit code it would have had."""
    sys.argv = ["airflow", *arguments]
    try:
        runpy.run_module("airflow", run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve()
