"""Run DVC and the project's own commands in a run's workspace; read dvc.lock."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict

import yaml

from tasks.runs.experiments import Run
from tasks.runs.programs import call, call_dvc
from tasks.runtime.errors import CommandFailed, TransientError, UserError
from tasks.runtime.git import git, redact_credentials
from tasks.runtime.results import Result, read_result, result_file
from tasks.runtime.surroundings import explained_output

LOCK_FILE = "dvc.lock"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Libyaml's parser takes a tenth of the time, and a night reads dvc.lock twenty times."""


class Output(TypedDict):
    """An output that dvc.lock records; DVC adds sizes and numbers of files."""

    path: str
    md5: str


class Dependency(TypedDict):
    """A dependency that dvc.lock records."""

    path: str
    md5: NotRequired[str]


class StageEntry(TypedDict, total=False):
    """A stage of dvc.lock; the keys that nothing here reads are kept as they are."""

    deps: list[Dependency]
    outs: list[Output]
    params: dict[str, dict[str, object]]
    """By file and name."""


@dataclass(frozen=True)
class DvcLock:
    """A dvc.lock: all that the stages of a commit read and made, by hash."""

    stages: dict[str, StageEntry]
    """By name, such as train@flight-delays."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the lock of a file's text."""
        return cls(read_yaml(text)["stages"])

    @classmethod
    def of(cls, repository: Path) -> Self:
        """Return the lock of a clone; an empty one where it has no file."""
        file = repository / LOCK_FILE
        return cls.parse(file.read_text("utf-8")) if file.exists() else cls({})

    def write(self, repository: Path) -> None:
        """Write the lock of a clone."""
        content = {"schema": "2.0", "stages": self.stages}
        (repository / LOCK_FILE).write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")

    def outs(self, stage: str | None = None) -> dict[str, str]:
        """Return path and hash of all that a stage made, or all of them."""
        entries = self.stages.values() if stage is None else [self.stages.get(stage, StageEntry())]
        return {out["path"]: out["md5"] for entry in entries for out in entry.get("outs", [])}

    def deps(self, stage: str) -> list[str]:
        """Return the paths that a stage read."""
        return [each["path"] for each in self.stages[stage].get("deps", [])]


def read_yaml(text: str) -> Any:
    """Return what a file of DVC's holds."""
    return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)


def lock_at(repository: Path, commit: str) -> DvcLock:
    """Return the dvc.lock of an experiment that a repository has."""
    return DvcLock.parse(git("show", f"{commit}:{LOCK_FILE}", cwd=repository))


def hashes_in(text: str) -> Iterator[str]:
    """Yield the hashes of the outs that a dvc.lock or a .dvc file names."""
    content = read_yaml(text) or {}
    stages = [content, *(content.get("stages") or {}).values()] if isinstance(content, dict) else []
    for stage in stages:
        for out in stage.get("outs") or []:
            if isinstance(out, dict) and isinstance(out.get("md5"), str):
                yield out["md5"]


def run_command(run: Run, name: str, command: list[str], *, quietly: bool = False) -> Result:
    """Run one of the project's commands in the workspace, and return the result that it recorded under `name`.

    Raises UserError and TransientError as the command did, TransientError where it was killed, CommandFailed where it
    failed in any other way.
    """
    return _result(run, name, lambda: call(run, command, quietly=quietly))


def run_stage(run: Run, stage: str) -> Result:
    """Run a stage of dvc.yaml by DVC, and return its result as `run_command` does.

    The status is `reused` where DVC ran no stage.
    """
    forced = ["--force"] * run.force
    repro = ["--wait-for-lock", "repro", "--single-item", *forced, f"{stage}@{run.product}"]
    return _result(run, stage, lambda: call_dvc(run, repro))


def _result(run: Run, name: str, work: Callable[[], tuple[int, str]]) -> Result:
    file = result_file(run.product, name, run.workspace)
    assert file is not None, "products are named as result files may be"
    file.unlink(missing_ok=True)  # of an earlier try
    code, output = work()
    return outcome(name, code, read_result(file), output)


def outcome(name: str, code: int, result: Result | None, output: str = "") -> Result:
    """Return the result of a command that ended with an exit code; raise the error that it recorded, or left none of.

    Without a result the words of its output decide, such as those of a full disk, and then the process's own exit.
    """
    if result and result.status == "user error":
        raise UserError(f"{name} stopped:\n{result.message}")
    if result and result.status == "transient error":
        raise TransientError(f"{name} could not finish now, and may later:\n{result.message}")
    if code < 0 or (result and result.status == "started"):
        raise TransientError(f"{name} was killed" + (f" by signal {-code}" if code < 0 else ""))
    is_of_stage = result is not None and result.status == "bug"
    if code and not is_of_stage and (known := explained_output(name, redact_credentials(output))):
        raise known
    if code:
        reason = f": {result.message}" if result else ""
        raise CommandFailed(f"{name} failed with exit code {code}{reason}; the lines above say more")
    return result or Result(status="reused", message=f"{name}: nothing that it depends on has changed")


def dvc(run: Run, *arguments: str) -> None:
    """Run dvc in the workspace; its output is shown when it fails only.

    Raises UserError or TransientError where its words are known, CommandFailed where they are not.
    """
    code, output = call_dvc(run, list(arguments), quietly=True)
    outcome(f"dvc {arguments[0]}", code, None, output)


def dvc_hash(folder: Path) -> str:
    """Return the hash by which DVC knows a folder: of the list of its files, each with its own hash.

    DVC's private format, copied: `dvc status` in a process of its own takes 1.6 s of a processor for each shard.
    """
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    listed = []
    for name in files:
        with (folder / name).open("rb") as file:
            listed.append({"md5": hashlib.file_digest(file, "md5").hexdigest(), "relpath": name})
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
