"""Run the libraries that Lamplighter is compared with, in environments of their own, never beside the project.

A peer is a script of this folder (`peer_<name>.py`) that runs under such an environment's Python: rows come to it
as files and its figures go back as JSON on the last line it prints. An environment is what its pins say: pins.txt,
breadth.txt, where AutoGluon decides on the versions, ahead.txt, which has StatsForecast, or matrix.txt, which has one
of each kind of product.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent
HOME = Path(os.environ.get("LAMPLIGHTER_HOME", SCRIPTS.parent.parent / ".lamplighter"))
FOLDERS = {
    "pins.txt": HOME / "peers",
    "breadth.txt": HOME / "breadth" / "peers",
    "ahead.txt": HOME / "ahead" / "peers",
    "matrix.txt": HOME / "matrix" / "peers",
}


def install(pins: str = "pins.txt") -> Path:
    """Make the environment of these pins, unless it is there with these very pins; return its Python."""
    folder, wanted = FOLDERS[pins], (SCRIPTS / pins).read_text()
    python, ready = folder / "bin" / "python", folder / "pins.txt"
    if ready.exists() and ready.read_text() == wanted:
        return python
    print("benchmarks: installing the peers (2 GB; once)", flush=True)
    torch = [line for line in wanted.splitlines() if line.startswith("torch==")]
    quiet = ["-q", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", folder],
        *([python, "-m", "pip", "install", *quiet, "-c", SCRIPTS / pins, each] for each in torch),
        [python, "-m", "pip", "install", *quiet, "--no-deps", "-r", SCRIPTS / pins],
    ):
        subprocess.run(command, check=True)
    ready.write_text(wanted)
    return python


def run(
    name: str, *arguments: str | Path, pins: str = "pins.txt", timeout: float | None = None, **environment: str
) -> dict:
    """Return the figures of the peer `peer_<name>.py`, called with the given arguments; `timeout`: seconds."""
    done = subprocess.run(
        [install(pins), SCRIPTS / f"peer_{name}.py", *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=timeout,
    )
    return json.loads(done.stdout.splitlines()[-1])
