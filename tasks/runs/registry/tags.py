"""Read a product's registry as the origin has it: the tags of GTO, replayed in the order of their numbers.

    flight-delays@v2.0.0        this experiment's model is version 2
    flight-delays@v2.0.0!       version 2 was taken back for good: it is banned
    flight-delays#prod#3        the third act: this version is the champion from now on
    flight-delays#prod!#4       this version is withdrawn: the champion before it predicts again
    flight-delays#hold#5        this version stays the champion, whatever passes the gates; #hold!#6 releases it
    flight-delays#banned#7      this version never predicts again; #banned!#8 releases it
    flight-delays#released#9    what was withdrawn may pass the gates again
    flight-delays#deprecated#10 this version has learnt from rows that were erased since: the next one takes its place

A model is known by its content, the hash of its exported files in the dvc.lock of its commit: what a person withdrew or
banned stays out under every other version, too. Up to which date a model has learnt, the params.yaml of its commit
says. So all that decides lies behind the tag itself: nothing depends on what else the origin still keeps.
"""

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path

import yaml

from tasks import params
from tasks.runs.dvc import LOCK_FILE, DvcLock
from tasks.runtime.errors import UserError
from tasks.runtime.git import git, try_git
from tasks.runtime.paths import Paths
from tasks.runtime.settings import settings

STAGE, HOLD, BANNED, RELEASED, DEPRECATED = "prod", "hold", "banned", "released", "deprecated"
"""The stages of GTO that decide about a version."""
_FORMAT = "%00".join(
    f"%({field})" for field in ("refname", "objectname", "*objectname", "taggername", "taggerdate:short")
)


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A model that predicts, or may."""

    version: str
    """Such as v2.0.0."""
    commit: str
    """The commit of the experiment that made it."""
    as_of: str | None
    """The date up to which it has learnt, YYYY-MM-DD; None where the commit does not say it."""

    def trained_after(self, as_of: date) -> bool:
        """Return whether it has learnt from data that was not known yet on `as_of`.

        Raises UserError where its commit does not say how far its data reach.
        """
        if self.as_of is None:
            raise UserError(
                f"{params.PARAMS_FILE} of the commit {self.commit[:12]}, which is tagged as {self.version}, must say "
                "the as_of up to which the model has learnt, and does not; ban that version, or tag the commit of an "
                "experiment"
            )
        return self.as_of > as_of.isoformat()


@dataclass(frozen=True, kw_only=True)
class Act:
    """What a tag does with a version."""

    number: int
    """Its place in the order of all acts."""
    stage: str
    """One of GTO's stages."""
    ends: bool
    """Whether the version leaves the stage."""
    commit: str
    """The commit of the version."""
    person: str
    """Whoever made the tag."""
    day: str
    """YYYY-MM-DD."""
    reason: str
    """The tag's message."""

    def __str__(self) -> str:
        return f"on {self.day} by {self.person or 'somebody'}: {self.reason or 'no reason given'}"


@dataclass
class Effect:
    """Where the acts have led to: lists are the oldest first, contents are of models."""

    assigned: list[str]
    """The commits that may predict, by their last assignment."""
    withdrawn: dict[str, Act]
    """By content, what a person has taken from the stage, and not put back or released."""
    banned: dict[str, Act]
    """By content."""
    deprecated: dict[str, Act] = field(default_factory=dict)
    """By content, models that have learnt from rows that were erased since."""
    held: Act | None = None
    """The act that holds the champion."""


class Registry:
    """The registry of one product, in a repository that holds its tags and nothing else."""

    def __init__(self, repository: Path, product: str) -> None:
        """Read the tags of a repository."""
        self.repository, self.product = repository, product
        self.versions: dict[str, str] = {}
        """The commit of each registered version, oldest version first."""
        self._as_ofs: dict[str, str | None] = {}
        self._contents: dict[str, str] = {}
        self.tags: set[str] = set()
        """The names of all tags of the product."""
        self.acts: list[Act] = []
        self._read_tags()

    @property
    def champion(self) -> Champion | None:
        """Return the model that predicts now. Raises UserError where it has no version."""
        return next(self._candidates(), None)

    def champion_until(self, trained_until: date) -> Champion | None:
        """Return the newest champion that has learnt from nothing later. Raises UserError as `champion` does."""
        return next((each for each in self._candidates() if not each.trained_after(trained_until)), None)

    def candidates(self, trained_until: date) -> list[Champion]:
        """Return the champion of a date and after it those whose place it has taken. Raises as `champion_until`."""
        return [each for each in self._candidates() if not each.trained_after(trained_until)]

    @property
    def hold(self) -> Act | None:
        """Return the act that holds the champion; None where none does."""
        held, leader = self.effect.held, self.champion
        return held if held and leader and leader.commit == held.commit else None

    def about_hold(self) -> str:
        """Return which version is held, by whom and why, and what would end that; nothing where none is."""
        if not self.hold:
            return ""
        version = self.described(self.hold.commit).version
        release = f"make release PRODUCT={self.product} VERSION={version} REASON=..."
        return f"{version} is held {self.hold}; {release} ends that"

    def version_at(self, commit: str) -> str | None:
        """Return the version of a commit."""
        return next((version for version, at in self.versions.items() if at == commit), None)

    def described(self, commit: str) -> Champion:
        """Return the version of a commit with all that is known of it. Raises UserError where it has none."""
        version = self.version_at(commit)
        if version is None:
            raise UserError(
                f"products.{self.product}: the commit {commit[:12]} that is in {STAGE} must have a tag "
                f"{self.product}@v..., and has none in the origin; push that tag too, or assign another version"
            )
        return Champion(version=version, commit=commit, as_of=self.as_of(commit))

    def as_of(self, commit: str) -> str | None:
        """Return the date up to which a commit's model has learnt; None where the commit does not say it."""
        if commit not in self._as_ofs:
            self._as_ofs[commit] = as_of_at(self.repository, commit)
        return self._as_ofs[commit]

    def content(self, commit: str) -> str:
        """Return by what a commit's model is known: the hash of its exported files, or else the commit itself."""
        if commit not in self._contents:
            self._contents[commit] = content_at(self.repository, self.product, commit) or commit
        return self._contents[commit]

    def exclusion(self, content: str) -> str:
        """Return why the model of this content may not become the champion, and what would let it; nothing if it may.

        The version that is named is the one that was taken out.
        """
        for acts, done, remedy in (
            (self.effect.banned, "banned", "make release PRODUCT={product} VERSION={version} REASON=... lifts that"),
            (
                self.effect.withdrawn,
                "withdrawn",
                "make release PRODUCT={product} VERSION={version} REASON=... lets it pass the gates again, and "
                "make rollback PRODUCT={product} TO={version} REASON=... makes it the champion at once",
            ),
        ):
            if content in acts:
                version = self.version_at(acts[content].commit) or acts[content].commit[:12]
                named = remedy.format(product=self.product, version=version)
                return f"it is the model of {version}, which was {done} {acts[content]}; {named}"
        return ""

    def exclusion_at(self, commit: str) -> str:
        """Return why the model of a commit may not become the champion, as `exclusion` does."""
        return self.exclusion(self.content(commit))

    @cached_property
    def effect(self) -> Effect:
        """Replay the acts."""
        now = Effect(assigned=[], withdrawn={}, banned={})
        for act in self.acts:
            if act.stage == STAGE:
                self._replay_assignment(now, act)
            elif act.stage == HOLD and not act.ends:
                now.held = act
            elif act.stage == HOLD and now.held and now.held.commit == act.commit:
                now.held = None
            elif act.stage == BANNED and not act.ends:
                now.banned[self.content(act.commit)] = act
            elif act.stage == DEPRECATED:
                now.deprecated[self.content(act.commit)] = act
            elif act.stage in (BANNED, RELEASED):
                now.banned.pop(self.content(act.commit), None)
                now.withdrawn.pop(self.content(act.commit), None)
        return now

    def _replay_assignment(self, now: Effect, act: Act) -> None:
        """Move a version to the top of the stage, or out of it.

        Where a version that is beneath others is put on top again, a person went back to it: those above are withdrawn.
        It is not so where they have learnt from earlier data: then they are the models of their own time, and the one
        above them goes on, as promote says by the same tag.
        """
        if act.ends:
            now.assigned = [each for each in now.assigned if each != act.commit]
            now.withdrawn[self.content(act.commit)] = act
            return
        place = now.assigned.index(act.commit) if act.commit in now.assigned else len(now.assigned)
        for above in now.assigned[place + 1 :]:
            if not (self.as_of(above) or "") < (self.as_of(act.commit) or ""):
                now.assigned.remove(above)
                now.withdrawn[self.content(above)] = replace(act, commit=above)
        now.assigned = [*(each for each in now.assigned if each != act.commit), act.commit]
        if now.withdrawn:
            now.withdrawn.pop(self.content(act.commit), None)

    def _candidates(self) -> Iterator[Champion]:
        """Yield the models that may predict: the held one first, then the newest assignment before older ones."""
        now = self.effect
        held = [now.held.commit] if now.held else []
        out = now.banned.keys() | now.withdrawn.keys()
        for commit in [*held, *reversed([each for each in now.assigned if each not in held])]:
            if not out or self.content(commit) not in out:
                yield self.described(commit)

    def _read_tags(self) -> None:
        name = re.escape(self.product)
        form = re.compile(rf"refs/tags/{name}(?:@(v\d+\.\d+\.\d+)(!?)|#([a-z]+)(!?)#(\d+))")
        fields = f"--format={_FORMAT}%00%(contents:subject)"
        listed = git("for-each-ref", "--sort=version:refname", fields, "refs/tags", cwd=self.repository)
        for line in listed.splitlines():
            tag, marked, peeled, person, day, reason = line.split("\0")
            match = form.fullmatch(tag)
            self.tags.add(tag.removeprefix("refs/tags/"))
            if match is None:
                continue
            version, taken_back, stage, ends, number = match.groups()
            commit = peeled or marked
            if version and not taken_back:
                self.versions[version] = commit
                continue
            self.acts.append(
                Act(
                    number=int(number) if number else sys.maxsize,
                    stage=stage or BANNED,
                    ends=bool(ends),
                    commit=commit,
                    person=person,
                    day=day,
                    reason=reason,
                )
            )
        # A ban that was made while a promotion was is the later one, whichever was pushed first: both have one number.
        order = {STAGE: 0, DEPRECATED: 1, RELEASED: 1, HOLD: 2, BANNED: 3}
        self.acts = sorted(
            (act for act in self.acts if act.stage in order),
            key=lambda act: (act.number, order[act.stage]),
        )


@contextmanager
def registry_of(product: str) -> Iterator[Registry]:
    """Open the product's registry as the origin has it now. Raises TransientError where it does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        git("init", "--quiet", "--bare", folder)
        patterns = [f"refs/tags/{product}{sign}*" for sign in "@#"]
        if git("ls-remote", settings().origin, *patterns):  # git fetches nothing at all as a failure
            references = [f"+{each}:{each}" for each in patterns]
            git("fetch", "--quiet", "--no-tags", "--depth", "1", settings().origin, *references, cwd=Path(folder))
        yield Registry(Path(folder), product)


def as_of_at(repository: Path, commit: str) -> str | None:
    """Return the as_of that the params.yaml of a commit declares; None where it declares none."""
    text = try_git("show", f"{commit}:{params.PARAMS_FILE}", cwd=repository)
    try:
        declared = params.raw(text or "")
        return params.parse_date(str(declared["as_of"])).isoformat()
    except (UserError, TypeError, KeyError, ValueError):
        return None


def content_at(repository: Path, product: str, commit: str) -> str | None:
    """Return the hash of the exported model that the dvc.lock of a commit records; None where it records none."""
    text = try_git("show", f"{commit}:{LOCK_FILE}", cwd=repository)
    try:
        return DvcLock.parse(text or "").outs(f"export@{product}").get(str(Paths(product).onnx))
    except (TypeError, KeyError, AttributeError, yaml.YAMLError):
        return None
