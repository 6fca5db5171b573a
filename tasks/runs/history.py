"""Find the run whose raw data a run carries on from: the product's newest one before it.

An origin may have lost experiments: a plain clone has none, and a host may prune them. Tags and published nights still
show then that the product has a past. Without that history raw data would be fetched anew, and with it whatever the
source has rewritten meanwhile; so a run that cannot find it stops, until a person brings it back or decides that this
one run goes on without (`make anew`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from tasks import params
from tasks.publication import manifests
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.rows.decisions import Anew, file_of, read_decisions
from tasks.runs.dvc import LOCK_FILE, DvcLock
from tasks.runs.experiments import Run, experiments
from tasks.runs.registry.tags import Registry
from tasks.runtime.errors import UserError
from tasks.runtime.git import git, has_fetched, try_git
from tasks.runtime.settings import settings


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A run of the same or an earlier as_of, or a trace that one has left."""

    name: str
    """The experiment's name, or what names it."""
    as_of: str
    """YYYY-MM-DD."""
    commit: str
    """The experiment's commit."""


def newest_run_before(run: Run) -> Earlier | None:
    """Return the product's newest run with the same or an earlier as_of, whose commit the workspace has; None without.

    Raises UserError where a tag or a published night shows a newer one that the origin no longer has.
    """
    newest = _newest_experiment(run)
    for trace in sorted([*_tagged(run), *_published(run)], key=lambda each: each.as_of, reverse=True):
        if newest and trace.as_of <= newest.as_of:
            break
        if _has_raw_data(run, trace.commit):
            return trace
        if not goes_on_without(run):
            raise UserError(_missing(run, trace, newest))
    return newest


def _newest_experiment(run: Run) -> Earlier | None:
    known = [each for each in experiments(run.product) if each.as_of <= run.as_of]
    latest = [each for each in known if each.as_of == max(known, key=lambda other: other.as_of).as_of]
    if not latest:
        return None
    references = (f"+{each.reference}:{each.reference}" for each in latest)
    git("fetch", "--quiet", settings().origin, *references, cwd=run.workspace)
    saved_at = {each: int(git("show", "-s", "--format=%ct", each.commit, cwd=run.workspace)) for each in latest}
    newest = max(latest, key=lambda each: (saved_at[each], each.name))
    return Earlier(name=newest.name, as_of=newest.as_of, commit=newest.commit)


def _tagged(run: Run) -> Iterator[Earlier]:
    """Yield the trainings that the registry's tags name."""
    git("fetch", "--quiet", "--tags", settings().origin, cwd=run.workspace)
    registry = Registry(run.workspace, run.product)
    for version, commit in registry.versions.items():
        as_of = registry.as_of(commit)
        # A commit without the stage was registered by hand: it is no run of the pipeline's.
        if as_of is not None and as_of <= run.as_of and _has_raw_data(run, commit):
            yield Earlier(name=f"the training of {version}", as_of=as_of, commit=commit)


def _published(run: Run) -> Iterator[Earlier]:
    """Yield the newest night of a run that the store has: by its pointer, or else of this date and the one before."""
    product = params.load(run.workspace / params.PARAMS_FILE).product(run.product)
    store, as_of = Store(product.publish.url), date.fromisoformat(run.as_of)
    pointer = manifests.latest(store, run.product)
    if pointer is None:
        return
    newest = pointer.dt
    for day in [newest] if newest <= as_of else [as_of, as_of - timedelta(days=1)]:
        manifest = manifests.current_manifest(NightPlace(store=store, product=run.product, as_of=day))
        if manifest and manifest.experiment and manifest.experiment_commit:
            name = f"{manifest.experiment}, which published the night of {day}"
            yield Earlier(name=name, as_of=day.isoformat(), commit=manifest.experiment_commit)


def _has_raw_data(run: Run, commit: str) -> bool:
    """Return whether the workspace or the origin has a commit that records raw data; bring it where it is there."""
    place = f"{commit}:{LOCK_FILE}"
    text = try_git("show", place, cwd=run.workspace)
    if text is None and has_fetched(commit, run.workspace):
        text = try_git("show", place, cwd=run.workspace)
    return text is not None and f"ingest@{run.product}" in DvcLock.parse(text).stages


def goes_on_without(run: Run) -> bool:
    """Return whether a person decided, in the run's own revision, that it goes on without the missing history."""
    file = run.workspace / file_of(run.product, date.fromisoformat(run.as_of))
    return any(isinstance(each, Anew) for each in read_decisions(file))


def _missing(run: Run, trace: Earlier, newest: Earlier | None) -> str:
    kept = f"the newest run that it keeps is {newest.name}" if newest else "it keeps no run up to this as_of"
    return (
        f"{run.name}: the origin must have the product's history, and has not that of {trace.name} (commit "
        f"{trace.commit[:12]}); {kept}. Without it raw data would be fetched anew, with all that the source has "
        "rewritten since. Bring it from a clone or a backup that has it: in there, git push <origin> "
        "'refs/exps/*:refs/exps/*' (a plain clone has none: git fetch <other> 'refs/exps/*:refs/exps/*' first). Where "
        f"it is lost for good: make anew PRODUCT={run.product} AS_OF={run.as_of} REASON=..., commit, push and start a "
        "new run"
    )
