"""Restore a run's workspace: a clone of the repository with a shared DVC cache, made from git and the DVC remote.

Every task restores it first, so it may start on any disk; what is there already is not fetched again. A finished stage
is saved for other disks by pushing its data, then the experiment: the experiment's git reference is the commit point.
Nothing is ever committed to a branch. Where the workspaces, the cache and the origin are: `tasks.runtime.settings`.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tasks import params
from tasks.params import effective
from tasks.params.edit import edited
from tasks.runs.dvc import LOCK_FILE, DvcLock, dvc, dvc_hash, lock_at, read_yaml
from tasks.runs.experiments import Run, workspaces
from tasks.runs.history import goes_on_without, newest_run_before
from tasks.runs.locks import changed_flag, commit_file, dirty_flag, locked, removal_lock, shared_lock, workspace_lock
from tasks.runs.programs import one_dvc
from tasks.runs.registry.erasures import check_knows, reference
from tasks.runs.remote import LostData, lost_data, way_out_of_lost_model
from tasks.runs.upstream import Declared, carried_ingest, check_upstream
from tasks.runtime import faults
from tasks.runtime.errors import CommandFailed, GitTimeout, TransientError, UserError
from tasks.runtime.git import git
from tasks.runtime.paths import Paths
from tasks.runtime.settings import ROOT, settings

KEPT_WORKSPACES = 4
"""Per product; older ones are removed when a run begins."""
BEGUN = "begun"
"""In the commit file of a run that has saved no stage yet."""
NIGHT = "night"
"""What all stages of a night read, as the name of a command."""


@contextmanager
def exclusive_workspace(run: Run, reads: str) -> Iterator[None]:
    """Work alone in the run's workspace, with the data that the command called `reads` reads.

    One process at a time restores or works. Where one was killed at work the workspace is made anew: git or DVC may
    have left it half written. Raises UserError where data is in neither the cache nor the remote.
    """
    with locked(removal_lock(), fcntl.LOCK_SH), locked(workspace_lock(run.workspace)):
        if dirty_flag(run).exists():
            with locked(shared_lock(run.workspace)):  # shards that are scoring in it come to their end first
                shutil.rmtree(run.workspace, ignore_errors=True)
        dirty_flag(run).touch()
        try:
            with one_dvc(run):
                _restore(run, reads)
                yield
        except GitTimeout:
            raise
        except Exception:
            if changed_flag(run).parent.exists():
                changed_flag(run).write_text(reads)
            dirty_flag(run).unlink()
            raise
        # After a git timeout, the task's timeout or an interrupt the flag stays: the next task makes a new workspace.
        dirty_flag(run).unlink()


@contextmanager
def shared_workspace(run: Run, reads: str) -> Iterator[None]:
    """Work in the run's workspace beside the other shards of the run; nobody deletes it meanwhile."""
    with ExitStack() as locks:
        with exclusive_workspace(run, reads):
            locks.enter_context(locked(shared_lock(run.workspace), fcntl.LOCK_SH))
        yield


def save_and_push(run: Run, *stages: str) -> None:
    """Save the finished stages for other disks: their data first, then the experiment that names it."""
    faults.failpoint("save: the stage is done")
    save_experiment(run)
    faults.failpoint("save: the experiment is saved here")
    check_erasures(run)
    try:
        dvc(run, "push", *(f"{stage}@{run.product}" for stage in stages))
    except CommandFailed as error:
        made = " and ".join(stages)
        raise TransientError(f"{run.name}: the DVC remote did not take what {made} made; {error}") from None
    faults.failpoint("save: the data is pushed")
    push_experiment(run)
    faults.failpoint("save: the experiment is pushed")
    commit_file(run).write_text(git("rev-parse", run.reference, cwd=run.workspace).strip())


def saved_commit(run: Run) -> str:
    """Return the experiment's commit as it was saved last."""
    return commit_file(run).read_text()


def _restore(run: Run, reads: str) -> None:
    if not commit_file(run).exists():
        _clone(run)
    _name_cache(run.workspace)
    saved = check_erasures(run)
    is_current = (saved or BEGUN) == commit_file(run).read_text()
    if saved and not is_current:
        git("fetch", "--quiet", "--force", settings().origin, f"{run.reference}:{run.reference}", cwd=run.workspace)
        git("checkout", "--quiet", saved, "--", "dvc.lock", "params.yaml", cwd=run.workspace)
        faults.failpoint("workspace: the experiment is checked out")
        git("reset", "--quiet", cwd=run.workspace)
        commit_file(run).write_text(saved)
    if not saved and not commit_file(run).read_text():
        _begin(run)
        faults.failpoint("workspace: the run has begun")
        commit_file(run).write_text(BEGUN)
        is_current = True
    needed = _reads(run, reads)
    if reads != NIGHT:  # whose stages all run now
        check_upstream(run, reads, needed, declared_stages(run))
    if changed_flag(run).exists():
        needed = list(dict.fromkeys([*needed, *_reads(run, changed_flag(run).read_text())]))
    elif is_current:  # what lies in the workspace is what dvc.lock names
        needed = [path for path in needed if not (run.workspace / path).exists()]
    pull(run, needed, f"what {reads} reads")
    changed_flag(run).unlink(missing_ok=True)
    if reads == "predict":
        check_model(run)
    faults.failpoint("workspace: all that is read is here")


def check_erasures(run: Run) -> str | None:
    """Return the commit of the run's experiment in the origin; None where it has none.

    Raises UserError where a person has had rows erased since the run was opened.
    """
    listed = git("ls-remote", settings().origin, run.reference, reference(run.product)).splitlines()
    found = {name: commit for commit, name in map(str.split, listed)}
    if reference(run.product) in found:
        check_knows(run.product, run.workspace, found[reference(run.product)], run.name)
    return found.get(run.reference)


def save_experiment(run: Run) -> None:
    """Save the workspace's dvc.lock and params.yaml as the run's experiment: a commit on its revision, on no branch.

    It is what `dvc exp save` makes, without its two seconds: DVC commits each output to the cache once more for it.
    """
    files = (LOCK_FILE, params.PARAMS_FILE.name)
    git("add", "--force", "--", *files, cwd=run.workspace)
    tree = git("write-tree", cwd=run.workspace).strip()
    git("reset", "--quiet", cwd=run.workspace)
    content = hashlib.sha256((run.workspace / LOCK_FILE).read_bytes()).hexdigest()
    message = f"dvc: commit experiment {content}"
    commit = git("commit-tree", tree, "-p", run.revision, "-m", message, cwd=run.workspace).strip()
    git("update-ref", run.reference, commit, cwd=run.workspace)


def push_experiment(run: Run) -> None:
    """Move the experiment in the origin, but only from the commit that this workspace carried on from.

    A worker that wakes after its retry has saved the stage must not take the run back.
    """
    known = commit_file(run).read_text()
    lease = f"--force-with-lease={run.reference}:{known if re.fullmatch('[0-9a-f]{40}', known) else ''}"
    git("push", "--quiet", lease, settings().origin, f"{run.reference}:{run.reference}", cwd=run.workspace)


def _clone(run: Run) -> None:
    """Make a clone at the run's revision that declares the run's as_of and shards; it appears in one step."""
    evict_workspaces(run)
    shutil.rmtree(run.workspace, ignore_errors=True)
    temporary = run.workspace.with_name(f".{run.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a try of this process that failed
    git("clone", "--quiet", "--no-checkout", settings().origin, str(temporary))
    git("checkout", "--quiet", "--detach", run.revision, cwd=temporary)
    git("config", "user.name", "lamplighter", cwd=temporary)
    git("config", "user.email", "lamplighter@localhost", cwd=temporary)
    git("remote", "remove", "origin", cwd=temporary)  # git is always given the origin's address as it is now
    declare_run(run, temporary / params.PARAMS_FILE)
    (temporary / ".git" / "lamplighter").write_text("")
    faults.failpoint("workspace: the clone is made")
    temporary.rename(run.workspace)


def _name_cache(workspace: Path) -> None:
    """Tell the workspace's DVC where the cache is now: the folder that holds both may have been moved."""
    file = workspace / ".dvc" / "config.local"
    together = ROOT in workspace.parents and ROOT in Path(settings().cache).parents
    cache = os.path.relpath(settings().cache, file.parent) if together else settings().cache
    text = f"[cache]\n    dir = {cache}\n"
    if not file.exists() or file.read_text("utf-8") != text:
        file.write_text(text, "utf-8")


def evict_workspaces(run: Run) -> None:
    """Remove the product's oldest workspaces."""
    remove_workspaces([path for path in workspaces(run.product) if path != run.workspace][KEPT_WORKSPACES:])


def remove_workspaces(paths: list[Path]) -> None:
    """Remove workspaces, but not one in which a run works or scores: all that they hold is in git and the remote."""
    at_once = fcntl.LOCK_EX | fcntl.LOCK_NB
    for path in paths:
        with suppress(BlockingIOError), locked(workspace_lock(path), at_once), locked(shared_lock(path), at_once):
            shutil.rmtree(path, ignore_errors=True)


def declare_run(run: Run, file: Path) -> None:
    """Set as_of, and shards where they differ, in the workspace's params.yaml; write the settings that DVC reads."""
    text = edited(file.read_text("utf-8"), {("as_of",): run.as_of})
    if params.loads(text).product(run.product).predict.shards != run.shards:
        text = edited(text, {("products", run.product, "predict", "shards"): run.shards})
    file.write_text(text, "utf-8")
    effective.write(params.loads(text).product(run.product), file.parent)


def _begin(run: Run) -> None:
    """Carry on raw data and verdicts from the newest run before, and for predict the model of the champion."""
    stages = dict(DvcLock.of(run.workspace).stages)
    ingest, validate, export = (f"{stage}@{run.product}" for stage in ("ingest", "validate", "export"))
    before = newest_run_before(run)
    if before:
        earlier = lock_at(run.workspace, before.commit).stages
        stages[ingest] = carried_ingest(run, earlier)
        stages.pop(validate, None)
        stages |= {validate: earlier[validate]} if validate in earlier else {}
    if run.raw_commit:
        git("fetch", "--quiet", "--no-tags", settings().origin, run.raw_commit, cwd=run.workspace)
        stages[ingest] = lock_at(run.workspace, run.raw_commit).stages[ingest]  # asked for this very night as well
    if source := run.raw_commit or (before and before.name):
        print(f"raw data carried on from {source}", flush=True)
    if run.champion:
        git("fetch", "--quiet", "--tags", settings().origin, cwd=run.workspace)
        stages[export] = lock_at(run.workspace, run.champion).stages[export]
        print(f"model {run.model_version} predicts", flush=True)
    lock = DvcLock(stages)
    lock.write(run.workspace)
    source = source or "main"
    raw, verdicts = list(lock.outs(ingest)), list(lock.outs(validate))
    model = [str(Paths(run.product).onnx)] if run.champion else []
    meaning = f"the raw data of {source}, without which history would be lost"
    try:
        pull(run, [*raw, *verdicts, *model], meaning)
    except LostData as error:
        if any(lies_in(each, model) for each in error.lost):
            raise
        lost_raw = any(lies_in(each, raw) for each in error.lost)
        if lost_raw and not goes_on_without(run):
            raise
        # What was judged follows from raw data: it is made anew, and so is all of it where the raw data are.
        gone = {ingest: raw, validate: verdicts} if lost_raw else {validate: verdicts}
        for path in (path for paths in gone.values() for path in paths):
            shutil.rmtree(run.workspace / path, ignore_errors=True)
        DvcLock({name: stage for name, stage in stages.items() if name not in gone}).write(run.workspace)
        if lost_raw:
            print(f"the raw data of {source} are lost: they are fetched anew, as a person decided", flush=True)
        else:
            print(f"what {source} had judged is lost: all days are judged anew", flush=True)
        pull(run, [*([] if lost_raw else raw), *model], meaning)


def lies_in(file: str, places: list[str]) -> bool:
    """Return whether a file or folder is one of the places, or lies in one."""
    return any(file.rstrip("/") == place or file.startswith(f"{place}/") for place in places)


def declared_stages(run: Run) -> dict[str, Declared]:
    """Return what dvc.yaml declares of each stage, in the workspace."""
    stages = read_yaml((run.workspace / "dvc.yaml").read_text("utf-8"))["stages"]
    return {name: stage["do"] for name, stage in stages.items()}


def _reads(run: Run, command: str) -> list[str]:
    """Return the data that a command reads, and that an append-only stage adds to."""
    paths = Paths(run.product)
    if command == NIGHT:
        return [str(path) for path in (paths.raw, paths.valid, paths.quarantine, paths.onnx)]
    if command == "publish":
        return [str(paths.predictions)]
    if command == "monitor":
        return [str(paths.valid)]
    if command in ("gc", "ready"):
        return []
    if command == "promote":
        judged = ("metrics.json", "evaluation.json", "export.json")
        shown = ("training.csv", "split.json", "validation.json")
        return [*(str(paths.report(name)) for name in (*judged, *shown)), str(paths.splits), str(paths.onnx)]
    declared = declared_stages(run)[command]
    kept = [path for out in declared["outs"] if isinstance(out, dict) for path in out]
    deps = [path for path in declared["deps"] if isinstance(path, str)]
    return [path.replace("${key}", run.product) for path in [*deps, *kept]]


def pull(run: Run, paths: list[str], meaning: str) -> None:
    """Bring recorded data into the workspace.

    Raises LostData where it is nowhere to be had, TransientError where the remote does not answer.
    """
    recorded = DvcLock.of(run.workspace).outs()
    wanted = [path for path in paths if path in recorded]
    if not wanted:
        return
    check_no_link(run, wanted)
    try:
        dvc(run, "pull", "--force", *wanted)
    except CommandFailed as error:
        lost = lost_data(run.workspace, wanted)
        if not lost:
            raise TransientError(f"{run.name}: the DVC remote did not give {meaning}; {error}") from None
        if run.champion and all(lies_in(each, [str(Paths(run.product).onnx)]) for each in lost):
            meaning = f"the model {run.model_version}, which predicts,"
        raise LostData(f"{run.name}: {meaning}", lost, _way_out(run, lost)) from None


def _way_out(run: Run, lost: list[str]) -> str:
    """Return what a person may do about lost data, beside restoring it."""
    model, paths = str(Paths(run.product).onnx), Paths(run.product)
    if run.champion and any(path.startswith(model) for path in lost):
        return way_out_of_lost_model(run.product, run.model_version or "", run.champion)
    if any(path.startswith(str(paths.raw)) for path in lost):
        return (
            f"where they are lost for good: make anew PRODUCT={run.product} AS_OF={run.as_of} REASON=..., commit, push "
            "and start a new run; it fetches all that the source has anew"
        )
    return f"start a new run of {run.product} with as_of {run.as_of}, which makes them again"


def check_model(run: Run) -> None:
    """Raise UserError unless the model on this disk is the one that dvc.lock, and so the registry's commit, names."""
    place = str(Paths(run.product).onnx)
    recorded = DvcLock.of(run.workspace).outs(f"export@{run.product}").get(place)
    if recorded is not None and recorded != dvc_hash(run.workspace / place):
        raise UserError(
            f"{run.name}: {place} must be what is registered, {recorded}, and is not; something has changed it: "
            f"delete {run.workspace / place}, and clear the task"
        )


def check_no_link(run: Run, paths: list[str]) -> None:
    """Raise UserError where data would be written through a symbolic link to another place."""
    for path in paths:
        folder = run.workspace
        for part in Path(path).parts:
            folder = folder / part
            if folder.is_symlink() and not folder.resolve().is_relative_to(Path(settings().cache).resolve()):
                raise UserError(
                    f"{run.name}: data must lie in the workspace itself, and {folder.relative_to(run.workspace)} is a "
                    "symbolic link to another place; remove it from the repository"
                )
