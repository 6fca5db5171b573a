"""Run a stage from the command line: `python -m tasks.<stage> <product>`.

A stage is a function of (product, as_of) that reads and writes files below `data/`. Its one-line summary is printed,
and recorded with its fields in the command's result file, which is all that a program that started it reads: see
`tasks.runtime.results`. A user's mistake prints as one message, without a traceback.
"""

import argparse
import inspect
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from tasks import params
from tasks.runtime.errors import EXIT_INTERRUPTED, EXIT_TRANSIENT, EXIT_USER_ERROR, TransientError, UserError
from tasks.runtime.log_lines import print_error, tell_of
from tasks.runtime.records import Record
from tasks.runtime.results import Result, result_file, write_result
from tasks.runtime.surroundings import explained

Stage = Callable[[params.Product, date], str | Record]
"""A stage: it returns its line, or a record whose `str` is its line and whose keys are its fields."""


def parser(stage: Callable[..., Any]) -> argparse.ArgumentParser:
    """Return the command line of a stage: its help is the module's docstring."""
    module = inspect.getmodule(stage)
    assert module is not None
    name = stage.__name__
    result = argparse.ArgumentParser(
        prog=f"python -m tasks.{name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("product", help="a product of params.yaml")
    return result


def main(stage: Stage) -> NoReturn:
    """Run `stage` for the product named on the command line, and exit."""
    run(stage.__name__, parser(stage).parse_args().product, stage)


def main_of_run(stage: Callable[..., str | Record]) -> NoReturn:
    """Run `stage` as `main` does, with the facts of the run that --run names, or None, as its third argument."""
    from tasks.runs.experiments import Run

    command_line = parser(stage)
    command_line.add_argument("--run", type=Path, metavar="FILE", help="JSON with the facts of the run; not by hand")
    given = command_line.parse_args()
    facts = Run.from_json(given.run.read_bytes()) if given.run else None
    run(stage.__name__, given.product, lambda product, as_of: stage(product, as_of, facts))


def run(name: str, product: str, stage: Stage) -> NoReturn:
    """Run `stage` for `product`, print its line, record its result, and exit."""
    file = result_file(product, name)

    def work() -> None:
        started = time.monotonic()
        tell_of(product=product, stage=name)
        write_result(file, Result(status="started"))
        declared, as_of = load_product(product)
        tell_of(as_of=as_of.isoformat())
        outcome = stage(declared, as_of)
        seconds = time.monotonic() - started
        print(f"{name}: {outcome} ({seconds:.1f} s)", flush=True)
        fields = outcome.to_json() if isinstance(outcome, Record) else {}
        write_result(file, Result(status="done", message=str(outcome), fields=fields, seconds=round(seconds, 3)))

    sys.exit(exit_code_of(name, work, file))


def load_product(product: str) -> tuple[params.Product, date]:
    """Return a product of params.yaml and its as_of. Raises UserError."""
    everything = params.load()
    return everything.product(product), everything.as_of


def exit_code_of(name: str, work: Callable[[], object], file: Path | None = None) -> int:
    """Do `work`, print a failure that is no bug as one message, and return the exit code of its kind.

    A failure is recorded in the result file, where one is given.
    """
    # A progress bar that no terminal shows is a line in a log: one every few seconds is enough.
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "5")
    try:
        work()
    except KeyboardInterrupt:
        print_error(f"\n{name} was interrupted; run it again, and it goes on from what is finished")
        return EXIT_INTERRUPTED
    except Exception as error:
        known = error if isinstance(error, UserError | TransientError) else explained(error)
        if known is None:
            _record(file, Result(status="bug", message=repr(error)))
            raise
        is_for_a_person = isinstance(known, UserError)
        line = "stopped" if is_for_a_person else "could not finish now, and may later"
        print_error(f"{name} {line}:\n{known}")
        _record(file, Result(status="user error" if is_for_a_person else "transient error", message=str(known)))
        return EXIT_USER_ERROR if is_for_a_person else EXIT_TRANSIENT
    return 0


def _record(file: Path | None, result: Result) -> None:
    """Record a failure; where the disk takes no more, the message and the exit code say it alone."""
    with suppress(OSError):
        write_result(file, result)
