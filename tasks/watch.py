"""Look at every product once: is the night that must be there by now published, and was all told that had to be?

It asks the store alone, so that it also sees a night whose run never began. A night that `schedule.ready_by` misses is
told once; messages that a receiver has surely not taken, and lines of nights, are tried again. Where every product
could be looked at, LAMPLIGHTER_HEARTBEAT_URL is called: an outside monitor that hears nothing for some time knows that
nobody watches, or that somebody was to be told something and may not have been: for an hour after such a message the
call is left out. Changes nothing of a night. The DAG `watch` does so every ten minutes; two at once tell nothing twice.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from tasks import params, stage
from tasks.monitoring.announcements.outbox import announce_waiting
from tasks.monitoring.lateness import late_message
from tasks.monitoring.messages.channels import open_address, reason_of
from tasks.monitoring.messages.outbox import deliver_waiting, tell
from tasks.monitoring.showing import show_lost
from tasks.monitoring.status import LostMessage
from tasks.params import Product
from tasks.publication.object_store import Store
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.log_lines import tell_of

HEARTBEAT = "LAMPLIGHTER_HEARTBEAT_URL"
SILENCE = timedelta(hours=1)
"""How long the heartbeat is left out after a message that may be lost: as long as outside monitors wait at most."""


def watch(products: Iterable[Product], now: datetime | None = None) -> str:
    """Look at each product, whatever goes wrong with another; return a line.

    Raises TransientError, and sends no heartbeat, where a product could not be looked at.
    """
    tell_of(stage="watch")
    moment, n_products, lost = now or datetime.now(UTC), 0, list[LostMessage]()
    late, waiting, failures = list[str](), list[str](), list[str]()
    for product in products:
        n_products += 1
        try:
            message = late_message(product, moment)
            if message:
                late.append(f"{product.name} ({message.about})")
                print(message.text, flush=True)
                tell(product, message)
            lost += _lost(product, moment)
            if n_waiting := announce_waiting(product, moment):
                waiting.append(f"{product.name} ({n_waiting:,} nights)")
        except (UserError, TransientError) as error:
            failures.append(f"{product.name}: {error}")
    if failures:
        raise TransientError(
            "every product must be looked at, and some could not be, so no heartbeat is sent; " + "; ".join(failures)
        )
    line = f"{n_products} products" + (f", late: {', '.join(late)}" if late else ", no night is late")
    line += f"; receivers have not taken what is announced of {', '.join(waiting)}" if waiting else ""
    if new := [each for each in lost if each.tried > moment - SILENCE]:
        return f"{line}; no heartbeat is sent, since this may have reached nobody: " + "; ".join(e.subject for e in new)
    _send_heartbeat()
    return line


def _lost(product: Product, now: datetime) -> tuple[LostMessage, ...]:
    """Send what waits of a product; return, and let the page show, what may have reached nobody."""
    lost = tuple(
        LostMessage(subject=each.message.subject, tried=max(one.begun for one in each.deliveries.values()))
        for each in deliver_waiting(product, now).lost
    )
    if lost:
        show_lost(Store(product.publish.url), product.name, lost)
    return lost


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
