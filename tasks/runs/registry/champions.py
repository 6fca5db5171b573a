"""Keep versions and the champion in DVC's model registry (GTO): promote, go back, hold, ban, release.

Each act is a tag with a reason, pushed to the origin; what the tags mean is in `tasks.runs.registry.tags`. The same may
be done by hand with gto: `gto assign flight-delays --version v1.0.0 --stage prod --force`, or `gto deprecate
flight-delays v2.0.0 prod`, then `git push --tags` to the origin. For readers without git the champion is mirrored
beside the predictions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TypeVar

from tasks.monitoring.showing import show_versions
from tasks.params import Product
from tasks.publication.contracts import MIRROR, ChampionMirror
from tasks.publication.manifests import decode_record, encode_checked
from tasks.publication.object_store import Store, StoredObject
from tasks.runs.experiments import experiments
from tasks.runs.registry.shown import look_at_versions
from tasks.runs.registry.tags import STAGE, Champion, Registry, registry_of
from tasks.runtime import faults
from tasks.runtime.errors import GitTimeout, TransientError, UserError
from tasks.runtime.git import git
from tasks.runtime.settings import settings
from tasks.runtime.surroundings import explained_output

Person = tuple[str, str]
"""Name and address of whoever acts, as git knows them."""
MAX_ROUNDS = 5
"""The number of times an act is begun anew where another one pushes its tags first."""
MACHINE: Person = ("lamplighter", "lamplighter@localhost")
"""Who promotes, as the tags name it: the gates did, in the name of whoever wrote them."""

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, kw_only=True)
class Gto:
    """GTO on the registry's repository, in somebody's name."""

    repository: Path
    """The repository."""
    product: str
    """The product's name, which GTO calls an artifact."""
    author: Person
    """Who acts."""

    def register(self, commit: str, version: str) -> None:
        """Give a commit a version."""
        self._call("register", ref=commit, version=version)

    def assign(self, version: str, stage: str, reason: str) -> None:
        """Put a version in a stage; by force, since it may have been in it before."""
        self._call("assign", version=version, stage=stage, message=reason, force=True)

    def unassign(self, version: str, stage: str, reason: str) -> None:
        """Take a version out of a stage."""
        self._call("unassign", version=version, stage=stage, message=reason, simple=False, force=True)

    def _call(self, name: str, **arguments: str | bool) -> None:
        import gto.api
        from gto.exceptions import GTOException

        person, address = self.author
        try:
            getattr(gto.api, name)(str(self.repository), self.product, **arguments, author=person, author_email=address)
        except GTOException as error:
            known = explained_output(f"gto {name}", str(error))
            raise known or TransientError(f"products.{self.product}: gto {name} failed: {error}") from None


def champion(product: str, trained_until: date | None = None) -> Champion | None:
    """Return the current champion; with `trained_until`, the newest champion trained on nothing later. None without.

    Raises UserError where the origin has the assignment of a version and not the version, or a version's commit does
    not say up to which date it was trained.
    """
    with registry_of(product) as registry:
        return registry.champion if trained_until is None else registry.champion_until(trained_until)


def check_not_banned(product: str, commit: str) -> None:
    """Raise UserError where the model that scored a night has been banned since its run was opened."""
    with registry_of(product) as registry:
        if registry.content(commit) in registry.effect.banned:
            raise UserError(
                f"products.{product}: the model of a night must not be banned, and {registry.exclusion_at(commit)}; "
                "start a new run, which another version scores"
            )


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What the registry says to a challenger, in one look at the origin."""

    champion: Champion | None
    """The model that predicts now."""
    of_its_time: Champion | None
    """The newest champion that has learnt from nothing later than the challenger; None where that is deprecated."""
    is_of_its_time: bool
    """Whether the challenger is another training with the very bytes of the newest champion of its time."""
    exclusion: str
    """Why a person keeps this very model out, and what would let it in; empty where nobody does."""
    hold: str
    """Who holds the champion that it would replace, and what would end that; empty where nobody does."""


def admission(product: str, commit: str, as_of: date) -> Admission:
    """Return how a challenger stands that learnt up to `as_of`; works in a clone that has its commit."""
    with registry_of(product) as registry:
        return _admission(registry, commit, as_of)


def _admission(registry: Registry, commit: str, as_of: date) -> Admission:
    # With all that it comes from: an origin takes no tag of a commit whose history is cut off.
    git("fetch", "--quiet", "--no-tags", str(Path.cwd()), commit, cwd=registry.repository)
    champion = registry.champion
    is_of_the_past = champion is not None and champion.trained_after(as_of)
    of_its_time, content = registry.champion_until(as_of), registry.content(commit)
    is_another = of_its_time is not None and of_its_time.commit != commit
    if of_its_time and is_another and registry.content(of_its_time.commit) in registry.effect.deprecated:
        of_its_time = None  # it has learnt from rows that were erased since: nobody need be better than it
    return Admission(
        champion=champion,
        of_its_time=of_its_time,
        is_of_its_time=of_its_time is not None
        and of_its_time.commit != commit
        and registry.content(of_its_time.commit) == content,
        exclusion=registry.exclusion(content),
        hold="" if is_of_the_past else registry.about_hold(),
    )


def promote(product: str, commit: str, as_of: date, expected_champion: Champion | None, reason: str) -> Champion:
    """Register the experiment's model and make it the champion; return the champion, also where it is one already.

    Where the champion was trained after `as_of`, the model becomes that of its own time, for nights up to then, and
    the champion goes on. The tag keeps `reason`: who let the model through, and on what grounds. Raises TransientError
    where the champion is no longer `expected_champion`, which the model was compared with, or a person has decided
    otherwise meanwhile, or others keep winning the race. Works in a clone that has the commit.
    """

    def act(registry: Registry, gto: Gto) -> Champion:
        now = _admission(registry, commit, as_of)
        if now.of_its_time and now.of_its_time.commit == commit:
            return now.of_its_time
        if now.champion != expected_champion or now.exclusion or now.hold:
            raise TransientError(
                f"products.{product}: {now.champion.version if now.champion else 'no model'} has become the champion "
                "while this one was judged against another, or a person has decided about a version; measure it at the "
                "gates again"
            )
        version = registry.version_at(commit)
        if version is None:
            version = f"v{max((int(each[1:].partition('.')[0]) for each in registry.versions), default=0) + 1}.0.0"
            gto.register(commit, version)
        gto.assign(version, STAGE, reason)
        if now.champion and now.champion.trained_after(as_of):
            gto.assign(now.champion.version, STAGE, f"goes on: {version} knows what was known on {as_of} only")
        return Champion(version=version, commit=commit, as_of=registry.as_of(commit))

    return push_act(product, MACHINE, act)


def mirror(product: Product) -> None:
    """Write the champion as a small object beside the predictions, where the store has another one.

    Where no model predicts any more, the object says so; a product that never had one gets none. The page of the
    products shows every version.
    """

    def follow(current: StoredObject | None) -> bytes | None:
        # Looked up after `current` was read: where another promotion comes between, this replacement is refused.
        leader = champion(product.name)
        if leader is None and current is None:
            return None
        made_by = [each.name for each in experiments(product.name) if leader and each.commit == leader.commit]
        wanted = ChampionMirror(
            product=product.name,
            version=leader.version if leader else None,
            commit=leader.commit if leader else None,
            experiment=next(iter(made_by), None),
        )
        is_equal = current is not None and decode_record(current, ChampionMirror) == wanted
        return None if is_equal else encode_checked(wanted.to_json())

    store = Store(product.publish.url)
    store.update(f"{product.name}/{MIRROR}", follow)
    show_versions(store, product.name, partial(look_at_versions, product.name))


def approval(repository: Path, product: str, commit: str) -> str:
    """Return who let the experiment's model predict, when and on what grounds, from the tags of a repository."""
    listed = git(
        "for-each-ref",
        "--sort=version:refname",
        "--format=%(*objectname)%00%(taggername)%00%(taggerdate:iso)%00%(contents:subject)%00%(refname:short)",
        f"refs/tags/{product}#{STAGE}#*",
        cwd=repository,
    )
    assignments = [line.split("\0") for line in listed.splitlines() if line.startswith(commit or "none")]
    return (
        "; ".join(f"{tagger}, {date}: {subject} (tag {tag})" for _, tagger, date, subject, tag in assignments)
        or "no tag of the origin"
    )


def push_act(product: str, author: Person, act: Callable[[Registry, Gto], Outcome]) -> Outcome:
    """Do `act` on the registry as the origin has it, and push the tags that it makes: all or none.

    It works in a repository of its own, so that a try that was killed leaves nothing. Never pushes over a tag that
    another one has pushed first: then the act is begun anew. Raises TransientError where others keep winning.
    """
    refusal: TransientError | None = None
    for _ in range(MAX_ROUNDS):
        with registry_of(product) as registry:
            outcome = act(registry, Gto(repository=registry.repository, product=product, author=author))
            refusal = _push_new_tags(registry)
            faults.failpoint("promote: the tags are pushed")
        if refusal is None:
            return outcome
    raise TransientError(f"products.{product}: the registry's tags could not be pushed; {refusal}")


def _push_new_tags(registry: Registry) -> TransientError | None:
    """Push all new tags or none, and never over a tag that another run has pushed first; return git's refusal."""
    tags = [tag for tag in git("tag", "--list", cwd=registry.repository).split() if tag not in registry.tags]
    try:
        if tags:
            references = [f"refs/tags/{tag}" for tag in tags]
            git("push", "--quiet", "--atomic", settings().origin, *references, cwd=registry.repository)
    except GitTimeout:
        raise
    except TransientError as error:
        return error
    return None
