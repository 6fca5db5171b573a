"""Say how much memory scoring takes: `python -m tasks.training.held_out.peak_memory <product>` prints bytes.

A process of its own loads the exported files and scores held-out rows, as a night's shards do, since what a stage has
held before would be counted too.
"""

import re
import subprocess
import sys
from pathlib import Path

from tasks import params
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Paths

MAX_ROWS = 8_192
"""Held-out rows that are scored: as many as are encoded at once."""


def peak_memory_bytes(product: Product, folder: Path) -> int:
    """Return the most memory of a process that scores with the exported files in a folder.

    Raises UserError where that process fails.
    """
    command = [sys.executable, "-m", "tasks.training.held_out.peak_memory", product.name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^peak memory: (\d+) bytes$", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise UserError(
            f"products.{product.name}: the exported files must score in a process of their own, and do not; "
            f"it ended with {done.returncode}: {done.stderr.strip()[-500:]}"
        )
    return int(found[1])


def score(product: Product, folder: Path) -> int:
    """Score held-out rows in this process; return the most memory that it has held so far, in bytes."""
    from model.scoring.scorer import Scorer

    rows = model_inputs.split_part(Paths(product.name).splits, "test", product).sample(MAX_ROWS)
    model_inputs.scores(Scorer(folder), rows)
    return most_held()


def most_held() -> int:
    """Return the most memory that this process has held, in bytes.

    Where Linux tells it, of this program alone: what `getrusage` gives counts the program that started it as well.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024


if __name__ == "__main__":
    print(f"peak memory: {score(params.load().product(sys.argv[1]), Path(sys.argv[2]))} bytes")
