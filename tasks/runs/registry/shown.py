"""Describe the versions of a product's model for a page that has no git."""

from datetime import date

from tasks.monitoring.status import ShownVersion
from tasks.runs.experiments import experiments
from tasks.runs.registry.tags import STAGE, Act, Registry, registry_of


def look_at_versions(product: str) -> tuple[tuple[ShownVersion, ...], str]:
    """Return every version as the origin has it, and who holds the champion; nothing where nobody does.

    Raises UserError where the champion has no version, TransientError where the origin does not answer.
    """
    with registry_of(product) as registry:
        made_by = {each.commit: each.name for each in experiments(product)} if registry.versions else {}
        leader = registry.champion
        shown = tuple(
            _described(
                registry, version, commit, made_by.get(commit), is_champion=bool(leader and leader.commit == commit)
            )
            for version, commit in registry.versions.items()
        )
        return shown, registry.about_hold()


def _described(
    registry: Registry, version: str, commit: str, experiment: str | None, *, is_champion: bool
) -> ShownVersion:
    content, now = registry.content(commit), registry.effect
    act = now.banned.get(content) or now.withdrawn.get(content) or _last_assignment(registry, commit)
    if content in now.banned or f"{registry.product}@{version}!" in registry.tags:
        state = "banned"
    elif content in now.withdrawn and not is_champion:
        state = "withdrawn"
    elif is_champion:
        state, act = "champion", _last_assignment(registry, commit)
    else:
        state = "earlier champion" if act else "never champion"
    as_of = registry.as_of(commit)
    return ShownVersion(
        version=version,
        trained_until=date.fromisoformat(as_of) if as_of else None,
        experiment=experiment,
        state=state,
        decided_on=act.day if act else None,
        person=act.person if act else None,
        reason=act.reason if act else None,
    )


def _last_assignment(registry: Registry, commit: str) -> Act | None:
    """Return the last act that let a version predict; None where none did."""
    acts = (act for act in reversed(registry.acts) if act.commit == commit and act.stage == STAGE and not act.ends)
    return next(acts, None)
