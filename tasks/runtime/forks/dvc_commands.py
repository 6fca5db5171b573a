"""Run DVC's command lines one after the other in one process, which imports DVC once.

    python -P tasks/runtime/forks/dvc_commands.py      in a repository

Each line of standard input is a JSON list of arguments. After the output of each comes a line of END and the exit code.
The end of the input ends the process. It is started by its path, and what it works in is another revision of this
project, whose stages are programs of their own.
"""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

END = "\x1e"
"""What begins the line after a command's output; no output of DVC's has it."""
ENCRYPTED = "FSSPEC_S3"
"""The variable by which fsspec is told how the remote encrypts what it keeps."""


def serve() -> None:
    """Run what standard input asks for until it ends."""
    asked = os.fdopen(os.dup(0), encoding="utf-8")  # a descriptor that no stage inherits: it could read what is asked
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    from dvc.cli import main
    from fsspec.config import conf, set_conf_env

    set_conf_env(conf)  # what this was forked from had imported it before
    os.environ.pop(ENCRYPTED, None)  # of the remote alone: a stage may read another store
    fork_stages()
    for line in asked:
        try:
            code = main(json.loads(line))
        except SystemExit as refused:  # by the parser of arguments
            code = refused.code if isinstance(refused.code, int) else 1
        sys.stderr.flush()
        print(f"\n{END}{code}", flush=True)


def fork_stages() -> None:
    """Let DVC have the commands of stages run by the fork server where there is one, in place of a shell of its own."""
    from dvc.stage import run
    from dvc.stage.exceptions import StageCmdFailedError

    sys.path.append(str(Path(__file__).resolve().parents[3]))
    from tasks.runtime.forks.forked import fork

    by_shell = run._run

    def run_command(executable: str | None, cmd: str, **settings: Any) -> None:
        words = shlex.split(cmd)
        is_python = words[:2] == ["python", "-m"]
        program = is_python and fork([sys.executable, *words[1:]], settings["cwd"], settings["env"], (0, 1, 2))
        if not program:
            by_shell(executable, cmd, **settings)
        elif code := program.wait():
            raise StageCmdFailedError(cmd, code)

    run._run = run_command


if __name__ == "__main__":
    serve()
