"""Withdraw a published night: `make withdraw PRODUCT=flight-delays DT=2013-06-30 REASON="..."`; DT is its as_of.

Readers are told so, `_latest` goes back to the newest night that stands (see `tasks.publication.withdrawal`), and those
who wait for nights are sent a line, by the watcher where this shell lacks what the receiver needs. Its record is
marked, so that nothing is concluded from it, and the page shows it no more. A new run of the same as_of publishes the
date again.
"""

import uuid
from datetime import date

from tasks.commands.arguments import check_reason
from tasks.monitoring.announcements.outbox import announce, expect
from tasks.monitoring.past import mark_withdrawn
from tasks.monitoring.showing import show_nights
from tasks.params import Product
from tasks.publication.contracts import Withdrawal
from tasks.publication.manifests import NightPlace, latest
from tasks.publication.object_store import Store
from tasks.publication.tables.delta import follow_manifest
from tasks.publication.withdrawal import withdraw_night
from tasks.runtime import faults


def withdraw(product: Product, as_of: date, why: str, person: str) -> str:
    """Withdraw the night of an as_of. Raises UserError for a reason that is none, or where there is no such night."""
    check_reason(why)
    place = NightPlace(store=Store(product.publish.url), product=product.name, as_of=as_of)
    writer = f"withdrawal-{uuid.uuid4()}"
    expect(product, place, writer)
    is_new = withdraw_night(place, Withdrawal(person=person.strip(), reason=why.strip()))
    if product.publish.table == "delta":
        follow_manifest(place, product.publish.keep_days)
    faults.failpoint("withdraw: the record is about to be marked")
    mark_withdrawn(place)
    show_nights(place.store, product.name, as_of)
    announce(product, place, writer)
    newest = latest(place.store, product.name)
    done = "withdrawn" if is_new else "had been withdrawn already, and is so with the reason of then"
    if newest is None or newest.dt == as_of:
        stands = "no other night stands, and _latest tells its readers so"
    else:
        stands = f"_latest is the night of {newest.dt}"
    return f"{place.store.uri(place.manifest)}: {done}; {stands}. A new run of {as_of} publishes it again"
