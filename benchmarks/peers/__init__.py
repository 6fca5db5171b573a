"""Run the libraries that Lamplighter is compared with, in an environment of their own, never beside the project.

A peer is a script of this folder (`peer_<name>.py`) that runs under that environment's Python: rows come to it
as files and its figures go back as JSON on the last line it prints.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent
PINS = SCRIPTS / "pins.txt"
FOLDER = Path(os.environ.get("LAMPLIGHTER_HOME", SCRIPTS.parent.parent / ".lamplighter")) / "peers"
PYTHON = FOLDER / "bin" / "python"


def install() -> None:
    """Make the environment, unless it is there with these very pins."""
    ready = FOLDER / "pins.txt"
    if ready.exists() and ready.read_text() == PINS.read_text():
        return
    print("benchmarks: installing the peers (2 GB; once)", flush=True)
    torch = next(line for line in PINS.read_text().splitlines() if line.startswith("torch=="))
    for command in (
        [sys.executable, "-m", "venv", "--clear", FOLDER],
        [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", PINS, torch],
        [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-r", PINS],
    ):
        subprocess.run(command, check=True)
    ready.write_text(PINS.read_text())


def run(name: str, *arguments: str | Path, **environment: str) -> dict:
    """Return the figures of the peer `peer_<name>.py`, called with the given arguments."""
    install()
    done = subprocess.run(
        [PYTHON, SCRIPTS / f"peer_{name}.py", *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
