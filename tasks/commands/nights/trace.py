"""Lead back from a published night or part: model, experiment, code, data, validation, approval.

    make trace URI=s3://lamplighter/predictions/flight-delays/dt=2013-06-30/_manifest.json

Takes the address of a manifest, of one in the history, of a night file or of a part. Reads the store, the origin's git
and, for the validation report, the DVC remote; changes nothing.
"""

import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from tasks.publication import manifests
from tasks.publication.contracts import Manifest, PublishedPart
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.publication.relocation import present_key
from tasks.runs import dvc, remote
from tasks.runs.experiments import experiments
from tasks.runs.registry.erasures import erasures_of
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import read_json
from tasks.runtime.git import git, has_fetched, try_git
from tasks.runtime.paths import Paths
from tasks.runtime.settings import settings

_ADDRESS = re.compile(r"(s3://.+)/([a-z][a-z0-9-]*[a-z0-9])/(?:_parts/)?dt=(\d{4}-\d\d-\d\d)/(.+)")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published manifest or part that an address leads to."""

    store: Store
    """Where the product's nights lie."""
    manifest: Manifest
    """The manifest that the address names, or that names it."""
    is_current: bool
    """Whether the manifest is the night's now; else another one has taken its place."""
    part: PublishedPart | None
    """The part, where the address names one."""

    @property
    def product(self) -> str:
        """Return the product's name."""
        return self.manifest.product


def find(uri: str) -> Published:
    """Return the manifest or part at an address. Raises UserError where no manifest lies at it or names it."""
    match = _ADDRESS.fullmatch(uri)
    as_of = _day(match[3]) if match else None
    if not match or not as_of:
        raise UserError(
            f"URI must be the address of a manifest or a part, got {uri!r}; use for example "
            "s3://lamplighter/predictions/flight-delays/dt=2013-06-30/_manifest.json"
        )
    place = NightPlace(store=Store(match[1]), product=match[2], as_of=as_of)
    current = manifests.current_manifest(place)
    if match[4] in (manifests.MANIFEST, manifests.NIGHT_FILE) and current:
        return Published(store=place.store, manifest=current, is_current=True, part=None)
    key = place.store.key_of(uri.removeprefix(f"s3://{place.store.bucket}/"))
    known = [*manifests.history(place), *([current] if current else [])]
    for manifest in reversed(known):
        whole = Published(store=place.store, manifest=manifest, is_current=manifest is current, part=None)
        if place.store.uri(place.history(manifest.generation)) == uri:
            return whole
        for part in manifest.parts:
            # An address may be older than the layout of now, and so may a manifest of the history.
            if present_key(place, place.store.key_of(part.key)) == present_key(place, key):
                return replace(whole, part=part)
    raise UserError(
        f"{uri}: must be a manifest or a part that one names, and is not; look at the folder's {manifests.MANIFEST}"
    )


def _day(text: str) -> date | None:
    with suppress(ValueError):
        return date.fromisoformat(text)
    return None


def trace(uri: str) -> str:
    """Return the way back, for a person to read. Raises UserError for an address that leads nowhere."""
    published = find(uri)
    manifest = published.manifest
    engine = manifest.inputs.engine.to_json()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        git("clone", "--quiet", "--bare", settings().origin, str(repository))
        lines = {
            **_of_the_night(published),
            **_of_the_model(published),
            **_of_the_code(repository, manifest),
            **_of_the_data(repository, published),
            "engine": ", ".join(f"{name} {value}" for name, value in sorted(engine.items())),
            "environment": f"constraints.txt of that revision (sha256 {manifest.inputs.environment_sha256[:12]})",
            "re-create it": f"make recreate URI={uri}",
        }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def experiment_commit(repository: Path, product: str, name: str | None, commit: str | None) -> str | None:
    """Fetch an experiment into a repository; return its commit, or None where the origin has it no more.

    A name may mean another commit by now, where the run was saved again: the commit that is asked for wins.
    """
    wanted = [each for each in experiments(product) if each.commit == commit or each.name == name]
    wanted.sort(key=lambda each: each.commit != commit)
    for source in [*([commit] if commit else []), *(each.reference for each in wanted)]:
        if has_fetched(source, repository):
            return git("rev-parse", "FETCH_HEAD", cwd=repository).strip()
    return None


def _of_the_night(published: Published) -> dict[str, str]:
    manifest, part = published.manifest, published.part
    rows = manifest.rows
    status = "stands" if published.is_current else "was replaced, and is kept in the history"
    if manifest.withdrawn:
        status = f"was WITHDRAWN by {manifest.withdrawn.person}: {manifest.withdrawn.reason}"
    lines = {
        "night": f"{published.product} of {manifest.dt}: {status}",
        "run": f"{manifest.run}, generation {manifest.generation}",
        f"rows of {manifest.scored_day}": f"{rows.rows_in:,} in = {rows.published:,} published in "
        f"{len(manifest.parts)} parts + {rows.quarantined:,} quarantined"
        + (f" + {rows.erased:,} erased since, on a person's word" if rows.erased else ""),
    }
    if manifest.accepted:
        lines["accepted"] = f"it differs in kind from the days before, and may pass: {manifest.accepted}"
    if manifest.held:
        lines["held"] = (
            f"{', '.join(map(str, manifest.held))}: no person has accepted these days; their rows are left out"
        )
    return {"part": f"{part.name}: {part.rows:,} rows, sha256 {part.sha256}", **lines} if part else lines


def _of_the_model(published: Published) -> dict[str, str]:
    model, unlisted = published.manifest.model, "an experiment that the origin lists no more"
    names = [each.name for each in experiments(published.product) if each.commit == model.commit]
    return {
        "model": f"{model.version}, sha256 {model.sha256}",
        "trained by": f"{names[0] if names else unlisted}, commit {model.commit}",
        "approval": model.approval or "none recorded",
    }


def _of_the_code(repository: Path, manifest: Manifest) -> dict[str, str]:
    revision = manifest.git_revision
    commit = experiment_commit(repository, manifest.product, manifest.experiment, manifest.experiment_commit)
    shown = try_git("show", "-s", "--format=%ci, %an: %s", revision, cwd=repository) or ""
    return {
        "experiment": f"{manifest.experiment}, commit {commit or 'not in the origin any more'}",
        "code": f"{revision} ({shown.strip() or 'not in the origin any more'})",
    }


def _of_the_data(repository: Path, published: Published) -> dict[str, str]:
    manifest, product = published.manifest, published.product
    lines = {"rows scored": f"sha256 {manifest.inputs.rows_sha256}"}
    commit = experiment_commit(repository, product, manifest.experiment, manifest.experiment_commit)
    if commit is None:
        return lines
    outs = dvc.lock_at(repository, commit).outs()
    paths, report = Paths(product), Paths(product).report("validation.json")
    gone = {*erasures_of(product).objects}
    for name, path in (("raw data", paths.raw), ("valid data", paths.valid), ("quarantined", paths.quarantine)):
        md5 = outs.get(str(path), "not recorded")
        lines[name] = f"{path}, md5 {md5}" + (", gone: it held rows that were erased" if md5 in gone else "")
    return {
        **lines,
        "validation": f"{report}, md5 {outs.get(str(report), 'not recorded')}: {_validation(commit, report)}",
    }


def _validation(commit: str, report: Path) -> str:
    """Return a line about the rows of the validation report."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            remote.get(commit, report, Path(folder) / "report", str(report), "the night itself is untouched")
        except (TransientError, UserError) as error:
            return f"could not be fetched from the DVC remote ({str(error).splitlines()[-1]})"
        day = read_json(Path(folder) / "report")["scored_day"]
    return f"{day['rows_in']:,} rows in, {day['rows_quarantined']:,} quarantined on the day that was scored"
