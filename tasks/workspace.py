"""A run's workspace: a clone of the repository with a shared DVC cache, restored from git and the DVC remote.

Every task restores it first, so it may start on any disk; what is there already is not fetched again. A stage
is handed on by pushing its data, then the experiment: the experiment's git reference is the commit point.
Nothing is ever committed to a branch.

Settings, from the environment: LAMPLIGHTER_ORIGIN (the repository; default: the one this file lies in),
LAMPLIGHTER_HOME (where workspaces lie; default: <root>/.lamplighter), LAMPLIGHTER_CACHE (the DVC cache of all
workspaces on this disk; default: <root>/.dvc/cache).
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml

from tasks import crash, params
from tasks.edit import edited
from tasks.errors import EXIT_PASSING, EXIT_USER_ERROR, PassingError, UserError

ROOT = Path(__file__).resolve().parent.parent
ORIGIN = os.environ.get("LAMPLIGHTER_ORIGIN", str(ROOT))
HOME = Path(os.environ.get("LAMPLIGHTER_HOME", ROOT / ".lamplighter")).resolve()
CACHE = os.environ.get("LAMPLIGHTER_CACHE", str(ROOT / ".dvc" / "cache"))
KEPT_WORKSPACES = 4
"""Per product; older ones make room when a run begins."""
GIT_SECONDS = 1800
"""What git has not done by then hangs, mostly on a connection: a retry makes a new one."""
_CHATTER = ("Updating lock file", "Generating lock file", "Use `dvc push`", "Data and pipelines are up to date")
"""Lines of DVC that are advice to a person at a keyboard."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every task of a run knows of it; small enough to pass through XCom."""

    name: str
    """The experiment's name: <product>-<as_of>-<kind>-<8 hex>."""
    product: str
    """The product's name."""
    as_of: str
    """YYYY-MM-DD."""
    revision: str
    """The commit whose code, params.yaml and dvc.yaml the run uses."""
    shards: int
    """Part files of the night."""
    force: bool = False
    """Run the stages even where nothing has changed."""
    champion: str | None = None
    """For predict: the commit of the experiment whose model scores; the same one through the whole run."""
    model_version: str | None = None
    """The champion's version in the registry."""
    generation: int | None = None
    """For predict: what the run claimed for its night; see `tasks.nights`."""

    @property
    def workspace(self) -> Path:
        """The run's clone."""
        return HOME / "runs" / self.name

    @property
    def reference(self) -> str:
        """The git reference under which DVC keeps the experiment."""
        return f"refs/exps/{self.revision[:2]}/{self.revision[2:]}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run as the origin keeps it."""

    name: str
    """<product>-<as_of>-<kind>-<8 hex>."""
    as_of: str
    """YYYY-MM-DD."""
    kind: str
    """train or predict."""
    reference: str
    """refs/exps/..."""
    commit: str
    """Its dvc.lock names all that the run made."""


def head() -> tuple[str, params.Params]:
    """The origin's newest commit and what it declares; a working tree, or a worker's image, may say otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        git("clone", "--quiet", "--bare", "--depth", "1", ORIGIN, folder)
        revision = git("rev-parse", "HEAD", cwd=Path(folder)).strip()
        return revision, params.loads(git("show", f"HEAD:{params.PARAMS_FILE}", cwd=Path(folder)))


def experiments(product: str) -> list[Experiment]:
    """The product's runs that the origin keeps, in no order."""
    name = re.compile(f"refs/exps/../.{{38}}/({_run_names(product)})")
    listed = [line.split() for line in git("ls-remote", ORIGIN, "refs/exps/*").splitlines()]
    return [
        Experiment(name=match[1], as_of=match[2], kind=match[3], reference=reference, commit=commit)
        for commit, reference in listed
        if (match := name.fullmatch(reference))
    ]


def workspaces(product: str) -> list[Path]:
    """The product's workspaces on this disk, newest first."""
    name = re.compile(_run_names(product))
    mine = [path for path in HOME.glob(f"runs/{product}-*") if path.is_dir() and name.fullmatch(path.name)]
    return sorted(mine, key=lambda path: path.stat().st_mtime, reverse=True)


class Hung(PassingError):
    """Git was killed at work, as it would not end."""


class CommandFailed(RuntimeError):
    """A command of a run failed in a way of its own."""

    def __init__(self, code: int, lines: list[str]) -> None:
        super().__init__(f"the command above failed with exit code {code}")
        self.lines = lines


@contextmanager
def restored(run: Run, reads: str) -> Iterator[None]:
    """Work in the run's workspace, holding what the stage, or publish, gc or promote, called `reads` reads.

    One process at a time restores or works. Where one was killed at work the workspace is made anew: git or DVC may
    have left it half written. Raises UserError where data is in neither the cache nor the remote.
    """
    with _locked(_lock(run.workspace)):
        if _at_work(run).exists():
            with _locked(_shared_lock(run.workspace)):  # shards that are scoring there come to their end first
                shutil.rmtree(run.workspace, ignore_errors=True)
        _at_work(run).touch()
        try:
            _restore(run, reads)
            yield
        except Hung:
            raise
        except Exception:
            _at_work(run).unlink()
            raise
        # Where git hangs, time is up or a person interrupts, what works here is killed: the next one makes it anew.
        _at_work(run).unlink()


@contextmanager
def shared(run: Run, reads: str) -> Iterator[None]:
    """As `restored`, but beside others that do the same: the run's shards. Nobody deletes the workspace meanwhile."""
    with ExitStack() as held:
        with restored(run, reads):
            held.enter_context(_locked(_shared_lock(run.workspace), fcntl.LOCK_SH))
        yield


def read_lock(repository: Path) -> dict[str, Any]:
    """The dvc.lock of a clone."""
    file = repository / "dvc.lock"
    return yaml.safe_load(file.read_text("utf-8")) if file.exists() else {"schema": "2.0", "stages": {}}


def lock_at(repository: Path, commit: str) -> dict[str, Any]:
    """The dvc.lock of an experiment that a repository has."""
    content: dict[str, Any] = yaml.safe_load(git("show", f"{commit}:dvc.lock", cwd=repository))
    return content


def hand_on(run: Run, stage: str) -> None:
    """Keep the finished stage for other disks: its data first, then the experiment that names it."""
    target = f"{stage}@{run.product}"
    crash.here("hand on: the stage is done")
    dvc(run, "exp", "save", "--force", "--name", run.name, target, quietly=True)
    crash.here("hand on: the experiment is saved here")
    try:
        dvc(run, "push", target, quietly=True)
    except CommandFailed as error:
        raise PassingError(f"{run.name}: the DVC remote did not take what {stage} made; {error}") from None
    crash.here("hand on: the data is pushed")
    _push_experiment(run)
    crash.here("hand on: the experiment is pushed")
    _marker(run).write_text(git("rev-parse", run.reference, cwd=run.workspace).strip())


def saved_commit(run: Run) -> str:
    """The experiment's commit as it was handed on last."""
    return _marker(run).read_text()


def dvc(run: Run, *arguments: str, quietly: bool = False) -> list[str]:
    """Run dvc in the workspace; see `call`."""
    return call(run, [sys.executable, "-m", "dvc", *arguments], quietly=quietly)


def call(run: Run, command: list[str], *, quietly: bool = False) -> list[str]:
    """Run a command in the workspace, showing its output as it comes; returns what it printed, by line.

    With `quietly` its output is shown when it fails only. Raises UserError or PassingError as the command's exit
    code, or that of the stage inside it, says.
    """
    lines = []
    with subprocess.Popen(
        command,
        cwd=run.workspace,
        env=_environment(run),
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        close_fds=False,  # it shares our lock: where we are killed, a retry waits until it has ended too
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:  # universal newlines: each state of a progress bar is a line
                lines.append(line.rstrip())
                if line.strip() and not quietly and not line.startswith(_CHATTER):
                    print(line.rstrip(), flush=True)
        except BaseException:  # such as Airflow's, when the task's time is up: neither we nor a retry would see an end
            _end(process.pid)
            raise
    if quietly and process.returncode:
        print(*lines, sep="\n", flush=True)
    _raise_for(process.returncode, lines)
    return lines


def git(*arguments: str, cwd: Path | None = None) -> str:
    """Run git and return what it prints. Raises PassingError with its message where it fails, Hung where it hangs."""
    what = f"git {' '.join(arguments[:3])}"
    with subprocess.Popen(
        ["git", *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
    ) as process:
        try:
            printed, told = process.communicate(timeout=GIT_SECONDS)
        except BaseException as error:
            _end(process.pid)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Hung(without_secret(f"{what} did not end within {GIT_SECONDS} s")) from None
            raise
    if process.returncode:
        raise PassingError(without_secret(f"{what} failed: {told.strip()}"))
    return printed


def without_secret(told: str) -> str:
    """Without the user and password that the origin's address may have."""
    secret, at, _ = urlsplit(ORIGIN).netloc.rpartition("@")
    return told.replace(secret + at, "") if at else told


def _end(process: int) -> None:
    """Kill a command with all that it has started.

    It has no process group of its own, by which that would be one call: Airflow ends a task by ending the task's.
    """
    with suppress(psutil.NoSuchProcess):
        ours = psutil.Process(process)
        ours.suspend()  # so that it starts nothing more while its children are counted
        for child in ours.children():
            _end(child.pid)
        ours.kill()


def _environment(run: Run) -> dict[str, str]:
    """What the programs of a run see."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "LAMPLIGHTER_ORIGIN": ORIGIN,
        "LAMPLIGHTER_HOME": str(HOME),
        "LAMPLIGHTER_CACHE": CACHE,
        "LAMPLIGHTER_RUN": run.name,
        "LAMPLIGHTER_MODEL_VERSION": run.model_version or "",
        "LAMPLIGHTER_MODEL_COMMIT": run.champion or "",
        "LAMPLIGHTER_GENERATION": str(run.generation or ""),
        # Spinning threads of two trainings on one machine slow each other down tenfold; sleeping ones do not.
        "OMP_WAIT_POLICY": "PASSIVE",
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "false",
    }
    environment.pop("PYTHONPATH", None)  # the workspace's own code, not that of whoever calls
    return environment


def _raise_for(code: int, lines: list[str]) -> None:
    if code == 0:
        return
    inner = [int(match[1]) for line in lines if (match := re.search(r"exited with (-?\d+)", line))]
    code = inner[-1] if inner else code
    if code == EXIT_USER_ERROR:
        raise UserError("\n".join(_said(lines)) or "the message above says what to mend")
    signal = -code if code < 0 else code - 128 if inner and code > 128 else 0  # as Python or as a shell tells of it
    if code == EXIT_PASSING or signal:
        raise PassingError(f"killed by signal {signal}" if signal else "the message above says what did not answer")
    raise CommandFailed(code, lines)


def _said(lines: list[str]) -> list[str]:
    """What a stage that stopped said, without what DVC says about it."""
    first = next((i for i, line in enumerate(lines) if line.endswith(" stopped:")), len(lines))
    return [line for line in lines[first:] if line.strip() and not line.startswith("ERROR: failed to reproduce")]


@contextmanager
def _locked(file: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the lock of a file. Raises BlockingIOError where another process does, and `how` says not to wait."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        os.set_inheritable(handle.fileno(), True)
        fcntl.flock(handle, how)
        yield


def _restore(run: Run, reads: str) -> None:
    if not _marker(run).exists():
        _clone(run)
    saved = git("ls-remote", ORIGIN, run.reference).split()
    here = bool(saved) and saved[0] == _marker(run).read_text()
    if saved and not here:
        git("fetch", "--quiet", "--force", ORIGIN, f"{run.reference}:{run.reference}", cwd=run.workspace)
        git("checkout", "--quiet", saved[0], "--", "dvc.lock", "params.yaml", cwd=run.workspace)
        crash.here("workspace: the experiment is checked out")
        git("reset", "--quiet", cwd=run.workspace)
        _marker(run).write_text(saved[0])
    if not saved and not _marker(run).read_text():
        _begin(run)
        crash.here("workspace: the run has begun")
        _marker(run).write_text("begun")
    needed = _reads(run, reads)
    if not here or not all((run.workspace / path).exists() for path in needed):
        _pull(run, needed, f"what {reads} reads")
    if reads == "predict":
        _check_model(run)
    crash.here("workspace: all that is read is here")


def _push_experiment(run: Run) -> None:
    """Move the experiment in the origin, but only from where we carried on.

    A worker that wakes after its retry has handed on must not take the run back.
    """
    stood = _marker(run).read_text()
    lease = f"--force-with-lease={run.reference}:{stood if re.fullmatch('[0-9a-f]{40}', stood) else ''}"
    git("push", "--quiet", lease, ORIGIN, f"{run.reference}:{run.reference}", cwd=run.workspace)


def _clone(run: Run) -> None:
    """A clone at the run's revision with the run's as_of and shards declared; it appears in one step."""
    _sweep(run)
    shutil.rmtree(run.workspace, ignore_errors=True)
    aside = run.workspace.with_name(f".{run.name}.tmp-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)  # of a try of this process that failed
    git("clone", "--quiet", "--no-checkout", ORIGIN, str(aside))
    git("checkout", "--quiet", "--detach", run.revision, cwd=aside)
    git("config", "user.name", "lamplighter", cwd=aside)
    git("config", "user.email", "lamplighter@localhost", cwd=aside)
    (aside / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {CACHE}\n[core]\n    autostage = true\n")
    _declare(run, aside / params.PARAMS_FILE)
    (aside / ".git" / "lamplighter").write_text("")
    crash.here("workspace: the clone is made aside")
    aside.rename(run.workspace)


def _sweep(run: Run) -> None:
    """Remove the product's oldest workspaces: all that they hold is in git and the DVC remote."""
    at_once = fcntl.LOCK_EX | fcntl.LOCK_NB
    for path in [path for path in workspaces(run.product) if path != run.workspace][KEPT_WORKSPACES:]:
        # Where a run works or scores, it stays.
        with suppress(BlockingIOError), _locked(_lock(path), at_once), _locked(_shared_lock(path), at_once):
            shutil.rmtree(path, ignore_errors=True)


def _declare(run: Run, file: Path) -> None:
    """Set as_of, and shards where they differ, in the workspace's params.yaml."""
    text = edited(file.read_text("utf-8"), {("as_of",): run.as_of})
    if params.loads(text).product(run.product).predict.shards != run.shards:
        text = edited(text, {("products", run.product, "predict", "shards"): run.shards})
    file.write_text(text, "utf-8")


def _begin(run: Run) -> None:
    """Carry on from earlier runs: raw data from the newest one before, and for predict the champion's model."""
    lock = read_lock(run.workspace)
    entry, before = f"ingest@{run.product}", _newest_run_before(run)
    if before:
        name, commit = before
        lock["stages"][entry] = lock_at(run.workspace, commit)["stages"][entry]
        print(f"raw data carried on from {name}", flush=True)
    if run.champion:
        git("fetch", "--quiet", "--tags", ORIGIN, cwd=run.workspace)
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
    git("fetch", "--quiet", ORIGIN, *(f"+{each.reference}:{each.reference}" for each in latest), cwd=run.workspace)
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
            raise PassingError(f"{run.name}: the DVC remote did not give {meaning}; {error}") from None
        raise UserError(
            f"{run.name}: {meaning} ({', '.join(wanted)}) must be in the DVC cache or remote, and is not; "
            "see the lines above, and restore the remote's data"
        ) from None


def _check_model(run: Run) -> None:
    """Raises UserError unless the model on this disk is the one that dvc.lock, and so the registry's commit, names."""
    place = f"data/models/{run.product}/onnx"
    outs = read_lock(run.workspace)["stages"].get(f"export@{run.product}", {}).get("outs", [])
    recorded = next((out["md5"] for out in outs if out["path"] == place), None)
    if recorded is not None and recorded != _dvc_hash(run.workspace / place):
        raise UserError(
            f"{run.name}: {place} must be what is registered, {recorded}, and is not; something has changed it: "
            f"delete {run.workspace / place}, and clear the task"
        )


def _dvc_hash(folder: Path) -> str:
    """The hash by which DVC knows a folder: of the list of its files, each with its own."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    listed = []
    for name in files:
        with (folder / name).open("rb") as file:
            listed.append({"md5": hashlib.file_digest(file, "md5").hexdigest(), "relpath": name})
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _check_no_link(run: Run, paths: list[str]) -> None:
    """Raises UserError where data would be written through a symbolic link to somewhere else."""
    for path in paths:
        here = run.workspace
        for part in Path(path).parts:
            here = here / part
            if here.is_symlink() and not here.resolve().is_relative_to(Path(CACHE).resolve()):
                raise UserError(
                    f"{run.name}: data must lie in the workspace itself, and {here.relative_to(run.workspace)} is a "
                    "symbolic link to another place; remove it from the repository"
                )


def _run_names(product: str) -> str:
    """The pattern of the names of the product's runs; its groups are as_of and kind."""
    return rf"{re.escape(product)}-(\d{{4}}-\d\d-\d\d)-(train|predict)-[0-9a-f]{{8}}"


def _lock(workspace: Path) -> Path:
    """Held by whoever restores the workspace or works in it alone."""
    return workspace.with_suffix(".lock")


def _shared_lock(workspace: Path) -> Path:
    """Held by all who work in the workspace beside each other, and alone by whoever deletes it."""
    return workspace.with_suffix(".shared-lock")


def _at_work(run: Run) -> Path:
    """There while a process restores or works; left behind by one that was killed."""
    return run.workspace.with_suffix(".at-work")


def _marker(run: Run) -> Path:
    """Holds the experiment's commit that the workspace stands at; there once the clone is complete."""
    return run.workspace / ".git" / "lamplighter"
