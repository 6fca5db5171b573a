"""Look at every product once: is the night that must be there by now published, and was all told that had to be?

It asks the store alone, so that it also sees a night whose run never began. A night that `schedule.ready_by` misses is
told once; messages and lines of nights that a receiver has not taken are tried again. Where every product could be
looked at, LAMPLIGHTER_HEARTBEAT_URL is called: an outside monitor that hears nothing knows that nobody watches. Changes
nothing of a night. The DAG `watch` does so every ten minutes; two at once tell nothing twice.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from tasks import params, stage
from tasks.monitoring.announcements.outbox import announce_waiting
from tasks.monitoring.lateness import late_message
from tasks.monitoring.messages.channels import open_address, reason_of
from tasks.monitoring.messages.outbox import deliver_waiting, tell
from tasks.params import Product
from tasks.runtime.errors import TransientError, UserError

HEARTBEAT = "LAMPLIGHTER_HEARTBEAT_URL"


def watch(products: Iterable[Product], now: datetime | None = None) -> str:
    """Look at each product, whatever goes wrong with another; return a line.

    Raises TransientError, and sends no heartbeat, where a product could not be looked at.
    """
    moment, n_products = now or datetime.now(UTC), 0
    late, waiting, failures = list[str](), list[str](), list[str]()
    for product in products:
        n_products += 1
        try:
            message = late_message(product, moment)
            if message:
                late.append(f"{product.name} ({message.about})")
                print(message.text, flush=True)
                tell(product, message)
            deliver_waiting(product)
            if n_waiting := announce_waiting(product, moment):
                waiting.append(f"{product.name} ({n_waiting:,} nights)")
        except (UserError, TransientError) as error:
            failures.append(f"{product.name}: {error}")
    if failures:
        raise TransientError(
            "every product must be looked at, and some could not be, so no heartbeat is sent; " + "; ".join(failures)
        )
    _send_heartbeat()
    line = f"{n_products} products" + (f", late: {', '.join(late)}" if late else ", no night is late")
    return line + (f"; receivers have not taken what is announced of {', '.join(waiting)}" if waiting else "")


def _send_heartbeat() -> None:
    """Call the outside monitor, where one is declared; one that does not answer fails nothing here."""
    address = os.environ.get(HEARTBEAT)
    if not address:
        return
    try:
        open_address(HEARTBEAT, address)
    except Exception as error:
        print(f"heartbeat: the outside monitor has not taken it: {reason_of(error)}", flush=True)


def main() -> None:
    """Watch once, from the command line."""
    argparse.ArgumentParser(
        prog="python -m tasks.watch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    sys.exit(stage.exit_code_of("watch", lambda: print(f"watch: {watch(params.load().products.values())}")))


if __name__ == "__main__":
    main()
