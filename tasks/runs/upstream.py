"""Check that what a task reads was made by the tasks before it, in the same run.

Airflow runs a task whose upstream a person has marked successful, and clears one task alone where asked to. Then data
of an earlier run or of main may lie where the task reads, or none. dvc.lock knows: it names, for each stage, the as_of
and the hashes of what it was made from.
"""

from dataclasses import dataclass

from tasks import STAGES
from tasks.runs.dvc import DvcLock, StageEntry
from tasks.runs.experiments import Run
from tasks.runtime.errors import UserError

PREDICT_STAGES = ("ingest", "validate", "predict")
"""The stages of predict__<product>; the model comes from another run."""
Declared = dict[str, list[str | dict[str, object]]]
"""What dvc.yaml says of a stage: lists of paths, some with options."""
TASKS = {"predict": "collect"}
"""The task that saves a stage, where it is not called as the stage is."""


def check_upstream(run: Run, command: str, paths: list[str], declared: dict[str, Declared]) -> None:
    """Raise UserError unless the stages of this run that make `paths` have done so, each from what lies before it."""
    stages = PREDICT_STAGES if run.champion else STAGES[:-1]
    makers = {path.replace("${key}", run.product): name for name in stages for path in made_by(declared[name])}
    lock = DvcLock.of(run.workspace)
    checked = _Lineage(run, makers, lock.stages, lock.outs())
    for maker in {makers[path]: None for path in paths if path in makers and makers[path] != command}:
        mistake = checked.mistake(maker)
        if mistake:
            raise UserError(
                f"{run.name}: {command} must find what the tasks before it have made in this run; {mistake}"
            )


def carried_ingest(run: Run, earlier: dict[str, StageEntry]) -> StageEntry:
    """Return the entry of ingest that a run carries on from an earlier one, so that it is done again where need be.

    A night that stopped before its rows were let through asks the source again, which may have them by now: its own
    ingest would be reused, since nothing that DVC knows of has changed.
    """
    ingest, validate = earlier[f"ingest@{run.product}"], earlier.get(f"validate@{run.product}", StageEntry())
    if _as_of(ingest) != run.as_of or _as_of(validate) == run.as_of:
        return ingest
    changed: StageEntry = {**ingest, "params": {"params.yaml": {"as_of": ""}}}
    return changed


def _as_of(entry: StageEntry) -> object:
    return entry.get("params", {}).get("params.yaml", {}).get("as_of")


def made_by(stage: Declared) -> list[str]:
    """Return the paths that a stage of dvc.yaml makes."""
    listed = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    return [path for out in listed for path in ([out] if isinstance(out, str) else out)]


@dataclass(frozen=True)
class _Lineage:
    """What dvc.lock says of the stages of a run."""

    run: Run
    makers: dict[str, str]
    """The stage that makes a path."""
    entries: dict[str, StageEntry]
    made: dict[str, str]
    """The hash of all that was made, by path."""

    def mistake(self, stage: str) -> str | None:
        """Return what is wrong with what a stage has left, or first with what it was made from."""
        entry = self.entries.get(f"{stage}@{self.run.product}")
        task = TASKS.get(stage, stage)
        remedy = f"was it marked successful, or cleared alone? clear the task {task} with all that follows it"
        if entry is None:
            return f"{task} has left nothing: {remedy}"
        as_of = entry.get("params", {}).get("params.yaml", {}).get("as_of", self.run.as_of)
        if as_of != self.run.as_of:
            return f"{task} has left nothing of as_of {self.run.as_of}, and what lies there is of {as_of}: {remedy}"
        for dep in entry.get("deps", []):
            maker = self.makers.get(dep["path"])
            if maker is None:
                continue
            mistake = self.mistake(maker)
            if mistake:
                return mistake
            if dep.get("md5") != self.made.get(dep["path"]):
                before = TASKS.get(maker, maker)
                return f"{before} has made {dep['path']} anew since {task} read it: {remedy}"
        return None
