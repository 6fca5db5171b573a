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
from typing import Any, NoReturn

from tasks import params
from tasks.runtime.errors import EXIT_TRANSIENT, EXIT_USER_ERROR, TransientError, UserError

Stage = Callable[[params.Product, date], str]


def parser(stage: Callable[..., Any]) -> argparse.ArgumentParser:
    """The command line of a stage: its help is the module's docstring."""
    module = inspect.getmodule(stage)
    assert module is not None
    name = stage.__name__
    result = argparse.ArgumentParser(
        prog=f"python -m tasks.{name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("product", help="a product of params.yaml")
    return result


def main(stage: Stage) -> None:
    """Run `stage` for the product named on the command line, and exit."""
    run(stage, parser(stage).parse_args().product)


def run(stage: Stage, product: str) -> NoReturn:
    """Run `stage` for `product`, print its summary, and exit."""

    def work() -> None:
        started = time.monotonic()
        summary = stage(*load_product(product))
        print(f"{stage.__name__}: {summary} ({time.monotonic() - started:.1f} s)", flush=True)

    sys.exit(exit_code_of(stage.__name__, work))


def load_product(product: str) -> tuple[params.Product, date]:
    """A product of params.yaml and its as_of. Raises UserError."""
    everything = params.load()
    return everything.product(product), everything.as_of


def exit_code_of(name: str, work: Callable[[], object]) -> int:
    """Do `work`; a failure that is no bug prints as one message. Returns the exit code that says its kind."""
    # A progress bar that no terminal shows is a line in a log: one every few seconds is enough.
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "5")
    try:
        work()
    except UserError as error:
        print(f"{name} stopped:\n{error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except TransientError as error:
        print(f"{name} could not finish now, and may later:\n{error}", file=sys.stderr)
        return EXIT_TRANSIENT
    return 0
