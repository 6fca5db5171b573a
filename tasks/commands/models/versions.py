"""Roll back to a version of a product's model, hold, ban or release one, or ask which one predicts.

Each takes effect at once, at the origin.

    make rollback PRODUCT=flight-delays TO=v1.0.0 REASON="v2 is late on holidays"
    make hold PRODUCT=flight-delays REASON="until the audit is over"
    make ban PRODUCT=flight-delays VERSION=v2.0.0 REASON="trained on leaked rows"
    make release PRODUCT=flight-delays VERSION=v2.0.0 REASON="the rows were right"
    make champion PRODUCT=flight-delays ON=2013-07-04

A night that is published stays as it is: run predict__<product> with its as_of to replace it.
"""

import uuid
from datetime import date

from tasks.commands.arguments import git_user
from tasks.commands.embedded.store import enter_with_store
from tasks.monitoring.messages.outbox import leave
from tasks.monitoring.messages.wording import champion_changed
from tasks.params import Product
from tasks.publication.manifests import NightPlace, current_manifest
from tasks.publication.object_store import Store
from tasks.runs.registry import versions
from tasks.runs.registry.champions import approval, mirror
from tasks.runs.registry.tags import Champion, registry_of
from tasks.runs.registry.versions import Person
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.git import git


def roll_back(product: Product, version: str, reason: str) -> str:
    """Make another version the champion; return a line. Raises UserError as `registry.versions` does."""
    before, now = versions.roll_back(product.name, version, _reason(reason), _person())
    line = versions.about_rollback(product.name, before, now)
    return _mirrored(product, line, f"{_reason(reason)}. It was assigned by: {_approval(product, now)}")


def hold(product: Product, version: str, reason: str) -> str:
    """Let the champion stay; return a line. Raises UserError as `registry.versions` does."""
    held = versions.hold(product.name, version or None, _reason(reason), _person())
    release = f"make release PRODUCT={product.name} VERSION={held.version} REASON=..."
    line = f"{held.version} of {product.name} is held: it predicts, whatever passes the gates, until {release}"
    return _mirrored(product, line)


def ban(product: Product, version: str, reason: str) -> str:
    """Let a version never predict again; return a line. Raises UserError as `registry.versions` does."""
    banned, now = versions.ban(product.name, version, _reason(reason), _person())
    after = f"{now.version} predicts" if now else f"no model predicts until train__{product.name} promotes one"
    return _mirrored(product, f"{banned.version} of {product.name} never predicts again; {after}", _reason(reason))


def release(product: Product, version: str, reason: str) -> str:
    """End hold, ban and withdrawal of a version; return a line. Raises UserError as `registry.versions` does."""
    ended = versions.release(product.name, version, _reason(reason), _person())
    line = f"{version} of {product.name} is no longer {ended}; a training whose model passes the gates is promoted"
    return _mirrored(product, line)


def champion_on(product: Product, on: date | None) -> str:
    """Return which model predicts, or predicts the night of an as_of, who let it, and what that night names.

    Raises UserError where none has learnt from so early data.
    """
    with registry_of(product.name) as registry:
        leader = registry.champion if on is None else registry.champion_until(on)
        if leader is None:
            until = f" that knows nothing later than {on}" if on else ""
            raise UserError(f"products.{product.name}: a model{until} must have been promoted, and none has; train one")
        approver = approval(registry.repository, product.name, leader.commit)
    lines = {
        "champion": f"{leader.version}, which knows what was known on {leader.as_of} (commit {leader.commit[:12]})",
        "assigned by": approver,
    }
    if on:
        place = NightPlace(store=Store(product.publish.url), product=product.name, as_of=on)
        night = current_manifest(place)
        withdrawn = (
            f", withdrawn by {night.withdrawn.person}: {night.withdrawn.reason}" if night and night.withdrawn else ""
        )
        version = (
            f"published by {night.model.version or 'a model without a version'}{withdrawn}" if night else "none yet"
        )
        lines[f"night of {on}"] = f"{version} ({place.store.uri(place.manifest)})" if night else version
    return "\n".join(f"{name:<20}{text}" for name, text in lines.items())


def _reason(text: str) -> str:
    reason = " ".join(text.split())
    if not reason:
        raise UserError(f'REASON must say why, got {text!r}; write REASON="late on holidays"')
    return reason


def _person() -> Person:
    return git_user(), git("config", "--default", "", "--get", "user.email").strip() or "unknown"


def _approval(product: Product, version: Champion) -> str:
    with registry_of(product.name) as registry:
        return approval(registry.repository, product.name, version.commit)


def _mirrored(product: Product, line: str, why: str | None = None) -> str:
    """Bring the champion's mirror and the page up to date, and leave a message where the champion is another one.

    The decision stands without them.
    """
    try:
        enter_with_store()
        mirror(product)
        if why is not None:
            text = f"{line}. {_person()[0]} has decided so: {why}"
            leave(product, champion_changed(product, f"decision {uuid.uuid4()}", text))
    except (TransientError, UserError) as error:
        return f"{line}\nnote: its mirror in the store follows with the next night; {error}"
    return line
