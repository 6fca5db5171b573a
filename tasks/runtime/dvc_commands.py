"""Run DVC's command lines one after the other in one process, which imports DVC once.

    python -P tasks/runtime/dvc_commands.py        in a repository: a JSON list of arguments per line of standard input

After the output of each comes a line of END and the exit code. The end of the input ends the process. It is started by
its path and imports nothing of this project: what it works in is another revision of it.
"""

import json
import os
import sys

END = "\x1e"
"""What begins the line after a command's output; no output of DVC's has it."""


def serve() -> None:
    """Run what standard input asks for until it ends."""
    asked = os.fdopen(os.dup(0), encoding="utf-8")  # a descriptor that no stage inherits: it could read what is asked
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    from dvc.cli import main

    for line in asked:
        try:
            code = main(json.loads(line))
        except SystemExit as refused:  # by the parser of arguments
            code = refused.code if isinstance(refused.code, int) else 1
        sys.stderr.flush()
        print(f"\n{END}{code}", flush=True)


if __name__ == "__main__":
    serve()
