"""Word the four messages that exist. Their text is that of the logs: no value of the data, no secret."""

from datetime import date, datetime

from tasks.monitoring.messages.contracts import Message
from tasks.params import Product

STOPPED = ("rejected", "withdrawn", "held")
"""Decisions of promote after which the champion goes on."""


def night_late(product: Product, as_of: date, due: datetime, newest: date | None) -> Message:
    """Return the message of a night that was not there when it was due."""
    stands = f"The newest night that readers see is that of {newest}." if newest else "No night has been published."
    return Message(
        kind="night-late",
        product=product.name,
        about=as_of.isoformat(),
        subject=f"{product.name}: the night of {as_of} is late",
        text=f"The night of {as_of} was due by {due:%Y-%m-%d %H:%M} ({product.time_zone}) and is not published. "
        f"{stands} Look at the newest run of predict__{product.name}: it waits, has stopped, or never began.",
    )


def stopped(product: Product, work: str, about: str, reason: str, link: str | None = None) -> Message:
    """Return the message of a night or a training that has stopped; `work` names which, and its date."""
    return Message(
        kind="stopped",
        product=product.name,
        about=about,
        subject=f"{product.name}: {work} has stopped",
        text=f"{work[:1].upper()}{work[1:]} of {product.name} has stopped: {reason}\n\n"
        "What was published and the champion stay as they were. What such a message means: docs/alarms.md.",
        link=link,
    )


def champion_changed(product: Product, about: str, line: str, link: str | None = None) -> Message:
    """Return the message of another champion; `line` says which one, why, and by which figures."""
    return Message(
        kind="champion-changed",
        product=product.name,
        about=about,
        subject=f"{product.name}: the champion has changed",
        text=f"{line}\n\nIt predicts from the next night on. To go back: "
        f"make rollback PRODUCT={product.name} TO=... REASON=...",
        link=link,
    )


def approval_waits(product: Product, about: str, line: str, link: str | None = None) -> Message:
    """Return the message of a model that a person must let through."""
    return Message(
        kind="approval-waits",
        product=product.name,
        about=about,
        subject=f"{product.name}: a model waits for your approval",
        text=f"{line}\n\nAnswer in the task approve of train__{product.name}; silence rejects after two days.",
        link=link,
    )


def of_decision(
    product: Product, decision: str, line: str, as_of: str, about: str, link: str | None = None
) -> Message | None:
    """Return the message that a decision of promote calls for; None where nothing has changed and nothing waits."""
    if decision == "promoted":
        return champion_changed(product, about, line, link)
    if decision == "needs approval":
        return approval_waits(product, about, line, link)
    if decision in STOPPED:
        return stopped(product, f"the training of {as_of}", about, line, link)
    return None
