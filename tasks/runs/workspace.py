"""A run's workspace: a clone of the repository with a shared DVC cache, restored from git and the DVC remote.

Every task restores it first, so it may start on any disk; what is there already is not fetched again. A stage
is handed on by pushing its data, then the experiment: the experiment's git reference is the commit point.
Nothing is ever committed to a branch.

Settings, from the environment: LAMPLIGHTER_ORIGIN (the repository; default: the one this file lies in),
LAMPLIGHTER_HOME (where workspaces lie; default: <root>/.lamplighter), LAMPLIGHTER_CACHE (the DVC cache of all
workspaces on this disk; default: <root>/.dvc/cache).
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import yaml

from tasks import params
from tasks.params import effective
from tasks.params.edit import edited
from tasks.runs.dvc import CommandFailed, dvc, dvc_hash, lock_at, read_lock
from tasks.runs.experiments import Run, experiments, workspaces
from tasks.runs.locks import commit_file, dirty_flag, locked, shared_lock, workspace_lock
from tasks.runtime import faults
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.git import GitTimeout, git
from tasks.runtime.settings import settings

KEPT_WORKSPACES = 4
"""Per product; older ones make room when a run begins."""


@contextmanager
def exclusive_workspace(run: Run, reads: str) -> Iterator[None]:
    """Work in the run's workspace, holding what the stage, or publish, gc or promote, called `reads` reads.

    One process at a time restores or works. Where one was killed at work the workspace is made anew: git or DVC may
    have left it half written. Raises UserError where data is in neither the cache nor the remote.
    """
    with locked(workspace_lock(run.workspace)):
        if dirty_flag(run).exists():
            with locked(shared_lock(run.workspace)):  # shards that are scoring there come to their end first
                shutil.rmtree(run.workspace, ignore_errors=True)
        dirty_flag(run).touch()
        try:
            _restore(run, reads)
            yield
        except GitTimeout:
            raise
        except Exception:
            dirty_flag(run).unlink()
            raise
        # Where git hangs, time is up or a person interrupts, what works here is killed: the next one makes it anew.
        dirty_flag(run).unlink()


@contextmanager
def shared_workspace(run: Run, reads: str) -> Iterator[None]:
    """As `restored`, but beside others that do the same: the run's shards. Nobody deletes the workspace meanwhile."""
    with ExitStack() as held:
        with exclusive_workspace(run, reads):
            held.enter_context(locked(shared_lock(run.workspace), fcntl.LOCK_SH))
        yield


def save_and_push(run: Run, stage: str) -> None:
    """Keep the finished stage for other disks: its data first, then the experiment that names it."""
    target = f"{stage}@{run.product}"
    faults.failpoint("hand on: the stage is done")
    dvc(run, "exp", "save", "--force", "--name", run.name, target, quietly=True)
    faults.failpoint("hand on: the experiment is saved here")
    try:
        dvc(run, "push", target, quietly=True)
    except CommandFailed as error:
        raise TransientError(f"{run.name}: the DVC remote did not take what {stage} made; {error}") from None
    faults.failpoint("hand on: the data is pushed")
    _push_experiment(run)
    faults.failpoint("hand on: the experiment is pushed")
    commit_file(run).write_text(git("rev-parse", run.reference, cwd=run.workspace).strip())


def saved_commit(run: Run) -> str:
    """The experiment's commit as it was handed on last."""
    return commit_file(run).read_text()


def _restore(run: Run, reads: str) -> None:
    if not commit_file(run).exists():
        _clone(run)
    saved = git("ls-remote", settings().origin, run.reference).split()
    here = bool(saved) and saved[0] == commit_file(run).read_text()
    if saved and not here:
        git("fetch", "--quiet", "--force", settings().origin, f"{run.reference}:{run.reference}", cwd=run.workspace)
        git("checkout", "--quiet", saved[0], "--", "dvc.lock", "params.yaml", cwd=run.workspace)
        faults.failpoint("workspace: the experiment is checked out")
        git("reset", "--quiet", cwd=run.workspace)
        commit_file(run).write_text(saved[0])
    if not saved and not commit_file(run).read_text():
        _begin(run)
        faults.failpoint("workspace: the run has begun")
        commit_file(run).write_text("begun")
    needed = _reads(run, reads)
    if not here or not all((run.workspace / path).exists() for path in needed):
        _pull(run, needed, f"what {reads} reads")
    if reads == "predict":
        _check_model(run)
    faults.failpoint("workspace: all that is read is here")


def _push_experiment(run: Run) -> None:
    """Move the experiment in the origin, but only from where we carried on.

    A worker that wakes after its retry has handed on must not take the run back.
    """
    stood = commit_file(run).read_text()
    lease = f"--force-with-lease={run.reference}:{stood if re.fullmatch('[0-9a-f]{40}', stood) else ''}"
    git("push", "--quiet", lease, settings().origin, f"{run.reference}:{run.reference}", cwd=run.workspace)


def _clone(run: Run) -> None:
    """A clone at the run's revision with the run's as_of and shards declared; it appears in one step."""
    evict_workspaces(run)
    shutil.rmtree(run.workspace, ignore_errors=True)
    aside = run.workspace.with_name(f".{run.name}.tmp-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)  # of a try of this process that failed
    git("clone", "--quiet", "--no-checkout", settings().origin, str(aside))
    git("checkout", "--quiet", "--detach", run.revision, cwd=aside)
    git("config", "user.name", "lamplighter", cwd=aside)
    git("config", "user.email", "lamplighter@localhost", cwd=aside)
    (aside / ".dvc" / "config.local").write_text(
        f"[cache]\n    dir = {settings().cache}\n[core]\n    autostage = true\n"
    )
    declare_run(run, aside / params.PARAMS_FILE)
    (aside / ".git" / "lamplighter").write_text("")
    faults.failpoint("workspace: the clone is made aside")
    aside.rename(run.workspace)


def evict_workspaces(run: Run) -> None:
    """Remove the product's oldest workspaces: all that they hold is in git and the DVC remote."""
    at_once = fcntl.LOCK_EX | fcntl.LOCK_NB
    for path in [path for path in workspaces(run.product) if path != run.workspace][KEPT_WORKSPACES:]:
        # Where a run works or scores, it stays.
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
    """Carry on from earlier runs: raw data from the newest one before, and for predict the champion's model."""
    lock = read_lock(run.workspace)
    entry, before = f"ingest@{run.product}", _newest_run_before(run)
    if before:
        name, commit = before
        lock["stages"][entry] = lock_at(run.workspace, commit)["stages"][entry]
        print(f"raw data carried on from {name}", flush=True)
    if run.champion:
        git("fetch", "--quiet", "--tags", settings().origin, cwd=run.workspace)
        export = f"export@{run.product}"
        lock["stages"][export] = lock_at(run.workspace, run.champion)["stages"][export]
        print(f"model {run.model_version} predicts", flush=True)
    (run.workspace / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False), "utf-8")
    outs = [out["path"] for out in lock["stages"].get(entry, {}).get("outs", [])]
    _pull(run, outs, f"the raw data of {before[0] if before else 'main'}, without which history would be lost")


def _newest_run_before(run: Run) -> tuple[str, str] | None:
    """Name and commit of the product's newest run with the same or an earlier as_of."""
    known = [each for each in experiments(run.product) if each.as_of <= run.as_of]
    latest = [each for each in known if each.as_of == max(known, key=lambda other: other.as_of).as_of]
    if not latest:
        return None
    git(
        "fetch",
        "--quiet",
        settings().origin,
        *(f"+{each.reference}:{each.reference}" for each in latest),
        cwd=run.workspace,
    )
    saved_at = {each: int(git("show", "-s", "--format=%ct", each.commit, cwd=run.workspace)) for each in latest}
    newest = max(latest, key=lambda each: (saved_at[each], each.name))
    return newest.name, newest.commit


def _reads(run: Run, name: str) -> list[str]:
    """The data that a stage, publish, gc or promote reads, and that an append-only stage adds to."""
    data = f"data/{{}}/{run.product}".format
    if name == "publish":
        return [data("predictions")]
    if name == "gc":
        return []
    if name == "promote":
        return [f"{data('reports')}/metrics.json", data("splits"), f"{data('models')}/onnx"]
    declared = yaml.safe_load((run.workspace / "dvc.yaml").read_text("utf-8"))["stages"][name]["do"]
    kept = [path for out in declared["outs"] if isinstance(out, dict) for path in out]
    return [path.replace("${key}", run.product) for path in [*declared["deps"], *kept]]


def _pull(run: Run, paths: list[str], meaning: str) -> None:
    """Bring recorded data into the workspace. Raises UserError where it is nowhere to be had."""
    recorded = {out["path"] for entry in read_lock(run.workspace)["stages"].values() for out in entry.get("outs", [])}
    wanted = [path for path in paths if path in recorded]
    if not wanted:
        return
    _check_no_link(run, wanted)
    try:
        dvc(run, "pull", "--force", *wanted, quietly=True)
    except CommandFailed as error:
        if not any("missing" in line.lower() or "not exist" in line.lower() for line in error.lines):
            raise TransientError(f"{run.name}: the DVC remote did not give {meaning}; {error}") from None
        raise UserError(
            f"{run.name}: {meaning} ({', '.join(wanted)}) must be in the DVC cache or remote, and is not; "
            "see the lines above, and restore the remote's data"
        ) from None


def _check_model(run: Run) -> None:
    """Raises UserError unless the model on this disk is the one that dvc.lock, and so the registry's commit, names."""
    place = f"data/models/{run.product}/onnx"
    outs = read_lock(run.workspace)["stages"].get(f"export@{run.product}", {}).get("outs", [])
    recorded = next((out["md5"] for out in outs if out["path"] == place), None)
    if recorded is not None and recorded != dvc_hash(run.workspace / place):
        raise UserError(
            f"{run.name}: {place} must be what is registered, {recorded}, and is not; something has changed it: "
            f"delete {run.workspace / place}, and clear the task"
        )


def _check_no_link(run: Run, paths: list[str]) -> None:
    """Raises UserError where data would be written through a symbolic link to somewhere else."""
    for path in paths:
        here = run.workspace
        for part in Path(path).parts:
            here = here / part
            if here.is_symlink() and not here.resolve().is_relative_to(Path(settings().cache).resolve()):
                raise UserError(
                    f"{run.name}: data must lie in the workspace itself, and {here.relative_to(run.workspace)} is a "
                    "symbolic link to another place; remove it from the repository"
                )
