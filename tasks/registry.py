"""DVC's model registry (GTO): versions and the champion as git tags on the commits of experiments.

    flight-delays@v2.0.0      this experiment's model is version 2
    flight-delays#prod#3      the third assignment of `prod`: the newest one is the champion

Rolling back is assigning an older version again: `gto assign flight-delays --version v1.0.0 --stage prod`,
then `git push --tags`. For readers without git the champion is mirrored beside the predictions.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tasks import crash
from tasks.errors import PassingError
from tasks.nights import opened, seal
from tasks.params import Product
from tasks.store import Store, Stored
from tasks.workspace import ORIGIN, experiments, git

MIRROR = "_champion.json"
STAGE = "prod"
ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The model that predicts now."""

    version: str
    """Such as v2.0.0."""
    commit: str
    """The commit of the experiment that made it."""


def champion(product: str) -> Champion | None:
    """The model that predicts now, or None where none has been promoted."""
    tags = _tags(product)
    turns = [int(match[1]) for tag in tags if (match := re.fullmatch(rf".+#{STAGE}#(\d+)", tag))]
    if not turns:
        return None
    commit = tags[f"{product}#{STAGE}#{max(turns)}"]
    versions = [tag.partition("@")[2] for tag, at in tags.items() if "@" in tag and at == commit]
    return Champion(version=versions[-1], commit=commit)


def promote(product: str, commit: str, over: Champion | None, why: str) -> Champion:
    """Register the experiment's model and make it the champion; the same again where it is one already.

    `why` says who let it through, and on what grounds: the tag keeps it.
    Works in the clone that is the working directory. Raises PassingError where the champion is no longer `over`,
    which it was judged against, or others keep winning the race.
    """
    for _ in range(ATTEMPTS):
        leader = champion(product)
        if leader and leader.commit == commit:
            return leader
        if leader != over:
            raise PassingError(
                f"products.{product}: {leader.version if leader else 'no model'} has become the champion while this "
                "one was judged against another; it must be judged anew"
            )
        git("fetch", "--quiet", "--tags", "--force", ORIGIN)
        known = _tags(product)
        versions = [tag for tag in known if "@" in tag]
        version = next((tag.partition("@")[2] for tag in versions if known[tag] == commit), f"v{len(versions) + 1}.0.0")
        if f"{product}@{version}" not in known:
            _gto("register", product, commit, "--version", version)
        _gto("assign", product, "--version", version, "--stage", STAGE, "--message", why)
        new = [tag for tag in git("tag", "--list", f"{product}@*", f"{product}#*").split() if tag not in known]
        # All or none, and never over a tag that another run has put there first.
        pushed = subprocess.run(
            ["git", "push", "--quiet", "--atomic", ORIGIN, *(f"refs/tags/{tag}" for tag in new)],
            capture_output=True,
            text=True,
            check=False,
        )
        crash.here("promote: the tags are pushed")
        if pushed.returncode == 0:
            return Champion(version=version, commit=commit)
        git("tag", "--delete", *new)
    raise PassingError(f"products.{product}: the champion's tags could not be pushed; {pushed.stderr.strip()}")


def mirror(product: Product) -> None:
    """Write the champion as a small object beside the predictions, where another one, or none, stands there."""

    def follow(standing: Stored | None) -> bytes | None:
        # Asked after `standing` was read: where another promotion comes between, this replacement is refused.
        leader = champion(product.name)
        if leader is None:
            return None
        made = next((each for each in experiments(product.name) if each.commit == leader.commit), None)
        said = {
            "product": product.name,
            "version": leader.version,
            "commit": leader.commit,
            "experiment": made.name if made else None,
        }
        return None if standing and opened(standing) == said else seal(said)

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
        "ls-remote", "--tags", "--sort=version:refname", ORIGIN, f"refs/tags/{product}@*", f"refs/tags/{product}#*"
    )
    for line in listed.splitlines():
        commit, reference = line.split()
        found[reference.removeprefix("refs/tags/").removesuffix("^{}")] = commit  # the peeled line comes second
    return found


def _gto(*arguments: str) -> None:
    answer = subprocess.run(
        [Path(sys.executable).parent / "gto", *arguments], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise PassingError(f"gto {' '.join(arguments)} failed: {answer.stderr.strip() or answer.stdout.strip()}")
