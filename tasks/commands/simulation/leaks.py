"""Prove that no night has seen what became known later: make it again from a source that ends at its as_of.

A night is replayed with the training of its champion in a place of its own, on an empty disk, from a source that has no
row after the scored day and no label that becomes known after the as_of. The parts must be equal, byte by byte.
"""

import random
from datetime import date

from tasks.commands.simulation.contracts import Fault, Outcome, Step
from tasks.commands.simulation.home import Home, entered, open_home, planned_again
from tasks.commands.simulation.replay import do_step, logged
from tasks.params import Product
from tasks.runs.experiments import head
from tasks.runtime.errors import UserError

SEED = 0


def prove_no_leak(product: Product, home: Home, n_nights: int) -> str:
    """Replay random published nights of a simulation; return a line. Raises UserError where the bytes of one differ."""
    outcomes = home.outcomes()
    nights = [each for each in outcomes if each.kind == "night" and each.state == "published"]
    chosen = sorted(random.Random(SEED).sample(nights, min(n_nights, len(nights))), key=lambda each: each.as_of)
    n_rows = 0
    for each in chosen:
        trained = next(one for one in outcomes if one.kind == "retrain" and one.commit == each.commit)
        parts = parts_from_cut_source(product, home, trained.as_of, each)
        if parts != each.parts:
            raise UserError(
                f"the night of {each.as_of} must be the same from a source that ends there, and its parts differ: "
                f"{', '.join(parts)} instead of {', '.join(each.parts)}; look for a column that knows the future"
            )
        n_rows += each.rows
        print(f"no leak: the night of {each.as_of} is equal from a source that ends there", flush=True)
    return f"no leak: {len(chosen)} random nights, {n_rows:,} rows, from sources that end at their as_of: sha256 equal"


def parts_from_cut_source(product: Product, home: Home, trained: date, night: Outcome) -> tuple[str, ...]:
    """Return the SHA-256 of the parts of a night that is made from a source which ends at its as_of."""
    fault = Fault(kind="cut", first=trained, last=night.as_of)
    name = f"{home.folder.name}-cut-{night.as_of:%Y%m%d}"
    apart, plan = open_home(product, night.as_of, night.as_of, fault, name)
    steps = (Step(kind="retrain", as_of=trained), Step(kind="night", as_of=night.as_of))
    for each in planned_again(apart, plan, steps).steps[len(apart.outcomes()) :]:
        with entered(apart), logged(apart):
            outcome = do_step(head()[1].product(product.name), each)
        if outcome.state not in ("promoted", "published"):
            raise UserError(f"the {each.kind} of {each.as_of} from a source that ends must pass; {outcome.reason}")
        apart.add(outcome)
    return apart.outcomes()[-1].parts
