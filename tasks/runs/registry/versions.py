"""Carry out what people decide about versions of a model: go back to one, hold it, ban it, release it.

Each decision is a tag in the origin with its author, date and reason; `tasks.runs.registry.tags` says what it means.
"""

import re
from collections.abc import Collection
from datetime import date, timedelta

from tasks.runs.registry.champions import MACHINE, Gto, Person, push_act
from tasks.runs.registry.tags import BANNED, DEPRECATED, HOLD, RELEASED, STAGE, Champion, Registry
from tasks.runtime.errors import UserError

_AUTOMATIC = re.compile(r"automatic rollback as of (\d{4}-\d\d-\d\d)")


def roll_back(product: str, version: str, reason: str, person: Person) -> tuple[Champion | None, Champion]:
    """Make an earlier or later version the champion; the one that it replaces is withdrawn. Return both.

    Another try of the same, after one that was killed, finds it done and returns the same. Raises UserError for a
    version that is none, that is the champion already or banned, or while another is held.
    """
    reason = " ".join(reason.split())
    reason_of_end = f"rolled back to {version}: {reason}"

    def act(registry: Registry, gto: Gto) -> tuple[Champion | None, Champion]:
        wanted, leader = _version(registry, version), registry.champion
        if leader and leader.commit == wanted.commit:
            *_, before, last = [None, None, *registry.acts]
            if last and (last.commit, last.person, last.reason) == (wanted.commit, person[0], reason):
                is_of_this = before and before.ends and before.reason == reason_of_end
                return registry.described(before.commit) if before and is_of_this else None, wanted
            raise UserError(f"products.{product}: {version} is the champion already; there is nothing to go back from")
        if registry.content(wanted.commit) in registry.effect.banned:
            raise UserError(f"products.{product}: {version} must not be banned; {registry.exclusion_at(wanted.commit)}")
        if registry.hold:
            raise UserError(f"products.{product}: {registry.about_hold()}")
        if leader:
            gto.unassign(leader.version, STAGE, reason_of_end)
        gto.assign(version, STAGE, reason)
        return leader, wanted

    return push_act(product, person, act)


def about_rollback(product: str, before: Champion | None, now: Champion) -> str:
    """Return what a rollback means, for a person to read."""
    withdrawn = f"; {before.version} is withdrawn, and no training brings it back" if before else ""
    return f"{now.version} predicts {product} from the next night on{withdrawn}"


def roll_back_by_itself(
    product: str, version: str, instead_of: str, as_of: date, cool_down_days: int, reason: str
) -> tuple[bool, str]:
    """Make an earlier version the champion since its nights were better; return whether that was done, and a line.

    Nothing is done where the model at the commit `instead_of` is not the champion any more; where the version was
    withdrawn or banned, or one is held; and within the days after another such rollback. Another try of the same finds
    it done, and says the same. The version that is replaced is withdrawn: no training brings it back.
    """
    reason_of_tag = f"automatic rollback as of {as_of}: {reason}"

    def act(registry: Registry, gto: Gto) -> tuple[bool, str]:
        leader, wanted = registry.champion, _version(registry, version)
        line = (
            f"{version} predicts from the next night on, and {registry.version_at(instead_of)} is withdrawn: {reason}"
        )
        days = [date.fromisoformat(match[1]) for each in registry.acts if (match := _AUTOMATIC.match(each.reason))]
        if leader and leader.commit == wanted.commit and as_of in days:
            return True, line
        if leader is None or leader.commit != instead_of:
            return False, f"{leader.version if leader else 'no model'} predicts by now, which is left as it is"
        if registry.hold:
            return False, registry.about_hold()
        if exclusion := registry.exclusion_at(wanted.commit):
            return False, exclusion
        if any(day > as_of - timedelta(days=cool_down_days) for day in days):
            return False, f"monitor.rollback.cool_down_days: the last one was as of {max(days)}"
        gto.unassign(leader.version, STAGE, reason_of_tag)
        gto.assign(version, STAGE, reason_of_tag)
        return True, line

    return push_act(product, MACHINE, act)


def hold(product: str, version: str | None, reason: str, person: Person) -> Champion:
    """Let the champion stay, whatever passes the gates, until it is released; return it.

    Raises UserError where `version` is not the champion, or another one is held.
    """

    def act(registry: Registry, gto: Gto) -> Champion:
        leader = registry.champion
        if leader is None:
            raise UserError(f"products.{product}: a champion must be there to be held, and none is; train one first")
        if version and _version(registry, version).commit != leader.commit:
            raise UserError(
                f"products.{product}: {version} must be the champion to be held, and {leader.version} is; "
                f"make rollback PRODUCT={product} TO={version} REASON=... first"
            )
        if registry.hold:
            raise UserError(f"products.{product}: {registry.about_hold()}")
        gto.assign(leader.version, HOLD, reason)
        return leader

    return push_act(product, person, act)


def ban(product: str, version: str, reason: str, person: Person) -> tuple[Champion, Champion | None]:
    """Let a version never predict again, under any number; return it and the champion from now on.

    Raises UserError for a version that is none or banned already.
    """

    def act(registry: Registry, gto: Gto) -> tuple[Champion, Champion | None]:
        banned = _version(registry, version)
        if registry.content(banned.commit) in registry.effect.banned:
            raise UserError(f"products.{product}: {version} is banned already; {registry.exclusion_at(banned.commit)}")
        if banned.commit in registry.effect.assigned:  # so that GTO, too, shows it in the stage no longer
            gto.unassign(version, STAGE, reason)
        gto.assign(version, BANNED, reason)
        return banned, Registry(registry.repository, product).champion

    return push_act(product, person, act)


def deprecate(product: str, contents: Collection[str], reason: str, person: Person) -> list[str]:
    """Mark the versions whose models have these contents: the next model that passes the other gates replaces them.

    Those that are marked already stay as they are. Return the versions that are marked now.
    """

    def act(registry: Registry, gto: Gto) -> list[str]:
        versions = [each for each, commit in registry.versions.items() if registry.content(commit) in contents]
        for version in versions:
            if registry.content(registry.versions[version]) not in registry.effect.deprecated:
                gto.assign(version, DEPRECATED, reason)
        return versions

    return push_act(product, person, act)


def release(product: str, version: str, reason: str, person: Person) -> str:
    """End what holds a version, or keeps it out: hold, ban and withdrawal; return what has ended.

    Raises UserError where there is nothing to end.
    """

    def act(registry: Registry, gto: Gto) -> str:
        wanted, now = _version(registry, version), registry.effect
        content, ended = registry.content(wanted.commit), []
        if f"{product}@{version}!" in registry.tags:
            raise UserError(
                f"products.{product}: {version} was taken back for good by gto; delete the tag {product}@{version}! "
                "from the origin to undo that"
            )
        if registry.hold and registry.hold.commit == wanted.commit:
            ended.append("held")
            gto.unassign(version, HOLD, reason)
        for name, acts in (("banned", now.banned), ("withdrawn", now.withdrawn)):
            if content in acts:
                ended.append(name)
        if content in now.banned and now.banned[content].commit == wanted.commit:
            gto.unassign(version, BANNED, reason)
        elif content in now.banned.keys() | now.withdrawn.keys():
            gto.assign(version, RELEASED, reason)
        if not ended:
            raise UserError(
                f"products.{product}: {version} must be held, banned or withdrawn to be released, and is not"
            )
        return " and ".join(ended)

    return push_act(product, person, act)


def _version(registry: Registry, version: str) -> Champion:
    if version not in registry.versions:
        known = ", ".join(list(registry.versions)[-5:]) or "none"
        raise UserError(
            f"products.{registry.product}: VERSION must be a version that the origin has, got {version!r}; "
            f"the newest are {known}"
        )
    return registry.described(registry.versions[version])
