"""DVC's model registry (GTO): versions and the champion as git tags on the commits of experiments.

    flight-delays@v2.0.0      this experiment's model is version 2
    flight-delays#prod#3      the third assignment of `prod`: the newest one is the champion
    flight-delays#prod!#4     this experiment's model was withdrawn: the champion is the one before

Rolling back is assigning an older version again, `gto assign flight-delays --version v1.0.0 --stage prod --force`, or
withdrawing the newer one, `gto deprecate flight-delays v2.0.0 prod`; then `git push --tags` to the origin. For readers
without git the champion is mirrored beside the predictions.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tasks.params import Product
from tasks.publication.manifests import decode_checked, encode_checked
from tasks.publication.object_store import Store, StoredObject
from tasks.runs.experiments import Experiment, experiments
from tasks.runtime import faults
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.git import git, redact_credentials
from tasks.runtime.settings import settings

MIRROR = "_champion.json"
STAGE = "prod"
ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A model that predicts."""

    version: str
    """Such as v2.0.0."""
    commit: str
    """The commit of the experiment that made it."""
    made: Experiment | None = None
    """That experiment; None where the origin keeps it no longer."""

    def knows_later_than(self, as_of: date) -> bool:
        """Whether it has learnt from data that was not known yet on `as_of`."""
        return self.made is not None and self.made.as_of > as_of.isoformat()


def champion(product: str, by: date | None = None) -> Champion | None:
    """The model that predicts now; with `by`, the newest of its line that knows nothing later. None where none does.

    Raises UserError where the origin has the assignment of a version and not the version.
    """
    return next((model for model in _models(product) if by is None or not model.knows_later_than(by)), None)


def champions(product: str, by: date) -> tuple[Champion | None, Champion | None]:
    """Both at once: the model that predicts now, and the newest of its line that knows nothing later than `by`."""
    models = _models(product)
    now = next(models, None)
    if now is None or not now.knows_later_than(by):
        return now, now
    return now, next((model for model in models if not model.knows_later_than(by)), None)


def _models(product: str) -> Iterator[Champion]:
    """The models in STAGE, the newest assignment first."""
    tags = _tags(product)
    made = {experiment.commit: experiment for experiment in experiments(product)}
    for commit in reversed(_assigned(product, tags)):
        version = next((version for version, at in _versions(product, tags).items() if at == commit), None)
        if version is None:
            raise UserError(
                f"products.{product}: the commit {commit[:12]} that is in {STAGE} must have a tag {product}@v..., and "
                "has none in the origin; push that tag too, or assign another version"
            )
        yield Champion(version=version, commit=commit, made=made.get(commit))


def promote(product: str, commit: str, as_of: date, over: Champion | None, why: str) -> Champion:
    """Register the experiment's model and make it the champion; the same again where it is one already.

    Where the champion knows data later than `as_of`, the model becomes that of its own time, for nights up to then, and
    the champion goes on. `why` says who let it through, and on what grounds: the tag keeps it.
    Works in the clone that is the working directory. Raises PassingError where the champion is no longer `over`,
    which it was judged beside, or others keep winning the race.
    """
    for _ in range(ATTEMPTS):
        leader, standing = champions(product, as_of)
        if standing and standing.commit == commit:
            return standing
        if leader != over:
            raise TransientError(
                f"products.{product}: {leader.version if leader else 'no model'} has become the champion while this "
                "one was judged against another; it must be judged anew"
            )
        git("fetch", "--quiet", "--tags", "--force", settings().origin)
        known = _tags(product)
        _delete_tags(_unknown_tags(product, known))  # of a try that was killed
        versions = _versions(product, known)
        version = next((version for version, at in versions.items() if at == commit), None)
        if version is None:
            version = f"v{max((int(each[1:].partition('.')[0]) for each in versions), default=0) + 1}.0.0"
            _gto("register", product, commit, "--version", version)
        _assign(product, version, why)
        if leader and leader.knows_later_than(as_of):
            _assign(product, leader.version, f"goes on: {version} knows what was known on {as_of} only")
        new = _unknown_tags(product, known)
        # All or none, and never over a tag that another run has put there first.
        pushed = subprocess.run(
            ["git", "push", "--quiet", "--atomic", settings().origin, *(f"refs/tags/{tag}" for tag in new)],
            capture_output=True,
            text=True,
            check=False,
        )
        faults.failpoint("promote: the tags are pushed")
        if pushed.returncode == 0:
            return Champion(version=version, commit=commit)
        _delete_tags(new)
    told = redact_credentials(pushed.stderr.strip())
    raise TransientError(f"products.{product}: the champion's tags could not be pushed; {told}")


def mirror(product: Product) -> None:
    """Write the champion as a small object beside the predictions, where another one stands there.

    Where no model predicts any more, the object says so.
    """

    def follow(standing: StoredObject | None) -> bytes | None:
        # Asked after `standing` was read: where another promotion comes between, this replacement is refused.
        leader = champion(product.name)
        if leader is None and standing is None:
            return None
        said = {
            "product": product.name,
            "version": leader.version if leader else None,
            "commit": leader.commit if leader else None,
            "experiment": leader.made.name if leader and leader.made else None,
        }
        return None if standing and decode_checked(standing) == said else encode_checked(said)

    Store(product.publish.url).update(f"{product.name}/{MIRROR}", follow)


def approval(repository: Path, product: str, commit: str) -> str:
    """Who let the experiment's model predict, and when, as the tags in a repository tell."""
    listed = git(
        "for-each-ref",
        "--sort=version:refname",
        "--format=%(*objectname)%00%(taggername)%00%(taggerdate:iso)%00%(contents:subject)%00%(refname:short)",
        f"refs/tags/{product}#{STAGE}#*",
        cwd=repository,
    )
    turns = [line.split("\0") for line in listed.splitlines() if line.startswith(commit or "none")]
    return (
        "; ".join(f"{who}, {when}: {what} (tag {tag})" for _, who, when, what, tag in turns) or "no tag of the origin"
    )


def _tags(product: str) -> dict[str, str]:
    """The product's tags in the origin, oldest version first, each with the commit that it marks."""
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
    """The registered versions among the tags, each with the commit that it marks."""
    form = re.compile(rf"{re.escape(product)}@(v\d+\.\d+\.\d+)")
    return {match[1]: commit for tag, commit in tags.items() if (match := form.fullmatch(tag))}


def _assigned(product: str, tags: dict[str, str]) -> list[str]:
    """The commits that are in STAGE, in the order of their last assignment; those withdrawn since are not."""
    form = re.compile(rf"{re.escape(product)}#{STAGE}(!?)#(\d+)")
    turns = [(int(match[2]), match[1], commit) for tag, commit in tags.items() if (match := form.fullmatch(tag))]
    assigned: list[str] = []
    for _, withdrawn, commit in sorted(turns):
        assigned = [each for each in assigned if each != commit] + ([] if withdrawn else [commit])
    return assigned


def _unknown_tags(product: str, known: dict[str, str]) -> list[str]:
    """The product's tags of this clone that the origin did not have."""
    return [tag for tag in git("tag", "--list", f"{product}@*", f"{product}#*").split() if tag not in known]


def _delete_tags(tags: list[str]) -> None:
    if tags:
        git("tag", "--delete", *tags)


def _assign(product: str, version: str, why: str) -> None:
    # By force: a version may have been in the stage before.
    _gto("assign", product, "--version", version, "--stage", STAGE, "--force", "--message", why)


def _gto(*arguments: str) -> None:
    answer = subprocess.run(
        [Path(sys.executable).parent / "gto", *arguments], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise TransientError(f"gto {' '.join(arguments)} failed: {answer.stderr.strip() or answer.stdout.strip()}")
