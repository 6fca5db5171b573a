"""Replay a stretch of the past apart from the real nights, and compare policies of promotion by what came true.

    make simulate PRODUCT=flight-delays FROM=2013-05-01 TO=2013-07-31

All runs are those of the DAGs: the same stages, gates, registry and monitor, in the order in which the product's
schedules ask for them, without Airflow. Killed anywhere and started again, it goes on with the step it was at. It ends
with a table, and with one picture and its figures as JSON, from which it is drawn again without a run.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

from tasks.commands.embedded.revision import declared_product, print_uncommitted
from tasks.commands.embedded.store import enter_with_store
from tasks.commands.simulation.contracts import Replay
from tasks.commands.simulation.home import Home, entered, fault_of, open_home
from tasks.commands.simulation.leaks import prove_no_leak
from tasks.commands.simulation.picture import draw
from tasks.commands.simulation.replay import replay
from tasks.commands.simulation.scores import measured
from tasks.commands.simulation.summary import summary
from tasks.runs.locks import locked
from tasks.runs.programs import run_environment
from tasks.runs.steps import parse_as_of
from tasks.runtime.errors import UserError
from tasks.runtime.files import write_json
from tasks.runtime.forks.forked import fork_server
from tasks.runtime.settings import settings


def simulate(
    product: str, first: date, last: date, *, fault: str = "", column: str = "", leaks: int = 0, save: str = ""
) -> str:
    """Replay the nights from `first` to `last` and the retrains among them; return the table and where the picture is.

    `fault` breaks the source for some days, in a `column` where it is a shift; so many random nights as `leaks` are
    made again from a source that ends at their as_of. `save` is the path, without an ending, of picture and figures.
    Raises UserError where a step needs a person, TransientError where waiting mends it.
    """
    described = declared_product(product)
    if first > last:
        raise UserError(f"FROM must not be later than TO, got {first} and {last}; swap them")
    for day in (first, last):
        parse_as_of(day.isoformat())
    wanted = fault_of(described, fault, first, last, column) if fault else None
    enter_with_store()
    print_uncommitted()
    home, plan = open_home(described, first, last, wanted)
    print(
        f"simulation of {plan.revision[:12]} in {os.path.relpath(home.folder)}; it may be killed and goes on",
        flush=True,
    )
    with alone(home):
        replay(home, plan)
        print("measuring every policy on every night", flush=True)
        found = measured(home, plan)
    place = Path(save) if save else home.folder / "replay"
    write_json(place.with_suffix(".json"), found.to_json())
    files = draw(found, place)
    proof = [prove_no_leak(described, home, leaks)] if leaks else []
    drawn = f"picture: {', '.join(map(os.path.relpath, files))}; figures: {os.path.relpath(place.with_suffix('.json'))}"
    return "\n".join([summary(found), "", *proof, drawn])


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Work in a simulation as the only process. Raises UserError where another one does."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(home.folder / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f"{home.folder} must have one process at work, and has another; wait for it") from None
        held.enter_context(entered(home))
        held.enter_context(fork_server(settings().home / f"fork-server-{os.getpid()}.socket", run_environment()))
        yield


def draw_again(file: Path) -> str:
    """Draw the picture of a saved simulation beside its figures; return the table. Raises UserError for others."""
    try:
        found = Replay.from_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} must hold the figures of a simulation, and does not: {error}") from None
    files = draw(found, file.with_suffix(""))
    return f"{summary(found)}\n\npicture: {', '.join(map(str, files))}"
