"""Find the models that score beside the champion, and bring them to this disk.

The champion before, the model of the newest training that predicts nothing, and the first champion that there ever was,
each only where it has learnt from nothing later than the night. A model that was brought once stays on this disk for
the next night.
"""

import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tasks.monitoring.contracts import ANCHOR, CHALLENGER, PREVIOUS
from tasks.monitoring.shadow import Contender
from tasks.runs import remote
from tasks.runs.dvc import dvc_hash
from tasks.runs.experiments import experiments
from tasks.runs.gates.unseen import learnt_by
from tasks.runs.registry.tags import STAGE, Champion, Registry, content_at, registry_of
from tasks.runtime import faults
from tasks.runtime.errors import UserError
from tasks.runtime.files import remove_older_than
from tasks.runtime.git import git
from tasks.runtime.paths import Paths
from tasks.runtime.settings import settings

MODELS = "models"
"""The folder, beside the runs, with the models that were brought."""
KEPT_MODELS = 6
"""Per product; the ones that have not been used for longest go."""
UNFINISHED = ".tmp-"
"""In the name of a folder that a model is being brought to; one of a process that was killed goes after a day."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A model that may score beside the champion, wherever it is."""

    roles: tuple[str, ...]
    """previous, challenger or anchor."""
    version: str | None
    """Its version in the registry, if it has one."""
    commit: str
    """The commit of the experiment that made it."""
    model: str
    """The hash of its exported files."""

    @property
    def name(self) -> str:
        """Return by what people know it."""
        return self.version or self.commit[:12]


def find_contenders(product: str, as_of: date, champion: str) -> list[Found]:
    """Return the models that may score beside the champion of a night, which is named by its commit.

    Raises UserError where the registry is not as it should be, TransientError where the origin does not answer.
    """
    with registry_of(product) as registry:
        git("fetch", "--quiet", "--no-tags", "--depth", "1", settings().origin, champion, cwd=registry.repository)
        champions = [each.commit for each in registry.candidates(as_of)]
        after = champions.index(champion) + 1 if champion in champions else len(champions)
        named = [
            *((PREVIOUS, commit) for commit in champions[after : after + 1]),
            *((CHALLENGER, commit) for commit in _newest_training(registry, as_of)),
            *((ANCHOR, commit) for commit in _first_champion(registry, as_of)),
        ]
        found: dict[str, Found] = {}
        for role, commit in named:
            model = registry.content(commit)
            if model in (registry.content(champion), commit):  # the very same, or none that a run has exported
                continue
            known = found.get(model)
            found[model] = Found(
                roles=(*(known.roles if known else ()), role),
                version=known.version if known else registry.version_at(commit),
                commit=known.commit if known else commit,
                model=model,
            )
        return list(found.values())


def _newest_training(registry: Registry, as_of: date) -> Iterator[str]:
    """Yield the commit of the newest training up to a date that has exported a model, if there is one."""
    known = [each for each in experiments(registry.product) if each.kind == "train" and each.as_of <= str(as_of)]
    for day in sorted({each.as_of for each in known}, reverse=True):
        commits = [each.commit for each in known if each.as_of == day]
        git("fetch", "--quiet", "--no-tags", "--depth", "1", settings().origin, *commits, cwd=registry.repository)
        saved = {each: git("show", "-s", "--format=%ct", each, cwd=registry.repository) for each in commits}
        for commit in sorted(commits, key=lambda each: (int(saved[each]), each), reverse=True):
            if content_at(registry.repository, registry.product, commit):
                yield commit
                return


def _first_champion(registry: Registry, as_of: date) -> Iterator[str]:
    """Yield the commit of the first model that was ever assigned, unless it is banned or knows later data."""
    assigned = (act.commit for act in registry.acts if act.stage == STAGE and not act.ends)
    for commit in list(assigned)[:1]:
        is_banned = registry.content(commit) in registry.effect.banned
        if not is_banned and registry.version_at(commit) and not registry.described(commit).trained_after(as_of):
            yield commit


def bring(product: str, found: Found) -> Contender:
    """Bring a model to this disk, where it is not there yet.

    Raises UserError where it is lost or is not what is registered, TransientError where the remote does not answer.
    """
    folder = settings().home / MODELS / product / found.model.removesuffix(".dir")
    if not (folder.exists() and dvc_hash(folder) == found.model):
        shutil.rmtree(folder, ignore_errors=True)
        temporary = folder.with_name(f".{folder.name}{UNFINISHED}{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        meaning = f"products.{product}: the model {found.name}, which scores beside the champion,"
        remote.get(found.commit, Paths(product).onnx, temporary, meaning, "it is left out")
        faults.failpoint("shadow: a model is brought")
        if dvc_hash(temporary) != found.model:
            shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(f"{meaning} must be what is registered, {found.model}, and is not; it is left out")
        try:
            temporary.rename(folder)
        except OSError:  # another night has brought it meanwhile
            shutil.rmtree(temporary, ignore_errors=True)
    os.utime(folder)
    _evict(folder.parent)
    return Contender(roles=found.roles, version=found.version, commit=found.commit, model=found.model, folder=folder)


def _evict(models: Path) -> None:
    """Remove the models that have not been used for longest, and what killed processes have left."""
    remove_older_than(models, 1, f".*{UNFINISHED}*")
    whole = (path for path in models.iterdir() if path.is_dir() and UNFINISHED not in path.name)
    kept = sorted(whole, key=lambda path: path.stat().st_mtime)
    for path in kept[:-KEPT_MODELS]:
        shutil.rmtree(path, ignore_errors=True)


def training_days(product: str, version: str | None, commit: str | None) -> tuple[date, date] | None:
    """Return the first and the last day that a champion was trained on; None where that is not on record."""
    if commit is None:
        return None
    with registry_of(product) as registry:
        as_of = registry.as_of(commit)
    learnt = learnt_by(Champion(version=version or commit[:12], commit=commit, as_of=as_of), product)
    return (learnt.first, learnt.last) if learnt else None


def learnt_until(product: str, commits: Collection[str]) -> date | None:
    """Return the last date whose labels one of the models may have learnt from; None where no commit says it."""
    if not commits:
        return None
    with registry_of(product) as registry:
        as_ofs = [registry.as_of(commit) for commit in commits]
    return max((date.fromisoformat(as_of) for as_of in as_ofs if as_of), default=None)
