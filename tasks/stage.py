"""How every stage is called: `python -m tasks.<stage> <product>`.

A stage is a function of (product, as_of) that reads and writes files below `data/`. What it returns is
printed as its one-line summary. A user's mistake prints as one message, without a traceback.
"""

import argparse
import inspect
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from tasks import params
from tasks.errors import EXIT_PASSING, EXIT_USER_ERROR, PassingError, UserError

STAGES = ("ingest", "validate", "split", "pretrain", "train", "evaluate", "export", "predict")
"""The stages in the order in which data flows through them; `publish` and `promote` are not stages but side effects."""

Stage = Callable[[params.Product, date], str]


def parser(stage: Callable[..., Any]) -> argparse.ArgumentParser:
    """The command line of a stage: its help is the module's docstring."""
    module = inspect.getmodule(stage)
    assert module is not None
    name = stage.__name__
    result = argparse.ArgumentParser(
        prog=f"python -m tasks.{name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("product", help="a product of params.yaml")
    return result


def main(stage: Stage) -> None:
    """Run `stage` for the product named on the command line, and exit."""
    arguments = parser(stage).parse_args()
    sys.exit(call(stage.__name__, lambda: _run(stage, arguments.product)))


def call(name: str, work: Callable[[], str]) -> int:
    """Do `work`, print its summary, and return the exit code that says what kind of failure it was."""
    # A progress bar that no terminal shows is a line in a log: one every few seconds is enough.
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "5")
        os.environ.setdefault("TQDM_ASCII", "1")
    started = time.monotonic()
    try:
        summary = work()
    except UserError as error:
        print(f"{name} stopped:\n{error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except PassingError as error:
        print(f"{name} could not finish now, and may later:\n{error}", file=sys.stderr)
        return EXIT_PASSING
    print(f"{name}: {summary} ({time.monotonic() - started:.1f} s)", flush=True)
    return 0


def _run(stage: Stage, product: str) -> str:
    declared = params.load()
    return stage(declared.product(product), declared.as_of)
