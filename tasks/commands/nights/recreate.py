"""Make a published night again, from git and the DVC remote alone, and compare it byte by byte.

    make recreate URI=s3://lamplighter/predictions/flight-delays/dt=2013-06-30/_manifest.json
    make recreate URI=... FROM=data       trains the model again as well
    make recreate URI=... ENVIRONMENT=installed

It works in a clean clone of the night's own revision, with a DVC cache of its own: nothing of the working tree, the
workspaces or the shared cache takes part. Data and model come from the remote by their hashes, then that revision's
own code runs. With FROM=data the rows are validated and the model is trained again from the raw data. Where the
revision pins other packages than are installed, its own environment is built first (minutes, 2.2 GB, kept in
.lamplighter/environments); ENVIRONMENT=installed goes on with what is installed, and says what differs.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from tasks import params
from tasks.commands.nights.differences import differing_cells
from tasks.commands.nights.trace import Published, experiment_commit, find
from tasks.params import PARAMS_FILE
from tasks.params.edit import edited
from tasks.publication.contracts import Night, PublishedPart
from tasks.publication.night import read_night
from tasks.publication.object_store import Store
from tasks.publication.reading import read_part
from tasks.runs.dvc import DvcLock
from tasks.runs.registry.erasures import about_erased
from tasks.runs.remote import LostData, pull_all
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, file_sha256, read_json
from tasks.runtime.git import git
from tasks.runtime.paths import Paths
from tasks.runtime.settings import ROOT, settings
from tasks.training.checkpoints import PLAN

RETRAINED = ("validate", "split", "pretrain", "train", "export")
"""The stages between raw data and the exported model; evaluate measures it and leaves it as it is."""
BUILT_FROM = ("Makefile", "pyproject.toml", "constraints.txt")
"""All that the environment of a revision is built from, by `make setup`."""
TIMED = "export.json"
"""The report that holds timings, which no two runs share."""


@dataclass(frozen=True)
class Clone:
    """A clean clone at an experiment's commit."""

    folder: Path
    """The clone's root."""
    product: str
    """The product's name."""
    python: Path
    """The interpreter that runs the clone's code."""

    def outs(self, name: str) -> dict[str, str]:
        """Return path and hash of all that a stage made, by dvc.lock as it is now."""
        return DvcLock.of(self.folder).outs(f"{name}@{self.product}")

    def pull_dependencies(self, name: str) -> None:
        """Bring a stage's data from the remote, by the hashes of dvc.lock."""
        lock = DvcLock.of(self.folder)
        made = lock.outs()
        wanted = [path for path in lock.deps(f"{name}@{self.product}") if path in made]
        try:
            pull_all(self.folder, wanted, f"what {name} of this night reads", "this night cannot be made again")
        except LostData:
            about = about_erased(self.product, made.values())
            if not about:
                raise
            raise UserError(
                f"what {name} of this night read cannot be brought: {about}. What was made of them cannot be made "
                "again; a night that was published without the rows is re-created from its model"
            ) from None

    def redo(self, name: str) -> None:
        """Run a stage with the clone's code, whatever the cache holds."""
        if "tasks.params" in (self.folder / "dvc.yaml").read_text("utf-8"):  # revisions before have no such stage
            self.run("-m", "tasks.params", self.product, "--write")
        self.run("-m", "dvc", "repro", "--quiet", "--force", "--single-item", f"{name}@{self.product}")

    def run(self, *arguments: str) -> None:
        """Run a Python program in the clone. Raises UserError with its last lines where it fails."""
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            | {"PATH": f"{self.python.parent}:{os.environ['PATH']}"},
            text=True,
            errors="replace",
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            raise UserError(
                f"{' '.join(arguments[1:])} failed in the clean clone, so the night could not be re-created:\n"
                + "\n".join(done.stdout.strip().splitlines()[-15:])
            )


def recreate(uri: str, *, retrain: bool = False, installed: bool = False) -> str:
    """Re-create the night that an address leads to; return a report of all that is equal.

    Raises UserError with every difference, or where something that is needed is nowhere to be had.
    """
    published = find(uri)
    manifest, report = published.manifest, []
    settings().home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="recreate-", dir=settings().home) as folder:
        night = _clean_clone(
            published, Path(folder) / "night", manifest.experiment, manifest.experiment_commit, installed
        )
        night.pull_dependencies("predict")
        if retrain:
            report.append(_retrain(published, night, Path(folder), installed))
        _print_progress(f"predict@{night.product} again")
        night.redo("predict")
        made = night.folder / Paths(night.product).predictions
        differences = _differences(published, read_night(made), made)
    if differences:
        raise UserError("\n".join([f"{uri}: the night made again is another one", *report, *differences]))
    rows = sum(part.rows for part in manifest.parts)
    if manifest.rows.erased:
        report.append(f"{rows:,} rows, {manifest.rows.erased:,} erased since they were published: every cell is equal")
    else:
        report.append(f"{len(manifest.parts)} parts, {rows:,} rows: every sha256 is equal")
    return "\n".join(report)


def _retrain(published: Published, night: Clone, folder: Path, installed: bool) -> str:
    """Train the model again from raw data; put it and newly validated rows where the night's predict reads them."""
    manifest, product = published.manifest, published.product
    model = _clean_clone(published, folder / "model", None, manifest.model.commit, installed)
    recorded = {name: model.outs(name) for name in RETRAINED}
    model.pull_dependencies("validate")
    _pin_engine(model, night.folder / Paths(product).onnx)
    _pin_steps(model)
    for name in RETRAINED:
        _print_progress(f"{name}@{product} again")
        model.redo(name)
    night.pull_dependencies("validate")
    night.redo("validate")
    onnx = Paths(product).onnx
    shutil.rmtree(night.folder / onnx)
    shutil.copytree(model.folder / onnx, night.folder / onnx, symlinks=False)
    others = [
        f"{path} ({name})"
        for name in RETRAINED
        for path, md5 in model.outs(name).items()
        if recorded[name][path] != md5 and Path(path).name != TIMED
    ]
    if others:
        return f"trained again, and these differ from what was recorded: {', '.join(others)}"
    n_equal = sum(Path(path).name != TIMED for outs in recorded.values() for path in outs)
    return f"{n_equal} outputs of {', '.join(RETRAINED)}: every hash is equal"


def _pin_engine(model: Clone, onnx: Path) -> None:
    """Let export keep the engine that was chosen then: the fastest one of this machine says nothing of the past."""
    from model.scoring.engines import FILE, Engine

    if not (onnx / FILE).exists():
        return  # older than the choice of engines
    file = model.folder / PARAMS_FILE
    place = ("products", model.product, "model", "engine")
    file.write_text(edited(file.read_text("utf-8"), {place: str(Engine.load(onnx))}), "utf-8")


def _pin_steps(model: Clone) -> None:
    """Let trainings take the steps that a clock decided then, where `model.minutes` has limited them."""
    file = model.folder / PARAMS_FILE
    text, place = file.read_text("utf-8"), ("products", model.product, "model")
    declared = (params.raw(text)["products"][model.product] or {}).get("model") or {}
    if declared.get("minutes") is None:
        return
    model.pull_dependencies("export")
    model.pull_dependencies("train")
    paths, changes = Paths(model.product), dict[tuple[str, ...], JsonValue]()
    for part, folder in (("train", paths.trained), ("pretrain", paths.pretrained)):
        if (model.folder / folder / PLAN).exists():
            changes[*place, part, "epochs"] = read_json(model.folder / folder / PLAN)["epochs"]
    file.write_text(edited(text, {**changes, (*place, "minutes"): None}), "utf-8")


def _clean_clone(published: Published, folder: Path, name: str | None, commit: str | None, installed: bool) -> Clone:
    """Clone an experiment's commit, with a DVC cache of its own and the present address of the remote."""
    if not name and not commit:
        raise UserError(
            "the night must have been published by a run, and was by hand: its manifest names no experiment"
        )
    git("clone", "--quiet", "--no-checkout", settings().origin, str(folder))
    found = experiment_commit(folder, published.product, name, commit)
    if found is None:
        raise UserError(
            f"the origin must still hold the experiment {name or commit}, and does not; restore its git reference "
            "(refs/exps/...) from a backup or a clone"
        )
    git("checkout", "--quiet", "--detach", found, cwd=folder)
    shutil.copy2(ROOT / ".dvc" / "config", folder / ".dvc" / "config.local")
    _print_progress(f"clean clone of {git('show', '-s', '--format=%h of %cs: %s', 'HEAD^', cwd=folder).strip()}")
    clone = Clone(folder, published.product, _interpreter(folder, installed))
    clone.run("-m", "dvc", "cache", "dir", "--local", str(folder / ".dvc" / "cache"))
    return clone


def _interpreter(clone: Path, installed: bool) -> Path:
    """Return an interpreter with the clone's pins: this one where they are the same, else one that is built for it."""
    others = _differing_pins(clone)
    if not others:
        return Path(sys.executable)
    listed = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
    if installed:
        _print_progress(f"this revision pins other packages than are installed, and goes on with those: {listed}")
        return Path(sys.executable)
    named = hashlib.sha256("".join(file_sha256(clone / name) for name in BUILT_FROM).encode()).hexdigest()[:16]
    environment = settings().home / "environments" / named
    _print_progress(
        f"this revision pins other packages than are installed ({listed}); building its environment in {environment}"
    )
    if not environment.exists():
        with atomic_folder(environment) as folder:
            for name in BUILT_FROM:
                shutil.copy2(clone / name, folder / name)
    built = subprocess.run(
        ["make", f"PYTHON={sys.executable}", "setup"], cwd=environment, text=True, check=False, capture_output=True
    )
    if built.returncode:
        raise UserError(
            f"the environment of this revision could not be built:\n{(built.stdout + built.stderr).strip()[-2000:]}\n"
            "ENVIRONMENT=installed goes on with what is installed"
        )
    return environment / ".venv" / "bin" / "python"


def _differing_pins(clone: Path) -> list[str]:
    """Return the packages of the clone's constraints.txt that are installed in another version, or not at all.

    A package that only an extra needs may be absent.
    """
    import tomllib

    installed = {_normal(each.metadata["Name"]): each.version for each in importlib.metadata.distributions()}
    project = tomllib.loads((clone / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {_normal(re.split(r"[\[;=<>!~ ]", each, maxsplit=1)[0]) for each in project["dependencies"]}
    constraints = (clone / "constraints.txt").read_text("utf-8")
    pinned = {
        _normal(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;#]+)", constraints, re.MULTILINE)
    }
    return [
        f"{name} {version} (installed: {installed.get(name, 'none')})"
        for name, version in sorted(pinned.items())
        if (name in installed and installed[name].partition("+")[0] != version)
        or (name not in installed and name in needed)
    ]


def _normal(name: str) -> str:
    """Return a package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower().strip()


def _differences(published: Published, night: Night, folder: Path) -> list[str]:
    """Return all that is not as the manifest records it, from causes to effects."""
    manifest, found = published.manifest, []
    for name, (then, now) in _changed(manifest.inputs.to_json(), night.inputs.to_json()).items():
        found.append(f"input {name}: was {then}, is {now}")
    if manifest.rows.erased:  # parts have an equal share of the rows that there are, and had one of more rows
        return found + list(_differing_rows(published, night, folder))
    hashes = {part.name: part.sha256 for part in night.parts}
    if hashes.keys() != {part.name for part in manifest.parts}:
        found.append(f"parts: were {len(manifest.parts)}, are {len(hashes)}")
    for part in manifest.parts:
        if hashes.get(part.name, part.sha256) != part.sha256:
            found.append(f"{part.name}: {_compared(published.store, part, folder / part.name)}")
    return found


def _changed(
    then: Mapping[str, JsonValue], now: Mapping[str, JsonValue], before: str = ""
) -> dict[str, tuple[JsonValue, JsonValue]]:
    """Return the leaves in which two nested objects of JSON differ, each with both values."""
    changed: dict[str, tuple[JsonValue, JsonValue]] = {}
    for name in sorted(then.keys() | now.keys()):
        old, new = then.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            changed |= _changed(old, new, f"{before}{name}.")
        elif old != new:
            changed[f"{before}{name}"] = (old, new)
    return changed


def _compared(store: Store, part: PublishedPart, file: Path) -> str:
    """Return the columns and rows in which a part that was made again differs from the published one."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        if not store.download(store.key_of(part.key), Path(folder) / "published"):
            return "another sha256; the part that was published is in the store no more, so rows cannot be compared"
        then, now = pd.read_parquet(Path(folder) / "published"), pd.read_parquet(file)
    return differing_cells(then, now) or "the same values in other bytes: another version wrote the file"


def _differing_rows(published: Published, night: Night, folder: Path) -> Iterator[str]:
    """Yield how the rows of all parts differ, whichever part each is in."""
    import pandas as pd

    store, manifest = published.store, published.manifest
    then = pd.concat([read_part(store, part) for part in manifest.parts])
    now = pd.concat([pd.read_parquet(folder / part.name) for part in night.parts])
    names = list(then.columns)
    known = names[: names.index("prediction")] if "prediction" in names else names
    then, now = (rows.sort_values(known, ignore_index=True) for rows in (then, now))
    if differing := differing_cells(then, now):
        yield f"rows: {differing}"


def _print_progress(text: str) -> None:
    print(f"recreate: {text}", flush=True)
