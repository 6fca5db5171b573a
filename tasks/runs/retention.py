"""Decide which experiments and data of a project are needed, and remove the others, once they are old enough.

Needed are the experiments that a published night, or a registered version, names; of each product the newest one, from
which the next run carries its history on; all that branches, tags and people's own experiments name; and what is new.
`retention:` of a product says how long the rest is kept. Nothing is removed while a task is at work on this machine.

The task `gc` of a night is another thing: it deletes replaced parts of nights, `tasks.publication.garbage`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from tasks import params
from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.runs.dvc import hashes_in
from tasks.runs.experiments import Experiment, run_name_pattern
from tasks.runs.objects import Needed, Objects, recorded_hashes
from tasks.runs.registry.erasures import erasures_of
from tasks.runtime import faults
from tasks.runtime.errors import UserError
from tasks.runtime.git import git, has_fetched, try_git
from tasks.runtime.settings import ROOT, settings

YOUNG = timedelta(days=3)
"""Whatever is newer stays: a run may wait two days for its approval, and saves its data before it names them."""
EXPERIMENTS = "refs/exps/"


@dataclass(frozen=True, kw_only=True)
class KeptExperiment(Experiment):
    """A run as a clone of the origin has it."""

    saved: datetime
    """The time at which it was saved last."""


@dataclass
class Plan:
    """What goes, and what all of it is."""

    clone: Path
    """A clone of the origin with all of its refs."""
    experiments: list[KeptExperiment] = field(default_factory=list)
    """Of the declared products."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why an experiment stays, by its commit."""
    lost: set[str] = field(default_factory=set)
    """Folders of needed data whose lists are in neither the cache nor the remote."""
    places: dict[str, Objects] = field(default_factory=dict)
    """The cache and the remote, by these words."""
    unneeded: dict[str, list[str]] = field(default_factory=dict)
    """What goes of each, by hash."""

    @property
    def going(self) -> list[KeptExperiment]:
        """Return the experiments that go."""
        return [each for each in self.experiments if each.commit not in self.reasons]


def make_plan(clone: Path, now: datetime) -> Plan:
    """Decide, at a moment, what goes; change nothing. `clone` is an empty folder.

    Raises UserError where the origin lacks what a published night or the registry names, TransientError where the
    origin, the store of nights or the DVC remote does not answer.
    """
    clone_all(clone)
    plan = Plan(clone)
    everything = params.loads(git("show", f"HEAD:{params.PARAMS_FILE}", cwd=clone))
    for product in everything.products.values():
        found = kept_experiments(clone, product.name)
        plan.experiments += found
        plan.reasons |= _reasons(clone, product, found, now)
    for each in plan.going:
        git("update-ref", "-d", each.reference, cwd=clone)
    plan.places = {"cache": Objects.of_cache(Path(settings().cache)), "remote": Objects.of_remote(clone)}
    places, needed = list(plan.places.values()), Needed()
    needed.add(recorded_hashes(clone, sorted({*_commits_of_refs(clone), *plan.reasons})), places)
    if plan.places["remote"].stored and not needed.hashes:
        raise UserError(
            f"the origin must name data of the remote {plan.places['remote'].name}, and names none: nothing is "
            "removed; is LAMPLIGHTER_ORIGIN right, and has it refs/exps/*?"
        )
    erased = {each for name in everything.products for each in erasures_of(name).objects}
    plan.lost = needed.lost - erased  # what is gone on a person's word is not lost
    plan.unneeded["remote"] = plan.places["remote"].unneeded(needed.hashes, now - YOUNG)
    needed.add(_hashes_of_this_disk(), places)
    plan.unneeded["cache"] = plan.places["cache"].unneeded(needed.hashes, now - YOUNG)
    return plan


def carry_out(plan: Plan) -> None:
    """Remove what the plan says: the experiments first, then their data. Killed anywhere, the next plan goes on.

    Raises TransientError where an experiment was saved again meanwhile.
    """
    going = plan.going
    for first in range(0, len(going), 100):
        some_experiments = going[first : first + 100]
        leases = [f"--force-with-lease={each.reference}:{each.commit}" for each in some_experiments]
        git("push", "--quiet", *leases, settings().origin, *(f":{each.reference}" for each in some_experiments))
        faults.failpoint("gc: experiments are removed")
    for name in ("remote", "cache"):
        plan.places[name].remove(plan.unneeded[name])


def clone_all(clone: Path) -> None:
    """Clone the origin with all its refs, and this repository's own branches, with the files that DVC needs."""
    git("clone", "--quiet", "--no-checkout", settings().origin, str(clone))
    git("fetch", "--quiet", "--tags", settings().origin, f"+{EXPERIMENTS}*:{EXPERIMENTS}*", cwd=clone)
    if try_git("rev-parse", "--git-dir", cwd=ROOT) is not None:
        git("fetch", "--quiet", "--no-tags", str(ROOT), "+refs/heads/*:refs/here/*", cwd=clone)
    git("checkout", "--quiet", "HEAD", "--", ".dvc", cwd=clone)


def kept_experiments(clone: Path, product: str) -> list[KeptExperiment]:
    """Return the product's experiments in a clone that has all refs."""
    name = re.compile(f"{EXPERIMENTS}../.{{38}}/({run_name_pattern(product)})")
    listed = git("for-each-ref", "--format=%(refname) %(objectname) %(committerdate:unix)", EXPERIMENTS, cwd=clone)
    return [
        KeptExperiment(
            name=match[1],
            as_of=match[2],
            kind=match[3],
            reference=reference,
            commit=commit,
            saved=datetime.fromtimestamp(int(saved), UTC),
        )
        for reference, commit, saved in map(str.split, listed.splitlines())
        if (match := name.fullmatch(reference))
    ]


def newest_of(found: list[KeptExperiment]) -> KeptExperiment | None:
    """Return the experiment from which the next run of any later date carries its history on; None without one."""
    return max(found, key=lambda each: (each.as_of, each.saved, each.name), default=None)


def _reasons(clone: Path, product: Product, found: list[KeptExperiment], now: datetime) -> dict[str, str]:
    """Return the commits that must stay, each with the reason."""
    retention = product.retention
    reasons = {
        each.commit: "new"
        for each in found
        if now - each.saved < max(YOUNG, timedelta(days=retention.experiments_days))
    }
    if history := newest_of(found):
        reasons[history.commit] = "history"
    by_name = {each.name: each.commit for each in found}
    for name, commit, night in named_by_nights(product):
        known = commit if commit and has_commit(clone, commit) else by_name.get(name or "")
        if known is None:
            raise UserError(
                f"products.{product.name}: the origin must hold the experiment {name or commit} that the night of "
                f"{night} was made of, and does not: nothing is removed, since its data could not be told from "
                "others; fetch refs/exps/* back from a clone or backup, or let go of the night with "
                f"products.{product.name}.retention.nights_days"
            )
        reasons[known] = "nights"
    for commit in _tagged(clone, product.name):
        reasons[commit] = "registry"
    return reasons


def named_by_nights(product: Product) -> Iterator[tuple[str | None, str | None, date]]:
    """Yield name and commit of each experiment that nights within retention name, with the night."""
    nights = list(manifests_of(product))
    days = product.retention.nights_days
    newest = max((night.dt for night in nights), default=date.min)
    for night in nights:
        if days is not None and night.dt < newest - timedelta(days=days):
            continue
        if night.experiment or night.experiment_commit:  # else published by hand
            yield night.experiment, night.experiment_commit, night.dt
        if night.model.commit:
            yield None, night.model.commit, night.dt


def manifests_of(product: Product) -> Iterator[Manifest]:
    """Yield every manifest, those that were replaced too."""
    store = Store(product.publish.url)
    night = re.compile(rf"{re.escape(product.name)}/dt=(\d{{4}}-\d\d-\d\d)/{re.escape(manifests.MANIFEST)}")
    for key in store.list(f"{product.name}/"):
        if match := night.fullmatch(key):
            place = NightPlace(store=store, product=product.name, as_of=date.fromisoformat(match[1]))
            current = manifests.current_manifest(place)
            yield from [*manifests.history(place), *([current] if current else [])]


def _commits_of_refs(clone: Path) -> list[str]:
    """Return the commits of all refs of a clone: branches, tags, experiments that are left."""
    listed = git("for-each-ref", "--format=%(objecttype) %(objectname) %(*objecttype) %(*objectname)", cwd=clone)
    pairs = [line.split() for line in listed.splitlines()]
    return [pair[-1] for pair in pairs if pair[-2] == "commit"]


def _tagged(clone: Path, product: str) -> list[str]:
    """Return the commits of all versions and assignments that the registry ever had."""
    listed = git(
        "for-each-ref",
        "--format=%(objectname) %(*objectname)",
        f"refs/tags/{product}@*",
        f"refs/tags/{product}#*",
        cwd=clone,
    )
    return [line.split()[-1] for line in listed.splitlines()]


def has_commit(clone: Path, commit: str) -> bool:
    """Return whether a commit can be had; an experiment that was saved again is under no ref any more."""
    if try_git("cat-file", "-e", f"{commit}^{{commit}}", cwd=clone) is not None:
        return True
    return has_fetched(commit, clone)


def _hashes_of_this_disk() -> set[str]:
    """Return the hashes that workspaces and the working tree name, committed or not."""
    files = [*settings().home.glob("runs/*/dvc.lock"), *_tracked_by_dvc()]
    return {each for file in files if file.is_file() for each in hashes_in(file.read_text("utf-8"))}


def _tracked_by_dvc() -> Iterable[Path]:
    wanted = ("--cached", "--others", "--exclude-standard", "--", "*.dvc", "dvc.lock", "*/dvc.lock")
    names = try_git("ls-files", "-z", *wanted, cwd=ROOT) or ""
    return (ROOT / name for name in names.split("\0") if name)


def counted(reasons: Mapping[str, str]) -> dict[str, int]:
    """Return how many experiments stay for each reason."""
    return {reason: list(reasons.values()).count(reason) for reason in sorted({*reasons.values()})}
