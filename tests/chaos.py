"""`make chaos`: the whole campaign of faults, kills, races, re-creations and hostile input; prints one table.

    python tests/chaos.py                 every part: each tests/chaos_<part>.py with a function `whole`
    python tests/chaos.py publication     that one alone

A part is a function whole(folder, seed) that works in an empty folder, beside a real S3 server whose address and keys
are in the environment, asserts what it promises, and returns what it counted as rows of the table. A part that fails
stops no other: what passed is in the table, what failed below it, and the exit code is 1. A short seeded piece of each
part is in the tests. Two parts run at a time.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from traceback import format_exception

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]


def main() -> int:
    """The command line."""
    from conftest import START_STORE, call, environment, free_port

    known = sorted(
        (file.stem.removeprefix("chaos_") for file in HERE.glob("chaos_*.py")), reverse=True
    )  # longest first
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--seed", type=int, default=20130701, help="what chance is drawn from")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        home = Path(scratch) / "home"
        home.mkdir()
        env = environment(home, LAMPLIGHTER_S3_PORT=str(free_port()), PYTHONPATH=str(HERE.parent))
        call(START_STORE, home, env)
        try:
            kept = dict(line.split("=", 1) for line in (home / "env").read_text().splitlines())
            os.environ.update({name: value for name, value in kept.items() if name.startswith("AWS_")})
            with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as workers:
                under_way = {
                    part: workers.submit(_counted, part, Path(scratch) / part, given.seed)
                    for part in given.parts or known
                }
                rows, failed = outcomes(under_way)
        finally:
            call([sys.executable, "-m", "tasks.commands", "down"], HERE.parent, env)
    width = max(map(len, rows), default=0)
    print("\n" + "\n".join(f"{name:<{width}}  {count:>9,}" for name, count in rows.items()))
    ended = f"{time.monotonic() - started:.0f} s, seed {given.seed}"
    if failed:
        for part, error in failed.items():
            print(f"\n{part} failed; alone: make chaos PART={part}\n{''.join(format_exception(error))}")
        print(f"{', '.join(failed)} failed, the parts of the table passed; {ended}")
        return 1
    print(f"\nnothing lost, nothing half published; {ended}")
    return 0


def outcomes(under_way: Mapping[str, Future[dict[str, int]]]) -> tuple[dict[str, int], dict[str, BaseException]]:
    """What the parts counted that passed, and why the others failed; every part is waited for."""
    rows: dict[str, int] = {}
    failed: dict[str, BaseException] = {}
    for part, future in under_way.items():
        if error := future.exception():
            failed[part] = error
            print(f"{part}: failed", flush=True)
        else:
            rows.update(future.result())
    return rows, failed


def _counted(part: str, folder: Path, seed: int) -> dict[str, int]:
    """What one part counted."""
    folder.mkdir()
    began = time.monotonic()
    print(f"{part} ...", flush=True)
    rows: dict[str, int] = importlib.import_module(f"chaos_{part}").whole(folder, seed)
    print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
