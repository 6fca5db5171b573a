"""Keep versions and the champion in DVC's model registry (GTO): git tags on the commits of experiments.

    flight-delays@v2.0.0      this experiment's model is version 2
    flight-delays#prod#3      the third assignment of `prod`: the newest one is the champion
    flight-delays#prod!#4     this experiment's model was withdrawn: the champion is the one before

Rolling back is assigning an older version again, `gto assign flight-delays --version v1.0.0 --stage prod --force`, or
withdrawing the newer one, `gto deprecate flight-delays v2.0.0 prod`; then `git push --tags` to the origin. For readers
without git the champion is mirrored beside the predictions.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tasks.params import Product
from tasks.publication.contracts import ChampionMirror
from tasks.publication.manifests import decode_record, encode_checked
from tasks.publication.object_store import Store, StoredObject
from tasks.runs.experiments import Experiment, experiments
from tasks.runtime import faults
from tasks.runtime.errors import GitTimeout, TransientError, UserError
from tasks.runtime.git import git
from tasks.runtime.settings import BIN, settings
from tasks.runtime.surroundings import explained_output

MIRROR = "_champion.json"
STAGE = "prod"
MAX_ROUNDS = 5
"""The number of times a promotion is begun anew where another one pushes its tags first."""


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A model that predicts."""

    version: str
    """Such as v2.0.0."""
    commit: str
    """The commit of the experiment that made it."""
    experiment: Experiment | None = None
    """The experiment that made it; None where the origin keeps it no longer."""

    def trained_after(self, as_of: date) -> bool:
        """Return whether it has learnt from data that was not known yet on `as_of`."""
        return self.experiment is not None and self.experiment.as_of > as_of.isoformat()


def champion(product: str, trained_until: date | None = None) -> Champion | None:
    """Return the current champion; with `trained_until`, the newest champion trained on nothing later. None without.

    Raises UserError where the origin has the assignment of a version and not the version.
    """
    candidates = _champions(product)
    return next((each for each in candidates if trained_until is None or not each.trained_after(trained_until)), None)


def champions(product: str, trained_until: date) -> tuple[Champion | None, Champion | None]:
    """Return, in one look at the origin, the current champion and the newest one trained until a date."""
    candidates = _champions(product)
    current = next(candidates, None)
    if current is None or not current.trained_after(trained_until):
        return current, current
    return current, next((each for each in candidates if not each.trained_after(trained_until)), None)


def _champions(product: str) -> Iterator[Champion]:
    """Yield the models in STAGE, the newest assignment first."""
    tags = _tags(product)
    by_commit = {experiment.commit: experiment for experiment in experiments(product)}
    for commit in reversed(_assigned(product, tags)):
        version = next((version for version, at in _versions(product, tags).items() if at == commit), None)
        if version is None:
            raise UserError(
                f"products.{product}: the commit {commit[:12]} that is in {STAGE} must have a tag {product}@v..., and "
                "has none in the origin; push that tag too, or assign another version"
            )
        yield Champion(version=version, commit=commit, experiment=by_commit.get(commit))


def promote(product: str, commit: str, as_of: date, expected_champion: Champion | None, reason: str) -> Champion:
    """Register the experiment's model and make it the champion; return the champion, also where it is one already.

    Where the champion was trained after `as_of`, the model becomes that of its own time, for nights up to then, and
    the champion goes on. The tag keeps `reason`: who let the model through, and on what grounds.
    Works in the clone that is the working directory. Raises TransientError where the champion is no longer
    `expected_champion`, which the model was compared with, or others keep winning the race.
    """
    refusal: TransientError | None = None
    for _ in range(MAX_ROUNDS):
        current, of_its_time = champions(product, as_of)
        if of_its_time and of_its_time.commit == commit:
            return of_its_time
        if current != expected_champion:
            raise TransientError(
                f"products.{product}: {current.version if current else 'no model'} has become the champion while this "
                "one was judged against another; measure it at the gates again"
            )
        git("fetch", "--quiet", "--tags", "--force", settings().origin)
        known = _tags(product)
        _delete_tags(_unknown_tags(product, known))  # of a try that was killed
        version = _register(product, commit, known)
        _assign(product, version, reason)
        if current and current.trained_after(as_of):
            _assign(product, current.version, f"goes on: {version} knows what was known on {as_of} only")
        new = _unknown_tags(product, known)
        refusal = _push_tags(new)
        faults.failpoint("promote: the tags are pushed")
        if refusal is None:
            return Champion(version=version, commit=commit)
        _delete_tags(new)
    raise TransientError(f"products.{product}: the champion's tags could not be pushed; {refusal}")


def mirror(product: Product) -> None:
    """Write the champion as a small object beside the predictions, where the store has another one.

    Where no model predicts any more, the object says so; a product that never had one gets none.
    """

    def follow(current: StoredObject | None) -> bytes | None:
        # Looked up after `current` was read: where another promotion comes between, this replacement is refused.
        leader = champion(product.name)
        if leader is None and current is None:
            return None
        wanted = ChampionMirror(
            product=product.name,
            version=leader.version if leader else None,
            commit=leader.commit if leader else None,
            experiment=leader.experiment.name if leader and leader.experiment else None,
        )
        is_equal = current is not None and decode_record(current, ChampionMirror) == wanted
        return None if is_equal else encode_checked(wanted.to_json())

    Store(product.publish.url).update(f"{product.name}/{MIRROR}", follow)


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


def _tags(product: str) -> dict[str, str]:
    """Return the product's tags in the origin, oldest version first, each with the commit that it marks."""
    found: dict[str, str] = {}
    listed = git(
        "ls-remote",
        "--tags",
        "--sort=version:refname",
        settings().origin,
        f"refs/tags/{product}@*",
        f"refs/tags/{product}#*",
    )
    for line in listed.splitlines():
        commit, reference = line.split()
        found[reference.removeprefix("refs/tags/").removesuffix("^{}")] = commit  # the peeled line comes second
    return found


def _versions(product: str, tags: dict[str, str]) -> dict[str, str]:
    """Return the registered versions among the tags, each with the commit that it marks."""
    form = re.compile(rf"{re.escape(product)}@(v\d+\.\d+\.\d+)")
    return {match[1]: commit for tag, commit in tags.items() if (match := form.fullmatch(tag))}


def _assigned(product: str, tags: dict[str, str]) -> list[str]:
    """Return the commits that are in STAGE, in the order of their last assignment; those withdrawn since are not."""
    form = re.compile(rf"{re.escape(product)}#{STAGE}(!?)#(\d+)")
    numbered = [(int(match[2]), match[1], commit) for tag, commit in tags.items() if (match := form.fullmatch(tag))]
    assigned: list[str] = []
    for _, withdrawn, commit in sorted(numbered):
        assigned = [each for each in assigned if each != commit] + ([] if withdrawn else [commit])
    return assigned


def _unknown_tags(product: str, known: dict[str, str]) -> list[str]:
    """Return the product's tags of this clone that the origin did not have."""
    return [tag for tag in git("tag", "--list", f"{product}@*", f"{product}#*").split() if tag not in known]


def _delete_tags(tags: list[str]) -> None:
    if tags:
        git("tag", "--delete", *tags)


def _push_tags(tags: list[str]) -> TransientError | None:
    """Push all tags or none, and never over a tag that another run has pushed first; return git's refusal."""
    try:
        git("push", "--quiet", "--atomic", settings().origin, *(f"refs/tags/{tag}" for tag in tags))
    except GitTimeout:
        raise
    except TransientError as error:
        return error
    return None


def _register(product: str, commit: str, tags: dict[str, str]) -> str:
    """Return the version of the experiment's model, a new one where it has none yet."""
    versions = _versions(product, tags)
    version = next((version for version, at in versions.items() if at == commit), None)
    if version is None:
        version = f"v{max((int(each[1:].partition('.')[0]) for each in versions), default=0) + 1}.0.0"
        _gto("register", product, commit, "--version", version)
    return version


def _assign(product: str, version: str, reason: str) -> None:
    # By force: a version may have been in the stage before.
    _gto("assign", product, "--version", version, "--stage", STAGE, "--force", "--message", reason)


def _gto(*arguments: str) -> None:
    done = subprocess.run([BIN / "gto", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        message = done.stderr.strip() or done.stdout.strip()
        known = explained_output(f"gto {arguments[0]}", message)
        raise known or TransientError(f"gto {' '.join(arguments)} failed: {message}")
