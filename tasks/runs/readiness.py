"""Tell whether a night may begin, where its product waits for late data.

A night waits until the scored day has `schedule.ready.rows_at_least` rows at the source, and at most until the hour
`until` of the day on which it is due, the day after its as_of. Then it is judged as always, with what has come. An
older night waits for nothing. The clock decides when a night begins and no byte of it.
"""

import sys
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tasks import params
from tasks.params import Product
from tasks.runs.dvc import run_command
from tasks.runs.experiments import Run
from tasks.runs.workspace import exclusive_workspace
from tasks.runtime.errors import TransientError, UserError


def waits_until(product: Product, as_of: date) -> datetime | None:
    """Return the moment from which on the night is judged whatever has come; None where it waits for nothing."""
    ready = product.schedule.ready
    if ready is None:
        return None
    return datetime.combine(as_of + timedelta(days=1), time.fromisoformat(ready.until), ZoneInfo(product.time_zone))


def is_ready(run: Run, now: datetime | None = None) -> bool:
    """Return whether the night may begin, after a look at the source; say which of the two it is.

    A source that cannot be read yet, such as a file that has not come, is late as well.
    """
    with exclusive_workspace(run, "ready"):
        product = params.load(run.workspace / params.PARAMS_FILE).product(run.product)
        ready, until = product.schedule.ready, waits_until(product, date.fromisoformat(run.as_of))
        if ready is None or until is None:
            return True
        if (now or datetime.now(UTC)) >= until:
            print(
                f"ready: {until:%Y-%m-%d %H:%M} {product.time_zone} has passed; judged with what has come", flush=True
            )
            return True
        try:
            result = run_command(run, "ready", [sys.executable, "-m", "tasks.ready", run.product], quietly=True)
        except (UserError, TransientError) as error:
            print(f"not ready, waiting until {until:%H:%M} {product.time_zone}: {error}", flush=True)
            return False
    n_rows, day = int(str(result.fields["rows"])), result.fields["scored_day"]
    enough = n_rows >= ready.rows_at_least
    waiting = "ready" if enough else f"not ready, waiting until {until:%H:%M} {product.time_zone}"
    print(f"{waiting}: {n_rows:,} rows of {day} at the source, {ready.rows_at_least:,} are awaited", flush=True)
    return enough
