"""Bring back what a new clone lacks of git, and check that all is there from which the next night is made.

    make restore            on a new machine, of which git and the buckets are left
    make restore ALL=1      reads every byte of nights and data too: how a backup is checked

A clone has neither the experiments (refs/exps/*) nor, where tags were not asked for, the registry; where runs clone
this folder, they are fetched from the remote `origin` that it was cloned of. Nothing else has to be brought: each task
restores its run from git and the DVC remote. So that nobody learns at night that something is missing, it is looked
for here: of each product the parts of every night that stands, the experiments that nights name, the champion, the
data of champion and history in the DVC remote, and the salts by which stored rows are hashed, which may be no copy of
before those rows. Changes nothing but the refs of this clone, so that it may run anywhere, at any time, again.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks import params
from tasks.params import Product, Webhook
from tasks.publication.contracts import Manifest
from tasks.publication.object_store import Store
from tasks.publication.salts.table import SaltTable
from tasks.read import list_nights, verify_night
from tasks.rows.intake.erased import VARIABLE as ERASURE_KEY
from tasks.rows.intake.erased import file_of, known_key
from tasks.rows.raw_archive import INDEX
from tasks.runs.dvc import lock_at
from tasks.runs.objects import Needed, Objects, recorded_hashes
from tasks.runs.registry.tags import Registry
from tasks.runs.retention import EXPERIMENTS, clone_all, has_commit, kept_experiments, named_by_nights, newest_of
from tasks.runtime import faults
from tasks.runtime.errors import UserError
from tasks.runtime.git import git, try_git
from tasks.runtime.paths import Paths
from tasks.runtime.settings import ROOT, settings

MAX_SHOWN = 20
"""So many things that are missing are named."""
_REFS_AT_ONCE = 200


@dataclass
class Found:
    """What was found of a product."""

    line: str = ""
    """What there is, for a person to read."""
    missing: list[str] = field(default_factory=list)
    """What is not there, one line each."""


def restore(every_byte: bool = False) -> str:
    """Fetch the experiments, and look for all that the next nights need; return the last line.

    Raises UserError that names what is missing or damaged, TransientError where the origin, the store or the DVC remote
    does not answer.
    """
    print(f"restore: {fetch_experiments():,} experiments fetched", flush=True)
    missing = []
    settings().home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="restore-", dir=settings().home) as folder:
        clone = Path(folder) / "clone"
        clone_all(clone)
        remote = Objects.of_remote(clone)
        for product in params.loads(git("show", f"HEAD:{params.PARAMS_FILE}", cwd=clone)).products.values():
            found = look_at(clone, product, remote, every_byte)
            print(f"{product.name}: {found.line}", flush=True)
            faults.failpoint("restore: a product is looked at")
            missing += [f"products.{product.name}: {each}" for each in found.missing]
            for name in variables_of(product, clone):
                print(f"{product.name}: {name} must be set where its runs work, and is not here", flush=True)
    if missing:
        more = [f"and {len(missing) - MAX_SHOWN:,} more"] * (len(missing) > MAX_SHOWN)
        raise UserError(
            "what nights need must be in git and in the buckets, and this is not: bring it back from a backup or from "
            "a copy of the origin that has it, then run make restore again:\n" + "\n".join(missing[:MAX_SHOWN] + more)
        )
    return "restore: all is there from which the next nights are made"


def fetch_experiments() -> int:
    """Fetch the experiments and tags that this repository lacks, where runs clone it; return the experiments' number.

    What it has stays as it is. Nothing is fetched where runs clone another origin, which has them.
    """
    is_origin = settings().origin == str(ROOT) or Path(settings().origin).resolve() == ROOT.resolve()
    if not is_origin or try_git("remote", "get-url", "origin", cwd=ROOT) is None:
        return 0
    listed = [line.split()[1] for line in git("ls-remote", "origin", f"{EXPERIMENTS}*", cwd=ROOT).splitlines()]
    known = set(git("for-each-ref", "--format=%(refname)", EXPERIMENTS, cwd=ROOT).split())
    lacking = [reference for reference in listed if reference not in known]
    for first in range(0, len(lacking), _REFS_AT_ONCE):
        wanted = (f"{reference}:{reference}" for reference in lacking[first : first + _REFS_AT_ONCE])
        git("fetch", "--quiet", "--no-tags", "origin", *wanted, cwd=ROOT)
        faults.failpoint("restore: experiments are fetched")
    git("fetch", "--quiet", "--tags", "origin", cwd=ROOT)
    faults.failpoint("restore: the tags are fetched")
    return len(lacking)


def look_at(clone: Path, product: Product, remote: Objects, every_byte: bool) -> Found:
    """Return what there is of a product, and what is missing, by a clone of the origin with all of its refs."""
    found, nights = Found(), list_nights(product.publish.url, product.name)
    experiments, champion = kept_experiments(clone, product.name), Registry(clone, product.name).champion
    found.missing += _missing_of_nights(product, nights, every_byte)
    by_name = {each.name for each in experiments}
    for name, commit, night in named_by_nights(product):
        if not (commit and has_commit(clone, commit)) and name not in by_name:
            found.missing.append(f"the experiment {name or commit} of the night of {night}, in git")
    history = newest_of(experiments)
    needed = {f"the champion {champion.version}": champion.commit} if champion else {}
    needed |= {f"the history, {history.name}": history.commit} if history else {}
    if history and "salted" in product.pii.values():
        counted = _salts_of(clone, product, remote, history.commit)
        found.missing += SaltTable(Store(product.publish.url), product.name).missing(counted)
    n_objects = 0
    for meaning, commit in needed.items():
        wanted = Needed()
        wanted.add(recorded_hashes(clone, [commit]), [remote])
        n_objects += len(wanted.hashes)
        lost = sorted(each for each in wanted.hashes if not _is_whole(remote, each, every_byte))
        if lost:
            found.missing.append(
                f"{len(lost):,} of {len(wanted.hashes):,} objects of {meaning}, in {remote.name}, such as {lost[0]}"
            )
    newest = f", the newest of {nights[-1].dt}" if nights else ""
    found.line = (
        f"{len(nights):,} nights{newest}; {f'champion {champion.version}' if champion else 'no champion'}; "
        f"{f'history of {history.name}' if history else 'no history'}; {n_objects:,} objects in the DVC remote"
    )
    return found


def variables_of(product: Product, clone: Path) -> list[str]:
    """Return the environment variables that a product wants, by a clone of the origin, and that are not set here."""
    sources = [product.source, product.target.source, *product.sources.values()]
    named = [getattr(source, "url_env", None) for source in sources]
    if isinstance(product.publish.announce, Webhook):
        named += [product.publish.announce.url_env, product.publish.announce.secret_env]
    named += ["LAMPLIGHTER_PII_KEY"] if {"hash", "salted"} & {*product.pii.values()} else []
    has_erased = try_git("cat-file", "-e", f"HEAD:{file_of(product.name)}", cwd=clone) is not None
    named += [ERASURE_KEY] if has_erased and not known_key() else []
    return sorted({name for name in named if name and not os.environ.get(name)})


def _salts_of(clone: Path, product: Product, remote: Objects, commit: str) -> dict[str, int]:
    """Return how many salts the raw data of an experiment were stored with, by digit; none where the data are lost."""
    folder = lock_at(clone, commit).outs().get(str(Paths(product.name).raw), "")
    index = remote.read_file(folder, INDEX)
    try:
        return {**json.loads(index or b"{}").get("salts", {})}
    except ValueError:  # damaged: ALL=1 names it
        return {}


def _missing_of_nights(product: Product, nights: list[Manifest], every_byte: bool) -> Iterator[str]:
    store = Store(product.publish.url)
    listed = store.list(f"{product.name}/")
    for night in nights:
        keys = [part.key for part in night.parts] + ([night.file.key] if night.file else [])
        lost = [key for key in keys if store.key_of(key) not in listed]
        if lost:
            yield f"{len(lost):,} files of the night of {night.dt}, such as s3://{store.bucket}/{lost[0]}"
        elif every_byte:
            try:
                verify_night(product.publish.url, product.name, night.dt.isoformat())
            except UserError as error:
                yield str(error)


def _is_whole(remote: Objects, digest: str, every_byte: bool) -> bool:
    """Return whether an object lies in the remote, and, if asked for, whether its bytes are those of its name."""
    if digest not in remote.stored or not every_byte:
        return digest in remote.stored
    hashed = hashlib.md5(usedforsecurity=False)
    with remote.fs.open(remote.stored[digest].path, "rb") as body:
        while chunk := body.read(1 << 20):
            hashed.update(chunk)
    return hashed.hexdigest() == digest.partition(".")[0]
